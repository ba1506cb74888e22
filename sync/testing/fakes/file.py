"""A bucket in memory, behind the protocol of Amazon S3: objects, uploads in parts, and a listing.

Errors and answers have the shapes of the Amazon S3 API reference. A signature is taken on trust as far as its key
and the digest of the body go.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable
from typing import ClassVar
from xml.sax.saxutils import escape

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeS3", "ready"]

_SMALLEST = 5 * 1024 * 1024  # bytes of a part that is not the last


class FakeS3(Fake):
    """One bucket. `objects` has what is stored, `uploads` the parts of what is not complete."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", r"/([^/]+)/?", "listing"),
        ("PUT", r"/([^/]+)/(.+)", "put"),
        ("POST", r"/([^/]+)/(.+)", "post"),
        ("DELETE", r"/([^/]+)/(.+)", "delete"),
    )

    def __init__(self, bucket: str = "exports", key: str = "AKIDEXAMPLE", *, rate: Rate | None = None) -> None:
        super().__init__(rate=rate)
        self.bucket = bucket
        self.key = key
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}

    def authorised(self, request: httpx.Request) -> bool:
        """Signed with our key, for this body."""
        said = request.headers.get("authorization", "")
        digest = hashlib.sha256(request.content).hexdigest()
        ours = re.match(
            rf"AWS4-HMAC-SHA256 Credential={re.escape(self.key)}/\d{{8}}/[a-z0-9-]+/s3/aws4_request, ", said
        )
        return (
            bool(ours)
            and request.headers.get("x-amz-content-sha256") == digest
            and "x-amz-date" in request.headers
        )

    def unauthorised(self) -> httpx.Response:
        """403, whatever it was."""
        return _error(403, "InvalidAccessKeyId")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - S3 does not say for how long
        """503 Slow Down."""
        return _error(503, "SlowDown")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever it was
        """405."""
        return _error(405, "MethodNotAllowed")

    def listing(self, asked: Asked) -> httpx.Response:
        """The names under a prefix (ListObjectsV2)."""
        if refusal := self._refusal(asked):
            return refusal
        prefix, most = asked.params.get("prefix", ""), int(asked.params.get("max-keys", 1000))
        names = [name for name in sorted(self.objects) if name.startswith(prefix)][:most]
        found = "".join(f"<Contents><Key>{escape(name)}</Key></Contents>" for name in names)
        return _xml("ListBucketResult", f"<Name>{self.bucket}</Name><KeyCount>{len(names)}</KeyCount>{found}")

    def put(self, asked: Asked) -> httpx.Response:
        """An object (PutObject), or a part of one (UploadPart)."""
        if refusal := self._refusal(asked):
            return refusal
        content, upload = asked.request.content, asked.params.get("uploadId")
        if upload is None:
            self.objects[asked.parts[1]] = content
        elif upload not in self.uploads:
            return _error(404, "NoSuchUpload")
        else:
            self.uploads[upload][int(asked.params["partNumber"])] = content
        return httpx.Response(200, headers={"ETag": _etag(content)})

    def post(self, asked: Asked) -> httpx.Response:
        """The beginning (CreateMultipartUpload) or the end (CompleteMultipartUpload) of an upload."""
        if refusal := self._refusal(asked):
            return refusal
        if "uploads" in asked.params:
            upload = f"upload-{len(self.uploads) + 1}"
            self.uploads[upload] = {}
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
        parts = self.uploads.get(asked.params.get("uploadId", ""))
        if parts is None:
            return _error(404, "NoSuchUpload")
        listed = re.findall(r"<PartNumber>(\d+)</PartNumber><ETag>(.*?)</ETag>", asked.request.content.decode())
        if not listed:
            return _error(400, "MalformedXML")
        if [(int(n), tag) for n, tag in listed] != [(n, _etag(parts[n])) for n in sorted(parts)]:
            return _error(400, "InvalidPart")
        if any(len(parts[n]) < _SMALLEST for n in sorted(parts)[:-1]):
            return _error(400, "EntityTooSmall")
        self.objects[asked.parts[1]] = b"".join(parts[n] for n in sorted(parts))
        del self.uploads[asked.params["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<ETag>{_etag(self.objects[asked.parts[1]])}</ETag>")

    def delete(self, asked: Asked) -> httpx.Response:
        """The end of an upload that is not to be completed (AbortMultipartUpload)."""
        if refusal := self._refusal(asked):
            return refusal
        found = self.uploads.pop(asked.params.get("uploadId", ""), None)
        return _error(404, "NoSuchUpload") if found is None else httpx.Response(204)

    def _refusal(self, asked: Asked) -> httpx.Response | None:
        return None if asked.parts[0] == self.bucket else _error(404, "NoSuchBucket")


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def _xml(name: str, content: str) -> httpx.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}>{content}</{name}>'
    return httpx.Response(200, headers={"Content-Type": "application/xml"}, content=text.encode())


def _error(status: int, code: str) -> httpx.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}.</Message></Error>'
    return httpx.Response(status, headers={"Content-Type": "application/xml"}, content=text.encode())


def ready() -> Ready:
    """A bucket, for the file connector."""
    fake = FakeS3()
    given = {
        "url": f"s3://{fake.bucket}/crm",
        "access_key_id": fake.key,
        "secret_access_key": "s3cr3t-of-the-fake",
    }
    return Ready(fake, lambda url: {**given, "endpoint_url": url}, members=lambda *_: _rows(fake.objects.values()))


def _rows(files: Iterable[bytes]) -> set[str]:
    """What files of changes come to, one after the other, by the first column after `op`."""
    found: set[str] = set()
    for file in files:
        _, *lines = csv.reader(io.StringIO(file.decode(), newline=""))
        for op, identifier, *_ in lines:
            (found.discard if op == "remove" else found.add)(identifier)
    return found
