"""Files: CSV, JSON Lines or Parquet, holding either the changes or the whole audience.

A folder of this machine (`path`), a bucket of Amazon S3 or of what speaks its protocol (`url = "s3://..."`), or
a folder of an SFTP server (`url = "sftp://..."`).

- A *delta* is one file per batch. Its column `op` says what happened to each row: `add`, `update` or `remove`; a
  removal has the identifiers alone.
- A *snapshot* is one file that always holds every member; it is replaced whenever anything changes.

A file appears under its name only when it is complete; names that begin with a dot are files still being
written. In folders files are readable by their owner alone. The folder or bucket has to exist already. With
`manifest` each file is followed by `NAME.manifest.json`, which has its rows, bytes and SHA-256.

S3 needs s3:PutObject, s3:AbortMultipartUpload and, for a check, s3:ListBucket. An SFTP server has to be known:
`host_key` is the fingerprint that its owner tells (`ssh-keygen -l`), or `known_hosts` a file that has its key.
What is sent there has to be there within `request_timeout`: raise that for large snapshots.

CSV follows RFC 4180: UTF-8, a header, CRLF, quotes where they are needed. Null and the empty text are both
empty; lists and objects are JSON text. JSON Lines keep null, nesting and numbers. Parquet keeps the types of the
warehouse, as far as it has them (intervals, bit strings and unions are text).

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`. To a program a guard against that is damage, for
`'+61...` is no telephone number. So a CSV says what the warehouse says, unless people open it: set
`formula_guard = true`, and an apostrophe is put before such text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal
from urllib.parse import unquote, urlsplit

import httpx
from pydantic import Field, SecretStr, field_validator, model_validator

from sync.errors import DestinationError
from sync.sdk.connector import Config, Connector
from sync.sdk.folders import Folder, LocalFolder
from sync.sdk.nouns import Batch, Delivery, Limits, ObjectSpec, Op, Outcome, Receipt, Status, Value
from sync.sdk.rows import write
from sync.sdk.s3 import AwsSignature, S3Folder, meaning
from sync.sdk.sftp import SftpFolder, SshLogin
from sync.sdk.values import dumps

__all__ = ["File", "FileConfig"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


_OWN = {  # which options are whose
    "": frozenset({"path"}),
    "s3": frozenset({"access_key_id", "secret_access_key", "session_token", "ambient", "region", "endpoint_url"}),
    "sftp": frozenset({"password", "private_key", "passphrase", "host_key", "known_hosts"}),
}


class FileConfig(Config):
    """Where files go and what they look like."""

    path: Path | None = Field(None, description="An existing folder on this machine; or give `url`.")
    url: str = Field(
        "", description="`s3://BUCKET/FOLDER`, or `sftp://USER@HOST:PORT/FOLDER` (`/~/FOLDER`: at home)."
    )
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    delivery: Delivery = Field(
        Delivery.DELTA,
        description="`delta`: a file of changes for each batch, with a column `op`. "
        "`snapshot`: one file that always holds every member.",
    )
    name: str = Field(
        "", description="File name without extension; may use {sync} and {batch}. A delta needs {batch}."
    )
    rows_per_file: int = Field(10_000, ge=1, le=1_000_000, description="Of a delta; a snapshot is one file.")
    formula_guard: bool = Field(
        False, description="CSV: put an apostrophe before text that a spreadsheet would run as a formula."
    )

    manifest: bool = Field(False, description="Follow each file with a NAME.manifest.json.")
    # of s3://
    access_key_id: str = ""
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = Field(None, description="Of temporary credentials.")
    ambient: bool = Field(False, description="Use the credentials that AWS's own tools find on this machine.")
    region: str = Field("us-east-1", pattern=r"^[a-z0-9-]{1,40}$")
    endpoint_url: str = Field("", description="Where something else speaks S3: MinIO, R2, a proxy.")
    # of sftp://
    password: SecretStr | None = None
    private_key: SecretStr | None = Field(None, description="The text of an OpenSSH or PEM private key.")
    passphrase: SecretStr | None = Field(None, description="Opens the private key.")
    host_key: str = Field("", pattern=r"^(SHA256:[A-Za-z0-9+/]{43})?$", description="The server's fingerprint.")
    known_hosts: Path | None = Field(None, description="A file of OpenSSH's with the server's key.")

    @field_validator("path", mode="before")
    @classmethod
    def _local(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:
            raise ValueError("`path` is a folder of this machine: no URL; write that as `url`")
        return value

    @model_validator(mode="after")
    def _one_place(self) -> FileConfig:
        if (self.path is None) == (not self.url):
            raise ValueError("give either `path` or `url`")
        if self.scheme not in _OWN:
            raise ValueError("`url` begins with s3:// or sftp://")
        foreign = {name for scheme, names in _OWN.items() if scheme != self.scheme for name in names}
        if given := sorted(foreign & self.model_fields_set):
            raise ValueError(f"`{given[0]}` means nothing for {self.scheme or 'a folder of this machine'}")
        problem = {"s3": self._s3_problem, "sftp": self._sftp_problem}.get(self.scheme, "")
        if problem:
            raise ValueError(problem)
        return self

    @property
    def scheme(self) -> str:
        """`s3`, `sftp`, or nothing for a folder of this machine."""
        return urlsplit(self.url).scheme if self.url else ""

    @property
    def _s3_problem(self) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", urlsplit(self.url).netloc):
            return "`url` names no bucket: write s3://BUCKET/FOLDER"
        if bool(self.access_key_id and self.secret_access_key) == self.ambient:
            return "give `access_key_id` and `secret_access_key`, or `ambient = true`"
        whole = re.fullmatch(r"https?://[^/?#@]+(/[^?#@]*)?", self.endpoint_url)
        return "" if not self.endpoint_url or whole else "`endpoint_url` is an address: write https://HOST"

    @property
    def _sftp_problem(self) -> str:
        address = urlsplit(self.url)
        try:
            whole = bool(address.hostname and address.username and address.port != 0 and len(address.path) > 1)
        except ValueError:
            whole = False
        if not whole or address.password is not None:
            return "write `url` as sftp://USER@HOST:PORT/FOLDER, and the password as `password`"
        if not self.host_key and self.known_hosts is None:
            return "say how the server is known: `host_key` (its SHA256 fingerprint) or `known_hosts`"
        return "" if self.password or self.private_key else "give `password` or `private_key`"

    @model_validator(mode="after")
    def _name_is_usable(self) -> FileConfig:
        rest = self.template.replace("{sync}", "").replace("{batch}", "")
        if _UNSAFE.search(rest) or self.template.startswith("."):
            raise ValueError("`name` takes letters, digits, `.`, `_`, `-`, {sync} and {batch}, no leading dot")
        if self.delivery is Delivery.DELTA and "{batch}" not in self.template:
            raise ValueError("`name` needs {batch} in a delta, or each batch would overwrite the one before")
        if self.formula_guard and self.format != "csv":
            raise ValueError("`formula_guard` is for `format: csv` only")
        return self

    @property
    def template(self) -> str:
        """The file name without extension, as configured or by default."""
        return self.name or ("{sync}" if self.delivery is Delivery.SNAPSHOT else "{sync}-{batch}")


def _spec(delivery: Delivery, rows: int) -> ObjectSpec:
    limits = Limits(batch_size=None if delivery is Delivery.SNAPSHOT else rows, mixed_ops=True)
    return ObjectSpec("row", "File row", frozenset(Op), (), limits, delivery, audience=False, open_fields=True)


class File(Connector[FileConfig]):
    """One file per batch, written aside and published by rename, so that readers never see half of one.

    The same batch always has the same file name, so a replay overwrites its own file.
    """

    name = "file"
    title = "Files (CSV, JSON Lines, Parquet)"
    docs = __doc__ or ""
    config_model = FileConfig
    objects: Mapping[str, ObjectSpec] = {"row": _spec(Delivery.DELTA, 10_000)}

    def __init__(self, config: FileConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = {"row": _spec(config.delivery, config.rows_per_file)}

    @classmethod
    def base_url(cls, config: FileConfig) -> str:
        """The bucket's address, for S3."""
        if config.scheme != "s3":
            return ""
        bucket = urlsplit(config.url).netloc
        host = f"s3.{config.region}.amazonaws.com"
        if config.endpoint_url:
            return f"{config.endpoint_url.rstrip('/')}/{bucket}/"
        return f"https://{host}/{bucket}/" if "." in bucket else f"https://{bucket}.{host}/"

    @classmethod
    def auth(cls, config: FileConfig) -> httpx.Auth | None:
        """A signature, for S3."""
        if config.scheme != "s3":
            return None
        return AwsSignature(config.region, config.access_key_id, config.secret_access_key, config.session_token)

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:
        """What S3's own code says."""
        found: type[DestinationError] | None = meaning(response)
        return found

    @classmethod
    def account(cls, config: FileConfig) -> str:
        """Each folder on its own."""
        return f"file:{config.path}" if config.path else f"file:{config.endpoint_url}{config.url}"

    def check(self) -> None:
        """Write and remove an empty file; of S3 only look. Raises `AuthError` where files cannot be written."""
        self._folder.check()

    def push(self, batch: Batch) -> Outcome:
        """Publish the batch as one file; raise `AuthError` or `Unavailable` where the folder does not take it."""
        name = self.file(batch)
        with self._folder.published(name) as out:
            counted = _Counted(out) if self.config.manifest else out
            guard, delta = self.config.formula_guard, self.config.delivery is Delivery.DELTA
            write(batch, counted, self.config.format, delta=delta, guard=guard)  # type: ignore[arg-type] # see there
        if isinstance(counted, _Counted):
            with self._folder.published(f"{name}.manifest.json") as out:
                out.write(dumps(self._manifest(batch, name, counted)))
        return (Receipt(change.key, Status.APPLIED) for change in batch.changes)

    def file(self, batch: Batch) -> str:
        """The name of the file a batch is published as."""
        names = {"sync": _UNSAFE.sub("-", batch.sync), "batch": _UNSAFE.sub("-", batch.id)}
        return f"{self.config.template.format(**names)}.{self.config.format}"

    @cached_property
    def _folder(self) -> Folder:
        config, address = self.config, urlsplit(self.config.url)
        if config.path is not None:
            return LocalFolder(config.path)
        path = unquote(address.path)
        if config.scheme == "s3":
            return S3Folder(self.http, f"{path.strip('/')}/".lstrip("/"))
        login = SshLogin(
            host=address.hostname or "",
            port=address.port or 22,
            user=unquote(address.username or ""),
            password=config.password,
            private_key=config.private_key,
            passphrase=config.passphrase,
            host_key=config.host_key,
            known_hosts=config.known_hosts,
        )
        return SftpFolder(self.http, login, path.removeprefix("/~/").rstrip("/"))

    def _manifest(self, batch: Batch, name: str, written: _Counted) -> dict[str, Value]:
        return {
            "schema": 1,
            "file": name,
            "sync": batch.sync,
            "batch": batch.id,
            "delivery": self.config.delivery,
            "rows": len(batch.changes),
            "bytes": written.size,
            "sha256": written.digest.hexdigest(),
        }


class _Counted:
    """A file that is written to, and what was written."""

    closed = False

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Write, count and digest."""
        self.size += len(data)
        self.digest.update(data)
        return self._out.write(data)

    def writelines(self, lines: Iterable[bytes]) -> None:
        """The same, for each."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)
