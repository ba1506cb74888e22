"""Runs DAGs in an Airflow of its own: `python airflow_run.py MODE`; prints what became of each task.

The connection is in AIRFLOW_CONN_HEADGATE_DEFAULT. `parts` plays worker and triggerer without a database; `dag`
runs a whole DAG, which needs one.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from types import SimpleNamespace
from typing import Any

from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred

from sync.operators.airflow import HeadgateRunOperator, HeadgateRunTrigger

with DAG("headgate", schedule=None, start_date=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)) as dag:
    OPERATOR = HeadgateRunOperator(task_id="run", sync="sink-vip", poll=0.1)


KILLED = 3
"""The try that a person ends."""


def context(attempt: int) -> dict[str, Any]:
    """What a worker gives a task."""
    names = {"dag_id": "headgate", "run_id": "r1", "task_id": "run", "map_index": -1, "try_number": attempt}
    return {"ti": SimpleNamespace(**names)}


def worker_and_triggerer(operator: HeadgateRunOperator, attempt: int) -> dict[str, Any]:
    """Execute, defer, wait as the triggerer does from what was kept of the trigger, and resume."""
    try:
        operator.execute(context(attempt))
    except TaskDeferred as deferred:
        (where, kept), resume = deferred.trigger.serialize(), getattr(operator, deferred.method_name)
    except AirflowFailException as error:
        return {"failed": str(error)}
    assert where == "sync.operators.airflow.HeadgateRunTrigger"
    assert "hg_" not in json.dumps(kept)
    if attempt == KILLED:
        asyncio.run(HeadgateRunTrigger(**kept).on_kill())
    event = asyncio.run(first(HeadgateRunTrigger(**json.loads(json.dumps(kept)))))
    try:
        return {"request": kept["request"], "report": resume({}, event)}
    except AirflowException as error:
        return {"request": kept["request"], "failed": str(error)}


async def first(trigger: HeadgateRunTrigger) -> Any:
    """The trigger's event."""
    return (await anext(aiter(trigger.run()))).payload


def parts() -> None:
    """The same try twice, the next one, one that is ended, and a sync that is not there."""
    told = [worker_and_triggerer(OPERATOR, attempt) for attempt in (1, 1, 2, KILLED)]
    told.append(worker_and_triggerer(HeadgateRunOperator(task_id="other", sync="nobody"), 1))
    print("TOLD", json.dumps(told))


def whole() -> None:
    """The DAG, with its triggerer."""
    run = dag.test()
    (task,) = run.get_task_instances()
    print("TOLD", json.dumps({"state": str(run.state), "report": task.xcom_pull(task_ids="run")}))


if __name__ == "__main__":
    {"parts": parts, "dag": whole}[sys.argv[1]]()
