"""Audiences and fields: making an audience, reading who is in one, and asking which fields an account has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import httpx
from pydantic import Field

from sync.sdk import nouns
from sync.sdk.manifest.answer import body_of, entries_of, unproven
from sync.sdk.manifest.pages import Cursor, Link, Pages, asking, following
from sync.sdk.manifest.request import Call
from sync.sdk.manifest.text import dig
from sync.sdk.nouns import Member, Page
from sync.sdk.values import text

__all__ = ["Create", "Describe", "ReadMembers", "described", "page"]

Send = Callable[[Call, Mapping[str, str], str | None], httpx.Response]
"""A call, parameters for its query, and an address instead of its path."""


class Create(Call):
    """Makes an audience of the title `{title}`; its id stands at `id`."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    id: str = Field(min_length=1)


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
    asked, parameters, address = asking(spec, spec.pages, after)
    response = send(asked, parameters, address)
    body = body_of(response)
    entries = [entry for _, entry in entries_of(body, spec.list, response, required=True)]
    members = [_member(spec, entry, response) for entry in entries]
    last = members[-1].remote_id if members else None
    return Page(members, following(spec.pages, after, len(members), last, body, response))


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
