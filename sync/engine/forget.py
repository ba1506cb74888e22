"""Forgetting a person: found in every sync, kept out of every later plan, erased, and removed by the next run.

What was decided is committed before anything is erased, so that a crash leaves nobody half forgotten: to repeat it
goes on with the same erasure.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync.engine.database import lock_down, open_database, translate
from sync.engine.erasing import end, leaving
from sync.engine.forgotten import FIELD, IDENTIFIER, TOGETHER, digests, key_of, known_by, secret_of, together
from sync.engine.forms import forms_of, hashed, is_address
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.purge import purge, unquote
from sync.engine.scratch import sweep
from sync.engine.sync_log import erase as erase_log
from sync.engine.sync_log import lose, quotes
from sync.engine.traces import Trace, Wanted, trace
from sync.errors import HeadgateError, StateError, UsageError
from sync.sdk.nouns import Op
from sync.sources.base import Source
from sync.state.base import State
from sync.state.erasures import Erasure, ErasureOutcome, ErasurePart, ErasureState, Forgotten
from sync.state.log_mark import LogErasure
from sync.state.nouns import Event

if TYPE_CHECKING:
    import duckdb

__all__ = ["Forgetting", "forget", "remember"]

_SHORTEST = 3  # a form with fewer letters would fit too many


def _tell_nobody(sentence: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Who is to be forgotten, where, and on whose word.

    `jobs` are the syncs there are, by name; what is remembered of others is searched too. `only` names the syncs
    that are meant; empty: all, also those that are made later. `members` is how many people the identifier may fit
    in a sync.
    """

    state: State
    settings: EngineSettings
    jobs: Mapping[str, SyncJob]
    identifier: str
    actor: str
    reason: str
    only: frozenset[str] = frozenset()
    members: int = 1
    sources: Mapping[str, Callable[[], Source]] = field(default_factory=dict)  # where sync logs are
    tell: Callable[[str], None] = _tell_nobody  # what is left to do

    @property
    def syncs(self) -> list[str]:
        """The syncs that are searched."""
        return sorted(self.only) or sorted({*self.jobs, *self.state.known_syncs()})


@dataclass(frozen=True, slots=True)
class _Forms:
    """The identifier as a sync may know it."""

    identifiers: frozenset[str]
    fields: frozenset[str]


def forget(asked: Forgetting) -> Erasure:
    """Forget a person; repeated, it goes on with what there is of the erasure.

    Raises `UsageError` where the reason quotes the identifier, or the identifier fits more people than it may;
    `LeaseHeld` while a sync is being run; `HeadgateError` where an interrupted run of a sync that knows the person
    is not finished. Then nothing is changed.
    """
    _refuse_unfit(asked)
    state, settings = asked.state, asked.settings
    sweep(settings)
    with _held(asked) as keepers, closing(open_database(settings)) as connection:
        lock_down(connection)
        with translate("looking a person up", StateError):
            forms = {sync: _forms(connection, asked, sync) for sync in asked.syncs}
            found = _traces(connection, asked, forms)
        _refuse_many(asked, found)
        _refuse_open_runs(asked, found)
        secret = secret_of(settings.folder, make=True)
        erasure = _erasure(asked, connection, secret, forms)
        parts = [_part(connection, asked, erasure, one) for one in found if one.found]
        state.forget(
            [keeper.lease for keeper in keepers.values()],
            erasure,
            list(_digests(connection, asked, secret, erasure, forms, found)),
            parts,
            {one.sync: list(one.plans) for one in found},
            [Event(asked.actor, "person.forgotten", erasure.id, _told(asked, parts))],
        )
        with translate("erasing a person", StateError):
            _leave_logs(connection, asked, keepers, found, _words(asked, forms, found))
            for one in found:
                queued = any(p.sync == one.sync and p.state is ErasureState.QUEUED for p in parts)
                if one.found:  # all of it, or all but what the removal needs
                    purge(connection, state, settings, keepers[one.sync].lease, one, leaving=queued)
            for part in state.erasure_parts(ErasureState.ERASING, erasure=erasure.id):
                end(connection, state, settings, keepers[part.sync], part, asked.actor)
            unquote(connection, state, settings, asked.syncs, _words(asked, forms, found), compact=True)
        for sync in asked.syncs:
            if left := erase_log(state, asked.sources, keepers[sync]):
                asked.tell(f"the sync log of '{sync}' has rows of this person until its next run: {left}")
    return erasure


