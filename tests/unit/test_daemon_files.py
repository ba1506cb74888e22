"""The files a daemon has in force: taken over whole, or refused whole and shown."""

from __future__ import annotations

import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from sync.cli import app, daemon_files
from sync.cli.context import Session, opened
from sync.cli.daemon import _daemon
from sync.cli.daemon_files import ProjectFiles, refused
from sync.cli.options import Options
from sync.daemon import pulse
from sync.errors import HeadgateError, ProjectError, UsageError
from sync.state.refusal import Refusal

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "w.duckdb"

[destinations.files]
type = "file"
path = "out"
"""
MAPPING = """\
version: 1
cohort: { name: vips, source: { connection: warehouse, table: vips, key: id } }
syncs:
  - name: one
    destination: files
    mode: mirror
    identifiers: [{ to: email, from: email }]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "mappings").mkdir()
    (tmp_path / ".headgate").mkdir()
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "mappings" / "vips.yaml").write_text(MAPPING)
    return tmp_path


@pytest.fixture
def session(root: Path) -> Iterator[Session]:
    with opened(Options(project=root, select=["one"])) as made:
        yield made


def test_changed_files_are_in_force_once_they_are_read(session: Session, root: Path) -> None:
    files = ProjectFiles(session)
    before = session.project
    (root / "config.toml").write_text(CONFIG + '[engine]\nmemory_limit = "1GB"\n')
    (job,) = files.load()

    assert job.name == "one"
    assert session.project is not before
    assert session.engine.memory_limit == "1GB"
    assert refused(root) is None


def test_files_that_cannot_be_read_change_nothing_and_are_shown(session: Session, root: Path) -> None:
    files, before = ProjectFiles(session), session.project
    (root / "mappings" / "vips.yaml").write_text(MAPPING.replace("mirror", "mirorr") + "  - name:\n")
    with pytest.raises(ProjectError):
        files.load()

    assert session.project is before
    shown = refused(root)
    assert shown is not None
    assert shown.code == "HG143"
    assert shown.fix.startswith("It says: mappings/vips.yaml:6:11: `mode` must be")
    assert "more)" in shown.fix
    (root / "mappings" / "vips.yaml").write_text(MAPPING)
    files.load()
    assert refused(root) is None


def test_refused_files_are_tried_again_until_what_they_lack_is_there(
    session: Session, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_files, "_AGAIN_S", 0.0)
    files = ProjectFiles(session)
    (root / "config.toml").write_text(
        CONFIG + '[state]\nkey = "file:state.key"\nprevious_keys = ["file:old.key"]\n'
    )
    with pytest.raises(HeadgateError):
        files.load()
    seen = [files.looks(), files.looks()]
    key = base64.b64encode(bytes(32)).decode()
    (root / "state.key").write_text(key)
    seen.append(files.looks())
    with pytest.raises(HeadgateError, match="old"):
        files.load()
    seen.append(files.looks())
    (root / "old.key").write_text(key)
    seen.append(files.looks())
    files.load()

    assert [a == b for a, b in pairwise([*seen, files.looks()])] == [True, False, True, False, True]
    assert refused(root) is None


def test_settings_of_what_a_daemon_opened_at_its_start_are_refused_by_name(session: Session, root: Path) -> None:
    files = ProjectFiles(session)
    (root / "config.toml").write_text(
        CONFIG + '[state]\nbusy_timeout = "5s"\n[audit]\nevery = 7\n[http]\nlisten = "127.0.0.1:8520"\n'
    )
    with pytest.raises(ProjectError) as caught:
        files.load()

    assert [(p.code, p.line, p.message.split("`")[1]) for p in caught.value.problems] == [
        ("HG144", 9, "state.busy_timeout"),
        ("HG144", 11, "audit.every"),
        ("HG144", 13, "http.listen"),
    ]


def test_limits_of_the_daemon_are_in_force_once_they_are_read(session: Session, root: Path) -> None:
    daemon = _daemon(session, threading.Event(), None, [])
    daemon.clock.read()
    assert daemon.workers.count == 2
    (root / "config.toml").write_text(CONFIG + '[daemon]\nworkers = 5\nstuck_after = "2h"\nquit_after = "9s"\n')
    daemon.clock.look()
    daemon.clock.look()

    assert (daemon.workers.count, daemon.watchdog.after, daemon.watchdog.grace) == (5, 7200.0, 9.0)


