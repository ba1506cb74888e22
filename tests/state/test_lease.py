"""Leases and their fence: one runner a sync, by the database's clock, across processes, stalls and kills."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import sqlalchemy as sa

from sync.errors import Fenced, LeaseHeld
from sync.state import holder, tables
from sync.state.holder import boot_clock, describe, is_dead, me

SYNC = "orders_to_crm"

CONTENDER = """
import sys
from pathlib import Path
from sync.errors import LeaseHeld
from sync.state.holder import me
from sync.state.ledger import open_ledger

with open_ledger(Path(sys.argv[1])) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    try:
        print("epoch", ledger.acquire("orders_to_crm", me(), 60).epoch, flush=True)
    except LeaseHeld:
        print("held", flush=True)
    sys.stdin.readline()
"""

# Holds the lease for longer than it lasts now and then, writes with its epoch, and lets others take over.
STALLER = """
import random, sys, time
from pathlib import Path
import sqlalchemy as sa
from sync.errors import Fenced, LeaseHeld
from sync.state.nouns import Event
from sync.state.holder import me
from sync.state.ledger import open_ledger
from sync.state import tables

def record(connection, event):
    last = sa.func.coalesce(sa.func.max(tables.audit_event.c.seq), 0)
    seq = connection.execute(sa.select(last + 1)).scalar_one()
    row = dict(seq=seq, at=0, actor=event.actor, action="", object=event.object, data="", prev="", hash="")
    connection.execute(sa.insert(tables.audit_event), row)

random.seed(int(sys.argv[2]))
fenced = 0
with open_ledger(Path(sys.argv[1]), record=record) as ledger:
    until = time.monotonic() + float(sys.argv[3])
    while time.monotonic() < until:
        try:
            lease = ledger.acquire("orders_to_crm", me(), 0.05)
            for _ in range(4):
                time.sleep(random.choice((0.001, 0.01, 0.08)))
                with ledger._fenced(lease) as connection:
                    record(connection, Event(sys.argv[2], "x.wrote", str(lease.epoch)))
        except LeaseHeld:
            time.sleep(0.005)
        except Fenced:
            fenced += 1
print(fenced)
"""


def start(code, *arguments):
    """A process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_lease_is_believed_for_no_longer_than_the_database_grants_it(ledger):
    before, clock = ledger.steady(), boot_clock()

    lease = ledger.acquire(SYNC, "me", 30)

    assert before + 30 <= lease.expires <= ledger.steady() + 30
    assert clock + 30 <= lease.deadline <= boot_clock() + 30
    assert ledger.lease(SYNC).expires == lease.expires
    assert (ledger.lease(SYNC).holder, ledger.lease(SYNC).deadline) == ("me", 0.0)


def test_somebody_elses_lease_is_refused_with_a_name_and_the_time_left(ledger):
    ledger.acquire(SYNC, "host1/1234/99/boot", 45)

    with pytest.raises(LeaseHeld, match=r"process 1234 on host host1.*ends in 4\ds") as held:
        ledger.acquire(SYNC, me(), 30)

    assert held.value.code == "HG301"
    assert "wait" in held.value.fix


def test_leases_of_different_syncs_do_not_meet(ledger, lease):
    assert ledger.acquire("another", lease.holder, 30).epoch == 1


def test_the_same_process_does_not_get_a_lease_twice(ledger, lease):
    with pytest.raises(LeaseHeld):
        ledger.acquire(SYNC, lease.holder, 30)


def test_a_lease_given_back_is_free_and_its_epoch_goes_on(ledger, lease):
    ledger.release(lease)

    assert ledger.lease(SYNC) is None
    assert ledger.acquire(SYNC, "other", 30).epoch == lease.epoch + 1


def test_a_lease_that_ran_out_is_free_and_the_late_holder_is_fenced(ledger):
    late = ledger.acquire(SYNC, "late", 0.01)
    time.sleep(0.02)
    assert ledger.lease(SYNC) is None

    taken = ledger.acquire(SYNC, "next", 30)

    assert taken.epoch == late.epoch + 1
    with pytest.raises(Fenced):
        ledger.renew(late, 30)
    with pytest.raises(Fenced):
        ledger.remember(late, "x", "y")
    ledger.release(late)
    assert ledger.lease(SYNC).holder == "next"


def test_a_lease_is_not_taken_before_it_ran_out(ledger):
    first = ledger.acquire(SYNC, "first", 0.1)

    while True:
        try:
            taken = ledger.acquire(SYNC, "next", 30)
            break
        except LeaseHeld:
            continue

    assert taken.expires - 30 > first.expires - 0.001


