"""The battery: what happens to a cohort, played the same in every warehouse.

Each scenario says of itself what it must come to, so that equal plans cannot be equally wrong or equally empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from sync.engine.job import GuardrailLimits
from sync.errors import ProtocolError
from sync.sdk.nouns import Batch, Delivery, Limits, Op, Outcome, Receipt, Status
from sync.state.nouns import Decision
from tests.parity.kinds import Column, Table
from tests.parity.stage import PEOPLE, Stage, people, spec
from tests.state.world import Desk

__all__ = ["DECISIVE", "SCENARIOS", "Scenario", "counts", "decisive", "refusing", "scenario"]

Scenario = Callable[[Stage], None]
SCENARIOS: list[Scenario] = []
DECISIVE: set[Scenario] = set()
"""Scenarios that a warehouse's own ways with types, names, texts and order decide."""


def scenario(play: Scenario) -> Scenario:
    """Put it into the battery."""
    SCENARIOS.append(play)
    return play


def decisive(play: Scenario) -> Scenario:
    """Put it into the battery, as one that no warehouse may be spared."""
    DECISIVE.add(play)
    return scenario(play)


def counts(stage: Stage) -> tuple[int, int, int, int]:
    """Additions, updates and removals of what was done last, and what was left as it is."""
    assert stage.report is not None
    found = stage.report.counts
    return found.add, found.update, found.remove, found.unchanged


def refusing(*emails: str) -> Callable[[Desk, Batch], Outcome]:
    """A destination that takes everybody but these."""

    def answer(desk: Desk, batch: Batch) -> Outcome:
        for change in batch.changes:
            refused = change.identifiers["email"] in emails
            yield Receipt(change.key, Status.REJECTED, "no such person") if refused else desk.apply(change)

    return answer


# --- the difference -------------------------------------------------------------------------------------------


@scenario
def a_first_load(stage: Stage) -> None:
    stage.has(*range(30)).plan()
    assert counts(stage) == (30, 0, 0, 0)
    assert stage.run().applied == 30


@decisive
def an_unchanged_cohort_in_another_order(stage: Stage) -> None:
    stage.has(*range(30)).run()
    stage.has(*reversed(range(30))).run()
    assert counts(stage) == (0, 0, 0, 30)
    assert stage.plan().status == "unchanged"


@decisive
def additions_updates_and_removals(stage: Stage) -> None:
    stage.has(*range(20)).run()
    rows = [*people(*range(3, 20)).rows, *people(20, 21).rows]
    rows[4] = (*rows[4][:3], 99)
    rows[5] = (*rows[5][:2], None, rows[5][3])
    stage.put(Table(PEOPLE, rows)).plan()
    assert counts(stage) == (2, 2, 3, 15)
    stage.run()
    stage.put(Table(PEOPLE, rows[:-1])).run()
    assert counts(stage) == (0, 0, 1, 18)


@scenario
def only_additions_are_wanted(stage: Stage) -> None:
    stage.has(*range(5)).run()
    stage.has(*range(2, 8)).run(only=[Op.ADD])
    stage.run()
    assert counts(stage) == (0, 0, 2, 6)


@scenario
def a_changed_identifier_is_a_removal_and_an_addition(stage: Stage) -> None:
    stage.has(*range(5)).run()
    rows = list(people(*range(5)).rows)
    rows[2] = (2, "moved@x.example", *rows[2][2:])
    stage.put(Table(PEOPLE, rows)).run()
    assert counts(stage) == (1, 0, 1, 4)


@scenario
def two_people_exchange_their_identifiers(stage: Stage) -> None:
    stage.has(*range(5)).run()
    rows = list(people(*range(5)).rows)
    rows[1], rows[2] = (2, *rows[1][1:]), (1, *rows[2][1:])
    stage.put(Table(PEOPLE, rows)).run()
    rows[1], rows[2] = (1, rows[2][1], *rows[1][2:]), (2, rows[1][1], *rows[2][2:])
    stage.put(Table(PEOPLE, rows)).run()
    assert counts(stage) == (0, 2, 0, 3)


@decisive
def an_emptied_identifier_removes_nobody(stage: Stage) -> None:
    stage.has(*range(5)).run()
    rows = list(people(*range(5)).rows)
    rows[1] = (1, "", *rows[1][2:])
    rows[2] = (2, None, *rows[2][2:])
    stage.put(Table(PEOPLE, rows)).run()
    assert counts(stage) == (0, 0, 0, 3)
    assert stage.report is not None
    assert stage.report.counts.invalid == 2
    stage.has(*range(5)).run()
    assert counts(stage) == (0, 0, 0, 5)


