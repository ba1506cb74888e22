"""A project full of canaries, the commands run in it, and the scan of what they left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import orjson

from tests.acceptance.faults import Answer, Fault, Request
from tests.acceptance.project import Done, Process, Project
from tests.acceptance.sink import Sink
from tests.leaks.canaries import PERSON, SECRETS, found_in

ENVIRONMENT = {
    "SINK_TOKEN": SECRETS["token"].text,
    "SINK_SECRET": SECRETS["hmac"].text,
    "STATE_KEY": SECRETS["state key"].text,
    "WAREHOUSE_PASSWORD": SECRETS["password"].text,
}

DESTINATION = 'secret = "env:SINK_SECRET"\n[destinations.sink.secret_headers]\nAuthorization = "env:SINK_TOKEN"\n'

_GROUPS = ("audit", "connector", "rejected", "state")


@dataclass(frozen=True)
class Finding:
    """A canary where somebody could read it."""

    canary: str
    encoding: str
    place: str


@dataclass
class Scene:
    """The project, and everything its commands printed."""

    project: Project
    sink: Sink
    printed: list[tuple[str, str]] = field(default_factory=list)  # (place, text)
    scanned: int = 0

    def do(self, *arguments: str) -> Done:
        """Run a command, and keep what it printed."""
        return self.end(self.project.start(*arguments), *arguments)

    def end(self, process: Process, *arguments: str) -> Done:
        """Wait for a command that was started."""
        done = process.wait()
        self.keep(arguments, done.out, done.err)
        return done

    def keep(self, arguments: Sequence[str], out: str, err: str) -> None:
        """Remember what a command printed."""
        words = arguments[: 2 if arguments[0] in _GROUPS else 1]
        name = " ".join([*words, *(["--reveal"] if "--reveal" in arguments else [])])
        self.printed += [(f"stdout of {name}", out), (f"stderr of {name}", err)]

    def quote_back(self, status: int, **more: object) -> None:
        """From now on the destination answers each request with all that it was sent: headers and body."""
        self.sink.faults = (quoting(self.sink, status, **more),)

    def secrets(self) -> list[Finding]:
        """Every secret in anything that was printed or written."""
        return [Finding(c, e, place) for place, data in self._everything() for c, e in found_in(SECRETS, data)]

    def person(self) -> set[str]:
        """The places that hold personal data: what was printed, tables of the ledger by column, kinds of file."""
        return {place for place, data in self._everything() for _ in found_in(PERSON, data)}

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        for place, text in self.printed:
            self.scanned += 1
            yield place, text.encode()
        ours = {"config.toml", "warehouse.duckdb", "warehouse.duckdb.wal"}  # where we planted them
        for path in sorted(self.project.root.rglob("*")):
            if path.is_file() and path.name not in ours and not path.name.startswith(".output-"):
                yield from self._file(path)

    def _file(self, path: Path) -> Iterator[tuple[str, bytes]]:
        self.scanned += 1
        raw, name = path.read_bytes(), str(path.relative_to(self.project.root))
        yield f"name of {name}", name.encode()
        if path.name.startswith("ledger.db"):
            # Its bytes hold no secret anywhere, also where rows were deleted; a person is looked for by column.
            yield from ((f"bytes of {path.name}", raw) for _ in found_in(SECRETS, raw))
            if path.suffix == ".db":
                yield from self._ledger(path)
        elif raw.startswith(b"PAR1"):
            yield f"{path.relative_to(self.project.root / '.headgate').parts[0]}/", _decoded(path)
        else:
            yield name, raw

    def _ledger(self, path: Path) -> Iterator[tuple[str, bytes]]:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                cursor = connection.execute(f'SELECT * FROM "{table}"')
                rows = cursor.fetchall()
                for index, (column, *_) in enumerate(cursor.description):
                    self.scanned += 1
                    yield f"ledger {table}.{column}", "\n".join(str(row[index]) for row in rows).encode()


def _decoded(path: Path) -> bytes:
    """All values of a Parquet file: compressed, they could not be found by their bytes."""
    with closing(duckdb.connect()) as connection:
        rows = connection.execute("SELECT to_json(t)::VARCHAR FROM read_parquet(?) t", [str(path)]).fetchall()
    return path.read_bytes() + "\n".join(row for (row,) in rows).encode()


def quoting(sink: Sink, status: int, *, per_record: bool = False, location: str = "") -> Fault:
    """An answer that holds all that was sent; with `per_record` as the reason why each record is refused."""

    def answer(request: Request) -> Answer:
        said = {"headers": sink.headers, "records": request.records, "raw": request.body.decode()}
        text = orjson.dumps(said).decode()
        body = orjson.dumps({"message": text, "error": said, "errors": text})
        refused = frozenset(range(len(request.records)))
        if per_record:
            reason = {"message": f"{request.records[0]} is refused for {sink.headers['authorization']}"}
            body = orjson.dumps({"errors": [reason] * len(request.records)})
        headers = [("X-Quoted", sink.headers["authorization"]), ("Set-Cookie", sink.headers["authorization"])]
        headers += [("Location", location)] if location else []
        return Answer(status, body, tuple(headers), apply=False, refused=refused)

    return answer
