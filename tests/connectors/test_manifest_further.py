"""What real platforms wanted of manifests beyond the first shapes: said in TOML, and tried on invented ones."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from sync.errors import ProjectError, ProtocolError, RateLimited, RequestError
from sync.sdk.manifest.making import make
from sync.sdk.manifest.reading import read_manifest
from sync.sdk.manifest.text import dig, put, render
from sync.sdk.nouns import Batch, Job, Op, Receipt, Status
from sync.testing.contract import run
from tests.connectors.test_manifest_shapes import FOLDER, Only, Shape, change, connect, options


def test_whom_a_lookup_does_not_find_is_made_and_whom_the_platform_refuses_is_rejected() -> None:
    with connect("heron") as heron:
        heron.platform.id_of("old@x.example")
        heron.platform.refusing = True
        receipts = heron.push(
            "tagged",
            change("email", "old@x.example"),
            change("email", "new@x.example", since="2026-01-01T00:00:00Z"),
            change("email", "add0@x.example"),
        )
        gone = heron.push("tagged", change("email", "nobody@x.example", Op.REMOVE))

    assert [(r.status, r.reason, r.remote_id) for r in receipts] == [
        (Status.APPLIED, "", "1000"), (Status.APPLIED, "", "1001"), (Status.REJECTED, "no such domain", None),
    ]  # fmt: skip
    assert heron.platform.people["new@x.example"] == {"tags": {"list-12": "1"}, "since": 1767225600}
    assert [r.status for r in gone] == [Status.APPLIED]
    assert "nobody@x.example" not in heron.platform.known


def test_a_person_whom_the_platform_refuses_to_look_up_does_not_stop_the_others() -> None:
    bad = httpx.Response(422, json={"error": "no such domain"})
    with connect("rill") as rill:
        wire = rill.platform

        def answer(request: httpx.Request) -> httpx.Response:
            return bad if b"bad@" in request.content else wire(request)

        with connect("rill", answer) as picky:
            receipts = picky.push("entry", change("email", "bad@x.example"), change("email", "a@x.example"))

    assert [r.status for r in receipts] == [Status.REJECTED, Status.APPLIED]
    assert "no such domain" in receipts[0].reason


PAGES = 'pages = { kind = "cursor", at = "next", param = "page.after", place = "json" }'


@pytest.mark.parametrize("first", [True, False], ids=["known on the second page", "known twice"])
def test_a_lookup_goes_on_to_the_last_page(first: bool) -> None:
    text = (FOLDER / "perch.toml").read_text().replace("size = 100", f"{PAGES}\nsize = 100")
    asked: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        if "filter" not in asked[-1]:
            return httpx.Response(200, json={"added": [{"id": 2}], "refused": []})
        if "page" in asked[-1]:
            return httpx.Response(200, json={"contacts": [{"id": 2, "email": "b"}]})
        return httpx.Response(200, json={"contacts": [{"id": 1, "email": "a" if first else "b"}], "next": "x"})

    with connect("perch", answer) as perch:
        connector = make(read_manifest(text, "perch.toml"))(perch.connector.config, perch.client)
        (receipt,) = connector.push(Batch("b1", "vip", "list_member", "12", (change("email", "b"),)))

    assert asked[1] == {**asked[0], "page": {"after": "x"}}
    assert receipt.status is (Status.APPLIED if first else Status.DEFERRED)


def test_a_lookup_without_end_is_given_up() -> None:
    text = (FOLDER / "perch.toml").read_text().replace("size = 100", f"{PAGES}\nsize = 100")
    page = {"contacts": [], "next": "x"}
    with connect("perch", lambda request: httpx.Response(200, json=page)) as perch:
        connector = make(read_manifest(text, "perch.toml"))(perch.connector.config, perch.client)
        with pytest.raises(ProtocolError, match="more than 100 pages"):
            connector.push(Batch("b1", "vip", "list_member", "12", (change("email", "b", Op.REMOVE),)))


def test_an_answer_without_a_body_proves_success_where_its_status_does() -> None:
    with connect("heron") as heron:
        first = heron.push("tagged", change("email", "a@x.example"))
        again = heron.push("tagged", change("email", "a@x.example"))

    assert [r.status for r in first + again] == [Status.APPLIED] * 2


def test_the_next_page_is_asked_for_in_the_body() -> None:
    with connect("heron") as heron:
        heron.platform.people = {f"p{n}@x.example": None for n in range(3)}
        first = heron.connector.members("tagged", "12")
        second = heron.connector.members("tagged", "12", first.next)

    assert [json.loads(body)["page"] for _, _, body in heron.asked] == [{"size": 2}, {"size": 2, "after": "2"}]
    assert [m.identifiers["email"] for m in (*first.members, *second.members)] == list(heron.platform.people)
    assert second.next is None


def test_rows_are_told_by_the_key_that_was_sent_and_some_are_sent_again_later() -> None:
    with connect("brant") as brant:
        brant.platform.refusing = True
        receipts = brant.push("group_member", change("email", "add0@x/y"), change("email", "b@x/y"))
        brant.platform.busy = True
        waiting = brant.push("group_member", change("email", "b@x/y", Op.REMOVE))

    assert [(r.status, r.reason) for r in receipts] == [
        (Status.REJECTED, "not of this organisation"), (Status.APPLIED, ""),
    ]  # fmt: skip
    assert brant.platform.people == {"b@x/y": None}
    assert [(r.status, r.reason) for r in waiting] == [(Status.DEFERRED, "status: 429")]
    sent = json.loads(brant.asked[0][2])["requests"][1]
    assert sent["url"] == "/groups/12/members/b%40x%2Fy"
    assert sent["body"] == {"@list.type": "person"}


def test_a_key_with_a_dot_in_it_leads_to_the_next_page() -> None:
    with connect("brant") as brant:
        brant.platform.people = dict.fromkeys("abc")
        first = brant.connector.members("group_member", "12")
        second = brant.connector.members("group_member", "12", first.next)

    assert [m.identifiers["email"] for m in (*first.members, *second.members)] == ["a", "b", "c"]


def test_a_good_status_with_a_refusal_is_a_refusal_wherever_it_comes() -> None:
    answers: dict[str, Any] = {"replyCode": 3007, "replyText": "no such field"}
    with connect("sorrel", lambda request: httpx.Response(200, json=answers)) as sorrel:
        for ask in (
            lambda: sorrel.push("contact", change("email", "a")),
            lambda: sorrel.connector.create_audience("contact", "Lapsed"),
            sorrel.connector.check,
        ):
            with pytest.raises(RequestError) as raised:
                ask()
            assert raised.value.detail == "no such field"
        answers["replyCode"] = 42
        with pytest.raises(RateLimited):
            sorrel.connector.check()


def test_an_object_with_nothing_in_it_may_come_as_a_list() -> None:
    with connect("sorrel") as sorrel:
        receipts = sorrel.push("contact", change("email", "a"), change("email", "b"))
        gone = sorrel.push("contact", change("email", "a", Op.REMOVE), change("email", "b,c", Op.REMOVE))

    assert [r.status for r in receipts] == [Status.APPLIED] * 2
    assert [r.status for r in gone] == [Status.APPLIED, Status.REJECTED]
    assert "separator" in gone[1].reason
    assert [body for _, _, body in sorrel.asked] == ['{"contacts":[{"ids":["a","b"]}]}', '{"emails":"a"}']


def test_a_file_in_a_form_is_the_same_request_twice_and_its_rows_are_told_by_number() -> None:
    batch = Batch("b1", "vip", "lead", None, (change("email", "add0", city="Ems"), change("email", "b")))
    with connect("garnet") as garnet:
        spec = garnet.connector.manifest.objects["lead"]
        one, two = (garnet.connector.request(spec.action(Op.ADD), batch, batch.changes) for _ in range(2))
        garnet.platform.refusing = True
        job = garnet.connector.push(batch)
        waiting = garnet.connector.poll(job, batch)
        receipts = garnet.connector.poll(waiting, batch)

    assert (one.content, one.headers["content-type"]) == (two.content, two.headers["content-type"])
    assert isinstance(waiting, Job)
    assert receipts == [
        Receipt("key-add0", Status.REJECTED, "no box"), Receipt("key-b", Status.APPLIED, remote_id="1001"),
    ]  # fmt: skip


def test_a_mutation_that_is_refused_says_why() -> None:
    with connect("osprey") as osprey:
        osprey.platform.refusing = True
        receipts = osprey.push("tagged", change("email", "add0"), change("email", "b"))

    assert receipts == [
        Receipt("key-add0", Status.REJECTED, "the customer is locked"),
        Receipt("key-b", Status.APPLIED, remote_id="c1000"),
    ]


def test_a_status_of_refusals_that_the_manifest_reads_can_be_that_of_another_refusal() -> None:
    text = (FOLDER / "quill.toml").read_text()
    answer = httpx.Response(400, json={"error": {"message": "no such list"}})
    kind = make(read_manifest(text.replace('kind = "rows"', 'kind = "rows", statuses = [400]'), "quill.toml"))
    with connect("quill", lambda request: answer) as quill:
        connector = kind(quill.connector.config, quill.client)
        with pytest.raises(RequestError, match="answered 400"):
            connector.push(Batch("b1", "vip", next(iter(kind.objects)), "12", (change("user_id", "a"),)))


# Paths and templates


@pytest.mark.parametrize(
    ("body", "path", "made"),
    [
        ({}, "a.b", {"a": {"b": 7}}),
        ({"a": {"c": 1}}, "a.b", {"a": {"c": 1, "b": 7}}),
        ({"a": [{"c": 1}]}, "a.0.b", {"a": [{"c": 1, "b": 7}]}),
        ({}, "a.0.b", {"a": [{"b": 7}]}),
        ({"a": [1]}, "a.1", {"a": [1, 7]}),
        ({}, r"a\.b.c", {"a.b": {"c": 7}}),
    ],
)
def test_members_are_put_where_the_path_says(body: Any, path: str, made: Any) -> None:
    put(body, path, 7)

    assert body == made
    assert dig(body, path) == 7


def test_there_is_no_place_in_a_list_beyond_its_end() -> None:
    with pytest.raises(RequestError, match="has no place '3'"):
        put({"a": [1]}, "a.3", 7)


@pytest.mark.parametrize(
    ("template", "value", "made"),
    [
        ("{x:epoch_s}", "2026-01-01", 1767225600),
        ("{x:epoch_s}", "2026-01-01T01:00:00+01:00", 1767225600),
        ("{x:epoch_ms}", "1969-12-31T23:59:59.5Z", -500),
        ("{x:epoch_s}", None, None),
        ("{x:integer}", "12", 12),
        ("/p/{x:segment}", "a/b c", "/p/a%2Fb%20c"),
        ({"{x}": 1}, "vip", {"vip": 1}),
    ],
)
def test_a_placeholder_makes_of_a_value_what_stands_behind_its_colon(template: Any, value: Any, made: Any) -> None:
    assert render(template, {"x": value}) == made


@pytest.mark.parametrize("value", ["", "soon", "2026-13-01"])
def test_what_is_no_time_is_no_second_either(value: str) -> None:
    with pytest.raises(RequestError, match="the x has to be a date or a time"):
        render("{x:epoch_s}", {"x": value})


# Mistakes

MISTAKES = [
    ("heron", "{since:epoch_s}", "{since:iso}", "the colon stands `integer`, `epoch_s`, `epoch_ms` or `segment`"),
    ("heron", '{ "list-{audience}" = "1" }', '{ "list-{list}" = "1" }', "nothing is called '{list}'"),
    ("heron", '{ email = "{email}" }, id', '{ email = "{mail}" }, id', "'{mail}'; did you mean 'email'"),
    ("heron", "proven = [204]", "proven = [200]", "a 200 without a body proves nothing"),
    ("brant", 'match = "key", identifier = "id"', 'match = "key"', "`identifier` is missing"),
    ("brant", 'prefix = "Brant', 'prefixes = "Brant', "auth.prefixes: unknown key"),
    ("sorrel", 'keyed = true, match = "email", status', "keyed = true, status", "`match` is missing"),
    ("sorrel", 'style = "joined"', 'style = "repeated"', "JSON has lists"),
    ("garnet", 'file = "upload"\n', "", "a body of lines has no constants"),
    ("garnet", "EMAIL =", '"{email}" =', "the names of columns are constants"),
    ("garnet", 'index = "row"', 'match = "email", identifier = "e", index = "row"', "by `index` or by `match`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "old", "new", "message"), MISTAKES, ids=[f"{m[0]}-{n}" for n, m in enumerate(MISTAKES)]
)
def test_a_mistake_says_what_and_where(name: str, old: str, new: str, message: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    assert old in text
    with pytest.raises(ProjectError) as raised:
        read_manifest(text.replace(old, new), f"{name}.toml")

    assert any(message in problem.message for problem in raised.value.problems)


BUGS = [
    ("heron", 'nobody = "error"\n', "", "exactly one receipt"),
    ("heron", ", proven = [204]", "", "the same batch twice"),
    ("heron", 'param = "page.after"', 'param = "after"', "who was added is read back"),
    ("brant", "{email:segment}", "{email}", "exactly one receipt"),
    ("brant", r"'@list\.next'", '"@list.next"', "who was added is read back"),
    ("brant", ', prefix = "Brant-Token "', "", "exactly one receipt"),
    ("sorrel", '"data.errors"], keyed = true', '"data.errors"]', "a rejected record has a reason"),
    ("garnet", "base = 1", "base = 0", "a rejected record has a reason"),
    ("osprey", "data.tag.problems.0.message", "data.tag.problem.0.message", "a rejected record has a reason"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "sentence"), BUGS, ids=[f"{b[0]}-{n}" for n, b in enumerate(BUGS)])
def test_a_bug_in_a_manifest_is_caught_by_the_kit(name: str, old: str, new: str, sentence: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    assert old in text
    kind = make(read_manifest(text.replace(old, new), name))
    bitten = type("Planted", (Shape,), {"connector": kind, "config": options(name)})

    assert [r for r in run(bitten, Only(sentence)) if r.ok is False]
