"""A server on the loopback that speaks Snowflake's protocol: fakesnow, with a real one's sign-in and refusals; its
queries can be submitted without waiting and aborted, and long answers come in chunks.

Run in an environment of its own (fakesnow needs the 4.x connector): `python snowflake_server.py PORT PID`; it ends
when the process PID does. A user `refuse_CODE` is refused at sign-in with that error number; a statement with
`refuse_CODE` in it likewise. `GET /seen?database=NAME` has the sign-ins to a database and the statements of its
sessions so far, as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import sys
import threading
import time
import uuid
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pyarrow
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

server = import_module("fakesnow.server")
arrow = import_module("fakesnow.arrow")
seen: dict[str, dict[str, list[Any]]] = defaultdict(
    lambda: {"logins": [], "queries": [], "aborted": []}
)  # by database
databases: dict[str, str] = {}  # of a session's token
chunks: dict[str, bytes] = {}  # of long answers, by the end of their address

CHUNK = 1 << 20  # characters of an answer that is cut into several


@dataclass
class Submitted:
    """A query whose client does not wait for it."""

    work: asyncio.Task[dict[str, Any]]
    connection: Any
    aborted: bool = False


submitted: dict[str, Submitted] = {}
stages: set[str] = set()  # in the place of users' own
temporary: dict[str, set[tuple[str, str]]] = defaultdict(set)  # schema and name, by the session's token

HISTORY = re.compile(
    r"FROM TABLE\(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION\(.*?\)\) WHERE query_id = '([^']+)'"
)
PAST = "FROM (SELECT 4096 AS bytes_scanned, 1250 AS total_elapsed_time, 1e-4 AS credits_used_cloud_services)"
TEMPORARY = re.compile(r"CREATE TEMPORARY TABLE (\w+)\.(\w+) ", re.IGNORECASE)
HEXADECIMAL = re.compile(r"TO_NUMBER\((SUBSTR\(\w+, \d+, \d+\)), 'X+'\)", re.IGNORECASE)
SESSION = re.compile(r"CURRENT_(USER|ROLE|WAREHOUSE)\(\)")
LOCKED = "Your user account has been temporarily locked. Try again later or contact your account administrator."
QUOTA = "Warehouse 'WH' cannot be resumed because resource monitor 'M' has exceeded its quota."
TRIAL = "Your free trial has ended and all of your virtual warehouses have been suspended."
TOTP = "Failed to authenticate: MFA with TOTP is required. To authenticate, provide both."
MESSAGES = {
    "000606": ("57P03", "No active warehouse selected in the current session. Select an active warehouse."),
    "000630": ("57014", "Statement reached its statement or warehouse timeout of 5 second(s) and was canceled."),
    "003001": ("42501", "SQL access control error:\nInsufficient privileges to operate on table 'VIP'."),
    "090064": ("22000", "Warehouse 'WH' is suspended."),
    "090073": ("22000", QUOTA),
    "390100": ("08001", "Incorrect username or password was specified."),
    "390101": ("08004", "User access disabled. Contact your local system administrator."),
    "390102": ("08001", LOCKED),
    "390111": ("08001", "Session no longer exists. New login required to access the service."),
    "390120": ("08001", "Duo Security authentication is denied."),
    "390144": ("08001", "JWT token is invalid. [0f1e2d3c]"),
    "390186": ("08001", "Role 'NOPE' specified in the connect string is not granted to this user."),
    "390189": ("08001", "Role 'NOPE' specified in the connect string does not exist or not authorized."),
    "390201": ("08001", "The requested warehouse does not exist or not authorized."),
    "390303": ("08001", "Invalid OAuth access token. [0f1e2d3c]"),
    "390318": ("08001", "OAuth access token expired. [0f1e2d3c]"),
    "390422": ("08001", "Incoming request with IP/Token 203.0.113.7 is not allowed to access Snowflake."),
    "390432": ("08001", "Network policy is required."),
    "390913": ("08004", TRIAL),
    "394301": ("08001", "JWT token has expired. [0f1e2d3c]"),
    "394304": ("08001", "JWT token public key fingerprint mismatch. [0f1e2d3c]"),
    "394400": ("08001", "Programmatic access token is invalid."),
    "394508": ("08001", TOTP),
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
    hidden = {"PASSWORD", "TOKEN", "PASSCODE"}
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
    body["sqlText"] = HISTORY.sub(PAST, body["sqlText"])
    body["sqlText"] = HEXADECIMAL.sub(r"('0x' || \1)::BIGINT", body["sqlText"])
    body["sqlText"] = without_schema(server.to_token(request), body["sqlText"])
    if "@~/" in text:
        body["sqlText"] = in_user_stage(server.to_conn(server.to_token(request)), body["sqlText"])
    if not body.get("asyncExec"):
        return refusal(text) or in_chunks(request, await server.query_request(replaced(request, body)))
    number = str(uuid.uuid4())
    work = asyncio.create_task(in_background(number, request, body))
    submitted[number] = Submitted(work, server.to_conn(server.to_token(request)))
    data = {"queryId": number, "getResultUrl": f"/queries/{number}/result", "queryAbortsAfterSecs": 300}
    return JSONResponse({"data": data, "code": "333334", "message": None, "success": True})


def without_schema(token: str, text: str) -> str:
    """The statement with the session's temporary tables in no schema, as fakesnow has them."""
    if made := TEMPORARY.match(text):
        temporary[token].add((made[1], made[2]))
    for schema, name in temporary[token]:
        text = re.sub(rf'"?\b{schema}\b"?\."?{name}\b"?', name, text, flags=re.IGNORECASE)
    return text


