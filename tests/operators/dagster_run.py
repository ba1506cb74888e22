"""Materialises a sync's asset in a Dagster of its own, and tells what became of it: `dagster_run.py URL TOKEN`."""

from __future__ import annotations

import json
import sys

import dagster as dg

from sync.operators.dagster import HeadgateResource, headgate_asset


@dg.asset
def vip_cohort() -> None:
    """What the cohort is made from."""


def main(url: str, token: str) -> None:
    """Materialise both, and tell of the sync's."""
    asset = headgate_asset("sink-vip", deps=[vip_cohort], retry_policy=dg.RetryPolicy(max_retries=2))
    resources = {"headgate": HeadgateResource(url=url, token=token, poll=0.1, timeout=60)}
    result = dg.materialize([vip_cohort, asset], resources=resources, raise_on_error=False)
    failures = [e.step_failure_data for e in result.all_events if e.is_step_failure]
    metadata = {}
    for event in result.asset_materializations_for_node("sink_vip") if result.success else []:
        metadata = {name: value.value for name, value in event.metadata.items()}
    told = {
        "success": result.success,
        "failure": failures[0].user_failure_data.description if failures else "",
        "retries": sum(event.is_step_up_for_retry for event in result.all_events),
        "metadata": metadata,
        "upstream": [key.to_user_string() for key in asset.dependency_keys],
    }
    print("TOLD", json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
