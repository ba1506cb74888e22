"""Lies told to objects that are sent whole audiences: a run is one push, and one request of it is lied to."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr

from sync.engine.report import exit_code
from sync.sdk.connector import Reads
from sync.sdk.nouns import Op
from tests.figures import Figures
from tests.hostile.lies import LIES, Told
from tests.hostile.server import Lie, Peer
from tests.hostile.stage import CANARY, Scenario, Stage
from tests.hostile.stands import Road, Stand, wholes

Make = Callable[..., Stage]

_STANDS = {stand.name: stand for stand in wholes()}
_EVERY = 12  # one lie of so many is told; all are told to objects that are sent changes


@dataclass
class Once:
    """A lie told to one request of a push, by its number; the others are answered honestly."""

    lie: Lie
    number: int
    asked: int = 0
    told: bool = False

    def __call__(self, peer: Peer) -> None:
        """Lie, or do not."""
        self.asked += 1
        if self.asked == self.number:
            self.told = True
            self.lie(peer)
        else:
            peer.be_honest()


def _dice(told: Told, number: int) -> int:
    return zlib.crc32(f"{told.name} {number}".encode())


def _cases() -> list[Any]:
    """Each object, each request that a push of it makes."""
    numbers = ((stand, number) for stand in _STANDS.values() for number in (1, 2, 3))
    return [pytest.param(stand, number, id=f"{stand.name}, {number}") for stand, number in numbers]


@pytest.mark.parametrize(("stand", "number"), _cases())
def test_a_whole_audience_is_in_the_books_only_where_it_is_there(
    staged: Make, figures: Figures, stand: Stand, number: int
) -> None:
    lies = [t for t in LIES.values() if not t.slow and _dice(t, number) % _EVERY == 0]
    stage = staged(stand, Scenario.of(Op.ADD, 3))
    stage._next = lambda batch: None  # type: ignore[method-assign]
    assert stage.runs().status == "completed"
    people = sorted(stage.wanted)

    for turn, told in enumerate(lies):
        people = [*people, f"{CANARY}.{turn}@person.example"] if turn % 3 else people[:-2]
        stage.cohort(people)
        once = Once(told.lie, number)
        stage.liar.tell(once, apply=not told.refusal and _dice(told, number) % 2 == 0)
        before = stage.known()

        report = stage.runs()

        assert once.told, told
        there = _there(stage)
        if report.status == "completed":
            assert stage.known() == there == set(people), told
        else:
            assert exit_code([report]) in (1, 4), (told, report)
            assert stage.known() == before, (told, "what was not taken whole is not taken at all")
        _nothing_leaks(stage, told)
        stage.liar.tell(None)
        stage.later()
        honest = stage.runs()
        assert (honest.status, honest.undelivered) == ("completed", 0), (told, honest)
        assert stage.known() == _there(stage) == set(people), told
    figures.add("lies told", len(lies))


def _there(stage: Stage) -> set[str]:
    """Who is in the audience, as the destination itself tells."""
    stand = stage.stand
    connector = stand.connect(Road(stage.liar.url, 8.0), lambda: None)
    assert isinstance(connector, Reads)
    with connector.http:
        page = connector.members(stand.object, stand.audience)
        return {member.identifiers[stand.identifier] for member in page.members}


def _nothing_leaks(stage: Stage, told: Told) -> None:
    said = "\n".join([*stage.said, stage.written(), *stage.reasons()])
    assert "Traceback" not in said, told
    assert "the connector failed" not in said, told  # an exception that nobody foresaw
    assert not any(secret in said for secret in _secrets(stage)), told
    assert CANARY not in said, told


def _secrets(stage: Stage) -> list[str]:
    options = vars(stage.stand.config(stage.liar.url)).values()
    found = [option.get_secret_value() for option in options if isinstance(option, SecretStr)]
    assert found
    return found