@decisive
def people_who_share_an_identifier(stage: Stage) -> None:
    rows = [*people(*range(6)).rows, *people(7, 8, email="p1@x.example").rows]
    stage.put(Table(PEOPLE, rows)).run()
    assert stage.report is not None
    assert (stage.report.counts.add, stage.report.counts.invalid) == (6, 2)
    stage.run()
    stage.put(Table(PEOPLE, rows[:-1])).run()
    stage.has(*range(6)).run()
    assert counts(stage) == (0, 0, 0, 6)


@scenario
def somebody_new_with_an_unchanged_members_identifier(stage: Stage) -> None:
    stage.has(*range(1, 6)).run()
    rows = [
        *people(*range(1, 6)).rows,
        *people(9, email="p3@x.example").rows,
        *people(0, email="p2@x.example").rows,
    ]
    stage.put(Table(PEOPLE, rows)).run()
    assert stage.report is not None
    assert stage.report.counts.invalid == 2
    stage.put(Table(PEOPLE, [row for row in rows if row[0] != 3])).run()
    stage.run()


# --- keys -----------------------------------------------------------------------------------------------------


@decisive
def null_and_repeated_keys_are_refused(stage: Stage) -> None:
    stage.has(*range(5)).run()
    for rows in (
        [*people(*range(5)).rows, (None, "a@x.example", "A", 1)],
        [*people(*range(5)).rows, (4, "a@x.example", "A", 1)],
        [*people(*range(5)).rows, (None, "a@x.example", "A", 1), (4, "b@x.example", "B", 1)],
    ):
        assert stage.put(Table(PEOPLE, rows)).run().code == "HG211"
    stage.has(*range(5)).run()
    assert counts(stage) == (0, 0, 0, 5)


@decisive
def null_and_repeated_keys_are_tolerated(stage: Stage) -> None:
    stage.guardrails = replace(stage.guardrails, max_bad_keys=3)
    more = [(None, "a@x.example", "A", 1), (4, "b@x.example", "B", 1), (4, "p4@x.example", "C", 2)]
    stage.put(Table(PEOPLE, [*people(*range(5)).rows, *more])).run()
    assert stage.report is not None
    assert stage.report.counts.invalid == 2
    stage.run()
    stage.put(Table(PEOPLE, [*people(*range(1, 5)).rows, *more[:2]])).run()
    stage.has(*range(5)).run()


@scenario
def a_key_that_is_the_identifier(stage: Stage) -> None:
    stage.identifiers, stage.spec = [{"to": "id", "from": "id"}], spec("id")
    stage.has(*range(8)).run()
    stage.has(*range(2, 9), score=3).run()
    assert counts(stage) == (1, 5, 2, 1)
    assert stage.put(Table(PEOPLE, [*people(1, 2).rows, *people(2).rows])).run().code == "HG211"


@decisive
def keys_of_texts(stage: Stage) -> None:
    columns = (Column("id"), *PEOPLE[1:])
    keys = ["a", "A", "\u00e9", "e\u0301", "it's", 'say "so"', "back\\slash", "new\nline", " ", "", "\U0001f600"]
    rows = [(key, f"p{n}@x.example", key, n) for n, key in enumerate(keys)]
    stage.put(Table(columns, rows)).run()
    stage.run()
    assert counts(stage) == (0, 0, 0, len(keys))
    stage.put(Table(columns, [(key, email, name, score + 1) for key, email, name, score in rows[1:]])).run()
    assert counts(stage) == (0, len(keys) - 1, 1, 0)


# --- modes, decisions, outcomes -------------------------------------------------------------------------------


@scenario
def upsert_removes_nobody(stage: Stage) -> None:
    stage.mode = "upsert"
    stage.has(*range(5)).run()
    stage.has(*range(2, 7), score=3).run()
    assert counts(stage)[2] == 0
    stage.has(*range(5)).run()


@scenario
def insert_only_adds(stage: Stage) -> None:
    stage.mode = "insert"
    stage.has(*range(5)).run()
    stage.has(*range(2, 7), score=3).run()
    assert counts(stage)[:3] == (2, 0, 0)


