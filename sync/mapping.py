"""The mapping file: one cohort and its syncs, as marketing ops write it.

Only the models live here; `sync.files` reads files into them and says where a value stands.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import core_schema

from sync.conditions import Condition
from sync.durations import check_rate, parse_duration
from sync.sdk.nouns import Op

__all__ = [
    "Alert",
    "Approve",
    "Cohort",
    "CohortSource",
    "DeliveryRules",
    "Duration",
    "Expect",
    "FieldMapping",
    "Guardrails",
    "Mapping",
    "Mode",
    "RefreshRules",
    "RowRange",
    "Schedule",
    "Sync",
    "Transform",
]

_DURATION_SCHEMA = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s|m|h|d|w)$"}],
    "examples": ["90s", "15m", "24h", "7d"],
}

_TEN_YEARS = 10 * 366 * 86400.0

Duration = Annotated[
    float,
    Field(ge=0, le=_TEN_YEARS, allow_inf_nan=False),
    BeforeValidator(parse_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""Seconds, at most ten years; written as `90s`, `15m`, `24h` or `7d`."""

RateLimit = Annotated[str, AfterValidator(check_rate)]
"""Requests in a window of time: `100/10s`, `1000/m`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}$")]
Percent = Annotated[float, Field(ge=0, le=100)]


class Model(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Mode(StrEnum):
    """Which ops a sync may send: a small table of permissions."""

    MIRROR = "mirror"
    UPSERT = "upsert"
    INSERT = "insert"
    UPDATE = "update"

    @property
    def ops(self) -> frozenset[Op]:
        """The permitted ops."""
        return _OPS[self]


_OPS = {
    Mode.MIRROR: frozenset({Op.ADD, Op.UPDATE, Op.REMOVE}),
    Mode.UPSERT: frozenset({Op.ADD, Op.UPDATE}),
    Mode.INSERT: frozenset({Op.ADD}),
    Mode.UPDATE: frozenset({Op.UPDATE}),
}


class CohortSource(Model):
    """Where the cohort's rows come from: a table or a query of one connection, with a unique key."""

    connection: Name
    table: str | None = None
    query: str | None = None
    key: str
    updated_at: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> CohortSource:
        if (self.table is None) == (self.query is None):
            raise ValueError("give either `table` or `query`")
        return self


class RefreshRules(Model):
    """How often the warehouse rebuilds the cohort, and from which age on it is stale."""

    every: Duration | None = None
    stale_after: Duration | None = None


class RowRange(Model):
    """How many rows are plausible."""

    min: int | None = Field(default=None, ge=0)
    max: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _in_order(self) -> RowRange:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("`min` is above `max`")
        return self


class Expect(Model):
    """What a healthy refresh looks like."""

    rows: RowRange = RowRange()
    drift_pct: Percent | None = None  # change of the row count against the last accepted refresh


class Cohort(Model):
    """A named set of people with an owner, a purpose and a definition."""

    name: Name
    title: str = ""
    owner: str = ""
    reviewers: tuple[str, ...] = ()
    purpose: str = ""
    definition: str = ""
    limitations: tuple[str, ...] = ()
    docs: str = ""
    protected: bool = False
    source: CohortSource
    refresh: RefreshRules = RefreshRules()
    expect: Expect = Expect()


class Transform(Model):
    """A named transform with its argument, written `trim` or `{e164: AU}`."""

    name: str
    argument: str | int | float | bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and not {"name", "argument"} & set(value):
            ((name, argument),) = value.items()
            return {"name": name, "argument": argument}
        return value

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The short forms too."""
        argument = {"type": ["string", "number", "boolean", "null"]}
        short = {"type": "object", "additionalProperties": argument, "minProperties": 1, "maxProperties": 1}
        return {"anyOf": [{"type": "string"}, short, handler.resolve_ref_schema(handler(schema))]}


class FieldMapping(Model):
    """One field of the destination: from a column, an expression, or a constant."""

    to: str = Field(min_length=1)
    from_: str | None = Field(default=None, alias="from")
    expr: str | None = None
    value: str | int | float | bool | None = None
    transform: tuple[Transform, ...] = ()
    pii: bool = False

    @model_validator(mode="after")
    def _one_of(self) -> FieldMapping:
        given = [n for n in ("from_", "expr", "value") if n in self.model_fields_set]
        if len(given) != 1:
            raise ValueError("give exactly one of `from`, `expr` and `value`")
        return self


class Approve(Model):
    """Who may approve a held plan of this sync."""

    by: tuple[str, ...] = ()  # persons, or names of groups in config.toml; empty: anybody
    four_eyes: bool = False  # whoever last changed the mapping may not


class Guardrails(Model):
    """The limits a plan is judged by; None takes the default of config.toml, which is also the ceiling."""

    max_removed: int | None = Field(default=None, ge=0)
    max_removed_pct: Percent | None = None
    max_removed_pct_7d: Percent | None = None
    max_added_pct: Percent | None = None
    hold_additions: bool | None = None  # the additions surge holds instead of warning
    max_nulled_pct: Percent | None = None
    max_bad_keys: int | None = Field(default=None, ge=0)  # rows with a null or duplicate key
    warn_rejected_pct: Percent | None = None
    stop_rejected_pct: Percent | None = None
    allow_irreversible: tuple[Op, ...] = ()
    approve: Approve = Approve()


class Schedule(Model):
    """When the daemon runs the sync: a cron line in a time zone, or an interval."""

    cron: str | None = None
    every: Duration | None = None
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _one_of(self) -> Schedule:
        if (self.cron is None) == (self.every is None):
            raise ValueError("give either `cron` or `every`")
        return self


class DeliveryRules(Model):
    """How this sync may use the destination; it may only go slower than the connector declares."""

    rate_limit: RateLimit | None = None  # `100/10s`
    batch_size: int | None = Field(default=None, ge=1)
    concurrency: int | None = Field(default=None, ge=1, le=256)


class Alert(Model):
    """Whom to tell of what, besides those whom config.toml has told of every sync."""

    on: tuple[Condition, ...] = Field(min_length=1)
    to: tuple[str, ...] = Field(min_length=1)  # names of [alerts.NAME] in config.toml


class Sync(Model):
    """One cohort to one destination's object."""

    name: Name
    destination: Name
    object: str | None = None  # may be left out where the connector has only one
    audience: str | None = None
    mode: Mode
    schedule: Schedule | None = None
    identifiers: tuple[FieldMapping, ...] = Field(min_length=1)
    fields: tuple[FieldMapping, ...] = ()
    guardrails: Guardrails = Guardrails()
    delivery: DeliveryRules = DeliveryRules()
    alerts: tuple[Alert, ...] = ()
    tags: tuple[str, ...] = ()
    disabled: bool = False


class Mapping(Model):
    """One mapping file."""

    version: Literal[1]
    cohort: Cohort
    syncs: tuple[Sync, ...] = Field(min_length=1)
