"""A small project, and the command run in it: in this process where many are run, else as a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.cli.app import run
from tests.acceptance.project import Process, Project

PEOPLE = 300
SYNC = "sink-vip"

QUICK = """\
[engine]
lease_ttl = "6s"
[delivery]
request_timeout = "1s"
backoff_first = "20ms"
backoff_max = "50ms"
attempts = 3
"""


@dataclass(frozen=True)
class Settled:
    """A project in step with its destination, and whom the destination knows."""

    folder: Path
    members: dict[Any, dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything a person could read."""
        return self.out + self.err

    @property
    def json(self) -> dict[str, Any]:
        """The document on stdout."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed

    @property
    def sync(self) -> dict[str, Any]:
        """What `plan --json` and `run --json` say of the only sync."""
        (only,) = self.json["syncs"]
        return dict(only)

    @property
    def error(self) -> str:
        """The code of the error that ended the command, or the only sync; empty where there was none."""
        document = self.json
        (one,) = document.get("syncs", [document])
        found = one.get("error") or document.get("error") or {}
        return str(found.get("code", ""))

    def succeeded(self) -> Answer:
        """The same, which must have ended well."""
        assert self.code == 0, self.text
        return self

    def failed(self, *codes: str) -> Answer:
        """The same, which must have ended with one of these errors, told as people are told."""
        assert self.code == 1, self.text
        assert "Traceback" not in self.text
        assert self.error in codes, self.text
        return self


@dataclass
class Small(Project):
    """300 people, batches of 50, two at once, and little patience."""

    batch_size: int = 50
    concurrency: int = 2
    extra: str = QUICK
    environment: dict[str, str] = field(default_factory=dict)

    def begun(self) -> Small:
        """Write the files and the cohort."""
        self.write()
        self.people(PEOPLE)
        return self

    def many(self) -> Small:
        """6,000 people with names that do not compress, so that files are larger than what the ledger needs."""
        self.people(6000)
        self.sql("UPDATE vip_cohort SET first_name = md5(user_id::VARCHAR), email = md5(email) || '@mail.example'")
        return self

    @property
    def state(self) -> Path:
        """The state folder."""
        return self.root / ".headgate"

    def here(self, *arguments: str) -> Answer:
        """`headgate ARGUMENTS --json`, in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([*arguments, "--json", "--project", str(self.root)])
        return Answer(code, out.getvalue(), err.getvalue())

    def process(self, *arguments: str) -> Answer:
        """`headgate ARGUMENTS --json` as a process of its own, to its end."""
        return self.ended(self.start(*arguments, "--json"))

    def ended(self, process: Process, timeout: float = 120.0) -> Answer:
        """What a process that was started said in the end."""
        done = process.wait(timeout)
        return Answer(done.code, done.out, done.err)
