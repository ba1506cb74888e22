"""A shop that sends its lapsed buyers to a stand-in of a platform, by the mapping that the docs show for it."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import tomlkit
import yaml
from pydantic import SecretStr

from sync.cli import app
from sync.sdk.nouns import ObjectSpec
from sync.sdk.registry import available, load
from sync.testing.fakes.platform import Ready

Json = dict[str, Any]
PAGES = Path(__file__).parents[2] / "docs" / "destinations"
PEOPLE = """
    SELECT 'C' || lpad(i::VARCHAR, 5, '0') AS customer_id, 'Buyer' || i || '@Acme.example' AS email,
        '+6141' || lpad(i::VARCHAR, 7, '0') AS phone, 'First' || i AS first_name, 'Last' || i AS last_name,
        'Acme ' || i AS company, 'acme' || i || '.example' AS domain, ['AU', 'NZ'][1 + i % 2] AS country,
        'gold' AS tier, i / 4.0 AS ltv, '0a000000-0000-4000-8000-' || lpad(i::VARCHAR, 12, '0') AS advertising_id,
        '2026-01-05' AS renewed_at
    FROM range({first}, {first} + {count}) AS people(i)
"""
UPDATED = (
    "first_name = 'Ada', last_name = 'Byron', company = 'Acme', tier = 'silver', ltv = 1, renewed_at = 'later'"
)
_NORMAL: dict[str | None, Callable[[str], str]] = {
    "email": str.lower,
    "gmail": str.lower,
    "lower": str.lower,
    **dict.fromkeys((None, "trim", "phone_plus", "device_id"), str),
}
_SHARED = {"country"}  # identifiers that tell nobody apart
_MISSING = "email = NULL, phone = NULL, domain = NULL, advertising_id = NULL"
_ODD = (
    "email = 'nobody ' || customer_id, domain = 'nowhere ' || customer_id, advertising_id = 'no ' || customer_id"
)
_LONG = "customer_id = repeat('x', 1000) || customer_id"
_NAMELESS = "last_name = NULL"

REFUSED: dict[tuple[str, str], str] = {
    **dict.fromkeys([("braze", "user"), ("braze", "membership")], _LONG),
    **dict.fromkeys([("salesforce", "contact"), ("salesforce", "lead")], _NAMELESS),
    ("pinterest", "customer_list_member"): _MISSING,
    ("meta", "audience_user"): f"{_MISSING}, country = NULL",
    **dict.fromkeys([("google_data_manager", "audience_member"), ("webhook", "record")], _MISSING),
    ("google_data_manager", "audience_device"): _MISSING,
}
"""What is wrong with records that are refused, where it is not an identifier of a wrong form (or one too few)."""


@dataclass(frozen=True)
class Page:
    """A page of docs/destinations: the section of config.toml and the mapping that it shows."""

    destination: str
    options: Json
    mapping: Json

    def sync(self, object: str) -> Json:
        """The mapping's sync of an object."""
        only = {None} if len(self.mapping["syncs"]) == 1 else set()
        (found,) = [one for one in self.mapping["syncs"] if one.get("object") in {object} | only]
        return dict(found)


@cache
def page(connector: str) -> Page:
    """The page of a connector."""
    text = (PAGES / f"{connector}.md").read_text()
    (config,), (mapping,) = (re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("toml", "yaml"))
    ((destination, options),) = tomllib.loads(config)["destinations"].items()
    return Page(destination, options, yaml.safe_load(mapping))


def cases() -> list[tuple[str, str]]:
    """Every object of every connector that has a stand-in."""
    return [(name, object) for name in available() if name != "postgres_table" for object in load(name).objects]


