"""Repairing: a plan that puts members back who are missing at a destination, and removes who is there besides.

Only what the cohort still says is put back, and only who is neither in the cohort nor a member is removed: the
rest is what an ordinary run does. A repair always waits for a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sync.engine.compile import key_sql
from sync.engine.database import load_keys
from sync.engine.diff import nothing
from sync.engine.observe import Observed
from sync.engine.sql import identifier
from sync.sdk.nouns import Op
from sync.state.nouns import Verdict, VerdictAnswer
from sync.state.parquet import source, write

__all__ = ["changes", "verdict"]


@contextmanager
def changes(
    seen: Observed, ops: frozenset[Op], missing: Path, extra: Path, dirty: Sequence[str]
) -> Iterator[Path]:
    """Fill the table `changes` with a repair; yields a file that has the identifiers of those to remove.

    `missing` and `extra` are the files of a comparison, whose values are text. `dirty` keys are left to the next
    run, which asserts them. The yielded file is gone at the end.
    """
    nothing(seen.connection)
    load_keys(seen.connection, "dirty", dirty)
    if Op.ADD in ops:
        _put_back(seen, missing)
    known = extra.with_suffix(".known.parquet")
    try:
        _name(seen, extra, known)
        if Op.REMOVE in ops:
            _take_out(seen, known)
        yield known
    finally:
        known.unlink(missing_ok=True)


def verdict(adds: int, removes: int) -> Verdict:
    """A repair is a decision: somebody else may have put people there, or taken them out, for a reason."""
    message = f"a repair adds {adds:,} and removes {removes:,} that somebody may have moved there on purpose"
    return Verdict("repair", VerdictAnswer.HOLD, 0, adds + removes, message)


def _put_back(seen: Observed, missing: Path) -> None:
    """Missing members, as far as the cohort still has them."""
    seen.connection.execute(
        f"INSERT INTO changes SELECT key, 'add', fingerprint, hash(source_key) FROM ({seen.cohort}) "
        f"WHERE why IS NULL AND key IN (SELECT key FROM {source(seen.connection, missing)})"
    )


def _name(seen: Observed, extra: Path, known: Path) -> None:
    """Whoever is there besides, with the key that they would have, and typed as the cohort's identifiers are."""
    types = {n: t for n, t in seen.compiled.types.items() if n.startswith("id.")}
    columns = [identifier(name) for name in types]
    typed = ", ".join(f"TRY_CAST({identifier(n)} AS {t}) AS {identifier(n)}" for n, t in types.items())
    nobody = " AND ".join(f"{column} IS NULL" for column in columns)
    write(
        seen.connection,
        f"SELECT {key_sql(columns)} AS key, remote_id, NULL::VARCHAR AS source_key, {', '.join(columns)} "
        f"FROM (SELECT remote_id, {typed} FROM {source(seen.connection, extra)}) WHERE NOT ({nobody})",
        known,
    )


def _take_out(seen: Observed, known: Path) -> None:
    """Those of them that are neither in the cohort, fit to be sent or not, nor members."""
    ours = (
        f"SELECT key FROM ({seen.cohort}) WHERE why IS NULL UNION ALL SELECT key FROM ({seen.members}) "
        "UNION ALL SELECT key FROM dirty"
    )
    seen.connection.execute(
        "INSERT INTO changes (key, op) SELECT DISTINCT key, 'remove' "
        f"FROM {source(seen.connection, known)} WHERE key NOT IN ({ours})"
    )
