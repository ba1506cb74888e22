"""What an answer says of the records of a batch, as one receipt a change, without contradiction."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sync.sdk.nouns import Change, Receipt, Status

__all__ = ["Settled", "every"]


def every(changes: Iterable[Change], status: Status, reason: str = "") -> list[Receipt]:
    """The same receipt for each change: of a platform that takes all of a batch or nothing, say."""
    return [Receipt(change.key, status, reason) for change in changes]


class Settled:
    """Receipts by change key. `platform` is named in the reasons of those that stay unknown."""

    def __init__(self, platform: str) -> None:
        self._platform = platform
        self._silent = f"{platform}'s answer does not say what became of this record"
        self._receipts: dict[str, Receipt] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._receipts

    def note(self, key: str, status: Status, reason: str = "", remote_id: str | None = None) -> None:
        """What the answer says of a record. Of one that it says two different things of nothing is known."""
        before = self._receipts.get(key)
        if before is not None and (before.status, before.remote_id) != (status, remote_id):
            status, remote_id = Status.UNKNOWN, None
            reason = f"{self._platform}'s answer says two different things of this record"
        elif status is Status.UNKNOWN:
            reason = reason or self._silent
        self._receipts[key] = Receipt(key, status, reason, remote_id)

    def receipts(self, changes: Iterable[Change], *, besides: Collection[Status] = ()) -> list[Receipt]:
        """One receipt a change, in their order, without those of a status in `besides`; of a change that the
        answer does not mention nothing is known."""
        found = [self._receipts.get(c.key) or Receipt(c.key, Status.UNKNOWN, self._silent) for c in changes]
        return [receipt for receipt in found if receipt.status not in besides]
