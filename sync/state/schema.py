"""Keeps the ledger's tables at the version this code knows, and refuses a ledger that is newer."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from sync.errors import StateError
from sync.state.database import Database

__all__ = ["HEAD", "migrate"]

HEAD = "0008"
"""The newest migration. Named here because Alembic takes longer to import than most commands to run."""


def migrate(database: Database) -> None:
    """Bring the file to `HEAD`, making the tables in a new one, in one transaction.

    Raises `StateError` where a later version of headgate wrote it, or something that is not headgate.
    """
    with database.read() as connection:
        if _is_current(connection, database.path):
            return
    with database.write() as connection:
        # Another process may have been faster while this one waited for the lock.
        if not _is_current(connection, database.path):
            _upgrade(connection)


def _is_current(connection: sa.Connection, path: Path) -> bool:
    tables = set(sa.inspect(connection).get_table_names())
    if "alembic_version" not in tables:
        if tables:
            raise StateError(
                f"{path} is a database, but not a ledger of headgate",
                code="HG317",
                fix="name another file; headgate makes a new ledger where there is none",
            )
        return False
    version = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if version is not None and version > HEAD:
        raise StateError(
            f"the ledger {path} was written by a later headgate (its schema is {version}, this one knows {HEAD})",
            code="HG316",
            fix="upgrade headgate, or restore the backup that was made before the upgrade",
        )
    return bool(version == HEAD)


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
