"""Who holds a lease: this process, named so that another one on the same machine can tell that it is gone."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sync.state.nouns import Lease

__all__ = ["alive", "boot", "boot_clock", "describe", "is_dead", "is_over", "me"]

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Holder:
    host: str
    pid: int
    start: str  # when the process began, in clock ticks since boot; empty where the system does not tell
    machine: str  # boot id, PID and time namespace: a PID means the same only where these are equal


def me() -> str:
    """This process, as `host/pid/start/machine`; equal in all its threads, and never again in another process."""
    here = _Holder(platform.node().replace("/", "-"), os.getpid(), _start(os.getpid()) or "", _machine())
    return f"{here.host}/{here.pid}/{here.start}/{here.machine}"


def is_dead(holder: str) -> bool:
    """Is that process certainly gone?

    True only for a holder of the same boot and the same namespaces whose PID is free, a zombie's, or another
    process's by now. False for other machines and for systems without `/proc`: nobody can tell there.
    """
    them = _parse(holder)
    if them is None or not them.start or not them.machine or them.machine != _machine():
        return False
    try:
        os.kill(them.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there and belongs to somebody else
        pass
    start = _start(them.pid)
    return start is not None and start != them.start


def is_over(holder: str) -> bool:
    """Is a process that wrote to a disk of this machine certainly gone: dead, or of another boot.

    Not for leases: a ledger may be copied to another machine while its writer lives.
    """
    them = _parse(holder)
    elsewhere = them is not None and them.machine and boot() and not them.machine.startswith(_boot_id())
    return bool(elsewhere) or is_dead(holder)


def alive(lease: Lease | None) -> bool:
    """May somebody be at work under this lease: it has not run out, and its holder is not certainly gone."""
    return lease is not None and not is_dead(lease.holder)


def describe(holder: str) -> str:
    """The holder for messages: `process 1234 on host x`."""
    them = _parse(holder)
    return f"process {them.pid} on host {them.host}" if them else holder or "a process without a name"


def boot_clock() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where there is one; never set by anybody.

    A clock that stops in a suspend (Linux's CLOCK_MONOTONIC) would let a holder believe a lease that ran out.
    """
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


def _parse(holder: str) -> _Holder | None:
    parts = holder.split("/")
    if len(parts) != 4 or not parts[1].isdecimal() or int(parts[1]) == 0:
        return None
    return _Holder(parts[0], int(parts[1]), parts[2], parts[3])


def _start(pid: int) -> str | None:
    """The process's start time (proc(5), /proc/pid/stat, field 22); empty for a zombie, None where unreadable."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before may hold blanks and parentheses
    return "" if fields[0] in "ZX" else fields[19]


@cache
def boot() -> str:
    """Which boot of which machine this is, and whose view of its clocks; empty where the system does not tell."""
    try:
        this = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    clocks = 0  # clocks are told relative to the reader's time namespace (Linux 5.6)
    with contextlib.suppress(OSError):
        clocks = (_PROC / "self/ns/time").stat().st_ino
    return f"{this}:{clocks}"


def _boot_id() -> str:
    return boot().partition(":")[0]


@cache
def _machine() -> str:
    try:
        pids = (_PROC / "self/ns/pid").stat().st_ino
    except OSError:
        return ""
    this, _, clocks = boot().partition(":")
    return f"{this}:{pids}:{clocks}" if this else ""
