"""The connector made of a manifest: builds its requests and hands its answers to the readers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import httpx
import orjson
from pydantic import SecretStr

from sync.errors import (
    AuthError,
    DestinationError,
    ProtocolError,
    RateLimited,
    RequestError,
    Unavailable,
    UsageError,
)
from sync.sdk import nouns
from sync.sdk.connector import Config, Connector
from sync.sdk.http import number_after, reset_after, retry_after
from sync.sdk.manifest import audience, job, lookup
from sync.sdk.manifest.action import Action
from sync.sdk.manifest.answer import created, read, reason_of, refuse
from sync.sdk.manifest.auth import build_auth
from sync.sdk.manifest.job import JobAnswer
from sync.sdk.manifest.model import Manifest
from sync.sdk.manifest.request import (
    Call,
    Carrier,
    as_listed,
    build,
    by_op,
    content_of,
    filled_headers,
    in_path,
    of_change,
    parameters,
    record_of,
    unfit,
)
from sync.sdk.manifest.text import dig, fill, is_one_of, put, render
from sync.sdk.nouns import Batch, Change, Job, Op, Outcome, Page, Receipt, Status, Value
from sync.sdk.wire import host_of

__all__ = ["Creating", "Describing", "ManifestConnector", "Polling", "Reading"]


class ManifestConnector(Connector[Config]):
    """Sends one request a batch, or one a record, as its manifest says."""

    manifest: ClassVar[Manifest]
    path: ClassVar[Path | None] = None
    """The manifest's file, where it came from one."""

    @classmethod
    def base_url(cls, config: Config) -> str:
        """The option `base_url`, or the manifest's, its placeholders filled."""
        known = _options(config)
        return str(known.get("base_url") or fill(cls.manifest.base_url, known))

    @classmethod
    def auth(cls, config: Config) -> httpx.Auth | None:
        """The manifest's scheme with the configuration's credentials."""
        return build_auth(cls.manifest.auth, config, _options(config) | {"base_url": cls.base_url(config)})

    @classmethod
    def account(cls, config: Config) -> str:
        """The address, and whose credentials are sent there: told apart by a digest of them."""
        secrets = [v.get_secret_value() for v in dict(config).values() if isinstance(v, SecretStr)]
        digest = hashlib.sha256("\n".join(secrets).encode("utf-8", "replace")).hexdigest()[:12]
        return cls.base_url(config) + (f"#{digest}" if secrets else "")

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or where the manifest says."""
        signal = cls.manifest.rate_signal
        if signal is None:
            return retry_after(response)
        said = reset_after(response, signal.header, signal.unit)
        return number_after(dig(_json(response), signal.at), signal.unit) if said is None and signal.at else said

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:
        """What the manifest's `rate_signal` and `codes` say of an answer."""
        signal, codes = cls.manifest.rate_signal, cls.manifest.codes
        if signal is not None and response.status_code in signal.statuses:
            return RateLimited
        code = dig(_json(response), codes.at) if codes is not None else None
        if codes is None or isinstance(code, dict | list):
            return None
        meanings: tuple[tuple[tuple[str | int | bool, ...], type[DestinationError]], ...] = (
            (codes.rate_limited, RateLimited),
            (codes.unauthorised, AuthError),
            (codes.unavailable, Unavailable),
        )
        return next((kind for listed, kind in meanings if is_one_of(code, listed)), None)

    def check(self) -> None:
        """The manifest's cheapest read."""
        self._call(self.manifest.check, self._known)

    def push(self, batch: Batch) -> Outcome:
        """Look ids up where that is needed, then send the batch, whole or record by record."""
        spec = self.manifest.objects[batch.object]
        op = batch.changes[0].op
        action, search = spec.action(op), spec.lookup_for(op)
        changes, settled = self._found(search, batch) if search else (list(batch.changes), {})
        sent = [c for c in changes if c.op is not Op.REMOVE] if spec.whole else changes
        settled |= unfit(action, sent, self._of_batch(batch))
        changes = [change for change in changes if change.key not in settled]
        if not changes:
            return [settled[change.key] for change in batch.changes]
        if spec.whole:
            response = self._send(action, batch, [c for c in changes if c.op is not Op.REMOVE])
            receipts = self._read(action.answer, changes, response)
        elif action.per == "record":
            receipts = [self._send_one(action, batch, change) for change in changes]
        else:
            response, opened = self._upload(action, batch, changes)
            if isinstance(action.answer, JobAnswer):
                plain = self.manifest.plain_success
                return job.begun(action.answer, plain, changes, list(settled.values()), response, opened)
            receipts = self._read(action.answer, changes, response)
        return _in_order(batch, changes, receipts, settled)

    def _upload(self, action: Action, batch: Batch, changes: Sequence[Change]) -> tuple[httpx.Response, str]:
        """The answer to the batch, and the id of what was opened for it, if anything was."""
        known, opened = self._of_batch(batch), ""
        if action.open is not None:
            opened = created(action.open.id, self._call(action.open, known))
        response = self._answered(self.request(action, batch, changes, opened))
        if action.close is not None and action.taken is not None:
            read(action.taken, self.manifest.plain_success, changes, response)
            response = self._call(action.close, known | {"opened": opened})
        return response, opened

    def _found(self, search: lookup.Lookup, batch: Batch) -> lookup.Found:
        bad = unfit(search, batch.changes, self._of_batch(batch))
        asked = [change for change in batch.changes if change.key not in bad]

        def send(
            carrier: Carrier, some: Sequence[Change], query: Mapping[str, str], address: str | None
        ) -> httpx.Response:
            if address is not None:
                return self._call(carrier, self._of_batch(batch), address=address)
            return self._answered(self.request(carrier, batch, some, query=query))

        changes, settled = lookup.find(search, asked, send)
        return changes, settled | bad

    def _of_batch(self, batch: Batch) -> dict[str, Value]:
        """What placeholders may say of a batch."""
        of_it = {"audience": batch.audience or "", "batch_id": batch.id, "op": batch.changes[0].op.value}
        return self._known | of_it

    def _send_one(self, action: Action, batch: Batch, change: Change) -> Receipt:
        """A refusal speaks for this record alone; anything else stops the batch."""
        try:
            response = self._send(action, batch, (change,))
            if response.status_code in _as_good_as_done(action, change.op):
                return Receipt(change.key, Status.APPLIED)
            (receipt,) = self._read(action.answer, (change,), response)
        except RequestError as exc:
            return Receipt(change.key, Status.REJECTED, exc.detail[:500].strip() or exc.message)
        return receipt

    def _send(self, carrier: Carrier, batch: Batch, changes: Sequence[Change]) -> httpx.Response:
        return self._answered(self.request(carrier, batch, changes))

    def request(
        self,
        carrier: Carrier,
        batch: Batch,
        changes: Sequence[Change],
        opened: str = "opened",
        query: Mapping[str, str] | None = None,
    ) -> httpx.Request:
        """The request for these changes: all of the batch, or one record."""
        known = self._of_batch(batch) | ({"opened": opened} if getattr(carrier, "open", None) else {})
        expects = {*getattr(carrier, "absent", ())}
        if isinstance(carrier, Action):
            answer = carrier.answer if carrier.taken is None else carrier.taken
            expects |= {*answer.statuses, *_as_good_as_done(carrier, batch.changes[0].op)}
        of_one = of_change(changes[0], known) if carrier.per == "record" else known
        return build(
            self.http,
            carrier,
            of_one,
            headers=self.manifest.headers,
            content=content_of(carrier, changes, of_one, lambda body: _members(carrier, changes, known, body)),
            more=[*parameters(carrier, changes, known), *(query or {}).items()],
            members=in_path(carrier, changes, known),
            expects=frozenset(expects),
        )

    # -- answers

    def _read(self, answer: Any, changes: Sequence[Change], response: httpx.Response) -> list[Receipt]:
        """The receipts in an answer. A refusal's status that the manifest reads can be that of another refusal."""
        try:
            return read(answer, self.manifest.plain_success, changes, response)
        except ProtocolError:
            if response.status_code < 400:
                raise
        said = reason_of(_json(response), self.manifest.reason, response.text)
        raise RequestError(f"{host_of(response.request)} answered {response.status_code}", said)

    @property
    def _known(self) -> dict[str, Value]:
        return _options(self.config) | {"base_url": self.base_url(self.config)}

    def _call(
        self,
        call: Call,
        known: Mapping[str, Value],
        query: Mapping[str, str] | None = None,
        address: str | None = None,
        expects: frozenset[int] = frozenset(),
    ) -> httpx.Response:
        """The answer to a request without members; `address`, from an answer, stands for the path."""
        if address is None:
            more = list((query or {}).items())
            request = build(self.http, call, known, headers=self.manifest.headers, more=more, expects=expects)
        else:
            headers = filled_headers({**self.manifest.headers, **call.headers}, known)
            extensions = {"expects": expects | frozenset(call.statuses)}
            request = self.http.build_request(call.method, address, headers=headers, extensions=extensions)
        return self._answered(request)

    def _answered(self, request: httpx.Request) -> httpx.Response:
        """Send it. A refusal's reason is taken out of its body; a code in a good answer can be an error."""
        try:
            response = self.http.send(request)
        except RequestError as exc:
            reason = self.manifest.reason
            said = reason_of(_loads(exc.detail), reason, exc.detail) if reason else exc.detail
            raise RequestError(exc.message, said, fix=exc.fix) from None
        kind = self.refusal(response) if response.status_code < 400 else None
        if kind is None:
            if self.manifest.refusal is not None and response.status_code < 400:
                refuse(self.manifest.refusal, _json(response), self.manifest.reason)
            return response
        message = f"{host_of(request)} answered {response.status_code} with a code that means otherwise"
        if issubclass(kind, Unavailable):
            raise kind(message, response.text, retry_after=self.retry_after(response))
        raise kind(message, response.text, fix="Check the destination's credentials and what they may do.")