class Platform:
    """A stand-in that tells when people come or go: `moved` is called then, before the answer leaves."""

    def __init__(self, ready: Ready, object: str) -> None:
        self.ready = ready
        self.object = object
        self.audience = ready.audiences.get(object, "")
        self.moved: Callable[[], None] | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer."""
        if self.moved is None:
            return self.ready.app(request)
        before = self.members()
        answer = self.ready.app(request)
        if self.members() != before:
            self.moved()
        return answer

    def members(self) -> set[str]:
        """Who is there, as the platform keeps them."""
        return set(self.ready.members(self.object, self.audience))


def platform(connector: str, object: str) -> Platform:
    """A stand-in with an account, in which jobs take no time."""
    ready = import_module(f"sync.testing.fakes.{connector}").ready()
    if connector == "google_data_manager":
        ready.app.takes = 0.0
    return Platform(ready, object)


@dataclass
class Shop:
    """A project of one sync, in a folder of its own."""

    folder: Path
    connector: str
    object: str
    platform: Platform
    capture: pytest.CaptureFixture[str]
    before: set[str] = field(default_factory=set)
    environment: dict[str, str] = field(default_factory=dict)

    # --- the project

    @cached_property
    def mapped(self) -> Json:
        """The sync."""
        return page(self.connector).sync(self.object)

    @property
    def sync(self) -> str:
        """The sync's name."""
        return str(self.mapped["name"])

    @property
    def destination(self) -> str:
        """The destination's name."""
        return page(self.connector).destination

    @property
    def mirrors(self) -> bool:
        """Are people removed who left the cohort."""
        return bool(self.mapped["mode"] == "mirror")

    @property
    def spec(self) -> ObjectSpec:
        """The object, as the connector declares it."""
        return load(self.connector).objects[self.object]

    def open(self, url: str) -> None:
        """Write config.toml and the mapping of the docs for a stand-in at `url`; nobody is in the cohort."""
        of = page(self.connector)
        options: Json = {"type": self.connector}
        fields = load(self.connector).config_model.model_fields
        for name, value in self.platform.ready.options(url).items():
            secret = SecretStr.__name__ in str(fields[name].annotation)
            options[name] = f"env:SHOP_{name.upper()}" if secret else value
            if secret:
                self.environment[f"SHOP_{name.upper()}"] = str(value)
        if "poll_after" in options:
            options["poll_after"] = 0.1
        audience = {"audience": self.platform.audience} if "audience" in self.mapped else {}
        config = {
            "sources": {"warehouse": {"type": "duckdb", "path": "warehouse.duckdb"}},
            "destinations": {of.destination: options},
        }
        (self.folder / "mappings").mkdir()
        (self.folder / "config.toml").write_text(tomlkit.dumps(config))
        mapping = of.mapping | {"syncs": [self.mapped | audience]}
        (self.folder / "mappings" / "lapsed.yaml").write_text(json.dumps(mapping, indent=1))
        self.sql(f"CREATE TABLE lapsed_buyers AS {PEOPLE.format(first=0, count=0)}")
        self.before = self.platform.members()

    # --- the cohort

    def sql(self, statement: str) -> None:
        """Change the warehouse."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    def rows(self, where: str = "true") -> list[Json]:
        """People of the cohort."""
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            found = connection.execute(f"FROM lapsed_buyers WHERE {where}")
            names = [column[0] for column in found.description or ()]
            return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def join(self, first: int, count: int, *, known: bool = True) -> None:
        """People come into the cohort; unless they are not `known`, the platform has heard of them."""
        self.sql(f"INSERT INTO lapsed_buyers {PEOPLE.format(first=first, count=count)}")
        if known:
            self.known(first, count)

    def known(self, first: int, count: int) -> None:
        """The platform hears of people of the cohort."""
        self._know(_among(first, count))

    def _know(self, where: str) -> None:
        self.platform.ready.know(self.object, sorted(self.kept(self.rows(where))))

    def kept(self, rows: Iterable[Json]) -> set[str]:
        """How the platform has these people."""
        known = {one.name: one for one in self.spec.fields}
        found = set()
        for one in self.mapped["identifiers"]:
            of = known.get(one["to"])
            for row in rows if one["from"] not in _SHARED else ():
                value = _NORMAL[of.normalise if of else None](row[one["from"]])
                found.add(hashlib.sha256(value.encode()).hexdigest() if of and of.hash else value)
        return found

    def spoil(self, first: int, count: int) -> int:
        """Make records of the cohort such that they are refused; how many those are."""
        self.sql(f"CREATE OR REPLACE TABLE spoilt AS FROM lapsed_buyers WHERE {_among(first, count)}")
        wrong = REFUSED.get((self.connector, self.object), _ODD)
        if "customer_id" in {one["from"] for one in self.mapped["identifiers"]} and wrong == _ODD:
            wrong, count = "customer_id = ''", 1
        self.sql(f"UPDATE lapsed_buyers SET {wrong} WHERE {_among(first, count)}")
        return count

    def mend(self) -> None:
        """Undo that; the platform hears of them."""
        self.sql("DELETE FROM lapsed_buyers WHERE length(customer_id) <> 6")
        self.sql("DELETE FROM lapsed_buyers WHERE customer_id IN (SELECT customer_id FROM spoilt)")
        self.sql("INSERT INTO lapsed_buyers FROM spoilt")
        self._know("customer_id IN (SELECT customer_id FROM spoilt)")

    # --- what is there

    def holds(self, people: set[str]) -> None:
        """Exactly these people are there, beside those who were there before."""
        there = self.platform.members()
        assert self.before <= there, "somebody who was there before us is gone"
        assert there - self.before == people

    def quiet(self, *args: str) -> Json:
        """A command with `--json` that asks the platform nothing."""
        before = self.platform.ready.app.requests
        document = self.run(*args)
        assert self.platform.ready.app.requests == before, "requests were made"
        return document

    # --- commands

    def run(self, *args: str, expect: int = 0) -> Json:
        """A command with `--json`, and its document."""
        document: Json = json.loads(self.say("--json", *args, expect=expect, out=True))
        return document

    def one(self, *args: str, expect: int = 0) -> Json:
        """What a command says of the only sync."""
        (only,) = self.run(*args, expect=expect)["syncs"]
        return dict(only)

    def say(self, *args: str, expect: int = 0, out: bool = False) -> str:
        """A command as people type it, and everything it printed (`out`: on stdout)."""
        self.capture.readouterr()
        code = app.run(["--project", str(self.folder), *args])
        said = self.capture.readouterr()
        assert code == expect, f"headgate {' '.join(args)} ended with {code}:\n{said.out}\n{said.err}"
        return said.out if out else said.out + said.err


def _among(first: int, count: int) -> str:
    return f"customer_id BETWEEN 'C{first:05}' AND 'C{first + count - 1:05}'"
