"""Reverting a run: what it was acknowledged for is put back to what it was before, as far as anybody can tell.

Who was a member before, and with which fingerprint, is what the generation before the run says. The values are
those of an executed plan's row with the same key and fingerprint: equal fingerprints are equal values. What
cannot be undone is left out, and the plan says of each such record why.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.approvals import held_again
from sync.engine.database import identifier, literal, load_keys, lock_down, open_database, translate
from sync.engine.forgotten import leaving_of
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import members_of, verify
from sync.engine.plan import inputs_digest, verify_file
from sync.engine.proposal import Ground, propose
from sync.engine.settle import answered_of, load
from sync.engine.values import SentValues, own_columns
from sync.errors import Corrupt, DecisionError, StateError
from sync.sdk.nouns import Delivery, Op
from sync.state.base import StateReader
from sync.state.nouns import Counts, Generation, Plan, PlanKind, Run

if TYPE_CHECKING:
    import duckdb

__all__ = ["Reverting", "find_run"]

UNCERTAIN = "its state at the destination is uncertain until a run asserts it again"
NO_OUTCOME = "nobody can tell whether the run applied it"
UNKNOWN = "nobody knows what the destination had before"
LEFT = "it is no member any more"
CHANGED = "a later run changed it"
CAME_BACK = "a later run added it again"
RESET = "it was a member before the members were reset"
FORGOTTEN = "the person is to be forgotten"
IRREVERSIBLE = "the destination cannot undo it"
UNSUPPORTED = "the object does not take the op that would undo it"
NO_VALUES = "no plan file has the values it had before"
OTHER_MAPPING = "the values it had before were sent under another mapping"

_UNDO = "why IS NULL"  # rows of `undo` that are to be undone; '' where everything is as it was before


def find_run(state: StateReader, job: SyncJob, name: str) -> Run:
    """The run to revert. Raises `DecisionError` where it is none of this sync's, or can be no run to revert."""
    run = state.run(name)
    if run is None or run.sync != job.name:
        runs = [r.id for r in state.runs(job.name, limit=50) if r.plan and r.ops][:5]
        raise _refused(
            f"there is no run '{name}' of '{job.name}'" if run is None else f"run {name} is of sync '{run.sync}'",
            f"its newest runs are {', '.join(runs)}" if runs else "this sync has sent nothing yet",
        )
    plan = state.plan(run.plan) if run.plan else None
    if plan is None or not run.ops:
        raise _refused(f"run {run.id} sent nothing, so there is nothing to revert", "name a run that did")
    where = (plan.destination, plan.object, plan.audience)
    if where != (job.destination, job.spec.name, job.sync.audience):
        place = " / ".join(part for part in where if part)
        raise _refused(
            f"run {run.id} went to {place}, and '{job.name}' does not go there any more",
            "restore the mapping as it was then, revert, and change it again",
        )
    return run


