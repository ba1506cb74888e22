"""Settings, mappings and installed connectors, loaded and cross-checked together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sync.bindings import BoundDestination, BoundSource, bind_destinations, bind_sources
from sync.checks import (
    Known,
    MappingFile,
    check_alerting,
    check_described,
    check_duplicates,
    check_file,
    check_sync_columns,
    spec_of,
)
from sync.engine.job import LogTarget, SyncJob, place_of
from sync.errors import HeadgateError, Problem, ProjectError, UsageError
from sync.files import Location, Unreadable, read_yaml
from sync.limits import guardrail_limits, tightened
from sync.mapping import Cohort, FieldMapping, Mapping, Sync
from sync.schema import schemas
from sync.sdk.nouns import ObjectSpec
from sync.secrets import SecretError, parse, resolve
from sync.selection import Candidate, pick
from sync.settings import CONFIG, Settings, load_settings
from sync.sources.base import Relation, Source
from sync.sources.options import MembersOptions, SyncLogOptions
from sync.state_keys import read_keys
from sync.timetable import check_schedules, scheduled
from sync.validation import problems

__all__ = ["MAPPINGS", "Project", "examine", "load", "mapping_digest", "schemas"]

MAPPINGS = "mappings"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Project:
    """A project that loaded: everything in it fits together."""

    root: Path
    settings: Settings
    files: tuple[MappingFile, ...]
    destinations: dict[str, BoundDestination]
    sources: dict[str, BoundSource]
    warnings: tuple[Problem, ...] = field(default=())

    def syncs(self) -> list[Candidate]:
        """Every sync, disabled ones too, in the order of the files."""
        return [candidate for candidate, _, _ in self._entries()]

    def jobs(
        self,
        names: Iterable[str] = (),
        select: Iterable[str] = (),
        exclude: Iterable[str] = (),
        *,
        disabled: bool = False,
    ) -> list[SyncJob]:
        """The syncs that are meant, ready to run; `sync.selection.pick` has the rules and errors."""
        entries = {candidate.sync.name: (file, index) for candidate, file, index in self._entries()}
        chosen = pick(self.syncs(), names, select, exclude, disabled=disabled)
        return [self._job(*entries[candidate.sync.name]) for candidate in chosen]

    def validate(self, offline: bool) -> list[Problem]:
        """Warnings of the files; unless `offline`, also what the warehouse says of tables and columns, and the
        destinations of their fields."""
        found = list(self.warnings)
        if not offline:
            found += self._missing_secrets()
            for file in self.files:
                found += self._ask(file)
            found += self._unknown_fields()
        return list(dict.fromkeys(found))

    def _entries(self) -> Iterator[tuple[Candidate, MappingFile, int]]:
        for file in self.files:
            for index, sync in enumerate(file.mapping.syncs):
                mark = file.document.mark(("syncs", index, "name"))
                where = f"{file.document.file}:{mark.line}" if mark else file.document.file
                yield Candidate(file.mapping.cohort, sync, where), file, index

    def _job(self, file: MappingFile, index: int) -> SyncJob:
        cohort = file.mapping.cohort
        sync = scheduled(file.mapping.syncs[index], cohort, self.settings)
        destination = self.destinations[sync.destination]
        spec = _spec(destination, sync)
        limits = tightened(spec.limits, destination.settings.delivery, sync.delivery)
        timeout = self.settings.delivery.request_timeout
        return SyncJob(
            name=sync.name,
            cohort=cohort,
            sync=sync,
            destination=sync.destination,
            spec=spec,
            limits=limits,
            account=destination.account,
            guardrails=guardrail_limits(self.settings.guardrails, sync.guardrails, self.settings.people.groups),
            mapping_digest=mapping_digest(cohort, sync, spec, destination.identity),
            author=file.author,
            source=partial(self.sources[cohort.source.connection].open, sync.name),
            connect=partial(destination.connect, timeout, limits.concurrency),
            log=_log_target(self.sources[cohort.source.connection]),
            sources=self.openers(sync.name),
            place=_place(self.sources[cohort.source.connection]),
        )

    def openers(self, purpose: str = "") -> dict[str, Callable[[], Source]]:
        """What opens each source that config.toml has; `purpose` is what its warehouse is told."""
        return {name: partial(bound.open, purpose) for name, bound in self.sources.items()}

    # --- asking the warehouse -----------------------------------------------------------------------------

    def _ask(self, file: MappingFile) -> Iterator[Problem]:
        """Table and columns of one cohort, as the warehouse has them now."""
        where = file.mapping.cohort.source
        way = "table" if where.table is not None else "query"
        try:
            source = self.sources[where.connection].open()
            columns = source.columns(Relation(where.table, where.query))
            yield from _check_polls(file, source)
        except HeadgateError as error:
            yield file.document.problem(("cohort", "source", way), error.code, error.message, error.fix)
            return
        for index, sync in enumerate(file.mapping.syncs):
            spec = _spec(self.destinations[sync.destination], sync)
            yield from check_sync_columns(file, index, spec, columns)

    def _unknown_fields(self) -> Iterator[Problem]:
        """Mapped fields that the destination does not have, where it tells; `doctor` says why one does not."""
        known: dict[tuple[str, str], frozenset[str]] = {}
        for candidate, file, index in self._entries():
            destination = self.destinations[candidate.sync.destination]
            spec = _spec(destination, candidate.sync)
            if (destination.name, spec.name) not in known:
                known[destination.name, spec.name] = destination.described(
                    spec.name, self.settings.delivery.request_timeout
                )
            yield from check_described(file, index, spec, known[destination.name, spec.name])

    def _missing_secrets(self) -> Iterator[Problem]:
        """References of destinations that point to nothing now; a warning, for here may not be where it runs."""
        try:
            read_keys(self.settings.state_keys(), self.root)
        except SecretError as error:
            yield self.settings.places.problem(("state",), error.code, error.message, error.fix, warning=True)
        for location, reference in self.references():
            try:
                resolve(parse(reference), self.root)
            except SecretError as error:
                yield self.settings.places.problem(location, error.code, error.message, error.fix, warning=True)

    def references(self) -> Iterator[tuple[Location, str]]:
        """Where a secret is referred to, and how."""
        for name, destination in self.destinations.items():
            for way, reference in destination.secrets():
                yield ("destinations", name, *way), reference
        for name, notifier in self.settings.alerts.items():
            yield ("alerts", name, "url"), notifier.url
        if self.settings.alerting.dead_man_url is not None:
            yield ("alerting", "dead_man_url"), self.settings.alerting.dead_man_url


def _check_polls(file: MappingFile, source: Source) -> Iterator[Problem]:
    """Schedules that wait for a change of a source that cannot tell of one. Raises `SourceError`."""
    polls = [i for i, s in enumerate(file.mapping.syncs) if s.schedule is not None and s.schedule.source]
    where = file.mapping.cohort.source
    untold = source.version(Relation(where.table, where.query)).untold if polls else ""
    for index in polls if untold else ():
        message = f"source {where.connection} cannot tell whether the cohort changed: {untold}"
        fix = "Give the sync a time (`every: 15m`): an unchanged cohort costs one scan and no request."
        yield file.document.problem(("syncs", index, "schedule", "source"), "HG142", message, fix)


def _log_target(source: BoundSource) -> LogTarget | None:
    """Where syncs from this source are logged to."""
    options = source.options
    if not isinstance(options, SyncLogOptions) or not options.sync_log:
        return None
    days = options.sync_log_keep_days
    return LogTarget(source.name, options.sync_log_schema, None if days is None else days * 86400.0)


def _place(source: BoundSource) -> str:
    """Where the members of syncs from this source are kept; empty: in the state folder."""
    options = source.options
    if not isinstance(options, MembersOptions) or options.members == "local":
        return ""
    return place_of(source.name, options.members_schema)


def _spec(destination: BoundDestination, sync: Sync) -> ObjectSpec:
    spec = spec_of(destination, sync)
    if spec is None:  # the checks refuse such a project
        raise UsageError(f"`{sync.object}` is no object of `{destination.name}`", code="HG113")
    return spec


# --- loading --------------------------------------------------------------------------------------------------


def load(root: Path) -> Project:
    """The project in a folder; raises `ProjectError` with every problem of every file."""
    project, found = examine(root)
    errors = [problem for problem in found if not problem.warning]
    if project is None or errors:
        raise ProjectError(errors)
    return project


def examine(root: Path) -> tuple[Project | None, list[Problem]]:
    """The project as far as it can be loaded, and every problem, warnings too; None where config.toml is bad."""
    try:
        settings = load_settings(root)
    except ProjectError as error:
        return None, error.problems
    destinations, found = bind_destinations(settings)
    sources, of_sources = bind_sources(settings)
    found += of_sources
    files, of_files = _read_mappings(root)
    found += of_files
    known = Known(settings, destinations, sources)
    for file in files:
        found += check_file(file, known)
    found += check_duplicates(files)
    found += check_alerting(settings)
    found += check_schedules(files, settings)
    warnings = tuple(problem for problem in found if problem.warning)
    return Project(root, settings, tuple(files), destinations, sources, warnings), found


def _read_mappings(root: Path) -> tuple[list[MappingFile], list[Problem]]:
    """Every mapping of the project that can be read, by file name, and the problems of the others."""
    folder = root / MAPPINGS
    paths = sorted(p for p in folder.glob("*") if p.suffix in _SUFFIXES and p.is_file())
    files: list[MappingFile] = []
    found: list[Problem] = []
    for path in paths:
        try:
            files.append(_read_mapping(path, f"{MAPPINGS}/{path.name}"))
        except Unreadable as error:
            found += error.problems
    if not paths:
        fix = "Write one; `headgate init DIR` shows how."
        message = f"there are no mappings (`{MAPPINGS}/*.yaml`) yet"
        found.append(Problem("HG128", message, fix, CONFIG, warning=True))
    return files, found


def _read_mapping(path: Path, shown: str) -> MappingFile:
    document = read_yaml(path, shown)
    try:
        return MappingFile(path, document, Mapping.model_validate(document.data))
    except ValidationError as error:
        raise Unreadable(*problems(error, Mapping, document)) from None


# --- what is sent ---------------------------------------------------------------------------------------------


def mapping_digest(cohort: Cohort, sync: Sync, spec: ObjectSpec, identity: str) -> str:
    """SHA-256 of everything that decides what is sent, and to whom: titles, limits and schedules do not.

    `identity` is the destination's account and address. What the object itself normalises and hashes counts,
    for a newer connector may do it differently.
    """
    source = cohort.source
    decides = {
        "source": [source.connection, source.table, source.query, source.key],
        "destination": [sync.destination, identity],
        "object": [spec.name, spec.delivery, sync.audience, sync.mode],
        "identifiers": _decides(sync.identifiers, spec),
        "fields": _decides(sync.fields, spec),
    }
    canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _decides(mapped: Sequence[FieldMapping], spec: ObjectSpec) -> list[Any]:
    of_object = {f.name: [f.normalise, f.hash] for f in spec.fields}
    return [
        [m.to, m.from_, m.expr, m.value, [[t.name, t.argument] for t in m.transform], of_object.get(m.to)]
        for m in mapped
    ]
