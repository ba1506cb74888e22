"""What a daemon is watched by holds no secrets and no people, while a destination quotes all that it was sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from sync.testing.fakes.server import serve
from tests.leaks.scene import Scene
from tests.web.test_daemon import address_of
from tests.web.test_watch import until

pytestmark = pytest.mark.slow

_COUNTED = re.compile(r"^headgate_runs_total\{.*\} [1-9]", re.MULTILINE)


@pytest.fixture
def bodies() -> list[str]:
    return []


@pytest.fixture
def elsewhere(bodies: list[str]) -> Iterator[str]:
    """A server that takes traces and lineage, and keeps what it is sent."""

    def take(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content.decode("latin-1") + str(request.headers) + str(request.url))
        return httpx.Response(200)

    with serve(take) as url:
        yield url


@pytest.mark.parametrize("status", [422, 500])
def test_metrics_traces_lineage_and_log_quote_nobody(
    delivered: Scene, elsewhere: str, bodies: list[str], status: int
) -> None:
    delivered.quote_back(status, per_record=status == 422)
    delivered.project.more = "    schedule: { every: 1s }\n"
    delivered.project.write().sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id IN (1, 31)")
    delivered.project.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": elsewhere,
        "OPENLINEAGE_URL": elsewhere,
        "HEADGATE__HTTP__OPEN_METRICS": "true",
        "HEADGATE__DELIVERY__ATTEMPTS": "1",
    }
    daemon = delivered.project.start("daemon", "--listen", "127.0.0.1:0", "-vv")
    url = address_of(daemon)
    page = until(lambda: text if _COUNTED.search(text := httpx.get(f"{url}/metrics").text) else "")
    ready = httpx.get(f"{url}/readyz").text
    daemon.terminate()
    delivered.end(daemon, "daemon")

    assert any("COMPLETE" in body or "FAIL" in body for body in bodies)
    assert any("headgate.batch" in body for body in bodies)
    delivered.printed += [(f"watched {n}", text) for n, text in enumerate([page, ready, *bodies])]
    assert delivered.secrets() == []
    assert {place for place in delivered.person() if place.startswith(("watched", "stderr of daemon"))} == set()