def remember(asked: Forgetting) -> list[str]:
    """Let a forgotten person be sent again; returns the ids of the erasures that are taken back."""
    _refuse_unfit(asked)
    state, settings = asked.state, asked.settings
    with _held(asked) as keepers, closing(open_database(settings)) as connection:
        lock_down(connection)
        forms = {sync: _forms(connection, asked, sync) for sync in asked.syncs}
        secret = secret_of(settings.folder)
        own = [one.digest for one in _own(connection, secret, forms, "", "")]
        known = sorted(state.erasures_of(own))
        if known:
            event = Event(asked.actor, "person.remembered", known[0], {"erasures": known, "reason": asked.reason})
            leases = [keeper.lease for keeper in keepers.values()]
            state.remember_again(leases, known, asked.actor, asked.reason, [event])
    return known


# --- who is meant ---------------------------------------------------------------------------------------------


def _refuse_unfit(asked: Forgetting) -> None:
    text = asked.identifier.strip().lower()
    if len(text) < _SHORTEST:
        raise UsageError(
            "the identifier is too short to mean one person",
            code="HG351",
            fix="give an e-mail address, a telephone number, or an id as a destination knows it",
        )
    if text in asked.reason.lower():
        raise UsageError(
            "the reason quotes the identifier, and the reason is kept",
            code="HG352",
            fix="say why without saying who: a ticket's number, say",
        )


@contextmanager
def _held(asked: Forgetting) -> Iterator[dict[str, LeaseKeeper]]:
    """Every sync held, so that no run is under way anywhere."""
    with ExitStack() as stack:
        ttl = asked.settings.lease_ttl
        yield {sync: stack.enter_context(LeaseKeeper(asked.state, sync, ttl)) for sync in asked.syncs}


def _forms(connection: duckdb.DuckDBPyConnection, asked: Forgetting, sync: str) -> _Forms:
    job, general = asked.jobs.get(sync), hashed(asked.identifier)
    if job is None:
        return _Forms(frozenset(general), frozenset(general if is_address(asked.identifier) else ()))
    own = set().union(*forms_of(connection, job, job.sync.identifiers, asked.identifier).values())
    private: set[str] = set()
    if is_address(asked.identifier):
        mapped = forms_of(connection, job, [m for m in job.sync.fields if m.pii], asked.identifier)
        private = general.union(*mapped.values())
    return _Forms(frozenset(_fit(own | general)), frozenset(_fit(private)))


def _fit(forms: Iterable[str]) -> Iterator[str]:
    return (form for form in forms if len(form) >= _SHORTEST)


def _traces(connection: duckdb.DuckDBPyConnection, asked: Forgetting, forms: Mapping[str, _Forms]) -> list[Trace]:
    """The person in each sync. Syncs of one cohort have its keys in common."""
    found: dict[str, Trace] = {}
    keys: dict[str, set[str]] = {}  # cohort -> source keys
    for _ in range(2):
        for sync in asked.syncs:
            known = keys.setdefault(_cohort(asked, sync), set())
            if sync in found and known <= found[sync].source_keys:
                continue
            wanted = Wanted(
                forms[sync].identifiers, forms[sync].fields, frozenset(), frozenset({asked.identifier, *known})
            )
            found[sync] = trace(connection, asked.state, asked.settings, sync, wanted)
            if found[sync].found:
                known |= found[sync].source_keys
    return list(found.values())


def _cohort(asked: Forgetting, sync: str) -> str:
    job = asked.jobs.get(sync)
    return job.cohort.name if job is not None else f"of {sync}"


def _refuse_many(asked: Forgetting, found: Iterable[Trace]) -> None:
    for one in found:
        if len(one.direct) > asked.members:
            raise UsageError(
                f"the identifier fits {len(one.direct)} people of '{one.sync}', not {asked.members}: "
                "nothing was done",
                code="HG353",
                fix=f"give one that only they have; or --members {len(one.direct)} to forget all of them",
            )


def _refuse_open_runs(asked: Forgetting, found: Iterable[Trace]) -> None:
    for one in found:
        if one.found and asked.state.open_run(one.sync) is not None:
            raise HeadgateError(
                f"a run of '{one.sync}', which knows this person, was interrupted and is not finished",
                code="HG524",
                fix=f"finish it first: headgate run {one.sync}",
            )


def _leave_logs(
    connection: duckdb.DuckDBPyConnection,
    asked: Forgetting,
    keepers: Mapping[str, LeaseKeeper],
    found: Sequence[Trace],
    words: set[str],
) -> None:
    """Note what the sync logs have to lose, while the files still say who is meant."""
    by_cohort: dict[str, set[str]] = {}
    for one in found:
        by_cohort.setdefault(_cohort(asked, one.sync), {asked.identifier}).update(one.source_keys)
    for one in found:
        quoting = quotes(connection, asked.settings, one.sync, words)
        known = by_cohort[_cohort(asked, one.sync)]
        lose(asked.state, keepers[one.sync].lease, LogErasure.of(one.keys, known, quoting))


