"""Connectors written as TOML: through the kit in every shape, and the mistakes a manifest is refused for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

import httpx
import pytest
from pydantic import ValidationError

from connectors.customerio import CustomerIO
from sync.errors import ProjectError, ProtocolError, RateLimited, RequestError
from sync.sdk.http import build_client
from sync.sdk.manifest import connector
from sync.sdk.manifest.making import make
from sync.sdk.manifest.reading import read_manifest
from sync.sdk.nouns import Batch, Change, Op, Rate, Status
from sync.testing.contract import ConnectorContract
from sync.testing.hostile import RateSignal, Wire

HEAD = """
name = "acme"
title = "Acme"
docs = "Ask Acme for a key."
base_url = "https://api.acme.example/v2"
auth = { scheme = "header", name = "Api-Key", value = "key" }
check = { path = "/me" }
rate_signal = { header = "X-Reset", unit = "epoch_ms" }
options.key.secret = true

[objects.member]
title = "Member"
fields = [{ name = "email", identifier = true, required = true }, { name = "first_name" }]
limits = { batch_size = 50, batch_bytes = 100000, concurrency = 2, rates = [{ requests = 10, per = 1 }] }
"""

ROWS = 'answer = { kind = "rows", list = "results", status = "status", good = ["ok"], reason = "error.message" }'
INDEX = (
    'answer = { kind = "by_index", list = "errors", index = "at", reason = "why",'
    ' success = { at = "message", equals = ["success"] } }'
)
IDENTIFIER = (
    'answer = { kind = "by_identifier", lists = ["failed.invalid", "failed.unknown"], match = "email",'
    ' success = { at = "code", equals = ["Success"] } }'
)
TWO_LISTS = 'answer = { kind = "two_lists", applied = "added", rejected = "missing", match = "email" }'
CODE = 'answer = { kind = "code", code = "code", good = [0], reason = "msg" }'
MATCHED = (
    'answer = { kind = "rows", list = "results", status = "status", good = ["ok"], match = "email",'
    ' identifier = "who" }'
)
ERRORS = 'answer = { kind = "rows", list = "results", error = "", reason = "why" }'
KEYED = 'answer = { kind = "by_identifier", lists = ["failed"], keyed = true, match = "email" }'
SEVERAL = 'answer = { kind = "by_index", list = "errors", index = "rows", base = 1, reason = "why" }'
REST = 'answer = { kind = "two_lists", applied = "added", match = "email", rest = "rejected" }'
SILENT = 'answer = { kind = "silent" }'


def _actions(text: str, ops: tuple[str, ...] = ("add", "update", "remove")) -> str:
    return HEAD + "\n".join(f"[objects.member.actions.{op}]\n{text}\n" for op in ops)


def _acme(text: str) -> Any:
    return make(read_manifest(text, "acme.toml"))


def _emails(request: httpx.Request) -> list[str]:
    """Everybody a request speaks of, wherever they stand in it."""
    if request.headers.get("content-type") == "application/x-www-form-urlencoded":
        return parse_qs(request.content.decode())["people"][0].split(",")
    if "people" in request.url.params:
        return request.url.params["people"].split(",")
    if not request.content:
        return unquote(request.url.raw_path.decode().rpartition("/")[2]).split(",")
    body = json.loads(request.content)
    lists = [body] if isinstance(body, list) else [v for v in body.values() if isinstance(v, list)]
    found = [one for some in lists for one in some]
    return [one if isinstance(one, str) else one["email"] for one in found]


class Acme(ConnectorContract):
    config: ClassVar = {"key": "k3y-of-acme"}
    rate_signals = (
        RateSignal("epoch ms", lambda now: {"X-Reset": str(int((now + 60) * 1000))}, 60),
        *RateSignal.usual(),
    )


class TestRows(Acme):
    connector = _acme(_actions(f'path = "/lists/{{audience}}/people"\nmembers = "people"\n{ROWS}'))

    def answer(self, request: httpx.Request) -> httpx.Response:
        rows = [{"status": "ok"} for _ in _emails(request)] if request.content else []
        return httpx.Response(200, json={"results": rows})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        rows = [{"status": "ok"} for _ in _emails(request)[1:]] if request.content else []
        return httpx.Response(200, json={"results": [{"status": "no", "error": {"message": "bad"}}, *rows]})


class TestByIndex(Acme):
    connector = _acme(_actions(f'method = "PUT"\npath = "/people"\n{INDEX}'))

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(201, json={"message": "success"})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(201, json={"message": "success", "errors": [{"at": 0, "why": "bad"}]})


class TestByIdentifier(Acme):
    connector = _acme(
        _actions(f'path = "/people"\nplace = "form"\nmembers = "people"\nvalue = "email"\n{IDENTIFIER}')
    )

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"code": "Success", "failed": {"invalid": [], "unknown": []}})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        first = _emails(request)[:1] if request.content else []
        return httpx.Response(200, json={"code": "Success", "failed": {"invalid": [e.upper() for e in first]}})


class TestTwoLists(Acme):
    connector = _acme(
        _actions(f'path = "/people"\nplace = "query"\nmembers = "people"\nvalue = "email"\n{TWO_LISTS}')
    )

    def answer(self, request: httpx.Request) -> httpx.Response:
        known = _emails(request) if request.method == "POST" else []
        return httpx.Response(200, json={"added": known, "missing": []})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        known = _emails(request) if request.method == "POST" else [""]
        return httpx.Response(200, json={"added": known[1:], "missing": known[:1]})


class TestCodeInPath(Acme):
    connector = _acme(
        _actions(f'method = "DELETE"\npath = "/p/{{members}}"\nplace = "path"\nvalue = "email"\n{CODE}')
    )

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"code": 0})


class TestMixed(Acme):
    connector = _acme(
        f'{HEAD}[objects.member.mixed]\npath = "/p"\nvalue = "email"\n'
        f'lists = {{ add = "members_to_add", remove = "members_to_remove" }}\n{TWO_LISTS}'
    )

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"added": _emails(request) if request.content else [], "missing": []})


class TestPerRecord(Acme):
    connector = _acme(
        HEAD.replace('check = { path = "/me" }', 'check = { path = "/me" }\nplain_success = ["{}"]')
        + f'[objects.member.actions.add]\nmethod = "PUT"\npath = "/p/{{email}}"\nper = "record"\n{CODE}\n'
        + f'[objects.member.actions.remove]\nmethod = "DELETE"\npath = "/p/{{email}}"\nper = "record"\n'
        f'place = "none"\ngone = [404]\n{SILENT}'
    )

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"code": 0}) if request.method == "PUT" else httpx.Response(204)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path.endswith(("add0@acme.example", "remove0@acme.example")):
            return httpx.Response(422, json={"error": "bad"})
        return self.answer(request) if request.method != "GET" else httpx.Response(200)


def _batch(op: Op, *emails: str, **fields: Any) -> Batch:
    changes = tuple(Change(op, f"k{n}", {"email": e}, fields) for n, e in enumerate(emails))
    return Batch("b7", "vip", "member", "12", changes)


def _push(text: str, answer: httpx.Response, batch: Batch) -> tuple[list[Any], list[httpx.Request]]:
    kind = _acme(text)
    config = kind.config_model(key="k")
    wire = Wire(lambda request: answer)
    return list(kind(config, build_client(kind, config, timeout=5, transport=wire)).push(batch)), wire.requests


OK = httpx.Response(200, json={"code": 0})


def test_the_object_is_what_the_manifest_says() -> None:
    spec = _acme(_actions(f'path = "/p"\n{ROWS}', ("add", "remove"))).objects["member"]

    assert spec.ops == {Op.ADD, Op.REMOVE}
    assert [f.name for f in spec.identifiers] == ["email"]
    assert (spec.limits.batch_size, spec.limits.rates, spec.limits.mixed_ops) == (50, (Rate(10, 1.0),), False)


@pytest.mark.parametrize(
    ("action", "url", "body"),
    [
        ('path = "/p"', "/v2/p", [{"email": "a@x.y", "first_name": "A"}]),
        ('path = "/p"\nvalue = "email"', "/v2/p", ["a@x.y"]),
        ('path = "/p"\nmembers = "m"\nvalue = "email"', "/v2/p", {"m": ["a@x.y"]}),
        (
            'path = "/l/{audience}"\nmembers = "m"\nfields_at = "data"\n'
            'body = { id = "{audience:integer}", n = 1 }',
            "/v2/l/12",
            {"id": 12, "n": 1, "m": [{"email": "a@x.y", "data": {"first_name": "A"}}]},
        ),
        (
            'path = "/p/{email}"\nper = "record"\nbody = { list = "{audience}" }\nquery = { b = "{batch_id}" }',
            "/v2/p/a%40x.y?b=b7",
            {"list": "12", "first_name": "A", "email": "a@x.y"},
        ),
    ],
)
def test_a_request_is_built_as_the_action_says(action: str, url: str, body: Any) -> None:
    _, (request,) = _push(_actions(f"{action}\n{CODE}"), OK, _batch(Op.ADD, "a@x.y", first_name="A"))

    assert request.url.raw_path.decode() == url
    assert json.loads(request.content) == body
    assert request.headers["api-key"] == "k"


@pytest.mark.parametrize("email", ["", " ", ".", ".."])
def test_an_empty_identifier_never_addresses_the_whole_collection(email: str) -> None:
    text = _actions(f'method = "DELETE"\npath = "/p/{{email}}"\nper = "record"\nplace = "none"\n{CODE}')

    (receipt,), requests = _push(text, OK, _batch(Op.REMOVE, email))

    assert receipt.status is Status.REJECTED
    assert not requests


def test_a_comma_does_not_make_two_members_of_one() -> None:
    text = _actions(f'path = "/p"\nplace = "query"\nmembers = "m"\nvalue = "email"\n{CODE}')

    (receipt,), requests = _push(text, OK, _batch(Op.ADD, "a,b"))

    assert (receipt.status, requests) == (Status.REJECTED, [])
    assert "comma" in receipt.reason


def test_a_removal_that_finds_nobody_is_done() -> None:
    text = _actions(f'path = "/p/{{email}}"\nper = "record"\nplace = "none"\ngone = [404]\n{CODE}')

    (removed,), _ = _push(text, httpx.Response(404), _batch(Op.REMOVE, "a@x.y"))
    (added,), _ = _push(text, httpx.Response(404, text="no"), _batch(Op.ADD, "a@x.y"))

    assert (removed.status, added.status) == (Status.APPLIED, Status.REJECTED)


@pytest.mark.parametrize(
    ("answer", "body", "expected"),
    [
        (ROWS, {"results": [{"status": "ok"}, {"status": "no", "error": {"message": "bad"}}]}, "a r:bad"),
        (ROWS, {"results": [{"status": "ok"}, {}]}, "a ?"),
        (ROWS, {"results": [{"status": "ok"}]}, "? ?"),
        (MATCHED, {"results": [{"who": "B@x.y", "status": "ok"}]}, "? a"),
        (MATCHED, {"results": [{"who": "a@x.y", "status": "ok"}, {"who": "a@x.y", "status": "no"}]}, "? ?"),
        (ERRORS, {"results": [None, {"why": "bad"}]}, "a r:bad"),
        (KEYED, {"failed": {"a@x.y": "bad"}}, "r:bad a"),
        (SEVERAL, {"errors": [{"rows": [1, 2], "why": "bad"}]}, "r:bad r:bad"),
        (REST, {"added": ["b@x.y"]}, "r:not listed in added a"),
        (INDEX, {"message": "success", "errors": [{"at": 1, "why": "bad"}]}, "a r:bad"),
        (INDEX, {"message": "success"}, "a a"),
        (IDENTIFIER, {"code": "Success", "failed": {"unknown": ["B@x.y"]}}, "a r:listed in failed.unknown"),
        (IDENTIFIER, {"code": "Success", "failed": {"unknown": ["c@x.y"]}}, "? ?"),
        (TWO_LISTS, {"added": ["a@x.y"], "missing": ["b@x.y"]}, "a r:listed in missing"),
        (TWO_LISTS, {"added": ["a@x.y"], "missing": []}, "a ?"),
        (CODE, {"code": 0}, "a a"),
    ],
)
def test_each_record_gets_what_the_answer_says_of_it(answer: str, body: Any, expected: str) -> None:
    receipts, _ = _push(
        _actions(f'path = "/p"\n{answer}'), httpx.Response(200, json=body), _batch(Op.ADD, "a@x.y", "b@x.y")
    )

    words = {Status.APPLIED: "a", Status.UNKNOWN: "?"}
    assert " ".join(words.get(r.status, f"r:{r.reason}") for r in receipts) == expected


@pytest.mark.parametrize(
    ("answer", "body", "error"),
    [
        (ROWS, {"results": {}}, ProtocolError),
        (INDEX, {"errors": []}, ProtocolError),
        (INDEX, {"message": "success", "errors": [{"at": 2}]}, ProtocolError),
        (INDEX, {"message": "success", "errors": [{"at": True}]}, ProtocolError),
        (INDEX, {"message": "success", "errors": "all"}, ProtocolError),
        (TWO_LISTS, {"added": []}, ProtocolError),
        (CODE, {}, ProtocolError),
        (CODE, {"code": False}, RequestError),
        (CODE, {"code": 80003, "msg": "too many"}, RequestError),
        (SILENT, {"ok": True}, ProtocolError),
    ],
)
def test_an_answer_that_proves_nothing_is_not_taken(answer: str, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        _push(_actions(f'path = "/p"\n{answer}'), httpx.Response(200, json=body), _batch(Op.ADD, "a@x.y", "b@x.y"))


def test_a_pause_is_read_from_the_header_the_manifest_names() -> None:
    with pytest.raises(RateLimited) as raised:
        _push(
            _actions(f'path = "/p"\n{CODE}'),
            httpx.Response(429, headers={"X-Reset": "99999999999999"}),
            _batch(Op.ADD, "a"),
        )

    assert raised.value.retry_after is not None
    assert raised.value.retry_after > 1e9


@pytest.mark.parametrize(
    ("scheme", "header"),
    [
        ('{ scheme = "bearer", token = "key" }', "Bearer s3"),
        ('{ scheme = "basic", user = "user", password = "key" }', "Basic YW5hOnMz"),
        ('{ scheme = "header", name = "Authorization", value = "key", prefix = "Key " }', "Key s3"),
        ('{ scheme = "none" }', None),
    ],
)
def test_credentials_are_sent_as_the_scheme_says(scheme: str, header: str | None) -> None:
    text = _actions(f'path = "/p"\n{CODE}').replace(
        'auth = { scheme = "header", name = "Api-Key", value = "key" }',
        f'auth = {scheme}\noptions.user.default = "ana"',
    )
    kind = _acme(text)
    config = kind.config_model(key="s3")
    wire = Wire(lambda request: OK)

    kind(config, build_client(kind, config, timeout=5, transport=wire)).push(_batch(Op.ADD, "a"))

    assert wire.requests[0].headers.get("authorization") == header


BODY = 'auth = { scheme = "body", name = "api_key", value = "key" }'


@pytest.mark.parametrize(
    ("action", "sent"),
    [
        ('members = "m"\nvalue = "email"', '{"api_key":"s3","m":["a"]}'),
        ('place = "form"\nmembers = "m"\nvalue = "email"', "api_key=s3&m=a"),
    ],
)
def test_a_key_is_put_into_the_body_as_it_leaves(action: str, sent: str) -> None:
    text = _actions(f'path = "/p"\n{action}\n{CODE}').replace(
        'auth = { scheme = "header", name = "Api-Key", value = "key" }', BODY
    )
    kind = _acme(text)
    config = kind.config_model(key="s3")
    wire = Wire(lambda request: OK)
    with build_client(kind, config, timeout=5, transport=wire) as client:
        made = kind(config, client)
        made.push(_batch(Op.ADD, "a"))
        made.check()
        preview = made.request(
            kind.manifest.objects["member"].action(Op.ADD), _batch(Op.ADD, "a"), _batch(Op.ADD, "a").changes
        )

    first, second = wire.requests
    assert first.content.decode() == sent
    assert first.headers["content-length"] == str(len(sent))
    assert second.url.params["api_key"] == "s3"
    assert b"s3" not in preview.content


def test_client_credentials_fetch_a_token_first() -> None:
    text = _actions(f'path = "/p"\n{CODE}').replace(
        'auth = { scheme = "header", name = "Api-Key", value = "key" }',
        'auth = { scheme = "client_credentials", token_url = "https://id.acme.example/t", client_id = "user",'
        ' client_secret = "key", extra = { audience = "crm" } }\noptions.user.default = "ana"',
    )
    kind = _acme(text)
    config = kind.config_model(key="s3")
    wire = Wire(lambda r: httpx.Response(200, json={"access_token": "t1"}) if r.url.path == "/t" else OK)

    kind(config, build_client(kind, config, timeout=5, transport=wire)).push(_batch(Op.ADD, "a"))

    assert [r.headers["authorization"] for r in wire.requests] == ["Basic YW5hOnMz", "Bearer t1"]
    assert wire.requests[0].content == b"audience=crm&grant_type=client_credentials"


GOOD = _actions(f'path = "/p"\n{CODE}')


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "/me"', 'pth = "/me"', "check.pth: unknown key"),
        ('value = "key" }', 'value = "kei" }', "there is no option 'kei'; did you mean 'key'?"),
        ("secret = true", 'description = "x"', "the option 'key' is a credential and lacks `secret = true`"),
        ('path = "/p"', 'path = "/p/{audienc}"', "nothing is called '{audienc}'; did you mean 'audience'?"),
        ('path = "/p"', 'path = "/p/{key}"', "nothing is called '{key}'"),
        ('path = "/p"', 'path = "/p/{email}"', "nothing is called '{email}'"),
        ('path = "/p"', 'path = "/p"\nplace = "query"', "`value` is missing"),
        ('path = "/p"', 'path = "/p"\nplace = "none"', "the members go nowhere"),
        ('path = "/p"', 'path = "/p"\nplace = "path"\nvalue = "email"', "`path` has no {members}"),
        ('path = "/p"', 'path = "/p"\nvalue = "emial"', "there is no field 'emial'"),
        ('path = "/p"', 'path = "/p"\nbody = { a = 1 }', "a body with constants cannot be the list itself"),
        ('path = "/p"', 'path = "/p"\nif = "x"', "objects.member.actions.add.if: unknown key"),
        (
            'kind = "code", code = "code", good = [0], reason = "msg"',
            'kind = "rows", list = "r"',
            "give one of them",
        ),
        (
            'kind = "code", code = "code", good = [0], reason = "msg"',
            'kind = "rows", list = "r", status = "s"',
            "good",
        ),
        ('kind = "code", code = "code", good = [0], reason = "msg"', 'kind = "count", taken = 1', "taken"),
        (
            'path = "/p"',
            'path = "/p"\nopen = { path = "/o", id = "id" }\nclose = { path = "/c" }',
            "`close` needs `taken`",
        ),
        ('path = "/p"', 'path = "/p/{opened}"', "nothing is called '{opened}'"),
        ('kind = "code"', 'kind = "vibes"', "objects.member.actions.add.answer"),
        ("[objects.member.actions.add]", "[objects.member.actions.merge]", "objects.member.actions.merge"),
        ('title = "Acme"', "title = ", "acme.toml: not TOML: invalid value"),
    ],
)
def test_a_manifest_with_a_mistake_is_refused_by_file_and_key(old: str, new: str, message: str) -> None:
    assert old in GOOD

    with pytest.raises(ProjectError) as raised:
        read_manifest(GOOD.replace(old, new), "acme.toml")

    assert raised.value.code == "HG412"
    assert any(message in p.message and p.message.startswith("acme.toml: ") for p in raised.value.problems)


def test_every_mistake_is_told_at_once() -> None:
    with pytest.raises(ProjectError) as raised:
        read_manifest(
            GOOD.replace('title = "Acme"', "titel = 1").replace("batch_size = 50", "batch_size = 0"), "a.toml"
        )

    assert len(raised.value.problems) == 3


def test_a_record_at_a_time_cannot_be_answered_by_lists() -> None:
    with pytest.raises(ProjectError, match="it speaks of one record"):
        read_manifest(_actions(f'path = "/p"\nper = "record"\n{ROWS}'), "acme.toml")


def test_what_must_not_be_repeated_is_sent_a_record_a_batch() -> None:
    text = _actions(f'path = "/p"\nper = "record"\n{CODE}').replace(
        'title = "Member"', 'title = "M"\nidempotent = false'
    )

    with pytest.raises(ProjectError, match="batch_size = 1"):
        read_manifest(text, "acme.toml")

    assert read_manifest(text.replace("batch_size = 50", "batch_size = 1"), "acme.toml").name == "acme"


def test_a_manifest_can_be_a_file_anywhere(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text(GOOD)

    assert connector(tmp_path / "acme.toml").title == "Acme"


def test_an_option_with_choices_takes_no_other() -> None:
    with pytest.raises(ValidationError, match="host"):
        CustomerIO.config_model(site_id="s", api_key="k", host="evil.example")
