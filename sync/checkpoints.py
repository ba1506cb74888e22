"""Signed checkpoints of the audit log, kept in a second place where the ledger's owner cannot rewrite them unseen.

A checkpoint is a signed note of text (C2SP `signed-note` v1, Ed25519 signature type 0x01) whose body follows
C2SP `tlog-checkpoint`: origin, size, Base64 head, then extension lines. Any implementation of signed notes
verifies one with the public key that stands beside them:

    headgate/audit
    42
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    number 7
    time 2026-11-23T00:18:00Z
    previous 9f0c...

    — headgate/audit Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=

The head is the hash of the last event, not a Merkle root. `number` counts checkpoints from 1 and `previous` is
the SHA-256 of the text of the one before, so that a missing one is noticed.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sync import signing
from sync.errors import StateError
from sync.faultpoints import reached

__all__ = ["NOTHING", "Checkpoint", "Checkpoints", "Evidence", "Finding", "runs"]

NOTHING = "0" * 64
"""What the first event and the first checkpoint are chained to."""

_ORIGIN = "headgate/audit"
_PINNED, _KEY, _COPY = "audit.pub", "audit.key", "audit.notes"
_FIRST_KEY = ".audit.key.first"  # the signing key until its public half is pinned
_HASH = re.compile(r"[0-9a-f]{64}")
_VERIFY = "somebody edited the log: `headgate audit verify` says where"
_DASH = "— ".encode()
_NOTE = re.compile(rb"(?P<text>(?:(?!%b)[^\n]+\n)+)\n%b(?P<name>\S+) (?P<signature>\S+)\n" % (_DASH, _DASH))
_BODY = re.compile(
    r"(?P<origin>\S+)\n(?P<size>\d{1,18})\n(?P<head>[A-Za-z0-9+/]{43}=)\n"
    r"number (?P<number>\d{1,18})\ntime (?P<at>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)\n"
    r"previous (?P<previous>[0-9a-f]{64})\n"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with the audit log, in a sentence; `first` to `last` are the events it is about.

    `kind` is one of edited, deleted, renumbered, swapped, rewritten, cut, unreadable, checkpoint (forged or
    edited), missing (a checkpoint) and key.
    """

    kind: str
    message: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The claim that the first `size` events end in the hash `head` (hex), made at `at` (seconds, UTC)."""

    number: int
    size: int
    head: str
    at: float
    previous: str

    @property
    def title(self) -> str:
        """How messages call it."""
        return f"checkpoint {self.number} of {_time(self.at)}"

    @property
    def text(self) -> str:
        """What is signed."""
        head = base64.b64encode(bytes.fromhex(self.head)).decode()
        extension = f"number {self.number}\ntime {_time(self.at)}\nprevious {self.previous}\n"
        return f"{_ORIGIN}\n{self.size}\n{head}\n{extension}"

    @property
    def digest(self) -> str:
        """What the next one is chained to."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the second place says: the checkpoints whose signature holds, by number, and what is wrong there."""

    checkpoints: tuple[Checkpoint, ...]
    findings: tuple[Finding, ...]


