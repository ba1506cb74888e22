"""A plan is a frozen file: what is judged, shown and delivered is one and the same thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.engine.plan import Frozen, make_plan, samples, verify_file
from sync.errors import CohortError, Corrupt, DecisionError
from sync.sdk.nouns import Delivery, Limits, Op, Order, Status
from sync.state.nouns import PlanStatus, Verdict, VerdictAnswer
from tests.engine_bench import Bench

ANN, BOB, CAT = ("1", "ann@x", "Rome"), ("2", "bob@x", "Oslo"), ("3", "cat@x", "Bonn")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def told(bench: Bench, plan) -> list[tuple[str, str, object]]:
    return [(str(c.op), c.identifiers["email"], c.fields.get("city")) for c in bench.changes(plan)]


def test_a_first_plan_adds_everybody(bench: Bench) -> None:
    bench.people([ANN, BOB])
    plan = bench.plan()
    assert sorted(told(bench, plan)) == [("add", "ann@x", "Rome"), ("add", "bob@x", "Oslo")]
    assert (plan.counts.add, plan.counts.members, plan.status) == (2, 0, PlanStatus.READY)


def test_the_next_plan_has_only_the_difference(bench: Bench) -> None:
    bench.synced([ANN, BOB, CAT])
    bench.people([ANN, ("2", "bob@x", "Kiel"), ("4", "dan@x", None)])
    plan = bench.plan()
    assert told(bench, plan) == [("add", "dan@x", None), ("update", "bob@x", "Kiel"), ("remove", "cat@x", None)]
    assert (plan.counts.unchanged, plan.counts.members) == (1, 3)


@pytest.mark.parametrize("order", Order)
def test_rows_are_in_delivery_order(bench: Bench, order: Order) -> None:
    bench.with_(order=order)
    bench.synced([ANN, BOB])
    bench.people([("1", "ann@x", "Kiel"), CAT])
    ops = [row["op"] for row in bench.rows(bench.plan())]
    expected = ["add", "update", "remove"]
    assert ops == (expected if order is Order.REMOVALS_LAST else ["remove", "add", "update"])


def test_invalid_rows_stand_at_the_end_with_their_reason(bench: Bench) -> None:
    bench.people([("1", "", "Rome"), BOB])
    plan = bench.plan()
    assert [(r["row"], r["op"], r["why"]) for r in bench.rows(plan)] == [
        (0, "add", None),
        (1, "invalid", "identifier email is empty"),
    ]
    assert plan.counts.invalid == 1


def test_a_changed_identifier_is_a_removal_and_an_addition(bench: Bench) -> None:
    bench.synced([ANN])
    bench.people([("1", "anna@x", "Rome")])
    assert told(bench, bench.plan()) == [("add", "anna@x", "Rome"), ("remove", "ann@x", None)]


def test_updates_and_removals_carry_the_platforms_own_id(bench: Bench) -> None:
    bench.people([ANN, BOB])
    bench.deliver(bench.plan(), ids={"ann@x": "c-1", "bob@x": "c-2"})
    bench.people([("1", "ann@x", "Kiel")])
    assert [c.remote_id for c in bench.changes(bench.plan())] == ["c-1", "c-2"]


def test_the_same_inputs_give_the_same_digest(bench: Bench) -> None:
    bench.people([ANN, BOB])
    assert bench.plan(keep=False).digest == bench.plan(keep=False).digest


def test_the_digest_signs_every_part(bench: Bench) -> None:
    bench.people([ANN])
    plan, job = bench.plan(), bench.job
    refresh = bench.ledger.refresh(plan.refresh)
    assert refresh is not None
    frozen = Frozen(plan.file, plan.file_sha256, {})
    verdict = Verdict("removals", VerdictAnswer.WARN, 1, 2, "")

    def digest(**other: Any) -> str:
        parts = {"job": job, "frozen": frozen, "refresh": refresh, "generation": 0, "counts": plan.counts}
        parts |= {"verdicts": (verdict,)} | other
        return make_plan(bench.settings, **parts, status=PlanStatus.READY, inputs="i", needs=1, now=1.0).digest

    others: list[dict[str, Any]] = [
        {},
        {"job": replace(job, name="other")},
        {"job": replace(job, destination="other")},
        {"job": replace(job, spec=replace(job.spec, name="lead"))},
        {"job": replace(job, sync=job.sync.model_copy(update={"audience": "9"}))},
        {"job": replace(job, sync=job.sync.model_copy(update={"mode": "upsert"}))},
        {"job": replace(job, mapping_digest="other")},
        {"frozen": replace(frozen, sha256="0" * 64)},
        {"generation": 1},
        {"refresh": replace(refresh, version="other")},
        {"verdicts": ()},
        {"verdicts": (replace(verdict, answer=VerdictAnswer.HOLD),)},
        {"verdicts": (replace(verdict, limit=2),)},
        {"verdicts": (replace(verdict, value=3),)},
        *({"counts": replace(plan.counts, **{n: 7})} for n in ("add", "update", "remove", "invalid", "members")),
    ]
    assert len({digest(**other) for other in others}) == len(others)
    assert digest() == digest()


def test_an_altered_file_is_refused(bench: Bench) -> None:
    bench.people([ANN])
    plan = bench.plan()
    path = bench.path(plan)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Corrupt, match="altered"):
        verify_file(bench.settings, plan)


def test_a_missing_file_is_refused(bench: Bench) -> None:
    bench.people([ANN])
    plan = bench.plan()
    bench.path(plan).unlink()
    with pytest.raises(Corrupt):
        samples(bench.settings, plan)


def test_a_plan_file_is_the_owners_alone(bench: Bench) -> None:
    bench.people([ANN])
    path = bench.path(bench.plan())
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_samples_show_a_few_of_each_op_as_the_destination_is_told(bench: Bench) -> None:
    bench.mapping["fields"] = [{"to": "tags", "expr": "string_split(city, ' ')"}]
    bench.people([(str(n), f"p{n}@x", "a b") for n in range(20)] + [("99", None, "z")])
    found = samples(bench.settings, bench.plan(), per_op=3)
    assert [s["op"] for s in found] == ["add"] * 3 + ["invalid"]
    assert found[0]["fields"] == {"tags": ["a", "b"]}
    assert found[0]["identifiers"]["email"].endswith("@x")
    assert (found[3]["source_key"], found[3]["why"]) == ("99", "identifier email is empty")


# --- keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "what"), [(None, "1 null"), ("2", "1 repeated")])
def test_a_broken_key_stops_everything(bench: Bench, key: str | None, what: str) -> None:
    bench.people([BOB, (key, "zoe@x", None)])
    with pytest.raises(CohortError, match=what) as caught:
        bench.plan()
    assert caught.value.code == "HG211"


def test_a_few_broken_keys_may_be_tolerated(bench: Bench) -> None:
    bench.guardrails = replace(bench.guardrails, max_bad_keys=1)
    bench.people([BOB, (None, "zoe@x", None)])
    plan = bench.plan()
    assert (plan.counts.add, plan.counts.invalid) == (1, 1)


def test_of_two_persons_with_one_identifier_one_goes_and_one_is_invalid(bench: Bench) -> None:
    bench.people([BOB, ("7", "bob@x", "Lima"), ANN])
    plan = bench.plan()
    assert sorted(told(bench, plan)) == [("add", "ann@x", "Rome"), ("add", "bob@x", "Oslo")]
    assert [r["why"] for r in bench.rows(plan) if r["op"] == "invalid"] == ["another row has the same identifiers"]


def test_a_twin_of_a_member_is_invalid_and_the_member_stays(bench: Bench) -> None:
    bench.synced([BOB, ANN])
    bench.people([BOB, ANN, ("7", "bob@x", "Lima")])
    plan = bench.plan()
    assert (told(bench, plan), plan.counts.invalid, plan.counts.unchanged) == ([], 1, 2)


def test_a_repeated_key_stops_even_where_the_identifiers_differ_from_it(bench: Bench) -> None:
    bench.synced([ANN, BOB])
    bench.people([ANN, BOB, ("1", "ann@x", "Rome")])
    with pytest.raises(CohortError) as caught:
        bench.plan()
    assert caught.value.code == "HG211"


# --- dirty and rejected ---------------------------------------------------------------------------------------


def test_a_member_of_unknown_outcome_is_set_again_though_nothing_differs(bench: Bench) -> None:
    bench.people([ANN, BOB])
    bench.deliver(bench.plan(), but={"ann@x": Status.UNKNOWN})
    assert told(bench, bench.plan()) == [("add", "ann@x", "Rome")]


def test_somebody_who_may_be_there_and_left_the_cohort_is_removed(bench: Bench) -> None:
    bench.people([ANN, BOB])
    bench.deliver(bench.plan(), but={"ann@x": Status.UNKNOWN})
    bench.people([BOB])
    assert told(bench, bench.plan()) == [("remove", "ann@x", None)]


def test_a_rejected_record_is_tried_again_then_waits_then_is_given_up(bench: Bench) -> None:
    bench.people([ANN, BOB])
    for attempt in range(1, 5):
        bench.deliver(bench.plan(), but={"ann@x": Status.REJECTED})
        (record,) = bench.ledger.rejected("crm-people")
        assert record.attempts == attempt
    diff = bench.difference().diff
    assert (diff.changes, diff.backed_off, diff.unchanged) == (0, 1, 1)
    bench.ledger.set_rejected("crm-people", [record.key], retry=False, actor="ann", reason="moved away")
    assert bench.difference().diff.given_up == 1
    bench.people([("1", "ann@x", "Kiel"), BOB])
    assert bench.difference().diff.given_up == 1
    bench.ledger.set_rejected("crm-people", [record.key], retry=True, actor="ann", reason="moved back")
    assert told(bench, bench.plan()) == [("add", "ann@x", "Kiel")]


def test_rejected_records_that_are_in_step_again_are_settled(bench: Bench) -> None:
    bench.synced([ANN, BOB])
    bench.people([("1", "ann@x", "Kiel"), BOB])
    bench.deliver(bench.plan(), but={"ann@x": Status.REJECTED})
    (record,) = bench.ledger.rejected("crm-people")
    bench.people([ANN, BOB])
    assert bench.difference().settled == {record.key}


# --- snapshots ------------------------------------------------------------------------------------------------


def test_a_snapshot_has_every_member_and_no_one_else(bench: Bench) -> None:
    bench.with_(delivery=Delivery.SNAPSHOT)
    bench.synced([ANN, BOB, CAT])
    bench.people([ANN, ("2", "bob@x", "Kiel"), ("4", "dan@x", "Bari")])
    plan = bench.plan()
    with bench.file(plan) as file:
        from sync.engine.batches import cut

        (row,) = cut("r", file, bench.job, frozenset(Op))
        batch = file.snapshot(row, "s", "contact", None)
        everybody = sorted((c.identifiers["email"], c.fields["city"]) for c in batch.changes)
        assert everybody == [("ann@x", "Rome"), ("bob@x", "Kiel"), ("dan@x", "Bari")]
        assert (len(batch.changes), batch.changes[0].key, batch.changes[-1].key) == (
            3, next(iter(batch.changes)).key, list(batch.changes)[2].key,
        )  # fmt: skip
        assert list(batch.changes) == list(batch.changes), "it can be read again"
        with pytest.raises(IndexError):
            batch.changes[3]
    assert {r["op"] for r in bench.rows(plan)} == {"add", "keep", "update", "remove"}


def test_a_snapshot_is_not_sent_for_invalid_rows_alone(bench: Bench) -> None:
    from sync.engine.batches import cut

    bench.with_(delivery=Delivery.SNAPSHOT)
    bench.people([("1", None, "Rome")])
    plan = bench.plan()
    with bench.file(plan) as file:
        assert cut("r", file, bench.job, frozenset(Op)) == []
    bench.synced([ANN])
    bench.people([ANN, ("2", None, "Rome")])
    with bench.file(bench.plan()) as file:
        assert cut("r", file, bench.job, frozenset(Op)) == []


def test_a_member_whose_update_waits_stays_in_the_snapshot(bench: Bench) -> None:
    bench.with_(delivery=Delivery.SNAPSHOT)
    bench.synced([ANN, BOB])
    bench.people([("1", "ann@x", "Kiel"), BOB])
    bench.deliver(bench.plan(), but={"ann@x": Status.REJECTED})
    (record,) = bench.ledger.rejected("crm-people")
    bench.ledger.set_rejected("crm-people", [record.key], retry=False, actor="ann", reason="x")
    bench.people([("1", "ann@x", "Kiel"), BOB, CAT])
    assert sorted(c.identifiers["email"] for c in bench.changes(bench.plan())) == ["ann@x", "bob@x", "cat@x"]


def test_a_whole_audience_that_is_too_large_is_refused_before_it_is_judged(bench: Bench) -> None:
    bench.with_(delivery=Delivery.SNAPSHOT, limits=Limits(batch_size=3))
    bench.synced([ANN, BOB, CAT])
    bench.people([ANN, BOB, CAT, ("4", "dan@x", "Bari")])
    with pytest.raises(
        CohortError, match="takes at most 3 records as a whole 'contact', and there would be 4"
    ) as raised:
        bench.plan()
    assert raised.value.code == "HG217"
    bench.people([ANN, BOB, ("4", "dan@x", "Bari")])
    assert bench.plan().counts.add == 1, "who leaves makes room"


def test_changes_are_cut_into_batches_however_many_they_are(bench: Bench) -> None:
    bench.with_(limits=Limits(batch_size=1))
    bench.people([ANN, BOB])
    assert bench.plan().counts.add == 2


@pytest.mark.parametrize("left", [frozenset({Op.ADD, Op.UPDATE}), frozenset({Op.REMOVE}), frozenset({Op.ADD})])
def test_a_snapshot_cannot_leave_a_kind_of_change_out(bench: Bench, left: frozenset[Op]) -> None:
    bench.with_(delivery=Delivery.SNAPSHOT)
    bench.synced([ANN, BOB])
    bench.people([ANN, CAT])
    with pytest.raises(DecisionError) as caught:
        bench.plan(ops=left)
    assert caught.value.code == "HG508"


# --- what is observed -----------------------------------------------------------------------------------------


def test_an_unchanged_cohort_never_reaches_the_join(bench: Bench) -> None:
    from sync.engine.observe import observe

    bench.synced([ANN, BOB])
    with observe(bench.ledger, bench.settings, bench.job, "test") as seen:
        difference = bench.planner().difference(seen)
        tables = {name for (name,) in seen.connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    assert difference.nothing_to_do
    assert difference.diff.unchanged == 2
    assert {"source_sums", "member_sums"} <= tables
    assert "changes" not in tables


def test_the_order_of_rows_makes_no_version_and_a_mapped_value_does(bench: Bench) -> None:
    bench.people([ANN, BOB])
    first = bench.difference().seen.refresh
    bench.people([BOB, ANN])
    again = bench.difference().seen.refresh
    bench.people([BOB, ("1", "ann@x", "Kiel")])
    other = bench.difference().seen.refresh
    assert (first.version, first.key_sum) == (again.version, again.key_sum)
    assert (first.version == other.version, first.key_sum == other.key_sum) == (False, True)


def test_nothing_of_the_source_can_be_reached_from_a_locked_engine(bench: Bench) -> None:
    import duckdb

    from sync.engine.observe import observe

    bench.people([ANN])
    (bench.root / "secret.csv").write_text("a\n1\n")
    with observe(bench.ledger, bench.settings, bench.job, "test") as seen:
        for statement in (
            f"SELECT * FROM read_csv('{bench.root}/secret.csv')",
            f"COPY (SELECT 1) TO '{bench.root}/out.csv'",
            "SET enable_external_access = true",
            f"ATTACH '{bench.root}/other.duckdb'",
        ):
            with pytest.raises(duckdb.Error):
                seen.connection.execute(statement)


def test_a_field_that_turns_null_is_counted(bench: Bench) -> None:
    bench.synced([ANN, BOB, CAT])
    bench.people([("1", "ann@x", None), BOB, CAT])
    (verdict,) = bench.plan().verdicts
    assert (verdict.guardrail, verdict.value) == ("nulled", 33.33)


def test_a_field_mapped_since_turns_nothing_null(bench: Bench) -> None:
    bench.synced([ANN, BOB])
    bench.mapping["fields"] = [*bench.mapping["fields"], {"to": "gone", "expr": "nullif(city, city)"}]
    plan = bench.plan()
    assert (plan.counts.update, plan.verdicts) == (2, ())


def test_the_order_of_ops_asked_for_does_not_matter_and_less_ops_are_less_rows(bench: Bench) -> None:
    bench.synced([ANN, BOB])
    bench.people([("1", "ann@x", "Kiel"), CAT])
    assert told(bench, bench.plan(ops=frozenset({Op.ADD, Op.UPDATE}))) == [
        ("add", "cat@x", "Bonn"),
        ("update", "ann@x", "Kiel"),
    ]
    assert told(bench, bench.plan(ops=frozenset({Op.REMOVE}))) == [("remove", "bob@x", None)]


def test_a_rekeyed_protected_cohort_needs_two_persons(bench: Bench) -> None:
    bench.cohort["protected"] = True
    bench.synced([ANN, BOB])
    bench.cohort["source"] = {**bench.cohort["source"], "key": "email"}
    bench.people([ANN, ("2", "bob@x", "Kiel")])
    plan = bench.plan()
    assert [v.guardrail for v in plan.verdicts] == ["protected_cohort"]
    assert (plan.needs, plan.status) == (2, PlanStatus.HELD)


def test_an_invalid_row_is_told_of_again_though_nothing_else_changed(bench: Bench) -> None:
    rows = [ANN, BOB, ("3", None, "Bonn")]
    bench.synced(rows)
    plan = bench.plan()
    assert (told(bench, plan), plan.counts.invalid, plan.counts.unchanged) == ([], 1, 2)
