"""An account's quota is used up and never exceeded: by one sync, and by processes that do not know each other."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import orjson
import pytest

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake
from sync.testing.fakes.server import serve
from tests.acceptance.project import Project
from tests.figures import Figures

QUOTA = Rate(100, 10.0)
PEOPLE = 20_000
ALLOWED = 'delivery = { rate_limit = "100/10s" }'


class Receiver(Fake):
    """Speaks the webhook protocol, answers a hundred requests in any ten seconds, and remembers when."""

    routes = (("POST", "/.*", "take"),)

    def __init__(self) -> None:
        super().__init__(rate=QUOTA)
        self.times: list[float] = []
        self.people: set[int] = set()

    def authorised(self, request: httpx.Request) -> bool:
        """Everybody is."""
        return True

    def unauthorised(self) -> httpx.Response:
        """Never said."""
        return httpx.Response(401)

    def too_fast(self, wait: float) -> httpx.Response:
        """Wait."""
        return httpx.Response(429, headers={"Retry-After": str(int(wait) + 1)})

    def no_route(self, request: httpx.Request) -> httpx.Response:
        """Only POST."""
        return httpx.Response(405)

    def take(self, asked: Asked) -> httpx.Response:
        """Keep the records."""
        self.times.append(time.monotonic())
        self.people.update(record["user_id"] for record in asked.body["records"])
        return httpx.Response(200, content=orjson.dumps({"errors": [None] * len(asked.body["records"])}))

    @property
    def used(self) -> float:
        """The share of the quota that was used from the first request to the last.

        So many requests need all windows but the last in full: the share is the least time over the time taken.
        """
        least = (len(self.times) - 1) // QUOTA.requests * QUOTA.per
        return least / (self.times[-1] - self.times[0])


def project(folder: Path, url: str, sync: str = "sink-vip") -> Project:
    folder.mkdir(parents=True, exist_ok=True)
    return Project(folder, url, batch_size=50, concurrency=4, destination=ALLOWED, sync=sync).write()


@pytest.mark.endless
def test_twenty_thousand_records_use_the_quota_and_never_exceed_it(tmp_path: Path, figures: Figures) -> None:
    receiver = Receiver()
    with serve(receiver) as url:
        done = project(tmp_path / "one", url).people(PEOPLE).run("--first-run", timeout=120)

    assert (done.code, done.sync["applied"], done.sync["retries"]) == (0, PEOPLE, 0), done.text
    assert len(receiver.people) == PEOPLE
    assert receiver.refused == 0
    assert receiver.used >= 0.95, receiver.used
    figures.most("share of the quota used, %", round(100 * receiver.used, 1))


@pytest.mark.endless
def test_two_processes_at_once_share_one_quota(tmp_path: Path) -> None:
    receiver = Receiver()
    with serve(receiver) as url:
        here = project(tmp_path / "two", url).people(PEOPLE // 2)
        mapping = (here.root / "mappings" / "vip.yaml").read_text()
        other = mapping.replace("sink-vip", "sink-more").replace("vip_cohort", "more_cohort")
        (here.root / "mappings" / "more.yaml").write_text(other)
        here.sql("CREATE TABLE more_cohort AS SELECT * REPLACE (user_id + 1000000 AS user_id) FROM vip_cohort")
        first = here.start("run", "sink-vip", "--first-run", "--json")
        second = here.start("run", "sink-more", "--first-run", "--json")
        codes = [first.wait(150).code, second.wait(150).code]

    assert codes == [0, 0]
    assert len(receiver.people) == PEOPLE
    assert receiver.refused == 0
    assert receiver.used >= 0.8, receiver.used  # others have the machine, too
