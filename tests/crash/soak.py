"""Months of a daemon in minutes: many syncs on an hourly schedule, a clock that is set an hour on again and again.

Each hour the source changes, a mapping is edited, the destination misbehaves, and sometimes the daemon is killed
and started again as a service manager would. What must hold is counted as it goes.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import orjson

from sync.state.ledger import open_ledger
from tests.acceptance import faults
from tests.acceptance.faults import Answer, Request
from tests.acceptance.project import PEOPLE, Project
from tests.acceptance.sink import Sink
from tests.crash.clock import WallClock
from tests.crash.forge import Forge, Forked

HOUR = 3600.0
ROOM = 100_000  # numbers of people between two syncs
_CONFIG = """\
[engine]
lease_ttl = "12s"
memory_limit = "64MB"
[delivery]
request_timeout = "3s"
backoff_first = "50ms"
backoff_max = "500ms"
[guardrails]
max_removed_pct_7d = 100
stop_rejected_pct = 100
[daemon]
workers = 4
"""
_DESTINATION = """\
[destinations.sink{n}]
type = "webhook"
url = "{url}"
batch_size = 20
concurrency = 2
"""
_MAPPING = """\
version: 1
cohort: {{ name: c{n}, source: {{ connection: warehouse, table: c{n}, key: user_id, updated_at: updated_at }} }}
syncs:
  - name: s{n:02}
    destination: sink{d}
    mode: mirror
    schedule: {{ cron: "0 * * * *", timezone: UTC }}
    identifiers: [{{ to: user_id, from: user_id }}]
    fields: [{{ to: email, from: email, pii: true }}, {{ to: score, from: score }}]
"""


def until(done: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


@dataclass(frozen=True)
class Hour:
    """What one hour came to: the daemon's memory in MiB and its open files at its end."""

    runs: int
    rss: float
    files: int
    seconds: float


