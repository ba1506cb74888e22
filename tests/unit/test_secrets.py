"""Secrets are referred to, found late, and never repeated."""

from __future__ import annotations

from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import InitError

from sync.secrets import Reference, SecretError, parse, resolve


@pytest.mark.parametrize(
    ("text", "kind", "target"),
    [
        ("env:HUBSPOT_TOKEN", "env", "HUBSPOT_TOKEN"),
        (" file:/run/secrets/x ", "file", "/run/secrets/x"),
        ("file:C:/odd", "file", "C:/odd"),
        ("keyring:headgate/ana@acme.example", "keyring", "headgate/ana@acme.example"),
    ],
)
def test_the_three_kinds_of_reference(text: str, kind: str, target: str) -> None:
    assert parse(text) == Reference(kind, target)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("pat-canary-123", "HG150"),
        ("", "HG150"),
        ("ENV:canary", "HG150"),
        ("vault:canary", "HG150"),
        ("env:", "HG152"),
        ("env:canary with spaces", "HG152"),
        ("env:$canary", "HG152"),
        ("file:", "HG152"),
        ("file:canary\nfile", "HG152"),
        ("keyring:canary", "HG152"),
        ("keyring:/canary", "HG152"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(text: str, code: str) -> None:
    with pytest.raises(SecretError) as caught:
        parse(text)

    assert caught.value.code == code
    assert "canary" not in str(caught.value) + caught.value.fix


def test_a_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CRM_TOKEN", "t0ken")

    secret = resolve(parse("env:CRM_TOKEN"), tmp_path)

    assert secret.get_secret_value() == "t0ken"
    assert "t0ken" not in repr(secret)


def test_a_variable_that_is_not_set_names_its_neighbour(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", "x")

    with pytest.raises(SecretError, match="HUBSPOT_TOKN") as caught:
        resolve(parse("env:HUBSPOT_TOKN"), tmp_path)

    assert "`HUBSPOT_TOKEN`" in caught.value.fix


def test_a_file_loses_one_line_break_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"-----BEGIN\n abc \n-----END\r\n")

    assert resolve(parse("file:key.pem"), tmp_path).get_secret_value() == "-----BEGIN\n abc \n-----END"


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "empty"), (b" \n", "empty"), (b"\xff", "UTF-8"), (b"x" * 70_000, "64 KiB")],
)
def test_a_file_that_holds_no_secret_is_told(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)

    with pytest.raises(SecretError, match=words) as caught:
        resolve(parse("file:s"), tmp_path)

    assert caught.value.code == "HG151"


class Drawer(KeyringBackend):
    """A keyring in memory."""

    priority = 1

    def __init__(self, entries: dict[tuple[str, str], str], broken: bool = False) -> None:
        super().__init__()
        self.entries = entries
        self.broken = broken

    def get_password(self, service: str, username: str) -> str | None:
        if self.broken:
            raise InitError("locked: canary")
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def restored_keyring():
    before = keyring.get_keyring()
    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("restored_keyring")
def test_a_keyring_gives_its_password_or_says_how_to_store_one(tmp_path: Path) -> None:
    keyring.set_keyring(Drawer({("headgate", "crm"): "t0ken"}))

    assert resolve(parse("keyring:headgate/crm"), tmp_path).get_secret_value() == "t0ken"
    with pytest.raises(SecretError, match="no password") as caught:
        resolve(parse("keyring:headgate/other"), tmp_path)
    assert caught.value.fix == "Store it with: keyring set headgate other"


@pytest.mark.usefixtures("restored_keyring")
def test_a_keyring_that_does_not_answer_is_told_without_its_words(tmp_path: Path) -> None:
    keyring.set_keyring(Drawer({}, broken=True))

    with pytest.raises(SecretError, match="does not answer") as caught:
        resolve(parse("keyring:headgate/crm"), tmp_path)

    assert "canary" not in str(caught.value)
