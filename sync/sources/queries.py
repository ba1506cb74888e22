"""Names and queries of cohorts as a warehouse's SQL has them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sync.errors import SourceError

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = [
    "Unparsed",
    "closest",
    "literal",
    "once_each",
    "pick",
    "plain",
    "qualify",
    "quoted",
    "select_of",
    "single_select",
    "split_name",
]

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_PART = re.compile(r'"(?:[^"]|"")+"|[^".]+')


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def plain(name: str) -> str:
    """A name of ours as SQL takes it: where it can be, without quotes, so that people need none either."""
    return name if _PLAIN.fullmatch(name) else quoted(name)


def literal(value: str) -> str:
    """A text as SQL takes it, where a backslash is a letter like any other."""
    return "'" + value.replace("'", "''") + "'"


def split_name(name: str) -> list[tuple[str, str]]:
    """`schema."odd.table"` as its parts: each without its quotes, and as it was written.

    One part where it cannot be read so.
    """
    written = _PART.findall(name)
    if ".".join(written) != name:
        return [(name, quoted(name))]
    return [(p[1:-1].replace('""', '"') if p.startswith('"') else p, p) for p in written]


def closest(word: str, names: Sequence[str]) -> str:
    """`did you mean ...?` with the nearest name, the schema written or not; empty where none is near."""
    bare = {n.rsplit(".", 1)[-1].lower(): n for n in names} | {n.lower(): n for n in names}
    for wanted in (word.lower(), word.lower().rsplit(".", 1)[-1]):
        if near := difflib.get_close_matches(wanted, bare, 1, 0.6):
            return f"did you mean '{bare[near[0]]}'?"
    return ""


def once_each(names: Sequence[str], title: str) -> None:
    """Raise `SourceError` HG204 where two columns of the relation have one name."""
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(f"{title} has two columns called '{twice}'", code="HG204", fix="name them apart with AS")


def pick(wanted: Sequence[str], there: Sequence[str], title: str) -> list[str]:
    """The wanted columns as the source spells them, or all; case matters only where two differ by nothing else.

    Raises `SourceError` (HG212) naming a column that is missing.
    """
    by_case = {name.lower(): name for name in reversed(there)}
    found = []
    for name in wanted:
        column = name if name in there else by_case.get(name.lower())
        if column is None:
            fix = closest(name, there) or f"it has {', '.join(there[:20])}"
            raise SourceError(f"{title} has no column '{name}'", code="HG212", fix=fix)
        found.append(column)
    return list(dict.fromkeys(found)) or list(there)


class Unparsed(SourceError):
    """The query is not SQL, or not the SQL that our parser knows: the warehouse may know better."""


def single_select(query: str, dialect: str) -> tuple[exp.Query, str]:
    """The query's tree and its text without the final semicolon; raises `SourceError` HG204 for anything else."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tokens = sqlglot.tokenize(query, read=dialect)
        end = next((t.start for t in tokens if t.token_type.name == "SEMICOLON"), len(query))
        statements = [s for s in sqlglot.parse(query, read=dialect) if s is not None]
    except RecursionError:
        raise SourceError(
            "the cohort's query is nested too deeply", code="HG204", fix="make it a view in the warehouse"
        ) from None
    except SqlglotError as error:
        where = getattr(error, "errors", None) or [{}]
        line, column = where[0].get("line"), where[0].get("col")
        at = f" near line {line}, column {column}" if line else ""
        message = f"the cohort's query cannot be read{at}: {where[0].get('description', 'not valid SQL')}"
        raise Unparsed(message, code="HG204", fix="give a single SELECT") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise SourceError("the cohort's query is not a single SELECT", code="HG204", fix="give a single SELECT")
    return statements[0], query[:end]


def select_of(query: str, dialect: str) -> str:
    """The query without its final semicolon; one that our parser cannot read is the warehouse's to judge.

    In the FROM where it stands nothing but one query, which does not write, is understood there.
    """
    try:
        return single_select(query, dialect)[1]
    except Unparsed:
        return query.rstrip().removesuffix(";")


def qualify(query: str, catalog: str, own: str, schema: str = "main") -> str:
    """The DuckDB query with every table named in full, as a database attached as `catalog` has it.

    Names without a schema are in `schema`; `own` is the name that the database has when it is opened alone.
    Nothing else of the text changes. Raises `SourceError` HG204 where it is not a single SELECT.
    """
    tree, text = single_select(query, "duckdb")
    edits = sorted(_edits(tree, text, catalog, own, schema), reverse=True)
    for start, end, name in edits:
        text = f"{text[:start]}{name}{text[end:]}"
    return text


def _edits(tree: exp.Query, text: str, catalog: str, own: str, schema: str) -> Iterator[tuple[int, int, str]]:
    """Where the text changes: start, end, and what stands there instead."""
    from sqlglot import exp

    for table in tree.find_all(exp.Table):
        parts = table.parts
        if not all(isinstance(p, exp.Identifier) and "start" in p.meta for p in parts) or _is_defined(table):
            continue
        start, end = parts[0].meta["start"], parts[0].meta["end"] + 1
        first = parts[0].name.lower()
        if text[start] == "'":  # a file
            continue
        if len(parts) == 1:
            yield start, start, f"{quoted(catalog)}.{quoted(schema)}."
        elif first == own.lower():
            yield start, end, quoted(catalog) + (f".{quoted(schema)}" if len(parts) == 2 else "")
        elif len(parts) == 2 and first not in ("information_schema", "pg_catalog"):
            yield start, start, f"{quoted(catalog)}."


def _is_defined(table: exp.Table) -> bool:
    """Is this a name that a WITH around it defines."""
    if table.db:
        return False
    node: exp.Expr | None = table
    while node is not None:
        parent = node.parent
        with_ = parent.args.get("with_") if parent is not None else None
        if with_ is not None and table.name.lower() in _visible(with_, node, table):
            return True
        node = parent
    return False


def _visible(with_: exp.Expr, inside: exp.Expr, table: exp.Table) -> set[str]:
    """The names that the WITH defines for somebody who stands in the statement, or in one of its definitions."""
    names = [cte.alias.lower() for cte in with_.expressions]
    if inside is not with_:
        return set(names)
    own = next(i for i, cte in enumerate(with_.expressions) if any(a is cte for a in _ancestors(table)))
    return set(names[: own + 1] if with_.args.get("recursive") else names[:own])


def _ancestors(node: exp.Expr) -> list[exp.Expr]:
    found = []
    while node.parent is not None:
        node = node.parent
        found.append(node)
    return found
