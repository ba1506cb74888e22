"""A project folder as a user would have it, and the command run in it as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import orjson

COLUMNS = "user_id, email, phone, first_name, country, ltv, score, cohort, updated_at"

PEOPLE = """
    SELECT i AS user_id, 'person' || i || '@mail.example' AS email, '+6141' || lpad(i::VARCHAR, 7, '0') AS phone,
        'Name' || (i % 1000) AS first_name, ['AU', 'NZ', 'GB', 'NO'][1 + i % 4] AS country,
        (i % 90000) / 100.0 AS ltv, (i * 7919) % 1000 AS score, 'vip' AS cohort,
        now() - INTERVAL 1 HOUR AS updated_at
    FROM range({first}, {first} + {count}) AS people(i)
"""

_CONFIG = """\
[sources.warehouse]
{warehouse}

[destinations.sink]
type = "webhook"
url = "{url}"
batch_size = {batch_size}
concurrency = {concurrency}
{destination}
{extra}"""

_MAPPING = """\
version: 1
cohort:
  name: vip_cohort
  title: VIP customers
  owner: lifecycle@acme.example
  purpose: Treat the best customers best.
  definition: Everybody in the table.
  source: {{ connection: warehouse, table: vip_cohort, key: user_id, updated_at: updated_at }}
syncs:
  - name: {sync}
    destination: sink
    mode: {mode}
    identifiers:
      - {{ to: user_id, from: user_id }}
    fields:
      - {{ to: email, from: email, transform: [trim, lower], pii: true }}
      - {{ to: phone, from: phone, pii: true }}
      - {{ to: first_name, from: first_name, pii: true }}
      - {{ to: country, from: country }}
      - {{ to: ltv, from: ltv }}
      - {{ to: score, from: score }}
{more}"""


@dataclass(frozen=True)
class Done:
    """A finished command. `rss_mb` is the peak of resident memory, `cpu_s` user and system time."""

    code: int
    out: str
    err: str
    cpu_s: float
    wall_s: float
    rss_mb: float

    @property
    def json(self) -> dict[str, Any]:
        """The document on stdout: exactly one."""
        parsed: dict[str, Any] = orjson.loads(self.out)
        return parsed

    @property
    def sync(self) -> dict[str, Any]:
        """What `plan --json` and `run --json` say of the only sync."""
        (only,) = self.json["syncs"]
        return dict(only)

    @property
    def text(self) -> str:
        """Everything a person could read."""
        return self.out + self.err


class Process:
    """A running command. Its output goes to files, so that it can never block on us."""

    def __init__(self, root: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        stem = root / f".output-{time.monotonic_ns()}"
        self._out, self._err = stem.with_suffix(".out"), stem.with_suffix(".err")
        self._started = time.perf_counter()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sync.cli.app", *arguments],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=root, env=environment,
            )  # fmt: skip
        self.pid = self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """`kill -9`."""
        self.send(signal.SIGKILL)

    def terminate(self) -> None:
        """`kill`."""
        self.send(signal.SIGTERM)

    def wait(self, timeout: float = 120.0) -> Done:
        """Until it ends; kills it and fails when it does not."""
        peak, deadline = 0.0, self._started + timeout
        while True:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                break
            peak = max(peak, _peak_mb(self.pid))
            if time.perf_counter() > deadline:
                self.kill()
                os.wait4(self.pid, 0)
                self._process.returncode = -9
                raise AssertionError(f"the command did not end in {timeout} s:\n{self._err.read_text()}")
            time.sleep(0.01)
        wall = time.perf_counter() - self._started
        self._process.returncode = os.waitstatus_to_exitcode(status)
        cpu = usage.ru_utime + usage.ru_stime
        return Done(self._process.returncode, self._out.read_text(), self._err.read_text(), cpu, wall, peak)


def _peak_mb(pid: int) -> float:
    # The kernel's ru_maxrss of a child starts from its parent's, so it is not the command's own.
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    line = next((ln for ln in status.splitlines() if ln.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) / 1024


@dataclass
class Project:
    """The folder: config.toml, mappings/vip.yaml, warehouse.duckdb."""

    root: Path
    url: str
    batch_size: int = 100
    concurrency: int = 4
    mode: str = "mirror"
    sync: str = "sink-vip"
    warehouse: str = 'type = "duckdb"\npath = "warehouse.duckdb"'
    destination: str = ""  # more lines of [destinations.sink]
    extra: str = ""  # more of config.toml
    more: str = ""  # more lines of the sync, indented by four
    environment: dict[str, str] = field(default_factory=dict)

    def write(self) -> Project:
        """Write the files (again)."""
        (self.root / "mappings").mkdir(parents=True, exist_ok=True)
        values = vars(self)
        (self.root / "config.toml").write_text(_CONFIG.format(**values))
        (self.root / "mappings" / "vip.yaml").write_text(_MAPPING.format(**values))
        return self

    def people(self, count: int, *, first: int = 1) -> Project:
        """(Re)make the cohort's table with people numbered from `first`."""
        return self.sql(f"CREATE OR REPLACE TABLE vip_cohort AS {PEOPLE.format(first=first, count=count)}")

    def more_people(self, first: int, count: int) -> Project:
        """Add people."""
        return self.sql(f"INSERT INTO vip_cohort {PEOPLE.format(first=first, count=count)}")

    def sql(self, statement: str) -> Project:
        """Change the warehouse."""
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as connection:
            connection.execute(statement)
        return self

    def start(self, *arguments: str) -> Process:
        """Start `headgate ARGUMENTS` in the folder and do not wait."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HEADGATE") and k != "FORCE_COLOR"}
        return Process(self.root, arguments, {**clean, "NO_COLOR": "1", "COLUMNS": "80", **self.environment})

    def headgate(self, *arguments: str, timeout: float = 120.0) -> Done:
        """Run `headgate ARGUMENTS` in the folder."""
        return self.start(*arguments).wait(timeout)

    def run(self, *arguments: str, timeout: float = 120.0) -> Done:
        """`headgate run --json`."""
        return self.headgate("run", "--json", *arguments, timeout=timeout)

    def first_run(self) -> Done:
        """`headgate run --first-run --json`, which must succeed."""
        done = self.run("--first-run")
        assert done.code == 0, done.text
        return done
