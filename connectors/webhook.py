"""Webhook: posts changes as JSON to an address of yours.

One request a batch, one op a batch:

    POST {url}
    Content-Type: application/json
    Idempotency-Key: {batch id, the same whenever the batch is sent again}

    {"batch_id": "...", "sync": "...", "op": "add" | "update" | "remove", "records": [{...}, ...]}

A record is flat: identifiers and fields by name; a removal has its identifiers alone. With a `secret` each
request also has `X-Headgate-Timestamp` (seconds since the epoch) and `X-Headgate-Signature`: `sha256=` and the
hex HMAC-SHA256, under that secret, of the timestamp, a full stop and the body's bytes. With a `client_cert` each
connection identifies itself by that certificate (mutual TLS). As OpenAPI: docs/reference/webhook.openapi.json.

What the answer means:

| answer | meaning |
|---|---|
| 2xx with an empty body, or a JSON object without `errors` (or with none listed) | every record was applied |
| 200, 207, 422 with `{"errors": [null, {"message": "..."}, ...]}`, an entry a record | `null`: applied |
| the same, and the entry is an object or a text | that record was rejected |
| any other entry; `errors` that does not fit the records, 207 without it, 422 with only `null` | unknown |
| 2xx with `"success": false`, `"ok": false` or an `error` | unknown |
| 2xx with anything else, HTML say | unknown |
| any other 4xx | the whole batch was refused |
| 429 with `Retry-After` | sent again, not earlier |
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, field_validator, model_validator

from sync.errors import ProtocolError, RequestError
from sync.sdk.auth import Chain, Header, HmacSignature, header_value
from sync.sdk.certificates import certificates
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.nouns import Batch, Limits, ObjectSpec, Op, Receipt, Status
from sync.sdk.settled import every
from sync.sdk.values import json_object

__all__ = ["Webhook", "WebhookConfig"]

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110, section 5.6.2
_ANY_ANSWER = frozenset(range(100, 600)) - {401, 403}


class WebhookConfig(Config):
    """Where to post, and how."""

    url: str = Option(description="Where batches are posted, http:// or https://.")
    secret: SecretStr | None = Option(default=None, description="Signs each request with HMAC-SHA256.")
    headers: dict[str, str] = Option(default={}, description="More headers of each request.")
    secret_headers: dict[str, SecretStr] = Option(default={}, description="The same, for credentials.")
    ca_cert: Path | None = Option(default=None, description="Trust this authority and no other (PEM).")
    client_cert: Path | None = Option(default=None, description="Who we are, for mutual TLS (PEM).")
    client_key: Path | None = Option(default=None, description="Its key, where that is in another file.")
    client_key_password: SecretStr | None = Option(default=None, description="Opens the key.")
    batch_size: int = Option(default=100, ge=1, le=100_000, description="Records in a request.")
    concurrency: int = Option(default=4, ge=1, le=256, description="Requests at the same time.")

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, url: str) -> str:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            raise ValueError("not an address: write https://host/path") from None
        if not 0 < (parsed.port or 443) < 65536:
            raise ValueError("not an address: a port is a number up to 65535")
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("not a web address: write https://host/path")
        return url

    @field_validator("headers", "secret_headers")
    @classmethod
    def _are_headers(cls, headers: dict[str, Any]) -> dict[str, Any]:
        for name, value in headers.items():
            if not _TOKEN.fullmatch(name):
                raise ValueError("a header's name has letters, digits and `-` only")
            if isinstance(value, str) and value and not header_value(value):
                raise ValueError("a header's value has printable ASCII characters only")
        return headers

    @model_validator(mode="after")
    def _is_encrypted(self) -> WebhookConfig:
        if (self.client_key or self.client_key_password) and not self.client_cert:
            raise ValueError("a key needs its certificate: give `client_cert`")
        if (self.client_cert or self.ca_cert) and not self.url.lower().startswith("https:"):
            raise ValueError("certificates are for https:// only")
        return self


def _objects(size: int, concurrency: int) -> Mapping[str, ObjectSpec]:
    limits = Limits(batch_size=size, concurrency=concurrency)
    return {"record": ObjectSpec("record", "Record", frozenset(Op), (), limits, audience=False, open_fields=True)}


class Webhook(HttpConnector[WebhookConfig]):
    """A batch is one POST."""

    name = "webhook"
    title = "Webhook"
    docs = __doc__ or ""
    config_model = WebhookConfig
    objects = _objects(100, 4)
    expects: ClassVar[frozenset[int]] = frozenset({422})
    plain_success: ClassVar[frozenset[str]] = frozenset({"empty", "{}"})

    def __init__(self, config: WebhookConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.batch_size, config.concurrency)

    @classmethod
    def base_url(cls, config: WebhookConfig) -> str:
        """The address itself."""
        return config.url

    @classmethod
    def account(cls, config: WebhookConfig) -> str:
        """The host: paths and queries of webhooks often are credentials."""
        url = httpx.URL(config.url)
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    @classmethod
    def auth(cls, config: WebhookConfig) -> httpx.Auth | None:
        """The signature and the secret headers, where there are any."""
        schemes: list[httpx.Auth] = [Header(name, value) for name, value in config.secret_headers.items()]
        if config.secret is not None:
            schemes.append(HmacSignature(config.secret))
        return Chain(*schemes) if schemes else None

    @classmethod
    def tls(cls, config: WebhookConfig) -> ssl.SSLContext | None:
        """The certificates of the configuration, where there are any."""
        return certificates(config.ca_cert, config.client_cert, config.client_key, config.client_key_password)

    def check(self) -> None:
        """HEAD: any answer but 401 and 403 proves that somebody is there; no records are posted."""
        self.send("HEAD", self.config.url, headers=self.config.headers, expects=_ANY_ANSWER)

    def request(self, batch: Batch) -> httpx.Request:
        """The POST with the batch's records."""
        body = {
            "batch_id": batch.id,
            "sync": batch.sync,
            "op": batch.changes[0].op,
            "records": [{**change.fields, **change.identifiers} for change in batch.changes],
        }
        headers = {**self.config.headers, "Content-Type": "application/json", "Idempotency-Key": batch.id}
        return self.build("POST", self.config.url, body, headers=headers)

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """One receipt a record, as the table above says. Raises `RequestError` and `ProtocolError`."""
        errors = _errors(response)
        if errors is None or errors == []:
            return every(batch.changes, Status.APPLIED)
        if not _aligned(errors, batch, response):
            return every(
                batch.changes, Status.UNKNOWN, "the answer's list of errors does not fit the records sent"
            )
        return [_receipt(change.key, error) for change, error in zip(batch.changes, errors, strict=True)]


