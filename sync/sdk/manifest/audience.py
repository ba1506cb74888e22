"""Audiences and fields: making an audience, reading who is in one, and asking which fields an account has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import httpx
from pydantic import Field

from sync.errors import ProtocolError
from sync.sdk import nouns
from sync.sdk.manifest.answer import body_of, entries_of, unproven
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.request import Call
from sync.sdk.manifest.text import ABSENT, dig, put
from sync.sdk.nouns import Member, Page
from sync.sdk.values import text

__all__ = ["Create", "Describe", "ReadMembers", "described", "page"]

Send = Callable[[Call, Mapping[str, str], str | None], httpx.Response]
"""A call, parameters for its query, and an address instead of its path."""


class Create(Call):
    """Makes an audience of the title `{title}`; its id stands at `id`."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    id: str = Field(min_length=1)


class Cursor(Strict):
    """The next page is asked for with what stands at `at`, as the parameter `param`; with `more` only while that
    is true. Without `at` it is the id of the page's last member, and `more` says whether there are others."""

    kind: Literal["cursor"]
    at: str = ""
    param: str
    place: Literal["query", "json"] = "query"  # json: `param` is a dotted place in the body
    more: str = ""


class Link(Strict):
    """The address of the next page stands at `at`, or with `header` in the `Link` header as `rel="next"`."""

    kind: Literal["link"]
    at: str = ""
    header: bool = False


class Number(Strict):
    """Pages are numbered from `first`. The last is the one that `more` denies, whose number stands at `last`, or
    that is shorter than `size`; without these the first empty one."""

    kind: Literal["number"]
    param: str
    place: Literal["query", "json"] = "query"
    first: int = 1
    size: int | None = Field(default=None, ge=1)
    last: str = ""
    more: str = ""


class Offset(Strict):
    """The next page begins after as many members as were read; it ends as with numbers."""

    kind: Literal["offset"]
    param: str
    place: Literal["query", "json"] = "query"
    size: int | None = Field(default=None, ge=1)
    more: str = ""


Pages = Annotated[Cursor | Link | Number | Offset, Field(discriminator="kind")]


class ReadMembers(Call):
    """Reads who is in an audience: entries at `list`, of each the `identifiers` by field and the platform's `id`.

    Where an entry is the identifier itself, its path is empty. Without `pages` there is one page.
    """

    list: str = ""
    identifiers: Mapping[str, str] = {}
    id: str = ""
    pages: Pages | None = None

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield not self.identifiers and not self.id, "give `identifiers` or `id`: who is an entry?"
        pages = self.pages
        yield isinstance(pages, Link) and bool(pages.at) == pages.header, "give either `at` or `header = true`"
        yield (
            isinstance(pages, Cursor) and not pages.at and not (pages.more and self.id),
            ("a cursor without `at` is the last member's `id`: give that, and `more`"),
        )


class Describe(Call):
    """Asks which fields the account has: entries at `list` with a `name`, a `type` and perhaps a `title`; `types`
    has what the platform's types mean, any other is text."""

    list: str = ""
    name: str = ""
    type: str = ""
    title: str = ""
    types: Mapping[str, Literal["string", "integer", "number", "boolean", "date", "timestamp", "json"]] = {}


def described(spec: Describe, response: httpx.Response) -> list[nouns.Field]:
    """The fields that an answer lists."""
    found = []
    for _, entry in entries_of(body_of(response), spec.list, response, required=True):
        name = dig(entry, spec.name)
        if not isinstance(name, str) or not name:
            raise unproven(f"{spec.list}.{spec.name}".strip("."), response)
        kind = spec.types.get(text(dig(entry, spec.type)), "string") if spec.type else "string"
        title = dig(entry, spec.title) if spec.title else ""
        found.append(nouns.Field(name, kind, description=title if isinstance(title, str) else ""))
    return found


def page(spec: ReadMembers, after: str | None, send: Send) -> Page:
    """One page of members: the first, or the one that `after` leads to."""
    pages, parameters, address = spec.pages, {}, None
    if isinstance(pages, Link):
        address = after
    elif pages is not None:
        start = str(pages.first) if isinstance(pages, Number) else "0" if isinstance(pages, Offset) else None
        wanted = start if after is None else after
        if wanted is not None and pages.place == "json":
            spec = _asking(spec, pages, wanted)
        elif wanted is not None:
            parameters = {pages.param: wanted}
    response = send(spec, parameters, address)
    body = body_of(response)
    entries = [entry for _, entry in entries_of(body, spec.list, response, required=True)]
    members = [_member(spec, entry, response) for entry in entries]
    return Page(members, _next(spec, after, members, body, response))


def _asking(spec: ReadMembers, pages: Cursor | Number | Offset, wanted: str) -> ReadMembers:
    """The request with the page in its body."""
    body: dict[str, Any] = dict(spec.body)
    put(body, pages.param, wanted if isinstance(pages, Cursor) else int(wanted))
    return spec.model_copy(update={"body": body})


def _member(spec: ReadMembers, entry: Any, response: httpx.Response) -> Member:
    found = {name: _scalar(entry, path) for name, path in spec.identifiers.items()}
    identifiers = {name: value for name, value in found.items() if value is not None}
    id = _scalar(entry, spec.id) if spec.id else None
    if id is None and (spec.id or not identifiers):
        raise unproven(spec.list, response)
    return Member(identifiers, None if id is None else text(id))


def _scalar(entry: Any, path: str) -> str | int | None:
    """A text that is not empty, or a number."""
    found = dig(entry, path)
    return found if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def _next(
    spec: ReadMembers, after: str | None, members: list[Member], body: Any, response: httpx.Response
) -> str | None:
    pages = spec.pages
    more = getattr(pages, "more", "")
    if pages is None or (more and _over(dig(body, more), response)):
        return None
    if isinstance(pages, Link):
        return _linked(pages, body, response)
    if isinstance(pages, Cursor):
        if not pages.at:
            return members[-1].remote_id if members else None
        found = dig(body, pages.at)
        if found is ABSENT or found in (None, "", False):
            return None
        if not isinstance(found, str | int):
            raise unproven(pages.at, response)
        return text(found)
    if not members or (pages.size is not None and len(members) < pages.size):
        return None
    if isinstance(pages, Offset):
        return str(int(after or "0") + len(members))
    here = pages.first if after is None else int(after)
    last = dig(body, pages.last) if pages.last else None
    if pages.last and (isinstance(last, bool) or not isinstance(last, int)):
        raise unproven(pages.last, response)
    return None if last is not None and here >= last else str(here + 1)


def _over(more: Any, response: httpx.Response) -> bool:
    if not isinstance(more, bool):
        raise ProtocolError("a page does not say whether there are more", response.text)
    return not more


def _linked(pages: Link, body: Any, response: httpx.Response) -> str | None:
    if pages.header:
        return response.links.get("next", {}).get("url")
    found = dig(body, pages.at)
    if found is ABSENT or found in (None, ""):
        return None
    if not isinstance(found, str):
        raise unproven(pages.at, response)
    return found
