"""Logging: structlog, readable on a terminal and JSON elsewhere, with secrets and personal data taken out.

Nothing here imports structlog before it is called.
"""

from __future__ import annotations

import json as json_
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager, suppress
from datetime import date, time
from decimal import Decimal
from enum import Enum
from functools import wraps
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ParamSpec, TextIO, TypeVar, cast
from urllib.parse import quote
from uuid import UUID

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger, Processor

__all__ = [
    "bound",
    "carried",
    "configure",
    "get_logger",
    "hide_secrets",
    "redact",
    "redact_text",
    "register_secret",
]

P = ParamSpec("P")
R = TypeVar("R")

HIDDEN = "•••"
_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)
_SECRET_KEY = re.compile(
    r"passw|passphrase|passcode|secret|token|api_?-?key|private_?-?key|authori[sz]ation|cookie|credential|bearer|jwt",
    re.IGNORECASE,
)
_EVIDENCE_KEYS = {"detail", "body", "payload", "content", "identifiers", "email", "phone"}
_ID_KEYS = {"timestamp", "level", "logger", "run", "sync", "batch", "plan", "digest", "code"}
_EMAIL = re.compile(r"[\w.+%'-]+@((?:[\w-]+\.)+[\w-]+)")
_PHONE = re.compile(
    r"(?<![\w.-])(?!\d{4}-\d\d-\d\d(?!\d))(?!\d{1,3}(?:\.\d{1,3}){3}(?![\d.]))"  # no date, no IP address
    r"\+?\(?\d(?:[ ().-]{0,2}\d){7,}(?![\w-])"
)
_BASIC = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_TOKEN = re.compile(r"\bhg_([0-9a-f]{8})_[\w-]{20,}")
_USERINFO = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_NAME = "logger_name"
_SHORTEST = 4  # of a secret that is looked for everywhere: a shorter one is in every other word

_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


def register_secret(value: str) -> None:
    """From now on no log line shows this value, plain, percent-encoded or as JSON writes it."""
    global _pattern
    value = value.strip()
    if len(value) < _SHORTEST:
        return
    lines = [
        line.strip() for line in value.splitlines() if len(line.strip()) >= 16
    ]  # a PEM is logged line by line
    for form in (value, *lines):
        _secrets.update((form, quote(form, safe=""), json_.dumps(form)[1:-1]))
    _pattern = re.compile("|".join(re.escape(s) for s in sorted(_secrets, key=len, reverse=True)))


def redact_text(text: str) -> str:
    """The text without registered secrets, credentials, e-mail addresses and what looks like a phone number."""
    text = hide_secrets(text)
    text = _USERINFO.sub(rf"\1{HIDDEN}@", text)
    text = _TOKEN.sub(rf"hg_\1_{HIDDEN}", text)
    text = _BASIC.sub(rf"\1 {HIDDEN}", text)
    text = _EMAIL.sub(rf"{HIDDEN}@\1", text)
    return _PHONE.sub(HIDDEN, text)


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: every value of the event is made fit to be kept."""
    for key, value in event.items():
        event[key] = hide_secrets(value) if key in _ID_KEYS and isinstance(value, str) else _clean(key, value)
    return event


def configure(verbose: int = 0, json: bool = False, stream: TextIO | None = None) -> None:
    """Send our log, and the libraries' warnings, to `stream` (standard error).

    `verbose` 0 shows warnings, 1 what happens, 2 everything, 3 the libraries' too. Lines are JSON where `json`
    says so or the stream is not a terminal. A line that cannot be written is lost. Calling it again replaces what
    was there.
    """
    import structlog

    given = stream or sys.stderr
    out = cast("TextIO", _Forgiving(given))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _named,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    render = _renderer(json or not given.isatty(), _colour(given))
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[min(verbose, 2)]),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _route_libraries(shared, render, logging.INFO if verbose > 2 else logging.WARNING, out)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of one module: `log.info("batch acknowledged", batch=3, applied=1000)`."""
    import structlog

    logger: FilteringBoundLogger = structlog.get_logger(**{_NAME: name})
    return logger


def bound(**ids: Any) -> AbstractContextManager[None]:
    """Inside, every line of this thread has these: `with bound(run=run.id, sync=sync.name): ...`."""
    from structlog.contextvars import bound_contextvars

    return bound_contextvars(**ids)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function for another thread, with what is bound here and now: a pool's threads start with nothing."""
    from structlog.contextvars import get_contextvars

    ids = get_contextvars()

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        with bound(**ids):
            return function(*args, **kwargs)

    return call


class _Forgiving:
    """A stream whose `write` and `flush` never raise: a full disk, or a reader that is gone, loses lines only."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring again finds it."""


def _route_libraries(shared: list[Processor], render: Processor, level: int, stream: TextIO) -> None:
    """The standard library's logging, which httpx, APScheduler and the Snowflake connector use."""
    import structlog

    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _Handler)]:
        root.removeHandler(handler)
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *shared, render],
        )
    )
    root.addHandler(handler)
    root.setLevel(level)
    for name in ("httpx", "httpcore", "apscheduler", "snowflake", "alembic"):
        logging.getLogger(name).setLevel(level)


def _renderer(json: bool, colour: bool) -> Processor:
    from structlog.dev import ConsoleRenderer, plain_traceback
    from structlog.processors import JSONRenderer

    if json:
        render: Any = JSONRenderer(ensure_ascii=False)
    else:
        render = ConsoleRenderer(colors=colour, exception_formatter=plain_traceback, pad_event_to=0)

    def last(logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        return hide_secrets(str(render(logger, method, event)))

    return last


def _named(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Our loggers' names where the libraries' stand: structlog itself has an argument called `logger`."""
    if _NAME in event:
        event["logger"] = event.pop(_NAME)
    return event


def _colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(os.environ.get("FORCE_COLOR"))


def hide_secrets(text: str) -> str:
    """The text without any secret that was registered."""
    return _pattern.sub(HIDDEN, text) if _pattern else text


def _clean(key: str, value: Any) -> Any:
    """What may be kept of a value. An object of ours or of a library is only named: its text may hold a row."""
    if value is None or isinstance(value, bool):
        return value
    if _SECRET_KEY.search(key) or key.lower() in _EVIDENCE_KEYS:
        return HIDDEN
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, int | float):
        return value
    if isinstance(value, str | PurePath | date | time | Decimal | UUID):
        return redact_text(str(value))
    return _clean_container(key, value)


def _clean_container(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {redact_text(str(k)): _clean(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(key, v) for v in value]
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {redact_text(str(value))}"
    if hasattr(value, "get_secret_value"):
        return HIDDEN
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"
