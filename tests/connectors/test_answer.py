"""Reading answers in the shapes that platforms document."""

from __future__ import annotations

import httpx
import pytest
from pydantic import Field

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


@pytest.mark.parametrize(
    "denial", ['"error": {"code": 7}', '"errors": [{"message": "no"}]', '"errors": "no"', '"success": false']
)
def test_an_answer_that_takes_itself_back_is_no_answer(denial: str) -> None:
    content = f'{{"id": "7", "note": "ada@person.example", {denial}}}'.encode()
    with pytest.raises(ProtocolError, match=r"api\.acme\.example sent an answer that contradicts itself") as error:
        read(Person, answer(content))

    assert "ada@" not in str(error.value)


@pytest.mark.parametrize("nothing", ['"error": null', '"errors": []', '"error": ""', '"success": true', '"ok": 1'])
def test_an_answer_that_names_no_error_is_one(nothing: str) -> None:
    assert read(Person, answer(f'{{"id": "7", {nothing}}}'.encode())) == Person(id="7")


class Told(Shape):
    """An answer that tells of errors one by one."""

    problems: list[str] = Field(alias="errors")
    success: bool


def test_errors_that_a_shape_reads_are_its_own_to_judge() -> None:
    told = read(Told, answer(b'{"errors": ["no"], "success": false}'))

    assert (told.problems, told.success) == (["no"], False)


def test_what_stands_under_a_name_is_read_alone() -> None:
    assert read(Person, answer(b'{"data": {"id": 7}, "page": 1}'), at="data") == Person(id="7")
    assert read(list[Person], answer(b'{"people": [{"id": 7}]}'), at="people") == [Person(id="7")]
    assert read(dict[str, str], answer(b'{"fields": {"age": "long"}}'), at="fields") == {"age": "long"}
    assert read(str, answer(b'{"message": "done"}'), at="message") == "done"


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"people": {}}', b'{"people": [{"name": "Ada"}]}'])
def test_what_does_not_stand_under_its_name_is_an_unknown_outcome(content: bytes) -> None:
    with pytest.raises(ProtocolError, match="without the documented shape"):
        read(list[Person], answer(content), at="people")


def test_an_answer_that_takes_back_what_stands_under_a_name_is_an_unknown_outcome() -> None:
    with pytest.raises(ProtocolError, match="contradicts itself"):
        read(list[Person], answer(b'{"people": [{"id": 7}], "error": "no"}'), at="people")
