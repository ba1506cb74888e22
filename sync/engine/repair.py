"""Repairing: a plan that puts members back who are missing at a destination, and removes who is there besides.

Only what the cohort still says is put back, and only who is neither in the cohort nor a member is removed: the
rest is what an ordinary run does. A repair always waits for a person.
"""

from __future__ import annotations

from pathlib import Path

from sync.engine.compile import key_sql
from sync.engine.diff import nothing
from sync.engine.observe import Observed
from sync.engine.sql import identifier
from sync.sdk.nouns import Op
from sync.state.nouns import Verdict, VerdictAnswer
from sync.state.parquet import source, write

__all__ = ["changes_of", "verdict"]


def changes_of(seen: Observed, ops: frozenset[Op], missing: Path, extra: Path, known: Path) -> None:
    """Fill the table `changes` with a repair; `known` becomes a file with the identifiers of those to remove.

    `missing` and `extra` are the files of a comparison, whose values are text.
    """
    connection = seen.connection
    nothing(connection)
    types = {n: t for n, t in seen.compiled.types.items() if n.startswith("id.")}
    columns = [identifier(name) for name in types]
    typed = ", ".join(f"TRY_CAST({identifier(n)} AS {t}) AS {identifier(n)}" for n, t in types.items())
    cohort = f"SELECT key, fingerprint FROM ({seen.cohort}) WHERE why IS NULL"
    if Op.ADD in ops:
        connection.execute(
            f"INSERT INTO changes SELECT c.key, 'add', c.fingerprint FROM ({cohort}) c "
            f"WHERE c.key IN (SELECT key FROM {source(connection, missing)})"
        )
    write(
        connection,
        f"SELECT {key_sql(columns)} AS key, remote_id, NULL::VARCHAR AS source_key, {', '.join(columns)} "
        f"FROM (SELECT remote_id, {typed} FROM {source(connection, extra)})",
        known,
    )
    if Op.REMOVE in ops:
        connection.execute(
            "INSERT INTO changes SELECT DISTINCT key, 'remove', NULL::UBIGINT "
            f"FROM {source(connection, known)} WHERE key NOT IN (SELECT key FROM ({cohort})) "
            f"AND key NOT IN (SELECT key FROM ({seen.members}))"
        )


def verdict(adds: int, removes: int) -> Verdict:
    """A repair is a decision: somebody else may have put people there, or taken them out, for a reason."""
    message = f"a repair adds {adds:,} and removes {removes:,} that somebody else may have moved on purpose"
    return Verdict("repair", VerdictAnswer.HOLD, 0, adds + removes, message)
