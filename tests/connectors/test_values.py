"""Wire values as destinations take them, and evidence as people may see it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.sdk.nouns import Change, Op
from sync.sdk.values import dumps, json_object, mask, path_part, text
from sync.sdk.values import given as given_by

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_reads_back_the_same(value: Any) -> None:
    assert json.loads(dumps(value)) == value


def test_integers_beyond_64_bits_are_exact() -> None:
    assert dumps({"id": 2**70}) == b'{"id":1180591620717411303424}'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (True, "true"),
        (False, "false"),
        (7, "7"),
        (12.5, "12.5"),
        ("as it is ", "as it is "),
        ([1, "a"], '[1,"a"]'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_values_become_the_text_of_forms_and_queries(value: Any, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(
    ("content", "expected"), [(b'{"a": 1}', {"a": 1}), (b"[]", None), (b"", None), (b"<p>", None)]
)
def test_only_a_json_object_counts_as_one(content: bytes, expected: Any) -> None:
    assert json_object(content) == expected


@pytest.mark.parametrize(
    ("evidence", "shown"),
    [
        ("bad address ana.lopez+x@mail.acme.example!", "bad address a•••@mail.acme.example!"),
        ("/people?email=ana%2Bx%40mail.acme.example&page=1", "/•••@mail.acme.example&page=1"),
        ("phone +61 412 345 678 is taken", "phone •••78 is taken"),
        ("(02) 9999-1234", "(•••34"),
        ("card 4111111111111111", "card •••11"),
        ("hash 9f86d081884c7d659a2feaa0c55ad015", "hash •••"),
        ("row 12345 of 99", "row 12345 of 99"),
        ("error 422: unknown country", "error 422: unknown country"),
    ],
)
def test_evidence_is_masked_where_it_names_a_person(evidence: str, shown: str) -> None:
    assert mask(evidence) == shown


@given(st.emails())
def test_no_address_survives_masking(address: str) -> None:
    assert address not in mask(f"refused: {address}, sorry")


@pytest.mark.parametrize(
    ("value", "part"), [("people", "people"), ("a/b?c", "a%2Fb%3Fc"), (None, ""), ("\ud800", "%3F")]
)
def test_whatever_an_audience_is_called_it_is_one_part_of_a_path(value: str | None, part: str) -> None:
    assert path_part(value) == part


def test_identifiers_that_are_missing_are_left_out_of_those_given() -> None:
    change = Change(Op.ADD, "ada", {"email": "ada@person.example", "phone": None, "device": "", "id": 0}, {})

    assert given_by(change) == {"email": "ada@person.example", "id": "0"}
