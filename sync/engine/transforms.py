"""Named transforms: what marketing ops write instead of SQL. Each turns one SQL expression into another."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from sync.engine.database import literal
from sync.mapping import Transform

__all__ = ["TRANSFORMS", "BadTransform", "NamedTransform", "apply"]


class BadTransform(ValueError):
    """An unknown transform or a wrong argument; the message is for people."""

    def __init__(self, message: str, *, unknown: bool = False, fix: str = "") -> None:
        super().__init__(message)
        self.unknown = unknown
        self.fix = fix


@dataclass(frozen=True, slots=True)
class NamedTransform:
    """`build` gets the SQL of the value, and the argument where one is taken."""

    help: str
    build: Callable[[str, str | int | None], str]
    argument: str = ""  # how messages call it; empty: it takes none
    optional: bool = False


def _text(value: str) -> str:
    return f"CAST({value} AS VARCHAR)"


def _plain(template: str) -> Callable[[str, str | int | None], str]:
    return lambda value, _argument: template.format(x=_text(value))


def _number(low: int, high: int, template: str) -> Callable[[str, str | int | None], str]:
    def build(value: str, argument: str | int | None) -> str:
        if isinstance(argument, bool) or not isinstance(argument, int) or not low <= argument <= high:
            raise BadTransform(f"takes a whole number from {low} to {high}")
        return template.format(x=value, t=_text(value), n=argument)

    return build


def _default(value: str, argument: str | int | None) -> str:
    constant = literal(argument) if isinstance(argument, str) else str(argument)
    return f"coalesce({value}, {constant})"


def _e164(value: str, argument: str | int | None) -> str:
    """Digits with a leading `+`; a national number gets the country's code, without its trunk prefix.

    Country codes and trunk prefixes are those of libphonenumber's metadata.
    """
    digits = f"regexp_replace({_text(value)}, '[^0-9+]', '', 'g')"
    international = f"regexp_replace({digits}, '^00', '+')"
    if argument is None:
        full = international
    else:
        code, trunk = _country(argument)
        national = f"regexp_replace({international}, '^{trunk}', '')" if trunk else international
        full = f"CASE WHEN {international} LIKE '+%' THEN {international} ELSE '+{code}' || {national} END"
    return f"regexp_extract({full}, '^[+][1-9][0-9]{{6,14}}$')"


def _country(argument: str | int) -> tuple[int, str]:
    import phonenumbers

    region = str(argument).upper()
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if metadata is None:
        raise BadTransform("takes a country as two letters, such as AU or DE")
    trunk = metadata.national_prefix or ""
    return phonenumbers.country_code_for_region(region), trunk if re.fullmatch(r"\d*", trunk) else ""


_GMAIL = (
    "CASE WHEN regexp_matches({x}, '@(gmail|googlemail)[.]com$') "
    "THEN replace(split_part({x}, '@', 1), '.', '') || '@' || split_part({x}, '@', 2) ELSE {x} END"
)

TRANSFORMS: dict[str, NamedTransform] = {
    "trim": NamedTransform(
        "Cut white space at both ends", _plain("regexp_replace({x}, '^[\\s\\p{{Z}}]+|[\\s\\p{{Z}}]+$', '', 'g')")
    ),
    "lower": NamedTransform("To lower case", _plain("lower({x})")),
    "upper": NamedTransform("To upper case", _plain("upper({x})")),
    "collapse_spaces": NamedTransform(
        "Make runs of white space one space", _plain("trim(regexp_replace({x}, '[\\s\\p{{Z}}]+', ' ', 'g'))")
    ),
    "digits": NamedTransform("Keep the digits only", _plain("regexp_replace({x}, '[^0-9]', '', 'g')")),
    "letters": NamedTransform(
        "Keep letters only, in lower case", _plain("regexp_replace(lower({x}), '[^\\p{{L}}]', '', 'g')")
    ),
    "strip_accents": NamedTransform("Turn é into e", _plain("strip_accents({x})")),
    "email": NamedTransform("An e-mail address: trimmed, in lower case", _plain("lower(trim({x}))")),
    "gmail": NamedTransform("As `email`, and without dots before @gmail.com", _plain(_GMAIL)),
    "e164": NamedTransform("A phone number as +61412345678; empty if it is none", _e164, "country", optional=True),
    "phone_digits": NamedTransform(
        "Digits of a phone number, without leading zeros",
        _plain("ltrim(regexp_replace({x}, '[^0-9]', '', 'g'), '0')"),
    ),
    "sha256": NamedTransform("SHA-256 in lower-case hex", _plain("sha256({x})")),
    "md5": NamedTransform("MD5 in lower-case hex", _plain("md5({x})")),
    "truncate": NamedTransform("Cut after so many characters", _number(1, 100_000, "left({t}, {n})"), "length"),
    "round": NamedTransform("Round to so many places", _number(0, 12, "round({x}, {n})"), "places"),
    "empty_to_null": NamedTransform("Make an empty text null", _plain("nullif({x}, '')")),
    "default": NamedTransform("Use this where the value is null", _default, "value"),
    "text": NamedTransform("To text", _plain("{x}")),
    "integer": NamedTransform("To a whole number", lambda v, _a: f"TRY_CAST({v} AS BIGINT)"),
    "number": NamedTransform("To a number", lambda v, _a: f"TRY_CAST({v} AS DOUBLE)"),
    "boolean": NamedTransform("To true or false", lambda v, _a: f"TRY_CAST({v} AS BOOLEAN)"),
    "date": NamedTransform("To a date", lambda v, _a: f"TRY_CAST({v} AS DATE)"),
}


def apply(value: str, transform: Transform) -> str:
    """The SQL of the transformed value. Raises `BadTransform`."""
    named = TRANSFORMS.get(transform.name)
    if named is None:
        raise BadTransform(f"unknown transform '{transform.name}'", unknown=True)
    if transform.argument is None and named.argument and not named.optional:
        raise BadTransform(
            f"transform '{transform.name}' needs its {named.argument}",
            fix=f"write {{{transform.name}: {named.argument.upper()}}}",
        )
    if transform.argument is not None and not named.argument:
        raise BadTransform(f"transform '{transform.name}' takes no argument", fix=f"write {transform.name}")
    try:
        return named.build(value, transform.argument)
    except BadTransform as error:
        raise BadTransform(f"transform '{transform.name}' {error}", fix=error.fix) from None
