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


def _bare(value: str) -> str:
    """A phone number without an extension, and without a trunk prefix in brackets."""
    return f"regexp_replace({_text(value)}, '(?i)([(]0[)]|(ext|x|#|;).*$)', '', 'g')"


def _e164(value: str, argument: Argument) -> str:
    """Digits with a leading `+`; a national number gets the country's code, without its trunk prefix.

    An extension and a trunk prefix in brackets are cut off. A number that is written without `+` must be one of
    the country's. Country codes, trunk prefixes and patterns are those of libphonenumber's metadata
    (`nationalPrefix` and `generalDesc`).
    """
    digits = f"regexp_replace({_bare(value)}, '[^0-9+]', '', 'g')"
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
# One end after the other: RE2 takes half as long again for both in one pattern.
_TRIM = f"regexp_replace(regexp_replace({{x}}, '^{_SPACES}+', ''), '{_SPACES}+$', '')"
_EMAIL = f"lower({_TRIM})"


def _gmail(value: str, _argument: Argument) -> str:
    """Data Manager API, "Format user data", and the vendor's own formatter (data-manager-python, format.py).

    Before @gmail.com and @googlemail.com no dots, and nothing from a plus sign on; an address has one `@`,
    something on both sides of it, and no spaces.
    """
    mail = _EMAIL.format(x=_text(value))
    name = f"replace(regexp_replace(split_part({mail}, '@', 1), '[+].*$', ''), '.', '')"
    return (
        f"CASE WHEN {mail} IS NULL THEN NULL "
        f"WHEN NOT regexp_matches({mail}, '^[^@]+@[^@]+$') OR regexp_matches({mail}, '{_SPACE}') THEN '' "
        f"WHEN NOT regexp_matches({mail}, '@(gmail|googlemail)[.]com$') THEN {mail} "
        f"WHEN {name} = '' THEN '' ELSE {name} || '@' || split_part({mail}, '@', 2) END"
    )


def _phone_plus(value: str, _argument: Argument) -> str:
    """Data Manager API, "Format user data": E.164. The vendor's formatter puts a plus before whatever digits there
    are; those that cannot be a number with its country's code are none here."""
    full = f"'+' || regexp_replace(regexp_replace({_bare(value)}, '[^0-9]', '', 'g'), '^00', '')"
    return f"regexp_extract({full}, '^[+][1-9][0-9]{{6,14}}$')"


_POSTCODE = "([a-z]{1,2}[0-9][a-z0-9]?[0-9])[a-z]{2}"  # of the UK: area, district, sector; and unit


def _zip(value: str, _argument: Argument) -> str:
    """Meta, "Customer File Custom Audiences", hashing and normalization: lower case without spaces, five digits in
    the US, area, district and sector in the UK."""
    bare = f"regexp_replace(lower({_text(value)}), '{_SPACE}', '', 'g')"
    five = f"regexp_replace({bare}, '^([0-9]{{5}})-?[0-9]{{4}}$', '\\1')"
    return f"regexp_replace({five}, '^{_POSTCODE}$', '\\1')"


def _gender(value: str, _argument: Argument) -> str:
    word = _EMAIL.format(x=_text(value))
    women, men = "('f', 'female', 'woman', 'girl')", "('m', 'male', 'man', 'boy')"
    said = f"WHEN {word} IN {women} THEN 'f' WHEN {word} IN {men} THEN 'm'"
    return f"CASE WHEN {word} IS NULL THEN NULL {said} ELSE '' END"


_NAME = _TRIM.replace("{x}", "regexp_replace(lower({x}), '[\\p{{P}}]', '', 'g')")
_TWO_DIGITS = "regexp_replace(regexp_replace({x}, '[^0-9]', '', 'g'), '^([0-9])$', '0\\1')"
_COUNTRY = f"regexp_extract(upper({_TRIM}), '^[A-Z]{{{{2}}}}$')"


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
    "a_to_z": NamedTransform(
        "Keep the letters a to z only, in lower case, é as e",
        _plain("regexp_replace(strip_accents(lower({x})), '[^a-z]', '', 'g')"),
    ),
    "strip_accents": NamedTransform("Turn é into e", _plain("strip_accents({x})")),
    "email": NamedTransform("An e-mail address: trimmed, in lower case", _plain(_EMAIL)),
    "gmail": NamedTransform(
        "As `email`, and before @gmail.com without dots and what follows a `+`; empty if it is no address", _gmail
    ),
    "name": NamedTransform("A person's name: in lower case, without punctuation", _plain(_NAME)),
    "device_id": NamedTransform("A mobile advertising id: trimmed, in lower case", _plain(_EMAIL)),
    "e164": NamedTransform("A phone number as +61412345678; empty if it is none", _e164, "country", optional=True),
    "phone_plus": NamedTransform("A phone number's digits after a `+`; empty if they are none", _phone_plus),
    "phone_digits": NamedTransform(
        "Digits of a phone number, without leading zeros",
        _plain("ltrim(regexp_replace({x}, '[^0-9]', '', 'g'), '0')"),
    ),
    "zip": NamedTransform("A postal code without spaces; in the US its first five digits", _zip),
    "country_code": NamedTransform("A country as AU; empty if it is not two letters", _plain(_COUNTRY)),
    "country_lower": NamedTransform(
        "A country as au; empty if it is not two letters", _plain(f"lower({_COUNTRY})")
    ),
    "gender": NamedTransform("`f` or `m`; empty if it is another word", _gender),
    "two_digits": NamedTransform("A day or a month as two digits", _plain(_TWO_DIGITS)),
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
