"""`headgate person --forget` on a project with several syncs: hashed, encrypted, without removals, and gone."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.engine.database import open_database
from sync.project import load
from sync.state.parquet import source
from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Sink, running

MAIL, PHONE, ID = "person4321@mail.example", "+61410004321", 4321
HASH = hashlib.sha256(MAIL.encode()).hexdigest()
REASON = "ticket 4711"

HASHED = """\
version: 1
cohort:
  name: {cohort}
  title: The same people
  owner: lifecycle@acme.example
  source: {{ connection: warehouse, table: vip_cohort, key: user_id }}
syncs:
  - name: {name}
    destination: sink
    mode: {mode}
    identifiers:
      - {{ to: user_id, from: email, transform: [trim, lower, sha256] }}
    fields:
      - {{ to: country, from: country }}
"""


pytestmark = pytest.mark.timeout(600)  # two dozen commands


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with running(tmp_path / "sink.jsonl") as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, sink: Sink, request: pytest.FixtureRequest) -> Project:
    """10,000 people in three syncs: by id with the address as a field, by a hash, and by a hash in mode upsert."""
    key = base64.b64encode(b"k" * 32).decode()
    encrypted = getattr(request, "param", False)
    made = Project(tmp_path / "project", sink.url, batch_size=1000)
    if encrypted:
        made.extra, made.environment = '[state]\nkey = "env:STATE_KEY"\n', {"STATE_KEY": key}
    made.write().people(10_000)
    mappings = made.root / "mappings"
    (mappings / "hashed.yaml").write_text(HASHED.format(cohort="people", name="ads", mode="mirror"))
    (mappings / "upsert.yaml").write_text(HASHED.format(cohort="others", name="mail", mode="upsert"))
    return made


def words_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything the state folder holds: every byte of its files, and every value of its Parquet files."""
    for name, value in project.environment.items():
        monkeypatch.setenv(name, value)
    settings = load(project.root).settings.engine_settings()
    held = []
    for path in sorted(p for p in settings.folder.rglob("*") if p.is_file()):
        held.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            with open_database(settings) as connection:
                held.append(repr(connection.execute(f"SELECT * FROM {source(connection, path)}").fetchall()))
    return "\n".join(held)


def ok(done: Done, code: int = 0) -> Done:
    assert done.code == code, done.text
    assert all(word not in done.text for word in (MAIL, PHONE, HASH)), "the command says who"
    return done


@pytest.mark.parametrize(
    "project",
    [
        pytest.param(False, id="in the clear"),
        pytest.param(True, id="encrypted", marks=pytest.mark.endless),
    ],
    indirect=True,
)
def test_a_person_is_erased_from_every_sync_and_never_sent_again(
    project: Project, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.first_run()
    project.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id BETWEEN 4300 AND 4400")
    project.sql("DELETE FROM vip_cohort WHERE user_id <= 3000")
    assert project.run().code == 3  # removals are held
    (mappings := project.root / "mappings").joinpath("hashed.yaml").unlink()
    before = words_of(project, monkeypatch)
    assert all(word in before for word in (MAIL, PHONE, HASH))
    assert {ID, HASH} <= set(sink.members)

    made = ok(project.headgate("person", MAIL.upper(), "--forget", "--reason", REASON, "--json")).json
    assert {one["sync"]: (one["state"], one["outcome"]) for one in made["syncs"]} == {
        "ads": ("erased", "by_hand"),  # no mapping has it any more
        "mail": ("queued", "removed"),
        "sink-vip": ("queued", "removed"),
    }
    after = words_of(project, monkeypatch)
    assert all(word not in after for word in (MAIL, PHONE))
    assert HASH in after  # `mail` has yet to be told

    ok(project.run(), 3)
    assert {ID, HASH}.isdisjoint(sink.members)
    receipt = ok(project.headgate("person", "--erasure", made["erasure"], "--json")).json
    assert (receipt["done"], {one["state"] for one in receipt["syncs"]}) == (True, {"erased"})
    last = words_of(project, monkeypatch)
    assert all(word not in last for word in (MAIL, PHONE, HASH))
    assert MAIL not in ok(project.headgate("audit", "export")).text
    assert ok(project.headgate("audit", "verify", "--json")).code == 0

    mappings.joinpath("late.yaml").write_text(HASHED.format(cohort="late", name="late", mode="mirror"))
    late = ok(project.run("late", "--first-run"))
    assert (late.sync["forgotten"], late.sync["applied"]) == (1, 6999)
    assert HASH not in sink.members
    count = sink.count
    idle = ok(project.run("late", "mail"))
    assert (sink.count, {one["status"] for one in idle.json["syncs"]}) == (count, {"completed"})

    ok(project.headgate("person", MAIL, "--remember", "--reason", "signed up again"))
    ok(project.run("late"))
    assert HASH in sink.members


def test_the_identifier_may_come_by_standard_input_and_must_be_someone(project: Project) -> None:
    for words in (["person", "--forget", "--reason", REASON], ["person", "-", "--forget", "--reason", REASON]):
        done = project.headgate(*words)  # its standard input is empty
        assert (done.code, "who is meant" in done.err) == (2, True)
    assert project.headgate("person", MAIL, "--forget").code == 2
    said = project.headgate("person", MAIL, "--forget", "--reason", f"{MAIL} asked")
    assert (said.code, "HG352" in said.err, MAIL in said.text) == (2, True, False)
    assert project.headgate("person", "--erasure", "nothing").code == 2
