"""The fakes behave like what they stand for, in process and on the loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import httpx
import pytest

from connectors.webhook import Webhook, WebhookConfig
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.testing.fakes.crm import Crm
from sync.testing.fakes.hubspot import FakeHubSpot
from sync.testing.fakes.server import serve


@pytest.fixture
def crm() -> Crm:
    return Crm()


@pytest.fixture
def webhook(crm: Crm) -> Iterator[Webhook]:
    with crm.serve() as url:
        config = WebhookConfig(url=url)
        with build_client(Webhook, config, timeout=5) as client:
            yield Webhook(config, client)


def push(webhook: Webhook, op: Op, *emails: str, id: str = "b1", **fields: str) -> list[Receipt]:
    changes = [Change(op, email, {"email": email}, {} if op is Op.REMOVE else fields) for email in emails]
    outcome = webhook.push(Batch(id, "to-crm", "record", None, changes))
    assert isinstance(outcome, list)
    return outcome


def test_the_crm_keeps_people_as_the_webhook_tells_it(crm: Crm, webhook: Webhook) -> None:
    webhook.check()
    push(webhook, Op.ADD, "ada@example.com", "bob@example.com", id="1", plan="free")
    push(webhook, Op.UPDATE, "ada@example.com", id="2", plan="paid")
    push(webhook, Op.REMOVE, "bob@example.com", id="3")

    assert crm.people == {"ada@example.com": {"email": "ada@example.com", "plan": "paid"}}
    assert (dict(crm.requests), crm.records.total()) == ({"add": 1, "update": 1, "remove": 1}, 4)


def test_a_batch_sent_twice_under_one_key_is_done_once(crm: Crm, webhook: Webhook) -> None:
    push(webhook, Op.ADD, "ada@example.com")
    crm.people.clear()

    receipts = push(webhook, Op.ADD, "ada@example.com")

    assert [receipt.status for receipt in receipts] == [Status.APPLIED]
    assert (crm.people, crm.repeats, crm.requests.total()) == ({}, 1, 1)


def test_the_crm_refuses_a_record_without_its_identifier_and_takes_the_others(crm: Crm, webhook: Webhook) -> None:
    receipts = push(webhook, Op.ADD, "", "ada@example.com")

    assert [receipt.status for receipt in receipts] == [Status.REJECTED, Status.APPLIED]
    assert list(crm.people) == ["ada@example.com"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"op": "merge", "records": []}', b'{"op": "add", "records": {}}', b"null"],
)
def test_the_crm_refuses_what_is_not_the_protocol(crm: Crm, body: bytes) -> None:
    assert crm(httpx.Request("POST", "http://crm/people", content=body)).status_code == 400
    assert crm.requests.total() == 0


def test_a_served_fake_answers_many_threads_and_is_gone_afterwards() -> None:
    fake = FakeHubSpot(limit=1000)
    answers: list[int] = []

    with serve(fake) as url:

        def ask() -> None:
            with httpx.Client(headers={"authorization": f"Bearer {fake.token}"}) as client:
                answers.extend(client.get(f"{url}/crm/v3/objects/contacts").status_code for _ in range(10))

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert answers == [200] * 80
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/crm/v3/objects/contacts")
    assert "fake destination" not in {thread.name for thread in threading.enumerate()}


def test_hubspot_lets_requests_through_again_when_its_window_moved_on() -> None:
    now = [0.0]
    fake = FakeHubSpot(limit=2, per=10, clock=lambda: now[0])
    ask = httpx.Request(
        "GET", "https://hubspot/crm/v3/objects/contacts", headers={"authorization": "Bearer pat-test"}
    )

    statuses = []
    for moment in (0, 5, 9, 10, 14, 15):
        now[0] = moment
        statuses.append(fake(ask).status_code)

    assert statuses == [200, 200, 429, 200, 429, 200]
