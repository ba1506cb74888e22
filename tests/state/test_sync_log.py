"""The sync log: what people find in the warehouse of each run and record, and what a failing warehouse does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sync.engine.forget import Forgetting, forget
from sync.engine.job import LogTarget, SyncJob
from sync.engine.report import exit_code
from sync.errors import SourceError, Unavailable
from sync.health import Health, standing
from sync.sdk.nouns import Op, Status
from sync.state.erasures import ErasureState
from sync.state.log_mark import NOTE, LogMark
from tests.state.world import SYNC, Desk, Warehouse, World, some

OPS = ("add", "update", "remove")


class DuckSession:
    """A session with the world's own DuckDB: the statements are the same in every warehouse."""

    indexes = True

    def __init__(self, connection: duckdb.DuckDBPyConnection, log: Log) -> None:
        self.connection, self.log = connection, log

    def execute(self, sql: str) -> None:
        self.log.statements.append(sql)
        if self.log.fails is not None and self.log.fails(sql):
            raise SourceError("the warehouse is not there", code="HG200")
        self.connection.execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        self.log.statements.append(sql)
        return self.connection.execute(sql).fetchall()

    def load(self, table: str, batches: pa.RecordBatchReader) -> None:
        self.execute(f"-- load {table}")
        for batch in batches:
            self.log.largest = max(self.log.largest, batch.num_rows)
            rows = pa.Table.from_batches([batch])
            self.connection.register("loaded", rows)
            self.connection.execute(f"INSERT INTO {table} SELECT * FROM loaded")
            self.connection.unregister("loaded")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        self.log.commits += 1


@dataclass
class Log:
    """What the warehouse was told, and whether it does as it is told."""

    statements: list[str] = field(default_factory=list)
    commits: int = 0
    largest: int = 0  # rows of a record batch
    fails: Callable[[str], bool] | None = None

    def down(self) -> None:
        """From now on nothing can be written."""
        self.fails = lambda _: True

    def up(self) -> None:
        """From now on everything can."""
        self.fails = None


