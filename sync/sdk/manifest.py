"""The first rung: a connector as a TOML file, no Python.

    Acme = connector("acme_headgate", "acme.toml")      # in a module that an entry point names

A manifest says where the API is, how to authenticate, which objects there are, one request for each op, and
where an answer lists what it refused. It is closed on purpose: no conditions, no loops, no expressions; what it
cannot say is the next rung, `HttpConnector`. Text may hold placeholders: `{option}` of the configuration,
`{audience}`, `{batch_id}`; with `per = "record"` also `{field}`; `{members}` where `place = "path"`. A value that
is one placeholder with `:integer` (`"{audience:integer}"`) becomes a number.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field, ValidationError, model_validator

from sync.errors import Problem, ProjectError
from sync.sdk import nouns
from sync.sdk.manifest_auth import CREDENTIALS, Auth, Option, Strict
from sync.sdk.nouns import Op

__all__ = [
    "PLACEHOLDER",
    "Action",
    "Answer",
    "ByIdentifier",
    "ByIndex",
    "Code",
    "Manifest",
    "ObjectManifest",
    "Proof",
    "Rows",
    "Silent",
    "TwoLists",
    "connector",
    "read_manifest",
]

PLACEHOLDER = re.compile(r"\{(\w+)(:integer)?\}")
_KNOWN = frozenset({"audience", "batch_id"})


class Check(Strict):
    """The cheapest read that proves the credentials; `statuses` are taken as success beside 2xx."""

    method: Literal["GET", "HEAD", "OPTIONS"] = "GET"
    path: str
    statuses: tuple[int, ...] = ()


class RateSignalSpec(Strict):
    """The header in which a 429 says when to come back, where it is not `Retry-After`."""

    header: str
    unit: Literal["seconds", "epoch_s", "epoch_ms"]


class FieldSpec(Strict):
    """A field, as `sync.sdk.nouns.Field`."""

    name: str
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


class Proof(Strict):
    """What has to stand in an answer for it to count: the value at a dotted path, one of some values."""

    at: str
    equals: tuple[str | int | bool, ...]


class _Answered(Strict):
    statuses: tuple[int, ...] = ()  # besides 2xx
    success: Proof | None = None


class Silent(_Answered):
    """All or nothing. Without `success`, only a 204 or a body listed in `plain_success` counts."""

    kind: Literal["silent"]


class ByIndex(_Answered):
    """Refusals in a list, each with the number of its record; without `index` the entries are the numbers."""

    kind: Literal["by_index"]
    list: str
    index: str = ""
    reason: str = ""


class ByIdentifier(_Answered):
    """Refusals in lists, each with its record's identifier; without `identifier` the entries are identifiers.

    `match` is the field they are compared with, in lower case. Without `reason`, the list's name is the reason.
    """

    kind: Literal["by_identifier"]
    lists: tuple[str, ...] = Field(min_length=1)
    match: str
    identifier: str = ""
    reason: str = ""


class TwoLists(_Answered):
    """One list has who was taken, the other who was not; whoever is in neither is unknown."""

    kind: Literal["two_lists"]
    applied: str
    rejected: str
    match: str
    identifier: str = ""
    reason: str = ""


class Rows(_Answered):
    """A status a record, in the order they were sent."""

    kind: Literal["rows"]
    list: str
    status: str
    good: tuple[str | int | bool, ...]
    reason: str = ""


class Code(_Answered):
    """A code in the body speaks for the whole request, whatever the HTTP status says."""

    kind: Literal["code"]
    code: str
    good: tuple[str | int | bool, ...]
    reason: str = ""


Answer = Annotated[Silent | ByIndex | ByIdentifier | TwoLists | Rows | Code, Field(discriminator="kind")]


class Action(Strict):
    """One request.

    `per = "batch"`: the members go, as `place` says, into the JSON body, a form or the query under the key
    `members` (the body itself is the list where it is empty), or into the path at `{members}`; of each the
    whole record, or with `value` that field alone. Outside JSON they are joined by commas. `lists` keeps ops
    apart in one body: the key for each op. `per = "record"`: one request each, the record in the body or form.
    `fields_at` puts fields under a key, beside the identifiers. `body` has constants.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    per: Literal["batch", "record"] = "batch"
    place: Literal["json", "form", "query", "path", "none"] = "json"
    members: str = ""
    value: str = ""
    fields_at: str = ""
    body: Mapping[str, Any] = {}
    lists: Mapping[Op, str] = {}
    gone: tuple[int, ...] = ()  # statuses by which a removal finds nobody, which is as good as done
    answer: Answer

    @model_validator(mode="after")
    def _fits(self) -> Action:
        for condition, message in self._mistakes():
            if condition:
                raise ValueError(message)
        return self

    def _mistakes(self) -> Iterator[tuple[bool, str]]:
        batch, joined = self.per == "batch", self.place in ("form", "query", "path")
        yield batch and self.place == "none", "`place` is none: the members go nowhere"
        yield batch and joined and not self.value, "`value` is missing: which field is joined by commas?"
        yield (
            batch and self.place in ("form", "query") and not self.members,
            "`members` is missing: under which key?",
        )
        yield self.place == "path" and "{members}" not in self.path, "`path` has no {members}"
        yield bool(self.lists) and (self.place != "json" or not batch), "`lists` needs one JSON body a batch"
        yield bool(self.lists) and bool(self.members), "give either `members` or `lists`"
        whole = isinstance(self.answer, Silent | Code)
        yield not batch and not whole, "with `per` record the answer is silent or a code: it speaks of one record"
        yield (
            not batch and self.place in ("query", "path"),
            "with `per` record use placeholders instead of `place`",
        )
        yield (
            not self.members and not self.lists and bool(self.body) and batch and self.place == "json",
            ("`members` is missing: a body with constants cannot be the list itself"),
        )


