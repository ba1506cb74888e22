"""Values that may be personal, as they are shown to whoever gave no reason to see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["masked", "masked_sample"]


def masked_sample(sample: Mapping[str, Any], pii: frozenset[str]) -> dict[str, Any]:
    """A sample with every identifier and the fields named in `pii` masked whole, the rest as `masked` does."""
    hidden = dict(masked(sample))
    for part in ("identifiers", "fields", "before"):
        values = sample.get(part)
        if isinstance(values, Mapping):
            whole = values.keys() if part == "identifiers" else pii
            hidden[part] = {k: _hidden(v) if k in whole else masked(v) for k, v in values.items()}
    return hidden


def _hidden(value: Any) -> Any:
    """`a•••@acme.example`; whatever does not look personal keeps its first letter only."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    shown = masked(text)
    return shown if shown != text else text[:1] + "•••"


def masked(value: Any) -> Any:
    """The value with whatever may be personal masked; a mapping or list in its shape."""
    from sync.sdk.values import mask

    if isinstance(value, Mapping):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value
