"""Who is told of what."""

from __future__ import annotations

from sync.conditions import CONDITIONS, Condition
from sync.mapping import Sync
from sync.settings import AlertingSettings

__all__ = ["Routes", "routes"]

Routes = dict[Condition, frozenset[str]]


def routes(alerting: AlertingSettings, sync: Sync | None = None) -> Routes:
    """Condition -> the notifiers that are told of it: those of config.toml and those of the mapping.

    `RECOVERED` has those that asked for the end of everything. Whoever asks for `failed` is told of `auth`: it is
    a failure, told once for a destination instead of once for each sync.
    """
    asked = [(alerting.on, alerting.to)]
    if sync is not None:
        asked += [(alert.on, alert.to) for alert in sync.alerts]
    found: Routes = {c: frozenset() for c in (*CONDITIONS, Condition.RECOVERED)}
    for on, to in asked:
        for condition in on:
            found[condition] |= frozenset(to)
        if Condition.FAILED in on:
            found[Condition.AUTH] |= frozenset(to)
    return found
