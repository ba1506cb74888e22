"""Files on S3, against a server that checks signatures and policies, and the fake that stands in for it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from connectors.file import File, FileConfig
from sync.errors import AuthError, DestinationError, ProjectError, ProtocolError, RequestError, Unavailable
from sync.sdk import s3
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.file import FakeS3, ready
from sync.testing.fakes.server import serve
from sync.testing.hostile import Answer, Wire
from tests.cutter import cutter
from tests.servers import S3

MIB = 1 << 20
CLIENTS: list[httpx.Client] = []


def change(n: int, **fields: Any) -> Change:
    return Change(Op.ADD, f"k{n}", {"email": f"p{n}@example.com"}, fields)


def batch(*changes: Change, id: str = "run1-1") -> Batch:
    return Batch(id, "crm", "row", None, changes, {"email": "VARCHAR", "name": "VARCHAR"})


def large(megabytes: int) -> Batch:
    return batch(*(change(n, name=f"{n:06}" + "x" * (MIB - 6)) for n in range(megabytes)))


def connect(
    server: S3, *, seconds: float = 20.0, transport: httpx.BaseTransport | None = None, **more: Any
) -> File:
    given = {
        "url": f"s3://{server.bucket}/crm/out",
        "access_key_id": server.access_key,
        "secret_access_key": server.secret_key,
        "endpoint_url": server.url,
    }
    config = FileConfig.model_validate({k: v for k, v in (given | more).items() if v is not None})
    CLIENTS.append(build_client(File, config, timeout=seconds, transport=transport))
    return File(config, CLIENTS[-1])


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while CLIENTS:
        CLIENTS.pop().close()


def push(connector: File, of: Batch) -> list[Receipt]:
    outcome = connector.push(of)
    return list(outcome)  # type: ignore[arg-type]


def there(server: S3, name: str) -> bytes | None:
    """What a reader gets, by another client of S3's."""
    import boto3  # type: ignore[import-untyped,unused-ignore]
    from botocore.exceptions import ClientError  # type: ignore[import-untyped,unused-ignore]

    keys = {"aws_access_key_id": server.access_key, "aws_secret_access_key": server.secret_key}
    client = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **keys)
    try:
        found = client.get_object(Bucket=server.bucket, Key=name)["Body"].read()
    except ClientError:
        return None
    return bytes(found)


def test_a_batch_is_an_object_that_another_client_reads(s3_server: S3) -> None:
    receipts = push(connect(s3_server), batch(change(1, name="Ada"), change(2, name="Bob")))

    assert [r.status for r in receipts] == [Status.APPLIED, Status.APPLIED]
    assert there(s3_server, "crm/out/crm-run1-1.csv") == (
        b"op,email,name\r\nadd,p1@example.com,Ada\r\nadd,p2@example.com,Bob\r\n"
    )


def test_a_folder_may_have_any_name(s3_server: S3) -> None:
    folder = "a b/+%41é/='x'"

    push(connect(s3_server, url="s3://exports/a%20b/+%2541é/='x'"), batch(change(1)))

    assert there(s3_server, f"{folder}/crm-run1-1.csv") is not None


def test_parquet_and_its_manifest_go_there_too(s3_server: S3, tmp_path: Path) -> None:
    push(connect(s3_server, format="parquet", manifest=True), batch(change(1, name="Ada"), id="p"))

    content = there(s3_server, "crm/out/crm-p.parquet")
    told = json.loads(there(s3_server, "crm/out/crm-p.parquet.manifest.json") or b"")
    assert content is not None
    (tmp_path / "x.parquet").write_bytes(content)
    assert pq.read_table(tmp_path / "x.parquet").to_pylist() == [
        {"op": "add", "email": "p1@example.com", "name": "Ada"}
    ]
    assert (told["rows"], told["bytes"]) == (1, len(content))
    assert told["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_large_file_goes_in_parts_and_is_whole(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART", 5 * MIB)

    push(connect(s3_server, delivery="snapshot", name="large"), large(11))

    content = there(s3_server, "crm/out/large.csv") or b""
    rows = [line.split(b",") for line in content.splitlines()[1:]]
    assert [(email, name[:7], len(name)) for email, name in rows] == [
        (f"p{n}@example.com".encode(), f"{n:06}x".encode(), MIB) for n in range(11)
    ]


