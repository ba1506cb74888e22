"""The network between the command and its destination is cut: nobody is lost, and what is late cannot undo."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests
from tests.acceptance.project import Process
from tests.acceptance.sink import Sink
from tests.crash.proxy import Cut, Proxy, proxied
from tests.crash.small import PEOPLE, QUICK, Small
from tests.figures import Figures

CUTS = [cut for cut in Cut if cut not in (Cut.NOTHING, Cut.HOLD)]
REMOVED, ADDED = 10, 20


@pytest.fixture
def proxy(sink: Sink) -> Iterator[Proxy]:
    """A network that works until a test cuts it."""
    with proxied(sink.port) as started:
        yield started


@pytest.fixture
def far(settled: Small, proxy: Proxy) -> Small:
    """A project in step with a destination behind the network, with additions, updates and removals due."""
    far = Small(settled.root, f"http://127.0.0.1:{proxy.port}/records", batch_size=10)
    far.write()
    far.sql(f"DELETE FROM vip_cohort WHERE user_id <= {REMOVED}")
    far.sql("UPDATE vip_cohort SET score = score + 1000 WHERE user_id <= 60")
    far.more_people(PEOPLE + 1, ADDED)
    return far


def there(sink: Sink) -> dict[int, int]:
    """Whom the destination has, and their scores."""
    return {key: member["score"] for key, member in sink.members.items()}


def wanted(project: Small) -> dict[int, int]:
    """Whom the warehouse has, and their scores."""
    with duckdb.connect(str(project.root / "warehouse.duckdb")) as connection:
        return dict(connection.execute("SELECT user_id, score FROM vip_cohort").fetchall())


def prove(project: Small, sink: Sink, figures: Figures) -> None:
    """Nobody is lost, nothing is removed that was not to be, and repeats are the same request."""
    assert there(sink) == wanted(project)
    figures.add("requests repeated after cuts", repeated_requests(sink.requests))
    removed = {who for entry in sink.requests if entry.op == "remove" for who in entry.ids}
    assert removed == set(range(1, REMOVED + 1))
    assert project.here("run").succeeded().sync["requests"] == 0


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.name.lower())
def test_a_cut_that_heals_after_the_run_gave_up_loses_nobody(
    far: Small, sink: Sink, proxy: Proxy, figures: Figures, cut: Cut
) -> None:
    sink.faults = (faults.when(3, lambda: setattr(proxy, "cut", cut)),)

    failed = far.process("run").failed("HG403")
    assert there(sink) != wanted(far) or cut is Cut.STALL  # what is late may have come by now
    assert failed.sync["status"] == "failed"
    assert failed.sync["applied"] < REMOVED + ADDED + 50
    assert proxy.cuts > 0
    proxy.cut, sink.faults = Cut.NOTHING, ()
    done = far.process("run")

    assert done.code == 0, done.text
    prove(far, sink, figures)
    figures.add("network cuts")


@pytest.mark.parametrize("cut", [Cut.ANSWERS, Cut.BOTH, Cut.BODY], ids=lambda cut: cut.name.lower())
def test_a_cut_that_heals_in_time_is_ridden_out(
    far: Small, sink: Sink, proxy: Proxy, figures: Figures, cut: Cut
) -> None:
    far.extra = QUICK.replace("attempts = 3", "attempts = 50").replace('"50ms"', '"200ms"')
    far.write()
    sink.faults = (faults.when(3, lambda: setattr(proxy, "cut", cut)),)
    running = far.start("run", "--json")
    until(lambda: proxy.cuts >= 2, running)
    proxy.cut = Cut.NOTHING

    done = far.ended(running).succeeded()

    assert done.sync["applied"] == REMOVED + ADDED + 50
    assert done.sync["retries"] > 0
    prove(far, sink, figures)
    figures.add("network cuts")


def test_an_addition_that_comes_late_cannot_land_after_its_removal(
    settled: Small, sink: Sink, proxy: Proxy, figures: Figures
) -> None:
    late = list(range(PEOPLE + 1, PEOPLE + ADDED + 1))
    extra = QUICK.replace('"1s"', '"4s"').replace('"6s"', '"15s"')
    far = Small(settled.root, f"http://127.0.0.1:{proxy.port}/records", extra=extra)
    far.write()
    far.more_people(PEOPLE + 1, ADDED)

    proxy.cut = Cut.HOLD  # the first request is on its way for long; its repeat is not
    far.process("run").succeeded()
    assert proxy.held.is_set()
    assert [sorted(entry.ids) for entry in sink.requests] == [late]
    far.sql(f"DELETE FROM vip_cohort WHERE user_id > {PEOPLE}")
    removing = far.start("run", "--json")
    said = far.root.glob(".output-*.err")
    path = max(said, key=lambda p: p.stat().st_mtime_ns)
    until(lambda: "waiting" in path.read_text(), removing)
    assert sink.count == 1
    proxy.release()
    until(lambda: sink.count == 2, removing)
    released = time.time()
    far.ended(removing).succeeded()

    first, lately, removal = sink.requests
    assert lately.key == first.key
    assert [first.op, lately.op, removal.op] == ["add", "add", "remove"]
    assert sorted(removal.ids) == late
    assert removal.time >= max(released, proxy.held_at + 6.0)  # the time limit of a request and a margin
    assert sorted(sink.members) == list(range(1, PEOPLE + 1))
    figures.add("late requests let in before their removal")


def until(true: object, process: Process, seconds: float = 60.0) -> None:
    """Wait for something to happen while a process runs."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        assert Path(f"/proc/{process.pid}").exists(), "the process ended before"
        time.sleep(0.02)