def test_another_state_folder_is_refused_while_the_daemon_runs(session: Session, root: Path) -> None:
    files = ProjectFiles(session)
    (root / "config.toml").write_text(CONFIG + '[state]\npath = "elsewhere"\n')
    with pytest.raises(ProjectError) as caught:
        files.load()

    (problem,) = caught.value.problems
    assert (problem.code, problem.file, problem.line) == ("HG144", "config.toml", 9)
    assert refused(root, root / ".headgate") is not None


def test_a_selection_that_nothing_fits_any_more_is_refused(session: Session, root: Path) -> None:
    files = ProjectFiles(session)
    (root / "mappings" / "vips.yaml").write_text(MAPPING.replace("name: one", "name: two"))
    with pytest.raises(UsageError):
        files.load()

    assert "[HG" in getattr(refused(root), "fix", "")


@pytest.mark.parametrize(
    "config",
    [
        CONFIG + '[state]\npath = "elsewhere"\n[engine]\nmemry_limit = "1GB"\n',
        '[state]\n# the large disk\npath = "elsewhere"\n\n' + CONFIG.replace("[destinations", "destinations"),
        "[state\n",
    ],
    ids=["a wrong key", "no TOML in another table", "in the environment"],
)
def test_a_slip_in_config_toml_does_not_hide_the_daemon_that_works(
    root: Path, config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "elsewhere" not in config:
        monkeypatch.setenv("HEADGATE__STATE__PATH", "elsewhere")
    (root / "config.toml").write_text(config)
    pulse.beat(root / "elsewhere")
    Refusal.write(root / "elsewhere", 0.0, ["config.toml:1:1: a slip [HG107]"])

    assert app.run(["daemon", "--health", "--project", str(root)]) == 0
    assert "sign of life" in capsys.readouterr().out
    assert refused(root) is not None
    (root / "config.toml").write_text("[[[")
    monkeypatch.delenv("HEADGATE__STATE__PATH", raising=False)
    assert app.run(["daemon", "--health", "--project", str(root)]) == 1, "where the default is, nobody works"


def test_what_a_daemon_that_is_gone_or_nobody_wrote_is_not_shown(root: Path) -> None:
    folder = root / ".headgate"
    Refusal.write(folder, 0.0, ["config.toml:1:1: a slip [HG107]"])
    assert refused(root) is not None

    data = json.loads((folder / "refused.json").read_text())
    host, pid, start, machine = data["holder"].split("/")
    gone = json.dumps(data | {"holder": f"{host}/{pid}/{int(start) - 1}/{machine}"})
    for text in (gone, "{", "[]", "null", '{"holder": 1, "at": "x"}'):
        (folder / "refused.json").write_text(text)
        assert refused(root) is None


def test_the_files_look_other_when_one_is_changed_added_or_removed(session: Session, root: Path) -> None:
    files = ProjectFiles(session)
    seen = [files.looks()]
    for change in (
        lambda: (root / "config.toml").write_text(CONFIG + "\n"),
        lambda: (root / "mappings" / "more.yml").write_text(MAPPING),
        lambda: (root / "mappings" / "more.yml").unlink(),
        lambda: (root / "mappings" / "vips.yaml").unlink(),
    ):
        change()
        seen.append(files.looks())

    assert len(set(seen)) == len(seen) - 1  # what was added and removed again is as before
    assert files.looks() == files.looks()


def test_a_commit_is_a_change_for_it_may_have_another_author(session: Session, root: Path) -> None:
    git(root, "init", "-q")
    git(root, "config", "user.email", "deploy@acme.example")
    git(root, "commit", "-q", "--allow-empty", "-m", "x", "--author", "Ana <ana@acme.example>")
    files = ProjectFiles(session)
    (edited,), before = files.load(), files.looks()

    git(root, "add", "mappings")
    git(root, "commit", "-q", "-m", "x", "--author", "Ben <ben@acme.example>")

    assert files.looks() != before
    assert (edited.author, files.load()[0].author) == ("deploy@acme.example", "ben@acme.example")


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=X", *words], cwd=root, check=True, capture_output=True)
