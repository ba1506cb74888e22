"""Reads YAML and TOML files into plain data, remembering where every value stands.

`read` never raises for what a person wrote: a file that cannot be understood gives problems with a place, a
reason and a fix, all that were found and not only the first.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.errors import Problem
from sync.toml import places

__all__ = [
    "Document",
    "Location",
    "Mark",
    "Unreadable",
    "known",
    "named",
    "nearest",
    "read_toml",
    "read_yaml",
    "suggest",
    "toml_document",
]

Location = tuple[str | int, ...]
"""The way to a value: `("syncs", 0, "mode")`."""

_MAX_BYTES = 256 * 1024
_MAX_VALUES = 50_000
_EXCERPT = 160
_HEADING = re.compile(r"^\s*\[[\w.\- \[\]]*$")  # of a TOML table


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in a file; both count from 1."""

    line: int
    column: int


class Unreadable(Exception):
    """The file gave no data; `problems` say why."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(problems[0].message)
        self.problems = list(problems)


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its data and the places of its keys and values.

    `masked` hides what stands after `=` in excerpts: a config file may hold a secret by mistake.
    """

    file: str  # as messages show it
    text: str
    data: dict[str, Any] = field(default_factory=dict)
    keys: Mapping[Location, Mark] = field(default_factory=dict)
    values: Mapping[Location, Mark] = field(default_factory=dict)
    masked: bool = False

    def mark(self, location: Location, *, key: bool = False) -> Mark | None:
        """Where the value (or its key) stands, or else what is nearest around it."""
        first, second = (self.keys, self.values) if key else (self.values, self.keys)
        for end in range(len(location), -1, -1):
            found = first.get(location[:end]) or second.get(location[:end])
            if found is not None:
                return found
        return None

    def known(self, location: Iterable[str | int]) -> Location:
        """The longest part of the way that the file really has."""
        return known(self.data, location)

    def problem(
        self,
        location: Location,
        code: str,
        message: str,
        fix: str = "",
        *,
        key: bool = False,
        warning: bool = False,
    ) -> Problem:
        """A problem of the value there (or of its key)."""
        mark = self.mark(location, key=key)
        if mark is None:
            return Problem(code, message, fix, self.file, warning=warning)
        return self.at(mark, code, message, fix, warning=warning)

    def at(self, mark: Mark, code: str, message: str, fix: str = "", *, warning: bool = False) -> Problem:
        """A problem at a place."""
        return Problem(code, message, fix, self.file, mark.line, mark.column, self.excerpt(mark.line), warning)

    def excerpt(self, line: int) -> str:
        """The line as it is shown: cut, and without values where they may be secret."""
        lines = self.text.split("\n")
        text = lines[line - 1].rstrip("\r")[:_EXCERPT] if 0 < line <= len(lines) else ""
        if not self.masked:
            return text
        key, equals, _ = text.partition("=")
        return f"{key}{equals} …" if equals else (text if _HEADING.match(text) else "")


def known(data: Any, location: Iterable[str | int]) -> Location:
    """The longest part of the way that leads somewhere in the data."""
    way: Location = ()
    for step in location:
        inside = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
        if step not in inside:
            break
        way, data = (*way, step), data[step]
    return way


# --- did you mean ---------------------------------------------------------------------------------------------


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant."""
    lower = {name.lower(): name for name in names}
    wanted = word.lower()
    if wanted in lower:
        return lower[wanted]
    close = difflib.get_close_matches(wanted, lower, n=1, cutoff=0.6)
    return lower[close[0]] if close else None


def named(names: Iterable[str], most: int = 12) -> str:
    """Names in one line, in their order: `a, b, c`."""
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(f"`{name}`" for name in listed[:most]) + more


def suggest(word: str, names: Iterable[str], kind: str) -> str:
    """The fix for an unknown name: `did you mean`, or else what there is."""
    listed = list(names)
    if (near := nearest(word, listed)) is not None:
        return f"Did you mean `{near}`?"
    return f"{kind}: {named(listed)}." if listed else ""


# --- text -----------------------------------------------------------------------------------------------------


def _text(path: Path, shown: str) -> str:
    """The file's text without a byte order mark; raises `Unreadable`."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise Unreadable(Problem("HG102", f"cannot read the file: {reason}", _READ_FIX, shown)) from None
    if len(raw) > _MAX_BYTES:
        fix = "Split it: one file a cohort, and long queries as views in the warehouse."
        raise Unreadable(Problem("HG102", f"the file is larger than {_MAX_BYTES // 1024} KiB", fix, shown))
    return _decoded(raw, shown)


