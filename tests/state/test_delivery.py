"""Delivery: what each answer of a destination does to the batch, the records and the run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from connectors.webhook import Webhook, WebhookConfig
from sync.engine import dispatch
from sync.engine.report import SilentObserver, SyncReport, exit_code
from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Delivery, Job, Limits, Op, Outcome, Rate, Receipt, Status
from sync.state.nouns import BatchState, RunStatus
from tests.state.world import SYNC, Desk, Scripted, World, applied_then, refusing, some


def totals(report: SyncReport) -> dict[str, int]:
    """What became of the records, without the zeros."""
    names = ("applied", "accepted", "rejected", "deferred", "unknown")
    return {name: count for name in names if (count := getattr(report, name))}


# --- all is well ----------------------------------------------------------------------------------------------


class _Listening(SilentObserver):
    """Keeps what is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def note(self, sync: str, message: str) -> None:
        """Keep it."""
        self.heard.append(f"{sync}: {message}")


def test_what_a_connector_remarks_of_accepted_records_is_told_once_a_run(world: World) -> None:
    def counted(desk: Desk, batch: Batch) -> Outcome:
        remark = "1 of 3 records failed for somebody@x.example, and nobody knows which"
        return [replace(desk.apply(change), status=Status.ACCEPTED, reason=remark) for change in batch.changes]

    listening = _Listening()
    world.people(12).desk.always = counted

    report = world.runner(observer=listening).run(world.job, first_run=True)

    assert (totals(report), len(world.desk.pushes)) == ({"accepted": 12}, 2)
    assert listening.heard == [f"{SYNC}: crm: 1 of 3 records failed for s•••@x.example, and nobody knows which"]


def test_a_first_run_sends_everybody_once_in_full_batches(world: World) -> None:
    report = world.people(25).run()

    assert (report.status, totals(report), report.requests) == ("completed", {"applied": 25}, 3)
    assert sorted(len(push.changes) for push in world.desk.pushes) == [5, 10, 10]
    assert world.in_step


def test_an_unchanged_run_sends_nothing_and_does_not_even_connect(world: World) -> None:
    world.run()
    world.desk.forget()

    report = world.run()

    assert (report.status, exit_code([report]), report.requests) == ("completed", 0, 0)
    assert (world.desk.pushes, world.desk.connects) == ([], 1)


def test_only_what_changed_is_sent_and_removals_go_last(world: World) -> None:
    world.run()
    world.desk.forget()
    world.sql(
        "UPDATE vips SET name = 'New' WHERE id = 3",
        "DELETE FROM vips WHERE id = 4",
        "INSERT INTO vips VALUES (99, 'p99@x.example', 'Late', 1)",
    )

    world.run()

    assert [(push.ops, push.who) for push in world.desk.pushes] == [
        ({Op.ADD}, ["p99@x.example"]),
        ({Op.UPDATE}, ["p3@x.example"]),
        ({Op.REMOVE}, ["p4@x.example"]),
    ]
    assert world.in_step


