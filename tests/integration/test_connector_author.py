"""An author's way: a package whose tests pass at once, a manifest used as it is, and failures that name a line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.authoring import write_package
from sync.cli import app
from sync.errors import UsageError
from sync.testing.fakes.server import serve
from tests.connectors.shapes.further import Heron
from tests.connectors.shapes.platforms import Kestrel, Quill

SHAPES = Path(__file__).parent.parent / "connectors" / "shapes"


def headgate(*args: str, folder: Path, path: str = "") -> tuple[int, str]:
    """The command as a process of its own, as modules of packages stay where they were imported from."""
    environment = {**os.environ, "PYTHONPATH": path, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "sync.cli.app", *args]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def main(*args: str) -> int:
    """The command in this process: its exit code."""
    with pytest.raises(SystemExit) as ended:
        app.main(list(args))
    return int(ended.value.code or 0)


def installed(folder: Path, name: str) -> str:
    """The package as `pip install -e` leaves it: its code on the path, and its entry points beside it."""
    info = folder / "src" / f"{name}_headgate-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-headgate\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(
        f"[headgate.connectors]\n{name} = {name}_headgate:Acme\n"
        f"[headgate.contracts]\n{name} = {name}_headgate.contract:AcmeContract\n"
    )
    return str(folder / "src")


@pytest.mark.parametrize("manifest", [True, False], ids=["manifest", "python"])
def test_the_tests_of_a_new_package_pass_at_once(tmp_path: Path, manifest: bool) -> None:
    write_package(tmp_path / "acme", "acme", manifest=manifest)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]

    done = subprocess.run(command, cwd=tmp_path / "acme", capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
    assert "failed" not in done.stdout
    assert int(done.stdout.rpartition(" passed")[0].split()[-1]) > 45


def test_an_installed_package_is_listed_with_its_place_and_tested_with_its_own_answers(tmp_path: Path) -> None:
    folder = tmp_path / "acme"
    assert main("connector", "new", "acme", "--dir", str(folder)) == 0
    path = installed(folder, "acme")

    listed = headgate("connector", "list", folder=tmp_path, path=path)
    tested = headgate("connector", "test", "acme", "--json", folder=tmp_path, path=path)

    assert "acme: Acme  (acme-headgate 0.1.0, acme_headgate:Acme)" in listed[1]
    assert tested[0] == 0
    passed = [check for check in json.loads(tested[1])["checks"] if check["ok"]]
    assert len(passed) > 45  # without answers of the platform it is some thirty


def test_a_package_that_is_not_installed_is_tested_by_its_folder_and_a_failure_names_the_line(
    tmp_path: Path,
) -> None:
    write_package(tmp_path, "acme", manifest=False)
    code = tmp_path / "src" / "acme_headgate" / "__init__.py"
    sound = headgate("connector", "test", str(tmp_path), folder=tmp_path)
    code.write_text(code.read_text().replace('if row.status == "done":', "if row.status:"))

    bad = headgate("connector", "test", str(tmp_path), folder=tmp_path)

    assert sound[0] == 0
    assert bad[0] == 1
    line = 1 + code.read_text().splitlines().index(
        "    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:"
    )
    assert f"{code}:{line} receipts()" in bad[1]
    assert "a rejected record has a reason, and the others are applied" in bad[1]


def test_a_connector_that_raises_is_told_by_the_line_that_raised(tmp_path: Path) -> None:
    write_package(tmp_path, "acme", manifest=False)
    code = tmp_path / "src" / "acme_headgate" / "__init__.py"
    code.write_text(code.read_text().replace("    rows = read(Rows", "    rows = 1 / 0 or read(Rows"))
    line = 1 + next(n for n, text in enumerate(code.read_text().splitlines()) if "1 / 0" in text)

    code_, said = headgate("connector", "test", str(tmp_path), folder=tmp_path)

    assert code_ == 1
    assert f"{code}:{line} in receipts()" in said


def test_a_bare_manifest_is_tested_with_made_up_credentials(tmp_path: Path, capsys: Any) -> None:
    shutil.copy(SHAPES / "perch.toml", tmp_path)

    code = main("connector", "test", str(tmp_path / "perch.toml"))
    said = capsys.readouterr().out

    assert code == 0
    assert "nobody answers in the platform's place" in said
    assert int(said.rpartition(" passed")[0].split()[-1]) >= 30


CONTRACT = """
import httpx
from sync.testing.contract import ConnectorContract
from sync.sdk.manifest import connector
from pathlib import Path

