"""The connector made of a manifest: builds its requests and hands its answers to the reader."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import httpx
from pydantic import Field as Described
from pydantic import SecretStr, create_model

from sync.errors import RequestError
from sync.sdk.connector import Config, Connector
from sync.sdk.http import reset_after, retry_after
from sync.sdk.manifest import PLACEHOLDER, Action, Manifest
from sync.sdk.manifest_answer import read
from sync.sdk.manifest_auth import Option, build_auth
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Outcome, Receipt, Status, Value
from sync.sdk.values import dumps, text

__all__ = ["ManifestConnector", "make"]


class ManifestConnector(Connector[Config]):
    """Sends one request a batch, or one a record, as its manifest says."""

    manifest: ClassVar[Manifest]

    @classmethod
    def base_url(cls, config: Config) -> str:
        """The manifest's, its placeholders filled."""
        return str(_fill(cls.manifest.base_url, _options(config)))

    @classmethod
    def auth(cls, config: Config) -> httpx.Auth | None:
        """The manifest's scheme with the configuration's credentials."""
        spec = cls.manifest.auth
        token_url = str(_fill(getattr(spec, "token_url", ""), _options(config)))
        return build_auth(spec, config, token_url)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or the manifest's own header."""
        signal = cls.manifest.rate_signal
        return retry_after(response) if signal is None else reset_after(response, signal.header, signal.unit)

    def check(self) -> None:
        """The manifest's cheapest read."""
        check = self.manifest.check
        path = _fill(check.path, _options(self.config), quoted=True)
        self.http.request(check.method, path, extensions={"expects": check.statuses})

    def push(self, batch: Batch) -> Outcome:
        """Send the batch, whole or record by record."""
        action = self.manifest.objects[batch.object].action(batch.changes[0].op)
        if action.per == "batch":
            return self._send(action, batch, batch.changes)
        return [self._send_one(action, batch, change) for change in batch.changes]

    def _send_one(self, action: Action, batch: Batch, change: Change) -> Receipt:
        """A refusal speaks for this record alone; anything else stops the batch."""
        try:
            (receipt,) = self._send(action, batch, (change,))
        except RequestError as exc:
            return Receipt(change.key, Status.REJECTED, exc.detail[:500] or exc.message)
        return receipt

    def _send(self, action: Action, batch: Batch, changes: Sequence[Change]) -> list[Receipt]:
        expects = frozenset({*action.answer.statuses, *(action.gone if changes[0].op is Op.REMOVE else ())})
        response = self.http.send(self.request(action, batch, changes, expects))
        if changes[0].op is Op.REMOVE and response.status_code in action.gone:
            return [Receipt(change.key, Status.APPLIED) for change in changes]
        return read(action.answer, self.manifest.plain_success, changes, response)

    def request(
        self, action: Action, batch: Batch, changes: Sequence[Change], expects: frozenset[int] = frozenset()
    ) -> httpx.Request:
        """The request for these changes: all of the batch, or one record."""
        known = _options(self.config) | {"audience": batch.audience or "", "batch_id": batch.id}
        if action.per == "record":
            known |= {**changes[0].fields, **changes[0].identifiers}
        members = _joined(action, changes) if action.per == "batch" and action.place in _JOINED else ""
        query = {key: _fill(value, known) for key, value in action.query.items()}
        if action.place == "query" and action.per == "batch":
            query[action.members] = members
        headers = {key: str(_fill(value, known)) for key, value in action.headers.items()}
        content, kind = _content(action, changes, known, members)
        return self.http.build_request(
            action.method,
            str(_fill(action.path, known | {"members": members}, quoted=True)),
            params=query,
            headers=kind | headers,
            content=content,
            extensions={"expects": expects},
        )


