"""The file under the ledger: its mode, its durability, and its troubles in words."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from sync.errors import Corrupt, StateError
from sync.sdk.nouns import Op, Status
from sync.state import database
from sync.state.ledger import open_ledger
from sync.state.nouns import BatchState, Event, Outcomes, RunStatus

SYNC = "orders_to_crm"

SENDER = """
import sys
from pathlib import Path
from sync.sdk.nouns import Op, Status
from sync.state.nouns import Outcomes
from sync.state.holder import me
from sync.state.ledger import open_ledger

ledger = open_ledger(Path(sys.argv[1]))
lease = ledger.acquire("orders_to_crm", me(), 30, dead=sys.argv[2])
for batch in range(int(sys.argv[3]), 100_000):
    attempt = ledger.intend(lease, "r1", batch, 5)
    print("intent", batch, flush=True)
    refused = [(batch * 10 + n, f"k{n}", Op.ADD, Status.REJECTED, "no") for n in range(3)]
    ledger.acknowledge(lease, attempt, Outcomes(7, exceptions=refused))
    print("acked", batch, flush=True)
"""


def test_a_new_ledger_is_for_its_owners_eyes_only(ledger, path):
    ledger.record(Event("ann", "x.y", "z"))

    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_old_ledger_that_others_may_read_is_closed_to_them(ledger, path):
    ledger.close()
    path.chmod(0o644)

    open_ledger(path).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commits_are_durable_and_references_are_checked_on_every_connection(ledger):
    for connect in (ledger._db.read, ledger._db.write):
        with connect() as connection:
            settings = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "recursive_triggers")
            }
        assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "recursive_triggers": 1}


def test_closing_twice_is_harmless(path):
    ledger = open_ledger(path)

    ledger.close()
    ledger.close()


def test_what_was_kept_is_there_after_opening_again(ledger, lease, make, path, sending):
    ledger.close()

    with open_ledger(path) as again:
        assert again.batches("r1") == make.batches()
        assert again.lease(SYNC).epoch == lease.epoch


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_event SET actor = 'bob'",
        "DELETE FROM audit_event",
        "REPLACE INTO audit_event VALUES (1, 0, 'bob', 'x.y', 'z', '', '', '')",
    ],
)
def test_the_audit_log_only_grows(ledger, statement):
    ledger.record(Event("ann", "x.y", "z"))

    with pytest.raises(StateError, match="the audit log only grows"), ledger._db.write() as connection:
        connection.exec_driver_sql(statement)

    with ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT actor FROM audit_event").scalars().all() == ["ann"]


def test_sixteen_threads_acknowledge_every_batch_once(ledger, lease, make):
    batches = make.batches(count=320)
    ledger.open(lease, make.run(), batches)
    refused = []

    def send(number):
        attempt = ledger.intend(lease, "r1", number, 5)
        ledger.barrier(SYNC, "r1")
        for _ in range(2):
            try:
                ledger.acknowledge(
                    lease, attempt, Outcomes(9, exceptions=[(number * 10, "k", Op.ADD, Status.UNKNOWN, "")])
                )
            except StateError as error:
                refused.append(error.code)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(send, range(320)))

    assert refused == ["HG318"] * 320
    assert {(b.state, b.applied, b.unknown) for b in ledger.batches("r1")} == {(BatchState.ACKED, 9, 1)}
    assert len(ledger.exceptions("r1")) == 320
    assert ledger.attempts("r1") == []


def test_threads_race_for_one_batch_and_one_wins(ledger, lease, sending):
    attempts = [ledger.intend(lease, "r1", 0, 5) for _ in range(8)]
    gate = threading.Barrier(8)
    won = []

    def acknowledge(attempt):
        gate.wait()
        try:
            ledger.acknowledge(lease, attempt, Outcomes(10))
            won.append(attempt)
        except StateError:
            pass

    threads = [threading.Thread(target=acknowledge, args=(a,)) for a in attempts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(won) == 1
    assert len(ledger.attempts("r1")) == 7


def test_a_reader_sees_one_moment_while_others_write(ledger, lease):
    ledger.remember(lease, "x", "before")
    with ledger.reading() as connection:
        query = sa.text("SELECT value FROM note WHERE name = 'x'")
        first = connection.execute(query).scalar()
        ledger.remember(lease, "x", "after")
        second = connection.execute(query).scalar()

    assert (first, second) == ("before", "before")
    assert ledger.note(SYNC, "x") == "after"


def test_killed_senders_leave_every_acknowledged_batch_and_a_sound_file(ledger, lease, make, path):
    ledger.open(lease, make.run(), make.batches(count=3000))
    ledger.release(lease)
    chance, holder, begin, acked, intended = random.Random(7), "", 0, set(), set()

    for _ in range(4):
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, path, holder, str(begin)], stdout=subprocess.PIPE, text=True
        )
        lines = [sender.stdout.readline()]  # it works
        time.sleep(chance.uniform(0.02, 0.2))
        sender.kill()
        lines += sender.communicate()[0].splitlines()
        said = [line.split() for line in lines if line.count(" ") == 1 and line.split()[1].isdigit()]
        intended |= {int(number) for word, number in said if word == "intent"}
        acked |= {int(number) for word, number in said[:-1] if word == "acked"}
        # The batch after the last one told of may have an intent too: none is sent twice here.
        holder, begin = ledger.lease(SYNC).holder, max(intended) + 2

    with ledger.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
    states = {b.number: b.state for b in ledger.batches("r1")}
    assert len(acked) > 4
    assert {states[n] for n in acked} == {BatchState.ACKED}
    assert {states[n] for n in intended} <= {BatchState.ACKED, BatchState.INTENT}
    done = [n for n, state in states.items() if state is BatchState.ACKED]
    assert len(ledger.exceptions("r1")) == 3 * len(done)
    assert {a.batch for a in ledger.attempts("r1")} == {n for n, s in states.items() if s is BatchState.INTENT}


def test_a_full_disk_refuses_the_write_keeps_what_was_and_goes_on_when_there_is_space(ledger, lease, make):
    ledger.open(lease, make.run(), make.batches(count=1, size=20_000))
    attempt = ledger.intend(lease, "r1", 0, 5)
    refused = [(n, f"key{n:040d}", Op.ADD, Status.REJECTED, "a reason") for n in range(20_000)]
    answer = Outcomes(0, exceptions=refused)
    with ledger._db.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 50}")

    with pytest.raises(StateError, match="the disk is full") as full:
        ledger.acknowledge(lease, attempt, answer)

    assert full.value.code == "HG313"
    assert "key0000" not in str(full.value) + str(full.value.__cause__)
    assert ledger.exceptions("r1") == []
    assert ledger.attempts("r1") == [attempt]

    with ledger._db.write() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 200000")
    ledger.acknowledge(lease, attempt, answer)
    assert len(ledger.exceptions("r1")) == 20_000


def test_a_ledger_locked_by_another_program_says_so(monkeypatch, path):
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.1)
    with open_ledger(path) as ledger:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(StateError, match="is locked") as locked:
            ledger.acquire(SYNC, "me", 30)
        assert ledger.lease(SYNC) is None

        other.execute("ROLLBACK")
        other.close()
        assert ledger.acquire(SYNC, "me", 30).epoch == 1

    assert (locked.value.code, str(path) in locked.value.fix) == ("HG311", True)


def test_a_ledger_that_cannot_be_written_says_so(ledger, path):
    ledger.close()
    with open(path, "r+b") as file:  # a write version that this SQLite does not know makes the file read-only
        file.seek(18)
        file.write(b"\x03")

    with pytest.raises(StateError, match="cannot be written") as refused, open_ledger(path) as opened:
        opened.acquire(SYNC, "me", 30)

    assert refused.value.code == "HG312"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_file_without_write_permission_says_so(ledger, path):
    ledger.close()
    path.chmod(0o400)

    with pytest.raises(StateError, match="cannot be written") as refused:
        open_ledger(path)

    assert refused.value.code == "HG312"


def test_a_ledger_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_text("")

    for place in (tmp_path, tmp_path / "file" / "ledger.db"):
        with pytest.raises(StateError, match="cannot be opened") as refused:
            open_ledger(place)
        assert refused.value.code == "HG310"


def test_a_file_that_is_no_database_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("not a database, " * 100)

    with pytest.raises(Corrupt, match="is not a SQLite database") as refused:
        open_ledger(path)

    assert refused.value.code == "HG315"
    assert path.read_text() == "not a database, " * 100


def test_a_damaged_ledger_is_refused(ledger, lease, make, path):
    ledger.open(lease, make.run(), make.batches(count=2000))
    ledger.close()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))

    with pytest.raises(Corrupt, match="is damaged") as refused, open_ledger(path) as damaged:
        damaged.batches("r1")

    assert refused.value.code == "HG315"
    assert "restore" in refused.value.fix


def test_an_unexpected_refusal_names_no_values(ledger, lease, make):
    secret = "ann@example.org"
    ledger.open(lease, make.run(status=RunStatus.WAITING, actor=secret), [])

    with pytest.raises(StateError) as refused:
        ledger.open(lease, make.run(status=RunStatus.WAITING, actor=secret), [])

    assert refused.value.code == "HG300"
    assert secret not in f"{refused.value} {refused.value.__cause__}"