@scenario
def update_sets_whoever_is_there(stage: Stage) -> None:
    stage.mode = "update"
    stage.has(*range(5)).run()
    assert counts(stage)[:3] == (0, 5, 0)
    stage.has(*range(2, 7), score=3).run()
    assert counts(stage)[2] == 0


@scenario
def rejected_records_back_off_and_come_again(stage: Stage) -> None:
    stage.desk.always = refusing("p1@x.example", "p3@x.example")
    stage.has(*range(6)).run()
    assert stage.report is not None
    assert stage.report.rejected == 2
    for _ in range(4):  # the first three are tried again at once
        stage.run()
    assert stage.report.counts.backed_off == 2
    rows = list(people(*range(6)).rows)
    rows[1] = (*rows[1][:3], 77)
    stage.put(Table(PEOPLE, rows)).run()
    stage.desk.always = None
    rows[3] = (*rows[3][:3], 78)
    stage.put(Table(PEOPLE, rows)).run()
    stage.has(0, 2).run()


@scenario
def a_lost_answer_is_asserted_again(stage: Stage) -> None:
    stage.has(*range(4)).run()
    stage.desk.answers.extend([ProtocolError("what is this")] * 5)
    stage.has(*range(4), score=9).run()
    stage.desk.answers.clear()
    stage.run()
    stage.has(*range(1, 4), score=9).run()


@scenario
def a_held_mass_removal_is_approved(stage: Stage) -> None:
    stage.guardrails = GuardrailLimits(max_removed=3, max_removed_pct=5, small_removal=2)
    stage.has(*range(20)).run()
    assert stage.has(*range(10)).run(first_run=False).status == "held"
    assert stage.run(first_run=False).status == "held"
    stage.decide()
    stage.run(first_run=False)
    assert counts(stage) == (0, 0, 10, 10)


@scenario
def a_plan_is_approved_without_its_removals(stage: Stage) -> None:
    stage.guardrails = GuardrailLimits(max_removed=3, max_removed_pct=5, small_removal=2)
    stage.has(*range(20)).run()
    stage.put(Table(PEOPLE, [*people(*range(10)).rows, *people(50).rows])).run(first_run=False)
    stage.decide(Decision.APPROVE_WITHOUT_REMOVALS)
    stage.run(first_run=False)
    stage.run(first_run=False)
    assert len(stage.desk.members) == 21


@scenario
def an_approval_of_rows_that_moved_is_void(stage: Stage) -> None:
    stage.guardrails = GuardrailLimits(max_removed=3, max_removed_pct=5, small_removal=2)
    stage.has(*range(20)).run()
    stage.has(*range(10)).run(first_run=False)
    stage.decide()
    stage.has(*range(9)).run(first_run=False)
    assert len(stage.desk.members) == 20


@scenario
def a_field_turning_null_is_held(stage: Stage) -> None:
    stage.has(*range(40)).run()
    assert stage.has(*range(40), name=None).run(first_run=False).status == "held"


@decisive
def no_rows_at_first_and_later(stage: Stage) -> None:
    stage.has().plan()
    assert counts(stage) == (0, 0, 0, 0)
    stage.run()
    stage.has(*range(4)).run()
    stage.has().run(first_run=False)
    assert len(stage.desk.members) == 4
    stage.has(*range(4)).run()
    assert counts(stage) == (0, 0, 0, 4)


@scenario
def an_audience_that_is_taken_whole(stage: Stage) -> None:
    stage.desk.snapshot = True
    stage.spec = spec(delivery=Delivery.SNAPSHOT, limits=Limits(batch_size=None))
    stage.has(*range(8)).run()
    stage.run()
    assert counts(stage) == (0, 0, 0, 8)
    rows = [*people(*range(2, 8)).rows, *people(20).rows]
    rows[1] = (*rows[1][:3], 55)
    stage.put(Table(PEOPLE, rows)).run()
    assert counts(stage) == (1, 1, 2, 5)
    assert len(stage.seen[-1].sent) == 7


@scenario
def a_run_is_reverted(stage: Stage) -> None:
    stage.has(*range(10)).run()
    rows = [*people(*range(3, 10)).rows, *people(20).rows]
    rows[0] = (*rows[0][:3], 55)
    run = stage.put(Table(PEOPLE, rows)).run().run
    assert run is not None
    stage.revert(run)
    assert counts(stage)[:3] == (3, 1, 1)
    stage.run()
    assert counts(stage) == (1, 1, 3, 6)


# --- the mapping and the table --------------------------------------------------------------------------------


