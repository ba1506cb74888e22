"""The API fuzzed by its own description: nothing makes it fail, and every answer is as described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.web.callers import Failures
from tests.acceptance.sink import Sink
from tests.web.conftest import SYNC, Api, served

# Which plan and run there are: by ids it makes up it would never get further than 404.
CONFIG = """
[[operations]]
include-path-regex = "^/api/v1/{path}/.id."
parameters = {{ id = "{id}" }}
"""


@pytest.fixture
def patient(tmp_path: Path, sink: Sink) -> Iterator[Api]:
    """An API that may be asked without a token as often as one likes, with a held plan."""
    with served(tmp_path, sink, Failures(most=10**6)) as made:
        made.client("run").post(f"/syncs/{SYNC}/runs")
        made.work()
        yield made


def fuzzed(api: Api, *words: str) -> int:
    """How many requests Schemathesis made, which must find nothing."""
    token = api.token("read", "run", "approve", "samples")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{api.url}/api/v1/openapi.json"]
    (plan,), (run,) = api.ledger.plans(), api.ledger.runs()
    names = "".join(CONFIG.format(path=path, id=id) for path, id in (("plans", plan.id), ("runs", run.id)))
    (api.project.root / "schemathesis.toml").write_text(names)
    command += ["--header", f"Authorization: Bearer {token}", "--checks", "all", *words]
    plain = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=api.project.root, env=plain, capture_output=True, text=True, check=False)
    made = re.search(r"([\d,]+) generated", done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert made is not None, done.stdout
    return int(made[1].replace(",", ""))


@pytest.mark.slow
def test_nothing_that_is_sent_makes_it_fail(patient: Api, sink: Sink) -> None:
    made = fuzzed(patient, "--max-examples", "8", "--phases", "coverage,fuzzing", "--seed", "6")

    assert made > 300
    assert_whole(patient, sink)


@pytest.mark.endless
@pytest.mark.timeout(3600)
def test_nothing_of_much_more_that_is_sent_makes_it_fail(patient: Api, sink: Sink) -> None:
    fuzzed(patient, "--max-examples", "300")

    assert_whole(patient, sink)


def assert_whole(api: Api, sink: Sink) -> None:
    """The ledger and its audit log are as ever, and nothing was sent."""
    api.ledger.check(thorough=True)
    with api.ledger.reading() as connection:
        api.session.audit.checkpoint(connection)  # as the daemon does now and then
        assert api.session.audit.verify(connection).findings == ()
    assert api.client("read").get("/syncs").status_code == 200
    assert sink.members == {}