class Mosaic(ConnectorContract):
    connector = connector(Path(__file__).with_name("mosaic.toml"))
    config = {"key": "k3y-of-mosaic-1"}
    def answer(self, request):
        return httpx.Response(200, text="1" if request.method == "POST" else "{}")
"""


def test_a_manifest_is_tested_with_the_answers_beside_it_and_a_failure_names_the_key(
    tmp_path: Path, capsys: Any
) -> None:
    manifest = tmp_path / "mosaic.toml"
    text = (SHAPES / "mosaic.toml").read_text()
    manifest.write_text(text)
    (tmp_path / "mosaic_contract.py").write_text(CONTRACT)
    assert main("connector", "test", str(manifest)) == 0
    capsys.readouterr()
    manifest.write_text(text.replace('bodies = ["1"]', 'bodies = ["2"]', 1))

    code = main("connector", "test", str(manifest))

    line = 1 + text.splitlines().index("[objects.subscriber.actions.add]")
    said = capsys.readouterr().out
    assert code == 1
    assert f"{manifest}:{line} objects.subscriber.actions" in said


def test_what_the_stand_in_said_and_where_it_broke_is_told_and_the_one_reason_of_many_failures(
    tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "mosaic.toml").write_text((SHAPES / "mosaic.toml").read_text())
    beside = tmp_path / "mosaic_contract.py"
    good = 'return httpx.Response(200, text="1" if'
    beside.write_text(
        CONTRACT.replace('(200, text="1" if request.method == "POST" else "{}")', '(422, text="no such list")')
    )
    refused = main("connector", "test", str(tmp_path / "mosaic.toml"))
    said = capsys.readouterr().out
    beside.write_text(CONTRACT.replace(good, 'assert request.method == "GET"\n        ' + good))
    broken = main("connector", "test", str(tmp_path / "mosaic.toml"))
    told = capsys.readouterr().out

    assert (refused, broken) == (1, 1)
    assert "answered 422 Unprocessable Entity: no such list" in said
    assert 'it raised AssertionError at mosaic_contract.py:11 (assert request.method == "GET")' in told
    assert "checks fail for one reason, begin there: it raised AssertionError" in told


def test_a_manifest_with_mistakes_is_refused_with_their_lines(tmp_path: Path, capsys: Any) -> None:
    manifest = tmp_path / "perch.toml"
    text = (SHAPES / "perch.toml").read_text()
    manifest.write_text(text.replace('id = "list.id"', 'idd = "list.id"'))

    code = main("connector", "test", str(manifest))

    line = 1 + text.splitlines().index('id = "list.id"')
    said = capsys.readouterr().err
    assert code == 2
    assert f"{manifest}:{line}:1" in said
    assert "HG412" in said


@pytest.mark.parametrize("name", ["Acme", "1st", "a-b", "", "a" * 60])
def test_a_name_that_no_connector_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        write_package(tmp_path, name, manifest=True)

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")

    with pytest.raises(UsageError, match=r"README.md is there already") as raised:
        write_package(tmp_path, "acme", manifest=True)

    assert raised.value.code == "HG130"
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


# --- a manifest in a project ----------------------------------------------------------------------------------

CONFIG = """
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.it]
type = "./{name}.toml"
base_url = "{url}"
{options}
"""
MAPPING = """
version: 1
cohort:
  name: vip
  owner: ana@acme.example
  source: {{ connection: warehouse, table: vip, key: id }}
