"""Sources: the warehouses that cohorts are read from. A driver is imported when a source of its type is opened."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.errors import SourceError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from sync.sources.base import Source

__all__ = ["open_source", "option_models"]


def option_models() -> dict[str, type[BaseModel]]:
    """What each type of source takes in `[sources.NAME]`, besides `type`."""
    from sync.sources.options import DuckDBOptions, PostgresOptions, SnowflakeOptions

    return {"duckdb": DuckDBOptions, "postgres": PostgresOptions, "snowflake": SnowflakeOptions}


def open_source(name: str, options: Mapping[str, Any], root: Path, purpose: str = "") -> Source:
    """The source that `[sources.NAME]` describes; nothing is connected yet.

    `options` has `type` and secrets as plain values; relative paths start at `root`; `purpose` is what the
    warehouse is told that we read for: a sync's name. Raises `SourceError` (HG200) where they are not valid.
    """
    from pydantic import ValidationError

    models = option_models()
    given = dict(options)
    kind = str(given.pop("type", ""))
    if kind not in models:
        raise SourceError(f"source {name}: there is no type '{kind}'", fix=f"types are {', '.join(models)}")
    try:
        checked: Any = models[kind].model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SourceError(
            f"source {name}: {where}{': ' if where else ''}{first['msg']}", fix=f"see [sources.{name}]"
        ) from None
    if kind == "snowflake":
        from sync.sources.snowflake import SnowflakeSource

        return SnowflakeSource(name, checked, purpose)
    if kind == "postgres":
        from sync.sources.postgres import PostgresSource

        return PostgresSource(name, checked, root, purpose)
    from sync.sources.duckdb import DuckDBSource

    return DuckDBSource(name, checked, root)
