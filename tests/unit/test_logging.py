"""The log: one line an event, and neither a secret nor a person in it."""

from __future__ import annotations

import errno
import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

import sync.logging as ours
from sync.errors import RequestError
from sync.logging import bound, carried, configure, get_logger, redact_text, register_secret

SECRET = "pat-na1-S3cr3t/with+odd chars"


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Everything as it was before the test, the libraries' loggers too."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    ours._secrets.clear()
    ours._pattern = None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Disk(io.StringIO):
    """A file on a disk that is full for a while, or whose reader is gone."""

    error: Exception | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.error is not None:
            raise self.error


def logged(level: str = "warning", /, _verbose: int = 2, **values: Any) -> dict[str, Any]:
    """One event as JSON."""
    stream = io.StringIO()
    configure(_verbose, json=True, stream=stream)
    getattr(get_logger("sync.test"), level)(values.pop("event", "something happened"), **values)
    return dict(json.loads(stream.getvalue()))


def test_a_line_has_time_level_logger_and_values() -> None:
    line = logged("info", applied=1000, sync="hubspot-winback")

    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "something happened",
        "level": "info",
        "logger": "sync.test",
        "applied": 1000,
        "sync": "hubspot-winback",
    }


@pytest.mark.parametrize(("verbose", "shown"), [(0, ["c"]), (1, ["b", "c"]), (2, ["a", "b", "c"])])
def test_verbosity_chooses_the_levels(verbose: int, shown: list[str]) -> None:
    stream = io.StringIO()
    configure(verbose, stream=stream)
    log = get_logger("sync.test")
    log.debug("a")
    log.info("b")
    log.warning("c")

    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == shown


def test_a_terminal_gets_coloured_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    configure(stream=stream)
    get_logger("sync.test").warning("held", plan="p_1")

    assert "\x1b[" in stream.getvalue()
    assert "held" in stream.getvalue()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        BrokenPipeError(),
        ValueError("closed"),
    ],
    ids=["full", "nobody reads", "closed"],
)
def test_a_log_that_cannot_be_written_raises_nothing_and_goes_on_when_it_can(error: Exception) -> None:
    disk = Disk()
    configure(1, json=True, stream=disk)
    log = get_logger("sync.test")
    log.info("before")
    disk.error = error
    log.info("lost")
    logging.getLogger("apscheduler").error("lost, too")
    disk.error = None
    log.info("after")

    assert [json.loads(line)["event"] for line in disk.getvalue().splitlines()] == ["before", "after"]


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    configure(stream=stream)
    get_logger("sync.test").warning("held", plan="p_1")

    assert "\x1b[" not in stream.getvalue()
    assert "plan=p_1" in stream.getvalue()


def test_a_terminal_gets_json_where_asked() -> None:
    stream = Terminal()
    configure(json=True, stream=stream)
    get_logger("sync.test").warning("held")

    assert json.loads(stream.getvalue())["event"] == "held"


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "client_secret",
        "access_token",
        "api_key",
        "x-api-key",
        "Authorization",
        "private_key",
        "cookie",
    ],
)
def test_values_named_like_secrets_are_hidden(key: str) -> None:
    assert logged(**{key: "abc", "nested": {key: "abc"}})["nested"] == {key: "•••"}
    assert logged(**{key: "abc"})[key] == "•••"


@pytest.mark.parametrize("key", ["detail", "body", "identifiers"])
def test_evidence_is_hidden(key: str) -> None:
    assert logged(**{key: "Ann Smith is not a member"})[key] == "•••"


def test_secret_values_of_pydantic_are_hidden() -> None:
    assert logged(options=[SecretStr("abc")], value=SecretStr("abc"))["value"] == "•••"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"GET https://api.example/?q={SECRET}",
        "GET https://api.example/?q=pat-na1-S3cr3t%2Fwith%2Bodd%20chars",
    ],
)
def test_registered_secrets_are_hidden_wherever_they_appear(text: str) -> None:
    register_secret(SECRET)
    line = json.dumps(logged(event=text, values=[{"inner": text}], run=text, error=ValueError(text)))

    assert "S3cr3t" not in line
    assert line.count("•••") + line.count("\\u2022\\u2022\\u2022") == 4


def test_a_registered_secret_in_a_key_is_hidden() -> None:
    register_secret(SECRET)

    assert "S3cr3t" not in json.dumps(logged(counts={SECRET: 1}))