def _errors(response: httpx.Response) -> Any:
    """What the answer lists as errors; None or an empty list where it is a plain success."""
    status = response.status_code
    answer: dict[str, Any] | None = json_object(response.content) if response.content.strip() else {}
    if answer is None:
        if status == 422:
            raise RequestError("the webhook refused the batch with 422", response.text)
        raise ProtocolError(
            f"the webhook answered {status} with something other than a JSON object", response.text
        )
    errors = answer.get("errors")
    if status == 422 and not (isinstance(errors, list) and errors):
        raise RequestError("the webhook refused the batch with 422", response.text)
    if status == 207 and not errors:
        return "missing"
    denied = answer.get("success") is False or answer.get("ok") is False or bool(answer.get("error"))
    return "denied" if errors is None and denied else errors


def _aligned(errors: Any, batch: Batch, response: httpx.Response) -> bool:
    """Whether the list speaks of the records one by one."""
    if not isinstance(errors, list) or len(errors) != len(batch.changes):
        return False
    return response.status_code != 422 or any(error is not None for error in errors)


def _receipt(key: str, error: Any) -> Receipt:
    if error is None:
        return Receipt(key, Status.APPLIED)
    if isinstance(error, dict) or (isinstance(error, str) and error.strip()):
        reason = error.get("message") if isinstance(error, dict) else error
        return Receipt(key, Status.REJECTED, _cut(reason))
    return Receipt(key, Status.UNKNOWN, "the answer's entry is neither null nor an error")


def _cut(reason: Any) -> str:
    return reason[:500] if isinstance(reason, str) and reason.strip() else "the webhook gave no reason"