_JOINED = ("form", "query", "path")
_JSON = {"Content-Type": "application/json"}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def _content(
    action: Action, changes: Sequence[Change], known: Mapping[str, Value], members: str
) -> tuple[bytes | None, dict[str, str]]:
    """The body and its type."""
    constants = {
        key: _fill(value, known) if isinstance(value, str) else value for key, value in action.body.items()
    }
    record = action.per == "record"
    if action.place == "json":
        return dumps(
            constants | _record(action, changes[0]) if record else _members(action, changes, constants)
        ), _JSON
    if action.place == "form":
        form = constants | (_record(action, changes[0]) if record else {action.members: members})
        return str(httpx.QueryParams({k: text(v) for k, v in form.items()})).encode(), _FORM
    return (dumps(constants), _JSON) if constants else (None, {})


def _members(action: Action, changes: Sequence[Change], constants: dict[str, Value]) -> Value:
    """The JSON body of a batch."""
    if action.lists:
        by_op = {key: [c for c in changes if c.op is op] for op, key in action.lists.items()}
        return constants | {key: _values(action, some) for key, some in by_op.items()}
    values = _values(action, changes)
    return constants | {action.members: values} if action.members else values


def _values(action: Action, changes: Sequence[Change]) -> list[Value]:
    """What stands for each member: one field, or the whole record."""
    if action.value:
        return [change.identifiers.get(action.value, change.fields.get(action.value)) for change in changes]
    return [_record(action, change) for change in changes]


def _record(action: Action, change: Change) -> dict[str, Value]:
    if action.fields_at and change.fields:
        return {**change.identifiers, action.fields_at: dict(change.fields)}
    return {**change.fields, **change.identifiers}


def _fill(template: str, known: Mapping[str, Value], *, quoted: bool = False) -> Value:
    """The text with its placeholders filled; `quoted` makes each safe as one segment of a path."""
    whole = PLACEHOLDER.fullmatch(template)
    if whole and whole[2]:
        return _integer(whole[1], text(known[whole[1]]))

    def one(match: re.Match[str]) -> str:
        value = text(known[match[1]])
        return _segment(match[1], value) if quoted else value

    return PLACEHOLDER.sub(one, template)


def _segment(name: str, value: str) -> str:
    """A value as one segment of a path. An empty one would address the collection: DELETE would take it all."""
    if not value.strip() or value in (".", ".."):
        raise RequestError(f"the {name} is empty or a dot, and it is part of the address")
    return quote(value, safe="," if name == "members" else "")


def _joined(action: Action, changes: Sequence[Change]) -> str:
    """One field of every member, with commas between."""
    values = [text(value) for value in _values(action, changes)]
    if any("," in value or not value.strip() for value in values):
        raise RequestError("a value is empty or has a comma, and values are joined by commas here")
    return ",".join(values)


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise RequestError(f"the {name} has to be a whole number here", value) from None


def _options(config: Config) -> dict[str, Value]:
    """The configuration's options that are not secret."""
    every = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: value for name, value in every.items() if not isinstance(value, SecretStr)}


def _type(option: Option) -> Any:
    """The type of an option in the configuration."""
    if option.secret:
        return SecretStr
    return Literal[option.choices] if option.choices else str


def make(manifest: Manifest) -> type[ManifestConnector]:
    """The connector class of a manifest."""
    options: dict[str, Any] = {
        name: (_type(o), Described(default=... if o.default is None else o.default, description=o.description))
        for name, o in manifest.options.items()
    }
    camel = "".join(part.title() for part in manifest.name.split("_"))
    objects: dict[str, ObjectSpec] = {name: one.spec(name) for name, one in manifest.objects.items()}
    body = {
        "__doc__": manifest.docs,
        "name": manifest.name,
        "title": manifest.title,
        "docs": manifest.docs,
        "manifest": manifest,
        "config_model": create_model(f"{camel}Config", __base__=Config, **options),
        "objects": objects,
        "unavailable": frozenset(manifest.unavailable),
        "plain_success": frozenset(manifest.plain_success),
    }
    return type(camel, (ManifestConnector,), body)
