"""Checks a mapping against what is configured and installed; every problem says where, why and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sync import mapping
from sync.authors import author
from sync.bindings import BoundDestination, BoundSource
from sync.engine.compile import problems as compile_problems
from sync.errors import Problem
from sync.files import Document, Location, named, suggest
from sync.limits import loosened, without_effect
from sync.mapping import FieldMapping, Mode, Sync
from sync.sdk.nouns import Delivery, Field, ObjectSpec, Op
from sync.settings import Settings
from sync.sources.base import Column

__all__ = [
    "Known",
    "MappingFile",
    "check_alerting",
    "check_duplicates",
    "check_file",
    "check_sync_columns",
    "spec_of",
]

_NEEDS = {
    Mode.MIRROR: frozenset({Op.ADD, Op.REMOVE}),
    Mode.UPSERT: frozenset({Op.ADD}),
    Mode.INSERT: frozenset({Op.ADD}),
    Mode.UPDATE: frozenset({Op.UPDATE}),
}
"""Without these ops of the object a mode could not keep its promise."""


@dataclass(frozen=True)
class MappingFile:
    """One mapping and the document it was read from."""

    path: Path
    document: Document
    mapping: mapping.Mapping

    @cached_property
    def author(self) -> str:
        """Who last changed it, asked once: its syncs have one author, whom reading it anew may change."""
        return author(self.path)


@dataclass(frozen=True)
class Known:
    """What mappings may refer to. A destination that is configured but broken is in `settings` alone."""

    settings: Settings
    destinations: Mapping[str, BoundDestination]
    sources: Mapping[str, BoundSource]


def spec_of(destination: BoundDestination, sync: Sync) -> ObjectSpec | None:
    """The object a sync writes; None where it names none that there is."""
    if sync.object is not None:
        return destination.objects.get(sync.object)
    return next(iter(destination.objects.values())) if len(destination.objects) == 1 else None


# --- one file -------------------------------------------------------------------------------------------------


def check_file(file: MappingFile, known: Known) -> Iterator[Problem]:
    """Everything that can be said without asking the warehouse."""
    yield from _check_connection(file, known)
    for index, sync in enumerate(file.mapping.syncs):
        where: Location = ("syncs", index)
        yield from _check_rules(file.document, where, sync, known)
        destination = known.destinations.get(sync.destination)
        if destination is None:
            yield from _check_destination(file.document, where, sync, known)
            continue
        spec = spec_of(destination, sync)
        if spec is None:
            yield _unknown_object(file.document, where, sync, destination)
            continue
        yield from _check_object(file.document, where, sync, spec)
        yield from check_sync_columns(file, index, spec, None)
        yield from _check_delivery(file.document, where, sync, spec)


def check_sync_columns(
    file: MappingFile, index: int, spec: ObjectSpec, columns: Sequence[Column] | None
) -> Iterator[Problem]:
    """Expressions and transforms, and the columns they name where the cohort's `columns` are known."""
    cohort, sync = file.mapping.cohort, file.mapping.syncs[index]
    for way, code, message, fix in compile_problems(sync, cohort, columns, spec):
        location = way if way[0] == "cohort" else ("syncs", index, *way)
        yield file.document.problem(location, code, message, fix)
    yield from _check_kinds(file.document, ("syncs", index), sync, spec, columns or ())


def check_described(
    file: MappingFile, index: int, spec: ObjectSpec, described: frozenset[str]
) -> Iterator[Problem]:
    """Mapped fields that the account does not have; `described` has the names of those it has, if it told."""
    if not described:
        return
    known = described | {field.name for field in spec.fields}
    sync = file.mapping.syncs[index]
    for way, mapped in (("identifiers", sync.identifiers), ("fields", sync.fields)):
        for number, one in enumerate(mapped):
            if one.to not in known:
                message = f"`{sync.destination}` has no field `{one.to}` for `{spec.name}`"
                near = difflib.get_close_matches(one.to, known, n=1)
                fix = f"Did you mean `{near[0]}`? " if near else ""
                fix += f"`headgate destination fields {sync.destination} {spec.name}` lists them."
                location = ("syncs", index, way, number, "to")
                yield file.document.problem(location, "HG134", message, fix, warning=True)


def _check_connection(file: MappingFile, known: Known) -> Iterator[Problem]:
    connection, configured = file.mapping.cohort.source.connection, known.settings.sources
    if connection not in configured:
        fix = suggest(connection, configured, "Configured") or f"Add [sources.{connection}] to config.toml."
        message = f"there is no connection `{connection}`"
        yield file.document.problem(("cohort", "source", "connection"), "HG111", message, fix)


