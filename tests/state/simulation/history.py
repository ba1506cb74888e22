"""One history: a script, which a seed makes, played under faults, healed, and judged.

`play(Script.of(SEED))` plays the same history again, step by step.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import httpx

from sync.engine.pacing import Pacers
from sync.engine.report import SyncReport, exit_code
from sync.engine.runner import Runner
from sync.errors import LeaseHeld, RequestError, Unavailable
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Job, Limits, Outcome, Receipt, Status
from sync.state.nouns import BatchState
from tests.state.simulation.connection import Connection
from tests.state.simulation.destination import Destination, Moods, Request
from tests.state.simulation.machine import EVERYBODY, START, SYNC, Machine
from tests.state.simulation.network import FATES, TIMEOUT, Network
from tests.state.simulation.scheduler import Process, Scheduler, Trouble
from tests.state.simulation.sketch import compared, sketched
from tests.state.simulation.stand_ins import Event, installed
from tests.state.simulation.witness import MARGIN, Witness, Working
from tests.state.world import Scripted

__all__ = ["KINDS", "Broken", "Escaped", "History", "Script", "play"]

KINDS = ("set", "set", "keyed", "counting", "snapshot")
_DAYS = 2 * 86400.0
_RIGHT_AFTER_THE_GUARD = 5  # how much likelier than elsewhere something happens there
_DUCKDB = 8  # one history in so many is planned by DuckDB


class Broken(AssertionError):
    """A history in which something was that must never be."""


class Escaped(Exception):
    """A process ended in an error that is none of ours: no answer to whether the protocol holds."""


@dataclass(frozen=True)
class Script:
    """What a history is made of; `seed` decides on everything else."""

    seed: int
    kind: str
    rounds: int
    batch_size: int
    concurrency: int
    requests: int  # that a batch is sent in
    jobs: bool  # does the destination finish later
    trouble: Trouble
    moods: Moods
    network: float  # share of requests that something happens to
    fates: tuple[str, ...]  # what happens to them
    hasty: bool  # is everybody quick, and the next run at once
    people: tuple[str, ...]  # who comes, goes and changes
    ledger: float  # share of commits that fail
    moves: bool  # may the mapping move while a run is open
    duckdb: bool  # does DuckDB plan, as it does in the product
    undone: float  # how often the source goes back to what it was

    @classmethod
    def of(cls, seed: int) -> Script:
        """The script of a seed."""
        rng = random.Random(f"script {seed}")
        kind = rng.choice(KINDS)
        often = rng.choice([0.0, 0.002, 0.006, 0.015])
        trouble = Trouble(
            crash=rng.choice([0.0, 0.002, 0.006]),
            stall=often,
            slow=rng.choice([0.0, 0.01, 0.05]),
            stop=rng.choice([0.0, 0.0, 0.001]),
        )
        moods = Moods(
            rejects=rng.choice([0.0, 0.0, 0.1, 0.3]),
            defers=rng.choice([0.0, 0.0, 0.1]),
            refuses=rng.choice([0.0, 0.0, 0.1, 0.3]),
            poison=kind != "snapshot" and rng.random() < 0.3,
            refuses_whole=rng.random() < 0.3,
        )
        script = cls(
            seed=seed,
            kind=kind,
            rounds=rng.choice([1, 2, 2, 2, 3]),
            batch_size=rng.choice([1, 2, 3]),
            concurrency=rng.choice([1, 1, 2]),
            requests=rng.choice([1, 1, 2]) if kind in ("set", "counting") else 1,
            jobs=kind in ("set", "keyed") and rng.random() < 0.2,
            trouble=trouble,
            moods=moods,
            network=rng.choice([0.1, 0.4, 0.7]),
            fates=("late",)
            if rng.random() < 0.15
            else _some(rng, [f for f in FATES if not (f == "twice" and kind == "counting")]),
            hasty=rng.random() < 0.5,
            people=tuple(EVERYBODY if rng.random() < 0.4 else rng.sample(EVERYBODY, 3)),
            ledger=rng.choice([0.0, 0.0, 0.01, 0.03]),
            moves=rng.random() < 0.15,
            duckdb=seed % _DUCKDB == 0,
            undone=0.4,
        )
        return script._fickle() if rng.random() < 0.1 else script

    def _fickle(self) -> Script:
        """The same, at a destination that takes what it does not answer and refuses it the next time, and with a
        source that takes back what it wanted. Left to chance this hardly ever comes together."""
        return replace(
            self,
            kind="set",
            rounds=3,
            requests=1,
            jobs=False,
            trouble=Trouble(),
            moods=Moods(rejects=0.5),
            network=0.7,
            fates=("unanswered", "late"),
            hasty=True,
            people=self.people[:3],
            ledger=0.0,
            moves=False,
            undone=0.7,
        )


def _some(rng: random.Random, names: list[str]) -> tuple[str, ...]:
    """Some of the names: with few at a time, each has its way."""
    return tuple(rng.sample(names, rng.choice([1, 2, 3, len(names)])))


@cache
def machine() -> Machine:
    """This process's."""
    return Machine()


