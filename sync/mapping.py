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
from sync.paths import UsablePath
from sync.sdk.nouns import Op

__all__ = [
    "Alert",
    "Approve",
    "Cohort",
    "CohortSource",
    "Dbt",
    "DeliveryRules",
    "Duration",
    "Expect",
    "FieldMapping",
    "Guardrails",
    "Mapping",
    "Mode",
    "Poll",
    "RefreshRules",
    "RowRange",
    "Schedule",
    "Sync",
    "Timetable",
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
    tier: Name | None = None  # [schedules.NAME] of config.toml: for those of its syncs that have no schedule


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


def _one_of(model: Model, *names: str) -> None:
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        listed = ", ".join(f"`{name}`" for name in names[:-1])
        raise ValueError(f"give exactly one of {listed} and `{names[-1]}`")


class Timetable(Model):
    """When the clock asks for runs, and when it does not: one of `cron`, `every` and `at`."""

    cron: str | None = Field(None, description="A Unix cron line: minute hour day month weekday.")
    every: Duration | None = Field(None, description="An interval, counted from 1970: 15m.")
    at: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] | None = Field(
        None, description='Once a day at this time: "06:00".'
    )
    on: Annotated[int, Field(ge=1, le=28)] | Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z,-]*$")] | None = (
        Field(None, description="With `at`: the day of the month (1 to 28, or last), or weekdays (mon, mon-fri).")
    )
    timezone: str = Field("UTC", description="Whose clock is meant: Europe/Berlin.")
    jitter: Annotated[Duration, Field(le=86400)] | None = Field(
        None, description="Runs are spread over so long after their slot, each sync at a moment of its own."
    )
    blackout: tuple[str, ...] = Field((), description="Windows in which nothing is started: 22:00-06:00; sat,sun.")

    @model_validator(mode="after")
    def _when(self) -> Timetable:
        _one_of(self, *self._kinds())
        if self.on is not None and self.at is None:
            raise ValueError("`on` goes with `at`, the time of that day")
        return self

    @classmethod
    def _kinds(cls) -> tuple[str, ...]:
        return ("cron", "every", "at")


class Dbt(Model):
    """A dbt run that a sync runs after: by the file dbt writes at its end, or by a webhook of the dbt platform."""

    run_results: UsablePath | None = Field(
        None, description="dbt's target/run_results.json, from the project's folder."
    )
    models: tuple[str, ...] = Field((), description="Nodes of that file that must have succeeded; all without it.")
    webhook: Name | None = Field(None, description="[webhooks.NAME] of config.toml.")
    jobs: tuple[str, ...] = Field((), description="Ids of the platform's jobs that count; all without it.")

    @model_validator(mode="after")
    def _which(self) -> Dbt:
        _one_of(self, "run_results", "webhook")
        if self.models and self.run_results is None:
            raise ValueError("`models` goes with `run_results`: a webhook does not tell of models")
        if self.jobs and self.webhook is None:
            raise ValueError("`jobs` goes with `webhook`")
        return self


class Poll(Model):
    """How often the source is asked whether the cohort's table changed."""

    poll: Annotated[Duration, Field(ge=1)]


class Schedule(Timetable):
    """What makes the daemon run the sync: the clock, another sync, dbt, or a change of its source."""

    after: Name | None = Field(None, description="A sync: each run of it that completed asks for one run.")
    dbt: Dbt | None = None
    source: Poll | None = None

    @model_validator(mode="after")
    def _spread(self) -> Schedule:
        if self.jitter is not None and self.cron is None and self.every is None and self.at is None:
            raise ValueError("`jitter` goes with `cron`, `every` or `at`")
        return self

    @classmethod
    def _kinds(cls) -> tuple[str, ...]:
        return (*super()._kinds(), "after", "dbt", "source")


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
