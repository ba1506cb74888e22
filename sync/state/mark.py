"""The last run that sent something, remembered beside the ledger: a ledger that does not know it is an older one.

A ledger whose write-ahead log was deleted, or that was restored alone, reads as a sound one. It has forgotten
what was sent since, so nothing more may be sent on its word.
"""

from __future__ import annotations

from pathlib import Path

from sync.state.members import publish, scratch

__all__ = ["erase", "marked", "put"]


def put(state: Path, sync: str, run: str) -> None:
    """Remember, durably, that a run of the sync is about to send; its lease is held. Raises `StateError`."""
    final = _file(state, sync)
    if marked(state, sync) == run:
        return
    with scratch(final.parent) as temporary:
        temporary.write_text(f"{run}\n", encoding="ascii")
        publish(temporary, final)


def marked(state: Path, sync: str) -> str | None:
    """The run that sent last; None where none did."""
    try:
        return _file(state, sync).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None


def erase(state: Path, sync: str) -> None:
    """What was sent is forgotten on purpose."""
    _file(state, sync).unlink(missing_ok=True)


def _file(state: Path, sync: str) -> Path:
    return state / "sent" / sync / "run"