_READ_FIX = "Check that it exists and that this user may read it."


def _decoded(raw: bytes, shown: str) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        fix = "Save the file with the encoding UTF-8."
        raise Unreadable(Problem("HG102", "the file is not UTF-8 text", fix, shown, line, column)) from None
    if not text.strip():
        raise Unreadable(Problem("HG102", "the file is empty", "Fill it, or delete it.", shown))
    return text


# --- YAML -----------------------------------------------------------------------------------------------------


def read_yaml(path: Path, shown: str) -> Document:
    """A YAML 1.2 file whose top level has keys; raises `Unreadable`."""
    text = _text(path, shown)
    bare = Document(shown, text)
    walk = _YamlWalk(bare)
    data = walk.value(_compose(bare), ())
    if walk.problems:
        raise Unreadable(*walk.problems)
    if not isinstance(data, dict):
        raise Unreadable(bare.at(Mark(1, 1), "HG107", "the file must hold keys at its top level", _TOP_FIX))
    return Document(shown, text, data, walk.keys, walk.values)


_TOP_FIX = "Write `key: value` lines."


def _compose(bare: Document) -> Any:
    """The file's node graph: keys are not yet made unique, and aliases are shared nodes."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if bare.text.startswith("%"):
        raise Unreadable(bare.at(Mark(1, 1), "HG103", "YAML directives are not supported", "Delete the line."))
    try:
        node = YAML(typ="safe", pure=True).compose(bare.text)
    except MarkedYAMLError as error:
        raise Unreadable(_syntax(bare, error)) from None
    except YAMLError as error:
        raise Unreadable(_character(bare, getattr(error, "position", 0))) from None
    except RecursionError:
        raise Unreadable(Problem("HG103", "values are nested too deeply", "Make it flatter.", bare.file)) from None
    if node is None:
        raise Unreadable(Problem("HG102", "the file holds only comments", "Fill it, or delete it.", bare.file))
    return node


def _syntax(bare: Document, error: Any) -> Problem:
    what = (error.problem or "not YAML").replace("\\t", "a tab")
    mark = error.problem_mark or error.context_mark
    place = Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)
    if "cannot start any token" in what and bare.excerpt(place.line).lstrip(" ").startswith("\t"):
        return bare.at(place, "HG103", "a tab stands where YAML wants spaces", "Indent with spaces.")
    context = f" {error.context}" if error.context else ""
    if error.context_mark is not None and "end" in what:
        place = Mark(error.context_mark.line + 1, error.context_mark.column + 1)
    return bare.at(place, "HG103", f"not YAML: {what}{context}", _syntax_fix(what))


def _syntax_fix(what: str) -> str:
    hints = {
        "mapping values are not allowed": "Put a value that holds `: ` in quotes.",
        "but found another document": "Keep one cohort a file; delete the line `---`.",
        "undefined alias": "Put a value that begins with `*` in quotes.",
        "duplicate anchor": "Give each anchor its own name.",
        "end": "Close the bracket or the quote that was opened here.",
        "cannot start any token": "Put a value that begins with `@`, a backquote or `%` in quotes.",
    }
    return next((fix for part, fix in hints.items() if part in what), "Check the indentation and the quotes.")


def _character(bare: Document, position: int) -> Problem:
    line = bare.text.count("\n", 0, position) + 1
    column = position - bare.text.rfind("\n", 0, position)
    return Problem("HG103", "a control character stands here", "Delete it.", bare.file, line, column)


class _YamlWalk:
    """Turns nodes into plain data, noting places and collecting problems."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.keys: dict[Location, Mark] = {}
        self.values: dict[Location, Mark] = {}
        self.problems: list[Problem] = []
        self._open: set[int] = set()
        self._left = _MAX_VALUES

    def value(self, node: Any, location: Location) -> Any:
        """The node's data."""
        self.values[location] = _mark(node)
        self._left -= 1
        if self._left == 0:
            fix = "Repeat less: use fewer aliases (`*name`)."
            self._note(node, "HG103", "the file unfolds to too many values", fix)
            raise Unreadable(*self.problems)
        if node.id == "scalar":
            return self._scalar(node)
        if id(node) in self._open:
            self._note(node, "HG103", "an anchor contains itself", "Write the value out.")
            return None
        self._open.add(id(node))
        data = self._mapping(node, location) if node.id == "mapping" else self._sequence(node, location)
        self._open.discard(id(node))
        return data

    def _mapping(self, node: Any, location: Location) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar" or str(key.tag) == "tag:yaml.org,2002:merge":
                self._note(key, "HG103", "only plain names can be keys", "Write `name: value`.")
                continue
            name = str(key.value)
            if name in data:
                first = self.keys[(*location, name)].line
                fix = "Keep one of the two."
                self._note(key, "HG104", f"the key `{name}` stands here twice, first in line {first}", fix)
                continue
            self.keys[(*location, name)] = _mark(key)
            data[name] = self.value(value, (*location, name))
        return data

    def _sequence(self, node: Any, location: Location) -> list[Any]:
        return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]

    def _scalar(self, node: Any) -> Any:
        kind, text = str(node.tag).rpartition(":")[2], str(node.value)
        try:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")  # JSON writes some in two halves
        except UnicodeDecodeError:
            self._note(node, "HG103", "an escape stands for half a character", "Write the character itself.")
            return None
        if kind in ("str", "timestamp"):  # dates stay text: a column has them, a mapping does not
            return text
        try:
            return _SCALARS[kind](text.replace("_", ""))
        except (KeyError, ValueError):
            self._note(node, "HG103", f"values of the kind `{kind}` are not supported", "Put it in quotes.")
            return None

    def _note(self, node: Any, code: str, message: str, fix: str) -> None:
        self.problems.append(self.document.at(_mark(node), code, message, fix))


