"""What the tests of connectors share: a connector over a wire that is a function, and its receipts by key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from sync.sdk.connector import Connector
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Receipt

__all__ = ["App", "connection", "pushed", "statuses"]

App = Callable[[httpx.Request], httpx.Response]
C = TypeVar("C", bound=Connector[Any])


@contextmanager
def connection(kind: type[C], app: App, **options: Any) -> Iterator[C]:
    """The connector with its production client, configured by `options`; `app` answers its requests."""
    config = kind.config_model(**options)
    with build_client(kind, config, timeout=5, transport=httpx.MockTransport(app)) as client:
        yield kind(config, client)


def pushed(connector: Connector[Any], batch: Batch) -> dict[str, Receipt]:
    """The receipts of a batch that settles at once, one a change, by key without `key-`."""
    outcome = connector.push(batch)
    assert isinstance(outcome, list)
    assert sorted(receipt.key for receipt in outcome) == sorted(change.key for change in batch.changes)
    return {receipt.key.removeprefix("key-"): receipt for receipt in outcome}


def statuses(receipts: Mapping[str, Receipt]) -> dict[str, str]:
    """Only what became of each."""
    return {key: receipt.status.value for key, receipt in receipts.items()}