def test_every_line_of_a_registered_key_file_is_hidden() -> None:
    register_secret("-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50\n-----END PRIVATE KEY-----")

    assert "MC4CAQAw" not in json.dumps(logged(event="bad line MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50"))


def test_a_secret_too_short_to_be_one_does_not_garble_the_log() -> None:
    register_secret("a")

    assert logged(event="a plan was made")["event"] == "a plan was made"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sent to ann.o'neil+x@mail.acme.example ok", "sent to •••@mail.acme.example ok"),
        ("call +61 (412) 345-678", "call •••"),
        ("call 0412345678.", "call •••."),
        ("tel:+61412345678", "tel:•••"),
        ("at 2026-11-23T00:18:00Z", "at 2026-11-23T00:18:00Z"),
        ("refreshed 2026-11-23", "refreshed 2026-11-23"),
        ("from 192.168.100.200:8080", "from 192.168.100.200:8080"),
        ("run 3f2a12345678 plan 12345678-1234-4234-8234-1234567890ab", None),
        ("took 12.345 s for 100000 rows", None),
        ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer •••"),
        ("https://user:hunter22@host/path", "https://user:•••@host/path"),
    ],
)
def test_personal_data_is_masked_in_texts(text: str, expected: str | None) -> None:
    assert redact_text(text) == (text if expected is None else expected)
    assert logged(event=text)["event"] == (text if expected is None else expected)


def test_numbers_stay_numbers() -> None:
    assert logged(rows=100_000_000, seconds=12.5, ok=True, none=None)["rows"] == 100_000_000


class Status(StrEnum):
    HELD = "held"


@dataclass
class Row:
    name: str


def test_objects_are_named_and_not_shown() -> None:
    line = logged(row=Row("Ann"), blob=b"Ann", status=Status.HELD, path=Path("a/b"), many=(Row("Ann"), {1}))

    assert line["row"] == "<Row>"
    assert line["blob"] == "<3 bytes>"
    assert line["status"] == "held"
    assert line["path"] == "a/b"
    assert line["many"] == ["<Row>", [1]]


def test_an_exception_is_logged_without_locals_and_without_evidence() -> None:
    stream = io.StringIO()
    configure(json=True, stream=stream)
    register_secret(SECRET)
    try:
        canary_local = "canary-local-value"
        raise RequestError(f"refused for ann@acme.example with {SECRET}", detail="canary-evidence " + canary_local)
    except RequestError as error:
        get_logger("sync.test").exception("batch failed", error=error)
    text = stream.getvalue()

    assert "RequestError: refused for •••@acme.example with •••" in text
    assert "Traceback (most recent call last)" in text
    assert "canary-evidence " + canary_local not in text
    assert "ann@" not in text
    assert "S3cr3t" not in text


def test_ids_are_bound_for_a_while_and_carried_into_threads() -> None:
    stream = io.StringIO()
    configure(1, json=True, stream=stream)
    log = get_logger("sync.test")
    with bound(run="r_1", sync="hubspot"), bound(batch=3):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(carried(log.info), "sent").result()
            pool.submit(log.info, "alone").result()
        log.info("here")
    log.info("after")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    ids = [(line["event"], line.get("run"), line.get("batch")) for line in lines]

    assert ids == [("sent", "r_1", 3), ("alone", None, None), ("here", "r_1", 3), ("after", None, None)]


def test_the_libraries_warnings_come_through_redacted() -> None:
    stream = io.StringIO()
    configure(2, json=True, stream=stream)
    register_secret(SECRET)
    with bound(run="r_1"):
        logging.getLogger("httpx").info("GET https://api.example/?email=ann@acme.example")
        logging.getLogger("snowflake.connector").warning("cannot sign in %s with %s", "ann@acme.example", SECRET)
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]

    assert line["event"] == "cannot sign in •••@acme.example with •••"
    assert (line["level"], line["logger"], line["run"]) == ("warning", "snowflake.connector", "r_1")


def test_configuring_twice_logs_once() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    configure(stream=stream)
    logging.getLogger("apscheduler").error("missed")

    assert len(stream.getvalue().splitlines()) == 1


def test_importing_it_does_not_import_structlog() -> None:
    code = "import sys, sync.logging as l; l.register_secret('abcdef'); print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
