"""Looks identifiers up where the platform wants ids of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import httpx
from pydantic import Field

from sync.errors import ProtocolError, RequestError
from sync.sdk.manifest.answer import body_of, created, entries_of, label, label_of, unproven
from sync.sdk.manifest.pages import Cursor, Pages, asking, following
from sync.sdk.manifest.request import Carrier
from sync.sdk.manifest.text import ABSENT, dig
from sync.sdk.nouns import Change, Op, Receipt, Status
from sync.sdk.values import text

__all__ = ["Lookup", "Missing", "find"]

Send = Callable[[Carrier, Sequence[Change], Mapping[str, str], str | None], httpx.Response]
"""A request for these people, parameters for its query, and an address instead of its path."""
_MOST_PAGES = 100


class Missing(Carrier):
    """Makes somebody whom the lookup did not find, one request each; their id stands at `id` of the answer."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    per: Literal["record"] = "record"
    id: str = Field(min_length=1)


class Lookup(Carrier):
    """The request that finds the platform's own ids, which are then `{remote_id}`.

    The answer lists at `list` (the body itself where it is empty) entries with the `identifier`, compared with the
    field `match`, and the `id`; with `keyed` it is an object whose keys are the identifiers, unless `identifier`
    says where they stand. An entry with anything at `nobody` says that there is nobody. `per = "record"`: one
    request each, an answer with one entry is the person, `identifier` may be left out. `absent` are statuses by
    which nobody is found. Whoever is not found is made by `missing`, or rejected; or where they are to be removed,
    done. At most `size` people go into one request. A removal goes by the id its addition was answered with,
    without being looked up, unless `remember` is false.
    """

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    place: Literal["json", "form", "lines", "csv", "query", "path", "none"] = "none"
    list: str = ""
    keyed: bool = False
    identifier: str = ""
    id: str
    match: str
    absent: tuple[int, ...] = ()
    nobody: str = ""
    missing: Missing | None = None
    pages: Pages | None = None
    size: int = Field(default=100, ge=1)
    remember: bool = True

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield from super().mistakes()
        batch = self.per == "batch"
        yield batch and not (self.identifier or self.keyed), "`identifier` is missing: who is an entry about?"
        own = isinstance(self.pages, Cursor) and not self.pages.at
        yield own, "`pages.at` is missing: where does what leads to the next page stand?"


Found = tuple[list[Change], dict[str, Receipt]]


def find(lookup: Lookup, changes: Sequence[Change], send: Send) -> Found:
    """The changes with ids, and receipts for those whom the platform does not know, or not as one person."""
    known = [c for c in changes if lookup.remember and c.op is Op.REMOVE and c.remote_id]
    by_key = {c.key: c for c in known}
    settled: dict[str, Receipt] = {}
    wanted = [c for c in changes if c.key not in by_key]
    size = 1 if lookup.per == "record" else lookup.size
    for start in range(0, len(wanted), size):
        part = wanted[start : start + size]
        try:
            ids = _asked(lookup, part, send)
        except RequestError as exc:
            if lookup.per == "batch":
                raise
            settled[part[0].key] = _refused(part[0], exc)
            continue
        for change in part:
            found = ids.get(label_of(change, lookup.match), set())
            if not found and lookup.missing is not None and change.op is not Op.REMOVE:
                found = _made(lookup.missing, change, send, settled)
            if len(found) == 1:
                by_key[change.key] = replace(change, remote_id=next(iter(found)))
            elif change.key not in settled:
                settled[change.key] = _without(lookup, change, bool(found))
    return [by_key[c.key] for c in changes if c.key in by_key], settled


def _made(missing: Missing, change: Change, send: Send, settled: dict[str, Receipt]) -> set[str]:
    """The id of somebody who was made; none where the platform refuses them, which is then settled."""
    try:
        return {created(missing.id, send(missing, (change,), {}, None))}
    except RequestError as exc:
        settled[change.key] = _refused(change, exc)
        return set()


def _refused(change: Change, exc: RequestError) -> Receipt:
    return Receipt(change.key, Status.REJECTED, exc.detail[:500].strip() or exc.message)


def _without(lookup: Lookup, change: Change, several: bool) -> Receipt:
    if several:
        return Receipt(change.key, Status.DEFERRED, f"the platform has several with this {lookup.match}")
    if change.op is Op.REMOVE:
        return Receipt(change.key, Status.APPLIED)
    return Receipt(change.key, Status.REJECTED, f"the platform knows nobody with this {lookup.match}")


def _asked(lookup: Lookup, changes: Sequence[Change], send: Send) -> Mapping[str, set[str]]:
    """The ids by identifier."""
    found: dict[str, set[str]] = {}
    after: str | None = None
    for _ in range(_MOST_PAGES):
        asked, parameters, address = asking(lookup, lookup.pages, after)
        response = send(asked, changes, parameters, address)
        if response.status_code in lookup.absent:
            return found
        body = body_of(response)
        entries = list(_entries(lookup, body, response))
        _keep(lookup, changes, entries, found, response)
        after = following(lookup.pages, after, len(entries), None, body, response)
        if after is None:
            return found
    raise ProtocolError(f"a lookup has more than {_MOST_PAGES} pages", response.text)


def _keep(
    lookup: Lookup, changes: Sequence[Change], entries: Sequence[tuple[str | None, Any]],
    found: dict[str, set[str]], response: httpx.Response,
) -> None:  # fmt: skip
    """Add the ids of a page to what was found."""
    only = label_of(changes[0], lookup.match) if lookup.per == "record" else None
    for key, entry in entries:
        if lookup.nobody and dig(entry, lookup.nobody) not in (ABSENT, None, False, ""):
            continue
        names = [key] if key is not None and not lookup.identifier else _names(lookup, entry)
        id = entry if key is not None and not lookup.id else dig(entry, lookup.id)
        if isinstance(id, bool) or not isinstance(id, str | int) or id == "":
            raise unproven(f"{lookup.list}.{lookup.id}".strip("."), response)
        for name in names or ([only] if only is not None else []):
            found.setdefault(label(name), set()).add(text(id))


def _names(lookup: Lookup, entry: Any) -> list[Any]:
    """The identifiers of an entry; none where nothing says where they stand."""
    if not lookup.identifier:
        return []
    names = dig(entry, lookup.identifier)
    if names is ABSENT or names is None:
        raise ProtocolError(f"an entry came without what was expected at '{lookup.identifier}'")
    return names if isinstance(names, list) else [names]


def _entries(lookup: Lookup, body: Any, response: httpx.Response) -> Iterator[tuple[str | None, Any]]:
    single = dig(body, lookup.list)
    if lookup.per == "record" and not lookup.keyed and isinstance(single, dict):
        yield None, single
    elif lookup.per == "record" and single is None and lookup.list:
        return
    else:
        yield from entries_of(body, lookup.list, response, required=True, keyed=lookup.keyed)
