"""`headgate token`: shown once, listed without its text, ended for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sync.cli.app import run
from sync.state.ledger import open_ledger
from tests.acceptance.project import Project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    Project(folder, "http://127.0.0.1:9").write().people(1)
    return folder


@pytest.fixture
def headgate(root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HEADGATE_ACTOR", "ana@acme.example")

    def call(*words: str) -> tuple[int, Any]:
        code = run(["token", *words, "--project", str(root), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_a_token_is_shown_once_listed_and_revoked(headgate: Any) -> None:
    code, made = headgate(
        "create", "ci", "--scope", "read", "--scope", "run", "--sync", "sink-*", "--expires", "12h"
    )
    _, listed = headgate("list")
    revoked, _ = headgate("revoke", "ci", "--reason", "the machine is gone")
    _, after = headgate("list")
    again, problem = headgate("create", "ci", "--scope", "read")

    assert (code, revoked, again) == (0, 0, 2)
    assert made["token"].startswith(f"hg_{made['id']}_")
    assert made["created_by"] == "ana@acme.example"
    (token,) = listed["tokens"]
    assert token == {k: v for k, v in made.items() if k in token}
    assert (token["scopes"], token["syncs"], token["used_at"]) == (["read", "run"], ["sink-*"], None)
    assert made["token"] not in json.dumps(listed)
    assert after["tokens"][0]["revoked_at"] is not None
    assert problem["error"]["code"] == "HG812"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["x"], "HG190"),
        (["x", "--scope", "all"], "HG190"),
        (["x", "--scope", "read", "--expires", "soon"], "HG190"),
        (["x", "--scope", "read", "--expires", "0s"], "HG190"),
        (["x", "--scope", "read", "--expires", "4000d"], "HG190"),
        (["x", "--scope", "read", "--sync", "nobody"], "HG191"),
        (["x", "--scope", "read", "--sync", "colour:red"], "HG192"),
        (["a b", "--scope", "read"], "HG812"),
    ],
)
def test_what_is_no_token_is_refused(headgate: Any, words: list[str], code: str) -> None:
    exit_code, document = headgate("create", *words)

    assert (exit_code, document["error"]["code"]) == (2, code)


def test_others_are_not_served_without_a_token(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, "http://127.0.0.1:9").write().people(1)

    code = run(["daemon", "--listen", "0.0.0.0:0", "--project", str(project.root)])

    assert code == 1
    assert "HG813" in capfd.readouterr().err


def test_the_doctor_warns_of_tokens_that_end_soon_for_what_they_are(
    root: Path, headgate: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, days in {"fresh": 90, "short": 1, "old": 90, "revoked": 90}.items():
        headgate("create", name, "--scope", "read", "--expires", f"{days}d")
    headgate("revoke", "revoked", "--reason", "the machine is gone")
    with open_ledger(root / ".headgate" / "ledger.db") as ledger, ledger._db.write() as connection:
        for name in ("old", "revoked"):
            moved = "created_at = created_at - 80 * 86400, expires_at = expires_at - 80 * 86400"
            connection.exec_driver_sql(f"UPDATE token SET {moved} WHERE name = '{name}'")

    assert run(["doctor", "--offline", "--json", "--project", str(root)]) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]

    (told,) = [check for check in checks if check["name"].startswith("token ")]
    assert (told["name"], told["warning"]) == ("token old", True)
    assert told["message"].startswith(("ends in 9d", "ends in 10d"))
