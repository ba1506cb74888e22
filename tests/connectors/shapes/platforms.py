"""Invented platforms, one for each shape a manifest can say: small, stateful, and refusing what they should."""

from __future__ import annotations

import csv
import io
import json
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import httpx

csv.field_size_limit(10**8)

__all__ = ["PLATFORMS", "Platform"]

Json = Any


class Platform:
    """Answers requests as one platform does. `people` are those in the audience; `refuse` is who is refused."""

    headers: ClassVar[dict[str, str]] = {}
    secret = ("authorization", "Bearer t0ken-of-mine")

    def __init__(self) -> None:
        self.people: dict[str, Json] = {}
        self.known: dict[str, int] = {}
        self.refusing = False
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One request."""
        request.read()
        self.requests.append(request)
        name, value = self.secret
        if request.headers.get(name) != value:
            return httpx.Response(401, json={"error": {"message": "who are you?"}})
        if any(request.headers.get(name) != value for name, value in self.headers.items()):
            return httpx.Response(400, json={"error": {"message": "a header is missing"}})
        if request.url.path.endswith(self.check):
            return httpx.Response(200, json={"me": 1})
        answer = self.answer(request)
        return answer if answer is not None else httpx.Response(404, json={"error": {"message": "no such path"}})

    check = "/me"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        """What it says to an authenticated request."""
        raise NotImplementedError

    def refused(self, who: str) -> bool:
        """Is this one refused: the first of a batch, while it is `refusing`."""
        return self.refusing and any(f"{op}0" in who for op in ("add", "update", "remove"))

    def id_of(self, who: str) -> int:
        """Its own id of a person."""
        return self.known.setdefault(who, 1000 + len(self.known))

    def move(self, op: str, who: str, record: Json = None) -> bool:
        """Add or remove one; False where they are refused."""
        if self.refused(who):
            return False
        if op in ("remove", "REMOVE", "DELETE"):
            self.people.pop(who, None)
        else:
            self.people[who] = record
        return True


def body(request: httpx.Request) -> Json:
    return json.loads(request.content)


def ok(value: Json, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=value, headers=headers)


class Perch(Platform):
    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path = request.url.path
        if path == "/v3/contacts/search":
            wanted = body(request)["filter"]["email"]["in"]
            if len(wanted) > 100:
                return ok({"error": {"message": "at most 100"}}, 400)
            return ok({"contacts": [{"id": self.known[e], "email": e.upper()} for e in wanted if e in self.known]})
        if path == "/v3/lists":
            return ok({"list": {"id": 77, "title": body(request)["list"]["title"]}}, 201)
        if path == "/v3/fields":
            return ok(
                {"fields": [{"key": "score", "kind": "num", "label": "Score"}, {"key": "city", "kind": "x"}]}
            )
        if request.method == "GET":
            return self.page(request)
        return self.change(request) if path in ("/v3/lists/12/members", "/v3/lists/77/members") else None

    def page(self, request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("after", 0))
        some = list(self.people)[start : start + 2]
        more = {"next": start + 2} if start + 2 < len(self.people) else {}
        people = [{"contact": {"id": self.known[e], "email": e}} for e in some]
        return ok({"members": people, "paging": more})

    def change(self, request: httpx.Request) -> httpx.Response:
        by_id = {id: who for who, id in self.known.items()}
        ((op, ids),) = body(request).items()
        if not all(isinstance(id, int) for id in ids):
            return ok({"error": {"message": "ids are numbers"}}, 400)
        done = {id: self.move(op, by_id[id]) for id in ids if id in by_id}
        word = {"add": "added", "remove": "removed"}[op]
        refused = [{"id": id, "why": "not allowed"} for id in ids if not done.get(id)]
        return ok({word: [{"id": id} for id, well in done.items() if well], "refused": refused})


class Larder(Platform):
    secret = ("authorization", "Larder-Key k3y-of-mine")
    headers: ClassVar = {"x-workspace-secret": "w0rkspace-of-mine", "revision": "2026-01-15"}
    check = "/account"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            start = int(request.url.params.get("page", 0))
            some = list(self.people)[start : start + 2]
            url = f"https://api.larder.example{request.url.path}?page={start + 2}"
            link = {"next": url if start + 2 < len(self.people) else None}
            return ok({"data": [{"id": f"p{e}", "attributes": {"email": e}} for e in some], "links": link})
        if request.headers["content-type"] != "application/vnd.api+json":
            return ok({"errors": [{"detail": "unsupported media type"}]}, 415)
        errors = []
        for number, one in enumerate(body(request)["data"]):
            attributes = one["attributes"]
            assert one["type"] == "profile"
            assert set(attributes) <= {"email", "first_name", "properties"}
            if not self.move(request.method, attributes["email"], attributes):
                pointer = {"pointer": f"/data/{number}/attributes/email"}
                errors.append({"source": pointer, "detail": "the address bounces"})
        return ok({"meta": {"imported": True}, "errors": errors}, 202)


class Kestrel(Platform):
    secret = ("authorization", "Bearer kit-token")
    check = "/advertisers/77"

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[str, list[Json]] = {}
        self.state = ["QUEUED", "WORKING"]
        self.ends = "DONE"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            return ok({"access_token": "kit-token", "expires_in": 3600})
        return super().__call__(request)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        *_, kind, id = request.url.path.split("/")
        if request.method == "POST":
            return self.take(body(request))
        if id == "errors":
            return ok({"complete": True, "errors": self.jobs[kind]})
        left = self.jobs.setdefault(f"left {id}", list(self.state))
        return (
            ok({"status": left.pop(0) if left else self.ends, "message": "it broke"}) if id in self.jobs else None
        )

    def take(self, sent: Json) -> httpx.Response:
        assert sent["payload"]["schema"] == ["EMAIL_SHA256"]
        users = sent["payload"]["users"]
        if any(len(row) != 1 or len(row[0]) != 64 for row in users):
            return ok({"message": "a row is not a hash"}, 400)
        refused = [{"row": 1, "text": "no match"}] if self.refusing else []
        for row in users[len(refused) :]:
            self.move(sent["operation"], row[0])
        id = str(len(self.jobs) + 1)
        self.jobs[id] = refused
        return ok({"upload": {"id": int(id)}}, 202)


class Tiller(Platform):
    secret = ("authorization", "t0ken-of-mine")
    check = "/caller"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.headers["content-type"] != "application/json; dialect=instructions":
            return ok({"message": "unknown dialect"}, 400)
        for one in body(request)["instructions"]:
            for key in one["values"]:
                self.move({"addTargets": "add", "removeTargets": "remove"}[one["kind"]], key)
        return ok({"_version": len(self.requests)})


class Mosaic(Platform):
    check = "/status.php"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.params.get("api_key") != "k3y-of-mine":
            return httpx.Response(401, text="no key")
        request.headers["authorization"] = self.secret[1]
        return super().__call__(request)

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        form = parse_qsl(request.content.decode(), keep_blank_values=True)
        assert ("list", "12") in form
        if request.url.path == "/subscribe.php":
            assert ("silent", "true") in form
            for email in (value for name, value in form if name == "emails[]"):
                self.move("add", email)
        elif request.url.path == "/unlist.php":
            for email in dict(form)["emails"].split("|"):
                self.move("remove", email)
        else:
            return None
        return httpx.Response(200, text="1")


class Onyx(Platform):
    secret = ("authorization", "Basic azN5LW9mLW1pbmU6eA==")
    check = "/whoami"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        who = request.url.path.split("/")[3]
        if not self.move(request.method, who, request.content and body(request)):
            return ok({"errors": [{"message": "no such country"}]}, 422)
        if request.method == "DELETE":
            return httpx.Response(204)
        person = body(request)["person"]
        assert person["mail"] == who
        assert person["tags"] == ["list-12"]
        assert all(set(one) == {"name", "value", "source"} for one in person.get("custom", ()))
        return ok({"person": {"id": self.id_of(who)}}, 201)


class Quill(Platform):
    check = "/ping"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            number = int(request.url.params["page"])
            some = list(self.people)[number * 2 - 2 : number * 2]
            return ok({"members": some, "pages": max(1, -(-len(self.people) // 2))})
        rows = []
        for one in reversed(body(request)["operations"]):
            assert one["path"] == "members"
            well = self.move(one["op"], one["value"])
            rows.append({"value": one["value"], "status": 200 if well else 422, "detail": "" if well else "no"})
        return ok({"results": rows}, 207)


class Rill(Platform):
    check = "/self"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        path, params = request.url.path, request.url.params
        by_id = {id: who for who, id in self.known.items()}
        if path == "/contacts/sync":
            return ok({"contact": {"id": self.id_of(body(request)["contact"]["email"])}})
        if request.method == "GET" and "email" in params:
            who = params["email"]
            self.id_of(who)
            return ok({"entries": [{"entry_id": f"e{self.id_of(who)}"}] if who in self.people else []})
        if request.method == "GET":
            start = int(params["skip"])
            return ok({"entries": [{"email": who} for who in list(self.people)[start : start + 2]]})
        if request.method == "DELETE":
            who = by_id.get(int(path.rpartition("/e")[2]), "nobody")
            return httpx.Response(204) if self.move("remove", who) else ok({"error": "no"}, 422)
        who = by_id[body(request)["contact_id"]]
        if who in self.people:
            return ok({"error": "is in already"}, 409)
        return ok({"entry_id": f"e{self.known[who]}"}, 201) if self.move("add", who) else ok({"error": "no"}, 422)


class Sable(Platform):
    check = "/health"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        constraint = body(request)["constraint"]
        assert constraint.keys() == {"field", "operator", "values"}
        self.people = dict.fromkeys(constraint["values"])
        return httpx.Response(200)


class Tern(Platform):
    check = "/quota"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET":
            self.left -= 1
            done = {"finished": True, "rejected": self.bad}
            return ok({"progress": 50}, 202) if self.left > 0 else ok(done)
        rows = list(csv.DictReader(io.StringIO(request.content.decode())))
        self.left = 2
        self.bad = [{"email": r["EMAIL"], "why": "no box"} for r in rows if not self.move("add", r["EMAIL"], r)]
        return httpx.Response(202, headers={"Location": "https://tern.example/bulk/runs/5"})


class Umber(Platform):
    secret = ("x-token", "t0ken-of-mine")
    check = "example/"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.url.path == "/":
            return ok({})
        if request.method == "GET":
            start = int(request.url.params.get("from", 0))
            some = [{"email": e} for e in list(self.people)[start : start + 2]]
            link = {"link": f'<https://umber.example/audiences/12?from={start + 2}>; rel="next"'}
            return ok(some, **(link if start + 2 < len(self.people) else {}))
        errors = {}
        for number, line in enumerate(request.content.decode().splitlines(), 1):
            one = json.loads(line)
            if not self.move(request.url.params.get("mode", "add"), one["email"], one):
                errors[str(number)] = "no such plan"
        return ok({"ok": True, "errors": errors})


class Vireo(Platform):
    check = "/nothing"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        sent = body(request)
        if "variables" not in sent:
            return ok({"data": {"viewer": {"id": 1}}})
        emails = sent["variables"]["emails"]
        op = "remove" if sent["query"].startswith("mutation Remove") else "add"
        taken = sum(self.move(op, email) for email in emails)
        change = {"received": taken, "invalid": len(emails) - taken}
        return ok({"data": {"change": change}})


class Wren(Platform):
    check = "/test"

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT":
            users = request.url.path.rpartition("/")[2].split(",")
        else:
            users = request.url.params.get_list("user")
        if any(self.refused(user) for user in users):
            return ok({"code": 1600, "msg": "a user is not known"})
        for user in users:
            self.move(request.method, user)
        return ok({"code": 0})


class Yarrow(Platform):
    check = "/limits"

    def __init__(self) -> None:
        super().__init__()
        self.imports: dict[str, Json] = {}

    def answer(self, request: httpx.Request) -> httpx.Response | None:
        parts = request.url.path.split("/")[2:]
        if request.method == "POST":
            id = str(len(self.imports) + 1)
            self.imports[id] = {"state": "open", "left": 2, "failed": [], **body(request)}
            return ok({"id": id}, 201)
        one = self.imports.get(parts[0])
        if one is None:
            return None
        if request.method == "PUT":
            return self.take(one, request)
        if request.method == "PATCH":
            one["state"] = body(request)["state"]
        elif one["state"] == "complete":
            one["left"] -= 1
            one["state"] = "complete" if one["left"] else "done"
        return ok({"state": one["state"], "failed": one["failed"]})

    def take(self, one: Json, request: httpx.Request) -> httpx.Response:
        if one["state"] != "open" or request.headers["content-type"] != "text/csv":
            return ok({"error": "this import is closed, or this is no CSV"}, 409)
        rows = csv.DictReader(io.StringIO(request.content.decode()))
        done = [self.move(one["operation"], row["EMAIL"], row) for row in rows]
        one["failed"] = [{"line": n, "why": "no box"} for n, well in enumerate(done, 1) if not well]
        return httpx.Response(204)


PLATFORMS: dict[str, type[Platform]] = {
    kind.__name__.lower(): kind
    for kind in (
        Perch, Larder, Kestrel, Tiller, Mosaic, Onyx, Quill, Rill, Sable, Tern, Umber, Vireo, Wren, Yarrow,
    )
}  # fmt: skip