@dataclass(frozen=True, slots=True)
class Reverting:
    """Makes the plan that reverts one run which has ended."""

    state: StateReader
    settings: EngineSettings
    job: SyncJob
    run: Run

    def plan(self) -> Plan | None:
        """The plan, not kept yet; None where everything is as it was before the run.

        Raises `DecisionError` where nothing of it can be undone, and `Corrupt` where members files are damaged.
        """
        before, left = self._generations()
        now = self.state.generation(self.job.name)
        if len({g.probe for g in (before, left, now) if g.probe}) > 1:
            raise _refused(
                f"keys and fingerprints are made in another way than when run {self.run.id} ended",
                "change the source or the mapping, and let an ordinary run send what is right",
            )
        waiting = self._waiting(now)
        if waiting is not None:
            return waiting
        with closing(open_database(self.settings)) as connection, translate("planning the revert", StateError):
            lock_down(connection)
            ground = Ground(self.state, self.settings, self.job, connection, now)
            load(connection, self._file(), answered_of(self.state, self.run.id))
            self._sides(connection, before, now)
            self._classify(connection)
            values = self._find_values(connection, before, now)
            counts = self._counts(connection, now)
            if counts is None:
                return None
            select = self._select(connection, values, now)
            connection.execute(f"CREATE TEMP TABLE proposal AS {select} ORDER BY op, key")
            of = (PlanKind.REVERT, self.run.id)
            return propose(ground, "SELECT * FROM proposal", *of, counts=counts, inputs=self._inputs(now))

    # --- what it stands on --------------------------------------------------------------------------------

    def _generations(self) -> tuple[Generation, Generation]:
        """The members before the run, and those it left."""
        made = [g for g in self.state.generations(self.job.name) if g.run == self.run.id]
        if not made:
            raise _refused(
                f"run {self.run.id} was acknowledged for nothing, so there is nothing to revert",
                f"see what became of it: headgate rejected list {self.job.name}",
            )
        return self.state.generation(self.job.name, made[0].number - 1), made[0]

    def _inputs(self, now: Generation) -> str:
        dirty = sorted(key for key, *_ in self.state.dirty(self.job.name))
        return inputs_digest(self.job, now.number, "", [PlanKind.REVERT.value, self.run.id, repr(dirty)])

    def _waiting(self, now: Generation) -> Plan | None:
        """The plan that waits already, where nothing moved since it was made."""
        return held_again(self.state, self._inputs(now), self.job.name, self.state.now())

    def _file(self) -> Path:
        """What the run was to do."""
        plan = self.state.plan(self.run.plan or "")
        try:
            if plan is None:
                raise Corrupt("the plan is not in the ledger")
            return verify_file(self.settings, plan)
        except Corrupt:
            raise _refused(
                f"the plan file of run {self.run.id} is missing or was altered: nobody can tell what it changed",
                "restore the file from a backup",
            ) from None

    def _sides(self, connection: duckdb.DuckDBPyConnection, before: Generation, now: Generation) -> None:
        """Views `was` and `now` of the members; tables of keys: `uncertain`, `forgotten` people, `reset` away."""
        names = [mapping.to for mapping in self.job.sync.identifiers]
        for view, generation in (("was", before), ("now", now)):
            verify(self.settings, generation)
            members = members_of(connection, self.settings, generation, names)
            connection.execute(f"CREATE TEMP VIEW {view} AS {members}")
        load_keys(connection, "uncertain", [key for key, *_ in self.state.dirty(self.job.name)])
        load_keys(connection, "forgotten", leaving_of(self.state, self.job.name))
        load_keys(connection, "reset", [])
        for generation in self.state.generations(self.job.name):
            if generation.blank and 1 < generation.number <= before.number:
                earlier = self.state.generation(self.job.name, generation.number - 1)
                verify(self.settings, earlier)
                known = members_of(connection, self.settings, earlier)
                connection.execute(f"INSERT INTO reset SELECT key FROM ({known})")

    # --- what is to be undone -----------------------------------------------------------------------------

    def _classify(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Table `undo`: each acknowledged change with the op that undoes it, or why it is left as it is."""
        ops = self.job.spec.ops
        again = "update" if Op.UPDATE in ops else "add"  # an addition where the object has no update
        never = _list(self.job.spec.irreversible)
        connection.execute(
            "CREATE TEMP TABLE undo AS SELECT *, CASE "
            f"WHEN key IN (SELECT key FROM forgotten) THEN {literal(FORGOTTEN)} "
            f"WHEN key IN (SELECT key FROM uncertain) THEN {literal(UNCERTAIN)} "
            f"WHEN undoes <> 'add' AND NOT was THEN {literal(UNKNOWN)} "
            "WHEN was = is_now AND (NOT was OR fingerprint = now_fingerprint) THEN '' "
            f"WHEN undoes <> 'remove' AND NOT is_now THEN {literal(LEFT)} "
            f"WHEN undoes <> 'remove' AND now_fingerprint <> left_fingerprint THEN {literal(CHANGED)} "
            f"WHEN undoes = 'remove' AND is_now THEN {literal(CAME_BACK)} "
            f"WHEN list_contains({never}, undoes) THEN {literal(IRREVERSIBLE)} "
            f"WHEN NOT was AND key IN (SELECT key FROM reset) THEN {literal(RESET)} "
            f"WHEN NOT list_contains({_list(ops)}, op) THEN {literal(UNSUPPORTED)} END AS why "
            "FROM (SELECT a.key AS key, a.op AS undoes, a.fingerprint AS left_fingerprint, "
            "w.key IS NOT NULL AS was, n.key IS NOT NULL AS is_now, "
            "w.fingerprint AS fingerprint, n.fingerprint AS now_fingerprint, "
            f"CASE WHEN w.key IS NULL THEN 'remove' WHEN n.key IS NULL THEN 'add' ELSE '{again}' END AS op "
            "FROM applied a LEFT JOIN (SELECT key, fingerprint FROM was) w ON a.key = w.key "
            "LEFT JOIN (SELECT key, fingerprint FROM now) n ON a.key = n.key "
            "WHERE a.op IN ('add', 'update', 'remove'))"
        )
        connection.execute(
            f"INSERT INTO undo BY NAME SELECT p.key AS key, p.op AS undoes, {literal(NO_OUTCOME)} AS why "
            "FROM plan p JOIN exceptions e ON p.row = e.row "
            "WHERE e.status = 'unknown' AND p.op IN ('add', 'update', 'remove')"
        )

    def _counts(self, connection: duckdb.DuckDBPyConnection, now: Generation) -> Counts | None:
        """What is left out, by op and reason; None where nothing is left to be undone, or to be told."""
        rows = connection.execute(
            "SELECT undoes, why, count(*) FROM undo WHERE why IS NOT NULL GROUP BY ALL ORDER BY 3 DESC, 1, 2"
        ).fetchall()
        left_out = tuple((str(op), str(why), int(records)) for op, why, records in rows if why)
        if not _count(connection, f"undo WHERE {_UNDO}"):
            if not left_out:
                return None
            raise DecisionError(
                f"nothing of run {self.run.id} can be undone: {_told(left_out)}; nothing was sent",
                code="HG529",
                fix="change the source or the mapping, and let an ordinary run send what is right",
            )
        return Counts(members=now.members, unchanged=sum(n for _, why, n in rows if not why), left_out=left_out)

    # --- the values ---------------------------------------------------------------------------------------

    def _find_values(
        self, connection: duckdb.DuckDBPyConnection, before: Generation, now: Generation
    ) -> SentValues:
        """The values that are sent again: those put back, and of a whole audience everybody's.

        Raises `DecisionError` where a whole audience is to be sent and somebody in it has no values.
        """
        whole = self.job.spec.delivery is Delivery.SNAPSHOT
        fields = frozenset(now.fields if whole else before.fields)
        values = SentValues(connection, self.state, self.settings, self.job.name, fields)
        values.look_up(f"SELECT key, fingerprint FROM undo WHERE {_UNDO} AND was")
        connection.execute(
            f"UPDATE undo SET why = CASE WHEN key IN (SELECT key FROM misfit) THEN {literal(OTHER_MAPPING)} "
            f"ELSE {literal(NO_VALUES)} END WHERE {_UNDO} AND was AND key IN (SELECT key FROM wanted)"
        )
        if whole:
            undone = f"SELECT key FROM undo WHERE {_UNDO} UNION ALL SELECT key FROM forgotten"
            values.look_up(f"SELECT key, fingerprint FROM now WHERE key NOT IN ({undone})")
            if holes := _count(connection, "wanted"):
                raise _refused(
                    f"'{self.job.destination}' takes whole audiences, and no plan file has the values of "
                    f"{holes:,} of its members; nothing was sent",
                    "change the source, and let an ordinary run send what is right",
                )
        return values

    def _select(self, connection: duckdb.DuckDBPyConnection, values: SentValues, now: Generation) -> str:
        """The rows of the plan: who is put back, removed, kept in a whole audience, and left out."""
        removed = (
            "SELECT u.op AS op, n.* EXCLUDE (last_refresh, last_at, nulls), n.nulls AS was_nulls, "
            f"u.undoes AS undoes FROM undo u JOIN now n ON u.key = n.key WHERE u.{_UNDO} AND NOT u.was"
        )
        names = [n for n in own_columns(connection, "plan") if n.startswith("id.")]
        told = "".join(f", p.{identifier(name)} AS {identifier(name)}" for name in names)
        left_out = (
            "SELECT 'left_out' AS op, p.key AS key, p.source_key AS source_key, u.undoes AS undoes, "
            f"u.why AS why{told} FROM undo u JOIN plan p ON u.key = p.key "
            "WHERE u.why <> '' AND p.op IN ('add', 'update', 'remove')"
        )
        if not values.columns:  # nobody's values are sent: the fields of the members stay what they are
            fields = ", ".join(f"NULL AS {identifier(f'field.{name}')}" for name in now.fields)
            return _union([removed, left_out, *([f"SELECT {fields} WHERE false"] if fields else [])])
        sent = f"f.key AS key, f.fingerprint AS fingerprint, f.nulls AS nulls, f.source_key, {values.own('f.')}"
        put_back = (
            f"SELECT u.op AS op, {sent}, n.nulls AS was_nulls, n.remote_id AS remote_id, u.undoes AS undoes, "
            "w.first_refresh AS first_refresh, w.first_at AS first_at "
            "FROM undo u JOIN found f ON u.key = f.key JOIN was w ON u.key = w.key "
            f"LEFT JOIN now n ON u.key = n.key WHERE u.{_UNDO}"
        )
        kept = f"SELECT 'keep' AS op, {sent} FROM found f WHERE key NOT IN (SELECT key FROM undo WHERE {_UNDO})"
        return _union([removed, left_out, put_back, kept])


def _refused(message: str, fix: str) -> DecisionError:
    return DecisionError(message, code="HG526", fix=fix)


def _union(selects: Sequence[str]) -> str:
    return " UNION ALL BY NAME ".join(selects)


def _told(left_out: Sequence[tuple[str, str, int]]) -> str:
    return "; ".join(f"{records:,} {op}: {why}" for op, why, records in left_out)


def _list(ops: frozenset[Op]) -> str:
    return "[" + ", ".join(literal(op) for op in sorted(ops)) + "]::VARCHAR[]"


def _count(connection: duckdb.DuckDBPyConnection, what: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {what}").fetchall()[0][0])
