"""Killed at every point, in every kind of work: a rerun converges, nobody is lost, and all is explained."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from sync.faultpoints import POINTS, VARIABLE
from sync.state.ledger import open_ledger
from sync.state.nouns import RunRequest
from tests.acceptance import faults
from tests.crash.ground import SYNC, GroundOf
from tests.crash.scenarios import SCENARIOS, Scenario
from tests.crash.test_access_kills import OF_ACCESS
from tests.crash.test_alert_kills import OF_MUTING, OF_TELLING
from tests.crash.test_backup_kills import OF_A_BACKUP, OF_A_RESTORE, OF_RETENTION
from tests.crash.test_erasure_kills import OF_REMEMBERING, OF_THE_COMMAND, OF_THE_RUN
from tests.crash.test_log_kills import OF_THE_LOG
from tests.crash.test_member_kills import OF_A_MOVE, OF_A_PART, OF_AN_ERASED_PART

CASES = [(s, point, visit) for s in SCENARIOS for point, visit in s.faults]


def by_day(scenario: Scenario, point: str, visit: int) -> bool:
    """Is it the first visit of the point there; the later ones are for the night."""
    return visit == min(v for p, v in scenario.faults if p == point)


def cases() -> list[Any]:
    """All of them, with names to call them by."""
    return [
        pytest.param(s, p, v, id=f"{s.name}-{p}-{v}", marks=() if by_day(s, p, v) else pytest.mark.endless)
        for s, p, v in CASES
    ]


pytestmark = pytest.mark.timeout(180)


@pytest.mark.parametrize(("scenario", "point", "visit"), cases())
def test_a_killed_command_loses_nothing(ground_of: GroundOf, scenario: Scenario, point: str, visit: int) -> None:
    ground = ground_of(fresh=scenario.fresh)
    scenario.prepare(ground)

    killed = ground.headgate(*scenario.command, fault=f"{point}:{visit}:kill")
    assert killed.code == -9, f"{point} was not visited {visit} times: {killed.text}"
    ground.looked_after()
    scenario.mend(ground)
    first = ("--first-run",) if scenario.fresh else ()
    done = ground.again(*first, held=("approve", SYNC, "--reason", "they left", "--json"))

    assert done.code == scenario.code, done.text
    ground.in_step()
    if scenario.counting:
        assert max(ground.times_applied().values()) == 1, "counted twice"


def test_a_killed_reset_forgot_all_or_nothing(ground_of: GroundOf) -> None:
    for side in ("before", "after"):
        ground = ground_of()
        reset = ("state", "reset", SYNC, "--reason", "a new account", "--members", "200")

        assert ground.headgate(*reset, fault=f"reset.{side}:1:kill").code == -9
        assert len(ground.members()) == (200 if side == "before" else 0)
        ground.looked_after()
        if side == "before":
            assert ground.headgate(*reset).code == 0
        assert ground.again("--first-run").code == 0

        ground.in_step()


def test_a_killed_retry_loses_no_rejected_record(ground_of: GroundOf) -> None:
    for side in ("before", "after"):
        ground = ground_of()
        ground.refused = frozenset({205, 206})
        ground.sink.faults = (faults.poison_records(ground.refused, 207),)
        ground.change()
        assert ground.run().code == 4
        retry = ("rejected", "retry", SYNC, "--all", "--reason", "they are well now")

        assert ground.headgate(*retry, fault=f"set_rejected.{side}:1:kill").code == -9
        ground.looked_after()
        ground.sink.faults, ground.refused = (), frozenset()
        assert ground.again().code == 0

        assert ground.at_the_destination() == ground.truth()
        assert ground.members() == set(ground.truth())


@pytest.mark.parametrize(
    "point", [f"{w}.{s}" for w in ("request_run", "take_request") for s in ("before", "after")]
)
def test_a_killed_daemon_takes_up_what_it_was_asked_for(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()
    ground.change()
    assert ground.run("request.answered:2:kill").code == -9

    assert ground.headgate("daemon", "--once", fault=f"{point}:1:kill").code == -9
    ground.looked_after()
    done = ground.headgate("daemon", "--once", "--json")

    assert done.code == 0, done.text
    ground.in_step()


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_daemon_killed_while_it_gives_a_request_back_leaves_it_to_the_next(
    ground_of: GroundOf, side: str
) -> None:
    ground = ground_of()
    ground.change()
    path = ground.project.root / ".headgate" / "ledger.db"
    with open_ledger(path) as ledger:
        ledger.request_run(RunRequest(SYNC, "api-1", "api", "ana", ledger.now()))
    assert ground.headgate("daemon", "--once", fault="take_request.after:1:kill").code == -9

    assert ground.headgate("daemon", "--once", fault=f"give_back.{side}:1:kill").code == -9
    ground.looked_after()
    assert ground.headgate("daemon", "--once").code == 0

    with open_ledger(path) as ledger:
        (request,) = ledger.requests(open_only=False)
    assert request.report is not None
    assert request.report["exit_code"] == 0
    ground.in_step()


@pytest.mark.parametrize("point", ["notice.before", "notice.after"])
def test_a_daemon_killed_while_it_notices_a_dbt_run_makes_one_run_of_it(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()
    ground.project.more = "    schedule: { dbt: { run_results: run_results.json } }\n"
    ground.project.write()
    assert ground.headgate("daemon", "--once").code == 0  # from here on it knows what was there
    ground.change()
    told = '{"metadata": {"invocation_id": "i-1"}, "results": [{"unique_id": "model.a.vip", "status": "success"}]}'
    (ground.project.root / "run_results.json").write_text(told)

    assert ground.headgate("daemon", "--once", fault=f"{point}:1:kill").code == -9
    ground.looked_after()
    for _ in range(2):
        assert ground.headgate("daemon", "--once").code == 0

    with open_ledger(ground.project.root / ".headgate" / "ledger.db") as ledger:
        assert [r.slot for r in ledger.requests(open_only=False)] == ["dbt-i-1"]
    ground.in_step()


PAUSE = """
import sys
from pathlib import Path
from sync.state.ledger import open_ledger
with open_ledger(Path(sys.argv[1])) as ledger:
    ledger.pause("destination:sink", "the account is being moved")
"""


@pytest.mark.parametrize(("side", "paused"), [("before", {}), ("after", {"destination:sink"})])
def test_a_killed_pause_holds_or_was_never_asked_for(ground_of: GroundOf, side: str, paused: set[str]) -> None:
    ground = ground_of()
    path = ground.project.root / ".headgate" / "ledger.db"
    environment = os.environ | {VARIABLE: f"pause.{side}:1:kill"}

    killed = subprocess.run([sys.executable, "-c", PAUSE, str(path)], env=environment, check=False)

    assert killed.returncode == -9
    ground.looked_after()
    with open_ledger(path) as ledger:
        assert set(ledger.paused()) == set(paused)


ELSEWHERE = ("notice", "pause", "reset", "set_rejected", "request_run", "take_request", "give_back")


def test_every_point_is_killed_at() -> None:
    here = {*OF_THE_COMMAND, *OF_THE_RUN, *OF_REMEMBERING, *OF_THE_LOG} | {point for _, point, _ in CASES}
    here |= {*OF_A_PART, *OF_A_MOVE, *OF_AN_ERASED_PART, *OF_TELLING, *OF_MUTING, *OF_ACCESS}
    here |= {*OF_RETENTION, *OF_A_BACKUP, *OF_A_RESTORE}
    here |= {f"{write}.{s}" for write in ELSEWHERE for s in ("before", "after")}

    assert here == set(POINTS)
