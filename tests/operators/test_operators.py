"""The operators with their own libraries, each in an environment of its own, against a real daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.environments import made_environment
from tests.operators.conftest import SYNC, Served, approve_what_is_held

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def told(python: Path, script: str, *words: str, **environment: str) -> Any:
    """What a script says of itself, run where its framework is installed and nothing that our code needs."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HEADGATE"))}
    done = subprocess.run(
        [str(python), str(HERE / script), *words],
        env={**clean, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    assert lines, done.stdout + done.stderr
    return json.loads(lines[-1].removeprefix("TOLD "))


def airflow(config: pytest.Config) -> Path:
    return made_environment(config, "airflow", ["apache-airflow-core==3.3.*", "httpx"], pytest.skip)


def connection(served: Served) -> dict[str, str]:
    """How Airflow is told of the daemon."""
    port = int(served.url.rpartition(":")[2])
    found = {"conn_type": "http", "host": "127.0.0.1", "port": port, "password": served.token}
    return {"AIRFLOW_CONN_HEADGATE_DEFAULT": json.dumps(found)}


@pytest.mark.slow
def test_a_dagster_asset_fails_while_its_run_is_held_and_has_its_figures_afterwards(
    served: Served, request: pytest.FixtureRequest
) -> None:
    python = made_environment(request.config, "dagster", ["dagster==1.13.*", "httpx"], pytest.skip)

    held = told(python, "dagster_run.py", served.url, served.token)
    approve_what_is_held(served)
    done = told(python, "dagster_run.py", served.url, served.token)
    unknown = told(python, "dagster_run.py", served.url, served.token[:-1] + "?")

    assert (held["success"], held["retries"]) == (False, 0)
    assert "is held (first_run): it waits for a decision" in held["failure"]
    assert done["success"], done
    assert done["upstream"] == ["vip_cohort"]
    assert {k: done["metadata"][k] for k in ("status", "add")} == {"status": "completed", "add": 0}
    assert len(served.sink.members) == 40
    assert unknown["failure"].startswith("HG804: no valid token")


@pytest.mark.slow
def test_an_airflow_task_waits_in_the_triggerer_and_its_try_is_one_run(
    served: Served, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python, home = airflow(request.config), str(tmp_path)

    first, again, later, killed, unknown = told(
        python, "airflow_run.py", "parts", AIRFLOW_HOME=home, **connection(served)
    )

    assert first["request"] == again["request"] != later["request"]
    for one in (first, again, later):
        assert ("report" in one and one["report"]["exit_code"] == 0) or "is held (first_run)" in one["failed"]
    # The daemon may have been faster than whoever ended it.
    assert "report" in killed or "was withdrawn" in killed["failed"] or "is held (first_run)" in killed["failed"]
    assert unknown["failed"].startswith("HG806: there is no such sync")


@pytest.mark.endless
def test_an_airflow_dag_fails_while_its_run_is_held_and_gives_the_report_afterwards(
    served: Served, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    python, dags = airflow(request.config), tmp_path / "dags"
    dags.mkdir()
    script = shutil.copy(HERE / "airflow_run.py", dags)
    environment = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__DAGS_FOLDER": str(dags), **connection(served)}
    migrate = [str(python), "-m", "airflow", "db", "migrate"]
    subprocess.run(migrate, env={**os.environ, **environment}, check=True, capture_output=True, timeout=170)

    first = told(python, script, "dag", **environment)
    if first["state"] == "failed":
        approve_what_is_held(served)
    done = told(python, script, "dag", **environment)

    assert done["state"] == "success"
    assert (done["report"]["sync"], done["report"]["exit_code"]) == (SYNC, 0)
