"""Holding a connector to its vendor's description bites: in every check of the kit, and in broken requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from sync.errors import ProtocolError
from sync.sdk.auth import Header
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.nouns import Batch, Field, Limits, ObjectSpec, Op, Receipt, Status
from sync.sdk.values import dumps, json_object
from sync.testing.contract import ConnectorContract, run
from sync.testing.mutants import Verdict, judge
from sync.testing.openapi import Described

PUSH = "every change of every op gets exactly one receipt, and all is applied"
CHECK = "check() goes well when the destination does, and writes nothing"
REFUSAL = "a rejected record has a reason, and the others are applied"


def _of(schema: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


TEXT = {"type": "string"}
PERSON = _object(["email"], email=TEXT, phone=TEXT, city=TEXT, traits={"additionalProperties": TEXT})
BODY = _object(
    ["op", "people", "mode"],
    op={"type": "string", "enum": ["add", "remove"]},
    people={"items": PERSON, "maxItems": 100},
    mode={"type": "string"},
    dry_run={"type": "boolean", "default": False},
)
RESULT = _object(["ok"], ok={"type": "boolean"}, why=TEXT)
VERSION = {"name": "Version", "in": "header", "required": True, "schema": {"type": "string", "default": "1"}}
WAIT = {"name": "wait", "in": "query", "required": True, "schema": {"type": "boolean"}}
DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "Acme", "version": "1"},
    "servers": [{"url": "https://api.acme.example"}],
    "paths": {
        "/lists/{id}/people": {
            "post": {
                "parameters": [VERSION, WAIT],
                "requestBody": _of(BODY),
                "responses": {"200": {"description": "", **_of(_object(["results"], results={"items": RESULT}))}},
            },
        },
        "/me": {"get": {"responses": {"200": {"description": ""}}}},
    },
}


class AcmeConfig(Config):
    token: SecretStr


class Acme(HttpConnector[AcmeConfig]):
    """A list: one POST a batch, a result a record."""

    name = "acme"
    title = "Acme"
    docs = "Make a token under Settings."
    config_model: ClassVar[type[Config]] = AcmeConfig
    objects: ClassVar[dict[str, ObjectSpec]] = {  # type: ignore[misc]
        "member": ObjectSpec(
            name="member",
            title="Member",
            ops=frozenset({Op.ADD, Op.REMOVE}),
            fields=(
                Field("email", required=True, identifier=True),
                Field("phone", identifier=True),
                Field("city"),
                Field("age", "integer"),
            ),
            limits=Limits(batch_size=100),
            open_fields=True,
        )
    }

    @classmethod
    def base_url(cls, config: Any) -> str:
        return "https://api.acme.example"

    @classmethod
    def auth(cls, config: Any) -> httpx.Auth | None:
        return Header("X-Token", config.token)

    def check(self) -> None:
        self.http.get("/me")

    def request(self, batch: Batch) -> httpx.Request:
        return self.http.build_request(
            "POST",
            f"/lists/{batch.audience}/people",
            params={"wait": "true"},
            content=dumps(self.body(batch)),
            headers={"Version": "2", "Content-Type": "application/json"},
        )

    def body(self, batch: Batch) -> dict[str, Any]:
        people = [self.person(c.identifiers, c.fields) for c in batch.changes]
        return {"op": batch.changes[0].op, "people": people, "mode": "soft", "dry_run": False}

    def person(self, identifiers: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        traits = {k: str(v) for k, v in fields.items() if k != "city"}
        city = {"city": fields["city"] or ""} if "city" in fields else {}
        return {**identifiers, **city, **({"traits": traits} if traits else {})}

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        results = (json_object(response.content) or {}).get("results")
        if not isinstance(results, list) or len(results) != len(batch.changes):
            raise ProtocolError("the list of results does not fit")
        return [_receipt(c.key, r) for c, r in zip(batch.changes, results, strict=True)]


def _receipt(key: str, result: Any) -> Receipt:
    if result == {"ok": True}:
        return Receipt(key, Status.APPLIED)
    return Receipt(key, Status.REJECTED, str(result.get("why")))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("acme") / "acme.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


class AcmeContract(ConnectorContract):
    config: ClassVar = {"token": "acme-t0ken"}

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200)
        count = len(next((v for v in json.loads(request.content).values() if isinstance(v, list)), []))
        return httpx.Response(200, json={"results": [{"ok": True}] * count})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            return httpx.Response(200)
        rest = self.answer(request).json()["results"][1:]
        return httpx.Response(200, json={"results": [{"ok": False, "why": "no such city"}, *rest]})


def contract(file: Path, connector: Any = Acme, base: Any = AcmeContract, **more: Any) -> type[ConnectorContract]:
    described = Described(file, authenticated=lambda request: "x-token" in request.headers, **more)
    return type("Planted", (base,), {"connector": connector, "described": described})


def told(contract: type[ConnectorContract], sentence: str) -> str:
    (result,) = run(contract, only={sentence})
    assert result.ok is False
    return result.message


def test_a_sound_connector_passes_whole(file: Path) -> None:
    assert not [r for r in run(contract(file)) if r.ok is False]


# Planted bugs: each is the sound connector with one mistake that its own fake does not mind.


class Misspells(Acme):
    def body(self, batch):
        body = super().body(batch)
        return {"people": body["people"], "op": body["op"], "mode": body["mode"], "dryrun": False}


class Forgets(Acme):
    def body(self, batch):
        return {k: v for k, v in super().body(batch).items() if k != "mode"}


class Retypes(Acme):
    def person(self, identifiers, fields):
        return {**super().person(identifiers, fields), "phone": 61400}


class NoSuchWord(Acme):
    def body(self, batch):
        return {**super().body(batch), "op": "append"}


class NoAuth(Acme):
    @classmethod
    def auth(cls, config):
        return None


class NoVersion(Acme):
    def request(self, batch):
        request = super().request(batch)
        del request.headers["version"]
        return request


class OtherMedia(Acme):
    def request(self, batch):
        request = super().request(batch)
        request.headers["content-type"] = "application/json-lines"
        return request


class OtherPath(Acme):
    def request(self, batch):
        request = super().request(batch)
        request.url = request.url.copy_with(path="/list/1/people")
        return request


class OtherQuery(Acme):
    def request(self, batch):
        request = super().request(batch)
        request.url = request.url.copy_with(params={"wiat": "true"})
        return request


class Asks(Acme):
    def check(self):
        self.http.get("/whoami")


class TakesMore(Acme):
    objects: ClassVar = {"member": replace(Acme.objects["member"], limits=Limits(batch_size=200))}


def test_a_declared_size_above_the_vendors_fails_the_kit(file: Path) -> None:
    message = told(contract(file, TakesMore), "a full batch of the declared size works")

    assert "people: 200 entries, at most 100 are taken" in message


@pytest.mark.parametrize(
    ("bug", "fault"),
    [
        (Misspells, "dryrun: no schema names this key"),
        (Forgets, "'mode' is a required property"),
        (Retypes, "people.0.phone: 61400 is not of type 'string'"),
        (NoSuchWord, "'append' is not one of"),
        (NoAuth, "no credentials"),
        (NoVersion, "the required header `Version` is missing"),
        (OtherMedia, "where one of application/json is described"),
        (OtherPath, "no description has this operation"),
        (OtherQuery, "no query parameter `wiat` is described"),
    ],
)
def test_a_request_that_the_fake_takes_and_the_vendor_would_not_fails_the_kit(
    file: Path, bug: type[Acme], fault: str
) -> None:
    assert fault in told(contract(file, bug), PUSH)


def test_the_request_of_check_is_judged_too(file: Path) -> None:
    assert "GET /whoami: request: no description has this operation" in told(contract(file, Asks), CHECK)


class Drifts(AcmeContract):
    def answer(self, request):
        answer = super().answer(request)
        return httpx.Response(200, json={**answer.json(), "count": 3}) if request.method == "POST" else answer


class RefusesInItsOwnWay(AcmeContract):
    def refuse_first(self, request):
        answer = super().refuse_first(request)
        return httpx.Response(207, content=answer.content, headers=answer.headers)


@pytest.mark.parametrize(
    ("fake", "sentence", "fault"),
    [
        (Drifts, PUSH, "answer 200: count: no schema names this key"),
        (RefusesInItsOwnWay, REFUSAL, "answer 207: status 207 is not described"),
    ],
)
def test_a_fake_that_answers_what_the_vendor_does_not_fails_the_kit(
    file: Path, fake: type[ConnectorContract], sentence: str, fault: str
) -> None:
    assert fault in told(contract(file, base=fake), sentence)


def test_where_the_description_is_not_here_the_kit_runs_and_the_mutants_do_not(tmp_path: Path) -> None:
    elsewhere = contract(tmp_path / "none.json", Misspells)

    assert [r.ok for r in run(elsewhere, only={PUSH})] == [True]
    with pytest.raises(pytest.skip.Exception, match="HEADGATE_DESCRIPTIONS"):
        elsewhere().test_request_mutants(_forget)
    with pytest.raises(ValueError, match="not here"):
        judge(elsewhere)


def _forget(name: str, value: object) -> None:
    """A note nobody wants."""


# -- broken requests


@pytest.fixture(scope="module")
def verdict(file: Path) -> Verdict:
    return judge(contract(file))


def test_a_strict_description_catches_whatever_it_does_not_leave_to_the_customer(verdict: Verdict) -> None:
    assert verdict.survivors == tuple(
        f"POST /lists/{{id}}/people: people[0].{what}" for what in ("traits dropped", "traits.age misspelt")
    )
    assert verdict.made > 40
    assert verdict.share == 1 - 2 / verdict.made


def test_what_would_be_no_mistake_is_not_made(file: Path, verdict: Verdict) -> None:
    """An open description catches next to nothing, so that all mutants show."""
    open_document = json.loads(json.dumps(DOCUMENT))
    open_document["paths"]["/lists/{id}/people"]["post"]["requestBody"] = _of({})
    everything = file.parent / "open.json"
    everything.write_text(json.dumps(open_document))
    made = {line.partition(": ")[2] for line in judge(contract(everything)).survivors}

    assert {
        "op dropped",
        "people a str",
        "people[0].email dropped",
        "people[0].email a int",
        "mode misspelt",
    } <= made
    assert {"people[0].city misspelt", "people[0].traits.age misspelt"} <= made  # the object declares them
    assert not {"people[0].phone dropped", "people[0].city dropped", "people[0].traits.age dropped"} & made
    assert not [what for what in made if "[1]" in what]
    assert "dry_run dropped" in made  # nothing says that it is the default
    assert "POST /lists/{id}/people: dry_run dropped" not in verdict.survivors


def test_names_that_are_the_customers_are_left_alone(file: Path) -> None:
    class Open(AcmeContract):
        def changes(self, spec, op, count, prefix):
            made = super().changes(spec, op, count, prefix)
            for change in made:
                change.fields.update({"shoe size": "38"} if op is Op.ADD else {})
            return made

    survivors = judge(contract(file, base=Open)).survivors

    assert not [what for what in survivors if "shoe size" in what]


def test_a_list_of_fractions_is_broken_too(file: Path, verdict: Verdict) -> None:
    class Fractions(Acme):
        def body(self, batch: Batch) -> dict[str, Any]:
            return super().body(batch) | {"scores": [0.5]}

    document = json.loads(json.dumps(DOCUMENT))
    scores = {"scores": {"type": "array", "items": {"type": "number"}}}
    schema = document["paths"]["/lists/{id}/people"]["post"]["requestBody"]["content"]["application/json"][
        "schema"
    ]
    schema["properties"] |= scores
    described = file.parent / "fractions.json"
    described.write_text(json.dumps(document))

    found = judge(contract(described, Fractions))

    assert found.made > verdict.made
    assert not [what for what in found.survivors if "scores a" in what or "scores[0]" in what]


def test_rules_catch_what_the_description_lets_through(file: Path) -> None:
    def traits(request: httpx.Request) -> Iterable[str]:
        body = json.loads(request.content or "{}")
        if body.get("op") == "add" and any("city" in p and "traits" not in p for p in body["people"]):
            yield "whoever has a city has traits"
        if body.get("op") == "add" and any("age" not in p["traits"] for p in body["people"]):
            yield "whoever has traits has an age"

    assert judge(contract(file, rules=(traits,))).survivors == ()


def test_a_rule_that_cannot_read_a_request_has_found_something(file: Path) -> None:
    def fragile(request: httpx.Request) -> Iterable[str]:
        yield from json.loads(request.content)["nothing"]

    assert "the rule `fragile` cannot read it: KeyError" in told(contract(file, rules=(fragile,)), PUSH)


def test_too_few_caught_fails_and_names_the_survivors(file: Path) -> None:
    lax = contract(file, closed=False)
    strict = type("Strict", (lax,), {"mutants_caught": 0.99})

    lax().test_request_mutants(_forget)
    with pytest.raises(AssertionError, match=r"(?s)not 99%.*people\[0\].city misspelt"):
        strict().test_request_mutants(_forget)