class LoggingWarehouse(Warehouse):
    """A warehouse that keeps a log, too."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, log: Log) -> None:
        super().__init__(connection)
        self.log = log

    @contextmanager
    def session(self, what: str) -> Iterator[DuckSession]:
        yield DuckSession(self._connection.cursor(), self.log)


@dataclass
class LoggedWorld(World):
    """A world whose sync is logged."""

    log: Log = field(default_factory=Log)
    target: LogTarget | None = field(default_factory=lambda: LogTarget("warehouse", "headgate"))
    there: bool = True  # does config.toml have the source

    @property
    def job(self) -> SyncJob:
        def opened() -> LoggingWarehouse:
            return LoggingWarehouse(self.warehouse, self.log)

        return replace(super().job, log=self.target, sources={"warehouse": opened} if self.there else {})

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.warehouse.sql(sql).to_arrow_table().to_pylist()

    def runs(self) -> list[dict[str, Any]]:
        return self.rows("FROM headgate.runs ORDER BY ended_at, started_at")

    def records(self, run: str | None = None) -> list[tuple[str, str, str]]:
        which = f"WHERE run = '{run}'" if run else ""
        found = self.rows(f"SELECT source_key, op, outcome FROM headgate.records {which} ORDER BY ALL")
        return [(row["source_key"], row["op"], row["outcome"]) for row in found]

    def counts(self, run: str | None, what: str) -> tuple[int, ...]:
        (row,) = (row for row in self.runs() if row["run"] == run)
        return tuple(row[f"{what}_{op}"] for op in OPS)

    def forget(self, who: str, **options: Any) -> list[str]:
        told: list[str] = []
        job = self.job
        given = {"sources": job.sources, "tell": told.append, **options}
        forget(Forgetting(self.ledger, self.settings, {SYNC: job}, who, "ann", "ticket 77", **given))
        return told

    @property
    def mark(self) -> LogMark:
        return LogMark.read(self.ledger.note(SYNC, NOTE))


@pytest.fixture
def logged(tmp_path: Any) -> Iterator[LoggedWorld]:
    made = LoggedWorld(tmp_path)
    made.people(10)
    yield made
    made.close()


def test_each_run_is_a_row_and_each_record_has_its_outcome(logged: LoggedWorld) -> None:
    first = logged.run()
    logged.sql(
        "UPDATE vips SET name = 'New' WHERE id IN (1, 2)",
        "DELETE FROM vips WHERE id = 3",
        "INSERT INTO vips VALUES (77, 'late@x.example', 'Late', 1)",
    )
    second = logged.run()
    third = logged.run()

    assert [(row["run"], row["status"], row["cause"], row["kind"]) for row in logged.runs()] == [
        (first.run, "completed", "cli", "diff"),
        (second.run, "completed", "cli", "diff"),
        (third.run, "completed", "cli", None),
    ]
    assert logged.records(first.run) == [(str(i), "add", "acknowledged") for i in range(10)]
    assert logged.records(second.run) == [
        ("1", "update", "acknowledged"),
        ("2", "update", "acknowledged"),
        ("3", "remove", "acknowledged"),
        ("77", "add", "acknowledged"),
    ]
    assert [logged.counts(second.run, what) for what in ("planned", "attempted", "succeeded")] == [(1, 2, 1)] * 3
    assert [(row["cohort_rows"], row["members_after"]) for row in logged.runs()] == [(10, 10)] * 3
    assert logged.runs()[0]["destination"] == "crm"
    remote = logged.rows("SELECT remote_id FROM headgate.records WHERE source_key = '77'")
    assert remote == [{"remote_id": "id-late@x.example"}]


def test_identifiers_and_fields_are_not_written(logged: LoggedWorld) -> None:
    logged.spec = replace(logged.spec, ops=frozenset(Op))
    logged.desk.always = lambda desk, batch: [replace(desk.apply(c), remote_id="77") for c in batch.changes]
    logged.run()

    told = repr(logged.rows("FROM headgate.records")) + repr(logged.runs()) + repr(logged.log.statements)

    assert "@x.example" not in told
    assert "Name 1" not in told


def test_what_was_not_delivered_says_what_became_of_it(logged: LoggedWorld) -> None:
    logged.sql("UPDATE vips SET email = NULL WHERE id = 9")
    logged.desk.answers.append(some(Status.REJECTED, Status.DEFERRED, Status.UNKNOWN, reason="no such city"))

    report = logged.run()

    assert report.status == "completed_with_errors"
    outcomes = sorted(outcome for _, _, outcome in logged.records(report.run))
    assert outcomes == ["acknowledged"] * 6 + ["deferred", "invalid", "rejected", "unknown"]
    (row,) = logged.runs()
    names = (
        "rejected",
        "deferred",
        "unknown",
        "not_sent",
        "invalid",
        "planned_add",
        "attempted_add",
        "succeeded_add",
    )
    assert [row[name] for name in names] == [1, 1, 1, 0, 1, 9, 9, 6]
    reasons = logged.rows("SELECT outcome, reason FROM headgate.records WHERE reason IS NOT NULL ORDER BY 1")
    assert (reasons[0]["outcome"], reasons[0]["reason"]) == ("deferred", "no such city")
    assert {one["outcome"] for one in reasons} == {"deferred", "invalid", "rejected", "unknown"}


def test_a_run_that_is_stopped_says_which_records_were_never_sent(logged: LoggedWorld) -> None:
    logged.people(100)
    logged.delivery = replace(logged.delivery, attempts=1)
    logged.desk.answers.extend([None, Unavailable("down")])
    broken = logged.run()
    logged.digest = "mapping-2"

    logged.run()

    given_up, again = logged.runs()
    assert broken.code == "HG403"
    assert (given_up["status"], given_up["planned_add"]) == ("cancelled", 100)
    outcomes = {
        o: sum(1 for *_, one in logged.records(given_up["run"]) if one == o) for o in ("acknowledged", "not_sent")
    }
    assert outcomes["acknowledged"] == given_up["succeeded_add"] == 10
    assert given_up["attempted_add"] + given_up["not_sent"] == 100
    assert outcomes["not_sent"] == given_up["not_sent"] > 0
    assert again["status"] == "completed"


def test_held_and_failed_runs_and_removals_that_were_kept_are_there(logged: LoggedWorld) -> None:
    logged.people(100).run()
    logged.guardrails = replace(logged.guardrails, max_removed=5)
    logged.sql("DELETE FROM vips WHERE id < 20")
    held = logged.run()
    logged.sql("INSERT INTO vips VALUES (NULL, 'x@x.example', 'X', 1)")
    failed = logged.run()
    logged.sql("DELETE FROM vips WHERE id IS NULL")
    logged.run()

    assert (held.status, failed.status) == ("held", "failed")
    rows = {row["run"]: row for row in logged.runs()}
    waiting = rows[held.run or ""]
    assert (waiting["status"], waiting["planned_remove"], waiting["attempted_remove"]) == ("held", 20, 0)
    assert waiting["members_after"] == 100
    assert (rows[failed.run or ""]["status"], rows[failed.run or ""]["cohort_rows"]) == ("failed", None)
    assert logged.records(held.run) == logged.records(failed.run) == []


def test_a_warehouse_that_does_not_answer_fails_no_run_and_is_caught_up_with(logged: LoggedWorld) -> None:
    logged.run()
    logged.log.down()
    logged.sql("DELETE FROM vips WHERE id = 1")

    report = logged.run()
    logged.run()

    assert (report.status, exit_code([report]), report.applied) == ("completed", 0, 1)
    assert any("the sync log is not up to date" in note and "[HG200]" in note for note in report.notes)
    badge = standing(logged.ledger, logged.job.cohort, logged.job.sync)
    assert badge.health is Health.WARNING
    assert any("the warehouse is not there [HG200]" in reason for reason in badge.reasons)
    assert len(logged.runs()) == 1

    logged.log.up()
    assert logged.run().notes == ()
    assert standing(logged.ledger, logged.job.cohort, logged.job.sync).health is Health.HEALTHY
    assert [row["planned_remove"] for row in logged.runs()] == [0, 1, 0, 0]
    assert logged.records(report.run) == [("1", "remove", "acknowledged")]


def test_an_error_that_nobody_foresaw_fails_no_run_either(logged: LoggedWorld) -> None:
    def broken(_: str) -> bool:
        raise ZeroDivisionError

    logged.log.fails = broken

    report = logged.run()

    assert (report.status, exit_code([report])) == ("completed", 0)
    assert report.notes == (
        "the sync log is not up to date, and is after the next run: it failed with ZeroDivisionError [HG230]",
    )


def test_a_write_that_breaks_off_leaves_nothing_half_written(logged: LoggedWorld) -> None:
    logged.run()
    logged.log.fails = lambda sql: sql == "-- load headgate.runs"
    logged.sql("DELETE FROM vips WHERE id = 1").run()
    assert (len(logged.runs()), len(logged.records())) == (1, 10)

    logged.log.up()
    logged.run()
    assert (len(logged.runs()), len(logged.records())) == (3, 11)


def test_a_crash_before_it_is_noted_writes_the_run_again_and_doubles_nothing(
    logged: LoggedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(point: str) -> None:
        if point == "sync_log.written":
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("sync.engine.sync_log.reached", die)
        with pytest.raises(Killed):
            logged.run()
    assert len(logged.records()) == 10
    assert logged.mark.places[0].run == ""

    logged.run()
    assert (len(logged.runs()), len(logged.records())) == (2, 10)


def test_turned_on_later_it_begins_with_all_that_was_run_before(logged: LoggedWorld) -> None:
    target, logged.target = logged.target, None
    for round in range(3):
        logged.sql(f"UPDATE vips SET name = 'N{round}' WHERE id = 1").run()
        logged.run()
    assert logged.log.statements == []

    logged.target = target
    logged.run()

    assert len(logged.runs()) == 7
    assert len(logged.records()) == 10 + 2
    commits = logged.log.commits
    logged.run()
    assert (len(logged.runs()), logged.log.commits) == (8, commits + 1)


def test_a_large_run_is_never_in_memory_as_a_whole(logged: LoggedWorld) -> None:
    logged.limited(batch_size=50_000).people(50_000).run()

    assert len(logged.records()) == 50_000
    assert 0 < logged.log.largest <= 20_480


def test_a_run_that_was_told_to_stop_leaves_the_log_to_the_next(logged: LoggedWorld) -> None:
    logged.desk.always = lambda desk, batch: (logged.stop.set(), desk.take(batch))[1]
    logged.run()
    assert logged.log.statements == []
    logged.stop.clear()
    logged.desk.always = None

    logged.run()

    assert len(logged.records()) == 10


def test_old_runs_are_deleted_where_the_setting_says_so(logged: LoggedWorld) -> None:
    logged.run()
    logged.sql("UPDATE headgate.runs SET ended_at = ended_at - INTERVAL 40 DAY",
               "UPDATE headgate.records SET ended_at = ended_at - INTERVAL 40 DAY")  # fmt: skip
    logged.sql("DELETE FROM vips WHERE id = 1").run()
    assert len(logged.runs()) == 2

    logged.target = replace(logged.target or LogTarget("", ""), keep=30 * 86400.0)
    logged.run()

    assert [len(logged.runs()), len(logged.records())] == [2, 1]


def test_a_plan_file_that_is_gone_leaves_the_run_without_records(logged: LoggedWorld) -> None:
    logged.log.down()
    report = logged.run()
    assert report.plan is not None
    (logged.root / "state" / report.plan.file).unlink()
    logged.log.up()

    logged.run()

    row = logged.runs()[0]
    assert (row["planned_add"], row["attempted_add"], row["succeeded_add"]) == (10, None, None)
    assert logged.records() == []


# --- people who are forgotten ---------------------------------------------------------------------------------

WHO = "p3@x.example"


def test_who_is_forgotten_is_erased_from_the_log_and_from_every_later_run(logged: LoggedWorld) -> None:
    logged.run()
    logged.sql("UPDATE vips SET name = 'New' WHERE id IN (3, 4)").run()
    assert sum(key == "3" for key, *_ in logged.records()) == 2

    told = logged.forget(WHO)

    assert told == []
    assert "3" not in {key for key, *_ in logged.records()}
    removal = logged.run()
    assert removal.applied == 1
    assert WHO not in logged.desk.members
    assert "3" not in {key for key, *_ in logged.records()}
    assert len(logged.records()) == 10
    assert [logged.counts(row["run"], "succeeded") for row in logged.runs()[:3]] == [
        (10, 0, 0),
        (0, 2, 0),
        (0, 0, 1),
    ]
    assert not logged.mark.erasing


def test_no_statement_says_who_it_is(logged: LoggedWorld) -> None:
    logged.sql("ALTER TABLE vips ALTER id TYPE VARCHAR", "UPDATE vips SET id = 'customer-' || id").run()
    logged.log.statements.clear()

    logged.forget(WHO)

    assert any("DELETE FROM headgate.records" in sql for sql in logged.log.statements)
    assert "customer-3" not in repr(logged.log.statements)
    assert "customer-3" not in {key for key, *_ in logged.records()}
    assert len(logged.records()) == 9


def test_while_the_warehouse_is_away_somebody_is_told_and_the_next_run_erases(logged: LoggedWorld) -> None:
    logged.sql("UPDATE vips SET email = NULL, id = 555 WHERE id = 5").run()
    logged.log.down()

    told = logged.forget("555") + logged.forget(WHO)

    assert len(told) == 2
    assert "HG200" in told[0]
    (part, *_) = logged.ledger.erasure_parts(ErasureState.ERASED)
    assert part.sync == SYNC
    assert {"3", "555"} <= {key for key, *_ in logged.records()}
    assert "the sync log" in " ".join(standing(logged.ledger, logged.job.cohort, logged.job.sync).reasons)

    logged.log.up()
    logged.target = None  # it is erased where it was, though nothing more is written there
    logged.run()
    assert {"3", "555"}.isdisjoint({key for key, *_ in logged.records()})
    assert not logged.mark.erasing


def test_a_reason_that_quotes_somebody_goes_with_them(logged: LoggedWorld) -> None:
    def refuse(desk: Desk, batch: Any) -> Any:
        first, *rest = batch.changes
        reasons = some(Status.REJECTED, reason=f"has the card of {WHO}")(desk, batch)
        assert rest, first
        return reasons

    logged.desk.answers.append(refuse)
    logged.run()
    assert logged.rows(f"FROM headgate.records WHERE reason LIKE '%{WHO}%'")

    logged.forget(WHO)

    (row,) = logged.rows("FROM headgate.records WHERE outcome = 'rejected'")
    assert row["reason"] is None
    assert WHO not in repr(logged.log.statements)


def test_a_log_in_a_source_that_is_gone_is_told_of(logged: LoggedWorld) -> None:
    logged.run()
    logged.there, logged.target = False, None

    told = logged.forget(WHO)

    assert len(told) == 1
    assert "config.toml has no more [HG230]" in told[0]
    assert logged.run().notes == ()
    assert logged.mark.erasing
    logged.there = True
    logged.run()
    assert "3" not in {key for key, *_ in logged.records()}
