"""Named transforms: what marketing ops write instead of SQL. Each turns one SQL expression into another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sync.engine.sql import literal
from sync.mapping import Transform

__all__ = ["TRANSFORMS", "BadTransform", "NamedTransform", "apply"]

Argument = str | int | float | bool | None

_LONGEST = 200_000  # characters of SQL: some transforms repeat the value they are given


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
    build: Callable[[str, Argument], str]
    argument: str = ""  # how messages call it; empty: it takes none
    optional: bool = False


def _text(value: str) -> str:
    return f"CAST({value} AS VARCHAR)"


def _plain(template: str) -> Callable[[str, Argument], str]:
    return lambda value, _argument: template.format(x=_text(value))


def _number(low: int, high: int, template: str) -> Callable[[str, Argument], str]:
    def build(value: str, argument: Argument) -> str:
        if isinstance(argument, bool) or not isinstance(argument, int) or not low <= argument <= high:
            raise BadTransform(f"takes a whole number from {low} to {high}")
        return template.format(x=value, t=_text(value), n=argument)

    return build


def _default(value: str, argument: Argument) -> str:
    constant = literal(argument) if isinstance(argument, str) else str(argument).upper()
    return f"coalesce({value}, {constant})"


def _e164(value: str, argument: Argument) -> str:
    """Digits with a leading `+`; a national number gets the country's code, without its trunk prefix.

    An extension and a trunk prefix in brackets are cut off. A number that is written without `+` must be one of
    the country's. Country codes, trunk prefixes and patterns are those of libphonenumber's metadata
    (`nationalPrefix` and `generalDesc`).
    """
    bare = f"regexp_replace({_text(value)}, '(?i)([(]0[)]|(ext|x|#|;).*$)', '', 'g')"
    digits = f"regexp_replace({bare}, '[^0-9+]', '', 'g')"
    full = f"regexp_replace({digits}, '^00', '+')"
    if argument is not None:
        code, trunk, pattern = _country(argument)
        # What matched begins with `+`, so that no later pattern matches it.
        whole = literal(rf"+{code}\1")
        for prefix in dict.fromkeys((trunk, "", str(code))):
            full = f"regexp_replace({full}, {literal(f'^{prefix}({pattern})$')}, {whole})"
    return f"regexp_extract({full}, '^[+][1-9][0-9]{{6,14}}$')"


def _country(argument: str | float) -> tuple[int, str, str]:
    """Its calling code, its trunk prefix, and the pattern of its national numbers."""
    import phonenumbers

    region = str(argument).upper()
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region, None)
    if metadata is None or metadata.general_desc is None:
        raise BadTransform("takes a country as two letters, such as AU or DE")
    trunk, pattern = metadata.national_prefix or "", metadata.general_desc.national_number_pattern or ""
    return phonenumbers.country_code_for_region(region), trunk if trunk.isdigit() else "", pattern


_SPACE = r"[\s\v\p{Z}\x{85}\x{200B}\x{2060}\x{FEFF}]"
r"""White space as people paste it: RE2's `\s` is ASCII, `\p{Z}` lacks zero-width spaces and byte order marks."""

_SPACES = _SPACE.replace("{", "{{").replace("}", "}}")  # inside a template
_TRIM = f"regexp_replace({{x}}, '^{_SPACES}+|{_SPACES}+$', '', 'g')"
_EMAIL = f"lower({_TRIM})"


def _gmail(value: str, _argument: Argument) -> str:
    """Google Ads, "Formatting guidelines for customer match": no dots before @gmail.com and @googlemail.com."""
    mail = _EMAIL.format(x=_text(value))
    name = f"replace(split_part({mail}, '@', 1), '.', '') || '@' || split_part({mail}, '@', 2)"
    return f"CASE WHEN regexp_matches({mail}, '^[^@]*@(gmail|googlemail)[.]com$') THEN {name} ELSE {mail} END"


TRANSFORMS: dict[str, NamedTransform] = {
    "trim": NamedTransform("Cut white space at both ends", _plain(_TRIM)),
    "lower": NamedTransform("To lower case", _plain("lower({x})")),
    "upper": NamedTransform("To upper case", _plain("upper({x})")),
    "collapse_spaces": NamedTransform(
        "Make runs of white space one space", _plain(f"trim(regexp_replace({{x}}, '{_SPACES}+', ' ', 'g'))")
    ),
    "digits": NamedTransform("Keep the digits only", _plain("regexp_replace({x}, '[^0-9]', '', 'g')")),
    "letters": NamedTransform(
        "Keep letters only, in lower case", _plain("regexp_replace(lower({x}), '[^\\p{{L}}]', '', 'g')")
    ),
    "strip_accents": NamedTransform("Turn é into e", _plain("strip_accents({x})")),
    "email": NamedTransform("An e-mail address: trimmed, in lower case", _plain(_EMAIL)),
    "gmail": NamedTransform("As `email`, and without dots before @gmail.com", _gmail),
    "e164": NamedTransform("A phone number as +61412345678; empty if it is none", _e164, "country", optional=True),
    "phone_digits": NamedTransform(
        "Digits of a phone number, without leading zeros",
        _plain("ltrim(regexp_replace({x}, '[^0-9]', '', 'g'), '0')"),
    ),
    "sha256": NamedTransform(
        "SHA-256 in lower-case hex; null of an empty text", _plain("sha256(nullif({x}, ''))")
    ),
    "md5": NamedTransform("MD5 in lower-case hex; null of an empty text", _plain("md5(nullif({x}, ''))")),
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
        built = named.build(value, transform.argument)
    except BadTransform as error:
        raise BadTransform(f"transform '{transform.name}' {error}", fix=error.fix) from None
    if len(built) > _LONGEST:
        raise BadTransform("too many transforms, one after another", fix="leave some out, or use the warehouse")
    return built
