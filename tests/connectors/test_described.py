"""What a vendor's description finds in requests and answers, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.testing.openapi import Checked, Described, Violation

PERSON = {
    "type": "object",
    "required": ["email"],
    "properties": {
        "email": {"type": "string", "format": "email"},
        "kind": {"type": "string", "enum": ["lead", "customer"]},
        "traits": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}
CARD = {"type": "object", "properties": {"number": {"type": "string"}}}
BODY = {
    "type": "object",
    "required": ["people"],
    "properties": {
        "people": {
            "type": "array",
            "maxItems": 3,
            "items": {
                "allOf": [{"$ref": "#/components/schemas/Person"}, {"anyOf": [CARD, {"required": ["kind"]}]}]
            },
        },
        "notes": {"oneOf": [{"type": "object"}, {"type": "string"}]},
    },
}
ANSWER = {"type": "object", "required": ["taken"], "properties": {"taken": {"type": "integer"}}}


def _body(schema: Any, *media: str) -> dict[str, Any]:
    return {"required": True, "content": {one: {"schema": schema} for one in media or ("application/json",)}}


def _answers(schema: Any, media: str = "application/json") -> dict[str, Any]:
    return {"200": {"description": "", "content": {media: {"schema": schema}}}, "204": {"description": ""}}


DOCUMENT = {
    "openapi": "3.0.3",
    "info": {"title": "Acme", "version": "1"},
    "servers": [{"url": "https://API.Acme.example/v1"}, {"url": "https://{region}.acme.example/{version}/eu"}],
    "security": [{"oauth": []}],
    "paths": {
        "/lists/{id}:add": {
            "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}],
            "post": {
                "operationId": "add",
                "parameters": [
                    {"name": "mode", "in": "query", "schema": {"type": "string", "enum": ["soft", "hard"]}},
                    {"name": "page[size]", "in": "query", "schema": {"type": "integer", "maximum": 100}},
                    {"$ref": "#/components/parameters/revision"},
                    {"name": "Authorization", "in": "header", "required": True, "schema": {"type": "string"}},
                ],
                "requestBody": {"$ref": "#/components/requestBodies/People"},
                "responses": _answers(ANSWER, "application/vnd.api+json"),
            },
        },
        "/lists/{id}": {
            "get": {"operationId": "read", "responses": _answers({"type": "object"}, "*/*")},
            "delete": {"operationId": "forget", "responses": {"204": {"description": ""}}},
            "patch": {"operationId": "patch", "requestBody": _body({"type": "object"}), "responses": _answers({})},
        },
        "/lists/first": {"get": {"operationId": "first", "responses": _answers(ANSWER)}},
        "/forms": {
            "post": {
                "requestBody": _body(
                    {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                    "application/x-www-form-urlencoded",
                ),
                "responses": _answers(ANSWER),
            }
        },
        "/files": {"put": {"requestBody": _body({"type": "string"}, "text/csv"), "responses": _answers(ANSWER)}},
    },
    "components": {
        "schemas": {
            "Person": {
                "oneOf": [{"$ref": "#/components/schemas/Human"}],
                "discriminator": {"propertyName": "kind"},
            },
            "Human": PERSON,
        },
        "parameters": {
            "revision": {
                "name": "revision",
                "in": "header",
                "required": True,
                "schema": {"type": "string", "default": "1"},
            }
        },
        "requestBodies": {"People": _body(BODY, "application/vnd.api+json")},
    },
}
ADA = {"email": "ada@acme.example", "kind": "lead"}
ADD = "https://api.acme.example/v1/lists/7:add"
HEADERS = {"authorization": "Bearer t", "revision": "2", "content-type": "application/vnd.api+json"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.json"
    path.write_text(json.dumps(DOCUMENT))
    return path


@pytest.fixture
def described(file: Path) -> Described:
    return Described(file, authenticated=_authenticated)


def _authenticated(request: httpx.Request) -> bool:
    return "authorization" in request.headers


def post(body: Any, url: str = ADD, method: str = "POST", **headers: str) -> httpx.Request:
    return httpx.Request(method, url, content=json.dumps(body), headers={**HEADERS, **headers})


def people(*persons: Any, **more: Any) -> httpx.Request:
    return post({"people": list(persons), **more})


def faults(described: Described, request: httpx.Request) -> str:
    return "; ".join(described.request_faults(request))


@pytest.mark.parametrize(
    "request_",
    [
        people(ADA),
        people({**ADA, "number": "4", "traits": {"shoe size": "38"}}),
        people(ADA, notes={"free": 1}),
        people(ADA, notes="text"),
        post({"people": [ADA]}, f"{ADD}?mode=hard&page[size]=7"),
        post({"people": [ADA]}, "http://127.0.0.1:8080/v1/lists/7:add"),
        post({"people": [ADA]}, "https://eu.acme.example/v9/eu/lists/7:add"),
        post(
            {"anything": 1}, "https://api.acme.example/v1/lists/7", "PATCH", **{"content-type": "application/json"}
        ),
        httpx.Request("GET", "https://api.acme.example/v1/lists/first", headers=HEADERS),
        httpx.Request(
            "POST", "https://api.acme.example/v1/forms", data={"name": "Ada"}, headers={"authorization": "t"}
        ),
        httpx.Request(
            "PUT",
            "https://api.acme.example/v1/files",
            content=b"a,b",
            headers={**HEADERS, "content-type": "text/csv; charset=utf-8"},
        ),
    ],
)
def test_a_request_as_described_has_no_fault(described: Described, request_: httpx.Request) -> None:
    assert faults(described, request_) == ""


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (people({"kind": "lead"}), "'email' is a required property"),
        (people({**ADA, "kind": "leads"}), "not one of"),
        (people({**ADA, "email": 7}), "7 is not of type 'string'"),
        (people({**ADA, "traits": {"size": 38}}), "38 is not of type 'string'"),
        (people({**ADA, "emial": "x"}), "people[0].emial: no schema names this key"),
        (people(ADA, note="x"), "note: no schema names this key"),
        (people(ADA, ADA, ADA, ADA), "4 entries, at most 3"),
        (post({"people": [ADA]}, f"{ADD}?mode=medium"), "medium"),
        (post({"people": [ADA]}, f"{ADD}?moode=hard"), "no query parameter `moode`"),
        (post({"people": [ADA]}, f"{ADD}?page[size]=700"), "700"),
        (post({"people": [ADA]}, ADD.replace("7", "seven")), "seven"),
        (post({"people": [ADA]}, ADD.replace("v1", "v2")), "no description has this operation"),
        (post({"people": [ADA]}, method="PUT"), "no description has this operation"),
        (post({"people": [ADA]}, **{"content-type": "application/json"}), "application/vnd.api+json is described"),
        (httpx.Request("POST", ADD, content=b"{", headers=HEADERS), "not JSON"),
        (httpx.Request("POST", ADD, headers=HEADERS), "equest body"),
        (post({"ids": [1]}, "https://api.acme.example/v1/lists/7", "DELETE"), "no body at all"),
        (httpx.Request("POST", "https://api.acme.example/v1/forms", data={"nmae": "A"}), "name"),
    ],
)
def test_what_is_not_as_described_is_named(described: Described, request_: httpx.Request, fault: str) -> None:
    assert fault in faults(described, request_)


def test_a_required_header_with_a_default_has_to_be_there(described: Described) -> None:
    request = people(ADA)
    del request.headers["revision"]

    assert "the required header `revision` is missing" in faults(described, request)


def test_missing_credentials_are_found_where_the_description_says_nothing(described: Described) -> None:
    request = people(ADA)
    del request.headers["authorization"]

    assert "no credentials" in faults(described, request)


def test_open_bodies_are_taken_where_the_author_says_so(file: Path) -> None:
    lax = Described(file, authenticated=_authenticated, closed=False)

    assert faults(lax, people({**ADA, "emial": "x"})) == ""
    assert faults(lax, post({"people": [ADA]}, f"{ADD}?moode=hard")) == ""


SEMANTIC = "application/json; domain-model=acme.semantic"
OVERLAY = {"type": "object", "required": ["kind"], "properties": {"kind": {"const": "addTargets"}}}


@pytest.mark.parametrize("name", ["patch", "PATCH /lists/{id}"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_an_overlay_types_what_the_description_does_not(
    file: Path, tmp_path: Path, name: str, wrapped: bool
) -> None:
    overlay = tmp_path / "overlay.json"
    overlay.write_text(json.dumps({"schema": OVERLAY} if wrapped else OVERLAY))
    described = Described(file, authenticated=_authenticated, overlays={(name, SEMANTIC): str(overlay)})
    url = "https://api.acme.example/v1/lists/7"

    def asked(body: Any, media: str) -> str:
        return faults(described, post(body, url, "PATCH", **{"content-type": media}))

    assert asked({"kind": "addTargets"}, "application/json;domain-model=acme.semantic") == ""
    assert "addTargets" in asked({"kind": "addTarget"}, SEMANTIC)
    assert "no schema names" in asked({"kind": "addTargets", "vlaues": []}, SEMANTIC)
    assert asked({"anything": 1}, "application/json") == ""


def test_an_overlay_for_an_operation_that_is_not_there_is_an_error(file: Path) -> None:
    described = Described(file, authenticated=_authenticated, overlays={("ptach", SEMANTIC): OVERLAY})

    with pytest.raises(LookupError, match="ptach"):
        faults(described, people(ADA))


def test_rules_find_what_the_description_cannot_say(file: Path) -> None:
    def one_kind(request: httpx.Request) -> Iterable[str]:
        if len({person["kind"] for person in json.loads(request.content)["people"]}) > 1:
            yield "all people of a request are of one kind"

    described = Described(file, authenticated=_authenticated, rules=(one_kind,))

    assert faults(described, people(ADA)) == ""
    assert "of one kind" in faults(described, people(ADA, {**ADA, "kind": "customer"}))


@pytest.mark.parametrize(
    "also", [r"POST https://login\.acme\.example/token", lambda request: request.url.path == "/token"]
)
def test_a_request_that_no_description_has_passes_only_if_it_is_named(
    file: Path, also: str | Callable[[httpx.Request], bool]
) -> None:
    described = Described(file, authenticated=_authenticated, also=(also,))

    assert faults(described, httpx.Request("POST", "https://login.acme.example/token?x=1")) == ""
    assert "no description" in faults(described, httpx.Request("POST", "https://login.acme.example/tokens"))


def _judged(described: Described, answer: httpx.Response) -> None:
    Checked(lambda _: answer, described).handle_request(people(ADA))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"taken": 1}, headers={"content-type": "application/vnd.api+json"}),
        httpx.Response(204),
        httpx.Response(429, json={"whatever": 1}),
    ],
)
def test_an_answer_as_described_passes(described: Described, answer: httpx.Response) -> None:
    _judged(described, answer)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (httpx.Response(200, json={"taken": "1"}), "application/vnd.api"),
        (httpx.Response(201, json={"taken": 1}), "201 is not described"),
        (httpx.Response(200, content=b"{", headers={"content-type": "application/vnd.api+json"}), "not JSON"),
    ],
)
def test_a_fake_cannot_drift_from_the_vendor(described: Described, answer: httpx.Response, fault: str) -> None:
    with pytest.raises(Violation, match=fault):
        _judged(described, answer)


@pytest.mark.parametrize("body", [{"taken": "1"}, {}, {"taken": 1, "tkane": 1}])
def test_an_answers_body_is_judged(described: Described, body: Any) -> None:
    kind = {"content-type": "application/vnd.api+json"}

    with pytest.raises(Violation, match="POST /v1/lists/7:add: answer 200"):
        _judged(described, httpx.Response(200, json=body, headers=kind))


def test_a_literal_path_wins_over_a_template(described: Described) -> None:
    request = httpx.Request("GET", "https://api.acme.example/v1/lists/first", headers=HEADERS)

    assert described.used(request) == "GET /lists/first"


def test_a_description_that_is_not_here_is_told_apart(tmp_path: Path) -> None:
    assert not Described(tmp_path / "none.json", authenticated=_authenticated).available


def test_yaml_is_read_too(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    path = tmp_path / "acme.yaml"
    with path.open("w") as out:
        YAML(typ="safe").dump(json.loads(json.dumps(DOCUMENT)), out)

    assert faults(Described(path, authenticated=_authenticated), people(ADA)) == ""
