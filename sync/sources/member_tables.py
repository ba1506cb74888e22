"""The tables of one sync's members in a warehouse: immutable parts, and which member each seen row maps to.

    members_SYNC   part, key, fingerprint, nulls, source_key, remote_id, first_refresh, first_at, last_refresh,
                   last_at, identifiers, types, removed
    seen_SYNC      source_key, digest, key, fingerprint

A part is a base, or a delta over one: it mirrors a file of members. A part that no generation in the ledger
names is an orphan. `identifiers` is a JSON object of texts, `types` one of the DuckDB types they are read back as.
What is in `seen` is a pure function of a row and a mapping: to lose it costs that rows are fetched again, and
nothing else.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync.errors import Corrupt
from sync.faultpoints import reached
from sync.sources.pushed import Session
from sync.sources.queries import literal, plain

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "MemberTables", "Part", "rows_of"]

COLUMNS: Mapping[str, str] = {
    "part": "VARCHAR",
    "key": "VARCHAR",
    "fingerprint": "VARCHAR",
    "nulls": "VARCHAR",
    "source_key": "VARCHAR",
    "remote_id": "VARCHAR",
    "first_refresh": "VARCHAR",
    "first_at": "DOUBLE PRECISION",
    "last_refresh": "VARCHAR",
    "last_at": "DOUBLE PRECISION",
    "identifiers": "VARCHAR",
    "types": "VARCHAR",
    "removed": "BOOLEAN",
}
_SEEN = ("source_key", "digest", "key", "fingerprint")
_COMPACT_AT = 0.1  # a delta that passes this share of the base is merged into a new base
_NUMBER = re.compile(r"(?:base|delta)-(\d+)-")
_TOLD = ("key", "fingerprint", "source_key", "identifiers", "types")
_LONGEST = 40  # characters of a sync's name in a table's: PostgreSQL cuts names after 63 bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was written: its name, and what the ledger keeps to know it again (`CHECKSUM:ROWS`)."""

    name: str
    digest: str


def rows_of(digest: str) -> int:
    """How many rows a part has, by its digest."""
    return int(digest.partition(":")[2] or 0)


