"""Holding a sync's lease while it runs: renewed in the background, believed no longer than it lasts."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

from sync.errors import Fenced, LeaseHeld, StateError
from sync.state.base import State
from sync.state.holder import boot_clock, is_dead, me
from sync.state.nouns import Lease

__all__ = ["LeaseKeeper"]


class LeaseKeeper:
    """Takes the lease on entry, renews it from a thread, and gives it back.

    A lease whose holder is certainly dead is taken over at once; else `LeaseHeld` says who has it.
    """

    def __init__(self, state: State, sync: str, ttl: float) -> None:
        self._state = state
        self._sync = sync
        self._ttl = ttl
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._lost = False
        self._lease: Lease | None = None
        self._thread = threading.Thread(target=self._renew_until_done, name=f"lease-{sync}", daemon=True)

    def __enter__(self) -> LeaseKeeper:
        holder = me()
        try:
            self._lease = self._state.acquire(self._sync, holder, self._ttl)
        except LeaseHeld:
            other = self._state.lease(self._sync)
            if other is None or not is_dead(other.holder):
                raise
            self._lease = self._state.acquire(self._sync, holder, self._ttl, dead=other.holder)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(StateError):  # then it ends by itself
                self._state.release(self.lease)

    @property
    def lease(self) -> Lease:
        """The lease as last renewed."""
        if self._lease is None:
            raise Fenced(f"the lease of '{self._sync}' was never taken")
        return self._lease

    def ensure(self, seconds: float) -> float:
        """Make sure that the lease lasts for so many seconds from the moment returned, by the boot clock.

        Raises `Fenced` where it cannot.
        """
        looked = boot_clock()
        if not self._lost and looked + seconds < self.lease.deadline:
            return looked
        self.renew()
        looked = boot_clock()
        if looked + seconds >= self.lease.deadline:
            raise Fenced(f"the lease of '{self._sync}' is too short for a request", fix="raise [engine] lease_ttl")
        return looked

    def renew(self) -> None:
        """Hold it for its whole time again; raises `Fenced` where it was taken over."""
        with self._lock:
            try:
                self._lease = self._state.renew(self.lease, self._ttl)
            except Fenced:
                self._lost = True
                raise

    def _renew_until_done(self) -> None:
        """A failed renewal is not the end: the next may go through, and no request leaves past the deadline."""
        while not self._done.wait(self._ttl / 3):
            try:
                self.renew()
            except Fenced:
                return
            except StateError:
                continue