class Checkpoints:
    """Writes and reads the notes.

    `folder` holds the signing key (PKCS #8, mode 0600) and a copy of the notes; `place` holds the notes, one
    file a month, and the public key as it was when the first one was signed.
    """

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder = folder
        self.place = place
        self._key = folder / _KEY

    def write(self, read: Callable[[], tuple[int, str]], at: float) -> Checkpoint | None:
        """Sign what `read` returns, (size, head), unless the last checkpoint says the same.

        Raises `StateError` (HG320) where the second place cannot be written, (HG321) where the key is not the
        one pinned there, (HG323) where the last event was tampered with.
        """
        try:
            with self._locked():
                size, head = read()
                last = self._last()
                if size == 0 or (last is not None and (last.size, last.head) == (size, head)):
                    return None
                if not _HASH.fullmatch(head):
                    raise StateError(f"event {size} of the audit log has no hash", code="HG323", fix=_VERIFY)
                number, previous = (last.number + 1, last.digest) if last else (1, NOTHING)
                note = Checkpoint(number, size, head, float(int(at)), previous)
                signed = self._sign(note.text, first=last is None)
                reached("checkpoint.signed")
                _append(self.place / f"{_time(at)[:7]}.notes", signed)
                reached("checkpoint.placed")
                _append(self.folder / _COPY, signed)
                reached("checkpoint.copied")
                return note
        except OSError as error:
            raise StateError(
                f"the audit log's checkpoints cannot be written: {error.filename or self.place}: {error.strerror}",
                code="HG320",
                fix="make the folder writable, or name another one as `checkpoints` under [audit] in config.toml",
            ) from error

    def ready(self) -> None:
        """The key that the second place pinned must still be there: another one cannot go on with its notes."""
        pinned = self.place / _PINNED
        if pinned.exists() and not self._key.exists() and not self._named_at_last(pinned):
            raise StateError(
                f"the audit log's signing key {self._key} is gone; {pinned} was made with it",
                code="HG321",
                fix="bring the key back from a backup, or, if it is lost, name an empty folder as `checkpoints`",
            )

    def read(self) -> Evidence:
        """All notes of both places, checked against the pinned key."""
        findings: list[Finding] = []
        key = self._public_key(findings)
        there = [n for file in self._files() for n in _parse(file, key, findings)]
        here = _parse(self.folder / _COPY, key, []) if key else []
        notes = {n.number: n for n in here} | {n.number: n for n in there}
        findings += _missing(notes, {n.number for n in there})
        findings += _unchained(notes, there)
        return Evidence(tuple(notes[n] for n in sorted(notes)), tuple(findings))

    def _last(self) -> Checkpoint | None:
        """The newest note of either place, unchecked: `read` is what checks."""
        tails = [_tail(file) for file in [*self._files()[-1:], self.folder / _COPY]]
        return max((t for t in tails if t), key=lambda t: t.number, default=None)

    def _files(self) -> list[Path]:
        return sorted(self.place.glob("*.notes"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, so that the numbers and the sizes grow together."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.place.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _sign(self, text: str, *, first: bool) -> str:
        self.ready()
        pinned = self.place / _PINNED
        if not pinned.exists() and not self._key.exists():
            self._begin(pinned)
        key = signing.private_key(self._key)
        mine = signing.verifier(_ORIGIN, key)
        if first and not pinned.exists():
            signing.create(pinned, mine.encode() + b"\n", 0o644)
        if pinned.exists() and pinned.read_text(errors="replace").strip() != mine:
            raise StateError(
                f"the audit log's signing key {self._key} is not the one pinned in {pinned}",
                code="HG321",
                fix="bring the old key back, or, if it was replaced on purpose, name an empty folder",
            )
        return f"{text}\n{signing.signature_line(_ORIGIN, key, text)}\n"

    def _begin(self, pinned: Path) -> None:
        """Make the key: pinned before it has its name, for a key that nobody pinned looks like a pin removed."""
        draft = self.folder / _FIRST_KEY
        key = signing.private_key(draft)
        reached("checkpoint.key")
        signing.create(pinned, signing.verifier(_ORIGIN, key).encode() + b"\n", 0o644)
        reached("checkpoint.pinned")
        draft.replace(self._key)

    def _named_at_last(self, pinned: Path) -> bool:
        """Give the key its name where a crash came between that and its being pinned."""
        draft = self.folder / _FIRST_KEY
        raw = signing.parse_verifier(_ORIGIN, pinned.read_text(errors="replace"))
        if raw is None or signing.public_key(draft) != raw:
            return False
        with suppress(FileNotFoundError):  # another process was faster
            draft.replace(self._key)
        return self._key.exists()

    def _public_key(self, findings: list[Finding]) -> bytes | None:
        """The pinned key, or else the signing key's own half; None where nothing was ever signed."""
        mine, pinned = signing.public_key(self._key), self.place / _PINNED
        if self._key.exists() and mine is None:
            findings.append(Finding("key", f"{self._key} is not the signing key any more: it was edited"))
        if not pinned.exists():
            if mine is not None or self._files():
                findings.append(Finding("key", f"the public key {pinned} is gone: somebody removed it"))
            return mine
        raw = signing.parse_verifier(_ORIGIN, pinned.read_text(errors="replace"))
        if raw is None:
            findings.append(Finding("key", f"{pinned} is not a public key any more: it was edited"))
            return mine
        if mine is not None and raw != mine:
            message = f"the signing key {self._key} is not the one pinned in {pinned}: one of them was replaced"
            findings.append(Finding("key", message))
        return raw


def _parse(file: Path, key: bytes | None, findings: list[Finding]) -> list[Checkpoint]:
    """The file's notes whose signature holds; whatever else stands in it becomes a finding."""
    if not file.exists():
        return []
    data = file.read_bytes()
    notes, end = [], 0
    for match in _NOTE.finditer(data):
        if data[end : match.start()].strip():
            findings.append(_garbage(file, data, end))
        note = _note(match, key)
        if note is None:
            line = data.count(b"\n", 0, match.start()) + 1
            findings.append(Finding("checkpoint", f"a checkpoint was forged or edited: {file}, line {line}"))
        else:
            notes.append(note)
        end = match.end()
    if data[end:].strip():
        findings.append(_garbage(file, data, end))
    return notes


def _garbage(file: Path, data: bytes, start: int) -> Finding:
    start += len(data[start:]) - len(data[start:].lstrip())
    line = data.count(b"\n", 0, start) + 1
    return Finding("checkpoint", f"a checkpoint was cut or edited until it is none: {file}, line {line}")


def _note(match: re.Match[bytes], key: bytes | None) -> Checkpoint | None:
    if key is None or match["name"] != _ORIGIN.encode() or not _signed(key, match):
        return None
    return _body(match["text"].decode(errors="replace"))


def _signed(key: bytes, match: re.Match[bytes]) -> bool:
    return signing.verifies(_ORIGIN, key, match["text"], match["signature"])


def _body(text: str) -> Checkpoint | None:
    body = _BODY.fullmatch(text)
    if body is None or body["origin"] != _ORIGIN:
        return None
    try:
        at = datetime.strptime(body["at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    head = base64.b64decode(body["head"]).hex()
    return Checkpoint(int(body["number"]), int(body["size"]), head, at, body["previous"])


def _missing(notes: dict[int, Checkpoint], there: set[int]) -> list[Finding]:
    gone = [n for n in range(1, max(notes, default=0) + 1) if n not in there]
    return [
        Finding(
            "missing", f"checkpoint {_span(a, b)} missing from the second place: somebody removed or damaged it"
        )
        for a, b in runs(gone)
    ]


def _unchained(notes: dict[int, Checkpoint], there: list[Checkpoint]) -> list[Finding]:
    findings = []
    for note in there:
        before = notes.get(note.number - 1)
        if note != notes[note.number]:
            findings.append(Finding("checkpoint", f"there are two checkpoints with the number {note.number}"))
        if before is not None and note.previous != before.digest:
            findings.append(
                Finding("checkpoint", f"{note.title} does not follow {before.title}: one was replaced")
            )
    return findings


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as the first and last of each unbroken run."""
    found: list[tuple[int, int]] = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1] = (found[-1][0], n)
        else:
            found.append((n, n))
    return found


def _span(first: int, last: int) -> str:
    return f"{first} is" if first == last else f"{first} to {last} are"


def _tail(file: Path) -> Checkpoint | None:
    """The last whole note of a file, read from its end; half a note that a power cut left behind is cut off."""
    if not file.exists():
        return None
    with file.open("rb") as handle:
        start = max(0, handle.seek(0, os.SEEK_END) - 4096)
        handle.seek(start)
        data = handle.read()
    notes = list(_NOTE.finditer(data))
    end = notes[-1].end() if notes else 0
    if data[end:].strip() and _DASH not in data[end:] and (notes or not start):
        os.truncate(file, start + end)
    return _body(notes[-1]["text"].decode(errors="replace")) if notes else None


def _append(file: Path, text: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def _time(at: float) -> str:
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