class MemberTables:
    """The tables of one sync, through a session with their warehouse. Raises `SourceError` as the session does."""

    def __init__(self, session: Session, schema: str, sync: str) -> None:
        self.session = session
        self._schema = schema
        self._place = plain(schema)
        short = f"{sync[:_LONGEST]}_{hashlib.sha256(sync.encode()).hexdigest()[:8]}"
        self._short = sync if len(sync) <= _LONGEST else short
        self._own = ", ".join(c for c in COLUMNS if c != "part")

    @property
    def members(self) -> str:
        """The table of parts, as SQL names it."""
        return f"{self._place}.{plain(f'members_{self._short}')}"

    @property
    def seen(self) -> str:
        """The table of rows that were seen, as SQL names it."""
        return f"{self._place}.{plain(f'seen_{self._short}')}"

    def temporary(self, name: str) -> str:
        """A temporary table of the session, as SQL names it."""
        return self.session.dialect.temporary(self._place, name)

    def complete(self) -> bool:
        """Are the tables there."""
        wanted = {f"members_{self._short}", f"seen_{self._short}"}
        there = self.session.rows(
            "SELECT table_name FROM information_schema.tables "
            f"WHERE lower(table_schema) = {literal(self._schema.lower())} "
            f"AND lower(table_name) IN ({', '.join(map(literal, sorted(wanted)))})"
        )
        return len(there) == len(wanted)

    def make(self) -> None:
        """Make what is not there: the schema where we may, and the tables."""
        if self.complete():
            return
        if not self.session.rows(
            f"SELECT 1 FROM information_schema.schemata WHERE lower(schema_name) = {literal(self._schema.lower())}"
        ):
            self.session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._place}")
        made = f"CREATE {self.session.dialect.table} IF NOT EXISTS"
        columns = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
        self.session.execute(f"{made} {self.members} ({columns})")
        seen = ", ".join(f"{name} VARCHAR" for name in _SEEN)
        self.session.execute(f"{made} {self.seen} ({seen})")
        if self.session.indexes:
            index = plain(f"members_{self._short}_part")
            self.session.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {self.members} (part)")

    def current(self, base: str | None, delta: str | None) -> str:
        """A SELECT of the members that a base and a delta over it are, without `part` and `removed`."""
        own = ", ".join(f"m.{c}" for c in COLUMNS if c not in ("part", "removed"))
        selects = []
        if base is not None:
            over = ""
            if delta is not None:
                newer = f"SELECT 1 FROM {self.members} d WHERE d.part = {literal(delta)} AND d.key = m.key"
                over = f" AND NOT EXISTS ({newer})"
            selects.append(f"SELECT {own} FROM {self.members} m WHERE m.part = {literal(base)}{over}")
        if delta is not None:
            selects.append(f"SELECT {own} FROM {self.members} m WHERE m.part = {literal(delta)} AND NOT m.removed")
        return " UNION ALL ".join(selects) or f"SELECT {own} FROM {self.members} m WHERE 1 = 0"

    def part(self, name: str) -> str:
        """A SELECT of one part's rows."""
        return f"SELECT {self._own} FROM {self.members} WHERE part = {literal(name)}"

    # --- generations --------------------------------------------------------------------------------------

    def digest(self, name: str) -> str:
        """What a part is: the checksum of its rows, and how many there are."""
        number = self.session.dialect.number
        told = ", '|', ".join(f"coalesce({c}, '')" for c in _TOLD)
        gone = "CASE WHEN removed THEN '1' ELSE '0' END"
        sums = ", ".join(f"coalesce(sum({number(f'substr(h, {at}, 8)')}), 0)" for at in (1, 9, 17))
        ((rows, *found),) = self.session.rows(
            f"SELECT count(*), {sums} FROM (SELECT md5(concat({told}, '|', {gone})) AS h "
            f"FROM {self.members} WHERE part = {literal(name)}) x"
        )
        return f"{'-'.join(str(int(one)) for one in found)}:{int(rows)}"

    def verify(self, sync: str, names: Iterable[str], digests: Mapping[str, str]) -> None:
        """Check that these parts are what the ledger recorded. Raises `Corrupt`."""
        for name in names:
            if self.digest(name) != digests.get(name, ""):
                raise self._doubtful(sync, name)

    def still(self, sync: str, names: Iterable[str], digests: Mapping[str, str]) -> None:
        """Check that nobody removed these parts since they were verified. Raises `Corrupt`.

        A part is removed as a whole, and none gets the name of another one: if it is here now, it was here before.
        """
        for name in names:
            ((rows,),) = self.session.rows(f"SELECT count(*) FROM {self.members} WHERE part = {literal(name)}")
            if rows != rows_of(digests.get(name, "")):
                raise self._doubtful(sync, name)

    def _doubtful(self, sync: str, part: str) -> Corrupt:
        return Corrupt(
            f"the members of '{sync}' in the warehouse (part {part}) are missing or were altered; "
            "nothing is sent on a doubt",
            fix=f"restore the table members_{self._short} in its schema {self._schema}; or start again: "
            f"headgate state reset {sync} --members N --reason ...",
        )

    def write(self, kind: str, number: int, select: str) -> Part:
        """Write a part from a SELECT of its columns; inside a transaction of the caller's."""
        name = _named(kind, number)
        self.session.execute(
            f"INSERT INTO {self.members} (part, {self._own}) SELECT {literal(name)}, {self._own} FROM ({select}) w"
        )
        return Part(name, self.digest(name))

    def advance(
        self,
        number: int,
        base: str | None,
        delta: str | None,
        under: int,
        changed: pa.RecordBatchReader,
    ) -> tuple[list[Part], int]:
        """Write the parts of the next generation: the base and the delta there are, with changed rows over them.

        `changed` has the columns of a part but `part`; `under` is how many rows the base has. Returns
        the new parts, a base alone or a delta alone, and how many members there are then. Everything is one
        transaction: what a crash leaves is nothing, or parts that nobody names.
        """
        loaded = _named("delta", number)
        with self.session.transaction():
            self.session.load(self.members, _in_part(loaded, changed))
            if delta is not None:
                self.session.execute(
                    f"INSERT INTO {self.members} (part, {self._own}) SELECT {literal(loaded)}, {self._own} "
                    f"FROM {self.members} d WHERE d.part = {literal(delta)} AND NOT EXISTS "
                    f"(SELECT 1 FROM {self.members} f WHERE f.part = {literal(loaded)} AND f.key = d.key)"
                )
            made = Part(loaded, self.digest(loaded))
            if rows_of(made.digest) > under * _COMPACT_AT:
                whole = f"SELECT w.*, FALSE AS removed FROM ({self.current(base, loaded)}) w"
                made = self.write("base", number, whole)
                self.session.execute(f"DELETE FROM {self.members} WHERE part = {literal(loaded)}")
                members = rows_of(made.digest)
            else:
                ((members,),) = self.session.rows(f"SELECT count(*) FROM ({self.current(base, loaded)}) c")
            reached("members_part.written")
        reached("members_part.named")
        return [made], int(members)

    def without(self, name: str, keys: Collection[str]) -> Part:
        """A copy of a part without these members."""
        kind, number = name.split("-")[:2]
        some = ", ".join(map(literal, sorted(keys)))
        with self.session.transaction():
            return self.write(kind, int(number), f"{self.part(name)} AND key NOT IN ({some})")

    def copy(self, name: str, rows: pa.RecordBatchReader) -> Part:
        """A part with these rows, named like one that is kept elsewhere."""
        kind, number = name.split("-")[:2]
        copied = _named(kind, int(number))
        with self.session.transaction():
            self.session.load(self.members, _in_part(copied, rows))
            return Part(copied, self.digest(copied))

    def sweep(self, named: Collection[str], number: int) -> int:
        """Remove the parts of generations up to this number that nobody names; returns how many there were."""
        there = [str(row[0]) for row in self.session.rows(f"SELECT DISTINCT part FROM {self.members}")]
        orphans = [
            name
            for name in there
            if name not in named and (found := _NUMBER.match(name)) and int(found[1]) <= number
        ]
        for name in orphans:
            self.session.execute(f"DELETE FROM {self.members} WHERE part = {literal(name)}")
        return len(orphans)

    # --- rows that were seen ------------------------------------------------------------------------------

    def known(self) -> str:
        """What stands after FROM for the rows that were seen, none of them twice: two processes may write at once.

        Where a transaction reads one version, they are looked at first, and all forgotten where one stands twice.
        """
        by_key = f"FROM {self.seen} GROUP BY source_key HAVING count(*)"
        if not self.session.one_version:
            once = ", ".join(f"max({c}) AS {c}" for c in _SEEN if c != "source_key")
            return f"(SELECT source_key, {once} {by_key} = 1)"
        if self.session.rows(f"SELECT count(*) FROM (SELECT source_key {by_key} > 1) t")[0][0]:
            self.session.execute(f"DELETE FROM {self.seen}")
        return self.seen

    def remember(self, found: pa.RecordBatchReader, judged: str) -> None:
        """Bring up to date what is known of these rows: source_key, digest, key and fingerprint of each, as texts.

        Of rows without a key nothing is known, nor of rows that the table `judged` does not have any more.
        """
        columns = ", ".join(_SEEN)
        fresh = self.gather("headgate_fresh", f"SELECT {columns} FROM {self.seen} WHERE 1 = 0", found)
        gone = (
            f"SELECT s.source_key FROM {self.seen} s LEFT JOIN {judged} j ON j.source_key = s.source_key "
            "WHERE j.source_key IS NULL"
        )
        with self.session.transaction():
            for some in (f"SELECT source_key FROM {fresh}", gone):
                self.session.execute(f"DELETE FROM {self.seen} WHERE source_key IN ({some})")
            self.session.execute(
                f"INSERT INTO {self.seen} ({columns}) SELECT {columns} FROM {fresh} WHERE key IS NOT NULL"
            )

    def unsee(self, keys: Iterable[str] = (), source_keys: Iterable[str] = ()) -> None:
        """Forget what is known of these people's rows. No statement names them: warehouses keep queries."""
        salt = uuid.uuid4().hex
        digests = [hashlib.md5((salt + key).encode(), usedforsecurity=False).hexdigest() for key in source_keys]
        for column, values in (("key", keys), (f"md5({literal(salt)} || source_key)", digests)):
            if some := ", ".join(map(literal, sorted(values))):
                self.session.execute(f"DELETE FROM {self.seen} WHERE {column} IN ({some})")

    # --- temporary tables ---------------------------------------------------------------------------------

    def gather(self, name: str, select: str, batches: pa.RecordBatchReader | None = None) -> str:
        """A temporary table made (anew) of a SELECT, and of rows that are loaded; returns how SQL names it."""
        table = self.temporary(name)
        self.session.execute(f"DROP TABLE IF EXISTS {table}")
        self.session.execute(f"CREATE TEMPORARY TABLE {table} AS {select}")
        if batches is not None:
            self.session.load(table, batches, temporary=True)
        return table

    def keys(self, keys: Sequence[str]) -> str:
        """A temporary table of these member keys, as many as there are."""
        import pyarrow as pa

        batches = pa.table({"key": pa.array(keys, pa.string())}).to_reader()
        return self.gather("headgate_keys", f"SELECT key FROM {self.members} WHERE 1 = 0", batches)


def _named(kind: str, number: int) -> str:
    """A name that no other part has, so that no process can write over what another one named."""
    return f"{kind}-{number}-{uuid.uuid4().hex[:12]}"


def _in_part(name: str, batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
    import pyarrow as pa

    schema = pa.schema([("part", pa.string()), *((f.name, f.type) for f in batches.schema)])

    def each() -> Iterable[pa.RecordBatch]:
        for batch in batches:
            part = pa.array([name] * batch.num_rows, pa.string())
            yield pa.RecordBatch.from_arrays([part, *batch.columns], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, each())
