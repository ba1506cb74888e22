"""What becomes of an address: how much fits, which incident a message is of; and nobody waits without end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from sync.alerts.notifier import Notifier, NotifierError
from sync.alerts.patience import Patience, TooLate
from sync.settings import NotifierSettings
from tests.inbox import until

KEY = "0123456789abcdef"
LETTERS = "a" * 32


def notifier(address: str, monkeypatch: pytest.MonkeyPatch) -> Notifier:
    monkeypatch.setenv("NIGHT_URL", address)
    return Notifier("night", NotifierSettings(url="env:NIGHT_URL"), Path())


def service(address: str, monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> Any:
    (made,) = notifier(address, monkeypatch)._service(key)
    return made


@pytest.mark.parametrize(
    ("address", "attribute"),
    [
        (f"pagerduty://{LETTERS}@{LETTERS}", "dedup"),
        (f"goalert://{LETTERS}@goalert.example/{LETTERS}", "dedup"),
        (f"ilert://{LETTERS}", "dedup"),
        (f"incidentio://{LETTERS}/{LETTERS}", "dedup"),
        (f"signl4://{LETTERS}", "external_id"),
        ("pagertree://int_0123456789", "thirdparty"),
        (f"opsgenie://{LETTERS}", "alias"),
        (f"splunk://{LETTERS}@{'0' * 8}-0000-0000-0000-{'0' * 12}", "entity_id"),
    ],
)
def test_a_service_of_incidents_is_given_the_alerts_key_and_resolves_at_its_end(
    address: str, attribute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = service(address, monkeypatch)

    assert (getattr(made, attribute), made.action) == (KEY, "map")
    assert notifier(address, monkeypatch).room().keyed


def test_what_the_address_itself_says_of_incidents_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = service(f"pagerduty://{LETTERS}@{LETTERS}?action=trigger&region=eu", monkeypatch)

    assert (made.action, made.dedup, made.region_name) == ("trigger", KEY, "eu")


def test_a_chat_has_no_incidents_and_takes_what_its_service_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    room = notifier(f"discord://{'1' * 18}/{'a' * 68}", monkeypatch).room()

    assert not room.keyed
    assert 1800 <= room.letters < 2000


def test_of_several_addresses_the_narrowest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    several = notifier(f"json://127.0.0.1/a, discord://{'1' * 18}/{'a' * 68}", monkeypatch)

    assert several.room().letters < 2000
    with pytest.raises(NotifierError, match="is not an address"):
        notifier("json://127.0.0.1/a, slak://b", monkeypatch).check()


# --- patience -------------------------------------------------------------------------------------------------


def test_what_ends_in_time_gives_its_result_or_raises_its_error() -> None:
    patience = Patience("patient", 30.0)

    assert patience.do(lambda: 7) == 7
    with pytest.raises(TimeoutError, match="mine"):
        patience.do(lambda: (_ for _ in ()).throw(TimeoutError("mine")))


def test_few_are_left_behind_and_nothing_more_is_begun_until_one_of_them_ends() -> None:
    patience, over, begun = Patience("patient", 0.02), threading.Event(), list[int]()

    def hang() -> None:
        begun.append(1)
        over.wait(30)

    for _ in range(10):
        with pytest.raises(TooLate):
            patience.do(hang)
    assert len(begun) == 3

    over.set()
    until(lambda: not any(thread.name == "patient" for thread in threading.enumerate()))
    assert Patience("patient", 30.0).do(lambda: 7) == patience.do(lambda: 7) == 7
