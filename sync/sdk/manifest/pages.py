"""Answers in pages: how the next one is asked for, and where the last one ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import httpx
from pydantic import Field

from sync.errors import ProtocolError
from sync.sdk.manifest.answer import unproven
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.request import Call
from sync.sdk.manifest.text import ABSENT, dig, put
from sync.sdk.values import text

__all__ = ["Cursor", "Link", "Number", "Offset", "Pages", "asking", "following"]

C = TypeVar("C", bound=Call)


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


def asking(call: C, pages: Pages | None, after: str | None) -> tuple[C, Mapping[str, str], str | None]:
    """The request for a page, parameters for its query, and an address instead of its path; `after` is what
    `following` said of the page before, None for the first."""
    if pages is None or isinstance(pages, Link):
        return call, {}, after
    start = str(pages.first) if isinstance(pages, Number) else "0" if isinstance(pages, Offset) else None
    wanted = start if after is None else after
    if wanted is None:
        return call, {}, None
    if pages.place == "query":
        return call, {pages.param: wanted}, None
    body: dict[str, Any] = dict(call.body)
    put(body, pages.param, wanted if isinstance(pages, Cursor) else int(wanted))
    return call.model_copy(update={"body": body}), {}, None


def following(
    pages: Pages | None, after: str | None, count: int, last: str | None, body: Any, response: httpx.Response
) -> str | None:
    """What leads to the next page; None where there is none. `count` is how many entries this page has, `last` the
    id of its last one. Raises `ProtocolError` where the answer does not say."""
    more = getattr(pages, "more", "")
    if pages is None or (more and _over(dig(body, more), response)):
        return None
    if isinstance(pages, Link):
        return _linked(pages, body, response)
    if isinstance(pages, Cursor):
        return _cursor(pages, last, body, response)
    if not count or (pages.size is not None and count < pages.size):
        return None
    if isinstance(pages, Offset):
        return str(int(after or "0") + count)
    here = pages.first if after is None else int(after)
    end = dig(body, pages.last) if pages.last else None
    if pages.last and (isinstance(end, bool) or not isinstance(end, int)):
        raise unproven(pages.last, response)
    return None if end is not None and here >= end else str(here + 1)


def _cursor(pages: Cursor, last: str | None, body: Any, response: httpx.Response) -> str | None:
    if not pages.at:
        return last
    found = dig(body, pages.at)
    if found is ABSENT or found in (None, "", False):
        return None
    if not isinstance(found, str | int):
        raise unproven(pages.at, response)
    return text(found)


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
