"""A receiver of webhooks that believes nobody: it checks signatures, and answers as the protocol says."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.crm import Crm
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeReceiver", "ready"]

_FRESH = 300.0  # seconds by which a timestamp may be off
_MOST = 100_000  # records of a batch


class FakeReceiver(Fake):
    """Keeps people in `crm`. A request is signed under `secret`, and not long ago."""

    routes: ClassVar[tuple[Route, ...]] = (("HEAD", "/records", "here"), ("POST", "/records", "take"))

    def __init__(
        self,
        secret: str = "shared-with-the-fake",  # noqa: S107 - it guards nothing
        identifier: str = "email",
        *,
        rate: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=rate, clock=clock)
        self.crm = Crm(identifier)
        self._secret = secret.encode()

    def authorised(self, request: httpx.Request) -> bool:
        """The signature is of this body, by somebody who has the secret, and new."""
        stamp = request.headers.get("x-headgate-timestamp", "")
        signed = hmac.new(self._secret, f"{stamp}.".encode() + request.content, hashlib.sha256).hexdigest()
        said = request.headers.get("x-headgate-signature", "")
        fresh = stamp.isdigit() and abs(time.time() - int(stamp)) < _FRESH
        return fresh and hmac.compare_digest(said.encode(), f"sha256={signed}".encode())

    def unauthorised(self) -> httpx.Response:
        """401."""
        return httpx.Response(401, json={"error": "the signature is missing, wrong or old"})

    def too_fast(self, wait: float) -> httpx.Response:
        """429, and for how long."""
        return httpx.Response(429, headers={"Retry-After": str(int(wait) + 1)}, json={"error": "too fast"})

    def no_route(self, request: httpx.Request) -> httpx.Response:
        """404, or 405 for another method."""
        status = 405 if request.url.path == "/records" else 404
        return httpx.Response(status, json={"error": "post to /records"})

    def here(self, asked: Asked) -> httpx.Response:  # noqa: ARG002 - any request will do
        """Somebody is here."""
        return httpx.Response(200)

    def take(self, asked: Asked) -> httpx.Response:
        """Do the records, or say of each why not."""
        headers = asked.request.headers
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            return httpx.Response(415, json={"error": "send application/json"})
        if not headers.get("idempotency-key"):
            return httpx.Response(400, json={"error": "there is no Idempotency-Key"})
        if problem := _problem(asked.body):
            return httpx.Response(413 if "many" in problem else 400, json={"error": problem})
        return self.crm(asked.request)


def _problem(body: object) -> str:
    """What is wrong with a batch as a whole."""
    if not isinstance(body, dict) or body.keys() != {"batch_id", "sync", "op", "records"}:
        return "a batch has batch_id, sync, op and records"
    records = body["records"]
    if not isinstance(records, list) or not records:
        return "there are no records"
    if not all(isinstance(body[name], str) and body[name] for name in ("batch_id", "sync")):
        return "batch_id and sync are texts"
    return "there are too many records" if len(records) > _MOST else ""


def ready() -> Ready:
    """A receiver, for the webhook connector."""
    secret = "shared-with-the-fake"  # noqa: S105 - it guards nothing
    receiver = FakeReceiver(secret)
    return Ready(
        receiver,
        lambda url: {"url": f"{url}/records", "secret": secret},
        members=lambda *_: receiver.crm.people.keys(),
    )