# --- what is kept of it ---------------------------------------------------------------------------------------


def _own(
    connection: duckdb.DuckDBPyConnection, secret: str, forms: Mapping[str, _Forms], sync: str, erasure: str
) -> list[Forgotten]:
    """Digests of the identifier itself, by which an erasure is found again."""
    texts = {known_by(IDENTIFIER, form) for one in forms.values() for form in one.identifiers}
    texts |= {known_by(FIELD, form) for one in forms.values() for form in one.fields}
    return digests(connection, secret, texts, sync=sync, erasure=erasure)


def _erasure(
    asked: Forgetting, connection: duckdb.DuckDBPyConnection, secret: str, forms: Mapping[str, _Forms]
) -> Erasure:
    """The erasure there is of this identifier, else a new one."""
    known = asked.state.erasures_of([one.digest for one in _own(connection, secret, forms, "", "")])
    before = [one for id in sorted(known) if (one := asked.state.erasure(id)) is not None]
    if before:
        return min(before, key=lambda one: one.at)
    return Erasure(uuid.uuid4().hex[:12], asked.state.now(), asked.actor, asked.reason)


def _digests(
    connection: duckdb.DuckDBPyConnection,
    asked: Forgetting,
    secret: str,
    erasure: Erasure,
    forms: Mapping[str, _Forms],
    found: Sequence[Trace],
) -> Iterator[Forgotten]:
    """Everything the person is kept out by: the identifier, the cohorts' keys, and who was found by it."""
    keys = {
        known_by(key_of(_cohort(asked, one.sync)), key)
        for one in found
        for key in (one.source_keys if one.found else {asked.identifier})
    }
    for sync in sorted(asked.only) or [""]:
        yield from _own(connection, secret, forms, sync, erasure.id)
        yield from digests(connection, secret, keys, sync=sync, erasure=erasure.id)
    for one in found:  # another sync may call somebody else by the same id
        texts = {_identity([value for _, value in identity]) for identity in one.identities}
        yield from digests(connection, secret, texts, sync=one.sync, erasure=erasure.id)


def _identity(values: Sequence[str]) -> str:
    return known_by(IDENTIFIER, values[0]) if len(values) == 1 else known_by(TOGETHER, together(values))


def _part(connection: duckdb.DuckDBPyConnection, asked: Forgetting, erasure: Erasure, found: Trace) -> ErasurePart:
    """What is to become of the person at one destination."""
    state, sync = asked.state, found.sync
    job = asked.jobs.get(sync)
    keys = tuple(sorted(found.keys))
    there = leaving(connection, state, asked.settings, sync, keys)
    standing, outcome = ErasureState.ERASING, ErasureOutcome.ABSENT
    if there and job is not None and Op.REMOVE in job.spec.ops:
        standing, outcome = ErasureState.QUEUED, ErasureOutcome.REMOVED
    elif there:
        outcome = ErasureOutcome.BY_HAND
    elif any(r.key in found.keys and r.code == "unknown" for r in state.rejected(sync)):
        outcome = ErasureOutcome.UNCERTAIN
    elif any(
        part.outcome is ErasureOutcome.REMOVED for part in state.erasure_parts(sync=sync, erasure=erasure.id)
    ):
        outcome = ErasureOutcome.REMOVED
    destination = job.destination if job is not None else ""
    audience = job.sync.audience if job is not None else None
    rows = {
        "members": len({key for held in found.members.values() for key in held}),
        "plans": sum(len(held) for held in found.plans.values()),
        "rejected": sum(len(held) for held in found.copies.values()),
    }
    return ErasurePart(erasure.id, sync, destination, audience, standing, outcome, keys, rows)


def _told(asked: Forgetting, parts: Sequence[ErasurePart]) -> dict[str, object]:
    queued = [part.sync for part in parts if part.state is ErasureState.QUEUED]
    return {"reason": asked.reason, "syncs": [p.sync for p in parts], "queued": queued, "only": sorted(asked.only)}


def _words(asked: Forgetting, forms: Mapping[str, _Forms], found: Iterable[Trace]) -> set[str]:
    """What a destination may have quoted of the person: words that are found again, and not within others."""
    words = {asked.identifier.strip()} | {form for one in forms.values() for form in one.identifiers}
    return {word for word in words.union(*(one.words for one in found)) if len(word) > 4}