def test_a_process_that_took_its_own_lease_again_is_fenced_from_the_first(ledger):
    first = ledger.acquire(SYNC, "me", 0.01)
    time.sleep(0.02)
    ledger.acquire(SYNC, "me", 30)

    with pytest.raises(Fenced):
        ledger.remember(first, "x", "y")
    with pytest.raises(Fenced):
        ledger.renew(first, 30)


def test_a_lease_that_ran_out_and_that_nobody_took_may_go_on(ledger):
    late = ledger.acquire(SYNC, "late", 0.01)
    time.sleep(0.02)

    ledger.remember(late, "x", "y")
    renewed = ledger.renew(late, 30)

    assert renewed.epoch == late.epoch
    assert renewed.deadline > boot_clock() + 29
    assert ledger.lease(SYNC).expires == renewed.expires


def test_a_lease_given_back_writes_no_more(ledger, lease):
    ledger.release(lease)

    with pytest.raises(Fenced):
        ledger.remember(lease, "x", "y")


def test_the_lease_of_a_holder_known_to_be_gone_is_taken_at_once_and_only_that(ledger, lease):
    with pytest.raises(LeaseHeld):
        ledger.acquire(SYNC, "next", 30, dead="somebody else")

    assert ledger.acquire(SYNC, "next", 30, dead=lease.holder).epoch == lease.epoch + 1


def test_of_many_processes_exactly_one_gets_the_lease_and_it_is_freed_by_its_death(ledger, path):
    contenders = [start(CONTENDER, path) for _ in range(4)]
    for each in contenders:
        assert each.stdout.readline() == "ready\n"
    for each in contenders:
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = [each.stdout.readline().strip() for each in contenders]
    assert sorted(answers) == ["epoch 1", "held", "held", "held"]
    holding = ledger.lease(SYNC).holder
    assert not is_dead(holding)

    winner = contenders[answers.index("epoch 1")]
    winner.kill()
    winner.wait()

    assert describe(holding).startswith(f"process {winner.pid} on host ")
    assert is_dead(holding)
    assert ledger.acquire(SYNC, me(), 30, dead=holding).epoch == 2
    for each in contenders:
        each.communicate("")


def test_stalled_processes_write_nothing_out_of_turn(ledger, path):
    stallers = [start(STALLER, path, seed, 1.5) for seed in range(3)]
    fenced = [int(each.communicate()[0]) for each in stallers]

    with ledger.reading() as connection:
        events = connection.execute(sa.select(tables.audit_event).order_by(tables.audit_event.c.seq)).all()
    epochs = [int(event.object) for event in events]
    writers = {}
    for event in events:
        writers.setdefault(event.object, set()).add(event.actor)

    assert epochs == sorted(epochs)
    assert all(len(actors) == 1 for actors in writers.values())
    assert len(writers) > 3
    assert sum(fenced) > 0


def test_this_process_is_alive_and_one_word_in_every_thread():
    assert me() == me()
    assert not is_dead(me())
    assert describe(me()).startswith(f"process {os.getpid()} on host ")


def test_a_process_that_ended_is_dead_even_before_it_is_waited_for():
    child = start("import sys; from sync.state.holder import me; print(me(), flush=True); sys.stdin.readline()")
    name = child.stdout.readline().strip()
    assert not is_dead(name)

    child.kill()
    until = time.monotonic() + 10
    while not is_dead(name) and time.monotonic() < until:
        time.sleep(0.01)  # the kill is delivered when the machine comes to it

    assert is_dead(name)
    child.communicate()
    assert is_dead(name)


def test_a_process_number_that_was_given_out_again_is_dead():
    host, pid, start_, machine = me().split("/")

    assert is_dead(f"{host}/{pid}/{int(start_) + 1}/{machine}")


@pytest.mark.parametrize(
    "name",
    ["", "somebody", "host/0/1/boot", "host/-5/1/boot", "host/999999999/1/boot", "host/999999999/1/", "a/b/c/d"],
)
def test_nobody_is_declared_dead_without_certainty(name):
    assert not is_dead(name)
    assert describe(name)


def test_nobody_is_declared_dead_where_the_system_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(holder, "_PROC", tmp_path)
    holder._machine.cache_clear()
    try:
        assert me().endswith("//")
        assert not is_dead(me().replace(str(os.getpid()), "999999999"))
    finally:
        holder._machine.cache_clear()


def test_a_process_of_another_user_is_not_dead():
    if os.geteuid() == 0:
        pytest.skip("root may signal everybody")
    _, _, _, machine = me().split("/")
    with open("/proc/1/stat") as stat:
        began = stat.read().rpartition(")")[2].split()[19]

    assert not is_dead(f"host/1/{began}/{machine}")
