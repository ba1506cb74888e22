"""The objects of a manifest: what is written, by which requests, and what in them does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from sync.sdk import nouns
from sync.sdk.manifest.action import Action
from sync.sdk.manifest.audience import Create, Describe, ReadMembers
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.forms import Code, Silent
from sync.sdk.manifest.lookup import Lookup, Missing
from sync.sdk.nouns import Op

__all__ = ["ObjectManifest"]


class FieldSpec(Strict):
    """A field, as `sync.sdk.nouns.Field`."""

    name: str = Field(min_length=1)
    type: Literal["string", "integer", "number", "boolean", "date", "timestamp", "json"] = "string"
    required: bool = False
    identifier: bool = False
    normalise: str | None = None
    hash: Literal["sha256", "md5"] | None = None
    description: str = ""


class RateSpec(Strict):
    """At most so many requests in any window of `per` seconds."""

    requests: int = Field(ge=1)
    per: float = Field(gt=0)


class LimitsSpec(Strict):
    """What the platform takes at once, as `sync.sdk.nouns.Limits`."""

    batch_size: int | None = Field(default=None, ge=1)
    batch_bytes: int | None = Field(default=None, ge=1000)
    concurrency: int = Field(default=1, ge=1)
    rates: tuple[RateSpec, ...] = ()


class ObjectManifest(Strict):
    """A kind of thing the connector writes. Its ops are those that have an action; the action `upsert` is for
    additions and updates, and `replace`, alone, sends the whole audience whenever anything in it changes."""

    title: str
    audience: bool = True
    idempotent: bool = True
    open_fields: bool = False
    irreversible: tuple[Op, ...] = ()
    order: nouns.Order = nouns.Order.REMOVALS_LAST
    fields: tuple[FieldSpec, ...] = ()
    limits: LimitsSpec = LimitsSpec()
    lookup: Lookup | None = None
    lookups: Mapping[Op, Lookup] = {}  # where an op needs another one
    actions: Mapping[Literal["add", "update", "remove", "upsert", "replace"], Action] = {}
    mixed: Action | None = None
    create: Create | None = None
    members: ReadMembers | None = None
    describe: Describe | None = None

    @property
    def ops(self) -> frozenset[Op]:
        """The permitted ops."""
        if self.mixed is not None:
            return self.mixed.ops
        if self.whole:
            return frozenset(Op)
        both = {Op.ADD, Op.UPDATE} if "upsert" in self.actions else set()
        return frozenset(Op(name) for name in self.actions if name != "upsert") | both

    @property
    def whole(self) -> bool:
        """Is the audience always sent whole."""
        return "replace" in self.actions

    def action(self, op: Op) -> Action:
        """The request that carries an op."""
        if self.mixed is not None or self.whole:
            return self.mixed or self.actions["replace"]
        return self.actions[op.value] if op.value in self.actions else self.actions["upsert"]

    def lookup_for(self, op: Op) -> Lookup | None:
        """How the ids for an op are found."""
        return self.lookups.get(op, self.lookup)

    def spec(self, name: str) -> nouns.ObjectSpec:
        """The object as the engine reads it."""
        limits = self.limits.model_dump() | {
            "rates": tuple(nouns.Rate(r.requests, r.per) for r in self.limits.rates)
        }
        return nouns.ObjectSpec(
            name=name,
            title=self.title,
            ops=self.ops,
            fields=tuple(nouns.Field(**f.model_dump()) for f in self.fields),
            limits=nouns.Limits(**limits, mixed_ops=self.mixed is not None or self.whole),
            delivery=nouns.Delivery.SNAPSHOT if self.whole else nouns.Delivery.DELTA,
            audience=self.audience,
            idempotent=self.idempotent,
            irreversible=frozenset(self.irreversible),
            order=self.order,
            open_fields=self.open_fields,
            readable=self.members is not None,
        )

    def requests(self) -> Iterator[tuple[str, Action]]:
        """Every request that changes members, with its place in the manifest."""
        yield from ((f"actions.{name}", action) for name, action in self.actions.items())
        if self.mixed is not None:
            yield "mixed", self.mixed

    def searches(self) -> Iterator[tuple[str, Lookup]]:
        """Every lookup, with its place."""
        yield from ((f"lookups.{op.value}", lookup) for op, lookup in self.lookups.items())
        if self.lookup is not None:
            yield "lookup", self.lookup

    def makers(self) -> Iterator[tuple[str, Missing]]:
        """Every request that makes whom a lookup did not find, with its place."""
        searches = self.searches()
        yield from ((f"{place}.missing", one.missing) for place, one in searches if one.missing is not None)

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield bool(self.actions) == (self.mixed is not None), "give either `actions`, one an op, or `mixed`"
        if self.mixed is not None:
            yield not self.mixed.ops, "`mixed` has no `lists`, `records` or `instructions`: which op goes where?"
            yield (
                len({type(s) for s in map(self.lookup_for, self.ops)}) > 1 or bool(self.lookups),
                ("`mixed` has one `lookup` for all ops: leave `lookups` out"),
            )
        both = "upsert" in self.actions and bool({"add", "update"} & set(self.actions))
        yield both, "`actions.upsert` is for additions and updates: leave `add` and `update` out"
        yield not self.audience and self.create is not None, "`create` makes an audience, and the object has none"
        if self.whole:
            yield len(self.actions) > 1, "`actions.replace` is the whole audience: leave the other actions out"
            yield self.lookup is not None or bool(self.lookups), "`actions.replace` takes no `lookup`"
            answer = self.actions["replace"].answer
            yield not isinstance(answer, Silent | Code), "a whole audience is taken or not: silent, or a code"
            yield self.actions["replace"].per == "record", "`actions.replace` is one request: `per` batch"
        for place, action in self.requests():
            yield from self._of_action(place, action)

    def _of_action(self, place: str, action: Action) -> Iterator[tuple[bool, str]]:
        yield (
            action.per == "record" and not self.idempotent and self.limits.batch_size != 1,
            "not idempotent and `per` record: set `limits.batch_size = 1`, or a replay repeats records",
        )
        counted = action.answer.kind == "count" and not self.idempotent
        yield counted, f"{place}.answer: numbers alone need a batch that may be repeated: `idempotent` is false"
