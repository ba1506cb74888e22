"""Killed while people are told: each message comes once, or twice with the same id, and none is lost."""

from __future__ import annotations

import re

import pytest

from tests.crash.ground import SYNC, GroundOf
from tests.inbox import inbox

_WRITES = ("change_alert", "claim_messages", "end_messages")
OF_TELLING = ("message.sent", *(f"{write}.{side}" for write in _WRITES for side in ("before", "after")))
OF_MUTING = ("mute.before", "mute.after")
_TWICE = {"message.sent", "end_messages.before"}  # it was taken, and nobody noted it

_BETWEEN = ("claim_messages.after", "message.sent")  # it is claimed and not sent; it is sent and not noted
_ELSEWHERE = tuple(point for point in OF_TELLING if point not in _BETWEEN)

pytestmark = pytest.mark.timeout(180)

CONFIG = """
[alerts.board]
url = "env:BOARD_URL"
[alerting]
to = ["board"]
flapping = 100
"""


@pytest.mark.parametrize(
    "points",
    [pytest.param(_BETWEEN, marks=pytest.mark.slow), pytest.param(_ELSEWHERE, marks=pytest.mark.endless)],
    ids=["between claim and send", "everywhere else"],
)
def test_a_message_that_a_killed_process_was_about_to_send_is_sent_by_the_next(
    ground_of: GroundOf, points: tuple[str, ...]
) -> None:
    ground = ground_of()
    ground.project.sql("DELETE FROM vip_cohort WHERE user_id <= 60")
    ground.project.extra += CONFIG
    ground.project.write()
    assert ground.run().code == 3
    with inbox() as board:
        ground.project.environment["BOARD_URL"] = f"json://127.0.0.1:{board.port}/hook"
        for point in points:
            told = len(board.got)
            assert ground.headgate("alert", "send", fault=f"{point}:1:kill").code == -9, point
            assert ground.headgate("alert", "send").code == 0
            ids = [re.findall(r"Alert ([0-9a-f]{12})", one["message"])[0] for one in board.got[told:]]

            assert len(ids) == (2 if point in _TWICE else 1), point
            assert len(set(ids)) == 1, "who hears it twice can tell by its id"
            _turn(ground)
        told = len(board.got)
        assert ground.headgate("alert", "send").code == 0
        assert len(board.got) == told + 1, "of all that was told before nothing comes again"


def _turn(ground) -> None:  # type: ignore[no-untyped-def]
    """Make another change that is told: the plan is decided on, or there is another one."""
    status = ground.headgate("status", "--json").json["syncs"][0]
    if status["held_plan"]:
        assert ground.headgate("reject", status["held_plan"], "--reason", "the table is wrong").code == 0
    else:
        assert ground.headgate("run", "--json").code == 3


@pytest.mark.slow
def test_a_killed_mute_is_there_with_its_event_or_not_at_all(ground_of: GroundOf) -> None:
    mute = ("alert", "mute", SYNC, "--for", "4h", "--reason", "we know")
    for point in OF_MUTING:
        ground = ground_of()
        assert ground.headgate(*mute, fault=f"{point}:1:kill").code == -9
        mutes = ground.headgate("alert", "list", "--json").json["mutes"]
        events = ground.headgate("audit", "search", "--action", "alert.muted", "--json").json["events"]

        assert len(mutes) == len(events) == (1 if point.endswith("after") else 0)
        assert ground.headgate(*mute).code == 0
