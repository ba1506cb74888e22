"""Platforms that nobody here has named, in TOML alone: each shape of request and answer, through the kit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.errors import AuthError, ProjectError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.connector import Creates, Describes, Polls, Reads
from sync.sdk.http import build_client
from sync.sdk.manifest import connector
from sync.sdk.manifest.making import make
from sync.sdk.manifest.reading import read_manifest
from sync.sdk.nouns import Batch, Change, Delivery, Field, Job, Member, ObjectSpec, Op, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract, run
from sync.testing.hostile import WIRES
from tests.connectors.shapes.further import EVERY
from tests.connectors.shapes.platforms import Platform

FOLDER = Path(__file__).parent / "shapes"
CONNECTORS: dict[str, Any] = {path.stem: connector(path) for path in sorted(FOLDER.glob("*.toml"))}
SECRETS = {"token": "t0ken-of-mine", "key": "k3y-of-mine", "workspace": "w0rkspace-of-mine"}
OTHERS = {"client_id": "us", "client_secret": "s3cret-of-mine", "advertiser": 77}
ALL_OR_NOTHING = {"tiller", "mosaic", "sable", "vireo", "wren"}  # nobody is refused alone


def options(name: str) -> dict[str, Any]:
    return {k: v for k, v in (SECRETS | OTHERS).items() if k in CONNECTORS[name].config_model.model_fields}


class Shape(ConnectorContract):
    """The contract of one of them: its stateful platform answers."""

    audience = "12"
    check_methods = frozenset({"POST"})
    platform: Platform

    def begin(self) -> None:
        self.platform = EVERY[self.connector.name]()

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.platform.refusing = False
        return self.platform(request)

    def token_answer(self, request: httpx.Request) -> httpx.Response:
        return self.platform(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        if self.connector.name in ALL_OR_NOTHING:
            return None
        self.platform.refusing = request.method != "GET" or self.platform.refusing
        return self.platform(request)

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the platform knows."""
        made = samples.changes(spec, op, count, prefix)
        if op is Op.ADD and self.connector.name == "heron":  # where every second is made
            for one in made[1::2]:
                self.platform.id_of(one.identifiers["email"])
            return made
        ids = [str(self.platform.id_of(next(iter(c.identifiers.values())))) for c in made]
        remembered = [replace(c, remote_id=None if op is Op.ADD else id) for c, id in zip(made, ids, strict=True)]
        if op is Op.REMOVE and self.connector.name == "rill":
            self.platform.people |= {c.identifiers["email"]: None for c in made}
        return remembered


def contract(name: str) -> type[Shape]:
    return type(f"{name.title()}Contract", (Shape,), {"connector": CONNECTORS[name], "config": options(name)})


ON_THE_WIRE = {f"a destination that {name} leaves the outcome unknown" for name in WIRES}
"""Checks of what all manifests have in common: one of them goes through these."""


class Quick:
    """Every check but those."""

    def __contains__(self, sentence: object) -> bool:
        return sentence not in ON_THE_WIRE


@pytest.mark.parametrize("name", sorted(CONNECTORS))
def test_a_platform_in_toml_goes_through_the_kit(name: str) -> None:
    results = list(run(contract(name), None if name == "perch" else Quick()))

    assert not [f"{r.check}: {r.message}" for r in results if r.ok is False]
    assert sum(r.ok is True for r in results) > 30


def test_there_is_a_platform_for_every_manifest() -> None:
    assert set(CONNECTORS) == set(EVERY)


