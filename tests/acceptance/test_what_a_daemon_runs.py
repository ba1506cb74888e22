"""A daemon through the command: asked by people, another sync and dbt; and its files edited while it runs."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import Process, Project
from tests.acceptance.sink import Sink

pytestmark = [pytest.mark.endless, pytest.mark.timeout(120)]

FOLLOWS = """\
    schedule: {{ {first} }}
  - name: follows
    destination: sink
    mode: mirror
    schedule: {{ {second} }}
    identifiers:
      - {{ to: user_id, from: user_id }}
"""


def project_of(tmp_path: Path, sink: Sink, first: str = "every: 30d", second: str = "after: sink-vip") -> Project:
    """Two syncs that were run once each."""
    project = Project(tmp_path / "project", sink.url, more=FOLLOWS.format(first=first, second=second)).write()
    project.people(20).first_run()
    return project


def until(done: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := done()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.1)
    return found


@contextmanager
def daemon(project: Project) -> Iterator[Process]:
    """A daemon that has started; it must end well."""
    process = project.start("daemon", "--json")
    try:
        until(lambda: logged(process, "started"))
        yield process
    finally:
        process.send(signal.SIGTERM)
        done = process.wait()
    assert done.code == 0, done.text


def logged(process: Process, event: str) -> list[dict[str, Any]]:
    lines = process._err.read_text().splitlines()
    return [e for e in map(json.loads, filter(lambda ln: ln.startswith("{"), lines)) if e.get("event") == event]


def runs(process: Process, sync: str) -> int:
    return sum(entry["sync"] == sync for entry in logged(process, "run"))


def settled_at(process: Process) -> int:
    """How many runs were asked for, once a schedule of every second asks for no more."""
    before = len(logged(process, "due"))
    time.sleep(2.5)
    return before if before == len(logged(process, "due")) else 0


def test_a_person_another_sync_and_dbt_ask_for_runs(tmp_path: Path, sink: Sink) -> None:
    dbt = "dbt: { run_results: ../dbt/run_results.json }"
    project = project_of(tmp_path, sink, first=dbt)
    with daemon(project) as process:
        asked = project.headgate("run", "sink-vip", "--ask", "--json")
        assert asked.code == 0, asked.text
        assert [one["sync"] for one in asked.json["asked"]] == ["sink-vip"]
        until(lambda: (runs(process, "sink-vip"), runs(process, "follows")) == (1, 1))

        assert project.run("sink-vip").code == 0
        until(lambda: runs(process, "follows") == 2)

        results = {"metadata": {"invocation_id": "i-1"}, "args": {"which": "build"}}
        results["results"] = [{"unique_id": "model.shop.vip", "status": "success"}]  # type: ignore[assignment]
        (tmp_path / "dbt").mkdir()
        (tmp_path / "dbt" / "run_results.json").write_text(json.dumps(results))
        until(lambda: (runs(process, "sink-vip"), runs(process, "follows")) == (2, 3))

    rows = {one["sync"]: one for one in project.headgate("status", "--json").json["syncs"]}
    assert rows["sink-vip"]["schedule"] == "after dbt (../dbt/run_results.json)"
    assert rows["sink-vip"]["last_run"]["trigger"] == "dbt"
    assert (rows["follows"]["schedule"], rows["follows"]["last_run"]["trigger"]) == ("after sink-vip", "after")
    assert rows["follows"]["next_runs"] == []


def test_edited_files_are_taken_over_or_refused_and_shown_as_such(tmp_path: Path, sink: Sink) -> None:
    project = project_of(tmp_path, sink, second="every: 30d")
    mapping = project.root / "mappings" / "vip.yaml"
    right = mapping.read_text()
    with daemon(project) as process:
        mapping.write_text(right.replace("mode: mirror", "mode: mirorr", 1))
        (told,) = until(lambda: logged(process, "kept_going"))
        assert told["code"] == "HG107"
        status = project.headgate("status")
        assert status.code == 2
        assert f"the daemon (process {process.pid} on host" in status.text
        assert "[HG143]" in status.text
        assert "mappings/vip.yaml:12:11" in status.text
        assert project.headgate("status", "--json").json["error"]["problems"][-1]["code"] == "HG143"

        mapping.write_text(right.replace("every: 30d", "every: 1s", 1))
        until(lambda: runs(process, "sink-vip"))
        assert project.headgate("status", "--json").json["files_refused"] is None

        mapping.unlink()
        settled = until(lambda: settled_at(process))
        mapping.write_text(right.replace("every: 30d", "every: 1s", 1))
        until(lambda: len(logged(process, "due")) > settled)
    assert runs(process, "follows") == 0
