"""A Dagster resource that asks the daemon for runs, and assets that are syncs. Needs dagster and httpx."""

from collections.abc import Collection, Sequence
from typing import Any

import dagster as dg
import httpx

from sync.operators.client import HELD, Client, Refused, why_not

__all__ = ["HeadgateResource", "headgate_asset"]

_FIGURES = ("add", "update", "remove", "unchanged", "members", "applied", "accepted", "rejected", "requests")


class HeadgateResource(dg.ConfigurableResource):
    """A daemon: its `url` and a `token` with the scopes `read` and `run`. `timeout` and `poll` are in seconds."""

    url: str
    token: str
    timeout: float = 6 * 3600.0
    poll: float = 5.0

    def run(self, sync: str, *, key: str, reason: str, accept: Collection[int] = (0,)) -> dict[str, Any]:
        """Run a sync and give its report; the same key asks for one run.

        Raises `dagster.Failure`: without retries where the run is held, for that waits for a person, or refused.
        """
        client = Client(self.url, self.token)
        try:
            request = client.ask(sync, key=key, reason=reason)
            report = client.wait(sync, request, every=self.poll, timeout=self.timeout)
        except Refused as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        except (httpx.HTTPError, TimeoutError) as error:
            raise dg.Failure(f"the daemon does not answer: {error}") from error
        why = why_not(report, accept)
        if why:
            held = report.get("exit_code") == HELD
            raise dg.Failure(f"{sync}: {why}", metadata=figures(report), allow_retries=not held)
        return report


def headgate_asset(
    sync: str, *, name: str = "", deps: Sequence[Any] = (), accept: Collection[int] = (0,), **options: Any
) -> dg.AssetsDefinition:
    """An asset that is materialised by running a sync; its metadata are the run's figures.

    `deps` are the assets the cohort is made from; `options` are those of `dagster.asset`. Its resource is called
    `headgate`.
    """

    @dg.asset(name=name or sync.replace("-", "_"), deps=deps, kinds={"headgate"}, **options)
    def synced(context: dg.AssetExecutionContext, headgate: HeadgateResource) -> dg.MaterializeResult:
        key = f"dagster-{context.run_id}-{context.op_handle}-{context.retry_number}"
        reason = f"Dagster run {context.run_id}"
        report = headgate.run(sync, key=key, reason=reason, accept=accept)
        return dg.MaterializeResult(metadata=figures(report))

    return synced


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """A report's counts and ids, as metadata."""
    ids = {key: report[key] for key in ("run", "plan", "status") if report.get(key)}
    return ids | {name: report[name] for name in _FIGURES if name in report}
