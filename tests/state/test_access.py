"""Tokens: made once, known by their hash, ended for good; and requests that are named by a key."""

from __future__ import annotations

import re

import pytest

from sync.errors import StateError, UsageError
from sync.state import tables
from sync.state.access import KEY_KEPT, Scope
from sync.state.ledger import open_ledger
from sync.state.nouns import Event, RunRequest

DAY = 86400.0
EVENT = Event("token:ci", "run.requested", "vip")


def made(ledger, name="ci", ttl=DAY, **more):
    return ledger.access.create(name, more.pop("scopes", [Scope.READ]), ttl=ttl, actor="ana", **more)


def asked(slot: str) -> RunRequest:
    return RunRequest("vip", slot, "api", "token:ci", 1.0)


def test_a_token_is_known_by_its_text_and_by_no_other(ledger):
    token, text = made(ledger, scopes=[Scope.RUN, Scope.READ], syncs=["crm-*", "tag:vip"])

    known = ledger.access.known(text)

    assert re.fullmatch(r"hg_[0-9a-f]{8}_[\w-]{43}", text)
    assert known is not None
    assert (known.id, known.actor, known.created_by) == (token.id, "token:ci", "ana")
    assert known.scopes == {Scope.READ, Scope.RUN}
    assert known.syncs == ("crm-*", "tag:vip")
    for wrong in (
        "",
        "hg_",
        text[:-1],
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        f"{text}x",
        text.upper(),
        f" {text}",
    ):
        assert ledger.access.known(wrong) is None


def test_the_text_is_nowhere_in_the_ledger(ledger):
    _, text = made(ledger)
    ledger.access.known(text)
    ledger.close()

    files = b"".join(p.read_bytes() for p in ledger.path.parent.glob("ledger.db*"))
    assert b"token:" in files or b"ci" in files
    assert text.encode() not in files
    assert text[12:].encode() not in files


def test_a_revoked_token_is_unknown_at_once_and_cannot_be_revoked_again(ledger):
    _, text = made(ledger)

    revoked = ledger.access.revoke("ci", actor="ana", reason="the machine is gone")

    assert revoked.revoked_at is not None
    assert ledger.access.known(text) is None
    with pytest.raises(UsageError, match="no token `ci` to revoke"):
        ledger.access.revoke("ci", actor="ana", reason="again")


def test_an_expired_token_is_unknown(ledger):
    _, text = made(ledger, ttl=-1)

    assert ledger.access.known(text) is None
    assert not ledger.access.usable()


def test_a_name_is_never_used_again(ledger):
    made(ledger)
    ledger.access.revoke("ci", actor="ana", reason="rotated")

    with pytest.raises(UsageError, match="there is, or was, a token `ci`") as caught:
        made(ledger)
    assert caught.value.code == "HG812"


@pytest.mark.parametrize("name", ["", "a b", "-x", "é", "x" * 65, "a/b", "a:b", "a\n"])
def test_a_name_that_is_none_is_refused(ledger, name):
    with pytest.raises(UsageError, match="no name for a token"):
        made(ledger, name)


def test_when_it_was_last_used_is_kept_by_the_hour(ledger):
    _, text = made(ledger)
    used = lambda: ledger.access.tokens()[0].used_at  # noqa: E731

    assert used() is None
    ledger.access.known(text)
    first = used()
    ledger.access.known(text)
    assert used() == first
    with ledger._db.write() as connection:
        connection.execute(tables.token.update().values(used_at=first - 3601))
    ledger.access.known(text)
    assert used() >= first


def test_whoever_made_a_token_stands_behind_it(ledger):
    made(ledger)

    assert ledger.person("token:ci") == "ana"
    assert ledger.person("token:other") == "token:other"
    assert ledger.person("bob") == "bob"


def test_a_key_means_the_first_request_for_a_day_also_after_a_restart(ledger):
    token, _ = made(ledger)

    first = ledger.access.ask(token, asked("api-1"), EVENT, "k", "d")
    with open_ledger(ledger.path) as again:
        second = again.access.ask(token, asked("api-2"), EVENT, "k", "d")
        third = again.access.ask(token, asked("api-3"), EVENT, "other", "d")

    assert (first.slot, second.slot, third.slot) == ("api-1", "api-1", "api-3")
    assert [r.slot for r in ledger.requests()] == ["api-1", "api-3"]


def test_a_key_is_its_tokens_own(ledger):
    one, _ = made(ledger)
    two, _ = made(ledger, "other")

    ledger.access.ask(one, asked("api-1"), EVENT, "k", "d")

    assert ledger.access.ask(two, asked("api-2"), EVENT, "k", "d").slot == "api-2"


def test_a_key_for_another_request_is_refused_and_asks_for_nothing(ledger):
    token, _ = made(ledger)
    ledger.access.ask(token, asked("api-1"), EVENT, "k", "d")

    with pytest.raises(StateError, match="used for another request") as caught:
        ledger.access.ask(token, asked("api-2"), EVENT, "k", "other")

    assert caught.value.code == "HG807"
    assert [r.slot for r in ledger.requests()] == ["api-1"]


def test_a_key_is_forgotten_after_a_day(ledger):
    token, _ = made(ledger)
    ledger.access.ask(token, asked("api-1"), EVENT, "k", "d")
    with ledger._db.write() as connection:
        connection.execute(tables.idempotency_key.update().values(at=ledger.now() - KEY_KEPT - 1))

    assert ledger.access.ask(token, asked("api-2"), EVENT, "k", "other").slot == "api-2"
