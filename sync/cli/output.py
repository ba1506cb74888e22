"""What is printed: results on stdout, everything else on stderr, and one JSON document where it was asked for."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING, Any, Literal

import click

from sync.cli.trace import trace
from sync.errors import HeadgateError, Problem, ProjectError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sync.cli.options import Options

__all__ = [
    "console",
    "document",
    "failure",
    "fancy",
    "internal",
    "problem_data",
    "say",
    "show_problems",
    "table",
    "visible",
]

_ICONS = {"error": "✗", "warning": "⚠", "ok": "✓"}
_COLOURS = {"error": "red", "warning": "yellow", "ok": "green"}


# Control characters but tab and line feed, and those that change the direction of text (UAX #9).
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_printed = threading.local()  # did this command print its document


def begin() -> None:
    """A command begins: nothing was printed yet."""
    _printed.document = False


def document(command: str, **fields: Any) -> None:
    """Print the command's one JSON document on stdout."""
    _printed.document = True
    click.echo(json.dumps({"schema": 1, "command": command, **fields}, ensure_ascii=False, default=str))


def visible(text: str) -> str:
    """The text with what a terminal would obey, or show in another order, spelled out: `\\x1b`, `\\u202e`."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def say(text: str = "", *, kind: str = "", err: bool = False) -> None:
    """Print a line; `kind` (ok, warning, error) puts its icon in front, and its colour where there is any."""
    text = visible(text)
    if not kind:
        click.echo(text, err=err)
        return
    console(err=err).print(f"{_ICONS[kind]} {text}", style=_COLOURS[kind], markup=False, soft_wrap=True)


def fancy(stream: IO[str]) -> bool:
    """May this stream be given bars, spinners and box-drawing?"""
    return stream.isatty() and os.environ.get("TERM", "") != "dumb"


def console(*, err: bool = False) -> Console:
    """A Rich console; it honours NO_COLOR, FORCE_COLOR and TERM by itself, and CLICOLOR=0 by us."""
    from rich.console import Console

    plain = True if os.environ.get("CLICOLOR") == "0" and not os.environ.get("FORCE_COLOR") else None
    return Console(stderr=err, highlight=False, markup=False, no_color=plain, emoji=False)


def table(*columns: str, right: Iterable[str] = (), fold: Iterable[str] = ()) -> Table:
    """A table without ruling; where 80 columns are too few, the cells of `fold` are folded."""
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    numeric, folded = set(right), set(fold)
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in numeric else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column not in folded)
    return made


def problem_data(problem: Problem) -> dict[str, Any]:
    """A problem as JSON."""
    keys = ("code", "message", "fix", "file", "line", "column", "excerpt", "warning")
    return {key: getattr(problem, key) for key in keys}


def error_data(error: HeadgateError) -> dict[str, Any]:
    """An error as JSON."""
    data: dict[str, Any] = {"code": error.code, "message": error.message, "fix": error.fix}
    if isinstance(error, ProjectError):
        data["problems"] = [problem_data(p) for p in error.problems]
    return data


def failure(error: HeadgateError, options: Options, code: int) -> int:
    """Tell of an error on stderr, or as the JSON document where there is none yet, and return the exit code."""
    if options.json and not getattr(_printed, "document", False):
        _json_error(error_data(error), code)
    elif isinstance(error, ProjectError):
        show_problems(error.problems)
    else:
        show_error(error.code, error.message, error.fix)
    if options.debug:
        click.echo(trace(error), err=True, nl=False)
    return code


def internal(error: Exception, options: Options) -> int:
    """Tell of a bug: no trace and nothing of its message, which may hold anything, unless --debug."""
    message = f"internal error: {type(error).__name__}"
    fix = "run the command again with --debug and report what it prints"
    if options.json and not getattr(_printed, "document", False):
        _json_error({"code": "HG900", "message": message, "fix": fix}, 1)
    else:
        show_error("HG900", message, fix)
    if options.debug:
        click.echo(trace(error), err=True, nl=False)
    return 1


def _json_error(error: Mapping[str, Any], code: int) -> None:
    click.echo(json.dumps({"schema": 1, "error": error, "exit_code": code}, ensure_ascii=False, default=str))


def show_error(code: str, message: str, fix: str) -> None:
    """What went wrong, how to mend it, and where to read more."""
    say(f"{message}  [{code}]", kind="error", err=True)
    if fix:
        say(f"  fix: {fix}", err=True)
    say(f"  more: headgate explain {code}", err=True)


def show_problems(problems: Iterable[Problem]) -> None:
    """Each problem with its place, the line it is in and a caret under the column."""
    for problem in problems:
        where = f"{problem.where}: " if problem.where else ""
        kind = "warning" if problem.warning else "error"
        say(f"{where}{problem.message}  [{problem.code}]", kind=kind, err=True)
        for line in caret(problem):
            say(line, err=True)
        if problem.fix:
            say(f"  fix: {problem.fix}", err=True)


def caret(problem: Problem) -> list[str]:
    """The excerpt and the caret; tabs are kept, so that the caret stands where the eye looks for it."""
    if not problem.excerpt.strip() or not problem.line:
        return []
    text = problem.excerpt.rstrip("\r\n")
    column = min(max(problem.column, 1), len(text) + 1)
    start = max(0, column - 60)
    text, column = text[start : start + 72], column - start
    gutter = f"  {problem.line} | "
    pad = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
    return [gutter + text, " " * (len(gutter) - 2) + "| " + pad + "^"]
