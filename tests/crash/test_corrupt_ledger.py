"""A ledger that is damaged or older than what was sent, and damaged checkpoints: nothing is sent on a doubt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests
from tests.acceptance.project import Process
from tests.acceptance.sink import Sink
from tests.crash.damage import Harm, emptied, flip, flips, missing, truncated
from tests.crash.small import PEOPLE, SYNC, Small
from tests.figures import Figures

EVERYBODY = list(range(1, PEOPLE + 1))
TURNED = 15


def scribbled(path: Path) -> None:
    """Pages in the middle hold something else."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 4096 // 2 * 4096)
        file.write(b"\x5a" * 8192)


def headless(path: Path) -> None:
    """The first page is not a database's any more."""
    with path.open("r+b") as file:
        file.write(b"\0" * 100)


@pytest.mark.parametrize("harm", [truncated, scribbled, headless])
def test_nothing_is_sent_on_a_damaged_ledger_and_the_backup_leads_back(
    settled: Small, sink: Sink, figures: Figures, harm: Harm
) -> None:
    settled.sql("UPDATE vip_cohort SET score = score + 1000")
    ledger = settled.state / "ledger.db"
    shutil.copy2(ledger, backup := settled.root / "backup.db")
    harm(ledger)

    for command in (["run"], ["plan"], ["state", "show"]):
        answer = settled.here(*command)
        assert "Traceback" not in answer.text
        assert "HG900" not in answer.text
    settled.here("run").failed("HG315")
    assert settled.here("doctor", "--offline").code == 1
    assert sink.count == 0
    figures.add("corrupted ledgers caught")

    for path in settled.state.glob("ledger.db*"):
        path.unlink()
    shutil.copy2(backup, ledger)
    settled.here("run").succeeded()
    assert settled.here("run").succeeded().sync["requests"] == 0


def test_a_bit_turned_anywhere_in_the_ledger_never_costs_a_record(
    settled: Small, sink: Sink, figures: Figures
) -> None:
    settled.sql("DELETE FROM vip_cohort WHERE user_id <= 10")
    settled.more_people(PEOPLE + 1, 10)
    wanted = [*EVERYBODY[10:], *range(PEOPLE + 1, PEOPLE + 11)]
    whole = settled.state.with_name("whole")
    shutil.copytree(settled.state, whole)
    before = dict(sink.members)
    for offset, bit in flips(whole / "ledger.db", TURNED, seed=5):
        shutil.rmtree(settled.state)
        shutil.copytree(whole, settled.state)
        sink.begin(sink.log.with_name(f"{offset}-{bit}.jsonl"), before)
        flip(settled.state / "ledger.db", offset, bit)

        done = settled.here("run")

        assert "Traceback" not in done.text, (offset, bit)
        assert "HG900" not in done.text, (offset, bit, done.text)
        if done.code == 0:
            assert sorted(sink.members) == sorted(wanted), (offset, bit)
        else:  # refused, or held: nothing destructive went out
            assert {e.op for e in sink.requests} <= {"add", "update"}, (offset, bit)
            figures.add("corrupted ledgers caught")
        figures.add("bits turned in ledgers")


def crashed_with_everything_in_the_log(project: Small, sink: Sink) -> None:
    """A first run, killed while its third request is at the destination."""
    started: list[Process] = []
    sink.faults = (faults.when(3, lambda: started[0].kill()),)
    started.append(project.start("run", "--first-run", "--json"))
    assert started[0].wait().code == -9
    sink.faults = ()
    assert (project.state / "ledger.db-wal").stat().st_size > 0


@pytest.mark.parametrize("lost", [["ledger.db-wal"], ["ledger.db-wal", "ledger.db-shm", "ledger.db"]])
def test_a_ledger_that_does_not_know_what_was_sent_is_not_believed(
    fresh: Small, sink: Sink, figures: Figures, lost: list[str]
) -> None:
    crashed_with_everything_in_the_log(fresh, sink)
    seen = sink.count
    for name in lost:
        (fresh.state / name).unlink()

    answer = fresh.here("run", "--first-run")

    if answer.code == 0:  # the main file had the run already: what was in flight was repeated under its key
        assert repeated_requests(sink.requests) <= seen
    else:
        answer.failed("HG304")
        fresh.here("plan").failed("HG304")
        assert fresh.here("doctor", "--offline").code == 1
        assert sink.count == seen
        fresh.here("state", "reset", SYNC, "--members", "0", "--reason", "the log was deleted").succeeded()
        fresh.here("run", "--first-run").succeeded()
    assert sorted(sink.members) == EVERYBODY
    figures.add("corrupted ledgers caught")


def test_an_older_ledger_restored_alone_is_not_believed(settled: Small, sink: Sink, figures: Figures) -> None:
    shutil.copy2(settled.state / "ledger.db", backup := settled.root / "backup.db")
    settled.sql("UPDATE vip_cohort SET score = score + 1000")
    settled.here("run").succeeded()
    newer = settled.root / "newer.db"
    shutil.copy2(settled.state / "ledger.db", newer)
    shutil.copy2(backup, settled.state / "ledger.db")
    settled.sql("DELETE FROM vip_cohort WHERE user_id <= 10")
    seen = sink.count

    settled.here("run").failed("HG304")
    assert sink.count == seen
    shutil.copy2(newer, settled.state / "ledger.db")
    settled.here("run").succeeded()

    assert sorted(sink.members) == EVERYBODY[10:]
    figures.add("corrupted ledgers caught")


@pytest.mark.parametrize("harm", [truncated, emptied, missing])
@pytest.mark.parametrize("name", ["*.notes", "audit.pub"])
def test_damaged_checkpoints_are_found_and_cost_no_record(
    settled: Small, sink: Sink, figures: Figures, name: str, harm: Harm
) -> None:
    harm(next((settled.root / "checkpoints").glob(name)))
    settled.sql("UPDATE vip_cohort SET score = score + 1000")

    assert settled.here("doctor", "--offline").code == 1
    assert settled.here("audit", "verify").code == 1
    done = settled.here("run")

    assert done.code in (0, 1)
    assert "Traceback" not in done.text
    assert "HG900" not in done.text
    assert done.code == 0 or "HG32" in done.text
    assert sink.count == 0 or sorted(sink.members) == EVERYBODY
    figures.add("corrupted files caught")
