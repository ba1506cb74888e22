"""The trace of an error: where it came from, and only such words of it as hold neither secrets nor personal data.

Our own errors' messages are written for people and hold neither. What other code says of an error may quote a row
or an answer, so of those only the kinds are told that speak of code. Local variables are never shown.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType

from sync.errors import HeadgateError

__all__ = ["guard", "trace"]

_ABOUT_CODE = (AttributeError, ImportError, NameError, MemoryError, RecursionError, SyntaxError)


def trace(error: BaseException) -> str:
    """The whole chain of an error with every frame, fit to be shown and reported."""
    from sync.logging import redact_text

    return redact_text("".join(_chain(error)))


def guard() -> None:
    """From here on no error shows more than that on its way out, and no crash leaves our memory on the disk."""
    sys.excepthook = _hook
    sys.unraisablehook = lambda unraisable: _tell(unraisable.exc_value)
    threading.excepthook = lambda thread: _tell(thread.exc_value)
    try:
        import resource
    except ImportError:  # Windows has no core files
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def _hook(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _tell(error)


def _tell(error: BaseException | None) -> None:
    if error is not None and sys.stderr is not None:
        sys.stderr.write(trace(error))


def _chain(error: BaseException) -> Iterator[str]:
    links: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in links:
        links.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    for number, link in enumerate(reversed(links)):
        if number:
            yield "\nwhich led to\n\n"
        yield from _one(link)


def _one(error: BaseException) -> Iterator[str]:
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__module__}.{type(error).__qualname__}: {_words(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _chain(inner)


def _words(error: BaseException) -> str:
    if isinstance(error, HeadgateError):
        return error.message
    if isinstance(error, OSError):
        return error.strerror or "(not shown)"
    return str(error) if isinstance(error, _ABOUT_CODE) else "(its words may hold data and are not shown)"
