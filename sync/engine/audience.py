"""Reading an audience back: page by page, paced and tried again as any request, into a table."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type

from sync.engine.database import identifier
from sync.engine.job import DeliverySettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacer
from sync.engine.patience import Patience
from sync.errors import HeadgateError, ProtocolError, Unavailable
from sync.sdk.connector import Connector, Reads
from sync.sdk.nouns import Member, Page
from sync.sdk.values import text

if TYPE_CHECKING:
    import duckdb

__all__ = ["Audience", "load"]

_REQUEST_MARGIN = 2.0  # seconds of lease that are left when a request's time is up
_ROWS = 10_000


class _Stopped(HeadgateError):
    """Somebody stopped the reading; nothing was changed by it."""

    code = "HG528"


@dataclass
class Audience:
    """The audience of one sync, to be read once; `requests` counts what that took.

    Raises the errors of a destination where it does not answer, and `HeadgateError` where it cannot be read.
    """

    job: SyncJob
    keeper: LeaseKeeper
    pacer: Pacer
    settings: DeliverySettings
    stop: threading.Event
    requests: int = 0

    def members(self) -> Iterator[Member]:
        """Everybody who is in it. Somebody who moves while it is read may be seen twice."""
        connector = self.job.connect(self._before_request)
        try:
            spec = self.job.spec
            if not isinstance(connector, Reads) or not (spec.audience and spec.readable):
                raise HeadgateError(
                    f"connector '{connector.name}' cannot read who is in '{spec.name}'",
                    code="HG527",
                    fix="compare with an export of the platform by hand; `headgate state show` has our count",
                )
            yield from self._pages(connector, connector)
        finally:
            connector.http.close()

    def _pages(self, connector: Connector[Any], reads: Reads) -> Iterator[Member]:
        after: str | None = None
        seen: set[str] = set()
        while True:
            page = self._page(connector, reads, after)
            yield from page.members
            if page.next is None:
                return
            if page.next in seen:
                raise ProtocolError(f"{self.job.destination} gives the same page of its members again")
            seen.add(page.next)
            after = page.next

    def _page(self, connector: Connector[Any], reads: Reads, after: str | None) -> Page:
        patience = Patience(self.settings)
        for attempt in Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=patience.stop,
            wait=patience.delay,
            sleep=self._wait,  # type: ignore[arg-type]
            reraise=True,
        ):
            with attempt:
                return self._asked(connector, reads, after)
        raise AssertionError("tenacity returns or raises")

    def _asked(self, connector: Connector[Any], reads: Reads, after: str | None) -> Page:
        try:
            return reads.members(self.job.spec.name, self.job.sync.audience, after)
        except Unavailable as error:
            if error.retry_after is not None:
                self.pacer.pause(error.retry_after)
            raise
        except HeadgateError:
            raise
        except Exception as error:  # a connector's own mistake; its text may quote somebody
            raise ProtocolError(f"connector '{connector.name}' failed ({type(error).__name__})") from error

    def _before_request(self) -> None:
        if not self.pacer.acquire(self._wait):
            raise self._stopped()
        self.keeper.ensure(self.settings.request_timeout + _REQUEST_MARGIN)
        self.requests += 1

    def _wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if self.stop.wait(min(remaining, 0.2)):
                raise self._stopped()
        return self.stop.is_set()

    def _stopped(self) -> HeadgateError:
        return _Stopped(f"reading {self.job.destination} was interrupted; nothing was changed", fix="run it again")


def load(connection: duckdb.DuckDBPyConnection, names: Iterable[str], members: Iterable[Member]) -> None:
    """Put what was read into the table `found`: `remote_id` and the identifiers `id.NAME`, all text."""
    columns = list(names)
    own = "".join(f", {identifier(f'id.{name}')} VARCHAR" for name in columns)
    connection.execute(f"CREATE TEMP TABLE found (remote_id VARCHAR{own})")
    rows: list[list[str | None]] = []
    for member in members:
        values = (member.identifiers.get(name) for name in columns)
        rows.append([member.remote_id, *(None if v is None or v == "" else text(v) for v in values)])
        if len(rows) == _ROWS:
            _insert(connection, rows)
            rows = []
    if rows:
        _insert(connection, rows)


def _insert(connection: duckdb.DuckDBPyConnection, rows: list[list[str | None]]) -> None:
    values = ", ".join("unnest(?::VARCHAR[])" for _ in rows[0])
    connection.execute(f"INSERT INTO found SELECT {values}", [list(column) for column in zip(*rows, strict=True)])
