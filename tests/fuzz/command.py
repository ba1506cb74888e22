"""The real command in this process, held to what is true of every command line whatever it is given.

It ends with an exit code of the contract, in bounded time; it names codes that `headgate explain` knows; it never
shows a trace, and never the code of a bug.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from sync.cli.app import run
from sync.codes import catalog

__all__ = ["CONFIG", "MAPPING", "Answer", "Project", "check_problems"]

_CODE = re.compile(r"\[(HG\d+)\]")
_SLOWEST = 30.0  # seconds of processor time that one command may take, on a slow machine

# Places inside a file are known but for these: the file as a whole is amiss, or the parser gives none.
_WITHOUT_LINE = {"HG101", "HG102", "HG103", "HG108", "HG128"}

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.sink]
type = "file"
path = "out"
format = "jsonl"

[guardrails]
max_removed = 500
max_removed_pct = 10

[people.groups]
leads = ["ann@acme.example"]
"""

MAPPING = """\
version: 1
cohort:
  name: vips
  title: VIP customers
  owner: lifecycle@acme.example
  reviewers: [data@acme.example]
  purpose: Treat the best customers best.
  definition: Everybody in the table.
  limitations: [Guests are never members.]
  protected: false
  source: { connection: warehouse, table: people, key: id, updated_at: seen }
  refresh: { every: 24h, stale_after: 3000d }
  expect: { rows: { min: 1, max: 250000 }, drift_pct: 25 }
syncs:
  - name: sink-vips
    destination: sink
    object: row
    mode: mirror
    schedule: { cron: "15 6 * * *", timezone: Australia/Perth }
    identifiers:
      - { to: email, from: email, transform: [trim, lower], pii: true }
    fields:
      - { to: name, from: name, transform: [trim, { truncate: 40 }], pii: true }
      - { to: score, expr: "round(score / 100, 2)" }
      - { to: phone, from: phone, transform: [{ e164: AU }, { default: none }] }
      - { to: source, value: headgate }
    guardrails: { max_removed: 400, max_removed_pct: 5, approve: { by: [leads], four_eyes: true } }
    delivery: { rate_limit: 100/10s, batch_size: 50, concurrency: 2 }
    tags: [daily, "1"]
"""

PEOPLE = """
    CREATE OR REPLACE TABLE people AS
    SELECT i AS id, 'p' || i || '@mail.example' AS email, ' Name ' || i AS name, i * 7.5 AS score,
        '0412 345 67' || (i % 10) AS phone, TIMESTAMP '2026-01-01 00:00:00' AS seen FROM range(5) AS t(i)
"""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    @property
    def codes(self) -> set[str]:
        """Every code it names."""
        return set(_CODE.findall(self.out + self.err)) | set(re.findall(r'"code": "(HG\d+)"', self.out))


@dataclass
class Project:
    """A small project folder whose files are rewritten for each example."""

    root: Path
    config: str = CONFIG
    mapping: str | bytes = MAPPING

    def write(self) -> Project:
        """Write every file, and forget all state."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "mappings").mkdir(parents=True)
        (self.root / "out").mkdir()
        (self.root / "config.toml").write_bytes(self.config.encode())
        mapping = self.mapping if isinstance(self.mapping, bytes) else self.mapping.encode()
        (self.root / "mappings" / "vips.yaml").write_bytes(mapping)
        return self

    def people(self) -> Project:
        """Give it a warehouse."""
        return self.sql(PEOPLE)

    def sql(self, *statements: str) -> Project:
        """Change the warehouse."""
        with duckdb.connect(str(self.root / "warehouse.duckdb"), config={"threads": 1}) as connection:
            for statement in statements:
                connection.execute(statement)
        return self

    def headgate(self, *arguments: str, elsewhere: bool = False) -> Answer:
        """Run a command line; `elsewhere` leaves `--project` to the arguments."""
        whole = arguments if elsewhere else (*arguments, "--project", str(self.root))
        out, err = io.StringIO(), io.StringIO()
        began = time.process_time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(whole)
        answer = Answer(code, out.getvalue(), err.getvalue())
        _check(answer, whole, time.process_time() - began)
        return answer


def _check(answer: Answer, arguments: tuple[str, ...], seconds: float) -> None:
    shown = f"{arguments!r:.300}\n{answer}"
    assert answer.code in range(6), shown
    assert answer.codes <= set(catalog()) - {"HG900"}, shown
    assert "Traceback" not in answer.out + answer.err, shown
    assert answer.code in (0, 3, 4, 5) or answer.codes or "--help" in arguments, shown
    assert seconds < _SLOWEST, shown
    if "--json" in arguments and answer.out:
        assert isinstance(answer.json, dict), shown


def check_problems(answer: Answer, file: str) -> int:
    """Each problem of `validate --json` or of a refusal has a code, a reason and a place; how many there are."""
    document = answer.json
    problems = document.get("problems") or document.get("error", {}).get("problems", [])
    for problem in problems:
        assert problem["code"] in catalog(), problem
        assert problem["message"].strip(), problem
        assert problem["file"], problem
        if problem["file"] == file and problem["code"] not in _WITHOUT_LINE:
            assert problem["line"] > 0, problem
            assert problem["column"] > 0, problem
    return len(problems)