@scenario
def a_changed_mapping(stage: Stage) -> None:
    stage.has(*range(6)).run()
    stage.fields = [*stage.fields, {"to": "source", "value": "headgate"}]
    stage.run()
    assert counts(stage) == (0, 6, 0, 0)
    stage.identifiers = [{"to": "email", "from": "email", "transform": ["upper"]}]
    stage.run()
    assert counts(stage) == (6, 0, 6, 0)
    stage.run()
    assert counts(stage) == (0, 0, 0, 6)


@decisive
def a_column_is_dropped(stage: Stage) -> None:
    stage.put(Table((*PEOPLE, Column("more")), [(*row, "x") for row in people(*range(4)).rows])).run()
    stage.has(*range(4)).run()
    assert counts(stage) == (0, 0, 0, 4)
    stage.put(Table(PEOPLE[:3], [row[:3] for row in people(*range(4)).rows])).run()
    assert stage.seen[-1].code == "HG212"
    stage.warehouse.ask("DROP TABLE vips")
    assert stage.run().code == "HG202"
    stage.has(*range(5)).run()
    assert counts(stage) == (1, 0, 0, 4)


@decisive
def a_column_of_another_type(stage: Stage) -> None:
    stage.has(*range(4)).run()
    columns = (*PEOPLE[:3], Column("score"))
    stage.put(Table(columns, [(*row[:3], str(row[3])) for row in people(*range(4)).rows])).run()
    assert stage.seen[-1].code == "HG216"


@decisive
def odd_names(stage: Stage) -> None:
    names = ['it "is', "É mail", "select", "a.b"]
    columns = tuple(Column(name, c.kind, quoted=True) for name, c in zip(names, PEOPLE, strict=True))
    stage.warehouse.put(Table(columns, people(*range(5)).rows, name='"Odd ""one"""'))
    stage.source = {"table": '"Odd ""one"""', "key": names[0]}
    stage.identifiers = [{"to": "email", "from": names[1]}]
    stage.fields = [{"to": "name it's", "from": names[2]}, {"to": "score", "expr": '"a.b" + 1'}]
    stage.run()
    assert counts(stage) == (5, 0, 0, 0)
    stage.warehouse.put(Table(columns, people(*range(1, 7), score=3).rows, name='"Odd ""one"""'))
    stage.run()
    assert counts(stage) == (2, 3, 1, 1)
    stage.warehouse.ask('DROP TABLE "Odd ""one"""')


@decisive
def a_query_instead_of_a_table(stage: Stage) -> None:
    query = "SELECT id, lower(email) AS email, name, score FROM vips WHERE score > 2 -- the best\n;"
    stage.source = {"query": query, "key": "id"}
    stage.has(*range(14)).run()
    assert counts(stage) == (8, 0, 0, 0)
    stage.has(*range(1, 15)).run()
    assert counts(stage) == (0, 0, 0, 8)
    stage.has(*range(14), score=1).run(first_run=False)


@decisive
def two_identifiers_of_which_one_may_be_empty(stage: Stage) -> None:
    columns = (Column("id", "integer"), Column("email"), Column("phone"))
    stage.spec = spec("email", "phone")
    stage.identifiers = [{"to": "email", "from": "email"}, {"to": "phone", "from": "phone"}]
    stage.fields = []
    rows: list[Any] = [(1, "a@x.example", "1"), (2, None, "2"), (3, "c@x.example", None), (4, None, None)]
    stage.put(Table(columns, [*rows, (5, "", "5")])).run()
    assert stage.report is not None
    assert (stage.report.counts.add, stage.report.counts.invalid) == (4, 1)
    stage.put(Table(columns, [(1, "a@x.example", "9"), *rows[1:]])).run()
    assert counts(stage) == (1, 0, 2, 2)


@decisive
def the_newest_row_says_how_old_the_cohort_is(stage: Stage) -> None:
    columns = (*PEOPLE, Column("updated_at", "timestamp"))
    stage.source = {**stage.source, "updated_at": "updated_at"}
    old, new = datetime(2024, 2, 29, 23, 59, 59, 999999), datetime(2025, 1, 1)  # noqa: DTZ001 - without a zone
    rows = people(*range(4)).rows
    stage.put(Table(columns, [(*row, old) for row in rows])).run()
    stage.put(Table(columns, [(*row, new if row[0] < 2 else None) for row in rows])).run()
    assert counts(stage) == (0, 0, 0, 4)
    assert stage.seen[-1].refresh[0][2] == 1735689600.0