def _check_destination(document: Document, where: Location, sync: Sync, known: Known) -> Iterator[Problem]:
    configured = known.settings.destinations
    if sync.destination not in configured:  # a broken one has been told of in config.toml
        fix = suggest(sync.destination, configured, "Configured")
        fix = fix or f"Add [destinations.{sync.destination}] to config.toml."
        message = f"there is no destination `{sync.destination}`"
        yield document.problem((*where, "destination"), "HG110", message, fix)


def _unknown_object(document: Document, where: Location, sync: Sync, destination: BoundDestination) -> Problem:
    kind = destination.settings.type
    if sync.object is None:
        message = f"`{kind}` has several objects: say which"
        return document.problem(where, "HG113", message, f"Add `object:` with {named(destination.objects)}.")
    fix = suggest(sync.object, destination.objects, "Objects")
    return document.problem((*where, "object"), "HG113", f"`{kind}` has no object `{sync.object}`", fix)


# --- the object -----------------------------------------------------------------------------------------------


def _check_object(document: Document, where: Location, sync: Sync, spec: ObjectSpec) -> Iterator[Problem]:
    missing = _NEEDS[sync.mode] - spec.ops
    if missing:
        possible = [mode.value for mode in Mode if not _NEEDS[mode] - spec.ops]
        message = f"mode `{sync.mode}` needs to {' and '.join(sorted(missing))}, which `{spec.name}` cannot"
        yield document.problem((*where, "mode"), "HG114", message, f"Possible here: {named(possible)}.")
    if spec.delivery is Delivery.SNAPSHOT and sync.mode is not Mode.MIRROR:
        message = (
            f"`{spec.name}` takes the whole audience each time, so that mode `{sync.mode}` would remove people too"
        )
        yield document.problem((*where, "mode"), "HG133", message, "Write `mode: mirror`.")
    if spec.audience and sync.audience is None:
        message = f"`{spec.name}` needs an audience: the list, segment or flag to keep true"
        yield document.problem(where, "HG117", message, 'Add `audience: "ID"`.')
    if not spec.audience and sync.audience is not None:
        fix = "Delete the line."
        yield document.problem((*where, "audience"), "HG117", f"`{spec.name}` has no audiences", fix, key=True)
    yield from _check_names(document, where, sync, spec)
    yield from _check_required(document, where, sync, spec)


def _mapped(sync: Sync) -> Iterator[tuple[Location, FieldMapping, bool]]:
    """(way, mapping, is it an identifier) of everything mapped."""
    yield from ((("identifiers", i), m, True) for i, m in enumerate(sync.identifiers))
    yield from ((("fields", i), m, False) for i, m in enumerate(sync.fields))


def _check_names(document: Document, where: Location, sync: Sync, spec: ObjectSpec) -> Iterator[Problem]:
    by_name = {field.name: field for field in spec.fields}
    seen: set[str] = set()
    for way, field, identifies in _mapped(sync):
        location = (*where, *way, "to")
        name = field.to.lower()  # DuckDB's columns are the same whatever their case
        if name in seen:
            yield document.problem(location, "HG118", f"`{field.to}` is mapped twice", "Keep one of the two.")
        seen.add(name)
        yield from _check_name(document, location, field.to, by_name, spec, identifies)


def _check_name(
    document: Document,
    location: Location,
    name: str,
    by_name: Mapping[str, Field],
    spec: ObjectSpec,
    identifies: bool,
) -> Iterator[Problem]:
    identifiers = [field.name for field in spec.identifiers]
    if identifies and identifiers and name not in identifiers:
        message = f"`{spec.name}` does not find people by `{name}`"
        yield document.problem(location, "HG115", message, suggest(name, identifiers, "Identifiers"))
    elif name not in by_name and not spec.open_fields and not (identifies and not identifiers):
        fields = [field.name for field in spec.fields if not field.identifier] or list(by_name)
        fix = suggest(name, fields, "Fields")
        yield document.problem(location, "HG115", f"`{spec.name}` has no field `{name}`", fix)


def _check_required(document: Document, where: Location, sync: Sync, spec: ObjectSpec) -> Iterator[Problem]:
    given = {field.to for _, field, _ in _mapped(sync)}
    for field in spec.fields:
        if field.required and field.name not in given:
            kind = "identifiers" if field.identifier else "fields"
            fix = f"Add `- {{ to: {field.name}, from: COLUMN }}` to `{kind}`."
            yield document.problem((*where, kind), "HG116", f"`{spec.name}` needs `{field.name}`", fix)


_WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_WHOLE, *(f"U{name}" for name in _WHOLE), "DECIMAL", "DOUBLE", "FLOAT")
_KINDS = {
    "integer": _NUMBERS,  # whole values of a DECIMAL or DOUBLE are sent as whole numbers
    "number": _NUMBERS,
    "boolean": ("BOOLEAN",),
    "date": ("DATE",),
    "timestamp": ("TIMESTAMP", "DATE"),
}
"""A field's type -> the warehouse's types that are one without being converted. The others take anything."""


def _check_kinds(
    document: Document, where: Location, sync: Sync, spec: ObjectSpec, columns: Sequence[Column]
) -> Iterator[Problem]:
    """Columns that go as they are to a field of another kind; a warning, for some platforms convert."""
    types = {column.name.lower(): column.type for column in columns}
    wanted = {field.name: field.type for field in spec.fields}
    for way, field, _ in _mapped(sync):
        kind, given = wanted.get(field.to, ""), types.get((field.from_ or "").lower(), "")
        if kind in _KINDS and given and not field.transform and not given.upper().startswith(_KINDS[kind]):
            message = f"`{field.to}` is a {kind}, and the column `{field.from_}` is {given}"
            fix = f"Convert it: `transform: [{kind}]`, or `expr:`."
            yield document.problem((*where, *way, "from"), "HG132", message, fix, warning=True)


# --- the rules ------------------------------------------------------------------------------------------------


def _check_rules(document: Document, where: Location, sync: Sync, known: Known) -> Iterator[Problem]:
    settings = known.settings
    for way, sentence in loosened(settings.guardrails, sync.guardrails, settings.people.groups):
        fix = "A mapping may only tighten: lower it here, or raise the ceiling in [guardrails] of config.toml."
        yield document.problem((*where, "guardrails", *way), "HG119", sentence, fix)
    yield from _check_approvers(document, where, sync, settings)
    for number, alert in enumerate(sync.alerts):
        for index, name in enumerate(alert.to):
            if name not in settings.alerts:
                yield document.problem((*where, "alerts", number, "to", index), *_no_notifier(name, settings))


def check_alerting(settings: Settings) -> Iterator[Problem]:
    """Whom config.toml wants to be told of every sync."""
    for index, name in enumerate(settings.alerting.to):
        if name not in settings.alerts:
            yield settings.places.problem(("alerting", "to", index), *_no_notifier(name, settings))


def _no_notifier(name: str, settings: Settings) -> tuple[str, str, str]:
    fix = suggest(name, settings.alerts, "Configured") or f"Add [alerts.{name}] to config.toml, with its `url`."
    return "HG129", f"there is no notifier `{name}`", fix


def _check_approvers(document: Document, where: Location, sync: Sync, settings: Settings) -> Iterator[Problem]:
    groups = settings.people.groups
    for index, name in enumerate(sync.guardrails.approve.by):
        if name not in groups and "@" not in name:
            fix = suggest(name, groups, "Groups") or f"Add `{name} = [...]` to [people.groups] in config.toml."
            location = (*where, "guardrails", "approve", "by", index)
            yield document.problem(location, "HG127", f"there is no group `{name}`", fix)


def _check_delivery(document: Document, where: Location, sync: Sync, spec: ObjectSpec) -> Iterator[Problem]:
    for key, sentence in without_effect(spec.limits, sync.delivery):
        location = (*where, "delivery", key)
        yield document.problem(location, "HG126", f"`{key}` has no effect: {sentence}", "Lower it.", warning=True)


# --- all files together ---------------------------------------------------------------------------------------


def check_duplicates(files: Sequence[MappingFile]) -> Iterator[Problem]:
    """Names that stand in the project twice."""
    cohorts: dict[str, str] = {}
    syncs: dict[str, str] = {}
    for file in files:
        cohort = file.mapping.cohort.name
        yield from _once(file.document, ("cohort", "name"), cohort, "cohort", cohorts)
        for index, sync in enumerate(file.mapping.syncs):
            yield from _once(file.document, ("syncs", index, "name"), sync.name, "sync", syncs)


def _once(document: Document, way: Location, name: str, noun: str, seen: dict[str, str]) -> Iterator[Problem]:
    mark = document.mark(way)
    here = f"{document.file}:{mark.line}" if mark else document.file
    if name in seen:
        fix = "Give each sync its own name." if noun == "sync" else "Keep a cohort's syncs in one file."
        yield document.problem(way, "HG118", f"the {noun} `{name}` stands in {seen[name]} already", fix)
    seen.setdefault(name, here)
