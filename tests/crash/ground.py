"""One project, its destination and the truth about both: what is changed, what is killed, what must hold after.

The cohort has 200 people to begin with and batches have 20. A change of the source is additions, updates and
removals, so that a run has some ten batches in three ops.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import duckdb
import orjson

from sync.state.ledger import open_ledger
from sync.state.members import folder_of, relation
from sync.state.nouns import BatchState
from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Entry, Sink
from tests.crash.forge import VARIABLE, Forge, Forked
from tests.figures import Figures

PEOPLE = 200
SYNC = "sink-vip"
FAST = """\
[engine]
lease_ttl = "12s"
[delivery]
request_timeout = "3s"
"""


@dataclass(frozen=True)
class Snapshot:
    """A project after its first run, and whom the destination knows then."""

    folder: Path
    members: dict[Any, dict[str, Any]]


@dataclass
class Ground:
    """A project under test. `refused` are added people whom the destination does not take."""

    project: Project
    sink: Sink
    forge: Forge
    figures: Figures
    refused: frozenset[int] = frozenset()
    acked: list[tuple[int, set[str]]] = field(default_factory=list)  # at each kill: requests so far, settled keys

    # --- what happens -------------------------------------------------------------------------------------

    def change(self) -> Ground:
        """Move the source: 60 additions, 60 updates, 20 removals."""
        self.project.more_people(PEOPLE + 1, 60)
        self.project.sql("UPDATE vip_cohort SET score = score + 1000 WHERE user_id BETWEEN 101 AND 160")
        self.project.sql("DELETE FROM vip_cohort WHERE user_id <= 20")
        return self

    def start(self, *arguments: str, fault: str = "") -> Forked:
        """Start `headgate ARGUMENTS`, to kill or freeze itself at the fault."""
        return self.forge.start(self.project, *arguments, **({VARIABLE: fault} if fault else {}))

    def headgate(self, *arguments: str, fault: str = "") -> Done:
        """Run `headgate ARGUMENTS`; what a killed one reported must be true."""
        done = self.start(*arguments, fault=fault).wait()
        if done.code == -9:
            self.killed(done)
        return done

    def killed(self, done: Done) -> None:
        """Count a kill, and remember what the ledger knew of it."""
        self.figures.add("kills")
        if done.out:  # it had reported before it died
            self.believe(done)
        self.acked.append((self.sink.count, self.acknowledged()))

    def run(self, fault: str = "", *arguments: str) -> Done:
        """`headgate run --json`."""
        return self.headgate("run", "--json", *arguments, fault=fault)

    def again(self, *arguments: str, held: tuple[str, ...] = ()) -> Done:
        """What a person does after a crash: run again; and where that says "held", what `held` says."""
        started, before = time.monotonic(), set(self.sink.members)
        done = self.run("", *arguments)
        if done.code == 3 and held:
            assert before <= set(self.sink.members), "a removal slipped through"
            done = self.headgate(*held)
        self.figures.most("slowest recovery, s", round(time.monotonic() - started, 2))
        self.believe(done)
        return done

    # --- what must hold -----------------------------------------------------------------------------------

    def truth(self) -> dict[int, dict[str, Any]]:
        """What the destination must have: the source as it is mapped, without what it refuses."""
        with duckdb.connect(str(self.project.root / "warehouse.duckdb"), read_only=True) as connection:
            rows = connection.execute("SELECT user_id, email, score FROM vip_cohort").fetchall()
        return {row[0]: {"email": row[1], "score": row[2]} for row in rows if row[0] not in self.refused}

    def at_the_destination(self) -> dict[int, dict[str, Any]]:
        """What it has."""
        return {who: {"email": r["email"], "score": r["score"]} for who, r in dict(self.sink.members).items()}

    def members(self) -> set[int]:
        """Whom the ledger's current generation has."""
        state = self.project.root / ".headgate"
        with open_ledger(state / "ledger.db") as ledger:
            generation = ledger.generation(SYNC)
        with duckdb.connect() as connection:
            select = relation(connection, folder_of(state, SYNC), generation, ["user_id"])
            return {
                row[0] for row in connection.execute(f'SELECT "id.user_id"::BIGINT FROM ({select})').fetchall()
            }

    def unknown(self) -> set[int]:
        """Who is kept as rejected because nobody can tell what became of them."""
        state = self.project.root / ".headgate"
        with open_ledger(state / "ledger.db") as ledger:
            kept = {(r.run, r.row) for r in ledger.rejected(SYNC) if r.code == "unknown"}
        found = set()
        for run, row in kept:
            file = state / "rejected" / SYNC / f"{run}.parquet"
            with duckdb.connect() as connection:
                where = f"FROM read_parquet('{file}') WHERE row = {row}"
                found |= {r[0] for r in connection.execute(f'SELECT "id.user_id"::BIGINT {where}').fetchall()}
        return found

    def acknowledged(self) -> set[str]:
        """Idempotency keys of the batches that the ledger has as acknowledged."""
        path = self.project.root / ".headgate" / "ledger.db"
        if not path.exists():
            return set()
        with open_ledger(path) as ledger:
            runs = [run.id for run in ledger.runs(SYNC, limit=5)]
            return {b.id for run in runs for b in ledger.batches(run, BatchState.ACKED)}

    def believe(self, done: Done) -> None:
        """A report of success is true at this moment: never green while a record is undelivered."""
        report = orjson.loads(done.out)
        ended = {one["status"] for one in report.get("syncs", [])}
        green = done.code == 0 or (done.code == -9 and ended <= {"completed", "unchanged"})
        if green and report.get("command") in ("run", "approve"):
            assert self.at_the_destination() == self.truth(), "green, and something is undelivered"

    def in_step(self) -> None:
        """Source, members and destination agree, and the record explains every request.

        Whom nobody can tell about is accounted for by name: they may be there, and nobody says they are.
        """
        truth, there, unknown = self.truth(), self.at_the_destination(), self.unknown()
        assert there == {who: row for who, row in truth.items() if who in there or who not in unknown}
        assert self.members() | unknown == set(truth)
        self.explained()
        self.looked_after()

    def explained(self) -> None:
        """Repeats have the same key and body, and none was acknowledged before; nobody was sent under two keys."""
        by_key: dict[str, list[Entry]] = defaultdict(list)
        keys: dict[tuple[str, Any], set[str]] = defaultdict(set)
        for entry in self.sink.requests:
            by_key[entry.key].append(entry)
            for who in entry.ids if entry.applied == entry.size else ():
                keys[entry.op, who].add(entry.key)
        assert "" not in by_key
        for same in by_key.values():
            assert all(e.op == same[0].op and e.records == same[0].records for e in same), "one key, two contents"
        assert not [who for who, under in keys.items() if len(under) > 1], "applied under two keys"
        for count, acked in self.acked:
            again = [key for key in acked if any(e.number > count for e in by_key[key])]
            assert not again, "sent again after it was acknowledged"
        repeats = sum(
            sum(e.applied > 0 for e in same) - 1 for same in by_key.values() if any(e.applied for e in same)
        )
        assert repeats <= len(self.acked) * self.project.concurrency, "more repeats than were in flight"
        self.figures.add("requests repeated after being applied", repeats)

    def times_applied(self) -> Counter[tuple[str, int]]:
        """How often each op on each person was applied."""
        return Counter((e.op, who) for e in self.sink.requests if e.applied for who in e.ids)

    def looked_after(self) -> None:
        """The audit log verifies, and the status is known."""
        audit = self.headgate("audit", "verify", "--json")
        assert audit.code == 0, audit.text
        status = self.headgate("status", "--json")
        assert status.code == 0, status.text


class GroundOf(Protocol):
    """Makes projects: after their first run, or (`fresh`) such as were never run."""

    def __call__(self, *, fresh: bool = False) -> Ground:
        """One more."""


def copy_of(snapshot: Snapshot, folder: Path, sink: Sink, forge: Forge, figures: Figures) -> Ground:
    """The snapshot's project in a folder of its own; the sink begins a new record with its members."""
    shutil.copytree(snapshot.folder, folder)
    sink.begin(folder.with_suffix(".jsonl"), snapshot.members)
    return Ground(Project(folder, sink.url, batch_size=20, concurrency=2, extra=FAST), sink, forge, figures)
