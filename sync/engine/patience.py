"""How long one request is tried again: so many times, or for as long as the destination asks to be waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from sync.engine.job import DeliverySettings
from sync.errors import RateLimited, Unavailable

__all__ = ["Patience", "retrying"]


@dataclass(slots=True)
class Patience:
    """When one request gives up: after so many tries, or after so long a wait that the destination asked for."""

    settings: DeliverySettings
    tries: int = 0
    since: float | None = None

    def stop(self, state: RetryCallState) -> bool:
        """Is it enough."""
        error = state.outcome.exception() if state.outcome else None
        limited = isinstance(error, RateLimited)
        if limited or _asked(error) is not None:
            now = time.monotonic()
            self.since = now if self.since is None else self.since
            if now - self.since + (_asked(error) or 0.0) > self.settings.rate_limited_for:
                return True
        self.tries += not limited
        return self.tries >= self.settings.attempts

    def delay(self, state: RetryCallState) -> float:
        """Seconds until the next try. A destination that says when is obeyed by the pacer instead, unless it asks
        for less than we would wait by ourselves: `Retry-After: 0` is no leave to hammer it."""
        exponent = min(30, max(0, state.attempt_number - 1))
        own = float(min(self.settings.backoff_max, self.settings.backoff_first * 2**exponent))
        asked = _asked(state.outcome.exception() if state.outcome else None)
        return own if asked is None or asked < own else 0.0


def retrying(
    settings: DeliverySettings,
    wait: Callable[[float], object],
    *,
    before: Callable[[RetryCallState], None] | None = None,
) -> Retrying:
    """The one retry loop: tries again while the destination is unavailable. `wait` sleeps; `before` is told."""
    patience = Patience(settings)
    return Retrying(
        retry=retry_if_exception_type(Unavailable),
        stop=patience.stop,
        wait=patience.delay,
        sleep=wait,  # type: ignore[arg-type]
        before_sleep=before,
        reraise=True,
    )


def _asked(error: BaseException | None) -> float | None:
    """For how many seconds the destination asks us to wait."""
    return error.retry_after if isinstance(error, Unavailable) else None
