"""Unleash: who is in a segment, as the values of one of its constraints.

Facts and where they come from. *Spec* is Unleash's own OpenAPI description (Unleash/unleash-server-api-go),
*server* is the source of unleash-server 6.10; a real one is part of the tests.

- A member is a value of the constraint `userId IN [...]` of a segment. `PUT /api/admin/segments/{id}` replaces
  the whole segment, so it is read first and everything else of it is sent back as it was: a project that is
  left out would be taken away from it (spec, updateSegment). Nothing tells that somebody else wrote in between,
  so it is read again afterwards.
- A segment without constraints is everybody, one whose constraint has no values is nobody: the constraint is
  never left out.
- All constraints of a segment together have at most 1,000 values, unless the server was started with another
  UNLEASH_SEGMENT_VALUES_LIMIT (server, util/segments.ts); a value has 1 to 100 characters (server,
  schema/feature-schema.ts).
- Unleash sends segments to every SDK: they are for small groups. It documents no rate limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Delivery, Field, Limits, Member, ObjectSpec, Op, Outcome, Page, Status
from sync.sdk.settled import every
from sync.sdk.values import path_part, text

__all__ = ["Unleash", "UnleashConfig"]

_SEGMENTS = "/api/admin/segments"
_LONGEST = 100  # characters of a value


class UnleashConfig(Config):
    """One Unleash instance."""

    base_url: str = Option(description="The instance's address, with its base path where it has one.")
    token: SecretStr = Option(
        description="A personal access token, or one of a service account, that may update segments."
    )
    context_field: str = Option(
        "userId", min_length=1, description="The context field whose values the members are."
    )
    max_values: int = Option(
        1000,
        ge=1,
        le=1_000_000,
        description="Values a segment may have: the server's UNLEASH_SEGMENT_VALUES_LIMIT.",
    )


class _Segment(Shape):
    id: int
    name: str
    constraints: list[dict[str, Any]]
    description: str | None = None
    project: str | None = None

    def own(self, field: str) -> dict[str, Any] | None:
        """The constraint that says who is a member. Raises `RequestError` where there are several."""
        found = [c for c in self.constraints if _is_list(c) and c.get("contextName") == field]
        if len(found) > 1:
            fix = "keep one of its constraints on it"
            raise RequestError(f"the segment '{self.name}' has several lists of {field}", fix=fix)
        return found[0] if found else None

    def values(self, field: str) -> list[str]:
        """The members."""
        own = self.own(field)
        values = own.get("values", []) if own else []
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ProtocolError("a constraint of the segment has values that are no texts")
        return values

    def replaced(self, field: str, values: list[str]) -> dict[str, Any]:
        """The same segment with other members."""
        own = self.own(field)
        if own is None:
            constraints = [*self.constraints, {"contextName": field, "operator": "IN", "values": values}]
        else:
            constraints = [c | {"values": values} if c is own else c for c in self.constraints]
        kept = {"description": self.description, "project": self.project}
        return {
            "name": self.name,
            "constraints": constraints,
            **{name: value for name, value in kept.items() if value is not None},
        }


def _object(field: str, most: int) -> ObjectSpec:
    return ObjectSpec(
        name="segment_member",
        title="Member of a segment",
        ops=frozenset({Op.ADD, Op.REMOVE}),
        fields=(Field(field, required=True, identifier=True, description="A value of this context field."),),
        limits=Limits(batch_size=most),
        delivery=Delivery.SNAPSHOT,
    )


class Unleash(Connector[UnleashConfig]):
    """Keeps the list of members of a segment. The audience is the segment's number."""

    name = "unleash"
    title = "Unleash"
    docs = __doc__ or ""
    config_model = UnleashConfig
    objects: Mapping[str, ObjectSpec] = {"segment_member": _object("userId", 1000)}

    def __init__(self, config: UnleashConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = {"segment_member": _object(config.context_field, config.max_values)}

    @classmethod
    def auth(cls, config: UnleashConfig) -> httpx.Auth:
        """The token alone: Unleash knows no scheme before it."""
        return Header("Authorization", config.token)

    def check(self) -> None:
        """Read the segments."""
        read(list[_Segment], self.send("GET", _SEGMENTS), at="segments")

    def push(self, batch: Batch) -> Outcome:
        """Make the batch's people the segment's members.

        Raises `RequestError`, nothing being changed, where the segment does not exist or cannot hold them, and
        `ProtocolError` where it has others afterwards.
        """
        field = self.config.context_field
        values = [text(change.identifiers[field]) for change in batch.changes if change.op is not Op.REMOVE]
        body = self._segment(batch.audience).replaced(field, values)
        self._refuse(body["constraints"], values)
        response = self.send("PUT", _path(batch.audience), body)
        if response.status_code != 204:
            raise ProtocolError("Unleash answered the update of a segment with other than 204", response.text)
        there = self._segment(batch.audience).values(field)
        if set(there) != set(values):
            raise ProtocolError("Unleash took the segment, and has other members in it now")
        return every(batch.changes, Status.APPLIED)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - there is one object
        """Make a segment that nobody is in; its number."""
        constraint = {"contextName": self.config.context_field, "operator": "IN", "values": []}
        body = {"name": title, "description": "Kept by Headgate.", "constraints": [constraint]}
        return str(read(_Segment, self.send("POST", _SEGMENTS, body)).id)

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - one page
        """Everybody in the segment."""
        field = self.config.context_field
        return Page([Member({field: value}) for value in self._segment(audience).values(field)])

    def _segment(self, audience: str | None) -> _Segment:
        response = self.send("GET", _path(audience), expects={404})
        if response.status_code == 404:
            fix = "give the number of a segment as `audience`: it stands in the segment's address"
            raise RequestError(f"Unleash has no segment {audience}", response.text, fix=fix)
        segment = read(_Segment, response)
        if str(segment.id) != audience:
            raise ProtocolError("Unleash answered with another segment than the one that was asked for")
        return segment

    def _refuse(self, constraints: list[dict[str, Any]], values: list[str]) -> None:
        """Raise `RequestError` where the server would refuse the segment."""
        most, count = self.config.max_values, sum(len(c.get("values") or ()) for c in constraints)
        if count > most:
            fix = "narrow the cohort; where the server allows more (UNLEASH_SEGMENT_VALUES_LIMIT), set max_values"
            raise RequestError(f"the segment would have {count:,} values, and Unleash takes {most:,}", fix=fix)
        unfit = sum(not 0 < len(value) <= _LONGEST for value in values)
        if unfit:
            fix = "leave them out of the cohort, or map another column"
            unfit_are = f"{unfit:,} of {len(values):,} identifiers are empty or longer than {_LONGEST} characters"
            raise RequestError(f"{unfit_are}, which Unleash refuses", fix=fix)


def _is_list(constraint: dict[str, Any]) -> bool:
    """Is it a plain list of those who are in."""
    return constraint.get("operator") == "IN" and not constraint.get("inverted")


def _path(audience: str | None) -> str:
    return f"{_SEGMENTS}/{path_part(audience)}"
