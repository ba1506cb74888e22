"""Asking the daemon's API for a run and waiting for its report, for the operators."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["HELD", "Client", "Refused", "address", "read", "told", "why_not"]

HELD = 3
"""The exit code of a run that waits for a person."""

_TIMEOUT = 30.0
_API = "/api/v1"
_NOT_OURS = "not by a daemon of headgate: look at the address"


class Refused(Exception):
    """The daemon does not do this, and would not do it either if it were asked again."""


@dataclass(frozen=True, slots=True)
class Client:
    """A daemon's address and a token with the scopes `read` and `run`."""

    url: str
    token: str

    @property
    def options(self) -> dict[str, Any]:
        """What an httpx client is made with."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return {"base_url": self.url.rstrip("/") + _API, "headers": headers, "timeout": _TIMEOUT}

    def ask(self, sync: str, *, key: str, reason: str) -> str:
        """Ask for a run and return the request's id; the same key asks for one run, however often.

        Raises `Refused`, and `httpx.HTTPError` where the daemon does not answer.
        """
        with httpx.Client(**self.options) as http:
            answer = http.post(f"/syncs/{sync}/runs", json={"reason": reason}, headers={"Idempotency-Key": key})
        return str(read(answer, "id")["id"])

    def withdraw(self, sync: str, request: str, *, reason: str) -> None:
        """Ask for the run no more, where it has not begun. Raises `Refused`, and `httpx.HTTPError`."""
        with httpx.Client(**self.options) as http:
            read(http.post(f"/syncs/{sync}/requests/{request}/withdraw", json={"reason": reason}), "id")

    def wait(self, sync: str, request: str, *, every: float, timeout: float) -> dict[str, Any]:
        """The report of a request, once it has ended; silence is waited out. Raises `Refused`, `TimeoutError`."""
        deadline = time.monotonic() + timeout
        with httpx.Client(**self.options) as http:
            while True:
                report = told(lambda: http.get(f"/syncs/{sync}/requests/{request}"))
                if report is not None:
                    return report
                if time.monotonic() + every > deadline:
                    raise TimeoutError(f"request {request} of {sync} has not ended within {timeout:g} s")
                time.sleep(every)


def address(host: str, port: int | None, scheme: str) -> str:
    """The daemon's address, of what a connection has; the host may be a whole URL."""
    url = host.rstrip("/") if "://" in host else f"{scheme}://{host}"
    return f"{url}:{port}" if port and not httpx.URL(url).port else url


def told(get: Any) -> dict[str, Any] | None:
    """The report that a request's address gives; None where it has not ended, or nobody answers now."""
    try:
        answer = read(get(), "status", "report")
    except httpx.HTTPError:
        return None
    if answer["status"] != "ended":
        return None
    if not isinstance(answer["report"], dict):
        raise Refused(_NOT_OURS)
    return answer["report"]


def read(answer: httpx.Response, *names: str) -> dict[str, Any]:
    """An answer's document, which has these names.

    Raises `Refused`, or `httpx.HTTPStatusError` where asking again may help.
    """
    if answer.status_code in (408, 429) or answer.status_code >= 500:
        answer.raise_for_status()
    try:
        document: dict[str, Any] = answer.json()
        if answer.is_success:
            return {name: document[name] for name in names}
        words = [document["detail"], *document["errors"], document["fix"]]
        raise Refused(f"{document['code']}: {'; '.join(filter(None, words))}")
    except (ValueError, KeyError, TypeError):
        raise Refused(f"{answer.status_code}, and {_NOT_OURS}") from None


def why_not(report: Mapping[str, Any], accept: Collection[int] = (0,)) -> str:
    """Why a run is not what was hoped for, in a sentence; empty where its exit code is accepted.

    Counts and codes only: a report has no personal data, and this has less.
    """
    code = report.get("exit_code", 1)
    if code in accept:
        return ""
    if report.get("withdrawn"):
        return "the request was withdrawn before its run began"
    if code == HELD:
        rules = ", ".join(verdict["guardrail"] for verdict in report.get("held", []))
        return f"plan {report.get('plan')} is held ({rules}): it waits for a decision"
    error = report.get("error") or {}
    if error:
        return f"the run failed with {error.get('code')}: {error.get('message') or 'the daemon has the details'}"
    names = ("rejected", "deferred", "unknown", "invalid")
    counts = ", ".join(f"{report[name]} {name}" for name in names if report.get(name))
    return f"the run is {report.get('status')}{f', with {counts}' if counts else ''}"