def _as_good_as_done(action: Action, op: Op) -> tuple[int, ...]:
    return action.gone if op is Op.REMOVE else action.exists


class Polling(ManifestConnector):
    """One whose answers may name a job."""

    def poll(self, job_: Job, batch: Batch) -> Outcome:
        """Ask once about a job."""
        spec = self.manifest.objects[batch.object]
        answer = spec.action(job.op_of(job_, batch)).answer
        if not isinstance(answer, JobAnswer):  # the manifest was another when the job began
            raise ProtocolError(f"the manifest of '{self.manifest.name}' does not know of jobs any more")
        known = self._known | {"audience": batch.audience or "", "batch_id": batch.id}

        def send(call: Call, id: str) -> httpx.Response:
            address = id if not call.path else None
            expects = frozenset(getattr(call, "running_statuses", ())) | frozenset(call.statuses)
            if address is None:
                request = build(
                    self.http, call, known | {"job": id}, headers=self.manifest.headers, expects=expects
                )
            else:
                request = self.http.build_request(call.method, address, extensions={"expects": expects})
            return self._answered(request)

        return job.poll(answer, self.manifest.plain_success, job_, batch, send)


class Creating(ManifestConnector):
    """One that can make an audience."""

    def create_audience(self, object: str, title: str) -> str:
        """Make an audience; its id."""
        spec = self.manifest.objects[object].create
        if spec is None:
            raise _cannot(self.manifest, object, "make an audience", "create")
        return created(spec.id, self._call(spec, self._known | {"title": title}))


