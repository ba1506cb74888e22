"""The disk is full at each thing that writes: an error with a code, nothing damaged, a rerun that converges."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests, sent
from tests.acceptance.project import Process
from tests.acceptance.sink import Sink
from tests.crash.disk import no_file_larger, small_disk
from tests.crash.small import QUICK, SYNC, Answer, Small
from tests.figures import Figures

MANY = 6000
EVERYBODY = list(range(1, MANY + 1))


@pytest.fixture
def many(tmp_path: Path, sink: Sink) -> Small:
    """A project whose files are larger than what the ledger needs."""
    return Small(tmp_path / "project", sink.url, batch_size=1000).begun().many()


def temporary(project: Small) -> list[Path]:
    """Files that were not finished."""
    return [p for p in project.state.rglob(".*.tmp") if p.is_file()]


def says_why(answer: Answer) -> bool:
    """Does it say, in words, that there was no room?"""
    return "full" in answer.text or "no space" in answer.text


def converges(project: Small, sink: Sink, figures: Figures, *, rejected: bool = False) -> None:
    """The rerun delivers everybody, and a third run has nothing to do."""
    sink.faults = ()
    done = project.here("run", "--first-run")
    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY
    if not rejected:  # what was rejected is sent again by another run, under its own key
        repeated_requests(sink.requests)
    assert project.here("run").succeeded().sync["requests"] == 0
    assert project.here("doctor", "--offline").code == 0
    assert temporary(project) == []
    figures.add("disk-full writers")


def test_a_run_is_not_begun_where_the_disk_could_fill_up_in_its_middle(
    many: Small, sink: Sink, figures: Figures
) -> None:
    with small_disk(many.state, kib=12 << 10) as disk:
        failed = many.process("run", "--first-run").failed("HG344")
        assert "MiB" in failed.text
        assert sink.count == 0
        disk.free()
        converges(many, sink, figures)


@pytest.mark.parametrize(
    ("folder", "kib", "codes"),
    [
        ("plans", 16, ("HG341",)),
        ("members", 16, ("HG341",)),
        ("sent", 0, ("HG341",)),
    ],
)
def test_a_folder_of_the_state_that_is_full_stops_the_run_and_a_rerun_goes_on(
    many: Small, sink: Sink, figures: Figures, folder: str, kib: int, codes: tuple[str, ...]
) -> None:
    with small_disk(many.state / folder, kib=kib or 4) as disk:
        if not kib:
            disk.fill()
        assert says_why(many.process("run", "--first-run").failed(*codes))
        assert temporary(many) == []
        disk.free()
        converges(many, sink, figures)


def test_rejected_values_that_cannot_be_kept_leave_the_run_open(many: Small, sink: Sink, figures: Figures) -> None:
    refused = set(range(1, MANY, 10))
    sink.faults = (faults.poison_records(refused, 207),)
    with small_disk(many.state / "rejected", kib=16) as disk:
        assert says_why(many.process("run", "--first-run").failed("HG341"))
        disk.free()
        answered, sink.faults = sink.count, ()
        done = many.here("run")
        assert done.code in (0, 4), done.text
        # All was answered: only what was rejected is sent again, by a plan of its own.
        assert {who for entry in sink.since(answered) for who in entry.ids} == refused
        assert list((many.state / "rejected" / SYNC).glob("*.parquet"))
        converges(many, sink, figures, rejected=True)


def test_a_spill_that_finds_no_room_is_an_error_before_anything_is_sent(
    many: Small, sink: Sink, figures: Figures
) -> None:
    many.extra = QUICK.replace("[engine]\n", '[engine]\nmemory_limit = "24MB"\nthreads = 1\n')
    many.write().people(400_000)
    with small_disk(many.state / "tmp", kib=64):
        many.process("plan").failed("HG340", "HG341")
        assert sink.count == 0
    many.extra = QUICK
    many.write()
    many.many()
    converges(many, sink, figures)


@pytest.mark.parametrize("number", [1, 4])
def test_a_disk_that_fills_up_while_a_run_is_sending_loses_nothing(
    many: Small, sink: Sink, figures: Figures, number: int
) -> None:
    with small_disk(many.state, kib=64 << 10) as disk:
        sink.faults = (faults.when(number, disk.fill),)
        assert says_why(many.process("run", "--first-run").failed("HG313", "HG341"))
        assert sink.count < number + many.concurrency * 2
        disk.free()
        converges(many, sink, figures)


def test_checkpoints_that_cannot_be_written_are_told_and_caught_up(
    many: Small, sink: Sink, figures: Figures
) -> None:
    with small_disk(many.root / "checkpoints", kib=4) as disk:
        disk.fill()
        failed = many.process("run", "--first-run")
        assert failed.code == 1, failed.text
        assert "HG320" in failed.text
        assert "Traceback" not in failed.text
        disk.free()
        converges(many, sink, figures)
        assert many.here("audit", "verify").code == 0


@pytest.mark.parametrize("number", [1, 4])
def test_a_limit_of_a_files_size_in_the_middle_of_a_run_loses_nothing(
    many: Small, sink: Sink, figures: Figures, number: int
) -> None:
    started: list[Process] = []  # its output is shorter than the limit, its ledger is not
    sink.faults = (faults.when(number, lambda: no_file_larger(started[0].pid, 8192)),)
    started.append(many.start("run", "--first-run", "--json"))

    many.ended(started[0]).failed("HG313", "HG314", "HG341")

    assert sink.count < number + many.concurrency * 2
    converges(many, sink, figures)


def test_output_and_log_on_a_full_disk_cost_no_record(many: Small, sink: Sink, figures: Figures) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "sync.cli.app", "run", "--first-run", "-vv"],
            cwd=many.root, stdout=full, stderr=full, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    assert done.returncode == 1  # nobody could read what it said
    assert sent(sink.requests) in ({"add": EVERYBODY}, {})
    converges(many, sink, figures)
