"""The audit log: what it keeps, and what it finds when the owner of the database has been at it."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, create_engine, text

from sync.audit import Audit, Finding, Verification, event_hash
from sync.errors import StateError
from sync.signing import private_key
from sync.state.nouns import Event

DDL = """
CREATE TABLE audit_event(seq INTEGER PRIMARY KEY, at REAL, actor TEXT, action TEXT, object TEXT, data TEXT,
    prev TEXT, hash TEXT)
"""
TRIGGERS = """
CREATE TRIGGER audit_no_{op} BEFORE {op} ON audit_event BEGIN SELECT RAISE(ABORT, 'append only'); END
"""


class Log:
    """An audit log on a real SQLite file, and the attacker who owns it."""

    def __init__(self, folder: Path, every: int = 100) -> None:
        self.now = 1_800_000_000.0
        self.place = folder / "elsewhere"
        self.keys = folder / "state"
        self.engine = create_engine(f"sqlite:///{folder / 'ledger.db'}")
        self.audit = Audit(self.keys, self.place, every, clock=self._tick)
        with self.engine.begin() as connection:
            connection.execute(text(DDL))
            for op in ("update", "delete"):
                connection.execute(text(TRIGGERS.format(op=op)))

    def _tick(self) -> float:
        self.now += 0.25
        return self.now

    def append(self, count: int = 1, **data: Any) -> None:
        with self.engine.begin() as connection:
            self.audit.append(
                connection,
                *[Event(f"person{n}@acme.example", "plan.held", f"plan:{n}", data) for n in range(count)],
            )

    def checkpoint(self) -> Any:
        with self.engine.connect() as connection:
            return self.audit.checkpoint(connection)

    def verify(self) -> Verification:
        with self.engine.connect() as connection:
            return self.audit.verify(connection)

    def attack(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("DROP TRIGGER IF EXISTS audit_no_update"))
            connection.execute(text("DROP TRIGGER IF EXISTS audit_no_delete"))
            for statement in statements:
                connection.execute(text(statement))

    def rehash(self, start: int) -> None:
        """Make the chain consistent again from an event on, as an attacker who read our code would."""
        with self.engine.begin() as connection:
            rows = connection.execute(text("SELECT * FROM audit_event ORDER BY seq")).all()
            prev = "0" * 64
            for row in rows:
                digest = row.hash
                if row.seq >= start:
                    digest = event_hash(*row[:6], prev)
                    values = {"p": prev, "h": digest, "s": row.seq}
                    connection.execute(text("UPDATE audit_event SET prev=:p, hash=:h WHERE seq=:s"), values)
                prev = digest

    @property
    def notes(self) -> Path:
        (file,) = self.place.glob("*.notes")
        return file

    def only_finding(self) -> Finding:
        (finding,) = self.verify().findings
        return finding


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(tmp_path)
    yield made
    made.engine.dispose()


def filled(log: Log) -> Log:
    """Three checkpoints, at 10, 20 and 30 events, and five events that nobody vouches for yet."""
    for _ in range(3):
        log.append(10, reason="spring clean")
        log.checkpoint()
    log.append(5)
    return log


def test_an_untouched_log_verifies(log: Log) -> None:
    result = filled(log).verify()

    assert result == Verification(events=35, checkpoints=3, witnessed=30, findings=())


def test_an_empty_log_verifies(log: Log) -> None:
    assert log.verify() == Verification(0, 0, 0, ())


def test_the_table_refuses_update_and_delete(log: Log) -> None:
    log.append(3)

    for statement in ("UPDATE audit_event SET actor = 'x'", "DELETE FROM audit_event"):
        with pytest.raises(Exception, match="append only"), log.engine.begin() as connection:
            connection.execute(text(statement))


def test_an_event_rolled_back_leaves_no_trace(log: Log) -> None:
    log.append(2)
    with log.engine.connect() as connection:
        log.audit.append(connection, Event("ann", "plan.approved", "plan:1"))
        connection.rollback()
    log.append(1)

    assert log.verify() == Verification(3, 0, 0, ())


def test_a_checkpoint_inside_the_appending_transaction_is_refused(log: Log) -> None:
    with log.engine.begin() as connection:
        log.audit.append(connection, Event("ann", "plan.approved", "plan:1"))
        with pytest.raises(StateError, match="inside the transaction"):
            log.audit.checkpoint(connection)
    with log.engine.begin() as connection:
        note = log.audit.checkpoint(connection)

    assert note is not None
    assert note.size == 1


def test_a_checkpoint_is_due_after_so_many_events(tmp_path: Path) -> None:
    log = Log(tmp_path, every=10)
    log.append(9)
    assert not log.audit.due
    log.append(1)
    assert log.audit.due

    log.checkpoint()

    assert not log.audit.due
    log.engine.dispose()


def test_nothing_new_means_no_checkpoint(log: Log) -> None:
    assert log.checkpoint() is None
    log.append(3)
    assert log.checkpoint() is not None
    before = log.notes.read_bytes()

    assert log.checkpoint() is None
    assert log.notes.read_bytes() == before


def test_the_signing_key_is_readable_by_its_owner_alone(log: Log) -> None:
    filled(log)

    assert stat.S_IMODE((log.keys / "audit.key").stat().st_mode) == 0o600
    assert b"PRIVATE" not in (log.place / "audit.pub").read_bytes()


def test_two_processes_continue_one_series_of_checkpoints(log: Log) -> None:
    filled(log)
    other = Audit(log.keys, log.place, clock=lambda: log.now)
    with log.engine.connect() as connection:
        note = other.checkpoint(connection)

    assert note is not None
    assert (note.number, note.size) == (4, 35)
    assert log.verify().ok


def test_half_a_note_left_by_a_power_cut_does_no_harm(log: Log) -> None:
    filled(log)
    whole = log.notes.read_bytes()
    log.notes.write_bytes(whole + whole[: len(whole) // 7])

    log.checkpoint()

    assert log.verify() == Verification(35, 4, 35, ())


def test_a_place_that_cannot_be_written_is_named(log: Log, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log.append(1)
    audit = Audit(log.keys, tmp_path / "file" / "below")

    with log.engine.connect() as connection, pytest.raises(StateError, match="file/below") as caught:
        audit.checkpoint(connection)

    assert caught.value.code == "HG320"


# --- attacks by the owner of the database ---------------------------------------------------------------------


@pytest.mark.parametrize("column", ["actor", "action", "object", "data", "hash", "prev"])
def test_an_edited_event_is_named(log: Log, column: str) -> None:
    value = "'{}'" if column == "data" else "'someone else'"
    filled(log).attack(f"UPDATE audit_event SET {column} = {value} WHERE seq = 17")

    assert log.only_finding() == Finding(
        "edited", "event 17 was edited: it does not have the hash that was kept", 17, 17
    )


@pytest.mark.parametrize("value", ["NULL", "x'FF'", "CAST(x'C328' AS TEXT)", "12"])
def test_an_event_made_unreadable_is_named(log: Log, value: str) -> None:
    filled(log).attack(f"UPDATE audit_event SET actor = {value} WHERE seq = 17")

    finding = log.only_finding()

    assert (finding.kind, finding.first) == ("edited", 17)


def test_an_edited_time_is_named(log: Log) -> None:
    filled(log).attack("UPDATE audit_event SET at = at + 1 WHERE seq = 35")

    finding = log.only_finding()

    assert (finding.kind, finding.first, finding.last) == ("edited", 35, 35)


def test_an_edited_event_with_a_fitting_hash_is_named(log: Log) -> None:
    filled(log).attack("UPDATE audit_event SET actor = 'bob' WHERE seq = 17")
    with log.engine.begin() as connection:
        row = connection.execute(text("SELECT * FROM audit_event WHERE seq = 17")).one()
        values = {"h": event_hash(*row[:7])}
        connection.execute(text("UPDATE audit_event SET hash = :h WHERE seq = 17"), values)

    finding = log.only_finding()

    assert (finding.kind, finding.first) == ("edited", 17)
    assert "hashed anew" in finding.message


@pytest.mark.parametrize(("first", "last"), [(1, 1), (17, 17), (12, 19), (1, 30)])
def test_deleted_events_are_named(log: Log, first: int, last: int) -> None:
    filled(log).attack(f"DELETE FROM audit_event WHERE seq BETWEEN {first} AND {last}")

    findings = log.verify().findings

    assert [(f.kind, f.first, f.last) for f in findings] == [("deleted", first, last)]


def test_a_deletion_hidden_by_renumbering_is_named(log: Log) -> None:
    filled(log).attack(
        "DELETE FROM audit_event WHERE seq IN (17, 18)", "UPDATE audit_event SET seq = seq - 2 WHERE seq > 18"
    )

    deleted, renumbered = log.verify().findings

    assert (deleted.kind, deleted.first, deleted.last) == ("deleted", 17, 18)
    assert (renumbered.kind, renumbered.first, renumbered.last) == ("renumbered", 17, 33)
    assert renumbered.message == "the events 17 to 33 were renumbered: they were written as 19 to 35"


def test_a_renumbered_event_is_named(log: Log) -> None:
    filled(log).attack("UPDATE audit_event SET seq = 40 WHERE seq = 35")

    finding = next(f for f in log.verify().findings if f.kind == "renumbered")

    assert finding.message == "event 40 was renumbered: it was written as 35"


@pytest.mark.parametrize("columns", [["actor", "object", "at"], ["actor", "object", "at", "prev", "hash"]])
@pytest.mark.parametrize(("one", "other"), [(7, 8), (5, 27)])
def test_swapped_events_are_named(log: Log, columns: list[str], one: int, other: int) -> None:
    filled(log)
    with log.engine.connect() as connection:
        select = f"SELECT {', '.join(columns)} FROM audit_event WHERE seq = "
        a, b = (connection.execute(text(f"{select}{n}")).one() for n in (one, other))
    log.attack("SELECT 1")
    with log.engine.begin() as connection:
        for seq, row in ((one, b), (other, a)):
            assignments = ", ".join(f"{c} = :{c}" for c in columns)
            connection.execute(text(f"UPDATE audit_event SET {assignments} WHERE seq = {seq}"), row._asdict())

    finding = log.only_finding()

    assert finding == Finding("swapped", f"the events {one} and {other} were swapped", one, other)


def test_a_rewritten_chain_is_found_by_its_checkpoints(log: Log) -> None:
    filled(log).attack("UPDATE audit_event SET actor = 'bob' WHERE seq = 17")
    log.rehash(17)

    finding = log.only_finding()

    assert (finding.kind, finding.first, finding.last) == ("rewritten", 11, 20)
    assert "checkpoint 2 of 2027-01-15T" in finding.message


@pytest.mark.parametrize("keep", [29, 12, 0])
def test_a_cut_tail_is_found_by_its_checkpoints(log: Log, keep: int) -> None:
    filled(log).attack(f"DELETE FROM audit_event WHERE seq > {keep}")

    finding = log.only_finding()

    assert (finding.kind, finding.first, finding.last) == ("cut", keep + 1, 30)
    assert finding.message.startswith(f"the log ends with event {keep}, but checkpoint 3 of")


def test_a_cut_tail_that_grew_again_is_found(log: Log) -> None:
    filled(log).attack("DELETE FROM audit_event WHERE seq > 25")
    log.append(10)

    finding = log.only_finding()

    assert (finding.kind, finding.first, finding.last) == ("rewritten", 21, 30)


# --- attacks on the second place ------------------------------------------------------------------------------


def edit(log: Log, old: str, new: str) -> None:
    content = log.notes.read_text()
    assert old in content
    log.notes.write_text(content.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"), [("\n20\n", "\n19\n"), ("number 2", "number 9"), ("time 2027", "time 2028"), ("— ", "- ")]
)
def test_an_edited_checkpoint_is_found(log: Log, old: str, new: str) -> None:
    edit(filled(log), old, new)

    kinds = {f.kind for f in log.verify().findings}

    assert "checkpoint" in kinds


def test_a_checkpoint_signed_with_another_key_is_found(log: Log, tmp_path: Path) -> None:
    filled(log).attack("UPDATE audit_event SET actor = 'bob' WHERE seq = 17")
    log.rehash(17)
    forger = Audit(tmp_path / "forged", tmp_path / "forged-place", clock=lambda: log.now)
    with log.engine.connect() as connection:
        forger.checkpoint(connection)
    forged = next((tmp_path / "forged-place").glob("*.notes")).read_text()
    log.notes.write_text(log.notes.read_text() + forged)

    messages = [f.message for f in log.verify().findings]

    assert any("forged or edited" in m and "line 28" in m for m in messages)
    assert any("written anew" in m for m in messages)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_missing_checkpoint_is_named(log: Log, number: int) -> None:
    lines = filled(log).notes.read_text().splitlines(keepends=True)
    del lines[(number - 1) * 9 : number * 9]
    log.notes.write_text("".join(lines))

    missing = [f.message for f in log.verify().findings if f.kind == "missing"]

    assert missing == [f"checkpoint {number} is missing from the second place: somebody removed or damaged it"]


def test_all_checkpoints_removed_are_found(log: Log) -> None:
    filled(log).notes.unlink()

    assert "checkpoint 1 to 3 are missing" in log.only_finding().message


def test_a_log_without_any_trace_of_a_checkpoint_is_not_trusted(tmp_path: Path) -> None:
    log = Log(tmp_path, every=30)
    filled(log)
    for file in [*log.place.iterdir(), *log.keys.iterdir()]:
        file.unlink()

    assert log.only_finding().kind == "missing"
    log.engine.dispose()


def test_a_lost_signing_key_is_refused_and_not_replaced_in_silence(log: Log) -> None:
    filled(log)
    (log.keys / "audit.key").unlink()

    with pytest.raises(StateError, match="is gone") as caught:
        log.checkpoint()

    assert caught.value.code == "HG321"
    assert not (log.keys / "audit.key").exists()


def test_a_replaced_signing_key_is_found_and_refused(log: Log, tmp_path: Path) -> None:
    filled(log)
    private_key(tmp_path / "another.key")
    (tmp_path / "another.key").replace(log.keys / "audit.key")

    with pytest.raises(StateError, match="is not the one pinned") as caught:
        log.checkpoint()

    assert caught.value.code == "HG321"
    assert log.only_finding().kind == "key"


def test_a_rewritten_public_key_is_found(log: Log, tmp_path: Path) -> None:
    filled(log)
    forger = Audit(tmp_path / "forged", tmp_path / "forged-place", clock=lambda: log.now)
    with log.engine.connect() as connection:
        forger.checkpoint(connection)
    (log.place / "audit.pub").write_bytes((tmp_path / "forged-place" / "audit.pub").read_bytes())

    assert "key" in {f.kind for f in log.verify().findings}


def test_a_removed_public_key_is_found_and_not_pinned_again(log: Log) -> None:
    filled(log)
    (log.place / "audit.pub").unlink()
    log.checkpoint()

    assert log.only_finding().kind == "key"


# --- any mutation ---------------------------------------------------------------------------------------------

COLUMNS = ("at", "actor", "action", "object", "data", "prev", "hash")
mutations = st.one_of(
    st.tuples(st.just("edit"), st.integers(1, 30), st.sampled_from(COLUMNS)),
    st.tuples(st.just("delete"), st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.just("renumber"), st.integers(1, 30), st.integers(31, 200)),
    st.tuples(st.just("swap"), st.integers(1, 30), st.integers(1, 30)),
    st.tuples(st.just("rewrite"), st.integers(1, 30), st.sampled_from(("actor", "action", "object"))),
    st.tuples(st.just("insert"), st.integers(1, 30), st.booleans()),
)


def mutate(log: Log, kind: str, seq: int, argument: Any) -> bool:
    """Do it; False where it changes nothing that was witnessed."""
    if kind in ("edit", "rewrite"):
        value = "at + 0.001" if argument == "at" else f"{argument} || ' '"
        log.attack(f"UPDATE audit_event SET {argument} = {value} WHERE seq = {seq}")
    if kind == "rewrite":
        log.rehash(seq)
    if kind == "delete":
        log.attack(f"DELETE FROM audit_event WHERE seq BETWEEN {min(seq, argument)} AND {max(seq, argument)}")
    if kind == "renumber":
        log.attack(f"UPDATE audit_event SET seq = {argument} WHERE seq = {seq}")
    if kind == "swap":
        pairs = ((seq, -1), (argument, seq), (-1, argument))
        log.attack(*[f"UPDATE audit_event SET seq = {new} WHERE seq = {old}" for old, new in pairs])
        return bool(seq != argument)
    if kind == "insert":
        shift = f"UPDATE audit_event SET seq = -seq - 1 WHERE seq >= {seq}"
        columns = "at, actor, action, object, data, prev, hash"
        source = f"SELECT {seq}, {columns} FROM audit_event WHERE seq IN ({-seq - 1})"
        log.attack(shift, f"INSERT INTO audit_event {source}", "UPDATE audit_event SET seq = -seq WHERE seq < 0")
        if argument:
            log.rehash(seq)
        return not (argument and seq == 30)  # past the checkpoint, a copy with its own hash is an append
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations)
def test_any_single_mutation_of_the_log_is_found(mutation: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = Log(tmp_path_factory.mktemp("log"))
    log.append(30, reason="spring clean")
    log.checkpoint()

    changed = mutate(log, *mutation)

    assert log.verify().ok is not changed
    log.engine.dispose()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
words = st.text(st.characters(exclude_categories=("Cs",)))


@given(
    words, words, words, st.integers(1, 2**40), st.floats(0, 4e9), st.dictionaries(words, json_values, max_size=3)
)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_the_hash_is_that_of_the_documented_bytes(
    actor: str, action: str, thing: str, seq: int, at: float, data: dict[str, Any]
) -> None:
    import hashlib

    at = round(at, 6)
    record = {"seq": seq, "at": at, "actor": actor, "action": action, "object": thing, "data": data}
    expected = hashlib.sha256(b"audit-v1" + b"0" * 64 + rfc8785.dumps(record)).hexdigest()

    assert event_hash(seq, at, actor, action, thing, rfc8785.dumps(data).decode(), "0" * 64) == expected


# --- reading --------------------------------------------------------------------------------------------------


@pytest.fixture
def searchable(log: Log) -> Callable[..., list[int]]:
    with log.engine.begin() as connection:
        log.audit.append(
            connection,
            Event("ann@acme.example", "plan.held", "plan:p_1", {"sync": "hubspot"}),
            Event("bob@acme.example", "plan.approved", "plan:p_1", {"reason": "100% sure, Spring"}),
            Event("daemon", "run.completed", "run:r_1", {"applied": 12}),
            Event("daemon", "planner.started", "run:r_2"),
        )

    def search(**terms: Any) -> list[int]:
        with log.engine.connect() as connection:
            return [e.seq for e in log.audit.search(connection, **terms)]

    return search


@pytest.mark.parametrize(
    ("terms", "found"),
    [
        ({}, [4, 3, 2, 1]),
        ({"limit": 2}, [4, 3]),
        ({"actor": "daemon"}, [4, 3]),
        ({"actor": "*@acme.example"}, [2, 1]),
        ({"action": "plan.*"}, [2, 1]),
        ({"action": "plan"}, []),
        ({"object": "run:r_1"}, [3]),
        ({"text": "spring"}, [2]),
        ({"text": "100%"}, [2]),
        ({"text": "1%"}, []),
        ({"since": 1_800_000_000.6}, [4, 3]),
        ({"actor": "daemon", "action": "run.*"}, [3]),
    ],
)
def test_search_finds(searchable: Callable[..., list[int]], terms: dict[str, Any], found: list[int]) -> None:
    assert searchable(**terms) == found


def test_search_gives_the_data_back(log: Log) -> None:
    log.append(1, reason="spring", counts=[1, 2])
    with log.engine.connect() as connection:
        (event,) = log.audit.search(connection)

    assert event.data == {"reason": "spring", "counts": [1, 2]}
    assert event.actor == "person0@acme.example"


def test_an_export_can_be_verified_without_us(log: Log) -> None:
    import hashlib

    filled(log)
    out = io.StringIO()
    with log.engine.connect() as connection:
        assert log.audit.export(connection, out) == 35

    prev = "0" * 64
    for line in out.getvalue().splitlines():
        event = json.loads(line)
        digest = event.pop("hash")
        assert event.pop("prev") == prev
        prev = hashlib.sha256(b"audit-v1" + prev.encode() + rfc8785.dumps(event)).hexdigest()
        assert prev == digest


def test_odd_data_is_kept_as_text(log: Log) -> None:
    log.append(1, path=Path("/srv/x"), big=2**70, nested={"of": {1, 2}, "bad": "\udcff"}, nan=float("nan"))

    with log.engine.connect() as connection:
        (event,) = log.audit.search(connection)

    assert event.data["path"] == "/srv/x"
    assert event.data["big"] == str(2**70)
    assert event.data["nested"] == {"of": [1, 2], "bad": "?"}
    assert log.verify().ok


def timed(engine: Engine, work: Callable[[Connection], object]) -> float:
    import time

    with engine.begin() as connection:
        start = time.process_time()
        work(connection)
        return time.process_time() - start


def test_appending_in_groups_and_verifying_are_quick(log: Log) -> None:
    events = [Event("ann", "batch.acknowledged", f"batch:{n}", {"applied": 100, "run": "r_1"}) for n in range(100)]

    appending = timed(log.engine, lambda c: [log.audit.append(c, *events) for _ in range(50)])
    verifying = timed(log.engine, log.audit.verify)

    assert 5000 / appending > 5_000
    assert 5000 / verifying > 50_000
