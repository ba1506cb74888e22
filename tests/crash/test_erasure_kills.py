"""Killed at every point of an erasure: the command repeated, or the next run, finishes it, and nothing is left."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tests.crash.ground import SYNC, Ground, GroundOf

WHO, MAIL = 77, "person77@mail.example"
FORGET = ("person", MAIL, "--forget", "--reason", "ticket 4711", "--json")
REMEMBER = ("person", MAIL, "--remember", "--reason", "signed up again", "--json")

OF_THE_COMMAND = (
    *(f"{write}.{side}" for write in ("forget", "rewrite", "unquote") for side in ("before", "after")),
    "erasure_file.written",
    "erasure_file.named",
    "erasure_file.swept",
)
OF_THE_RUN = ("end_erasure.before", "end_erasure.after", "rewrite.after", "erasure_file.named", "request.answered")
OF_REMEMBERING = ("remember_again.before", "remember_again.after")

pytestmark = pytest.mark.timeout(180)


def where(ground: Ground) -> list[str]:
    """The state files that hold the person's address: every byte, and every value of Parquet files."""
    found = []
    for path in sorted((ground.project.root / ".headgate").rglob("*")):
        if path.is_file() and (MAIL.encode() in path.read_bytes() or MAIL in _values(path)):
            found.append(path.name)  # noqa: PERF401
    return found


def _values(path: Path) -> str:
    if not path.read_bytes().endswith(b"PAR1"):
        return ""
    with duckdb.connect() as connection:
        return repr(connection.execute(f"SELECT * FROM read_parquet('{path}')").fetchall())


def ended(ground: Ground) -> None:
    """The person is nowhere, everybody else is where they were, and the audit log verifies."""
    assert where(ground) == []
    truth = {who: row for who, row in ground.truth().items() if who != WHO}
    assert ground.at_the_destination() == truth
    assert ground.members() == set(truth)
    assert MAIL not in ground.headgate("audit", "export").text
    ground.looked_after()


@pytest.mark.parametrize("point", OF_THE_COMMAND)
def test_the_command_repeated_finishes_what_was_killed(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()
    assert ground.headgate(*FORGET, fault=f"{point}:1:kill").code == -9
    ground.looked_after()

    assert ground.headgate(*FORGET).code == 0
    assert ground.headgate("run", SYNC).code == 0

    ended(ground)


@pytest.mark.parametrize("point", OF_THE_RUN)
def test_the_next_run_finishes_what_was_killed(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()
    done = ground.headgate(*FORGET)
    assert done.code == 0, done.text
    assert ground.headgate("run", SYNC, fault=f"{point}:1:kill").code == -9
    ground.looked_after()

    assert ground.headgate("run", SYNC).code == 0

    ended(ground)
    receipt = ground.headgate("person", "--erasure", done.json["erasure"], "--json")
    assert (receipt.json["done"], receipt.json["syncs"][0]["outcome"]) == (True, "removed")


@pytest.mark.parametrize("point", OF_REMEMBERING)
def test_who_is_remembered_is_sent_again_whatever_was_killed(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()
    assert ground.headgate(*FORGET).code == 0
    assert ground.headgate("run", SYNC).code == 0

    assert ground.headgate(*REMEMBER, fault=f"{point}:1:kill").code == -9
    assert ground.headgate(*REMEMBER).code == 0
    assert ground.again().code == 0

    assert ground.at_the_destination() == ground.truth()
