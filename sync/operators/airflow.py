"""An Airflow operator that asks the daemon for a run, and holds no worker while it waits.

Needs Airflow 3 and httpx, which Airflow brings. docs/how-to/airflow.md says how to install it there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import httpx
from airflow.sdk import BaseHook, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from sync.operators.client import HELD, Client, Refused, address, told, why_not

__all__ = ["HeadgateRunOperator", "HeadgateRunTrigger"]


class HeadgateRunOperator(BaseOperator):
    """Ask for a run of a sync, wait until it has ended, and fail where it is not green; gives its report.

    `sync`: the sync's name. `conn_id`: an Airflow connection whose host (and port, and `https` as its schema) is
    the daemon's and whose password is a token with the scopes `read` and `run`. `accept`: exit codes of `headgate
    run` that count as success: 0 is green, 3 held, 4 done with rejected or unknown records. `timeout` and `poll`
    are in seconds. A held run fails without a retry: it waits for a person.
    """

    template_fields: Sequence[str] = ("sync", "reason")
    ui_color = "#e8f0e4"

    def __init__(
        self,
        *,
        sync: str,
        conn_id: str = "headgate_default",
        reason: str = "",
        accept: Collection[int] = (0,),
        timeout: float = 6 * 3600.0,
        poll: float = 10.0,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.sync, self.conn_id, self.reason = sync, conn_id, reason
        self.accept, self.timeout, self.poll, self.deferrable = tuple(accept), timeout, poll, deferrable
        self._request = ""  # what was asked for and is waited for here

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Ask, and wait: in the triggerer, or here where `deferrable` is off."""
        client = _client(self.conn_id)
        instance = context["ti"]
        # A try that a worker's crash repeats asks for the same run; the next try for another.
        names = (instance.dag_id, instance.run_id, instance.task_id, instance.map_index, instance.try_number)
        try:
            request = client.ask(self.sync, key=_key(names), reason=self.reason or f"Airflow task {self.task_id}")
            if not self.deferrable:
                self._request = request
                return self._judged(client.wait(self.sync, request, every=self.poll, timeout=self.timeout))
        except Refused as error:
            raise AirflowFailException(str(error)) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise AirflowException(f"the daemon does not answer: {error}") from error
        trigger = HeadgateRunTrigger(self.conn_id, self.sync, request, self.poll)
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))
        raise AssertionError("defer does not return")

    def on_kill(self) -> None:
        """The task is ended while it waits in a worker: a run that has not begun is not made."""
        if self._request:
            _withdraw(self.conn_id, self.sync, self._request)

    def execute_complete(
        self,
        context: Mapping[str, Any],  # noqa: ARG002 - the framework's signature
        event: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The trigger saw the request end."""
        if event.get("refused"):
            raise AirflowFailException(event["refused"])
        return self._judged(event["report"])

    def _judged(self, report: Mapping[str, Any]) -> dict[str, Any]:
        why = why_not(report, self.accept)
        if why:
            fails = AirflowFailException if report.get("exit_code") == HELD else AirflowException
            raise fails(f"{self.sync}: {why}")
        return dict(report)


class HeadgateRunTrigger(BaseTrigger):
    """Looks every `poll` seconds whether a request has ended. The token stays in the connection."""

    def __init__(self, conn_id: str, sync: str, request: str, poll: float) -> None:
        super().__init__()
        self.conn_id, self.sync, self.request, self.poll = conn_id, sync, request, poll

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """What the triggerer makes it from again."""
        kept = {"conn_id": self.conn_id, "sync": self.sync, "request": self.request, "poll": self.poll}
        return f"{type(self).__module__}.{type(self).__qualname__}", kept

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the report, or why there will be none."""
        client = await asyncio.to_thread(_client, self.conn_id)
        async with httpx.AsyncClient(**client.options) as http:
            while True:
                try:
                    answer = await http.get(f"/syncs/{self.sync}/requests/{self.request}")
                    report = told(lambda: answer)  # noqa: B023 - it is called at once
                except httpx.HTTPError:
                    report = None
                except Refused as error:
                    yield TriggerEvent({"refused": str(error)})
                    return
                if report is not None:
                    yield TriggerEvent({"report": report})
                    return
                await asyncio.sleep(self.poll)

    async def on_kill(self) -> None:
        """A person ended the task: a run that has not begun is not made. Airflow calls it from 3.3 on."""
        await asyncio.to_thread(_withdraw, self.conn_id, self.sync, self.request)


def _withdraw(conn_id: str, sync: str, request: str) -> None:
    """Nobody waits for a run any more; where it has begun, or the daemon does not answer, it goes on."""
    with suppress(Refused, httpx.HTTPError):
        _client(conn_id).withdraw(sync, request, reason="the Airflow task was ended")


def _client(conn_id: str) -> Client:
    """The daemon and the token of a connection; its host, schema or type says whether it is https."""
    found = BaseHook.get_connection(conn_id)
    scheme = "https" if "https" in (found.schema, found.conn_type) else "http"
    return Client(address(found.host or "", found.port, scheme), found.password or "")


def _key(names: Sequence[Any]) -> str:
    """What names a try of a task, in characters that a header can have and no more of them than it may."""
    import hashlib

    return "airflow-" + hashlib.sha256("\0".join(str(name) for name in names).encode()).hexdigest()
