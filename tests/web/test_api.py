"""The API against a real project: what it tells, what it lets one ask for, and whom it lets do what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.cli.app import run
from sync.operators.client import Client as Operator
from sync.operators.client import why_not
from sync.state.nouns import RunRequest
from sync.web.callers import Failures
from sync.web.describe import text
from tests.acceptance.faults import poison_records
from tests.acceptance.sink import Sink, running
from tests.web.conftest import SYNC, Api, Client, served

EVERYTHING = ("read", "run", "approve", "samples")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """A project with a held plan, for tests that decide nothing."""
    folder = tmp_path_factory.mktemp("shared")
    with running(folder / "sink.jsonl") as sink, served(folder, sink, Failures(most=10**6)) as made:
        held(made, made.client(*EVERYTHING))
        yield made


def held(api: Api, client: Client) -> dict[str, Any]:
    """The first run of a sync is held: ask for it, and give its plan."""
    assert client.post(f"/syncs/{SYNC}/runs").status_code == 202
    api.work()
    (plan,) = client.get("/plans", status="held").json()["items"]
    return dict(plan)


def the_plan(client: Client) -> dict[str, Any]:
    """The plan of `shared`, which stays held."""
    (plan,) = client.get("/plans", status="held").json()["items"]
    return dict(plan)


def refused(answer: Any, status: int, code: str) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"urn:headgate:{code}"
    assert problem["status"] == status
    return problem


def test_a_run_is_asked_for_held_approved_and_delivered(api: Api, sink: Sink) -> None:
    client = api.client(*EVERYTHING, name="airflow")

    asked = client.post(f"/syncs/{SYNC}/runs", {"reason": "the nightly load is done"})
    assert asked.status_code == 202
    request = asked.json()
    assert request["status"] == "waiting"
    assert client.http.get(asked.headers["Location"].removeprefix("/api/v1")).json() == request
    api.work()
    ended = client.get(f"/syncs/{SYNC}/requests/{request['id']}").json()
    assert (ended["status"], ended["report"]["status"], ended["report"]["exit_code"]) == ("ended", "held", 3)
    assert [v["guardrail"] for v in ended["report"]["held"]] == ["first_run"]
    assert client.get(f"/syncs/{SYNC}").json()["health"] == "held"

    plan = client.get(f"/plans/{ended['report']['plan']}").json()
    assert plan["counts"]["add"] == 40
    assert sink.members == {}
    decided = client.post(f"/plans/{plan['plan']}/approve", {"digest": plan["digest"], "reason": "looked at it"})
    assert (decided.status_code, decided.json()["status"]) == (200, "approved")
    api.work()

    assert len(sink.members) == 40
    newest, first = client.get("/runs", sync=SYNC).json()["items"]
    assert (newest["status"], newest["trigger"], newest["actor"]) == ("completed", "approval", "token:airflow")
    assert newest["counts"]["applied"] == 40
    assert first["status"] == "held"
    assert client.get(f"/runs/{newest['run']}").json() == newest
    assert client.get(f"/plans/{plan['plan']}").json()["status"] == "executed"
    assert api.actions("run.requested", "plan.approve") == [
        ("token:airflow", SYNC, {"request": request["id"], "reason": "the nightly load is done"}),
        (
            "token:airflow",
            plan["plan"],
            {"sync": SYNC, "digest": plan["digest"], "reason": "looked at it", "remove": 0},
        ),
    ]


def test_a_plan_is_asked_for_and_nothing_is_sent(api: Api, sink: Sink) -> None:
    client = api.client("read", "run")

    request = client.post(f"/syncs/{SYNC}/plans").json()
    api.work()
    ended = client.get(f"/syncs/{SYNC}/requests/{request['id']}").json()

    assert (ended["kind"], ended["report"]["status"], ended["report"]["add"]) == ("plan", "held", 40)
    assert client.get("/runs").json() == {"items": [], "next": None}
    assert sink.count == 0


def test_a_plan_is_turned_down_with_a_reason(api: Api) -> None:
    client = api.client(*EVERYTHING)
    plan = held(api, client)
    decision = {"digest": plan["digest"], "reason": "the load was half done"}

    answer = client.post(f"/plans/{plan['plan']}/reject", decision)
    again = client.post(f"/plans/{plan['plan']}/reject", decision)

    assert answer.json()["status"] == "rejected"
    assert [a["reason"] for a in answer.json()["approvals"]] == ["the load was half done"]
    assert (again.status_code, again.json()) == (200, answer.json())
    refused(client.post(f"/plans/{plan['plan']}/approve", decision), 409, "HG502")


def test_an_approval_that_is_repeated_asks_for_a_run_where_none_is_to_come(api: Api, sink: Sink) -> None:
    client = api.client(*EVERYTHING)
    plan = held(api, client)
    decision = {"digest": plan["digest"], "reason": "looked at it"}
    client.post(f"/plans/{plan['plan']}/approve", decision)
    (asked,) = api.ledger.requests()
    api.ledger.take_request(SYNC, asked.slot)
    api.ledger.answer_requests(SYNC, [asked.slot], {"status": "failed", "exit_code": 1})

    again = [client.post(f"/plans/{plan['plan']}/approve", decision).json() for _ in range(2)]

    assert [one["status"] for one in again] == ["approved", "approved"]
    assert [request.why for request in api.ledger.requests()] == ["approval"]
    api.work()
    assert len(sink.members) == 40


def test_a_decision_is_for_the_digest_that_was_looked_at(shared: Api) -> None:
    client = shared.client(*EVERYTHING)
    plan = the_plan(client)

    refused(client.post(f"/plans/{plan['plan']}/approve", {"digest": "0" * 64, "reason": "fine"}), 409, "HG811")
    assert client.get(f"/plans/{plan['plan']}").json()["status"] == "held"


def test_whoever_the_mapping_does_not_name_may_not_approve(api: Api) -> None:
    api.project.more = "    guardrails: { approve: { by: [bob@acme.example] } }\n"
    api.project.write()
    api.daemon.clock.read()
    client = api.client(*EVERYTHING)
    plan = held(api, client)

    refused(
        client.post(f"/plans/{plan['plan']}/approve", {"digest": plan["digest"], "reason": "fine"}), 403, "HG506"
    )


def test_two_tokens_of_one_person_are_not_two_persons(api: Api) -> None:
    client, other, third = (
        api.client(*EVERYTHING, actor=who) for who in ("ana@acme.example", "ana@acme.example", "bob@acme.example")
    )
    plan = held(api, client)
    with api.ledger._db.write() as connection:
        connection.exec_driver_sql("UPDATE plan SET needs = 2")
    decision = {"digest": plan["digest"], "reason": "fine"}

    assert client.post(f"/plans/{plan['plan']}/approve", decision).json()["status"] == "held"
    refused(other.post(f"/plans/{plan['plan']}/approve", decision), 403, "HG507")
    assert third.post(f"/plans/{plan['plan']}/approve", decision).json()["status"] == "approved"


def test_records_are_shown_to_those_who_may_with_a_reason_and_it_is_kept(shared: Api) -> None:
    client, blind = shared.client(*EVERYTHING, name="crm"), shared.client("read", "run", "approve")
    plan = the_plan(client)["plan"]

    shown = client.post(f"/plans/{plan}/samples", {"reason": "a complaint, ticket 8123", "per_op": 2}).json()

    assert [s["op"] for s in shown["samples"]] == ["add", "add"]
    assert "@mail.example" in shown["samples"][0]["fields"]["email"]
    assert [one for one in shared.actions("plan.revealed") if one[0] == "token:crm"] == [
        ("token:crm", plan, {"reason": "a complaint, ticket 8123", "records": 2})
    ]
    refused(blind.post(f"/plans/{plan}/samples", {"reason": "curious"}), 403, "HG805")
    for path in ("/plans", f"/plans/{plan}", "/runs", "/syncs", f"/syncs/{SYNC}/rejected"):
        assert "@mail.example" not in client.get(path).text


def test_the_same_key_gives_the_same_request_and_another_body_is_refused(api: Api) -> None:
    client, other = api.client("read", "run"), api.client("read", "run")

    first = client.post(f"/syncs/{SYNC}/runs", {"reason": "a"}, key="task-1")
    second = client.post(f"/syncs/{SYNC}/runs", {"reason": "a"}, key="task-1")
    problem = client.post(f"/syncs/{SYNC}/runs", {"reason": "b"}, key="task-1")
    kind = client.post(f"/syncs/{SYNC}/plans", {"reason": "a"}, key="task-1")

    assert first.json() == second.json()
    assert first.headers["Location"] == second.headers["Location"]
    refused(problem, 422, "HG807")
    refused(kind, 422, "HG807")
    assert other.post(f"/syncs/{SYNC}/runs", {"reason": "a"}, key="task-1").json()["id"] != first.json()["id"]
    assert len(api.ledger.requests()) == 2
    api.work()
    assert client.post(f"/syncs/{SYNC}/runs", {"reason": "a"}, key="task-1").json()["status"] == "ended"


def test_a_request_is_withdrawn_until_its_run_has_begun(api: Api, sink: Sink) -> None:
    client, reader = api.client("read", "run", name="airflow"), api.client("read")
    first, second = (client.post(f"/syncs/{SYNC}/runs").json()["id"] for _ in range(2))
    path = f"/syncs/{SYNC}/requests/{first}"

    refused(reader.post(f"{path}/withdraw"), 403, "HG805")
    withdrawn, again = client.post(f"{path}/withdraw", {"reason": "not today"}), client.post(f"{path}/withdraw")

    assert (withdrawn.status_code, withdrawn.json()["status"], again.json()) == (200, "ended", withdrawn.json())
    assert why_not(withdrawn.json()["report"]) == "the request was withdrawn before its run began"
    assert client.get(path).json() == withdrawn.json()
    assert [request.slot for request in api.ledger.requests()] == [second]
    assert api.actions("request.withdrawn") == [("token:airflow", SYNC, {"request": first, "reason": "not today"})]
    api.work()
    refused(client.post(f"/syncs/{SYNC}/requests/{second}/withdraw"), 409, "HG817")
    refused(client.post(f"/syncs/{SYNC}/requests/api-0/withdraw"), 404, "HG806")


def test_an_operator_withdraws_what_it_asked_for(api: Api) -> None:
    operator = Operator(api.url, api.token("read", "run"))
    request = operator.ask(SYNC, key="try-1", reason="the load is done")

    operator.withdraw(SYNC, request, reason="the task was ended")

    assert api.ledger.requests() == []
    assert operator.ask(SYNC, key="try-1", reason="the load is done") == request
    assert operator.wait(SYNC, request, every=0.01, timeout=10)["withdrawn"]


def test_pausing_and_resuming_say_why_and_a_paused_sync_is_not_asked_for(shared: Api) -> None:
    client = shared.client("read", "run", name="ops")

    paused = client.post(f"/syncs/{SYNC}/pause", {"reason": "the CRM is being moved"}).json()
    refused(client.post(f"/syncs/{SYNC}/runs"), 409, "HG525")
    assert client.get(f"/syncs/{SYNC}").json()["activity"] == "paused"
    resumed = client.post(f"/syncs/{SYNC}/resume", {"reason": "it is moved"}).json()

    assert paused == {"sync": SYNC, "paused": "the CRM is being moved"}
    assert resumed == {"sync": SYNC, "paused": None}
    assert client.post(f"/syncs/{SYNC}/runs").status_code == 202
    told = [one for one in shared.actions("sync.paused", "sync.resumed") if one[0] == "token:ops"]
    assert told == [
        ("token:ops", SYNC, {"reason": "the CRM is being moved"}),
        ("token:ops", SYNC, {"was": "the CRM is being moved", "reason": "it is moved"}),
    ]


def test_a_disabled_sync_is_shown_and_not_run(api: Api) -> None:
    api.project.more = "    disabled: true\n"
    api.project.write()
    api.daemon.clock.read()
    client = api.client("read", "run")

    assert client.get(f"/syncs/{SYNC}").json()["health"] == "disabled"
    refused(client.post(f"/syncs/{SYNC}/runs"), 409, "HG193")


def test_rejected_records_are_counted_and_not_quoted(api: Api, sink: Sink) -> None:
    sink.faults = (poison_records({3, 4, 5}, 207),)
    client = api.client(*EVERYTHING)
    plan = held(api, client)
    client.post(f"/plans/{plan['plan']}/approve", {"digest": plan["digest"], "reason": "fine"})
    api.work()

    assert client.get(f"/syncs/{SYNC}/rejected").json() == {
        "sync": SYNC,
        "count": 3,
        "given_up": 0,
        "groups": [{"code": "rejected", "op": "add", "count": 3}],
    }
    assert client.get(f"/syncs/{SYNC}").json()["rejected"] == 3


def test_the_list_of_syncs_is_what_status_says(shared: Api, capsys: pytest.CaptureFixture[str]) -> None:
    client = shared.client(*EVERYTHING)
    the_plan(client)

    capsys.readouterr()
    run(["status", "--json", "--project", str(shared.project.root)])
    (of_status,) = json.loads(capsys.readouterr().out)["syncs"]
    shown = client.get("/syncs").json()
    (item,) = shown["items"]
    assert shown["next"] is None
    assert item | {"freshness": 0} == of_status | {"freshness": 0}


def test_lists_come_in_pages(api: Api) -> None:
    client = api.client(*EVERYTHING)
    for _ in range(3):
        client.post(f"/syncs/{SYNC}/runs")
        api.work()
    every = [run["run"] for run in client.get("/runs").json()["items"]]

    seen, cursor = [], None
    for _ in range(2):
        page = client.get("/runs", limit=2, **({"before": cursor} if cursor else {})).json()
        seen += [run["run"] for run in page["items"]]
        cursor = page["next"]

    assert len(every) == 3
    assert (seen, cursor) == (every, None)
    assert client.get("/runs", sync="other").json() == {"items": [], "next": None}


# --- whom it lets do what ---------------------------------------------------------------------------------------

NEEDS = [
    ("GET", "/syncs", "read"),
    ("GET", f"/syncs/{SYNC}", "read"),
    ("GET", f"/syncs/{SYNC}/rejected", "read"),
    ("GET", f"/syncs/{SYNC}/requests/api-1", "read"),
    ("POST", f"/syncs/{SYNC}/requests/api-1/withdraw", "run"),
    ("GET", "/runs", "read"),
    ("GET", "/runs/r1", "read"),
    ("GET", "/plans", "read"),
    ("GET", "/plans/p1", "read"),
    ("POST", f"/syncs/{SYNC}/runs", "run"),
    ("POST", f"/syncs/{SYNC}/plans", "run"),
    ("POST", f"/syncs/{SYNC}/pause", "run"),
    ("POST", f"/syncs/{SYNC}/resume", "run"),
    ("POST", "/plans/p1/approve", "approve"),
    ("POST", "/plans/p1/reject", "approve"),
    ("POST", "/plans/p1/samples", "samples"),
]


def test_every_address_needs_a_token_with_its_scope(shared: Api) -> None:
    body = {"reason": "because", "digest": "0" * 64}
    clients, nobody = {scope: shared.client(scope) for scope in EVERYTHING}, shared.client()
    described = {
        (method.upper(), path)
        for path, operations in nobody.get("/openapi.json").json()["paths"].items()
        for method in operations
    }
    assert len(described) == len(NEEDS)

    for method, path, scope in NEEDS:
        sent = (
            None
            if method == "GET"
            else {k: v for k, v in body.items() if k == "reason" or "approve" in path or "reject" in path}
        )
        for given, client in clients.items():
            answer = client.http.request(method, path, json=sent)
            assert (answer.status_code == 403) == (given != scope), (path, given, answer.text)
        refused(nobody.http.request(method, path, json=sent), 401, "HG804")


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer hg_x", "Basic aGc6eA==", "hg_1234", "Bearer é"])
def test_what_is_no_token_is_refused_without_saying_why(api: Api, given: str) -> None:
    header = {"Authorization": given.encode()}
    answer = api.client().http.get("/syncs", headers=header)

    problem = refused(answer, 401, "HG804")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert problem["detail"] == "no valid token"


def test_revoked_and_expired_tokens_are_refused_in_the_same_words(shared: Api) -> None:
    expired, revoked = shared.client("read", ttl=-1.0), shared.client("read", name="gone")
    shared.ledger.access.revoke("gone", actor="ana", reason="rotated")
    unknown = Client(shared.url, f"hg_{'0' * 8}_{'x' * 43}")
    shared.clients.append(unknown)

    answers = {client.get("/syncs").text for client in (expired, revoked, unknown, shared.client())}

    assert len(answers) == 1


@pytest.mark.parametrize(
    ("selector", "sees"),
    [("sink-*", True), (SYNC, True), ("destination:sink", True), ("owner:lifecycle@acme.example", True),
     ("other-*", False), ("destination:crm", False), ("tag:x", False)],
)  # fmt: skip
def test_a_token_sees_its_syncs_and_nothing_of_the_others(shared: Api, selector: str, sees: bool) -> None:
    everything = shared.client(*EVERYTHING)
    plan, run_ = (everything.get(path).json()["items"][0] for path in ("/plans", "/runs"))
    shared.ledger.request_run(RunRequest("retired", "api-1", "api", "ana", 0.0))
    client = shared.client(*EVERYTHING, syncs=[selector])

    for path in ("/syncs", "/runs", "/plans"):
        assert bool(client.get(path).json()["items"]) is sees
    paths = [f"/syncs/{SYNC}", f"/syncs/{SYNC}/rejected", f"/runs/{run_['run']}", f"/plans/{plan['plan']}"]
    assert {client.get(path).status_code for path in paths} == {200 if sees else 404}
    asked = client.post(f"/syncs/{SYNC}/runs").status_code
    decided = client.post(f"/plans/{plan['plan']}/reject", {"digest": "0" * 64, "reason": "because"})
    assert (asked, decided.status_code) == ((202, 409) if sees else (404, 404))
    assert client.get("/syncs/retired/requests/api-1").status_code == 404


def test_a_token_is_not_told_by_the_next_page_of_what_it_may_not_see(api: Api) -> None:
    everything, small = api.client(*EVERYTHING), api.client("read", syncs=["other-*"])
    for _ in range(2):
        held(api, everything)

    for path in ("/runs", "/plans"):
        for query in ({"sync": SYNC}, {"sync": "no-such-sync"}, {}):
            assert small.get(path, limit=1, **query).json() == {"items": [], "next": None}
    assert everything.get("/runs", limit=1).json()["next"]


def test_wrong_tokens_are_counted_by_address_and_valid_ones_still_work(api: Api) -> None:
    good, bad = api.client("read"), api.client()

    answers = [bad.get("/syncs") for _ in range(30)]

    assert [a.status_code for a in answers[:20]] == [401] * 20
    refused(answers[-1], 429, "HG809")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 4
    assert good.get("/syncs").status_code == 200


def test_failures_are_forgotten_with_time_and_kept_for_so_many_addresses() -> None:
    now = [0.0]
    failures = Failures(most=2, each=10.0, clock=lambda: now[0])

    assert [failures.count("a") for _ in range(4)] == [0.0, 0.0, 10.0, 10.0]
    assert failures.count("b") == 0.0
    now[0] = 35.0
    assert failures.count("a") == 0.0
    for number in range(5000):
        failures.count(str(number))
    assert len(failures._full_at) <= 1024


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/syncs/{SYNC}/pause", {"reason": ""}),
        (f"/syncs/{SYNC}/pause", {"reason": " \t  "}),
        (f"/syncs/{SYNC}/pause", {"reason": "..."}),
        (f"/syncs/{SYNC}/pause", {}),
        (f"/syncs/{SYNC}/runs", {"reasn": "person1@mail.example"}),
        (f"/syncs/{SYNC}/runs", ["person1@mail.example"]),
        ("/plans/p1/approve", {"digest": "person1@mail.example", "reason": "because"}),
        ("/syncs/No%20Such/runs", None),
    ],
)
def test_what_does_not_fit_is_named_and_never_quoted(shared: Api, path: str, body: Any) -> None:
    problem = refused(shared.client(*EVERYTHING).post(path, body), 422, "HG803")

    assert problem["errors"]
    assert "person1" not in str(problem)


def test_no_token_and_no_person_is_in_the_log(api: Api, capfd: pytest.CaptureFixture[str]) -> None:
    client = api.client(*EVERYTHING)
    token = client.http.headers["Authorization"].removeprefix("Bearer ")
    plan = held(api, client)
    client.post(f"/plans/{plan['plan']}/samples", {"reason": "a complaint"})
    api.clients.append(Client(api.url, token[:-1] + "?"))
    api.clients[-1].get("/syncs")

    log = "".join(capfd.readouterr())
    assert "token_refused" in log
    assert token[12:-1] not in log
    assert "@mail.example" not in log


def test_the_committed_description_is_what_is_served(shared: Api) -> None:
    file = Path(__file__).parents[2] / "docs" / "reference" / "api.openapi.json"

    assert file.read_text() == text(), "python -m sync.web.describe > docs/reference/api.openapi.json"
    assert shared.client().get("/openapi.json").json() == json.loads(file.read_text())
