"""The dead man's switch is asked for after each beat, never without one, and says nothing of its address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from sync.alerts.dead_man import DeadMan
from tests.inbox import inbox, tarpit, until

pytestmark = pytest.mark.timeout(60)


def test_it_is_asked_for_after_each_beat_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    with inbox() as watcher, structlog.testing.capture_logs() as said:
        monkeypatch.setenv("SWITCH", f"{watcher.url}/ping/canary-of-the-switch")
        switch = DeadMan("env:SWITCH", Path())
        for beats in range(1, 4):
            switch.beat()
            until(lambda beats=beats: watcher.asked == beats)  # type: ignore[misc]
        watcher.status = 503
        switch.beat()
        until(lambda: any("HTTP 503" in str(line) for line in said))
        watcher.status = 200
        switch.beat()
        until(lambda: sum(line["event"] == "dead_man_reached" for line in said) == 2)
        switch.close()
        switch.beat()

    assert watcher.asked == 5
    assert "canary-of-the-switch" not in str(said)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/canary", "canary: no address", None])
def test_an_address_that_does_not_answer_or_is_none_is_told_once(
    monkeypatch: pytest.MonkeyPatch, address: Any
) -> None:
    if address is not None:
        monkeypatch.setenv("SWITCH", address)
    with structlog.testing.capture_logs() as said:
        switch = DeadMan("env:SWITCH", Path())
        for _ in range(3):
            switch.beat()
            until(lambda: not switch._beat.is_set())
        switch.close()

    assert [line["event"] for line in said] == ["dead_man_not_reached"]
    assert "canary" not in str(said)


def test_it_is_not_asked_for_while_the_daemon_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    works = [False]
    with inbox() as watcher, structlog.testing.capture_logs() as said:
        monkeypatch.setenv("SWITCH", watcher.url)
        switch = DeadMan("env:SWITCH", Path(), lambda: works[0])
        switch.beat()
        until(lambda: bool(said))
        works[0] = True
        switch.beat()
        until(lambda: watcher.asked == 1)
        switch.close()

    assert [line["event"] for line in said] == ["dead_man_not_reached", "dead_man_reached"]


def test_whatever_goes_wrong_once_it_is_asked_for_after_the_next_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    with inbox() as watcher, structlog.testing.capture_logs() as said:
        monkeypatch.setenv("SWITCH", watcher.url)
        monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/being-replaced.pem")
        switch = DeadMan("env:SWITCH", Path())
        switch.beat()
        until(lambda: bool(said))
        monkeypatch.delenv("SSL_CERT_FILE")
        switch.beat()
        until(lambda: watcher.asked == 1)
        switch.close()

    assert [line["event"] for line in said] == ["dead_man_not_reached", "dead_man_reached"]


def test_a_watcher_that_drips_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.alerts.dead_man._TIMEOUT_S", 0.2)
    with tarpit() as slow, structlog.testing.capture_logs() as said:
        monkeypatch.setenv("SWITCH", f"http://127.0.0.1:{slow}/")
        switch = DeadMan("env:SWITCH", Path())
        switch.beat()
        until(lambda: bool(said))
        switch.close()

    assert [line["event"] for line in said] == ["dead_man_not_reached"]


def test_a_watcher_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with inbox() as watcher:
        monkeypatch.setenv("SWITCH", watcher.url)
        watcher.answers.clear()
        switch = DeadMan("env:SWITCH", Path())
        for _ in range(1000):
            switch.beat()
        watcher.answers.set()
        until(lambda: watcher.asked > 0)
        switch.close()

    assert watcher.asked <= 3, "beats that nobody heard are not made up for"