class Client(Scripted):
    """A connector that sends a batch in one or more requests through the history's network."""

    def __init__(self, history: History, working: Working, before: Callable[[], float | None]) -> None:
        Connector.__init__(self, Config(), _CLIENT)
        self.history, self.working, self.before = history, working, before

    def push(self, batch: Batch) -> Outcome:
        """Send it."""
        return self.history.push(self.working, batch, self.before)


class Asking(Client):
    """The same, and its jobs can be asked about."""

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """Ask."""
        return self.history.poll(self.working, job, batch, self.before)


_CLIENT = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)))


class History:
    """One script, played."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.machine = machine()
        self.rng = random.Random(script.seed)
        self.scheduler = Scheduler(self.rng, script.trouble)
        self.seen: Counter[str] = Counter()
        self.source: dict[str, dict[str, Any]] = {email: dict(fields) for email, fields in START.items()}
        self._before = {email: dict(fields) for email, fields in START.items()}
        self.witness = Witness(self.machine.ledger, script.kind, self.machine.members, self.machine.emails)
        self.destination = Destination(
            script.kind, script.moods, self.rng, self.witness, {e: dict(f) for e, f in START.items()}
        )
        self.witness.destination = lambda: self.destination.audience
        self.witness.lives = lambda holder: holder in self.processes and not self.processes[holder].dead
        self.network = Network(
            self.scheduler, self.destination, self.rng, script.network, script.fates, script.hasty
        )
        self.commits = script.ledger
        self.mapping = "mapping-1"
        self.scores = 7 * len(EVERYBODY)
        self.processes: dict[str, Process] = {}
        self.workings: dict[str, Working] = {}

    # --- a process ----------------------------------------------------------------------------------------

    def start(self, *, mortal: bool = True) -> tuple[Callable[[], bool], list[SyncReport]]:
        """A new process that runs the sync; returns whether it ended, and its reports."""
        process = Process(
            f"process-{len(self.processes)}",
            mortal,
            detectable=self.rng.random() < (0.9 if self.script.hasty else 0.5),
        )
        self.processes[process.name] = process
        reports: list[SyncReport] = []
        ended = self.scheduler.spawn(process, lambda: self._work(process, reports))
        return ended, reports

    def _work(self, process: Process, reports: list[SyncReport]) -> None:
        working, stop = Working(), Event(self.scheduler)
        process.on_stop = stop.set
        self.workings[process.name] = working
        ledger: Any = Connection(
            self.machine.ledger, self.scheduler, self.witness, working, self.rng, self.commits, self.seen
        )
        connect: Any = Asking if self.script.jobs else Client
        whole = self.script.kind == "snapshot"  # of which there is but one batch, whatever its size
        job = self.machine.job(
            self.script.kind,
            lambda: self._staged(working),
            lambda before: connect(self, working, before),
            limits=Limits(
                batch_size=None if whole else self.script.batch_size, concurrency=self.script.concurrency
            ),
            mapping=self.mapping,
        )
        pacers = Pacers(lambda: self.scheduler.now)
        for _ in range(3):
            runner = Runner(ledger, self.machine.settings, actor="ann", stop=stop, pacers=pacers)  # type: ignore[arg-type]
            report = runner.run(job, first_run=True)
            reports.append(report)
            if exit_code([report]) == 0 and not working.green:
                self.witness.says("a run was reported green while something is undelivered")
            if report.code != LeaseHeld.code:
                return
            self.scheduler.block(None, self.rng.choice([3.0, 15.0, 32.0]))

    def _staged(self, working: Working) -> Mapping[str, Mapping[str, Any]]:
        working.staged = {email: dict(fields) for email, fields in self.source.items()}
        return working.staged

    def is_dead(self, holder: str) -> bool:
        """What others can tell of a holder."""
        process = self.processes.get(holder)
        return process is not None and process.dead and process.detectable

    # --- what its connector does --------------------------------------------------------------------------

    def push(self, working: Working, batch: Batch, before: Callable[[], float | None]) -> Outcome:
        """Send a batch in its requests."""
        self.scheduler.threads.told = 0
        changes, receipts = list(batch.changes), []
        size = -(-len(changes) // self.script.requests)
        for number, first in enumerate(range(0, len(changes), size)):
            over = before()
            self.scheduler.pause(_RIGHT_AFTER_THE_GUARD)
            now = self.scheduler.now
            ends = min(now + TIMEOUT, now + TIMEOUT if over is None else over)
            if now >= ends:
                raise Unavailable("there was no time left for it")
            self.witness.leaves(working, now, ends, getattr(self.scheduler.threads, "alive_until", 0.0))
            request = Request(working.run, f"{batch.id}/{number}", tuple(changes[first : first + size]), ends)
            reply = self.network.send(request)
            if reply.refused:
                raise RequestError("it will not have all of it")
            receipts += reply.receipts
        if self.script.jobs:
            told = [[r.key, str(r.status)] for r in receipts]
            return Job(f"job-{batch.id}", {"receipts": told}, poll_after=self.rng.choice([1.0, 5.0, 60.0]))
        return self._told(working, batch, receipts)

    def poll(self, working: Working, job: Job, batch: Batch, before: Callable[[], float | None]) -> Outcome:
        """Ask about a job, whose work is done and whose answer may take its time."""
        self.scheduler.threads.told = 0
        before()
        self.scheduler.block(None, 0.2)
        if self.rng.random() < self.network.troubled / 2:
            raise Unavailable("the connection broke")
        if self.rng.random() < 0.3:
            return replace(job, poll_after=self.rng.choice([1.0, 20.0]))
        receipts = [Receipt(key, Status(status), "as it said") for key, status in job.data["receipts"]]
        return self._told(working, batch, receipts)

    def _told(self, working: Working, batch: Batch, receipts: list[Receipt]) -> list[Receipt]:
        good = {r.key for r in receipts if r.status is Status.APPLIED}
        self.scheduler.threads.told = len(good)
        self.witness.answered(working.run, batch.changes, receipts)
        return receipts

    # --- the course of it ---------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the script, heal, and judge. Raises `Broken`."""
        self.machine.now = lambda: self.scheduler.now
        with (
            self.machine.opened(),
            installed(self.scheduler, {"is_dead": self.is_dead}),
            compared(self.machine, lambda: self.workings[self.scheduler.process.name].staged)
            if self.script.duckdb
            else sketched(self.machine, lambda: f"{self.rng.getrandbits(64):016x}"),
        ):
            try:
                self._suffer()
                self._heal()
            finally:
                self.scheduler.end()
        self._judge_end()

    def _suffer(self) -> None:
        for number in range(self.script.rounds):
            self._move()
            if number and self.script.moves:
                self.mapping = f"mapping-{self.rng.randint(1, 2)}"
            ended, _ = self.start()
            process = self.processes[f"process-{len(self.processes) - 1}"]
            self._until(lambda ended=ended, process=process: ended() or self._away(process), 300.0)
            self.scheduler.block(None, 0.0 if self.script.hasty else self.rng.choice([0.0, 1.0, 12.0, 25.0, 40.0]))
            if self.rng.random() < 0.04:
                self.scheduler.block(None, _DAYS)

    def _heal(self) -> None:
        """No more faults; then those who slept through it wake up, and it is healed again."""
        self.scheduler.trouble = Trouble()
        self.network.troubled = self.commits = 0.0
        self.destination.calm = True
        if self.script.hasty or self.rng.random() < 0.5:
            self._move()
        self._run_until_done()
        sleeping = [p for p in self.processes.values() if not p.dead and p.stalled_until > self.scheduler.now]
        if sleeping:
            self._settled()
            if self.rng.random() < 0.5:
                self._move()
                self._run_until_done()
            for process in sleeping:
                process.stalled_until = self.scheduler.now
        self._until(lambda: self.scheduler.alone, _DAYS)
        self.scheduler.block(None, TIMEOUT + MARGIN)
        if any(r.code != "unknown" for r in self.machine.ledger.rejected(SYNC)):
            self.scheduler.block(None, _DAYS)
            self._run_until_done()
        elif sleeping and (self.machine.ledger.open_run(SYNC) or self._uncertain()):
            self._run_until_done()
        self._settled()

    def _run_until_done(self) -> None:
        """Run the sync as a person would, until it says that there is nothing left to be done."""
        said: list[str] = []
        for _ in range(12):
            ended, reports = self.start(mortal=False)
            self._until(ended, _DAYS)
            report = reports[-1]
            said.append(f"{report.status} {report.code} {report.error}")
            if report.status in ("completed", "completed_with_errors") and not self._uncertain():
                return
            self.scheduler.block(None, 32.0)
        raise Broken(f"it does not come to an end: {said}")

    def _until(self, so: Callable[[], bool], seconds: float) -> None:
        self.scheduler.block(lambda: so() or bool(self.witness.wrong), seconds)
        self._blame()

    def _away(self, process: Process) -> bool:
        return process.dead or process.stalled_until > self.scheduler.now

    def _move(self) -> None:
        """The source moves: some come, some go, some change; or all is as it was before the last time."""
        self._before, before = {e: dict(f) for e, f in self.source.items()}, self._before
        if before != self.source and self.rng.random() < self.script.undone:
            self.source = before
            return
        for _ in range(self.rng.randint(1, 4)):
            email = self.rng.choice(self.script.people)
            self.scores += 1
            if email not in self.source or self.rng.random() < 0.5 or len(self.source) <= _FEWEST:
                self.source[email] = {"score": self.scores}
            else:
                del self.source[email]

    # --- judgement ----------------------------------------------------------------------------------------

    def _blame(self) -> None:
        if self.witness.wrong:
            raise Broken(self.witness.wrong[0])
        if self.scheduler.failures:
            raise Escaped("an error reached the user as a traceback") from self.scheduler.failures[0]

    def _settled(self) -> None:
        """Source, members and destination are the same, but for what is refused or a person has to look at."""
        self._blame()
        ledger, unsure = self.machine.ledger, self.witness.unsure
        refused = self._refused()
        found = {e: f for e, f in self.destination.audience.items() if e not in unsure | refused}
        wanted = {e: f for e, f in self.source.items() if e not in unsure | refused}
        if found != wanted:
            raise Broken(f"the destination has {found}, and is to have {wanted}")
        doubtful = unsure | self._dirty()
        members = set(self.machine.members(ledger.generation(SYNC))) - doubtful
        if members != set(self.destination.audience) - doubtful:
            raise Broken(f"members are {sorted(members)}, the destination has {sorted(self.destination.audience)}")
        if self._uncertain():
            raise Broken("members are uncertain, and nothing goes wrong any more")

    def _refused(self) -> set[str]:
        """Whom the destination refuses for ever, as they are."""
        return {e for e, f in self.source.items() if self.script.moods.poisoned(f)}

    def _uncertain(self) -> set[str]:
        """Members whose state nobody knows, though they would be taken."""
        return self._dirty() - self._refused()

    def _dirty(self) -> set[str]:
        return {self.machine.emails[key] for key, *_ in self.machine.ledger.dirty(SYNC)}

    def _judge_end(self) -> None:
        self._blame()
        ledger = self.machine.ledger
        for run in ledger.runs(SYNC, limit=1000):
            if run.finished_at is None:
                raise Broken(f"run {run.id} never ended: it is {run.status}")
            rows = [
                n
                for b in ledger.batches(run.id)
                if b.state is not BatchState.SPLIT
                for n in range(b.first, b.last + 1)
            ]
            if len(rows) != len(set(rows)):
                raise Broken(f"batches of run {run.id} have rows in common")
            exceptions = Counter(str(status) for _, _, _, status, _ in ledger.exceptions(run.id))
            for status in ("rejected", "deferred"):
                if exceptions[status] != sum(getattr(b, status) for b in ledger.batches(run.id)):
                    raise Broken(f"batches of run {run.id} do not add up to its records that were {status}")
            self._judge_counted(run.id)

    def _judge_counted(self, run: str) -> None:
        """What was applied is never taken for not applied, where it would be sent, and counted, once more."""
        if self.script.kind != "counting":
            return
        for _, key, _, status, _ in self.machine.ledger.exceptions(run):
            email = self.machine.emails[key]
            if str(status) in ("rejected", "deferred") and self.witness.was_applied(run, email):
                raise Broken(f"{email} was applied and is kept as {status}")


_FEWEST = 6  # people: with fewer, the guardrail of shrunken sources would hold removals


def play(script: Script) -> History:
    """Play a script from the start. Raises `Broken`, saying how to play it again."""
    machine().reset()
    history = History(script)
    try:
        history.play()
    except BaseException as error:
        error.add_note(f"again: play(Script.of({script.seed}))\n{script}")
        raise
    return history
