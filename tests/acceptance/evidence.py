"""What the sink's record proves: who was sent, how often, and under which key."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.acceptance.sink import Entry


def sent(entries: Iterable[Entry]) -> dict[str, list[Any]]:
    """Per op, whom the requests were about, sorted, as often as they were sent."""
    found: dict[str, list[Any]] = defaultdict(list)
    for entry in entries:
        found[entry.op] += entry.ids
    return {op: sorted(ids) for op, ids in found.items()}


def repeated_requests(entries: Iterable[Entry]) -> int:
    """Requests beyond the first of each key. Fails where a repeat differs from the first, or has another key."""
    by_key: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_key[entry.key].append(entry)
    assert "" not in by_key, "a request had no Idempotency-Key"
    for same in by_key.values():
        assert all(e.op == same[0].op and e.records == same[0].records for e in same), "one key, two contents"
    keys_of = Counter((same[0].op, i) for same in by_key.values() for i in same[0].ids)
    assert not [who for who, keys in keys_of.items() if keys > 1], "the same record under two keys"
    return sum(len(same) - 1 for same in by_key.values())
