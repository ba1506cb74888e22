"""A server on the loopback that speaks Snowflake's protocol: fakesnow, with a real one's sign-in and refusals.

Run in an environment of its own (fakesnow needs the 4.x connector): `python snowflake_server.py PORT PID`; it ends
when the process PID does. A user `refuse_CODE` is refused at sign-in with that error number; a statement with
`refuse_CODE` in it likewise. `GET /seen?database=NAME` has the sign-ins to a database and the statements of its
sessions so far, as JSON.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from importlib import import_module
from typing import Any

import pyarrow
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

server = import_module("fakesnow.server")
arrow = import_module("fakesnow.arrow")
seen: dict[str, dict[str, list[Any]]] = defaultdict(lambda: {"logins": [], "queries": []})  # by database
databases: dict[str, str] = {}  # of a session's token

SESSION = re.compile(r"CURRENT_(USER|ROLE|WAREHOUSE)\(\)")
MESSAGES = {
    "000606": ("57P03", "No active warehouse selected in the current session. Select an active warehouse."),
    "000630": ("57014", "Statement reached its statement or warehouse timeout of 5 second(s) and was canceled."),
    "003001": ("42501", "SQL access control error:\nInsufficient privileges to operate on table 'VIP'."),
    "090073": ("22000", "Warehouse 'WH' cannot be resumed because resource monitor 'M' has exceeded its quota."),
    "390100": ("08001", "Incorrect username or password was specified."),
    "390144": ("08001", "JWT token is invalid. [0f1e2d3c]"),
    "390189": ("08001", "Role 'NOPE' specified in the connect string does not exist or not authorized."),
    "390318": ("08001", "OAuth access token expired. [0f1e2d3c]"),
    "390422": ("08001", "Incoming request with IP/Token 203.0.113.7 is not allowed to access Snowflake."),
}


async def body_of(request: Request) -> dict[str, Any]:
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    return dict(json.loads(body))


def refusal(text: str) -> JSONResponse | None:
    found = re.search(r"refuse_(\d{6})", text, re.IGNORECASE)
    if found is None:
        return None
    state, message = MESSAGES[found[1]]
    data = {"errorCode": found[1], "sqlState": state, "queryId": "01b2c3d4-0000-1111-0000-000000000001"}
    return JSONResponse({"data": data, "code": found[1], "message": message, "success": False})


async def login(request: Request) -> JSONResponse:
    data = (await body_of(request))["data"]
    hidden = {"PASSWORD", "TOKEN"}
    database = request.query_params.get("databaseName", "")
    seen[database]["logins"].append(
        {k: ("given" if k in hidden else v) for k, v in data.items()} | {"url": dict(request.query_params)}
    )
    if refused := refusal(data.get("LOGIN_NAME") or ""):
        return refused
    body = json.loads((await server.login_request(request)).body)
    body["data"] |= {
        "masterToken": "m",
        "sessionId": 1,
        "validityInSeconds": 3600,
        "masterValidityInSeconds": 14400,
    }
    databases[body["data"]["token"]] = database
    return JSONResponse(body)


def database_of(request: Request) -> str:
    """The database that the request's session signed in to."""
    return databases.get(server.to_token(request), "") if "Authorization" in request.headers else ""


async def query(request: Request) -> JSONResponse:
    body = await body_of(request)
    text = body["sqlText"]
    seen[database_of(request)]["queries"].append(text)
    body["sqlText"] = SESSION.sub(lambda m: f"'{m[1].lower()}'", text)  # fakesnow has no such functions
    answer: JSONResponse = refusal(text) or await server.query_request(replaced(request, body))
    return answer


def replaced(request: Request, body: dict[str, Any]) -> Request:
    headers = [(k, v) for k, v in request.scope["headers"] if k != b"content-encoding"]
    other = Request({**request.scope, "headers": headers})
    other._body = json.dumps(body).encode()
    return other


async def telemetry(request: Request) -> JSONResponse:
    seen[database_of(request)]["queries"].append("telemetry")
    return JSONResponse({"success": True})


async def what_was_seen(request: Request) -> JSONResponse:
    return JSONResponse(seen[request.query_params.get("database", "")])


structs = arrow.timestamp_to_sf_struct


def with_nulls(times: Any) -> Any:
    """Timestamps as fakesnow sends them, with their nulls, which it leaves out: each would be 1970-01-01."""
    made = structs(times)
    flat = times.combine_chunks() if isinstance(times, pyarrow.ChunkedArray) else times
    parts = [made.field(i).fill_null(0) for i in range(made.type.num_fields)]
    return pyarrow.StructArray.from_arrays(parts, fields=list(made.type), mask=flat.is_null())


arrow.timestamp_to_sf_struct = with_nulls


def end_with(process: int) -> None:
    """End this process when another one has ended."""
    with suppress(ProcessLookupError):
        while True:
            os.kill(process, 0)
            time.sleep(0.5)
    os._exit(0)


REPLACED = {"/session/v1/login-request": login, "/queries/v1/query-request": query}
routes = [
    *(Route(path, handler, methods=["POST"]) for path, handler in REPLACED.items()),
    Route("/telemetry/send", telemetry, methods=["POST"]),
    Route("/seen", what_was_seen),
    *(r for r in server.routes if r.path not in REPLACED),
]

if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
