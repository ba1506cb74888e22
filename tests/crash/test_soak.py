"""A daemon over weeks: every slot is asked for, nobody is lost, and it neither grows nor leaks."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from tests.acceptance.sink import Sink
from tests.crash.forge import Forge
from tests.crash.soak import Soak, said


def nobody_is_lost(soak: Soak) -> dict[str, object]:
    report = soak.report()
    print(said(report))
    assert report["slots not asked for"] == 0
    assert (report["lost"], report["left over"], report["other values"]) == (0, 0, 0)
    audit = soak.forge.start(soak.project, "audit", "verify", "--json").wait()
    assert audit.code == 0, audit.text
    return report


@pytest.mark.slow
@pytest.mark.timeout(170)
def test_hours_of_four_syncs_with_faults_and_a_kill(sink: Sink, forge: Forge, tmp_path: Path) -> None:
    soak = Soak(tmp_path / "project", sink, forge, syncs=4, people=40).begin()
    for number in range(3):
        soak.hour(kill=number == 1)
    soak.end()

    report = nobody_is_lost(soak)
    assert soak.kills == 1
    assert report["slots"] == 12
    forge.end_all()


@pytest.mark.endless
@pytest.mark.timeout(3600)
def test_a_thousand_runs_of_twenty_syncs_with_faults_and_twenty_kills(
    sink: Sink, forge: Forge, tmp_path: Path
) -> None:
    """The kills come first: then one process lives long enough for its memory to tell something."""
    soak = Soak(tmp_path / "project", sink, forge, syncs=20).begin()
    for _ in range(20):
        soak.hour(kill=True)
    for _ in range(30):
        soak.hour(kill=False)
    lasting = soak.hours[20:]
    second, last = lasting[3:6], lasting[-3:]
    soak.end()

    report = nobody_is_lost(soak)
    figures = {
        "MiB in the second tenth": round(mean(h.rss for h in second), 1),
        "MiB in the last tenth": round(mean(h.rss for h in last), 1),
        "files in the second tenth": max(h.files for h in second),
        "files in the last tenth": max(h.files for h in last),
        "slowest hour, s": round(max(h.seconds for h in soak.hours), 1),
        "MiB by hour": [round(h.rss) for h in lasting],
        "files by hour": [h.files for h in lasting],
    }
    print(said(figures))
    assert soak.kills == 20
    assert report["slots"] == 1000
    assert soak.runs >= 1000
    assert mean(h.rss for h in last) <= 1.1 * mean(h.rss for h in second)
    assert max(h.files for h in last) <= max(h.files for h in second) + 4
    forge.end_all()