def test_the_check_needs_the_key_the_secret_and_the_bucket(s3_server: S3) -> None:
    connect(s3_server).check()

    for wrong, error in (
        ({"secret_access_key": "wrong"}, AuthError),
        ({"access_key_id": "AKIAWRONG"}, AuthError),
        ({"url": "s3://no-such-bucket/x"}, Unavailable),
    ):
        with pytest.raises(error):
            connect(s3_server, **wrong).check()
        with pytest.raises(error):
            push(connect(s3_server, **wrong), batch(change(1)))


def test_the_machines_own_credentials_are_used_only_where_asked(
    s3_server: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    own = {"access_key_id": None, "secret_access_key": None, "ambient": True}
    with pytest.raises(AuthError, match="no AWS credentials"):
        connect(s3_server, **own).check()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    connect(s3_server, **own).check()

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    connect(s3_server).check()


def test_without_the_library_it_says_what_to_install(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "botocore.auth", None)

    with pytest.raises(ProjectError, match="is not installed") as raised:
        connect(s3_server).check()

    assert raised.value.fix == "Install it: pip install 'headgate[s3]'."


# --- trouble --------------------------------------------------------------------------------------------------


PUSH = """
import sys
from connectors.file import File, FileConfig
from sync.sdk import s3
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op

url, key, secret = sys.argv[1:]
s3._PART = 5 << 20
config = FileConfig(url="s3://exports/crm", access_key_id=key, secret_access_key=secret, endpoint_url=url,
    delivery="snapshot", name="killed")
made = tuple(Change(Op.ADD, str(n), {"email": str(n)}, {"name": "x" * (1 << 20)}) for n in range(12))
File(config, build_client(File, config, timeout=60)).push(Batch("b", "s", "row", None, made))
"""


def test_a_process_that_is_killed_in_the_middle_leaves_the_old_file(s3_server: S3) -> None:
    old = connect(s3_server, url="s3://exports/crm", delivery="snapshot", name="killed")
    push(old, batch(change(1, name="old")))
    before = there(s3_server, "crm/killed.csv")
    reached, go_on = threading.Event(), threading.Event()

    def hold(seen: bytes) -> bool:
        if b"<CompleteMultipartUpload>" in seen or len(seen) > 8 * MIB:
            reached.set()
            go_on.wait(60)
        return False

    with cutter(int(s3_server.url.rpartition(":")[2]), hold) as wire:
        arguments = [f"http://127.0.0.1:{wire.port}", s3_server.access_key, s3_server.secret_key]
        process = subprocess.Popen([sys.executable, "-c", PUSH, *arguments])
        assert reached.wait(60)
        process.kill()
        process.wait()
        go_on.set()

    assert before is not None
    assert there(s3_server, "crm/killed.csv") == before


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "_PART", 5 * MIB)


def faked(bad: Answer | None = None, at: int | None = None, **more: Any) -> tuple[FakeS3, File, Wire]:
    fake = FakeS3()
    wire = Wire(fake, bad, at)
    server = S3("https://s3.example", fake.bucket, fake.key, "secret-of-the-fake")
    return fake, connect(server, transport=wire, **more), wire


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("at", [0, 1, 2, 3])
def test_an_upload_that_fails_on_its_way_is_taken_back_and_nothing_shows(at: int) -> None:
    fake, connector, _ = faked(lambda request: httpx.Response(500), at)

    with pytest.raises(Unavailable):
        push(connector, large(11))

    assert (fake.objects, fake.uploads) == ({}, {})


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("<Error><Code>InternalError</Code></Error>", RequestError),
        ("<Error><Code>SlowDown</Code></Error>", Unavailable),
        ("", ProtocolError),
        ("<html></html>", ProtocolError),
    ],
)
def test_a_completion_that_answers_200_and_an_error_is_an_error(said: str, error: type[DestinationError]) -> None:
    _, connector, _ = faked(lambda request: httpx.Response(200, text=said), 4)

    with pytest.raises(error):
        push(connector, large(11))


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ExpiredToken", AuthError),
        (400, "AuthorizationHeaderMalformed", AuthError),
        (403, "AccessDenied", AuthError),
        (404, "NoSuchBucket", Unavailable),
        (400, "RequestTimeout", Unavailable),
        (503, "SlowDown", Unavailable),
        (400, "EntityTooLarge", RequestError),
        (301, "PermanentRedirect", ProtocolError),
    ],
)
def test_what_s3_says_decides_what_happens_next(status: int, code: str, error: type[DestinationError]) -> None:
    said = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>x</Message></Error>"
    _, connector, _ = faked(lambda request: httpx.Response(status, text=said))

    with pytest.raises(error):
        push(connector, batch(change(1)))