syncs:
  - name: it-vip
    destination: it
    object: {object}
    audience: "12"
    mode: mirror
    identifiers: [{{ to: {field}, from: who }}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a project whose one destination is a manifest file, and runs it."""
    monkeypatch.setenv("IT_TOKEN", "t0ken-of-mine")
    monkeypatch.setenv("IT_SECRET", "s3cret-of-mine")

    def make(name: str, url: str, object: str, field: str, options: str) -> Any:
        shutil.copy(SHAPES / f"{name}.toml", tmp_path)
        (tmp_path / "config.toml").write_text(CONFIG.format(name=name, url=url, options=options))
        (tmp_path / "mappings").mkdir()
        (tmp_path / "mappings" / "vip.yaml").write_text(MAPPING.format(object=object, field=field))
        people(range(5))
        return lambda *args: main("--project", str(tmp_path), *args)

    def people(numbers: range) -> None:
        with duckdb.connect(tmp_path / "warehouse.duckdb") as warehouse:
            warehouse.execute("CREATE OR REPLACE TABLE vip AS SELECT unnest(?) AS id", [list(numbers)])
            warehouse.execute("ALTER TABLE vip ADD COLUMN who VARCHAR")
            warehouse.execute("UPDATE vip SET who = 'p' || id")

    make.people = people  # type: ignore[attr-defined]
    return make


def test_a_sync_to_a_manifest_file_adds_and_removes(project: Any, capsys: Any) -> None:
    platform = Quill()
    with serve(platform) as url:
        run = project("quill", f"{url}/api", "member", "user_id", 'token = "env:IT_TOKEN"')
        assert run("validate") == 0
        assert run("connector", "list") == 0
        assert "Quill  (./quill.toml)" in capsys.readouterr().out
        assert run("run", "--first-run") == 0, capsys.readouterr()
        first = set(platform.people)
        project.people(range(1, 6))
        assert run("run") == 0, capsys.readouterr()

    assert first == {f"p{n}" for n in range(5)}
    assert set(platform.people) == {f"p{n}" for n in range(1, 6)}


def test_people_whom_a_platform_lacks_are_made_once_and_lose_only_the_tag(project: Any, capsys: Any) -> None:
    platform = Heron()
    platform.id_of("p0")
    with serve(platform) as url:
        run = project("heron", url, "tagged", "email", 'token = "env:IT_TOKEN"')
        assert run("run", "--first-run") == 0, capsys.readouterr()
        project.people(range(1, 5))
        assert run("run") == 0, capsys.readouterr()

    assert set(platform.people) == {f"p{n}" for n in range(1, 5)}
    assert set(platform.known) == {f"p{n}" for n in range(5)}
    made = [r for r in platform.requests if (r.method, r.url.path) == ("POST", "/people")]
    assert len(made) == 4


def test_a_project_tells_the_line_of_a_manifest_that_is_wrong(project: Any, tmp_path: Path, capsys: Any) -> None:
    run = project("quill", "http://127.0.0.1:9", "member", "user_id", 'token = "env:IT_TOKEN"')
    manifest = tmp_path / "quill.toml"
    text = manifest.read_text()
    manifest.write_text(text.replace("members = ", "membrs = ", 1))
    line = 1 + next(n for n, one in enumerate(text.splitlines()) if one.startswith("members = "))

    code = run("validate", "--offline")

    said = "".join(capsys.readouterr())
    assert code == 2
    assert f"quill.toml:{line}:1" in said
    assert "Did you mean `members`?" in said


def test_a_job_of_a_manifest_is_asked_about_by_the_next_process(project: Any, tmp_path: Path) -> None:
    platform = Kestrel()
    platform.state = ["QUEUED"] * 2
    secrets = 'client_id = "us"\nclient_secret = "env:IT_SECRET"\nadvertiser = "77"\n[delivery]\njob_wait = "0.1s"'
    with serve(platform) as url:
        run = project("kestrel", url, "audience_member", "hashed_email", secrets)
        waiting = run("run", "--first-run")
        config = tmp_path / "config.toml"
        config.write_text(config.read_text().replace('job_wait = "0.1s"', 'job_wait = "30s"'))
        code, said = headgate("--project", str(tmp_path), "run", "--json", folder=tmp_path)

    assert waiting != 0
    assert (code, json.loads(said.splitlines()[0])["syncs"][0]["applied"]) == (0, 5)
    assert len(platform.people) == 5
    assert len([r for r in platform.requests if r.method == "POST"]) == 1  # it was not handed in again