class connect:
    """A connector of one of the manifests, with its production client, on the wire to its platform."""

    def __init__(self, name: str, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.platform = EVERY[name]()
        config = CONNECTORS[name].config_model(**options(name))
        wire = httpx.MockTransport(answer or self.platform)
        self.client = build_client(CONNECTORS[name], config, timeout=5, transport=wire)
        self.connector: Any = CONNECTORS[name](config, self.client)

    def __enter__(self) -> connect:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def push(self, object: str, *changes: Change) -> Any:
        return self.connector.push(Batch("b1", "vip", object, "12", changes))

    @property
    def asked(self) -> list[tuple[str, str, str]]:
        return [(r.method, r.url.raw_path.decode(), r.content.decode()) for r in self.platform.requests]


def change(field: str, value: str, op: Op = Op.ADD, /, id: str | None = None, **fields: Any) -> Change:
    return Change(op, f"key-{value}", {field: value}, fields, id)


def test_ids_are_looked_up_in_parts_and_whoever_is_not_known_is_rejected_or_gone_already() -> None:
    with connect("perch") as perch:
        known = [change("email", f"p{n}@acme.example") for n in range(150)]
        for one in known:
            perch.platform.id_of(one.identifiers["email"])

        added = perch.push("list_member", *known, change("email", "stranger@acme.example"))
        gone = perch.push("list_member", change("email", "nobody@acme.example", Op.REMOVE))
        by_id = perch.push("list_member", change("email", "moved@acme.example", Op.REMOVE, id="1003"))

    assert [r.status for r in added] == [Status.APPLIED] * 150 + [Status.REJECTED]
    assert added[0].remote_id == "1000"
    assert added[-1].reason == "the platform knows nobody with this email"
    assert [r.status for r in gone + by_id] == [Status.APPLIED, Status.APPLIED]
    assert [path for _, path, _ in perch.asked] == [
        *["/v3/contacts/search"] * 2, "/v3/lists/12/members", "/v3/contacts/search", "/v3/lists/12/members",
    ]  # fmt: skip
    assert perch.asked[-1][2] == '{"remove":[1003]}'


def test_somebody_whom_the_platform_has_twice_is_left_for_later() -> None:
    people = {"contacts": [{"id": 1, "email": "a@acme.example"}, {"id": 2, "email": "A@acme.example"}]}
    with connect("perch", lambda request: httpx.Response(200, json=people)) as perch:
        (receipt,) = perch.push("list_member", change("email", "a@acme.example"))

    assert (receipt.status, receipt.reason) == (Status.DEFERRED, "the platform has several with this email")


def test_an_audience_is_made_read_and_described() -> None:
    with connect("perch") as perch:
        perch.push("list_member", *(change("email", f"p{n}@x.example") for n in range(1)))
        perch.platform.people = dict.fromkeys([f"p{n}@x.example" for n in range(3)])
        perch.platform.known = {f"p{n}@x.example": n for n in range(3)}
        first = perch.connector.members("list_member", "12")
        second = perch.connector.members("list_member", "12", first.next)

        assert isinstance(perch.connector, Creates)
        assert isinstance(perch.connector, Describes)
        assert perch.connector.create_audience("list_member", "Lapsed") == "77"
        assert list(perch.connector.describe("list_member")) == [
            Field("score", "number", description="Score"), Field("city"),
        ]  # fmt: skip
    assert first.members[1] == Member({"email": "p1@x.example"}, "1")
    assert ([m.remote_id for m in second.members], second.next) == (["2"], None)


def test_what_no_object_of_a_manifest_says_the_connector_cannot_do() -> None:
    mosaic = CONNECTORS["mosaic"]

    assert not [what for what in (Creates, Describes, Polls, Reads) if issubclass(mosaic, what)]


def test_a_record_is_wrapped_as_its_template_says_and_lacks_what_it_lacks() -> None:
    with connect("larder") as larder:
        larder.push("profile", change("email", "a@x.example", first_name="A", plan="gold"))
        larder.push("profile", change("email", "b@x.example", Op.UPDATE))

    assert larder.platform.people == {
        "a@x.example": {"email": "a@x.example", "first_name": "A", "properties": {"plan": "gold"}},
        "b@x.example": {"email": "b@x.example"},
    }


def test_fields_become_names_and_values() -> None:
    with connect("onyx") as onyx:
        (receipt,) = onyx.push("person", change("email", "a@x.example", score=7, plan="gold"))

    custom = [{"source": "headgate", "name": "plan", "value": "gold"}]
    person = {"mail": "a@x.example", "score": 7, "custom": custom, "tags": ["list-12"]}
    assert onyx.platform.people == {"a@x.example": {"person": person}}
    assert receipt == Receipt("key-a@x.example", Status.APPLIED, remote_id="1000")


def test_the_reason_of_a_refusal_is_what_the_platform_says_and_not_all_of_its_answer() -> None:
    with connect("onyx") as onyx:
        onyx.platform.refusing = True
        (receipt,) = onyx.push("person", change("email", "add0@x.example"))

    assert (receipt.status, receipt.reason) == (Status.REJECTED, "no such country")


def test_a_job_lives_through_a_restart_and_its_errors_find_their_rows() -> None:
    batch = Batch("b1", "vip", "audience_member", "12", tuple(change("hashed_email", c * 64) for c in "abc"))
    with connect("kestrel") as first:
        first.platform.refusing = True
        job = first.connector.push(batch)
        revived = Job(job.id, dict(job.data), job.settled, job.poll_after)

        second = connect("kestrel", first.platform)
        polled = [second.connector.poll(revived, batch) for _ in range(3)]

    assert [type(one) for one in polled] == [Job, Job, list]
    assert [(r.status, r.reason) for r in polled[2]] == [
        (Status.REJECTED, "no match"), (Status.APPLIED, ""), (Status.APPLIED, ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("ends", "status"), [("FAILED", Status.REJECTED), ("CANCELLED", Status.UNKNOWN)])
def test_a_job_that_ends_badly_says_why_for_every_record(ends: str, status: Status) -> None:
    batch = Batch("b1", "vip", "audience_member", "12", tuple(change("hashed_email", c * 64) for c in "ab"))
    with connect("kestrel") as kestrel:
        kestrel.platform.state, kestrel.platform.ends = [], ends
        receipts = kestrel.connector.poll(kestrel.connector.push(batch), batch)

    assert [(r.status, r.reason) for r in receipts] == [(status, "it broke")] * 2


def test_a_state_the_manifest_does_not_know_decides_nothing() -> None:
    batch = Batch("b1", "vip", "audience_member", "12", (change("hashed_email", "a" * 64),))
    with connect("kestrel") as kestrel:
        kestrel.platform.state, kestrel.platform.ends = [], "RETIRED"

        with pytest.raises(ProtocolError, match="a state that the manifest does not know"):
            kestrel.connector.poll(kestrel.connector.push(batch), batch)


def test_instructions_say_each_op_once() -> None:
    with connect("tiller") as tiller:
        tiller.platform.people = {"old": None}
        tiller.push("segment_target", change("key", "a"), change("key", "b"), change("key", "old", Op.REMOVE))

    assert set(tiller.platform.people) == {"a", "b"}
    assert tiller.asked[0][2] == (
        '{"comment":"Headgate b1","instructions":[{"kind":"addTargets","values":["a","b"]},'
        '{"kind":"removeTargets","values":["old"]}]}'
    )


def test_a_form_repeats_its_key_or_joins_with_the_separator() -> None:
    with connect("mosaic") as mosaic:
        mosaic.push("subscriber", change("email", "a@x.example"), change("email", "b@x.example"))
        mosaic.push("subscriber", *(change("email", f"{n}@x.example", Op.REMOVE) for n in "ab"))
        bad = mosaic.push("subscriber", change("email", "c|d", Op.REMOVE), change("email", "e", Op.REMOVE))

    forms = [body for _, _, body in mosaic.asked]
    assert forms[0] == "list=12&silent=true&emails%5B%5D=a%40x.example&emails%5B%5D=b%40x.example"
    assert forms[1] == "list=12&emails=a%40x.example%7Cb%40x.example"
    assert [r.status for r in bad] == [Status.REJECTED, Status.APPLIED]
    assert "separator" in bad[0].reason


def test_an_entry_is_removed_by_the_id_it_is_found_with_and_nobody_is_made_for_it() -> None:
    with connect("rill") as rill:
        rill.push("entry", change("email", "a@x.example"))
        rill.push("entry", change("email", "a@x.example", Op.REMOVE), change("email", "b@x.example", Op.REMOVE))

    assert [(method, path) for method, path, _ in rill.asked] == [
        ("POST", "/contacts/sync"),
        ("POST", "/lists/12/entries"),
        ("GET", "/lists/12/entries?email=a%40x.example"),
        ("GET", "/lists/12/entries?email=b%40x.example"),
        ("DELETE", "/lists/12/entries/e1000"),
    ]
    assert rill.platform.people == {}


def test_a_whole_audience_is_sent_without_those_who_leave_it() -> None:
    with connect("sable") as sable:
        receipts = sable.push("segment", change("user_id", "a"), change("user_id", "b", Op.REMOVE))
        emptied = sable.push("segment", change("user_id", "a", Op.REMOVE))

    assert CONNECTORS["sable"].objects["segment"].delivery is Delivery.SNAPSHOT
    assert [json.loads(body)["constraint"]["values"] for _, _, body in sable.asked] == [["a"], []]
    assert [r.status for r in receipts + emptied] == [Status.APPLIED] * 3


def test_csv_has_the_columns_of_the_template_and_its_job_is_asked_about_where_the_answer_points() -> None:
    batch = Batch("b1", "vip", "contact", None, (change("email", "a@x.example", city='Bad "Ems", D'),))
    with connect("tern") as tern:
        job = tern.connector.push(batch)
        waiting = tern.connector.poll(job, batch)
        receipts = tern.connector.poll(waiting, batch)

    assert tern.asked[0] == ("POST", "/bulk/contacts.csv", 'EMAIL,CITY\r\na@x.example,"Bad ""Ems"", D"\r\n')
    assert tern.asked[1][:2] == ("GET", "/bulk/runs/5")
    assert [r.status for r in receipts] == [Status.APPLIED]


def test_numbers_alone_are_believed_where_they_fit_and_else_the_batch_is_cut() -> None:
    with connect("vireo") as vireo:
        good = vireo.push("member", change("email", "a"), change("email", "b"))
        vireo.platform.refusing = True
        with pytest.raises(RequestError, match="1 of 2 records and does not say which"):
            vireo.push("member", change("email", "add0"), change("email", "b"))

    assert [r.status for r in good] == [Status.ACCEPTED, Status.ACCEPTED]


CODES = [
    ("quill", 403, {"error": {"code": "SLOW_DOWN", "retry_in": 12}}, RateLimited, 12),
    ("quill", 400, {"error": {"code": 77}}, RateLimited, None),
    ("quill", 400, {"error": {"code": "TOKEN_OVER"}}, AuthError, None),
    ("quill", 400, {"error": {"code": "BUSY"}}, Unavailable, None),
    ("quill", 403, {"error": {"code": "OTHER"}}, AuthError, None),
    ("quill", 400, {"error": {"code": ["SLOW_DOWN"]}}, RequestError, None),
    ("wren", 200, {"code": 1302, "wait_until": 0}, RateLimited, 0),
    ("wren", 200, {"code": 1401}, AuthError, None),
    ("wren", 200, {"code": 1500}, Unavailable, None),
    ("wren", 200, {"code": 1600, "msg": "no"}, RequestError, None),
    ("wren", 200, {"code": False}, RequestError, None),
    ("wren", 200, [], ProtocolError, None),
]


@pytest.mark.parametrize(("name", "status", "body", "error", "seconds"), CODES)
def test_a_code_in_the_body_says_what_to_do_next(
    name: str, status: int, body: Any, error: type[Exception], seconds: float | None
) -> None:
    object = next(iter(CONNECTORS[name].objects))
    field = CONNECTORS[name].objects[object].identifiers[0].name
    with connect(name, lambda request: httpx.Response(status, json=body)) as it, pytest.raises(error) as raised:
        it.push(object, change(field, "a"))

    assert type(raised.value) is error
    assert getattr(raised.value, "retry_after", None) == seconds


def test_a_key_in_the_address_is_in_no_preview() -> None:
    with connect("mosaic") as mosaic:
        spec = CONNECTORS["mosaic"].manifest.objects["subscriber"]
        batch = Batch("b1", "vip", "subscriber", "12", (change("email", "a@x.example"),))
        preview = mosaic.connector.request(spec.action(Op.ADD), batch, batch.changes)

    assert "k3y" not in str(preview.url)


def test_another_address_is_an_option_of_every_manifest() -> None:
    kind = CONNECTORS["perch"]
    here = kind.config_model(token="t", base_url="http://127.0.0.1:9")
    there = kind.config_model(token="other", region="eu1")

    assert kind.base_url(here) == "http://127.0.0.1:9"
    assert kind.base_url(there) == "https://eu1.perch.example/v3"
    assert kind.account(here) != kind.account(kind.config_model(token="t2", base_url="http://127.0.0.1:9"))
    assert "other" not in kind.account(there)


# Planted bugs: each is a sound manifest with one mistake that a reader of the platform's pages could make.

BUGS = [
    ("quill", ", match = \"user_id\", identifier = \"value\"", "", "the others are applied"),
    ("larder", 'index = "source.pointer"', 'index = "source.pointr"', "a rejected record has a reason"),
    ("umber", "keyed = true, base = 1", "keyed = true, base = 0", "a rejected record has a reason"),
    ("perch", 'applied = "removed"', 'applied = "taken_out"', "exactly one receipt"),
    ("perch", 'record = "{remote_id:integer}"', 'record = "{remote_id}"', "exactly one receipt"),
    ("perch", 'identifier = "email"\nid', 'identifier = "mail"\nid', "exactly one receipt"),
    ("perch", 'at = "paging.next"', 'at = "paging.nxt"', "who was added is read back"),
    ("perch", 'members = "filter.email.in"', 'members = "filter.email"', "exactly one receipt"),
    ("mosaic", 'unlist.php"\nplace = "form"', 'unlist.php"\nplace = "json"', "exactly one receipt"),
    ("mosaic", 'bodies = ["1"]', 'success = { at = "" }', None),
    ("kestrel", 'done = ["DONE"]', 'done = ["FINISHED"]', "exactly one receipt"),
    ("kestrel", 'running = ["QUEUED", "WORKING"]', 'running = ["QUEUED"]', "exactly one receipt"),
    ("kestrel", 'index = "row", base = 1', 'index = "row", base = 0', "a rejected record has a reason"),
    ("rill", ", success = { at = \"entry_id\" } }", " }", "exactly one"),
    ("onyx", "gone = [404]", "gone = [404, 422]", "a rejected record has a reason"),
    ("onyx", 'success = { at = "person.id" }', 'success = { at = "persn.id" }', "exactly one receipt"),
    ("tern", 'header = "Location"', 'id = "job"', "exactly one receipt"),
    ("tiller", 'success = { at = "_version" }', 'statuses = [200]', "exactly one receipt"),
    ("sable", 'plain_success = ["empty"]', "", "exactly one receipt"),
    ("wren", "good = [0]", "good = [0, 1600]", "a rejected record has a reason"),
    ("vireo", 'taken = "data.change.received"', 'taken = "data.change.recieved"', "exactly one receipt"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "old", "new", "sentence"), BUGS, ids=[f"{bug[0]}-{n}" for n, bug in enumerate(BUGS)]
)
def test_a_mistake_in_a_manifest_is_caught(name: str, old: str, new: str, sentence: str | None) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    assert old in text
    if sentence is None:
        with pytest.raises(ProjectError):
            read_manifest(text.replace(old, new), name)
        return
    kind = make(read_manifest(text.replace(old, new), name))
    shared = {"connector": kind, "config": options(name)}
    bitten = type("Planted", (Refusing if name in ALL_OR_NOTHING else Shape,), shared)

    found = [r for r in run(bitten, Only(sentence)) if r.ok is False]

    assert found


class Refusing(Shape):
    """One whose platform refuses the first even where it then refuses all."""

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        self.platform.refusing = True
        return self.platform(request)


class Only:
    """The checks whose sentence has these words."""

    def __init__(self, words: str) -> None:
        self.words = words

    def __contains__(self, sentence: object) -> bool:
        return self.words in str(sentence)