def test_a_phase_waits_until_the_one_before_it_is_done(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id < 2", "INSERT INTO vips VALUES (99, 'p99@x.example', 'Late', 1)")
    world.limited(concurrency=4)
    events: list[str] = []

    def slow(desk: Desk, batch: Batch) -> Outcome:
        op = batch.changes[0].op
        events.append(f"{op} begins")
        time.sleep(0.1 if op is Op.ADD else 0)
        events.append(f"{op} ends")
        return desk.take(batch)

    world.desk.always = slow
    world.run()

    assert events == ["add begins", "add ends", "remove begins", "remove ends"]


def test_as_many_batches_are_under_way_as_the_limit_says(world: World) -> None:
    world.people(120).limited(concurrency=3)
    lock, now, most = threading.Lock(), 0, 0
    three = threading.Event()

    def counted(desk: Desk, batch: Batch) -> Outcome:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
            if now == 3:
                three.set()
        three.wait(20)
        time.sleep(0.02)
        with lock:
            now -= 1
        return desk.take(batch)

    world.desk.always = counted
    world.run()

    assert most == 3


def test_requests_keep_within_the_rate_of_the_account(world: World) -> None:
    world.people(50).limited(concurrency=4, rates=(Rate(2, 0.3),))

    started = time.monotonic()
    report = world.run()

    assert report.requests == 5
    assert time.monotonic() - started >= 0.6


# --- receipts -------------------------------------------------------------------------------------------------


def test_a_remote_id_is_kept_with_the_member_and_given_back(world: World) -> None:
    world.run()
    assert world.members()["p1@x.example"] == {"remote_id": "id-p1@x.example"}
    world.sql("UPDATE vips SET name = 'New' WHERE id = 1", "DELETE FROM vips WHERE id = 2")
    world.desk.forget()

    world.run()

    told = {c.op: c.remote_id for push in world.desk.pushes for c in push.changes}
    assert told == {Op.UPDATE: "id-p1@x.example", Op.REMOVE: "id-p2@x.example"}
    assert world.members()["p1@x.example"] == {"remote_id": "id-p1@x.example"}


def test_a_rejected_record_is_kept_apart_and_sent_again_by_the_next_run(world: World) -> None:
    world.desk.answers.append(some(Status.REJECTED, reason="no such city"))

    first = world.run()
    kept = world.ledger.rejected(SYNC)
    second = world.run()

    assert (first.status, totals(first)) == ("completed_with_errors", {"applied": 9, "rejected": 1})
    assert [(r.code, r.reason, r.op, r.attempts) for r in kept] == [("rejected", "no such city", "add", 1)]
    assert (second.status, second.applied, world.ledger.rejected(SYNC)) == ("completed", 1, [])
    assert world.in_step


def test_a_deferred_record_is_sent_again_by_the_next_run_and_is_not_listed(world: World) -> None:
    world.desk.answers.append(some(Status.DEFERRED))

    first = world.run()
    listed, dirty = world.ledger.rejected(SYNC), world.ledger.dirty(SYNC)
    second = world.run()

    assert (first.status, totals(first)) == ("completed_with_errors", {"applied": 9, "deferred": 1})
    assert (listed, dirty) == ([], [])
    assert (second.status, second.applied) == ("completed", 1)


def test_an_accepted_record_is_delivered(world: World) -> None:
    world.desk.always = lambda desk, batch: [
        replace(desk.apply(change), status=Status.ACCEPTED) for change in batch.changes
    ]

    report = world.run()

    assert (report.status, totals(report)) == ("completed", {"accepted": 10})
    assert world.in_step
    assert world.run().requests == 0


def test_records_without_a_receipt_are_unknown_and_set_again_though_the_source_is_unchanged(world: World) -> None:
    world.desk.answers.append(lambda desk, batch: desk.take(batch)[:-2])

    first = world.run()
    dirty = world.ledger.dirty(SYNC)
    world.desk.forget()
    second = world.run()

    assert (first.status, totals(first)) == ("completed_with_errors", {"applied": 8, "unknown": 2})
    assert len(dirty) == 2
    assert [len(push.changes) for push in world.desk.pushes] == [2]
    assert (second.status, world.ledger.dirty(SYNC), world.in_step) == ("completed", [], True)


def test_a_record_answered_twice_and_differently_is_unknown(world: World) -> None:
    def twice(desk: Desk, batch: Batch) -> Outcome:
        return [*desk.take(batch), Receipt(batch.changes[0].key, Status.REJECTED, "or not")]

    world.desk.answers.append(twice)

    assert totals(world.run()) == {"applied": 9, "unknown": 1}


def test_receipts_of_strangers_count_for_nothing(world: World) -> None:
    world.desk.answers.append(
        lambda desk, batch: [*desk.take(batch)[1:], Receipt("somebody else", Status.APPLIED)]
    )

    assert totals(world.run()) == {"applied": 9, "unknown": 1}


@pytest.mark.parametrize("nonsense", [None, 7, [None], [{"status": "applied"}], ["applied"]])
def test_what_is_no_receipt_is_unknown(world: World, nonsense: Any) -> None:
    world.desk.answers.append(lambda desk, batch: nonsense)

    report = world.run()

    assert (report.status, totals(report), world.members()) == ("completed_with_errors", {"unknown": 10}, {})


def test_a_status_that_there_is_not_is_unknown(world: World) -> None:
    def odd(desk: Desk, batch: Batch) -> Outcome:
        status: Any = "applied"
        remote: Any = 17
        return [Receipt(change.key, status, remote_id=remote) for change in batch.changes]

    world.desk.answers.append(odd)

    assert totals(world.run()) == {"unknown": 10}


# --- the destination is away ----------------------------------------------------------------------------------


def test_a_429_with_a_time_is_waited_for_in_full_and_the_batch_sent_again(world: World) -> None:
    times: list[float] = []

    def limited(desk: Desk, batch: Batch) -> Outcome:
        times.append(time.monotonic())
        if len(times) == 1:
            raise RateLimited("slow down", retry_after=0.5)
        return desk.take(batch)

    world.desk.always = limited
    report = world.run()

    assert times[1] - times[0] >= 0.5
    assert (report.status, report.retries, report.requests) == ("completed", 1, 2)
    assert len({push.id for push in world.desk.pushes}) == 1


def test_a_429_pauses_everybody_who_uses_the_account(world: World) -> None:
    world.people(40).limited(concurrency=4)
    times: list[float] = []
    lock = threading.Lock()

    def limited(desk: Desk, batch: Batch) -> Outcome:
        with lock:
            times.append(time.monotonic())
            first = len(times) == 1
        time.sleep(0.05)
        if first:
            raise RateLimited("slow down", retry_after=0.5)
        return desk.take(batch)

    world.people(120)
    world.desk.always = limited
    world.run()

    during = [t for t in times if 0.1 < t - times[0] < 0.5]
    assert during == []
    assert world.in_step


def test_a_429_without_a_time_backs_off(world: World) -> None:
    world.desk.answers.extend(RateLimited("slow down") for _ in range(5))  # more than `attempts`

    report = world.run()

    assert (report.status, report.retries) == ("completed", 5)


def test_a_429_settles_its_attempt(world: World) -> None:
    world.desk.answers.append(RateLimited("slow down"))

    report = world.run()

    assert report.run is not None
    assert world.ledger.attempts(report.run) == []


@pytest.mark.parametrize("error", [RateLimited("busy", retry_after=60), Unavailable("busy", retry_after=60)])
def test_a_wait_longer_than_a_run_waits_ends_it_and_leaves_it_open(world: World, error: DestinationError) -> None:
    world.desk.always = error

    started = time.monotonic()
    report = world.run()

    assert time.monotonic() - started < 5
    assert (report.status, exit_code([report])) == ("failed", 1)
    assert "asks for 60s" in report.error
    assert world.ledger.open_run(SYNC) is not None
    world.desk.forget()
    assert "left alone" in world.run().error  # the account is still paused: it is not even asked
    assert world.desk.pushes == []


@pytest.mark.parametrize("applied", [False, None])
def test_a_destination_that_is_down_leaves_the_run_open_to_be_resumed(world: World, applied: bool | None) -> None:
    world.people(30)
    world.desk.answers.append(None)
    world.desk.always = Unavailable("down", applied=applied)

    first = world.run()
    pushed = {push.id for push in world.desk.pushes}
    world.sql("UPDATE vips SET name = 'Moved'")
    world.desk.forget()
    world.desk.always = None
    second = world.run()

    assert (first.status, exit_code([first]), first.applied) == ("failed", 1, 10)
    assert second.resumed == first.run
    assert pushed - {p.id for p in world.desk.pushes} == {world.batches()[0].id} or second.applied >= 50
    replayed = world.desk.pushes[:2]
    assert all(change.fields["name"] != "Moved" for push in replayed for change in push.changes)
    assert (second.status, exit_code([second]), world.in_step) == ("completed", 0, True)


def test_a_batch_is_tried_as_often_as_the_settings_say(world: World) -> None:
    world.desk.always = Unavailable("down")

    report = world.run()

    assert (len(world.desk.pushes), report.retries, report.code) == (3, 2, "HG403")


def test_an_answer_that_was_lost_is_asked_for_again_under_the_same_key(world: World) -> None:
    world.desk.answers.append(applied_then(Unavailable("reset")))

    report = world.run()

    assert len({push.id for push in world.desk.pushes}) == 1
    assert (report.status, totals(report), world.in_step) == ("completed", {"applied": 10}, True)


def test_an_attempt_without_an_answer_stays_open(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.engine.sending._SLACK", 5.0)  # on a slow machine a late request is intended again
    world.desk.answers.append(Unavailable("reset"))

    report = world.run()

    assert report.run is not None
    assert len(world.ledger.attempts(report.run)) == 1


def test_a_rejection_after_a_lost_answer_is_uncertain_and_set_again(world: World) -> None:
    """The lost request may still be applied, after the rejection."""
    world.desk.answers.extend([Unavailable("reset"), some(Status.REJECTED)])

    world.run()

    assert len(world.ledger.dirty(SYNC)) == 1


# --- the destination refuses ----------------------------------------------------------------------------------


def test_one_poison_record_among_a_thousand_is_found_in_22_requests(world: World) -> None:
    world.people(1000).limited(batch_size=1000)
    world.desk.always = refusing({"p617@x.example"}, lambda: RequestError("refused", "p617 is bad"))

    report = world.run()

    assert (report.status, totals(report)) == ("completed_with_errors", {"applied": 999, "rejected": 1})
    assert report.requests <= 22
    (rejected,) = world.ledger.rejected(SYNC)
    assert rejected.reason == "p617 is bad"
    assert set(world.source()) - set(world.desk.members) == {"p617@x.example"}


def test_two_poison_records_are_found_and_everybody_else_is_applied(world: World) -> None:
    world.people(100).limited(batch_size=100)
    world.desk.always = refusing({"p0@x.example", "p99@x.example"}, lambda: RequestError("refused"))

    first = world.run()
    world.desk.always = None
    world.desk.forget()
    second = world.run()

    assert totals(first) == {"applied": 98, "rejected": 2}
    assert [r.reason for r in world.ledger.rejected(SYNC)] == []
    assert sorted(who for push in world.desk.pushes for who in push.who) == ["p0@x.example", "p99@x.example"]
    assert (second.status, world.in_step) == ("completed", True)


def test_parts_of_a_refused_batch_have_keys_of_their_own(world: World) -> None:
    world.desk.always = refusing({"p5@x.example"}, lambda: RequestError("refused"))

    world.run()

    ids = [push.id for push in world.desk.pushes]
    assert len(ids) == len(set(ids)) > 4


def test_a_refused_half_that_is_unavailable_for_a_moment_is_tried_again(world: World) -> None:
    world.desk.answers.extend([RequestError("refused"), Unavailable("down")])
    world.desk.always = refusing({"p5@x.example"}, lambda: RequestError("refused"))

    assert totals(world.run()) == {"applied": 9, "rejected": 1}


def test_refused_credentials_stop_the_run_and_keep_the_rest(world: World) -> None:
    world.people(30)
    world.desk.answers.extend([None, AuthError("401", fix="renew the token")])

    first = world.run()
    states = [batch.state for batch in world.batches()]
    world.desk.forget()
    second = world.run()

    assert (first.status, first.code, first.fix, first.applied) == ("failed", "HG401", "renew the token", 10)
    assert states == [BatchState.ACKED, BatchState.PLANNED, BatchState.PLANNED]
    assert (world.desk.sent, second.status, world.in_step) == (20, "completed", True)


@pytest.mark.parametrize(
    "error", [ProtocolError("HTML with a 200"), DestinationError("something"), ValueError("a bug"), KeyError("a")]
)
def test_an_answer_nobody_understands_is_unknown_and_set_again(world: World, error: Exception) -> None:
    world.people(30)
    world.desk.answers.extend([None, applied_then(error)])

    first = world.run()
    members = set(world.members())
    world.desk.forget()
    second = world.run()

    assert (first.status, totals(first)) == ("completed_with_errors", {"applied": 20, "unknown": 10})
    assert len(members) == 20
    assert (world.desk.sent, second.status, world.in_step) == (10, "completed", True)


def test_a_person_whose_addition_is_unknown_and_who_left_is_removed(world: World) -> None:
    """Neither the cohort nor the members know them: the destination may."""
    world.desk.answers.append(applied_then(ProtocolError("HTML")))
    world.run()
    assert (set(world.members()), len(world.desk.members)) == (set(), 10)
    world.sql("DELETE FROM vips WHERE id < 3")

    report = world.run()

    assert (report.status, world.in_step) == ("completed", True)


def test_a_removal_that_is_unknown_is_set_again_where_the_person_came_back(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id = 3")
    world.desk.answers.append(applied_then(ProtocolError("HTML")))
    world.run()
    world.sql("INSERT INTO vips VALUES (3, 'p3@x.example', 'Name 3', 3)")

    report = world.run()

    assert (report.status, world.in_step) == ("completed", True)


def test_a_connectors_bug_while_its_receipts_are_read_is_unknown(world: World) -> None:
    def half(desk: Desk, batch: Batch) -> Outcome:
        yield from desk.take(batch)[:5]
        raise IndexError("a bug")

    world.desk.answers.append(half)  # type: ignore[arg-type]

    assert totals(world.run()) == {"unknown": 10}


# --- pushes of several requests -------------------------------------------------------------------------------


def two_requests(second: BaseException) -> Callable[[World], None]:
    """A connector whose first push applies half of the batch in one request, and fails in another."""

    def install(world: World) -> None:
        class Twice(Scripted):
            failed = False

            def push(self, batch: Batch) -> Outcome:
                self.before()
                done = [self.desk.apply(change) for change in batch.changes[: len(batch.changes) // 2]]
                self.before()
                if not Twice.failed:
                    Twice.failed = True
                    raise second
                return done + [self.desk.apply(c) for c in batch.changes[len(batch.changes) // 2 :]]

        world.connector = lambda before: Twice(world.desk, before)

    return install


@pytest.mark.parametrize(
    "error", [RateLimited("slow", retry_after=99), Unavailable("x", applied=False), AuthError("no")]
)
def test_an_error_of_a_later_request_does_not_speak_for_the_ones_before_it(
    world: World, error: DestinationError
) -> None:
    """People that the first request added, who then leave the cohort, would stay there for ever."""
    world.delivery = replace(world.delivery, attempts=1)
    two_requests(error)(world)
    world.run()
    assert len(world.desk.members) == 5
    world.digest = "mapping-2"  # the run cannot be resumed
    world.pacers = type(world.pacers)()
    world.sql("DELETE FROM vips WHERE id < 3")

    report = world.run()

    assert (report.status, world.in_step) == ("completed", True)


def test_a_refusal_of_a_later_request_is_unknown_where_sending_again_would_double(world: World) -> None:
    world.spec = replace(world.spec, idempotent=False)
    two_requests(RequestError("refused"))(world)

    report = world.run()

    assert totals(report) == {"unknown": 10}


def test_each_request_of_a_push_takes_a_turn(world: World) -> None:
    world.people(20).limited(rates=(Rate(1, 0.2),))
    two_requests(RateLimited("slow"))(world)

    started = time.monotonic()
    report = world.run()

    assert report.requests == 6
    assert time.monotonic() - started >= 1.0


# --- the breaker ----------------------------------------------------------------------------------------------


def test_a_run_stops_where_a_fifth_is_rejected_and_keeps_what_was_applied(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "_BREAKER_MIN", 5)
    world.people(100)
    world.desk.answers.extend([None, some(*[Status.REJECTED] * 8)])

    first = world.run()
    members = len(world.members())
    second = world.run()

    assert (first.status, first.code, exit_code([first])) == ("stopped", "HG522", 1)
    assert "rejected_share" in first.error
    assert (totals(first), members) == ({"applied": 12, "rejected": 8}, 12)
    assert [run.status for run in world.ledger.runs(SYNC)] == [RunStatus.COMPLETED, RunStatus.STOPPED]
    assert (second.resumed, second.status, world.in_step) == (None, "completed", True)


def test_a_few_rejections_are_no_share(world: World) -> None:
    world.desk.answers.append(some(*[Status.REJECTED] * 9))

    assert world.run().status == "completed_with_errors"


def test_a_rejected_share_below_the_breaker_warns(world: World) -> None:
    world.desk.answers.append(some(Status.REJECTED))

    report = world.run()

    assert [(v.guardrail, v.value) for v in report.verdicts] == [("rejected_share", 10.0)]
    assert exit_code([report]) == 4


# --- objects for which twice is not once ----------------------------------------------------------------------


def parked(world: World) -> World:
    """A sync whose first batch of three has no answer."""
    world.spec = replace(world.spec, idempotent=False)
    world.people(30)
    world.desk.answers.append(applied_then(Unavailable("reset")))
    return world


def test_an_uncertain_batch_is_parked_and_never_sent_again_by_itself(world: World) -> None:
    first = parked(world).run()
    second = world.run()
    world.desk.forget()
    third = world.run()

    assert (first.status, first.code, first.unknown) == ("failed", "HG521", 10)
    assert (second.resumed, second.status, totals(second)) == (
        first.run, "completed_with_errors", {"applied": 20, "unknown": 10},
    )  # fmt: skip
    assert (third.status, world.desk.pushes, exit_code([third])) == ("completed_with_errors", [], 4)
    assert {(r.code, r.attempts) for r in world.ledger.rejected(SYNC)} == {("unknown", 1)}
    assert world.ledger.dirty(SYNC) == []


def test_a_parked_batch_is_sent_again_once_a_person_says_so(world: World) -> None:
    parked(world).run()
    world.run()
    world.desk.forget()
    keys = [r.key for r in world.ledger.rejected(SYNC)]

    world.ledger.set_rejected(SYNC, keys, retry=True, actor="ann", reason="they were not there")
    report = world.run()

    assert (world.desk.sent, report.status, world.ledger.rejected(SYNC)) == (10, "completed", [])
    assert world.in_step


def test_a_parked_record_whose_row_changed_still_waits_for_a_person(world: World) -> None:
    parked(world).run()
    world.run()
    world.desk.forget()
    world.sql("UPDATE vips SET name = 'New'")
    changed = world.run()
    updated = world.desk.sent
    keys = [r.key for r in world.ledger.rejected(SYNC)]
    world.ledger.set_rejected(SYNC, keys, retry=True, actor="ann", reason="they are not there")
    wanted = world.run()

    assert (updated, changed.counts.backed_off, exit_code([changed])) == (20, 10, 4)
    assert (wanted.status, wanted.applied, world.in_step) == ("completed", 10, True)


def test_a_certain_failure_is_sent_again_even_where_twice_is_not_once(world: World) -> None:
    world.spec = replace(world.spec, idempotent=False)
    world.desk.answers.extend([RateLimited("slow"), Unavailable("refused", applied=False)])

    report = world.run()

    assert (report.status, totals(report)) == ("completed", {"applied": 10})


def test_an_unclear_answer_is_not_asked_for_again_where_twice_is_not_once(world: World) -> None:
    world.spec = replace(world.spec, idempotent=False)
    world.desk.answers.append(applied_then(ProtocolError("HTML")))

    first = world.run()
    world.desk.forget()
    second = world.run()

    assert (totals(first), world.desk.pushes) == ({"unknown": 10}, [])
    assert (second.status, second.counts.backed_off) == ("completed_with_errors", 10)


# --- through the real client ----------------------------------------------------------------------------------


class Hook:
    """A webhook's server: answers as ordered, else 200."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(200, json={})
        if isinstance(answer, Exception):
            raise answer
        return answer

    def into(self, world: World) -> World:
        """Make it the world's destination."""
        config = WebhookConfig(url="https://hook.example/in")
        transport = httpx.MockTransport(self)

        def connect(before: Callable[[], None]) -> Webhook:
            http = build_client(Webhook, config, timeout=1, before_request=before, transport=transport)
            return Webhook(config, http)

        world.spec = replace(Webhook.objects["record"], limits=Limits(batch_size=10))
        world.connector = connect
        return world


@pytest.mark.parametrize(
    ("answer", "retries"),
    [
        (httpx.Response(429, headers={"Retry-After": "0.2"}), 1),
        (httpx.Response(503), 1),
        (httpx.Response(500, text="<html>"), 1),
        (httpx.ConnectError("refused"), 1),
        (httpx.ReadTimeout("too late"), 1),
        (httpx.RemoteProtocolError("cut"), 1),
    ],
)
def test_a_webhook_that_is_away_for_a_moment_gets_the_same_request_again(
    world: World, answer: httpx.Response | Exception, retries: int
) -> None:
    hook = Hook(answer)

    report = hook.into(world).run()

    keys = {request.headers["Idempotency-Key"] for request in hook.requests}
    bodies = {request.content for request in hook.requests}
    assert (report.status, report.retries, report.requests, len(keys), len(bodies)) == (
        "completed", retries, 2, 1, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(207, json={"errors": [{"message": "no"}] + [None] * 9}), {"applied": 9, "rejected": 1}),
        (httpx.Response(200, text="<html>"), {"unknown": 10}),
        (httpx.Response(207, json={}), {"unknown": 10}),
        (httpx.Response(302, headers={"location": "https://elsewhere.example"}), {"unknown": 10}),
    ],
)
def test_a_webhooks_answer_is_taken_record_by_record(
    world: World, answer: httpx.Response, expected: dict[str, int]
) -> None:
    assert totals(Hook(answer).into(world).run()) == expected


def test_a_webhook_that_refuses_a_batch_is_asked_about_its_parts(world: World) -> None:
    hook = Hook(httpx.Response(422), httpx.Response(422))

    report = hook.into(world).run()

    assert ([len(r.content) for r in hook.requests] != [], totals(report)) == (True, {"applied": 10})
    assert report.requests == 5


def test_a_webhooks_401_is_about_credentials(world: World) -> None:
    report = Hook(httpx.Response(401)).into(world).run()

    assert (report.status, report.code, exit_code([report])) == ("failed", "HG401", 1)


def test_a_job_from_a_connector_that_cannot_poll_is_unknown(world: World) -> None:
    world.connector = lambda before: Scripted(world.desk, before)
    world.desk.answers.append(lambda desk, batch: Job("j1"))

    assert totals(world.run()) == {"unknown": 10}


# --- whole audiences ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["strangers", "one of them"])
def test_receipts_of_others_do_not_stand_for_a_whole_audience(world: World, who: str) -> None:
    world.spec = replace(
        world.spec, delivery=Delivery.SNAPSHOT, limits=replace(world.spec.limits, batch_size=None)
    )
    world.desk.snapshot = True

    def answer(desk: Desk, batch: Batch) -> Outcome:
        same = batch.changes[0].key
        return [
            Receipt(f"stranger-{n}" if who == "strangers" else same, Status.APPLIED)
            for n, _ in enumerate(batch.changes)
        ]

    world.desk.answers.append(answer)
    first = world.run()

    assert (first.applied, first.unknown) == (0, 10)
    assert world.members() == {}
    assert (world.run().status, world.in_step) == ("completed", True)


class TwoSteps(Scripted):
    """A push is two requests: the first changes something, and the second may be refused."""

    def push(self, batch: Batch) -> Outcome:
        self.before()
        receipts = self.desk.push(batch)
        self.before()
        if any(change.fields.get("name") == "Refused" for change in batch.changes):
            raise RequestError("the second step is refused", "no such list")
        return receipts


@pytest.mark.parametrize("many", [1, 3])
def test_what_the_first_step_of_a_refused_push_changed_is_put_right(world: World, many: int) -> None:
    world.connector = lambda before: TwoSteps(world.desk, before)
    assert world.run().status == "completed"
    world.sql(f"UPDATE vips SET name = 'Refused' WHERE id < {many}")

    report = world.run()

    assert (report.status, report.rejected) == ("completed_with_errors", many)
    assert world.desk.members["p0@x.example"]["name"] == "Refused"
    world.people(10)  # the old names again, which members have: there is no difference to be seen
    assert (world.run().status, world.in_step) == ("completed", True)
