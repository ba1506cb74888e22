"""An audience is read only where its platform tells who is in it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from sync.engine.audience import Audience
from sync.engine.job import DeliverySettings
from sync.errors import HeadgateError
from sync.sdk.connector import Config, Connector
from sync.sdk.http import offline_client
from sync.sdk.nouns import Batch, ObjectSpec, Op, Outcome, Page

SPEC = ObjectSpec("list_member", "List member", frozenset(Op))


class Blind(Connector[Config]):
    name, title, config_model, objects = "acme", "Acme", Config, {"list_member": SPEC}

    def check(self) -> None:
        """Nothing."""

    def push(self, batch: Batch) -> Outcome:
        return []


class Seeing(Blind):
    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        raise AssertionError("nobody asks")


class Job:
    def __init__(self, kind: type[Connector[Any]], spec: ObjectSpec) -> None:
        self.kind, self.spec = kind, spec

    def connect(self, before: Any) -> Connector[Any]:
        return self.kind(Config(), offline_client(self.kind, Config()))


@pytest.mark.parametrize(
    ("kind", "spec"),
    [(Blind, SPEC), (Seeing, replace(SPEC, audience=False)), (Seeing, replace(SPEC, readable=False))],
)
def test_what_cannot_be_read_is_said_to_be_so(kind: type[Connector[Any]], spec: ObjectSpec) -> None:
    job: Any = Job(kind, spec)
    unused: Any = None
    audience = Audience(job, unused, unused, DeliverySettings(), threading.Event())

    with pytest.raises(HeadgateError, match="connector 'acme' cannot read who is in 'list_member'") as raised:
        next(audience.members())

    assert raised.value.code == "HG527"
