"""Reading answers in the shapes that platforms document."""

from __future__ import annotations

import httpx
import pytest

from sync.errors import ProtocolError
from sync.sdk.answer import Shape, read, read_list


class Person(Shape):
    """Somebody."""

    id: str
    name: str = ""


def answer(content: bytes) -> httpx.Response:
    request = httpx.Request("GET", "https://api.acme.example/people?email=ada@person.example")
    return httpx.Response(200, content=content, request=request)


def test_what_is_read_has_to_be_there_and_the_rest_is_ignored() -> None:
    assert read(Person, answer(b'{"id": 7, "age": 40}')) == Person(id="7")
    assert read_list(Person, answer(b'[{"id": "7", "name": "Ada"}, {"id": 8}]')) == [
        Person(id="7", name="Ada"),
        Person(id="8"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"{}",
        b"[]",
        b'{"id": null}',
        b'{"id": "7"',
        b"\xff",
        b"[" * 100_000,
        b'{"id": ["ada@person.example"]}',
    ],
)
def test_any_other_answer_is_an_unknown_outcome_and_is_not_quoted(content: bytes) -> None:
    with pytest.raises(
        ProtocolError, match=r"api\.acme\.example sent an answer without the documented shape"
    ) as error:
        read(Person, answer(content))

    assert "ada@" not in str(error.value)
    assert error.value.__cause__ is error.value.__context__ is None
    with pytest.raises(ProtocolError):
        read_list(Person, answer(b"7" if content == b"[]" else content))


def test_an_empty_list_is_a_list() -> None:
    assert read_list(Person, answer(b"[]")) == []
    assert read(Person, httpx.Response(200, json={"id": "7"})) == Person(id="7")


def test_an_answer_that_came_without_a_request_has_no_host_to_name() -> None:
    with pytest.raises(ProtocolError, match="the destination sent"):
        read(Person, httpx.Response(200))