@dataclass
class Soak:
    """A project of many syncs, and its daemon."""

    root: Path
    sink: Sink
    forge: Forge
    syncs: int
    people: int = 60
    seed: int = 1
    hours: list[Hour] = field(default_factory=list)
    kills: int = 0
    slots: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.wall = WallClock(self.root.parent / f"{self.root.name}-clock")
        self.offset = 0.0
        self.next = self.people + 1  # the next new person of each sync
        self.refused: set[int] = set()  # whom the destination refuses, for now
        self.project = Project(self.root, self.sink.url, environment=self.wall.environment)

    # --- the ground -----------------------------------------------------------------------------------------

    def begin(self) -> Soak:
        """Write the project, deliver everybody once, and start the daemon."""
        (self.root / "mappings").mkdir(parents=True)
        # Two names of the machine are two accounts: their syncs run side by side.
        urls = (self.sink.url, self.sink.url.replace("127.0.0.1", "localhost"))
        destinations = "".join(_DESTINATION.format(n=n, url=url) for n, url in enumerate(urls))
        source = '[sources.warehouse]\ntype = "duckdb"\npath = "warehouse.duckdb"\n'
        (self.root / "config.toml").write_text(source + destinations + _CONFIG)
        for n in range(self.syncs):
            (self.root / "mappings" / f"c{n:02}.yaml").write_text(_MAPPING.format(n=n, d=n % 2))
            self.project.sql(f"CREATE TABLE c{n} AS {PEOPLE.format(first=n * ROOM + 1, count=self.people)}")
        done = self.forge.start(self.project, "run", "--first-run", "--json").wait(300)
        assert done.code == 0, done.text
        assert self.at_the_destination() == self.truth()
        self.daemon = self.forge.start(self.project, "daemon")
        self.started()
        # To a minute before the full hour: what comes then is every sync's first slot.
        now = time.time()
        self.offset = HOUR - now % HOUR - 60.0
        self.wall.jump(self.offset)
        return self

    def started(self) -> None:
        """Wait until the daemon ticks."""
        until(lambda: '"started"' in self.log(self.daemon))

    def log(self, one: Forked) -> str:
        """What a daemon wrote."""
        return one.stem.with_suffix(".err").read_text()

    # --- an hour --------------------------------------------------------------------------------------------

    def hour(self, *, kill: bool) -> None:
        """The source changes, the clock goes on, every sync runs; `kill` the daemon somewhere in that."""
        began, before = time.monotonic(), self.runs
        self.change()
        self.edit()
        self.sink.faults = (self.trouble,)
        self.offset += HOUR
        self.wall.jump(self.offset)
        slot = time.strftime("%Y-%m-%dT%H:00:00Z", time.gmtime(time.time() + self.offset))
        self.slots |= {(f"s{n:02}", slot) for n in range(self.syncs)}
        if kill:
            sent = self.sink.count
            after = sent + self.dice.randrange(1, 2 * self.syncs)
            until(lambda: self.sink.count >= after or self.settled(slot), 120)
            self.daemon.kill()
            assert self.daemon.wait().code == -9
            self.kills += 1
            self.daemon = self.forge.start(self.project, "daemon")
            self.started()
        until(lambda: self.settled(slot))
        rss, files = usage(self.daemon.pid)
        self.hours.append(Hour(self.runs - before, rss, files, time.monotonic() - began))
        print(f"hour {len(self.hours)}: {self.hours[-1]}", flush=True)  # a long soak that fails has told something

    def change(self) -> None:
        """Of each cohort three people come, one goes, and five have another score."""
        first, gone = self.next, self.dice.randrange(1, self.people)
        self.next += 3
        statements = []
        for n in range(self.syncs):
            base = n * ROOM
            statements.append(f"INSERT INTO c{n} {PEOPLE.format(first=base + first, count=3)}")
            statements.append(
                f"UPDATE c{n} SET score = score + 1 WHERE user_id BETWEEN {base + 20} AND {base + 24}"
            )
            statements.append(f"DELETE FROM c{n} WHERE user_id = {base + gone}")
        if self.dice.random() < 0.5:
            self.refused = {self.dice.randrange(self.syncs) * ROOM + first}
        until(lambda: self.written(statements))

    def edit(self) -> None:
        """A mapping is edited, as far as bytes go: its files are read again while slots come due."""
        with (self.root / "mappings" / f"c{self.dice.randrange(self.syncs):02}.yaml").open("a") as mapping:
            mapping.write(f"# hour {len(self.hours)}\n")

    def written(self, statements: list[str]) -> bool:
        """Change the source, while no process has it open."""
        with contextlib.suppress(duckdb.IOException):
            self.project.sql("; ".join(statements))
            return True
        return False

    def trouble(self, request: Request) -> Answer | None:
        """One request in six meets it: 429, 5xx, a connection that is cut; and who is refused is refused."""
        kind = self.dice.random()
        if kind < 0.05:
            return faults.rate_limited(0.1)
        if kind < 0.10:
            return faults.SERVER_ERROR
        if kind < 0.13:
            return faults.RESET_BEFORE
        if kind < 0.16:
            return faults.RESET_AFTER
        return faults.poison_records(self.refused, 207)(request)

    # --- what is known --------------------------------------------------------------------------------------

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the ledger, as it is now."""
        path = self.root / ".headgate" / "ledger.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as connection:
            return connection.execute(query, values).fetchall()

    @property
    def runs(self) -> int:
        """Runs that are over."""
        return int(self.ask("SELECT count(*) FROM run WHERE finished_at IS NOT NULL")[0][0])

    def settled(self, slot: str) -> bool:
        """Was the slot asked for of every sync, and is nothing under way or waiting any more."""
        asked = self.ask("SELECT count(*) FROM run_request WHERE slot = ?", slot)[0][0]
        waiting = self.ask("SELECT count(*) FROM run_request WHERE taken_at IS NULL")[0][0]
        held = self.ask("SELECT count(*) FROM lease WHERE holder <> ''")[0][0]
        begun = self.ask(
            "SELECT count(*) FROM run_request q WHERE slot = ? AND NOT EXISTS "
            "(SELECT 1 FROM run r WHERE r.sync = q.sync AND coalesce(r.finished_at, r.started_at) >= q.taken_at)",
            slot,
        )[0][0]
        return bool(asked == self.syncs and waiting == held == begun == 0)

    def truth(self) -> dict[int, tuple[str, int]]:
        """What the destination must have."""
        with duckdb.connect(str(self.root / "warehouse.duckdb"), read_only=True) as connection:
            every = " UNION ALL ".join(f"SELECT user_id, email, score FROM c{n}" for n in range(self.syncs))
            return {who: (email, score) for who, email, score in connection.execute(every).fetchall()}

    def at_the_destination(self) -> dict[int, tuple[str, int]]:
        """What it has."""
        return {who: (r["email"], r["score"]) for who, r in dict(self.sink.members).items()}

    # --- the end --------------------------------------------------------------------------------------------

    def end(self) -> None:
        """The destination is well again, rejected records are tried once more, and the daemon drains."""
        self.sink.faults, self.refused = (), set()
        self.daemon.send(signal.SIGTERM)
        done = self.daemon.wait(60)
        assert done.code == 0, done.text[-3000:]
        for (sync,) in self.ask("SELECT DISTINCT sync FROM rejected ORDER BY sync"):
            again = ("rejected", "retry", sync, "--all", "--reason", "the destination is mended")
            retried = self.forge.start(self.project, *again).wait()
            assert retried.code == 0, retried.text
        for _ in range(2):  # what was interrupted is finished first, and then the rest
            last = self.forge.start(self.project, "run", "--json").wait(300)
        assert last.code == 0, last.text[-3000:]

    def report(self) -> dict[str, Any]:
        """The figures."""
        asked = {(sync, slot) for sync, slot in self.ask("SELECT sync, slot FROM run_request")}
        truth, there = self.truth(), self.at_the_destination()
        path = self.root / ".headgate" / "ledger.db"
        with open_ledger(path) as ledger:
            ledger.check(thorough=True)
        return {
            "syncs": self.syncs,
            "hours": len(self.hours),
            "runs": self.runs,
            "kills": self.kills,
            "requests": self.sink.count,
            "slots": len(self.slots),
            "slots not asked for": len(self.slots - asked),
            "lost": len(truth.keys() - there.keys()),
            "left over": len(there.keys() - truth.keys()),
            "other values": sum(there[who] != row for who, row in truth.items() if who in there),
            "ledger MiB": round(path.stat().st_size / 2**20, 1),
            "seconds": round(sum(hour.seconds for hour in self.hours)),
        }


def usage(pid: int) -> tuple[float, int]:
    """Resident memory of a process in MiB, and how many files it has open."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def said(report: dict[str, Any]) -> str:
    """As a line of JSON."""
    return orjson.dumps(report).decode()
