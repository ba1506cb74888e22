"""A trace tells where an error came from, and quotes neither data nor secrets."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sync.cli.trace import trace
from sync.errors import HeadgateError
from sync.logging import register_secret

SECRET, NAME = "a-secret-of-a-trace", "Zoë Kowalska"


def raised(error: BaseException, cause: BaseException | None = None) -> str:
    try:
        raise error from cause
    except BaseException as caught:
        return trace(caught)


@pytest.mark.parametrize("kind", [ValueError, KeyError, RuntimeError, TypeError, OSError, UnicodeError])
def test_words_of_other_code_are_not_repeated(kind: type[Exception]) -> None:
    text = raised(HeadgateError("the batch was refused"), kind(f"cannot write {NAME}"))

    assert NAME not in text
    assert kind.__name__ in text
    assert "the batch was refused" in text
    assert text.count("test_cli_trace.py") == 1, "only what was raised has frames"


def test_errors_about_the_code_keep_their_words() -> None:
    assert "has no attribute 'nothing'" in raised(AttributeError("object has no attribute 'nothing'"))


def test_local_variables_are_not_shown() -> None:
    def deeper() -> None:
        name = NAME
        raise ValueError(name)

    with pytest.raises(ValueError, match="Zo") as caught:
        deeper()

    assert "deeper" in trace(caught.value)
    assert NAME not in trace(caught.value)


def test_groups_and_circles_are_followed_to_their_end() -> None:
    one, two = ValueError("1"), KeyError("2")
    one.__cause__, two.__cause__ = two, one

    assert raised(ExceptionGroup("several", [one, RuntimeError(NAME)])).count("Traceback") == 4


def test_a_secret_in_our_own_words_is_taken_out() -> None:
    register_secret(SECRET)

    assert SECRET not in raised(HeadgateError(f"it said {SECRET}"))


@pytest.mark.parametrize("where", ["main", "thread", "finaliser"])
def test_an_error_that_nobody_caught_shows_no_more(where: str) -> None:
    raises = {
        "main": "fail()",
        "thread": "t = threading.Thread(target=fail); t.start(); t.join()",
        "finaliser": "type('T', (), {'__del__': lambda self: fail()})()",
    }[where]
    fails = "def fail(): raise ValueError('Kow' 'alska')"
    code = f"import threading\nfrom sync.cli.trace import guard\nguard()\n{fails}\n{raises}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "ValueError" in done.stderr
    assert "Kowalska" not in done.stderr
