"""The one verb of a connector: a batch in, receipts (or a job) out.

Everything else (authentication, pacing, retries, batching, hashing, dry runs, audit, waiting) is the engine's.
An exception speaks for the whole batch, a receipt for one record, and an unexpected answer is `unknown`, never
success. A connector never sleeps, retries, hashes or reads the environment, and `push` is safe to crash out of.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr

from sync.errors import DestinationError
from sync.sdk.nouns import Batch, Field, Job, ObjectSpec, Outcome, Page, Receipt, Value
from sync.sdk.values import dumps

__all__ = ["Config", "Connector", "Creates", "Describes", "HttpConnector", "Polls", "Reads"]


class Config(BaseModel):
    """Base of every connector's configuration: frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


C = TypeVar("C", bound=Config)


class Connector(ABC, Generic[C]):
    """Turns a batch into receipts.

    `objects` may be replaced in `__init__` where it depends on the configuration. `http` is authenticated,
    paced and classified: it raises the errors of `sync.errors`, and it never retries.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    docs: ClassVar[str] = ""
    config_model: ClassVar[type[Config]]
    objects: Mapping[str, ObjectSpec]
    unavailable: ClassVar[frozenset[int]] = frozenset()
    """4xx statuses that mean "try the same again" here (409 for a concurrent change, say)."""
    plain_success: ClassVar[frozenset[str]] = frozenset()
    """Bodies of a 200 that say next to nothing and that this platform documents: `empty` or `{}` as success, `[]`
    as an audience with nobody in it."""

    def __init__(self, config: C, http: httpx.Client) -> None:
        self.config = config
        self.http = http

    @classmethod
    def base_url(cls, config: C) -> str:
        """What relative request URLs are resolved against: the option `base_url`; empty without HTTP."""
        return str(getattr(config, "base_url", ""))

    @classmethod
    def auth(cls, config: C) -> httpx.Auth | None:  # noqa: ARG003 - connectors override it
        """How requests are authenticated."""
        return None

    @classmethod
    def tls(cls, config: C) -> ssl.SSLContext | None:  # noqa: ARG003 - connectors override it
        """Whom to trust and how to identify by certificate; None: the usual authorities, and not at all.

        Asked once, when the first encrypted connection is made. Raises `AuthError` where a file cannot be read.
        """
        return None

    @classmethod
    def account(cls, config: C) -> str:
        """Whose quota requests count against: pacing and the breaker are shared by equal values.

        The address, and a digest of the options that are secrets where there are any: which account those open,
        only the destination knows.
        """
        from sync.sdk.auth import account_of

        options = (getattr(config, name) for name in type(config).model_fields)
        secrets = [option for option in options if isinstance(option, SecretStr)]
        return account_of(cls.base_url(config), *secrets) if secrets else cls.base_url(config)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """For how many seconds the destination asks us to wait; None where it does not say.

        Vendors that do not use `Retry-After` override it, mostly with `sync.sdk.http.reset_after`.
        """
        from sync.sdk.http import retry_after

        return retry_after(response)

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:  # noqa: ARG003 - as above
        """What an answer of 400 and above means where its status does not tell; None: what the status says.

        A platform that answers 403 where others answer 429 returns `RateLimited` for it; one that answers 400 to
        a token that is over, `AuthError`. It must not raise, whatever the answer holds.
        """
        return None

    def build(
        self,
        method: str,
        path: str,
        body: Value = None,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        expects: Collection[int] = (),
    ) -> httpx.Request:
        """A request to the platform, with `body` as JSON unless it is None.

        An answer with a status in `expects` is read like one of success, by whoever sends the request.
        """
        kind = {} if body is None else {"Content-Type": "application/json"}
        content = None if body is None else dumps(body)
        request = self.http.build_request(
            method, path, content=content, params=params, headers={**kind, **(headers or {})}
        )
        request.extensions["expects"] = frozenset(expects)
        return request

    def send(
        self,
        method: str,
        path: str,
        body: Value = None,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        expects: Collection[int] = (),
    ) -> httpx.Response:
        """The answer to such a request. Raises `DestinationError` for any other status than 2xx and those."""
        request = self.build(method, path, body, params=params, headers=headers, expects=expects)
        return self.http.send(request)

    @abstractmethod
    def check(self) -> None:
        """Make the cheapest read that proves the credentials; raise `AuthError` where they are refused."""

    @abstractmethod
    def push(self, batch: Batch) -> Outcome:
        """Send the batch once and say what became of each change."""


class HttpConnector(Connector[C]):
    """A batch is one request: two pure functions. `request` is also what a dry run shows."""

    @abstractmethod
    def request(self, batch: Batch) -> httpx.Request:
        """The one request that carries the batch."""

    @abstractmethod
    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """Exactly one receipt a change, read from a 2xx answer (or one listed in `expects`)."""

    expects: ClassVar[frozenset[int]] = frozenset()
    """Statuses outside 2xx whose body speaks for each record (422, say); others raise before `receipts`."""

    def push(self, batch: Batch) -> Outcome:
        """Build, send, read."""
        request = self.request(batch)
        request.extensions["expects"] = self.expects
        return self.receipts(batch, self.http.send(request))


@runtime_checkable
class Polls(Protocol):
    """A connector whose `push` may return a `Job`."""

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """Ask once: the receipts not yet settled, or the job again with a new `poll_after`."""


@runtime_checkable
class Describes(Protocol):
    """A connector that can say which fields the account has."""

    def describe(self, object: str) -> Iterable[Field]:
        """The fields of an object, from the account."""


@runtime_checkable
class Creates(Protocol):
    """A connector that can make an audience."""

    def create_audience(self, object: str, title: str) -> str:
        """Make an audience and return its id."""


@runtime_checkable
class Reads(Protocol):
    """A connector that can read who is in an audience."""

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        """The first page of an audience's members, or the one after a page whose `next` was `after`.

        The engine asks for one page at a time, and for the same one again where the destination was unavailable.
        """