def test_a_row_that_cannot_be_written_sends_nothing() -> None:
    _, connector, wire = faked()

    with pytest.raises(RequestError):
        push(connector, batch(change(1, op="x")))

    assert wire.requests == []


# --- configuration --------------------------------------------------------------------------------------------

KEYS = {"access_key_id": "k", "secret_access_key": "s"}


@pytest.mark.parametrize(
    ("options", "address"),
    [
        ({"url": "s3://exports/crm"}, "https://exports.s3.us-east-1.amazonaws.com/"),
        ({"url": "s3://exports", "region": "eu-west-1"}, "https://exports.s3.eu-west-1.amazonaws.com/"),
        ({"url": "s3://with.dots/x"}, "https://s3.us-east-1.amazonaws.com/with.dots/"),
        ({"url": "s3://exports/x", "endpoint_url": "http://minio:9000/"}, "http://minio:9000/exports/"),
    ],
)
def test_the_address_is_the_buckets(options: dict[str, Any], address: str) -> None:
    assert File.base_url(FileConfig.model_validate(KEYS | options)) == address


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "either `path` or `url`"),
        ({"path": "out", "url": "s3://exports", **KEYS}, "either `path` or `url`"),
        ({"url": "gs://exports"}, "s3:// or sftp://"),
        ({"url": "s3://exports"}, "ambient"),
        ({"url": "s3://exports", "ambient": True, **KEYS}, "ambient"),
        ({"url": "s3://UPPER", **KEYS}, "names no bucket"),
        ({"url": "s3://exports", "endpoint_url": "minio:9000", **KEYS}, "https://HOST"),
        ({"url": "s3://exports", "host_key": "", **KEYS}, "`host_key` means nothing for s3"),
        ({"path": "out", "region": "x"}, "`region` means nothing for a folder"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FileConfig.model_validate(options)


def test_the_fake_serves_a_dry_run_and_refuses_what_s3_refuses() -> None:
    made = ready()
    with serve(made.app) as url:
        config = FileConfig.model_validate(dict(made.options(url)))
        with build_client(File, config, timeout=5) as client:
            connector = File(config, client)
            connector.check()
            push(connector, batch(change(1)))
        with httpx.Client(base_url=url) as stranger:
            answers = [stranger.get("/exports"), stranger.put("/exports/crm/x", content=b"")]

    assert list(made.app.objects) == ["crm/crm-run1-1.csv"]  # type: ignore[attr-defined]
    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize(
    ("parts", "code"),
    [([5 * MIB, 1], ""), ([1, 1], "EntityTooSmall"), ([], "MalformedXML")],
)
def test_the_fake_completes_what_s3_completes(
    s3_server: S3, parts: list[int], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same requests to both: the fake must not be kinder than the server."""
    fake, by_fake, _ = faked()
    for client in (by_fake.http, connect(s3_server).http):
        assert _completed(client, parts) == code
    assert fake.objects == ({"k": b"x" * (5 * MIB + 1)} if not code else {})


def _completed(client: httpx.Client, parts: list[int]) -> str:
    """Upload parts of these sizes as one object; the code of the refusal."""
    begun, listed = client.post("k", params={"uploads": ""}), []
    upload = begun.text.partition("<UploadId>")[2].partition("</UploadId>")[0]
    for number, size in enumerate(parts, start=1):
        sent = client.put("k", params={"partNumber": str(number), "uploadId": upload}, content=b"x" * size)
        listed.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.headers['etag']}</ETag></Part>")
    body = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>".encode()
    try:
        client.post("k", params={"uploadId": upload}, content=body)
    except DestinationError as error:
        return error.detail.partition("<Code>")[2].partition("</Code>")[0]
    return ""


class TestS3Contract(ConnectorContract):
    connector = File
    config: ClassVar = {
        "url": "s3://exports/crm",
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": "s3cr3t-of-the-contract",
        "endpoint_url": "https://s3.example",
    }
    fake: FakeS3

    def begin(self) -> None:
        self.fake = FakeS3()

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)