def _integer(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    return sign * (int(digits, 0) if digits[:2] in ("0x", "0o", "0b") else int(digits))


def _number(text: str) -> float:
    return float(text.replace(".inf", "inf").replace(".nan", "nan").replace(".NaN", "nan"))


_SCALARS: dict[str, Any] = {
    "int": _integer,
    "float": _number,
    "bool": lambda text: text.lower() == "true",
    "null": lambda _text: None,
}


def _mark(node: Any) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)


# --- TOML -----------------------------------------------------------------------------------------------------


def read_toml(path: Path, shown: str) -> Document:
    """A TOML file; raises `Unreadable`. Its excerpts never show values."""
    return toml_document(_text(path, shown), shown)


def toml_document(text: str, shown: str) -> Document:
    """The same of a text that was read already."""
    bare = Document(shown, text, masked=True)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Unreadable(_toml_syntax(bare, str(error))) from None
    except ValueError:
        raise Unreadable(
            Problem("HG103", "a number has thousands of digits", "Write it shorter.", shown)
        ) from None
    except RecursionError:
        raise Unreadable(Problem("HG103", "values are nested too deeply", "Make it flatter.", shown)) from None
    keys, values = ({way: Mark(*place) for way, place in found.items()} for found in places(text))
    return Document(shown, text, data, keys, values, masked=True)


def _toml_syntax(bare: Document, message: str) -> Problem:
    what, _, place = message.partition(" (at ")
    numbers = [int(word.strip(",)")) for word in place.split() if word.strip(",)").isdigit()]
    mark = Mark(*numbers) if len(numbers) == 2 else Mark(max(1, len(bare.text.splitlines())), 1)
    if "overwrite" in what or "Cannot declare" in what:
        return bare.at(mark, "HG104", "this key or table stands in the file twice", "Keep one of the two.")
    fix = 'Text needs quotes: `name = "text"`; a table\'s name stands in brackets: `[table]`.'
    return bare.at(mark, "HG103", f"not TOML: {what[:1].lower()}{what[1:]}", fix)
