"""Members and plans that a disk or a person damaged: an error with a code, not one request, and a way back."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from sync.errors import Corrupt
from sync.state.ledger import open_ledger
from sync.state.members import verify
from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests
from tests.acceptance.sink import Sink
from tests.crash.damage import EVERY, Harm, emptied, flip, flipped, flips, missing, truncated
from tests.crash.small import PEOPLE, SYNC, Answer, Small
from tests.figures import Figures

EVERYBODY = list(range(1, PEOPLE + 1))
GONE = 10  # removals that the guardrails let through


def at_night(harm: Harm) -> Any:
    """Before a run is resumed, requests of the killed one are waited for: a quarter of a minute each."""
    return pytest.param(harm, marks=pytest.mark.endless)


def only(files: list[Path]) -> Path:
    """The one file there is."""
    (path,) = files
    return path


def member_file(project: Small, kind: str) -> Path:
    """The current base or delta."""
    with open_ledger(project.state / "ledger.db") as ledger:
        return project.state / "members" / SYNC / str(getattr(ledger.generation(SYNC), kind))


def findings(answer: Answer) -> list[str]:
    """What `doctor` says is wrong."""
    return [check["message"] for check in answer.json["checks"] if not check["ok"]]


def start_again(project: Small) -> Answer:
    """What the errors tell to do where there is no backup."""
    count = project.here("state", "show").json["syncs"][0]["members"]
    reason = "its files are damaged"
    project.here("state", "reset", SYNC, "--members", str(count), "--reason", reason).succeeded()
    return project.here("run", "--first-run").succeeded()


# --- members --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "harm"), [*(("base", harm) for harm in EVERY), ("delta", flipped), ("delta", missing)]
)
def test_nothing_is_sent_on_damaged_members_and_two_ways_lead_back(
    settled: Small, sink: Sink, figures: Figures, kind: str, harm: Harm
) -> None:
    path = member_file(settled, kind)
    whole = path.with_suffix(".backup")
    shutil.copy2(path, whole)
    settled.sql(f"DELETE FROM vip_cohort WHERE user_id <= {GONE}")
    harm(path)

    for command in (["run"], ["plan"], ["run"]):
        settled.here(*command).failed("HG303")
    doctor = settled.here("doctor", "--offline")

    assert sink.count == 0
    assert doctor.code == 1
    assert any(path.name in message for message in findings(doctor))
    figures.add("corrupted files caught")
    shutil.copytree(settled.root, again := settled.root.with_name("again"))

    shutil.copy2(whole, path)  # one way: the backup
    settled.here("run").succeeded()
    assert sorted(sink.members) == EVERYBODY[GONE:]
    assert settled.here("doctor", "--offline").code == 0

    start_again(other := Small(again, sink.url))  # the other: everybody once more
    assert other.here("run").succeeded().sync["requests"] == 0
    assert sorted(sink.members) == EVERYBODY[GONE:]


@pytest.mark.parametrize("kind", ["base", "delta"])
def test_a_bit_turned_anywhere_in_a_members_file_is_noticed(settled: Small, figures: Figures, kind: str) -> None:
    path = member_file(settled, kind)
    with open_ledger(settled.state / "ledger.db") as ledger:
        generation = ledger.generation(SYNC)
    verify(path.parent, generation)

    for offset, bit in flips(path, 300, seed=3):
        flip(path, offset, bit)
        with pytest.raises(Corrupt, match=path.name):
            verify(path.parent, generation)
        flip(path, offset, bit)
        figures.add("turned bits caught")
    verify(path.parent, generation)


@pytest.mark.parametrize("harm", [flipped, at_night(missing)])
def test_members_damaged_while_a_run_was_interrupted_stop_its_resumption(
    settled: Small, sink: Sink, figures: Figures, harm: Harm
) -> None:
    interrupt(settled, sink, after=2)
    harm(member_file(settled, "base"))
    seen = sink.count

    settled.here("run").failed("HG303")
    assert sink.count == seen
    start_again(settled)

    assert set(sink.members) >= set(EVERYBODY)
    figures.add("corrupted files caught")


# --- plans ----------------------------------------------------------------------------------------------------


def interrupt(project: Small, sink: Sink, after: int) -> str:
    """Begin a run of many changes whose destination goes away after some batches; returns the plan's file."""
    project.sql("UPDATE vip_cohort SET score = score + 1000")
    sink.faults = (lambda request: faults.SERVER_ERROR if request.number > after else None,)
    failed = project.here("run").failed("HG403")
    sink.faults = ()
    assert 0 < failed.sync["applied"] < PEOPLE
    return str(failed.sync["plan"])


def plan_file(project: Small) -> Path:
    """The newest plan's file."""
    return max((project.state / "plans" / SYNC).glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)


def held(project: Small) -> str:
    """A plan that waits for a person: too many removals."""
    project.sql("DELETE FROM vip_cohort WHERE user_id <= 60")
    answer = project.here("run")
    assert answer.code == 3, answer.text
    return str(answer.sync["plan"])


