"""A whole manifest: what it may hold, and what in it does not go together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field, model_validator

from sync.sdk.manifest.auth import Auth, Option, Strict, credentials
from sync.sdk.manifest.forms import Refusal
from sync.sdk.manifest.mistakes import ALWAYS, near, of_object, unknown
from sync.sdk.manifest.objects import ObjectManifest
from sync.sdk.manifest.request import Call
from sync.sdk.manifest.text import placeholders

__all__ = ["Codes", "Manifest", "RateSignalSpec"]


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
    refusal: Refusal | None = None  # of every answer with a good status
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
        yield from unknown("base_url", placeholders(self.base_url), options - {"base_url"} | self._own("base_url"))
        yield from unknown("headers", placeholders(self.headers), options | ALWAYS)
        yield from unknown("check", self.check.names(), options | {"base_url"})
        for name, one in self.objects.items():
            where = f"objects.{name}"
            yield from (f"{where}: {message}" for found, message in one.mistakes() if found)
            if one.members is not None and not one.members.list and "[]" not in self.plain_success:
                yield (
                    f"{where}.members: the body itself is the list, so an empty one has to be an answer: "
                    'set `plain_success = ["[]"]`, or name the `list`'
                )
            yield from of_object(where, one, options)

    def _own(self, name: str) -> set[str]:
        return {name} & set(self.options)

    def _of_credentials(self) -> Iterator[str]:
        for key, name, secret in credentials(self.auth):
            where = f"auth.{key}"
            if name not in self.options:
                yield f"{where}: there is no option '{name}'{near(name, self.options)}"
            elif secret and not self.options[name].secret:
                yield f"{where}: the option '{name}' is a credential and lacks `secret = true`"
        if token_url := getattr(self.auth, "token_url", ""):
            options = {name for name, option in self.options.items() if not option.secret}
            yield from unknown("auth.token_url", placeholders(token_url), options | {"base_url"})
        for name, option in self.options.items():
            if option.choices and option.default is not None and option.default not in option.choices:
                yield f"options.{name}: the default is none of the choices"
            if not name.isidentifier() or name.startswith(("_", "model_")):
                yield f"options.{name}: a name has letters, digits and `_`, and begins with a letter"