class ObjectManifest(Strict):
    """A kind of thing the connector writes. Its ops are those that have an action."""

    title: str
    audience: bool = True
    idempotent: bool = True
    open_fields: bool = False
    irreversible: tuple[Op, ...] = ()
    order: nouns.Order = nouns.Order.REMOVALS_LAST
    fields: tuple[FieldSpec, ...] = ()
    limits: LimitsSpec = LimitsSpec()
    actions: Mapping[Op, Action] = {}
    mixed: Action | None = None  # one request for several ops, its `lists` say which

    @property
    def ops(self) -> frozenset[Op]:
        """The permitted ops."""
        return frozenset(self.actions) | frozenset(self.mixed.lists if self.mixed else ())

    def action(self, op: Op) -> Action:
        """The request that carries an op."""
        return self.actions[op] if self.mixed is None else self.mixed

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
            limits=nouns.Limits(**limits, mixed_ops=self.mixed is not None),
            audience=self.audience,
            idempotent=self.idempotent,
            irreversible=frozenset(self.irreversible),
            order=self.order,
            open_fields=self.open_fields,
        )

    @model_validator(mode="after")
    def _fits(self) -> ObjectManifest:
        if bool(self.actions) == (self.mixed is not None):
            raise ValueError("give either `actions`, one an op, or `mixed`")
        if self.mixed is not None and not self.mixed.lists:
            raise ValueError("`mixed` has no `lists`: which op goes under which key?")
        one_by_one = any(action.per == "record" for action in self.all_actions())
        if one_by_one and not self.idempotent and self.limits.batch_size != 1:
            raise ValueError(
                "not idempotent and `per` record: set `limits.batch_size = 1`, or a replay repeats records"
            )
        names = {f.name for f in self.fields}
        for action in self.all_actions():
            for wanted in filter(None, (action.value, getattr(action.answer, "match", ""))):
                if wanted not in names and not self.open_fields:
                    raise ValueError(f"there is no field '{wanted}'")
        return self

    def all_actions(self) -> list[Action]:
        """Every request of the object."""
        return [*self.actions.values(), *([self.mixed] if self.mixed else [])]


class Manifest(Strict):
    """A whole manifest file."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    docs: str
    base_url: str
    auth: Auth
    check: Check
    options: Mapping[str, Option] = {}
    rate_signal: RateSignalSpec | None = None
    unavailable: tuple[int, ...] = ()
    plain_success: tuple[Literal["empty", "{}"], ...] = ()
    objects: Mapping[str, ObjectManifest] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_exist(self) -> Manifest:
        for key, secret in CREDENTIALS[self.auth.scheme]:
            self._option(getattr(self.auth, key), f"auth.{key}", secret)
        self._placeholders("base_url", self.base_url, frozenset())
        for name, one in self.objects.items():
            fields = frozenset(f.name for f in one.fields)
            for action in one.all_actions():
                known = _KNOWN | ({"members"} if action.place == "path" else frozenset())
                known |= fields if action.per == "record" else frozenset()
                for where, text in _texts(action):
                    self._placeholders(f"objects.{name}: {where}", text, known)
        return self

    def _option(self, name: str, where: str, secret: bool) -> None:
        if name not in self.options:
            raise ValueError(f"{where}: there is no option '{name}'{_near(name, self.options)}")
        if secret and not self.options[name].secret:
            raise ValueError(f"{where}: the option '{name}' is a credential and lacks `secret = true`")

    def _placeholders(self, where: str, text: str, known: frozenset[str]) -> None:
        usable = known | {name for name, option in self.options.items() if not option.secret}
        for name, _ in PLACEHOLDER.findall(text):
            if name not in usable:
                raise ValueError(f"{where}: nothing is called '{{{name}}}'{_near(name, usable)}")


def _near(name: str, names: Any) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _texts(action: Action) -> Iterator[tuple[str, str]]:
    """Every text of an action that may hold placeholders."""
    yield "path", action.path
    yield from ((f"query.{k}", v) for k, v in action.query.items())
    yield from ((f"headers.{k}", v) for k, v in action.headers.items())
    yield from ((f"body.{k}", v) for k, v in action.body.items() if isinstance(v, str))


def read_manifest(text: str, file: str) -> Manifest:
    """The manifest in a TOML text. Raises `ProjectError` (HG412), which names the file and every key amiss."""
    try:
        return Manifest.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        _refuse([Problem("HG412", f"{file}: {exc}", "Mend the TOML.", file)])
    except ValidationError as exc:
        _refuse([_problem(file, error) for error in exc.errors()])
    except (ValueError, RecursionError):
        message = f"{file}: a number has thousands of digits, or values are nested too deeply"
        _refuse([Problem("HG412", message, "Mend the TOML.", file)])


def _problem(file: str, error: Any) -> Problem:
    key = ".".join(str(part) for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return Problem("HG412", f"{file}: {f'{key}: ' if key else ''}{message}", "Mend the manifest.", file)


def _refuse(problems: list[Problem]) -> NoReturn:
    raise ProjectError(problems)


def connector(package: str | Path, file: str = "") -> Any:
    """The `Connector` class of a manifest: a path, or a package and the name of a file in it."""
    from sync.sdk.manifest_connector import make

    if isinstance(package, Path):
        return make(read_manifest(package.read_text(encoding="utf-8"), str(package)))
    return make(read_manifest((files(package) / file).read_text(encoding="utf-8"), f"{package}/{file}"))
