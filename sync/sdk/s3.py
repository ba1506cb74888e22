"""Files on Amazon S3, or on what speaks its protocol, through the client that a connector is given.

Facts are from the Amazon S3 API reference. A PUT, or the completion of a multipart upload, is atomic: before it
nothing is there under the name, and an upload that is never completed never shows (PutObject,
CompleteMultipartUpload). A completion may answer 200 and tell an error in its body (CompleteMultipartUpload).
Parts have 5 MiB to 5 GiB, at most 10,000 of them ("Amazon S3 multipart upload limits"). Requests are signed with
AWS's own library, each with the digest of its body, so that nothing else can have been stored.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from sync.errors import AuthError, DestinationError, ProtocolError, RequestError, Unavailable
from sync.sdk.extras import need
from sync.sdk.folders import spooled

__all__ = ["AwsSignature", "S3Folder", "meaning"]

_PART = 16 * 1024 * 1024  # bytes
_PARTS = 10_000
_SIGNED = ("Authorization", "X-Amz-Date", "X-Amz-Content-SHA256", "X-Amz-Security-Token")
_ETAG = re.compile(r'"[0-9A-Za-z-]{8,80}"')
_CODES: dict[str, type[DestinationError]] = {  # "Error responses" of the API reference
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "TokenRefreshRequired"), AuthError),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "InvalidAccessKeyId", "SignatureDoesNotMatch"), AuthError),
    **dict.fromkeys(
        ("NoSuchBucket", "NoSuchUpload", "OperationAborted", "RequestTimeout", "SlowDown"), Unavailable
    ),
}


class AwsSignature(httpx.Auth):
    """AWS Signature Version 4 for S3, with a key, or with whatever the machine has where there is none.

    Raises `AuthError` where the machine has none either, and `ProjectError` where AWS's library is not installed.
    """

    requires_request_body = True

    def __init__(
        self,
        region: str,
        access_key: str = "",
        secret_key: SecretStr | None = None,
        token: SecretStr | None = None,
    ) -> None:
        self._region = region
        self._key = (access_key, secret_key, token)
        self._lock = threading.Lock()
        self._credentials: Any = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign method, address and body."""
        auth, requests = need("botocore.auth", "s3"), need("botocore.awsrequest", "s3")
        signed = requests.AWSRequest(method=request.method, url=str(request.url), data=request.content)
        auth.S3SigV4Auth(self._frozen(), "s3", self._region).add_auth(signed)
        for name in _SIGNED:
            if name in signed.headers:
                request.headers[name] = signed.headers[name]
        yield request

    def _frozen(self) -> Any:
        access_key, secret, token = self._key
        if secret is not None:
            credentials = need("botocore.credentials", "s3").ReadOnlyCredentials
            return credentials(access_key, secret.get_secret_value(), token.get_secret_value() if token else None)
        with self._lock:
            if self._credentials is None:
                self._credentials = need("botocore.session", "s3").get_session().get_credentials()
        if self._credentials is None:
            fix = "Give `access_key_id` and `secret_access_key`, or run where AWS's own tools find credentials."
            raise AuthError("this machine has no AWS credentials of its own", fix=fix)
        return self._credentials.get_frozen_credentials()


@dataclass(frozen=True, slots=True)
class S3Folder:
    """A bucket, or what has one prefix in it; `http` has the bucket's address as its base."""

    http: httpx.Client
    prefix: str = ""

    def check(self) -> None:
        """List what is there, at most one name of it."""
        response = self.http.get("", params={"list-type": "2", "max-keys": "1", "prefix": self.prefix})
        _tag(response, "ListBucketResult")

    @contextlib.contextmanager
    def published(self, name: str) -> Iterator[IO[bytes]]:
        """An object that is stored at once, or in parts where it is large."""
        with spooled(lambda file: self._send(quote(f"{self.prefix}{name}", safe="/-_.~"), file)) as out:
            yield out

    def _send(self, key: str, file: IO[bytes]) -> None:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= _PART:
            _etag(self.http.put(key, content=file.read()))
            return
        upload = _tag(self.http.post(key, params={"uploads": ""}), "UploadId")
        try:
            self._parts(key, upload, file, max(_PART, -(-size // _PARTS)))
        except BaseException:
            with contextlib.suppress(DestinationError):  # what is left of it never shows, and costs storage
                self.http.delete(key, params={"uploadId": upload})
            raise

    def _parts(self, key: str, upload: str, file: IO[bytes], size: int) -> None:
        parts: list[str] = []
        while piece := file.read(size):
            number = len(parts) + 1
            sent = self.http.put(key, params={"partNumber": str(number), "uploadId": upload}, content=piece)
            parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{_etag(sent)}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>"
        done = self.http.post(key, params={"uploadId": upload}, content=body.encode())
        if code := _code(done):
            raise meaning(done, RequestError)(f"S3 did not complete the upload: {code}", done.text)
        _tag(done, "CompleteMultipartUploadResult")


def meaning(response: httpx.Response, other: Any = None) -> Any:
    """The error that S3's own code in an answer stands for; `other` where it is none of those."""
    return _CODES.get(_code(response), other)


def _code(response: httpx.Response) -> str:
    found = re.search(rb"<Error>.*?<Code>([A-Za-z]{1,60})</Code>", response.content[:10_000], re.DOTALL)
    return found[1].decode() if found else ""


def _etag(response: httpx.Response) -> str:
    etag = str(response.headers.get("etag", ""))
    if not _ETAG.fullmatch(etag):
        raise ProtocolError("S3 did not say that it stored the object: there is no ETag", response.text)
    return etag


def _tag(response: httpx.Response, name: str) -> str:
    """What stands in an element of an answer that is all there."""
    found = re.search(rf"<{name}(?: [^>]*)?>(.*?)</{name}>", response.text, re.DOTALL)
    if found is None:
        raise ProtocolError(f"S3 answered without {name}", response.text)
    return found[1]
