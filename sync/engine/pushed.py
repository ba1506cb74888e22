"""The diff inside the warehouse that keeps the members: only rows and members that differ, or may, leave it.

The warehouse digests the raw rows and says which it saw before, and of whom they are members still. Such a row is
**unchanged** and stays there. What a mapping makes of a row is computed here alone, so that it is the same
wherever the row comes from. Everything else is fetched, and compared here as if it were all there is.

What is judged and what is fetched must be of one version of the cohort: a row that took over the source key of
another one in between would be neither unchanged nor fetched, and its member removed. Where a transaction reads
one version, both read the cohort in it. Elsewhere the one statement that judges copies the columns, too, and rows
are fetched from the copy. Members are parts that never change, and that statement alone reads what was seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync.engine.compile import PROBE, Compiled
from sync.engine.database import identifier
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import decoded, fetched, parts, session_of, tables, verify
from sync.sources.base import Column, Relation
from sync.sources.member_tables import MemberTables
from sync.sources.queries import pick, quoted
from sync.state.nouns import Generation

if TYPE_CHECKING:
    import duckdb

    from sync.sources.base import Source
    from sync.sources.pushed import Session

__all__ = ["ROWS", "Reduced", "empty", "reduced", "salt_of"]

ROWS = "cohort_rows"
"""The view that a pushed cohort is compiled over."""

_JUDGED = "headgate_judged"
_SOURCE_KEY, _DIGEST, _NEWEST = "headgate source_key", "headgate digest", "headgate newest"
_COPIED = "headgate {}"  # a column of the cohort, by its number; names that no column of a cohort has


@dataclass(frozen=True, slots=True)
class Reduced:
    """What left the warehouse, and what is to be known of what did not."""

    members: str  # a SELECT of the members that were fetched
    left: int  # rows that stayed: unchanged, and as many members
    version: str
    newest: float | None


def empty(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> None:
    """The view, without rows, for a mapping to be compiled over."""
    typed = ", ".join(f"NULL::{c.type} AS {identifier(c.name)}" for c in columns)
    connection.execute(f"CREATE OR REPLACE TEMP VIEW {ROWS} AS SELECT {typed} WHERE false")


def salt_of(connection: duckdb.DuckDBPyConnection, compiled: Compiled, forgotten: Sequence[str]) -> str:
    """A digest of everything that decides, besides a row's values, which member it is: where one of it moves, no
    row counts as seen. The forgotten are of it because somebody may be kept out by a field of theirs.
    """
    import duckdb

    probe = connection.execute(PROBE).fetchall()[0][0]
    parts = [compiled.digested, sorted(compiled.types.items()), probe, duckdb.__version__, sorted(forgotten)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def reduced(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    job: SyncJob,
    source: Source,
    generation: Generation,
    compiled: Compiled,
    columns: Sequence[Column],
    salt: str,
    apart: Collection[str],
    *,
    whole: Callable[[bool], bool],
) -> Iterator[tuple[Reduced, Callable[[str], None]]]:
    """Judge the cohort in the warehouse, and put what is not unchanged into the view `ROWS`.

    `columns` are those that the sync reads; `apart` are keys of members that are compared here in any case.
    `whole` says, given whether anything differs, whether everything is to be fetched. Yields with it a function
    that is told a SELECT of fetched rows (`source_key`, key, fingerprint of those that may count as seen).
    Raises `SourceError`, and `Corrupt` where the members there are not what the ledger says.
    """
    with _session(settings, job, source) as there:
        session = there.session
        judging = _Judging(connection, settings, job, generation, there, columns, salt)
        with session.transaction() if session.one_version else nullcontext():
            verify(settings, generation, session)
            judging.judge(apart)
            found = judging.fetch(compiled, whole)
            if not session.one_version:
                there.still(job.name, parts(generation), generation.digests)
        yield found, judging.remember


@contextmanager
def _session(settings: EngineSettings, job: SyncJob, source: Source) -> Iterator[MemberTables]:
    """A session that compares, with the tables there. They are made in one of its own, before: to make a schema
    can be to enter it, and a session need not see what another one made since it began.
    """
    what = f"comparing {job.name}"
    with session_of(source, what) as session, tables(settings, job.name, job.place, session) as there:
        if there.complete():
            yield there
            return
    with tables(settings, job.name, job.place):
        pass
    with session_of(source, what) as session, tables(settings, job.name, job.place, session) as there:
        yield there


@dataclass(slots=True)
class _Judging:
    """One comparison inside a warehouse."""

    connection: duckdb.DuckDBPyConnection
    settings: EngineSettings
    job: SyncJob
    generation: Generation
    there: MemberTables
    columns: Sequence[Column]
    salt: str
    judged: str = ""  # the warehouse's table of all rows
    rows: str = ""  # table of the rows that were fetched

    @property
    def session(self) -> Session:
        return self.there.session

    @property
    def _current(self) -> str:
        return self.there.current(self.generation.base, self.generation.delta)

    def _named(self, wanted: str) -> str:
        return pick([wanted], [c.name for c in self.columns], "the cohort")[0]

    @property
    def _key(self) -> str:
        return self.session.dialect.text(quoted(self._named(self.job.cohort.source.key)))

    @property
    def _cohort(self) -> str:
        where = self.job.cohort.source
        return self.session.named(Relation(where.table, where.query))

    @property
    def _digest(self) -> str:
        updated = self.job.cohort.source.updated_at
        mapped = {m.from_ for m in (*self.job.sync.identifiers, *self.job.sync.fields)}
        alone = (
            updated is not None
            and updated not in mapped
            and not any(m.expr for m in (*self.job.sync.identifiers, *self.job.sync.fields))
        )
        out = self._named(updated) if alone and updated else None
        return self.session.dialect.digest([c for c in self.columns if c.name != out], self.salt)

    @property
    def _copied(self) -> dict[str, str]:
        """The cohort's columns, and what they are called in the copy, both in quotes."""
        return {quoted(c.name): quoted(_COPIED.format(n)) for n, c in enumerate(self.columns)}

    # --- judging ------------------------------------------------------------------------------------------

    def judge(self, apart: Collection[str]) -> None:
        """Make the table of all rows: those that are unchanged have the `key` of their member."""
        updated = self.job.cohort.source.updated_at
        newest = quoted(self._named(updated)) if updated else "CAST(NULL AS TIMESTAMP)"
        source_key, digest = f"c.{quoted(_SOURCE_KEY)}", f"c.{quoted(_DIGEST)}"
        copied = {} if self.session.one_version else self._copied
        self.judged = self.there.gather(
            _JUDGED,
            f"SELECT {source_key} AS source_key, {digest} AS digest, c.{quoted(_NEWEST)} AS newest, m.key"
            f"{''.join(f', c.{name}' for name in copied.values())} FROM "
            f"(SELECT {self._key} AS {quoted(_SOURCE_KEY)}, {self._digest} AS {quoted(_DIGEST)}, "
            f"{newest} AS {quoted(_NEWEST)}"
            f"{''.join(f', {own} AS {name}' for own, name in copied.items())} FROM {self._cohort}) c "
            f"LEFT JOIN {self.there.known()} s ON s.source_key = {source_key} AND s.digest = {digest} "
            f"LEFT JOIN ({self._current}) m ON m.key = s.key AND m.fingerprint = s.fingerprint",
        )
        if apart:
            self._unsettle(f"key IN (SELECT key FROM {self.there.keys(sorted(apart))})")
        for column in ("source_key", "key"):
            twice = f"SELECT {column} FROM {self.judged} WHERE {column} IS NOT NULL"
            self._unsettle(f"{column} IN (SELECT {column} FROM ({twice}) t GROUP BY 1 HAVING count(*) > 1)")

    def _unsettle(self, which: str) -> None:
        self.session.execute(f"UPDATE {self.judged} SET key = NULL WHERE key IS NOT NULL AND {which}")

    # --- fetching -----------------------------------------------------------------------------------------

    def fetch(self, compiled: Compiled, whole: Callable[[bool], bool]) -> Reduced:
        """What is not unchanged, as `ROWS` and as the members of the answer."""
        number = self.session.dialect.number
        sums = ", ".join(f"coalesce(sum({number(f'substr(digest, {at}, 8)')}), 0)" for at in (1, 9, 17))
        ((rows, settled, *version),) = self.session.rows(f"SELECT count(*), count(key), {sums} FROM {self.judged}")
        differs = not rows == settled == self.generation.members
        if whole(bool(differs)):
            self._unsettle("1 = 1")
            settled, differs = 0, True
        members = self._members() if differs else self._none()
        if differs:
            settled -= self._close(compiled, members)
        text = f"{int(rows)}:" + "-".join(str(int(one)) for one in version)
        told = hashlib.sha256(text.encode()).hexdigest()
        return Reduced(decoded(self.connection, members, compiled.identifiers), int(settled), told, self._newest())

    def _none(self) -> str:
        return fetched(
            self.connection, self.settings, self.session, [f"SELECT * FROM ({self._current}) m WHERE 1 = 0"]
        )

    def _members(self) -> str:
        """Fetch the rows that are not unchanged, and the members that no unchanged row is of."""
        settled = f"SELECT 1 FROM {self.judged} j WHERE j.key IS NOT NULL AND j"
        self.rows = self._fetch_rows(f"NOT EXISTS ({settled}.source_key = c.{quoted(_SOURCE_KEY)})")
        self._show()
        select = f"SELECT * FROM ({self._current}) m WHERE NOT EXISTS ({settled}.key = m.key)"
        return fetched(self.connection, self.settings, self.session, [select])

    def _fetch_rows(self, which: str) -> str:
        """The rows with these source keys, each with its digest."""
        own = ", ".join(quoted(c.name) for c in self.columns)
        select = (
            f"SELECT {own}, {quoted(_SOURCE_KEY)}, {self._digest} AS {quoted(_DIGEST)} FROM (SELECT {own}, "
            f"{self._key} AS {quoted(_SOURCE_KEY)} FROM {self._cohort}) c WHERE {which}"
        )
        if not self.session.one_version:
            own = ", ".join(f"d.{name} AS {own}" for own, name in self._copied.items())
            told = f"d.source_key AS {quoted(_SOURCE_KEY)}, d.digest AS {quoted(_DIGEST)}"
            select = f"SELECT * FROM (SELECT {own}, {told} FROM {self.judged} d) c WHERE {which}"
        return fetched(self.connection, self.settings, self.session, [select])

    def _show(self) -> None:
        own = ", ".join(identifier(c.name) for c in self.columns)
        self.connection.execute(f"CREATE OR REPLACE TEMP VIEW {ROWS} AS SELECT {own} FROM {self.rows}")

    def _close(self, compiled: Compiled, members: str) -> int:
        """Fetch the unchanged rows that share a key with a fetched one, and their members; how many there were."""
        found = self.connection.execute(
            f"SELECT DISTINCT key::VARCHAR FROM ({compiled.digested}) WHERE key IS NOT NULL "
            f"AND key::VARCHAR NOT IN (SELECT key FROM {members})"
        ).fetchall()
        if not found:
            return 0
        keys = self.there.keys(sorted(key for (key,) in found))
        shared = f"SELECT {{}} FROM {self.judged} j JOIN {keys} k ON j.key = k.key"
        ((count,),) = self.session.rows(shared.format("count(*)"))
        if not count:
            return 0
        rows = self._fetch_rows(f"c.{quoted(_SOURCE_KEY)} IN ({shared.format('j.source_key')})")
        select = f"SELECT * FROM ({self._current}) m WHERE m.key IN ({shared.format('j.key')})"
        theirs = fetched(self.connection, self.settings, self.session, [select])
        self.connection.execute(f"INSERT INTO {self.rows} SELECT * FROM {rows}")
        self.connection.execute(f"INSERT INTO {members} SELECT * FROM {theirs}")
        return int(count)

    def _newest(self) -> float | None:
        """Seconds since the epoch of the newest row."""
        updated = self.job.cohort.source.updated_at
        if updated is None:
            return None
        column = next(c for c in self.columns if c.name == self._named(updated))
        latest = self.session.dialect.latest("newest", column.type)
        table = fetched(
            self.connection, self.settings, self.session, [f'SELECT {latest} AS "newest" FROM {self.judged}']
        )
        ((moment,),) = self.connection.execute(
            f"SELECT epoch(TRY_CAST(newest AS TIMESTAMP)) FROM {table}"
        ).fetchall()
        return None if moment is None else float(moment)

    # --- remembering --------------------------------------------------------------------------------------

    def remember(self, fit: str) -> None:
        """Note the digests of fetched rows. `fit` is a SELECT of source_key, key and fingerprint of those that may
        count as seen; a source key that is repeated never does. Of the others nothing is known any more.
        """
        if not self.rows:
            return
        key = identifier(self._named(self.job.cohort.source.key))
        own, digest = identifier(_SOURCE_KEY), identifier(_DIGEST)
        rows = self.connection.sql(
            f"SELECT {own} AS source_key, {digest} AS digest, "
            "CASE WHEN copies = 1 THEN CAST(f.key AS VARCHAR) END AS key, "
            "CAST(f.fingerprint AS VARCHAR) AS fingerprint "
            f"FROM (SELECT *, count(*) OVER (PARTITION BY {own}) AS copies FROM {self.rows}) r "
            f"LEFT JOIN ({fit}) f ON CAST(r.{key} AS VARCHAR) = f.source_key"
        ).to_arrow_reader(50_000)
        self.there.remember(rows, self.judged)
