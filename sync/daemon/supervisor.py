"""What the service manager is told: systemd's notification protocol, sd_notify(3), as datagrams to a socket."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

__all__ = ["Supervisor"]


class Supervisor:
    """Tells systemd that the daemon is ready, alive, and stopping; tells nobody where nothing listens.

    `environment` has NOTIFY_SOCKET (a path, or `@name` in the abstract namespace) and WATCHDOG_USEC, in
    microseconds: a service that is silent for longer is killed. It is told at half that time, as sd_notify says.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        limit = environment.get("WATCHDOG_USEC", "")
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._every = int(limit) / 2e6 if limit.isdecimal() and ours else None
        self._beaten = 0.0
        self._status = ""

    def ready(self, status: str) -> None:
        """The files are read, and it ticks."""
        self._send("READY=1", f"STATUS={status}")
        self._status = status

    def alive(self, status: str) -> None:
        """The main thread goes round."""
        if status != self._status:
            self._status = status
            self._send(f"STATUS={status}")
        if self._every is not None and time.monotonic() - self._beaten >= self._every:
            self._beaten = time.monotonic()
            self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        """It was told to end, and drains."""
        self._status = status
        self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.settimeout(1.0)  # a service manager that does not read must not stop the daemon
            to.sendto("\n".join(lines).encode(), self._address)
