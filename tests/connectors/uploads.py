"""A sync of people's identifiers to a fake platform, through the real engine, ledger and client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sync.engine.job import SyncJob
from sync.mapping import Cohort, Sync
from sync.sdk.connector import Connector
from sync.sdk.http import build_client, offline_client
from tests.state.world import SYNC, Warehouse, World

__all__ = ["Upload"]

Row = Mapping[str, str | None]


@dataclass
class Upload(World):
    """One sync of every column of the cohort, as an identifier of that name; those in `more` are fields."""

    kind: type[Connector[Any]] = None  # type: ignore[assignment]
    options: Mapping[str, Any] = field(default_factory=dict)
    app: Callable[[httpx.Request], httpx.Response] = None  # type: ignore[assignment]
    object: str = ""
    audience: str = "1"
    more: tuple[str, ...] = ()

    def cohort(self, *rows: Row) -> Upload:
        """(Re)make the cohort with these people."""
        self._names = list(rows[0])
        columns = ", ".join(f"{name} VARCHAR" for name in self._names)
        self.warehouse.execute(f"CREATE OR REPLACE TABLE vips (id BIGINT, {columns})")
        for number, row in enumerate(rows):
            marks = ", ".join("?" * (len(row) + 1))
            self.warehouse.execute(f"INSERT INTO vips VALUES ({marks})", [number, *row.values()])
        return self

    @property
    def job(self) -> SyncJob:
        config = self.kind.config_model.model_validate(dict(self.options))
        with offline_client(self.kind, config) as client:
            spec = self.kind(config, client).objects[self.object]
        sync = {
            "name": SYNC,
            "destination": "ads",
            "object": self.object,
            "audience": self.audience,
            "mode": str(self.mode),
            "identifiers": _mapped(name for name in self._names if name not in self.more),
            "fields": _mapped(self.more),
        }
        source = {"connection": "warehouse", "table": "vips", "key": "id"}
        return SyncJob(
            name=SYNC,
            cohort=Cohort.model_validate({"name": "vips", "source": source}),
            sync=Sync.model_validate(sync),
            destination="ads",
            spec=spec,
            limits=spec.limits,
            account="ads.example",
            guardrails=self.guardrails,
            mapping_digest=self.digest,
            author="",
            source=lambda: Warehouse(self.warehouse),
            connect=self._connect,
        )

    def _connect(self, before: Callable[[], None]) -> Connector[Any]:
        config = self.kind.config_model.model_validate(dict(self.options))
        wire = httpx.MockTransport(self.app)
        return self.kind(config, build_client(self.kind, config, timeout=5, before_request=before, transport=wire))


def _mapped(names: Iterable[str]) -> list[dict[str, Any]]:
    return [{"to": name, "from": name, "pii": True} for name in names]
