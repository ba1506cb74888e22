"""Reading an audience back: page by page, paced and tried again as any request, into a table."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.engine.database import identifier, insert
from sync.engine.dispatch import lifetime
from sync.engine.job import DeliverySettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacer
from sync.engine.patience import retrying
from sync.errors import HeadgateError, ProtocolError, Unavailable
from sync.sdk.connector import Connector, Reads
from sync.sdk.nouns import Member, Page
from sync.sdk.values import text

if TYPE_CHECKING:
    import duckdb

__all__ = ["Audience", "load"]

_ROWS = 10_000


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
        for attempt in retrying(self.settings, self._wait):
            with attempt:
                return self._asked(connector, reads, after)
        raise AssertionError("tenacity returns or raises")

    def _asked(self, connector: Connector[Any], reads: Reads, after: str | None) -> Page:
        try:
            page = reads.members(self.job.spec.name, self.job.sync.audience, after)
        except Unavailable as error:
            self.pacer.failed(error)
            raise
        except HeadgateError:
            raise
        except Exception as error:  # a connector's own mistake; its text may quote somebody
            raise ProtocolError(f"connector '{connector.name}' failed ({type(error).__name__})") from error
        self.pacer.answered()
        return page

    def _before_request(self) -> None:
        if not self.pacer.acquire(self._wait):
            raise self._stopped()
        self.keeper.ensure(lifetime(self.settings))
        self.requests += 1

    def _wait(self, seconds: float) -> bool:
        if self.stop.wait(seconds):
            raise self._stopped()
        return False

    def _stopped(self) -> HeadgateError:
        message = f"reading {self.job.destination} was interrupted; nothing was changed"
        return HeadgateError(message, code="HG528", fix="run it again")


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
            insert(connection, "found", rows)
            rows = []
    if rows:
        insert(connection, "found", rows)
