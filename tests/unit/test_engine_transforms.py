"""Named transforms on real values in DuckDB."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.engine.transforms import TRANSFORMS, BadTransform, apply
from sync.mapping import Transform

DB = duckdb.connect()


def run(value: Any, *transforms: Any, type: str = "VARCHAR") -> Any:
    sql = "v"
    for transform in transforms:
        sql = apply(sql, Transform.model_validate(transform))
    return DB.execute(f"SELECT {sql} FROM (SELECT ?::{type} AS v)", [value]).fetchall()[0][0]


SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff"


@pytest.mark.parametrize(
    ("value", "transform", "expected"),
    [
        (f"{SPACES}a{SPACES}b{SPACES}", "trim", f"a{SPACES}b"),
        ("a\n", "trim", "a"),
        ("\u00a0\n", "trim", ""),
        ("ÀB", "lower", "àb"),
        ("é1", "upper", "É1"),
        (" a \u00a0\n b ", "collapse_spaces", "a b"),
        ("+61 (4) 12", "digits", "61412"),
        ("O'Néill 3", "letters", "onéill"),
        ("Zoë Ångström", "strip_accents", "Zoe Angstrom"),
        ("\u00a0ANN@X.Example\r\n", "email", "ann@x.example"),
        (" J.D.oe@GMail.com ", "gmail", "jdoe@gmail.com"),
        ("a.b+c@googlemail.com", "gmail", "ab@googlemail.com"),
        ("user.name+NYC@Example.com", "gmail", "user.name+nyc@example.com"),
        ("a.b@mygmail.com", "gmail", "a.b@mygmail.com"),
        ("a.b@gmail.com.au", "gmail", "a.b@gmail.com.au"),
        ("a.b@gmail.com@x", "gmail", ""),
        ("a b@x.example", "gmail", ""),
        ("@x.example", "gmail", ""),
        ("...+x@gmail.com", "gmail", ""),
        ("0061 412", "phone_digits", "61412"),
        ("1 (800) 555-0100 ext. 12", "phone_plus", "+18005550100"),
        ("0044 (0)113 496 0987", "phone_plus", "+441134960987"),
        ("0412 345 678", "phone_plus", ""),
        ("call me", "phone_plus", ""),
        ("\u00a0 Anne-Marie O'Néill Jr. ", "name", "annemarie onéill jr"),
        ("São Paulo-2", "a_to_z", "saopaulo"),
        (" 94046-1234 ", "zip", "94046"),
        ("940461234", "zip", "94046"),
        ("SW1A 1AA", "zip", "sw1a1"),
        ("1229-076", "zip", "1229-076"),
        ("K1A 0B1", "zip", "k1a0b1"),
        (" au\n", "country_code", "AU"),
        ("Australia", "country_code", ""),
        (" AU", "country_lower", "au"),
        (" Woman ", "gender", "f"),
        ("M", "gender", "m"),
        ("x", "gender", ""),
        ("7", "two_digits", "07"),
        ("11.", "two_digits", "11"),
        (" AECE52E7-03EE\n", "device_id", "aece52e7-03ee"),
        ("ann", "sha256", hashlib.sha256(b"ann").hexdigest()),
        ("é", "md5", hashlib.md5("é".encode()).hexdigest()),
        ("", "sha256", None),
        ("", "md5", None),
        ("añb", {"truncate": 2}, "añ"),
        ("", "empty_to_null", None),
        (" ", "empty_to_null", " "),
        (None, {"default": "it's"}, "it's"),
        ("x", {"default": "y"}, "x"),
        ("12", "integer", 12),
        ("x", "integer", None),
        ("1.5", "number", 1.5),
        ("true", "boolean", True),
        ("maybe", "boolean", None),
        ("2020-02-29", "date", date(2020, 2, 29)),
        ("2021-02-29", "date", None),
    ],
)
def test_a_transform_makes(value: Any, transform: Any, expected: Any) -> None:
    assert run(value, transform) == expected


@pytest.mark.parametrize("name", TRANSFORMS)
def test_the_reference_has_each_transform_with_its_help(name: str) -> None:
    lines = (Path(__file__).parents[2] / "docs" / "reference" / "transforms.md").read_text().splitlines()

    (row,) = [line for line in lines if line.startswith((f"| `{name}` |", f"| `{{{name}: "))]
    assert row.endswith(f"| {TRANSFORMS[name].help} |")


@pytest.mark.parametrize("name", [n for n in TRANSFORMS if n not in ("default", "truncate", "round")])
def test_null_stays_null(name: str) -> None:
    assert run(None, name) is None


@pytest.mark.parametrize(
    ("value", "transform", "type", "expected"),
    [
        (2.345, {"round": 2}, "DOUBLE", 2.35),
        (None, {"default": True}, "BOOLEAN", True),
        (None, {"default": 1.5}, "DOUBLE", 1.5),
        (None, {"default": -3}, "INTEGER", -3),
        (7, "text", "INTEGER", "7"),
        (7, "sha256", "INTEGER", hashlib.sha256(b"7").hexdigest()),
    ],
)
def test_a_transform_of_a_type(value: Any, transform: Any, type: str, expected: Any) -> None:
    found = run(value, transform, type=type)
    assert (found, found.__class__) == (expected, expected.__class__)


@pytest.mark.parametrize(
    ("value", "country", "expected"),
    [
        ("0412 345 678", "AU", "+61412345678"),
        ("(08) 9123-4567", "au", "+61891234567"),
        ("+61 (0)412 345 678", "DE", "+61412345678"),
        ("61412345678", "AU", "+61412345678"),  # with its country, without the plus
        ("0061412345678", "AU", "+61412345678"),
        ("0412 345 678 ext. 12", "AU", "+61412345678"),
        ("+14155552671;ext=9", "AU", "+14155552671"),
        ("(415) 555-2671", "US", "+14155552671"),
        ("1 415 555 2671", "US", "+14155552671"),
        ("06 1234 5678", "IT", "+390612345678"),  # Italy keeps its zero
        ("8 912 345-67-89", "RU", "+79123456789"),
        ("800 555 35 35", "RU", "+78005553535"),  # begins like the trunk prefix
        ("030 901820", "DE", "+4930901820"),
        ("0412", "AU", ""),
        ("call me", "AU", ""),
        ("", "AU", ""),
        (None, "AU", None),
        ("+0412345678", "AU", ""),
        ("+6141234567890123456", "AU", ""),
    ],
)
def test_a_phone_number_of_a_country(value: str | None, country: str, expected: str | None) -> None:
    assert run(value, {"e164": country}) == expected


@pytest.mark.parametrize(("value", "expected"), [("+44 20 7946 0958", "+442079460958"), ("020 7946 0958", "")])
def test_without_a_country_only_international_numbers_are_any(value: str, expected: str) -> None:
    assert run(value, "e164") == expected


@pytest.mark.parametrize(
    "region", ["AU", "DE", "US", "GB", "FR", "IT", "RU", "JP", "BR", "IN", "ZA", "NZ", "MX", "SE"]
)
@pytest.mark.parametrize("style", ["NATIONAL", "INTERNATIONAL", "E164"])
def test_numbers_that_libphonenumber_writes_are_read(region: str, style: str) -> None:
    for kind in (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE):
        number = phonenumbers.example_number_for_type(region, kind)
        written = phonenumbers.format_number(number, getattr(phonenumbers.PhoneNumberFormat, style))
        assert run(written, {"e164": region}) == phonenumbers.format_number(
            number, phonenumbers.PhoneNumberFormat.E164
        )


@given(st.text(max_size=30))
@settings(max_examples=30, deadline=None)
def test_whatever_the_text_the_forms_are_stable(text: str) -> None:
    text = text.replace("\0", "").encode("utf-8", "ignore").decode()
    stable = {
        "trim",
        "email",
        "gmail",
        "collapse_spaces",
        "digits",
        "letters",
        "phone_digits",
        "phone_plus",
        "name",
    }
    for name in stable | {"a_to_z", "zip", "country_code", "country_lower", "gender", "two_digits", "device_id"}:
        once = run(text, name)
        assert run(once, name) == once, name
    assert run(text, {"e164": "AU"}) in ("", run(run(text, {"e164": "AU"}), {"e164": "AU"}))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ({"trim": 3}, "takes no argument"),
        ("truncate", "needs its length"),
        ({"truncate": "x"}, "whole number from 1"),
        ({"truncate": 0}, "whole number from 1"),
        ({"truncate": True}, "whole number from 1"),
        ({"round": 99}, "whole number from 0 to 12"),
        ({"e164": "Mars"}, "two letters"),
        ({"e164": "'"}, "two letters"),
        ("default", "needs its value"),
        ("shout", "unknown transform"),
    ],
)
def test_a_wrong_transform_says_why(transform: Any, message: str) -> None:
    with pytest.raises(BadTransform, match=message):
        apply("v", Transform.model_validate(transform))