def in_user_stage(connection: Any, text: str) -> str:
    """The statement with a stage of ours in the place of the user's own, which fakesnow has not."""
    stage = f'"{connection.database}".PUBLIC.USER_FILES'
    if "PUT" in text and stage not in stages:
        stages.add(stage)
        own = server.shared_fs.connect(connection.database, "PUBLIC")
        own.cursor().execute(f"CREATE STAGE IF NOT EXISTS {stage}")
    if text.startswith("REMOVE "):
        return "SELECT 1 AS name"  # what it would remove was purged by the COPY
    return text.replace("@~/", f"@{stage}/")


async def in_background(number: str, request: Request, body: dict[str, Any]) -> dict[str, Any]:
    """A query's answer, under the id that its client knows it by."""
    answer = refusal(body["sqlText"]) or await server.query_request(replaced(request, body))
    told: dict[str, Any] = json.loads(in_chunks(request, answer).body)
    if submitted[number].aborted:
        data = {"errorCode": "000604", "sqlState": "57014"}
        told = {"data": data, "code": "000604", "message": "SQL execution canceled", "success": False}
    if told["data"] is None:
        told["data"] = {}
    told["data"]["queryId"] = number
    return told


async def abort(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    seen[database_of(request)]["aborted"].append(number)
    found = submitted[number]
    found.aborted = not found.work.done()
    while not found.work.done():  # again and again: the first may come before there is anything to end
        found.connection._duck_conn.interrupt()
        await asyncio.sleep(0.05)
    return JSONResponse({"data": None, "code": None, "message": None, "success": True})


async def status(request: Request) -> JSONResponse:
    number = request.path_params["number"]
    told: dict[str, Any] = {"id": number, "status": "RUNNING"}
    work = submitted[number].work
    if work.done() and work.result()["success"]:
        told["status"] = "SUCCESS"
    elif work.done():
        result = work.result()
        told |= {"status": "FAILED_WITH_ERROR", "errorCode": result["code"], "errorMessage": result["message"]}
    return JSONResponse({"data": {"queries": [told]}, "code": None, "message": None, "success": True})


async def result(request: Request) -> JSONResponse:
    return JSONResponse(await submitted[request.path_params["number"]].work)


def in_chunks(request: Request, answer: JSONResponse) -> JSONResponse:
    """A long answer as Snowflake gives it: its beginning, and addresses where the rest is fetched from."""
    told = json.loads(answer.body)
    data = told.get("data") or {}
    if "stageInfo" in data:
        return JSONResponse({**told, "data": {**data, "overwrite": True}})  # as every PUT of ours has it
    if data.get("queryResultFormat") != "arrow" or len(data.get("rowsetBase64") or "") < CHUNK:
        return answer
    table = pyarrow.ipc.open_stream(base64.b64decode(data["rowsetBase64"])).read_all()
    rows = max(1, table.num_rows * CHUNK // len(data["rowsetBase64"]))
    parts = [table.slice(start, rows) for start in range(0, table.num_rows, rows)]
    address = f"{request.url.scheme}://{request.url.netloc}/chunks"
    data["rowsetBase64"] = base64.b64encode(streamed(parts[0])).decode()
    data["chunks"] = []
    for part in parts[1:]:
        name = uuid.uuid4().hex
        chunks[name] = streamed(part)
        size = len(chunks[name])
        data["chunks"].append(
            {
                "url": f"{address}/{name}",
                "rowCount": part.num_rows,
                "uncompressedSize": size,
                "compressedSize": size,
            }
        )
    return JSONResponse(told)


def streamed(table: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


async def chunk(request: Request) -> Response:
    return Response(chunks.pop(request.path_params["name"]))


def replaced(request: Request, body: dict[str, Any]) -> Request:
    headers = [(k, v) for k, v in request.scope["headers"] if k != b"content-encoding"]
    other = Request({**request.scope, "headers": headers})
    other._body = json.dumps(body).encode()
    return other


async def token(request: Request) -> JSONResponse:
    """An identity provider that knows the client `headgate`, in the database of its last sign-in."""
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    client = base64.b64decode(given).decode().partition(":")[0] if kind == "Basic" else ""
    for one in seen.values():
        one["queries"].append(f"oauth: {client}")
    return JSONResponse({"access_token": "t", "token_type": "Bearer", "expires_in": 600})


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
loading = import_module("fakesnow.copy_into")


def columns_of(table: Any, connection: Any, database: str | None, schema: str | None) -> list[tuple[str, str]]:
    """The columns of a table that rows are copied into, whatever is in its name."""
    parts = (table.catalog or database, table.db or schema, table.name) if table.db else (table.name,)
    name = ".".join(f'"{part}"' for part in parts)
    return [(row[0], row[1]) for row in connection.execute(f"DESCRIBE {name}").fetchall()]


loading._describe_table = columns_of
stage_info = server.gcs_stage_info


def with_region(*given: Any) -> dict[str, Any]:
    """Where a file is put, with what the 5.x client wants to know."""
    return {"region": "local", "isClientSideEncrypted": False, **stage_info(*given)}


server.gcs_stage_info = with_region


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
    Route("/queries/{number}/abort-request", abort, methods=["POST"]),
    Route("/queries/{number}/result", result),
    *(Route(f"/monitoring/queries/{way}{{number}}", status) for way in ("/", "")),  # the 5.x client doubles it
    Route("/chunks/{name}", chunk),
    Route("/oauth/token", token, methods=["POST"]),
    Route("/telemetry/send", telemetry, methods=["POST"]),
    Route("/seen", what_was_seen),
    *(r for r in server.routes if r.path not in REPLACED),
]

if __name__ == "__main__":
    threading.Thread(target=end_with, args=(int(sys.argv[2]),), daemon=True).start()
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
