"""A whole manifest: what it may hold, and what in it does not go together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, model_validator

from sync.sdk import nouns
from sync.sdk.manifest.answer import Answer, Code, Rows, Silent
from sync.sdk.manifest.audience import Create, Describe, ReadMembers
from sync.sdk.manifest.auth import Auth, Option, Strict, credentials
from sync.sdk.manifest.job import JobAnswer
from sync.sdk.manifest.lookup import Lookup
from sync.sdk.manifest.request import Call, Carrier
from sync.sdk.manifest.text import placeholders
from sync.sdk.nouns import Op

__all__ = ["Action", "Codes", "Manifest", "ObjectManifest", "RateSignalSpec"]

_ALWAYS = frozenset({"audience", "base_url"})
_IN_A_BATCH = _ALWAYS | {"batch_id", "op"}
_OF_A_RECORD = frozenset({"key", "op", "remote_id"})


class Check(Call):
    """The cheapest read that proves the credentials."""


class RateSignalSpec(Strict):
    """Where an answer says when to come back, if not in `Retry-After`: in a header, or at a place of the body.

    `statuses` mean "too fast" beside 429.
    """

    header: str = ""
    at: str = ""
    unit: Literal["seconds", "epoch_s", "epoch_ms"] = "seconds"
    statuses: tuple[int, ...] = ()


class Codes(Strict):
    """Codes at a place of the body that mean more than the HTTP status does, in refusals and in good answers."""

    at: str = Field(min_length=1)
    rate_limited: tuple[str | int | bool, ...] = ()
    unavailable: tuple[str | int | bool, ...] = ()
    unauthorised: tuple[str | int | bool, ...] = ()


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


class Action(Carrier):
    """A request that changes something, and how its answer is read.

    Where a platform wants an upload begun and ended, `open` goes first, and gives the id that is `{opened}` from
    then on; `close` goes last, and it is its answer that `answer` reads, while `taken` says what proves that the
    members arrived.

    Of several ops in one body, `lists` gives each its key, `records` each its template of a record, and
    `instructions` each an object of the list `members`, in which `{members}` are the values of that op.
    """

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    lists: Mapping[Op, str] = {}
    omit_empty: bool = False  # of `lists`, those with nobody in them
    records: Mapping[Op, JsonValue] = {}
    instructions: Mapping[Op, JsonValue] = {}
    gone: tuple[int, ...] = ()  # statuses by which a removal finds nobody, which is as good as done
    exists: tuple[int, ...] = ()  # statuses by which an addition finds somebody there, which is as good as done
    open: Create | None = None
    close: Call | None = None
    taken: Silent | None = None
    answer: Annotated[Answer | JobAnswer, Field(discriminator="kind")]

    @property
    def ops(self) -> frozenset[Op]:
        """The ops that a mixed request tells apart."""
        return frozenset(self.lists) | frozenset(self.records) | frozenset(self.instructions)

    def record_names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder of the templates of one record."""
        yield from super().record_names()
        yield from placeholders(dict(self.records), "records")

    def instruction_names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder of the instructions."""
        yield from placeholders(dict(self.instructions), "instructions")

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield from super().mistakes()
        batch = self.per == "batch"
        ways = [bool(self.lists), bool(self.records), bool(self.instructions)]
        yield sum(ways) > 1, "give one of `lists`, `records` and `instructions`"
        several = bool(self.lists) or bool(self.instructions)
        yield several and (self.place != "json" or not batch), "several ops need one JSON body a batch"
        yield bool(self.lists) and bool(self.members), "give either `members` or `lists`"
        yield bool(self.records) and (self.record is not None or bool(self.value)), "give `record` or `records`"
        whole = isinstance(self.answer, Silent | Code)
        yield (
            not batch and not whole,
            "with `per` record the answer is silent or a code: it speaks of one record",
        )
        yield (
            not self.members and not several and bool(self.body) and batch and self.place == "json",
            "`members` is missing: a body with constants cannot be the list itself",
        )
        yield (
            not batch and (self.open is not None or self.close is not None),
            "`open` and `close` need `per` batch",
        )
        yield (self.close is None) != (self.taken is None), "`close` needs `taken`: what proves that all arrived?"
        for answer in _answers(self.answer):
            rows = isinstance(answer, Rows)
            both = rows and bool(answer.status) == (answer.error is not None)
            yield both, "rows are told by a `status`, with `good`, or by an `error`: give one of them"
            yield rows and bool(answer.status) and not answer.good, "`good` is missing: which statuses are?"
        yield batch and bool(self.gone or self.exists), "`gone` and `exists` need `per` record: they speak of one"


def _answers(answer: Any) -> list[Any]:
    """An answer, and those that its job has."""
    return [answer.at_once, answer.poll.answer] if isinstance(answer, JobAnswer) else [answer]


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


class Manifest(Strict):
    """A whole manifest file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    docs: str
    base_url: str = Field(min_length=1)
    auth: Auth
    check: Check
    headers: Mapping[str, str] = {}  # of every request
    options: Mapping[str, Option] = {}
    rate_signal: RateSignalSpec | None = None
    codes: Codes | None = None
    reason: str = ""  # where the body of a refusal says why
    unavailable: tuple[int, ...] = ()
    plain_success: tuple[Literal["empty", "{}", "[]"], ...] = ()
    objects: Mapping[str, ObjectManifest] = Field(min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        for mistake in self._mistakes():
            raise ValueError(mistake)
        return self

    def _mistakes(self) -> Iterator[str]:
        """What does not go together, with its place."""
        yield from self._of_credentials()
        options = {name for name, option in self.options.items() if not option.secret}
        yield from _unknown(
            "base_url", placeholders(self.base_url), options - {"base_url"} | self._own("base_url")
        )
        yield from _unknown("headers", placeholders(self.headers), options | _ALWAYS)
        yield from _unknown("check", self.check.names(), options | {"base_url"})
        for name, one in self.objects.items():
            where = f"objects.{name}"
            yield from (f"{where}: {message}" for found, message in one.mistakes() if found)
            if one.members is not None and not one.members.list and "[]" not in self.plain_success:
                yield (
                    f"{where}.members: the body itself is the list, so an empty one has to be an answer: "
                    'set `plain_success = ["[]"]`, or name the `list`'
                )
            yield from _of_object(where, one, options)

    def _own(self, name: str) -> set[str]:
        return {name} & set(self.options)

    def _of_credentials(self) -> Iterator[str]:
        for key, name, secret in credentials(self.auth):
            where = f"auth.{key}"
            if name not in self.options:
                yield f"{where}: there is no option '{name}'{_near(name, self.options)}"
            elif secret and not self.options[name].secret:
                yield f"{where}: the option '{name}' is a credential and lacks `secret = true`"
        if token_url := getattr(self.auth, "token_url", ""):
            options = {name for name, option in self.options.items() if not option.secret}
            yield from _unknown("auth.token_url", placeholders(token_url), options | {"base_url"})
        for name, option in self.options.items():
            if option.choices and option.default is not None and option.default not in option.choices:
                yield f"options.{name}: the default is none of the choices"
            if not name.isidentifier() or name.startswith(("_", "model_")):
                yield f"options.{name}: a name has letters, digits and `_`, and begins with a letter"


def _of_object(where: str, one: ObjectManifest, options: set[str]) -> Iterator[str]:
    fields = {f.name for f in one.fields}
    batch = options | _IN_A_BATCH
    for place, carrier in (*one.requests(), *one.searches()):
        here = f"{where}.{place}"
        yield from (f"{here}: {message}" for found, message in carrier.mistakes() if found)
        yield from _of_carrier(here, carrier, batch, fields, one)
    if one.create is not None:
        yield from _unknown(f"{where}.create", one.create.names(), options | {"title", "base_url"})
    if one.members is not None:
        yield from (f"{where}.members: {message}" for found, message in one.members.mistakes() if found)
        yield from _unknown(f"{where}.members", one.members.names(), options | _ALWAYS)
        if not one.open_fields:
            yield from (
                _no_field(f"{where}.members", name) for name in one.members.identifiers if name not in fields
            )
    if one.describe is not None:
        yield from _unknown(f"{where}.describe", one.describe.names(), options | {"base_url"})


def _of_carrier(
    here: str, carrier: Carrier, batch: set[str], fields: set[str], one: ObjectManifest
) -> Iterator[str]:
    of_record = batch | fields | _OF_A_RECORD | {"fields"}
    if one.open_fields:  # they are named in mappings
        of_record |= {name for _, name in carrier.record_names()}
    if isinstance(carrier, Action):
        yield from _of_upload(here, carrier, batch)
        batch = batch | ({"opened"} if carrier.open is not None else set())
    known = batch | (of_record if carrier.per == "record" else set())
    known |= {"members"} if carrier.place == "path" else set()
    yield from _unknown(here, carrier.names(), known)
    yield from _unknown(here, carrier.record_names(), of_record)
    if isinstance(carrier, Action):
        yield from _unknown(here, carrier.instruction_names(), batch | {"members"})
        answer = carrier.answer
        if isinstance(answer, JobAnswer):
            yield from (f"{here}.answer.poll: {message}" for found, message in answer.poll.mistakes() if found)
            yield from _unknown(f"{here}.answer.poll", answer.poll.names(), batch | {"job"})
            if answer.poll.result is not None:
                yield from _unknown(f"{here}.answer.poll.result", answer.poll.result.names(), batch | {"job"})
            yield from _of_job(here, answer)
    for wanted in _compared(carrier):
        if wanted != "remote_id" and wanted not in fields and not one.open_fields:
            yield _no_field(here, wanted)
    if isinstance(carrier, Lookup) and carrier.record is None and carrier.per == "batch" and not carrier.value:
        yield f"{here}: `value` is missing: by which field are people looked up?"


def _of_upload(here: str, action: Action, batch: set[str]) -> Iterator[str]:
    if action.open is not None:
        yield from _unknown(f"{here}.open", action.open.names(), batch)
    if action.close is not None:
        opened = {"opened"} if action.open is not None else set()
        yield from _unknown(f"{here}.close", action.close.names(), batch | opened)
    if isinstance(action.answer, JobAnswer) and action.answer.opened and action.open is None:
        yield f"{here}.answer: `opened` needs `open`: which request begins the job?"


def _of_job(here: str, answer: JobAnswer) -> Iterator[str]:
    if [bool(answer.id), bool(answer.header), answer.opened].count(True) != 1:
        yield f"{here}.answer: give one of `id`, `header` and `opened = true`: where does the job's id stand?"
    if not answer.poll.path and answer.opened:
        yield f"{here}.answer.poll: `path` is missing"


def _compared(carrier: Carrier) -> Iterator[str]:
    """The fields that values are taken from or compared with."""
    parts: list[Any] = [carrier]
    if isinstance(carrier, Action):
        parts += _answers(carrier.answer)
    yield from filter(None, (getattr(part, key, "") for part in parts for key in ("value", "match")))


def _unknown(where: str, found: Iterable[tuple[str, str]], known: Iterable[str]) -> Iterator[str]:
    usable = set(known)
    for place, name in found:
        if name not in usable:
            yield f"{where}.{place}: nothing is called '{{{name}}}'{_near(name, usable)}".replace(".:", ":")


def _no_field(where: str, name: str) -> str:
    return f"{where}: there is no field '{name}'"


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