class Reading(ManifestConnector):
    """One that can read who is in an audience."""

    def members(self, object: str, audience_: str | None, after: str | None = None) -> Page:
        """One page of members."""
        spec = self.manifest.objects[object].members
        if spec is None:
            raise _cannot(self.manifest, object, "read who is in an audience", "members")
        known = self._known | {"audience": audience_ or ""}
        return audience.page(spec, after, lambda call, query, address: self._call(call, known, query, address))


class Describing(ManifestConnector):
    """One that can say which fields the account has."""

    def describe(self, object: str) -> Iterable[nouns.Field]:
        """The fields of the account."""
        spec = self.manifest.objects[object].describe
        if spec is None:
            raise _cannot(self.manifest, object, "say which fields there are", "describe")
        return audience.described(spec, self._call(spec, self._known))


def _cannot(manifest: Manifest, object: str, what: str, key: str) -> UsageError:
    message = f"connector '{manifest.name}' cannot {what} of '{object}'"
    return UsageError(message, code="HG527", fix=f"`objects.{object}.{key}` in its manifest would say how")


def _members(
    carrier: Carrier, changes: Sequence[Change], known: Mapping[str, Value], body: dict[str, Value]
) -> Value:
    """The JSON body of a batch."""
    if isinstance(carrier, Action) and carrier.lists:
        for op, key in carrier.lists.items():
            values = [record_of(carrier, change, known) for change in by_op(changes, op)]
            if values or not carrier.omit_empty:
                put(body, key, as_listed(carrier, values))
        return body
    values = _values(carrier, changes, known)
    if carrier.members:
        put(body, carrier.members, as_listed(carrier, values))
        return body
    return values


def _values(carrier: Carrier, changes: Sequence[Change], known: Mapping[str, Value]) -> list[Value]:
    if not isinstance(carrier, Action):
        return [record_of(carrier, change, known) for change in changes]
    if carrier.instructions:
        made = []
        for op, template in carrier.instructions.items():
            if some := by_op(changes, op):
                values = [record_of(carrier, change, known) for change in some]
                made.append(render(template, {**known, "members": values}))
        return made
    return [record_of(carrier, change, known, carrier.records.get(change.op)) for change in changes]


def _in_order(
    batch: Batch, sent: Sequence[Change], receipts: Sequence[Receipt], settled: Mapping[str, Receipt]
) -> list[Receipt]:
    """One receipt a change, in the batch's order, with the id that was looked up."""
    ids = {change.key: change.remote_id for change in sent}
    done = {r.key: r if r.remote_id else Receipt(r.key, r.status, r.reason, ids[r.key]) for r in receipts}
    return [done.get(change.key) or settled[change.key] for change in batch.changes]


def _json(response: httpx.Response) -> Any:
    return _loads(response.content)


def _loads(content: bytes | str) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _options(config: Config) -> dict[str, Value]:
    """The configuration's options that are not secret."""
    every = {name: getattr(config, name) for name in type(config).model_fields}
    return {name: value for name, value in every.items() if not isinstance(value, SecretStr)}
