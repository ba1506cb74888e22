"""A change of an alert is kept once, and each message belongs to one process at a time."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace

from sync.conditions import Condition
from sync.sdk.nouns import Op
from sync.state.alerts import Alert, MessageKind, Mute, Telling
from sync.state.holder import me
from sync.state.nouns import Event, RequestKind, RunRequest, RunStatus, Settlement
from tests.state.conftest import SYNC

ALERT = Alert(SYNC, Condition.HELD, 1, True, 100.0, ("slack",), 100.0, facts={"plan": "p1", "limits": [1, 2.5]})
OPENED = Telling(MessageKind.OPENED, frozenset({"slack"}), 100.0)
TWO = Telling(MessageKind.OPENED, frozenset({"slack", "mail"}), 100.0)
LONG = 3 * 86400.0


def test_an_alert_comes_back_as_it_was_kept(ledger):
    assert ledger.change_alert(ALERT, OPENED)

    assert ledger.alerts() == [ALERT]
    (message,) = ledger.messages(waiting=True)
    assert (message.id, message.target, message.kind) == (ALERT.id, "slack", MessageKind.OPENED)
    assert (message.since, message.facts) == (100.0, ALERT.facts)


def test_of_two_that_saw_the_same_change_one_keeps_it(ledger):
    assert ledger.change_alert(ALERT, OPENED)
    assert not ledger.change_alert(ALERT, OPENED)

    second = replace(ALERT, number=2, open=False)
    over = Telling(MessageKind.RECOVERED, frozenset({"slack"}), 100.0)
    assert ledger.change_alert(second, over)
    assert not ledger.change_alert(second, over)
    assert not ledger.change_alert(replace(ALERT, number=7), OPENED)

    assert [m.kind for m in ledger.messages(waiting=True)] == [MessageKind.RECOVERED]


def test_many_threads_that_saw_the_same_change_make_one_message(ledger):
    kept = []
    start = threading.Barrier(8)

    def change():
        start.wait()
        kept.append(ledger.change_alert(ALERT, TWO))

    threads = [threading.Thread(target=change) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(kept) == [False] * 7 + [True]
    assert len(ledger.messages()) == 2


def test_what_waits_for_the_same_notifier_is_superseded_and_what_was_claimed_is_not(ledger):
    ledger.change_alert(ALERT, TWO)
    assert [m.target for m in ledger.claim_messages(me(), "mail", 60)] == ["mail"]

    over = Telling(MessageKind.RECOVERED, frozenset({"slack", "mail"}), 100.0)
    ledger.change_alert(replace(ALERT, number=2, open=False), over)

    waiting = [(m.target, m.kind.value) for m in ledger.messages(waiting=True)]
    assert sorted(waiting) == [("mail", "opened"), ("mail", "recovered"), ("slack", "recovered")]


def test_a_claim_takes_all_of_one_notifier_in_order_and_nobody_elses(ledger):
    for number, subject in enumerate("abc"):
        ledger.change_alert(replace(ALERT, subject=subject), TWO if number == 1 else OPENED)

    assert sorted(ledger.due_targets()) == ["mail", "slack"]
    mine = ledger.claim_messages(me(), "slack", 60)
    assert [(m.target, m.subject) for m in mine] == [("slack", "a"), ("slack", "b"), ("slack", "c")]
    assert sorted(ledger.due_targets()) == ["mail"]
    assert ledger.claim_messages(me(), "slack", 60) == []
    assert [m.target for m in ledger.claim_messages(me(), "mail", 60)] == ["mail"]
    assert ledger.claim_messages(me(), "mail", 60) == []
    assert ledger.waiting_messages() == 4


def test_a_claim_that_ran_out_is_the_next_ones(ledger):
    ledger.change_alert(ALERT, OPENED)
    first = ledger.claim_messages(me(), "slack", 0.0)

    again = ledger.claim_messages(me(), "slack", 60)

    assert [m.id for m in first] == [m.id for m in again]
    assert again[0].attempts == 1


def test_the_claim_of_a_process_that_died_is_the_next_ones_at_once(ledger):
    ledger.change_alert(ALERT, OPENED)
    claim = "import sys; from sync.state.holder import me; from sync.state.ledger import open_ledger; "
    claim += "from pathlib import Path; ledger = open_ledger(Path(sys.argv[1])); "
    claim += "print(len(ledger.claim_messages(me(), 'slack', 600)))"
    done = subprocess.run([sys.executable, "-c", claim, str(ledger.path)], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr

    assert len(ledger.claim_messages(me(), "slack", 60)) == 1


def test_what_was_sent_is_not_due_any_more(ledger):
    ledger.change_alert(ALERT, OPENED)
    assert list(ledger.due_targets()) == ["slack"]
    ledger.end_messages(me(), ledger.claim_messages(me(), "slack", 60), most=LONG)

    assert ledger.due_targets() == {}
    assert ledger.messages()[0].sent_at is not None


def test_what_was_not_taken_is_tried_later_and_holds_back_what_came_after(ledger):
    ledger.change_alert(ALERT, OPENED)
    claimed = ledger.claim_messages(me(), "slack", 60)
    ledger.end_messages(me(), claimed, "it answered with HTTP 500", after=600, most=LONG)
    ledger.change_alert(replace(ALERT, subject="other"), OPENED)

    assert ledger.claim_messages(me(), "slack", 60) == [], "messages of one notifier keep their order"
    assert [m.problem for m in ledger.messages(waiting=True)] == ["it answered with HTTP 500", ""]


def test_what_nobody_took_for_too_long_is_given_up(ledger):
    ledger.change_alert(ALERT, OPENED)
    ledger.end_messages(me(), ledger.claim_messages(me(), "slack", 60), "no answer", after=600, most=-1.0)

    assert ledger.messages(waiting=True) == []
    assert ledger.messages()[0].gave_up_at is not None


def test_whoever_a_message_was_given_up_for_was_not_told_of_its_alert(ledger):
    ledger.change_alert(replace(ALERT, told=("mail", "slack")), TWO)
    ledger.end_messages(me(), ledger.claim_messages(me(), "slack", 60), "no answer", after=600, most=-1.0)
    ledger.end_messages(me(), ledger.claim_messages(me(), "mail", 60), "no answer", after=600, most=LONG)

    assert ledger.alerts() == [replace(ALERT, told=("mail",), number=2)]


def test_whoever_lost_its_claim_ends_nothing(ledger):
    ledger.change_alert(ALERT, OPENED)
    lost = ledger.claim_messages("another", "slack", 0.0)
    ledger.claim_messages(me(), "slack", 60)

    ledger.end_messages("another", lost, most=LONG)

    assert ledger.messages()[0].sent_at is None


def test_messages_of_long_ago_go(ledger):
    ledger.change_alert(ALERT, OPENED)
    ledger.end_messages(me(), ledger.claim_messages(me(), "slack", 60), most=LONG)
    with ledger._db.write() as connection:
        connection.exec_driver_sql("UPDATE alert_message SET sent_at = sent_at - 40 * 86400")

    ledger.change_alert(replace(ALERT, number=2), OPENED)
    ledger.end_messages(me(), ledger.claim_messages(me(), "slack", 60), most=LONG)

    assert len(ledger.messages()) == 1


def test_a_mute_lasts_until_its_time_and_is_audited(ledger):
    now = ledger.now()
    event = Event("ana", "alert.muted", SYNC, {"reason": "we know"})
    assert ledger.mute(SYNC, "", Mute(SYNC, "", now + 60, "we know", "ana", now), [event])
    ledger.mute(SYNC, "held", Mute(SYNC, "held", now - 1, "over", "ana", now))
    assert [(m.subject, m.condition) for m in ledger.mutes()] == [(SYNC, "")]

    assert ledger.mute(SYNC, "", None)
    assert not ledger.mute(SYNC, "", None, [Event("ana", "alert.unmuted", SYNC)])
    assert ledger.mutes() == []
    with ledger.reading() as connection:
        actions = connection.exec_driver_sql("SELECT action FROM audit_event").scalars().all()
    assert actions == ["alert.muted"], "what was not muted is not unmuted"


def test_of_many_requests_the_newest_of_a_schedule_and_of_others_are_looked_at(ledger):
    for number in range(70):
        ledger.request_run(
            RunRequest(SYNC, f"2026-01-{number // 24 + 1:02}T{number % 24:02}:00:00Z", "s", "s", number)
        )
        ledger.request_run(RunRequest(SYNC, f"api#{number:03}", "api", "airflow", 0.5 + number))
    ledger.request_run(RunRequest(SYNC, "plan#1", "api", "airflow", 900.0, kind=RequestKind.PLAN))

    found = [r.at for r in ledger.newest_requests(SYNC)]

    assert found == [number / 2 for number in range(40, 140)]


def test_a_run_under_way_does_not_hide_how_the_last_one_ended(ledger, lease, make):
    ledger.add_run(make.run("r8", status=RunStatus.FAILED, finished_at=5.0))
    ledger.open(lease, make.run("r9", status=RunStatus.SENDING, finished_at=None, epoch=lease.epoch), [])

    ended = ledger.ended_run(SYNC)

    assert ended is not None
    assert (ended.id, ended.status) == ("r8", RunStatus.FAILED)


def test_records_that_are_refused_and_not_given_up_are_undelivered(ledger, lease, make):
    assert ledger.undelivered(SYNC) == (0, 0)
    ledger.open(lease, make.run(epoch=lease.epoch), make.batches())
    refused = (make.rejected("k1"), make.rejected("k2"))
    uncertain = [("k3", 7, Op.ADD)]
    ended = Settlement(RunStatus.COMPLETED_WITH_ERRORS, {}, rejected=refused, dirty=uncertain)
    ledger.finish(lease, "r1", ended)

    assert ledger.undelivered(SYNC) == (2, 1)
    ledger.set_rejected(SYNC, ["k1"], retry=False, actor="ana", reason="they left")
    assert ledger.undelivered(SYNC) == (1, 1)
