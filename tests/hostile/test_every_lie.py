"""Every lie, told to two objects of two kinds of connector, for every op and every request.

Another object is told a part of them; together they hear them all, several times.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from sync.engine.report import exit_code
from sync.sdk.nouns import Op
from sync.sdk.registry import available
from sync.state.nouns import BatchState
from tests.figures import Figures
from tests.hostile.conftest import STANDS
from tests.hostile.documented import documented
from tests.hostile.lies import LIES, Told
from tests.hostile.stage import CANARY, SIZE, Group, Scenario, Stage
from tests.hostile.stands import OWN, SECRET, FromContract, Stand, contracts, wholes

Make = Callable[..., Stage]

_LOOKED_UP = "/memberships/add-and-remove"  # what this answer leaves open is asked of another address


_ALL = ("webhook record", "hubspot contact")  # objects that are told every lie
_EVERY = 8  # of so many lies another is told one


def _lies(stand: Stand) -> list[Told]:
    """What an object is told."""
    every = list(LIES.values())
    if stand.name in _ALL:
        return every
    return every[sorted(STANDS).index(stand.name) % _EVERY :: _EVERY]


def _ops(stand: Stand) -> list[Op]:
    return stand.ops[:1] if isinstance(stand, FromContract) else stand.ops


def _cases() -> list[Any]:
    """Each object, its ops, each request that this takes."""
    return [
        pytest.param(stand, op, where, id=f"{stand.name}, {op}, {number}")
        for stand in STANDS.values()
        for op in _ops(stand)
        for number, where in enumerate(stand.asks(op), 1)
    ]


@pytest.mark.parametrize(("stand", "op", "where"), _cases())
def test_no_lie_is_believed_and_an_honest_run_sets_everything_right(
    staged: Make, figures: Figures, stand: Stand, op: Op, where: str | None
) -> None:
    # The last one halts the engine, so that the cohort can move on before the run ends.
    lies = [None, *_lies(stand), LIES["closes the connection without a word"]]
    scenario = Scenario.of(op, SIZE * len(lies))
    stage = staged(stand, scenario, op=op, where=where, lies=lies)
    moved: list[str] = []

    def move_on() -> None:
        moved.extend(person for group in stage.groups[::2] for person in group.people)
        scenario.after(stage, moved)
        stage.later()

    began = time.monotonic()
    reports = stage.through(move_on)
    took = time.monotonic() - began

    assert moved
    assert {exit_code([report]) for report in reports[:-1]} == {1}
    run = stage.ledger.batches(str(reports[0].run))
    assert sum(b.state is BatchState.ACKED and b.size for b in run) == len(scenario.people)
    for group in stage.groups:
        _is_not_believed(stage, group, str(reports[0].run))
    _nothing_leaks(stage)
    assert exit_code(reports[-1:]) == 0, reports[-1]  # that call has made and delivered a plan of its own
    _in_step(stage)
    figures.add("lies told", len(lies) - 1)
    figures.add("requests of lied-to runs", len(stage.liar.heard))
    figures.most("slowest run through all lies, s", took)
    stage.liar.heard.clear()
    assert stage.runs().status == "completed"
    assert not stage.liar.heard  # nothing is left to do


# Polls of Data Manager's jobs name nobody, so each is lied to: such a run fails, which is not green either.
_ENDING = [stand for stand in STANDS.values() if stand.connector != "google_data_manager"]


@pytest.mark.parametrize(("stand", "op"), [(s, op) for s in _ENDING for op in _ops(s)])
def test_a_run_is_not_green_while_an_answer_of_it_was_no_answer(staged: Make, stand: Stand, op: Op) -> None:
    (*_, where) = stand.asks(op)
    lies = [told for told in _lies(stand) if told.answered and not _right(stand, where or "", told, op)]
    scenario = Scenario.of(op, SIZE * len(lies))
    stage = staged(stand, scenario, op=op, where=where, lies=lies)

    report = stage.runs()

    straight = sum(len(group.people) for group in stage.groups if not group.crooked)
    assert (report.status, exit_code([report])) == ("completed_with_errors", 4), report.error
    taken = report.applied + report.accepted
    assert taken <= straight + 2 * sum(told.partly for told in lies)
    assert taken + report.undelivered == len(scenario.people)
    assert len(stage.unapplied(str(report.run))) == report.undelivered
    added = stage.known() & set(scenario.people) if op is Op.ADD else set()
    assert len(added) <= taken
    assert op is not Op.REMOVE or len(stage.known() & set(scenario.people)) >= report.undelivered
    _nothing_leaks(stage)

    assert stage.later().runs().status == "completed"
    _in_step(stage)


def test_where_a_repeat_would_count_twice_nothing_of_doubtful_outcome_is_sent_again(staged: Make) -> None:
    stand = STANDS["webhook record"]
    lies = [None, *LIES.values(), LIES["closes the connection without a word"]]
    stage = staged(stand, Scenario.of(Op.ADD, SIZE * len(lies)), lies=lies, idempotent=False)

    stage.through(lambda: None)

    for group in stage.groups:
        if group.told is None or not group.told.refusal:
            assert len(group.pushes) == 1, group.told
    doubtful = {p for group in stage.groups for p in group.people} - stage.known()
    assert doubtful
    stage.liar.heard.clear()
    stage.later().runs()
    again = b"".join(heard.raw for heard in stage.liar.heard)
    refused = {p for group in stage.groups if group.told and group.told.refusal for p in group.people}
    assert not [p for p in doubtful - refused if f'"{p}"'.encode() in again]


@pytest.mark.parametrize(("stand", "op"), [(s, op) for s in STANDS.values() for op in _ops(s)])
def test_a_batch_asks_what_its_stand_says(staged: Make, stand: Stand, op: Op) -> None:
    stage = staged(stand, Scenario.of(op, SIZE), op=op)

    assert stage.runs().status == "completed"

    asked = tuple(dict.fromkeys(heard.path for heard in stage.liar.heard))
    assert stand.asks(op) in ((None,), asked)


def test_every_object_of_every_connector_that_speaks_http_is_lied_to() -> None:
    shown = {(stand.connector, stand.object) for stand in (*STANDS.values(), *wholes())}

    assert {(kind.connector, kind.object) for kind in OWN} <= shown
    ours = {name for name, entry in available().items() if entry.distribution == "headgate"}
    assert {name for name, _ in shown} == ours - {"file", "postgres_table"}  # folders and databases speak no HTTP


def test_a_connector_without_a_stand_is_lied_to_by_its_contract(staged: Make) -> None:
    stand = FromContract(contracts()["customerio"](), "segment_member")
    lies = [told for told in LIES.values() if told.answered and not _right(stand, "", told, Op.ADD)]
    stage = staged(stand, Scenario.of(Op.ADD, SIZE * len(lies)), lies=lies)

    report = stage.runs()

    assert (report.status, report.applied) == ("completed_with_errors", 0)
    assert stage.later().runs().status == "completed"
    assert stage.known() == set(stage.wanted)


def _is_not_believed(stage: Stage, group: Group, run: str) -> None:
    """What the books have of a batch that was lied to: nothing as applied but what an honest answer said."""
    missing = stage.unapplied(run) & set(group.keys)
    told = group.told
    if told is None or group.served:
        assert not missing, (told, "an honest answer was given in the end")
    elif group.crooked and not _right(stage.stand, stage.where or "", told, stage.op):
        least = 1 if told.partly else len(group.keys)
        assert len(missing) >= least, f"{told.name}: {len(group.keys) - len(missing)} are believed to be applied"


def _right(stand: Stand, where: str, told: Told, op: Op | None) -> bool:
    """Is it right to believe this: the platform documents it as success, or what it leaves open is asked again."""
    asked_again = told.bent and where.endswith("/memberships/add-and-remove")
    said_twice = told.name == "contradicts itself" and where.endswith("/memberships/batch/read")
    believed = bool(told.believed & {"*", stand.name}) or documented(stand.name, op, told.name)
    return believed or asked_again or said_twice


def _nothing_leaks(stage: Stage) -> None:
    told = "\n".join(stage.said)
    assert "Traceback" not in told
    assert "the connector failed" not in told  # an exception that nobody foresaw
    for text in (told, stage.written()):
        assert CANARY not in text
        assert SECRET not in text
    for reason in stage.reasons():
        assert SECRET not in reason
        assert CANARY not in reason
        assert reason.isprintable()
        assert len(reason) <= 2000


def _in_step(stage: Stage) -> None:
    there, wanted = stage.stand.people(), stage.wanted
    if Op.REMOVE in stage.stand.mode.ops:
        assert stage.known() == set(wanted)
        assert there is None or there == wanted
    else:  # nobody is ever removed
        assert stage.known() >= set(wanted)
        assert there is None or {p: there[p] for p in wanted} == wanted