@pytest.mark.parametrize("harm", EVERY)
def test_a_damaged_plan_cannot_be_approved_and_is_made_anew(
    settled: Small, sink: Sink, figures: Figures, harm: Harm
) -> None:
    plan = held(settled)
    harm(plan_file(settled))
    assert any(plan in message for message in findings(settled.here("doctor", "--offline")))

    settled.here("approve", plan, "--reason", "they left").failed("HG303")
    settled.here("approve", plan, "--reason", "they left").failed("HG502")  # it is void
    made = settled.here("run")

    assert made.code == 3, made.text
    assert sink.count == 0
    settled.here("approve", str(made.sync["plan"]), "--reason", "they left").succeeded()
    assert sorted(sink.members) == EVERYBODY[60:]
    figures.add("corrupted files caught")


@pytest.mark.parametrize("command", ["run", "run --plan", "plan"])
@pytest.mark.parametrize("harm", [flipped, missing])
def test_a_plan_damaged_after_its_approval_is_not_delivered(
    settled: Small, sink: Sink, figures: Figures, harm: Harm, command: str
) -> None:
    plan = held(settled)
    settled.here("approve", plan, "--reason", "they left", "--later").succeeded()
    harm(plan_file(settled))

    words = command.split() + ([plan] if "--plan" in command else [])
    settled.here(*words).failed("HG303")

    assert sink.count == 0
    made = settled.here("run")
    assert made.code == 3, made.text  # a new plan, that nobody approved
    settled.here("approve", str(made.sync["plan"]), "--reason", "they left").succeeded()
    assert sorted(sink.members) == EVERYBODY[60:]
    figures.add("corrupted files caught")


@pytest.mark.parametrize("harm", [at_night(truncated), flipped, at_night(missing)])
def test_a_run_is_not_resumed_from_a_damaged_plan_and_two_ways_lead_back(
    settled: Small, sink: Sink, figures: Figures, harm: Harm
) -> None:
    interrupt(settled, sink, after=2)
    path = plan_file(settled)
    whole = path.with_suffix(".backup")
    shutil.copy2(path, whole)
    harm(path)
    seen = sink.count

    for command in (["run"], ["run"]):
        settled.here(*command).failed("HG303")
    settled.here("plan").failed("HG524")
    assert findings(settled.here("doctor", "--offline"))
    assert sink.count == seen
    figures.add("corrupted files caught")
    shutil.copytree(settled.root, again := settled.root.with_name("again"))

    shutil.copy2(whole, path)  # one way: the backup
    settled.here("run").succeeded()
    assert {m["score"] for m in sink.members.values()} == {m["score"] for m in expected(settled)}
    repeated_requests(sink.requests)

    start_again(other := Small(again, sink.url))  # the other: everybody once more
    assert other.here("run").succeeded().sync["requests"] == 0
    assert sorted(sink.members) == EVERYBODY


def expected(project: Small) -> list[dict[str, int]]:
    """Scores as the warehouse has them."""
    import duckdb

    with duckdb.connect(str(project.root / "warehouse.duckdb")) as connection:
        rows = connection.execute("SELECT score FROM vip_cohort").fetchall()
    return [{"score": score} for (score,) in rows]


def test_state_reset_still_wants_an_interrupted_run_finished_that_can_be(settled: Small, sink: Sink) -> None:
    interrupt(settled, sink, after=2)
    count = str(PEOPLE)

    settled.here("state", "reset", SYNC, "--members", count, "--reason", "try").failed("HG330")
    settled.here("run").succeeded()


# --- copies of rejected records -------------------------------------------------------------------------------


def scribbled(path: Path) -> None:
    """Somebody else's identifiers stand in it, in a file that is whole."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"CREATE TABLE copy AS SELECT * FROM read_parquet('{path}')")
        connection.execute('UPDATE copy SET "id.user_id" = "id.user_id" - 300')
        connection.execute(f"COPY copy TO '{path}' (FORMAT parquet)")


@pytest.mark.parametrize("harm", [truncated, emptied, missing, scribbled])
def test_a_removal_whose_identifiers_were_lost_or_altered_is_an_error_and_removes_nobody_else(
    settled: Small, sink: Sink, figures: Figures, harm: Harm
) -> None:
    settled.more_people(PEOPLE + 1, GONE)
    sink.faults = (lambda request: faults.Answer(status=200, body=b"<html>", content_type="text/html"),)
    unknown = settled.here("run")
    assert unknown.code == 4, unknown.text  # nobody can tell whether they are there: they are
    sink.faults = ()
    settled.sql(f"DELETE FROM vip_cohort WHERE user_id > {PEOPLE}")
    path = only(list((settled.state / "rejected" / SYNC).glob("*.parquet")))
    shutil.copy2(path, backup := settled.root / "backup.parquet")
    harm(path)
    seen = sink.count

    settled.here("run").failed("HG303", "HG341")
    assert sink.count == seen
    assert "Traceback" not in settled.here("rejected", "list").text
    figures.add("corrupted files caught")

    shutil.copy2(backup, path)
    settled.here("run").succeeded()
    assert sorted(sink.members) == EVERYBODY
