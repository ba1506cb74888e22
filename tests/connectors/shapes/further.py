"""More invented platforms: what those that real ones made us mend have of their own."""

from __future__ import annotations

import csv
import io
from typing import ClassVar
from urllib.parse import quote, unquote

import httpx

from tests.connectors.shapes.platforms import PLATFORMS, Json, Platform, body, ok

__all__ = ["EVERY", "Brant", "Garnet", "Heron", "Osprey", "Sorrel"]


class Heron(Platform):
    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/people/find":
            return self.find(body(request))
        if request.method == "POST":
            who = body(request)["email"]
            if self.refused(who) or who in self.known:
                return ok({"error": {"message": "is taken" if who in self.known else "no such domain"}}, 422)
            return ok({"person": {"id": self.id_of(who)}}, 201)
        by_id = {str(id): who for who, id in self.known.items()}
        who = by_id.get(request.url.path.rpartition("/")[2], "nobody")
        sent = body(request)
        assert list(sent["tags"]) == ["list-12"]
        assert isinstance(sent.get("since", 0), int | None)
        was = who in self.people
        if not self.move("add" if sent["tags"]["list-12"] else "remove", who, sent):
            return ok({"error": {"message": "no such domain"}}, 422)
        return httpx.Response(204) if was else ok({"person": {"id": self.id_of(who)}})

    def find(self, asked: Json) -> httpx.Response:
        if "tag" in asked["where"]:
            start = int(asked["page"].get("after", 0))
            some = list(self.people)[start : start + asked["page"]["size"]]
            more = {"next": str(start + 2)} if start + 2 < len(self.people) else {"next": None}
            return ok({"people": [{"id": self.id_of(e), "email": e} for e in some], **more})
        emails = asked["where"]["emails"]
        if len(emails) > 15:
            return ok({"error": {"message": "at most 15"}}, 400)
        if not any(email in self.known for email in emails):
            return ok({"error": {"message": "nobody"}}, 404)
        found = {e: {"person": {"id": self.known[e]}} if e in self.known else {"error": "unknown"} for e in emails}
        return ok({"result": found})


class Brant(Platform):
    secret = ("authorization", "Brant-Token kit-token")
    check = "/organisation"
    busy = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            return ok({"access_token": "kit-token", "expires_in": 3600})
        return super().__call__(request)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            start = int(request.url.params.get("skip", 0))
            some = [{"mail": who} for who in list(self.people)[start : start + 2]]
            more = {"@list.next": f"https://brant.example/v1/groups/12/members?skip={start + 2}"}
            return ok({"value": some, **(more if start + 2 < len(self.people) else {})})
        return ok({"responses": [self.one(request) for request in reversed(body(request)["requests"])]})

    def one(self, request: Json) -> Json:
        *_, group, kind, who = request["url"].split("/")
        assert (group, kind) == ("12", "members")
        if quote(unquote(who), safe="") != who:
            return {"id": request["id"], "status": 400, "body": {"error": "no such path"}}
        if self.busy:
            return {"id": request["id"], "status": 429}
        if not self.move(request["method"], unquote(who)):
            return {"id": request["id"], "status": 400, "body": {"error": "not of this organisation"}}
        return {"id": request["id"], "status": 204}


class Sorrel(Platform):
    check = "/settings"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/api/lists":
            if body(request)["name"] == "taken":
                return ok({"replyCode": 3007, "replyText": "there is a list of this name", "data": ""})
            return ok({"replyCode": 0, "data": {"id": 12}})
        if request.url.path == "/api/lists/12/add":
            ids = body(request)["contacts"][0]["ids"]
            errors = {who: {"2008": "no such contact"} for who in ids if not self.move("add", who)}
            return ok({"replyCode": 0, "replyText": "OK", "data": {"errors": errors or []}})
        if request.url.path == "/api/lists/12/delete":
            done = {who: {"ok": self.move("remove", who)} for who in body(request)["emails"].split(",")}
            return ok({"replyCode": 0, "replyText": "OK", "data": {"details": done}})
        return ok({"replyCode": 4, "replyText": "there is no such list"})


class Garnet(Platform):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Json] = []
        self.left = 1

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            self.left -= 1
            return ok({"job": {"state": "done", "rows": self.rows} if self.left < 0 else {"state": "working"}})
        kind, _, boundary = request.headers["content-type"].partition("; boundary=")
        parts = request.content.decode().split(f"--{boundary}")
        if kind != "multipart/form-data" or 'name="mode"\r\n\r\nupsert\r\n' not in parts[1]:
            return ok({"message": "send a form"}, 415)
        assert 'name="upload"; filename="headgate.csv"' in parts[2]
        for number, row in enumerate(csv.DictReader(io.StringIO(parts[2].partition("\r\n\r\n")[2])), 1):
            well = self.move("upsert", row["EMAIL"], row)
            good = {"result": "made", "id": self.id_of(row["EMAIL"])}
            self.rows.insert(0, {"row": number, **(good if well else {"result": "failed", "why": "no box"})})
        return ok({"job": {"id": 5}}, 202)


class Osprey(Platform):
    secret = ("x-shop-token", "t0ken-of-mine")
    check = "/never"
    headers: ClassVar = {"content-type": "application/json"}

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        sent = body(request)
        if "variables" not in sent:
            return ok({"data": {"shop": {"id": 1}}})
        who, tag = sent["variables"]["email"], sent["variables"]["tag"]
        op = "untag" if "untag(" in sent["query"] else "tag"
        if tag != "12":
            return ok({"errors": [{"message": "there is no such tag"}]})
        if not self.move("remove" if op == "untag" else "add", who):
            return ok({"data": {op: {"customer": None, "problems": [{"message": "the customer is locked"}]}}})
        return ok({"data": {op: {"customer": {"id": f"c{self.id_of(who)}"}, "problems": []}}})


EVERY: dict[str, type[Platform]] = PLATFORMS | {
    kind.__name__.lower(): kind for kind in (Brant, Garnet, Heron, Osprey, Sorrel)
}
