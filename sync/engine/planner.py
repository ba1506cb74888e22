"""From what was observed to a judged plan: diff, freeze, judge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sync.engine import repair
from sync.engine.diff import Diff, Duplicates, changed_keys, compare, differing, duplicate_keys, nothing
from sync.engine.guardrails import HOLDS, Facts, answer, judge, objection
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.observe import Observed, definition_of, refuse_bad_keys
from sync.engine.plan import Frozen, freeze, inputs_digest, make_plan, with_counts
from sync.engine.proposal import WEEK, nulled
from sync.engine.settle import exceptions_file
from sync.errors import DecisionError
from sync.sdk.nouns import Delivery, Op
from sync.state.base import StateReader
from sync.state.nouns import Counts, Plan, PlanKind, PlanStatus, RejectedRecord

__all__ = ["Difference", "Planner", "permitted"]


def permitted(job: SyncJob) -> frozenset[Op]:
    """The ops that mode and object both allow."""
    return job.sync.mode.ops & job.spec.ops


@dataclass(frozen=True, slots=True)
class Difference:
    """What a diff found: the counts, and which rejected records are in step with the source again."""

    seen: Observed
    diff: Diff
    settled: frozenset[str]  # keys of rejected records that no change is about any more

    @property
    def nothing_to_do(self) -> bool:
        """Neither changes to send nor invalid rows to tell of."""
        return self.diff.changes == 0 and self.seen.refresh.invalid == 0


class Planner:
    """Makes plans of one sync, from one observation each."""

    def __init__(
        self,
        state: StateReader,
        settings: EngineSettings,
        job: SyncJob,
        *,
        first_run: bool,
        kept_back: bool = False,
    ) -> None:
        self.state = state
        self.settings = settings
        self.job = job
        self.first_run_allowed = first_run
        self.kept_back = kept_back  # has a person just approved a plan without its removals
        self.now = state.now()

    def difference(self, seen: Observed) -> Difference:
        """Checksums first; only where they differ, or members are dirty, a join of digests."""
        rejected = self.state.rejected(self.job.name)
        dirty = sorted({key for key, *_ in self.state.dirty(self.job.name)} - seen.leaving)
        buckets = differing(seen.connection, seen.members)
        if not buckets and not dirty:
            if seen.refresh.invalid:
                nothing(seen.connection)
            gone = {
                r.key for r in rejected if _forgettable(r) or (r.code == "invalid" and not seen.refresh.invalid)
            }
            return Difference(
                seen, Diff(unchanged=seen.refresh.rows - seen.refresh.invalid), frozenset(gone - seen.leaving)
            )
        seen, diff = self._compare(seen, dirty, rejected)
        if seen.away is not None:
            diff = replace(diff, unchanged=diff.unchanged + seen.away.left)
        told = {r.key for r in rejected if _forgettable(r)}
        gone = told - seen.leaving - changed_keys(seen.connection) if told else set()
        return Difference(seen, diff, frozenset(gone))

    def _compare(
        self, seen: Observed, dirty: Sequence[str], rejected: Sequence[RejectedRecord]
    ) -> tuple[Observed, Diff]:
        ops, mode = permitted(self.job), self.job.sync.mode
        try:
            diff = compare(seen.connection, seen.sides, ops, mode, dirty=dirty, rejected=rejected, now=self.now)
        except Duplicates:
            # Two rows with one key are a broken table; two persons with one identifier are invalid records.
            refuse_bad_keys(self.job, 0, duplicate_keys(seen.connection, seen.cohort))
            seen = seen.without_duplicates()
            differing(seen.connection, seen.members)
            diff = compare(seen.connection, seen.sides, ops, mode, dirty=dirty, rejected=rejected, now=self.now)
        return seen, diff

    def inputs(self, seen: Observed, ops: Iterable[Op]) -> str:
        """Digest of everything a plan would be made from."""
        dirty = sorted({key for key, *_ in self.state.dirty(self.job.name)})
        held_out = sorted(
            (r.key, r.op, r.given_up_at or 0.0, r.next_at > self.now) for r in self.state.rejected(self.job.name)
        )
        extra = [str(self.first_run_allowed), ",".join(sorted(ops)), repr(dirty), repr(held_out)]
        extra += sorted(seen.leaving)
        return inputs_digest(self.job, seen.generation.number, seen.refresh.version, extra)

    def plan(self, difference: Difference, ops: frozenset[Op], *, kept_back: int = 0) -> Plan:
        """Freeze the changes of these ops and judge them. Raises `DecisionError` where they are inseparable."""
        seen = difference.seen
        if self.job.spec.delivery is Delivery.SNAPSHOT and ops != permitted(self.job):
            raise DecisionError(
                f"'{self.job.destination}' takes whole audiences: no kind of change can be left out",
                code="HG508",
                fix=f"run all of it: headgate run {self.job.name}",
            )
        frozen = self._freeze(seen, ops, self._remembered())
        diff = difference.diff
        members = seen.generation.members
        counts = with_counts(
            Counts(
                unchanged=diff.unchanged,
                members=members,
                backed_off=diff.backed_off,
                given_up=diff.given_up,
                removals_kept_back=kept_back,
                forgotten=seen.forgotten,
            ),
            frozen,
        )
        verdicts = judge(self._facts(seen, frozen.file, counts))
        strictest = answer(verdicts)
        held = strictest in HOLDS
        return make_plan(
            self.settings,
            self.job,
            frozen,
            seen.refresh,
            seen.generation.number,
            counts,
            verdicts,
            status=PlanStatus.HELD if held else PlanStatus.READY,
            inputs=self.inputs(seen, ops),
            needs=2 if any(v.guardrail == "protected_cohort" for v in verdicts) else 1,
            now=self.now,
        )

    def repair(self, seen: Observed, missing: Path, extra: Path) -> Plan:
        """A plan that undoes what somebody else did to an audience: the two files are of a comparison."""
        ops = permitted(self.job)
        dirty = sorted({key for key, *_ in self.state.dirty(self.job.name)})
        with repair.changes(seen, ops, missing, extra, dirty) as known:
            frozen = self._freeze(replace(seen, few="", draft=None), ops, [known])
        counts = with_counts(Counts(members=seen.generation.members), frozen)
        facts = replace(self._facts(seen, frozen.file, counts), kind=PlanKind.REPAIR)
        return make_plan(
            self.settings,
            self.job,
            frozen,
            seen.refresh,
            seen.generation.number,
            counts,
            (repair.verdict(counts.add, counts.remove), *judge(facts)),
            status=PlanStatus.HELD,
            inputs=self.inputs(seen, ops) + frozen.sha256,
            needs=2 if self.job.cohort.protected else 1,
            now=self.now,
            kind=PlanKind.REPAIR,
        )

    def _freeze(self, seen: Observed, ops: frozenset[Op], remembered: Sequence[Path]) -> Frozen:
        return freeze(
            seen.connection,
            self.settings,
            self.job,
            seen.compiled,
            seen.cohort,
            seen.members,
            ops,
            seen.refresh,
            remembered,
            few=seen.few,
            draft=seen.draft,
        )

    def _remembered(self) -> list[Path]:
        """Files that know the identifiers of dirty members."""
        runs = {run for _, run, _, _ in self.state.dirty(self.job.name)}
        files = [exceptions_file(self.settings, self.job.name, run) for run in sorted(runs)]
        return [path for path in files if path.is_file()]

    def _facts(self, seen: Observed, plan_file: str, counts: Counts) -> Facts:
        state, name = self.state, self.job.name
        return Facts(
            job=self.job,
            counts=counts,
            refresh=seen.refresh,
            accepted=state.refreshes(name, accepted=True, limit=10),
            nulled=nulled(seen.connection, self.settings, plan_file, seen.generation) if counts.update else {},
            removed_7d=state.removed_since(name, self.now - WEEK),
            first_run=seen.generation.blank and not self._delivered(seen.generation.number),
            first_run_allowed=self.first_run_allowed,
            same_function=seen.same_function,
            definition_moved=self._moved(),
            now=self.now,
            kept_back=self.kept_back or self._waits_kept_back(),
        )

    def _waits_kept_back(self) -> bool:
        """Do removals wait that a person kept back: no later plan is to carry them past that decision."""
        held = [p for p in self.state.plans(self.job.name, PlanStatus.HELD) if p.expires_at > self.now]
        return any(v.guardrail == "kept_back" for p in held if p.kind is PlanKind.DIFF for v in p.verdicts)

    def objections(self, seen: Observed, plan: Plan) -> str:
        """What would hold a plan now that did not when it was made or decided on; empty where nothing would."""
        return objection(plan, judge(self._facts(seen, plan.file, plan.counts)))

    def _delivered(self, generation: int) -> bool:
        """Was a plan over this generation delivered, though nothing of it was taken."""
        return any(
            p.generation == generation for p in self.state.plans(self.job.name, PlanStatus.EXECUTED, limit=1)
        )

    def _moved(self) -> str:
        """What of the cohort's definition differs from the one last delivered."""
        before = self.state.note(self.job.name, "definition")
        if before is None:
            return ""
        old, new = json.loads(before), json.loads(definition_of(self.job))
        if old.pop("key") != new.pop("key"):
            return "re-keyed"
        return "re-pointed" if old != new else ""


def _forgettable(record: RejectedRecord) -> bool:
    """Is it forgotten once no change is about it any more; what was given up stays given up."""
    return record.code != "invalid" and record.given_up_at is None
