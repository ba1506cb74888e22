"""config.toml and the environment as one frozen `Settings` that says where each value came from.

Every value can also come from the environment: `HEADGATE__ENGINE__MEMORY_LIMIT` stands for `[engine]
memory_limit` and wins over the file. Secrets are only ever references (see `sync.secrets`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from sync.address import ListenAddress
from sync.conditions import CONDITIONS, Condition
from sync.engine.job import DeliverySettings, EngineSettings, RetentionSettings
from sync.errors import Problem, ProjectError
from sync.files import Document, Location, Unreadable, known, read_toml, suggest
from sync.mapping import Approve, DeliveryRules, Duration, Name, Percent, Timetable
from sync.paths import UsablePath
from sync.sdk.nouns import Op
from sync.secrets import SecretReference
from sync.state_keys import read_keys
from sync.validation import children, problems

__all__ = [
    "CONFIG",
    "AlertingSettings",
    "ConfigPlaces",
    "DestinationSettings",
    "GuardrailSettings",
    "NotifierSettings",
    "Settings",
    "SourceSettings",
    "load_settings",
]

CONFIG = "config.toml"
_PREFIX = "HEADGATE__"

Seconds = Annotated[Duration, Field(gt=0)]
Days = Annotated[Duration, Field(ge=86400)]
WithinADay = Annotated[Duration, Field(ge=0.01, le=86400)]  # a socket waits for 24 days at most

_MEMORY = r"^[0-9]{1,6}(\.[0-9]{1,3})? ?[KMGT]i?B$"


class Section(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class StateSettings(Section):
    """Where the ledger, the members and the plans are kept."""

    path: UsablePath = Field(Path(".headgate"), description="Folder of the state, relative to the project.")
    busy_timeout: Seconds = Field(
        30.0, description="How long another process's writing to the ledger is waited for."
    )
    key: SecretReference | None = Field(
        None, description="Where the key is that encrypts members, plans and rejected records: base64 of 32 bytes."
    )
    previous_keys: tuple[SecretReference, ...] = Field(
        (), description="Where the keys are that encrypted older files; they are only read with."
    )

    @model_validator(mode="after")
    def _previous_to_what(self) -> StateSettings:
        if self.previous_keys and self.key is None:
            raise ValueError("`previous_keys` needs a `key`: the one that encrypts what is written from now on")
        return self


class ResourceSettings(Section):
    """How much of the machine a run may use."""

    memory_limit: str = Field("128MB", pattern=_MEMORY, description="DuckDB's memory; it spills to disk past it.")
    threads: int = Field(2, ge=1, le=256, description="DuckDB's threads.")
    lease_ttl: WithinADay = Field(30.0, description="How long a run holds its sync without a sign of life.")


class PlanSettings(Section):
    """How long plans live."""

    expire_after: Seconds = Field(86400.0, description="A held plan that nobody decides on is void after this.")


class RequestSettings(Section):
    """How requests to destinations are made and repeated."""

    request_timeout: WithinADay = Field(15.0, description="Hard limit of one request, from first byte to last.")
    attempts: int = Field(5, ge=1, le=100, description="Tries of one batch while the destination is unavailable.")
    backoff_first: Seconds = Field(0.5, description="Wait before the second try; it doubles with each.")
    backoff_max: Seconds = Field(30.0, description="The longest wait between two tries.")
    rate_limited_for: Seconds = Field(900.0, description="How long in all a batch waits on 429.")
    job_wait: Seconds = Field(600.0, description="How long a run waits for the platform's jobs.")


class RetentionRules(Section):
    """How long what is over is kept; what is open, held, approved or undelivered always is, and the audit log."""

    unchanged: Days = Field(7 * 86400.0, description="Runs that had nothing to do, refreshes, requests.")
    runs: Days = Field(400 * 86400.0, description="All other runs, with their receipts, plans and decisions.")
    plans: Days = Field(
        90 * 86400.0, description="Plan files and copies of rejected records; an undo finds values in them."
    )
    members: Days = Field(90 * 86400.0, description="Earlier generations of members: as far back as an undo goes.")


class DaemonSettings(Section):
    """How `headgate daemon` works."""

    workers: int = Field(
        2, ge=1, le=32, description="Syncs that read and compare at a time, each with its own memory_limit."
    )
    stuck_after: Seconds = Field(
        3600.0, description="A run without a sign of life (a step, a batch, a try) for so long is told to end."
    )
    quit_after: Seconds = Field(
        60.0, description="If it does not end within this, the daemon ends itself with exit code 70."
    )


class GuardrailSettings(Section):
    """The limits every plan is judged by; a mapping may only tighten them."""

    max_removed: int = Field(1000, ge=0, description="More removals in one plan hold it.")
    max_removed_pct: Percent = Field(5.0, description="A larger share of the members removed holds the plan.")
    small_removal: int = Field(25, ge=0, description="Below so many removals no share is judged.")
    max_removed_pct_7d: Percent = Field(15.0, description="The same, summed over seven days.")
    max_added_pct: Percent = Field(50.0, description="More additions, as a share of the members, warn.")
    hold_additions: bool = Field(False, description="Additions past the limit hold instead of warning.")
    max_nulled_pct: Percent = Field(10.0, description="A field turning null for more of the members holds.")
    max_bad_keys: int = Field(0, ge=0, description="Rows with a null or duplicate key that a run tolerates.")
    warn_rejected_pct: Percent = Field(5.0, description="A larger rejected share warns while sending.")
    stop_rejected_pct: Percent = Field(20.0, description="A larger rejected share stops the run.")
    allow_irreversible: tuple[Op, ...] | None = Field(
        None, description="The irreversible ops that mappings may allow; all where it is left out."
    )
    approve: Approve = Approve()


class AuditSettings(Section):
    """Where the audit log's signed checkpoints are kept."""

    checkpoints: UsablePath = Field(
        Path("checkpoints"), description="Folder of the checkpoints; better on another disk than the state."
    )
    every: int = Field(100, ge=1, description="Events between two checkpoints.")


class HttpSettings(Section):
    """What the daemon serves over HTTP; nothing without an address."""

    listen: ListenAddress | None = Field(
        None, description="Where the daemon listens, `127.0.0.1:8520` say; nowhere where it is left out."
    )
    hosts: tuple[str, ...] = Field((), description="Names it is called by, those of a proxy in front of it say.")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s<>\"']+$",
        description="Where people reach it; messages of alerts link there.",
    )
    open_metrics: bool = Field(False, description="Serve /metrics to whoever has no token, too.")


class BlackoutSettings(Section):
    """When the daemon starts no run by itself, whatever the schedules say."""

    windows: tuple[str, ...] = Field((), description="Windows of time: 22:00-06:00; sat,sun; mon-fri 08:00-18:00.")
    timezone: str = Field("UTC", description="Whose clock they are read on.")


class WebhookSettings(Section):
    """`[webhooks.NAME]`: who may tell the daemon that a dbt run ended."""

    secret: SecretReference = Field(description="Where the secret is that the sender signs the body with.")


class PeopleSettings(Section):
    """Groups of persons, named in `approve: {by: [...]}`."""

    groups: dict[str, tuple[str, ...]] = {}


class NotifierSettings(Section):
    """`[alerts.NAME]`: where messages go."""

    url: SecretReference = Field(description="Where the address is, as apprise writes it: it has the token in it.")
    format: Literal["text", "markdown"] = Field("text", description="How messages are written.")


class AlertingSettings(Section):
    """What people are told of, whichever sync it is; a mapping's `alerts` tell more people."""

    to: tuple[str, ...] = Field((), description="The [alerts.NAME] that are told of every sync.")
    on: tuple[Condition, ...] = Field(CONDITIONS, description="What they are told of; what ends is told, too.")
    max_rejected: int = Field(100, ge=0, description="More refused or unknown records of a sync are told.")
    max_rejected_pct: Percent = Field(5.0, description="The same, as a share of its members.")
    late_after: Seconds = Field(3600.0, description="A run that has not ended so long after it was due is late.")
    repeat_after: Seconds | None = Field(None, description="What is still wrong is told again after this.")
    flapping: int = Field(6, ge=2, description="What changes more often in an hour is told once, and summed up.")
    dead_man_url: SecretReference | None = Field(
        None, description="Where the address is that the daemon asks for while it works: who watches it tells."
    )
    dead_man_every: Seconds = Field(60.0, description="How often it asks.")


class _Typed(Section):
    """A table with a `type` and options that the type's own model checks."""

    type: str
    options: dict[str, Any] = {}

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        own = {k: v for k, v in value.items() if cls._is_own(k, v)}
        return {**own, "options": {k: v for k, v in value.items() if k not in own}}

    @classmethod
    def _is_own(cls, key: str, value: Any) -> bool:  # noqa: ARG003 - subclasses look at it
        return key == "type"


class SourceSettings(_Typed):
    """`[sources.NAME]`: a warehouse connection."""


class DestinationSettings(_Typed):
    """`[destinations.NAME]`: an account of a platform, and how fast it may be used."""

    delivery: DeliveryRules = DeliveryRules()

    @classmethod
    def _is_own(cls, key: str, value: Any) -> bool:
        # Only a table is ours: a connector may have an option of this name (`delivery = "snapshot"`).
        return key == "type" or (key == "delivery" and isinstance(value, dict))


class _Environment(EnvSettingsSource):
    """The environment; only lists and groups are JSON in it, so that an account `123` stays text."""

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:
        """The list or group, or the text as it stands."""
        try:
            decoded = super().decode_complex_value(field_name, field, value)
            json.dumps(decoded, ensure_ascii=False).encode()  # refuses half characters
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return decoded if isinstance(decoded, dict | list) else value


class Settings(BaseSettings):
    """Everything that config.toml and the environment say."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
        nested_model_default_partial_update=False,
    )

    state: StateSettings = StateSettings()
    engine: ResourceSettings = ResourceSettings()
    plans: PlanSettings = PlanSettings()
    delivery: RequestSettings = RequestSettings()
    guardrails: GuardrailSettings = GuardrailSettings()
    audit: AuditSettings = AuditSettings()
    http: HttpSettings = HttpSettings()
    retention: RetentionRules = RetentionRules()
    daemon: DaemonSettings = DaemonSettings()
    people: PeopleSettings = PeopleSettings()
    alerts: dict[str, NotifierSettings] = {}
    alerting: AlertingSettings = AlertingSettings()
    schedules: dict[Name, Timetable] = {}
    blackout: BlackoutSettings = BlackoutSettings()
    webhooks: dict[Name, WebhookSettings] = {}
    sources: dict[str, SourceSettings] = {}
    destinations: dict[str, DestinationSettings] = {}

    _root: Path = PrivateAttr(Path())
    _places: ConfigPlaces = PrivateAttr()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is the library's
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is read."""
        return _Environment(settings_cls), init_settings

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._root

    @property
    def places(self) -> ConfigPlaces:
        """Where each value stands."""
        return self._places

    @property
    def state_folder(self) -> Path:
        """The state folder, absolute."""
        return self._root / self.state.path.expanduser()

    @property
    def checkpoints_folder(self) -> Path:
        """The folder of the audit log's checkpoints, absolute."""
        return self._root / self.audit.checkpoints.expanduser()

    def state_keys(self) -> list[tuple[str, str]]:
        """(setting, reference) of the keys of state files; the first encrypts, all decrypt."""
        current = [("key", self.state.key)] if self.state.key is not None else []
        return current + [(f"previous_keys, entry {n}", r) for n, r in enumerate(self.state.previous_keys, 1)]

    def origin(self, name: str) -> str:
        """Where a value came from: `config.toml:12`, `environment HEADGATE__...` or `default`.

        `name` is dotted: `engine.memory_limit`, `destinations.crm.url`.
        """
        return self._places.origin(tuple(name.split(".")))

    def engine_settings(self) -> EngineSettings:
        """What the engine needs of this. Raises `SecretError` where a key of the state is not there."""
        return EngineSettings(
            folder=self.state_folder,
            memory_limit=self.engine.memory_limit,
            threads=self.engine.threads,
            expire_after=self.plans.expire_after,
            lease_ttl=self.engine.lease_ttl,
            keys=read_keys(self.state_keys(), self._root),
            delivery=DeliverySettings(**self.delivery.model_dump()),
            retention=RetentionSettings(**self.retention.model_dump()),
        )


@dataclass(frozen=True, slots=True)
class ConfigPlaces:
    """The places of config.toml's values with those of the environment over them."""

    document: Document
    variables: Mapping[Location, str]  # the way to a value -> the variable that gives it

    def known(self, location: Iterable[str | int]) -> Location:
        """The longest part of the way that the file or the environment really has."""
        way = tuple(location)
        found = known(self.document.data, way)
        if any(v == way[: len(v)] and len(v) > len(found) for v in self.variables):
            return way
        return way[: max([len(found), *(_shared(v, way) for v in self.variables)])]

    def variable(self, location: Location) -> str | None:
        """The variable that gives the value, or one that holds it; or one that gives a part of it, where the file
        has none."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.variables:
                return self.variables[location[:end]]
        if not location or known(self.document.data, location) == location:
            return None
        return next((name for v, name in self.variables.items() if v[: len(location)] == location), None)

    def problem(
        self,
        location: Location,
        code: str,
        message: str,
        fix: str = "",
        *,
        key: bool = False,
        warning: bool = False,
    ) -> Problem:
        """A problem of the value there, in the file or in the environment."""
        if (name := self.variable(location)) is not None:
            return Problem(code, message, fix, f"environment {name}", warning=warning)
        return self.document.problem(location, code, message, fix, key=key, warning=warning)

    def origin(self, location: Location) -> str:
        """Where the value came from, in words."""
        if (name := self.variable(location)) is not None:
            return f"environment {name}"
        mark = self.document.values.get(location)
        return f"{self.document.file}:{mark.line}" if mark is not None else "default"


def _shared(one: Location, other: Location) -> int:
    """How many steps two ways have in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def load_settings(root: Path) -> Settings:
    """The settings of the project in the folder `root`; raises `ProjectError` with every problem found."""
    if not _is_file(root / CONFIG):
        fix = "Go to the project's folder or name it with --project; `headgate init DIR` makes one."
        raise ProjectError([Problem("HG101", f"there is no {CONFIG} in this folder", fix, CONFIG)])
    try:
        document = read_toml(root / CONFIG, CONFIG)
    except Unreadable as error:
        raise ProjectError(error.problems) from None
    places = ConfigPlaces(document, _variables())
    if unknown := _unknown_variables(places):
        raise ProjectError(unknown)
    settings = _validated(places)
    settings._root = root
    settings._places = places
    return settings


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that nobody may enter, a name that is too long
        return False


def _validated(places: ConfigPlaces) -> Settings:
    try:
        return Settings(**places.document.data)
    except ValidationError as error:
        raise ProjectError(problems(error, Settings, places)) from None
    except SettingsError:
        named = ", ".join(sorted(places.variables.values()))
        message = "a variable of the environment holds neither a plain value nor JSON"
        raise ProjectError([Problem("HG108", message, f"Check {named}.", "environment")]) from None


def _variables() -> dict[Location, str]:
    """The way each variable of ours points to -> its name."""
    ours = [name for name in os.environ if name.upper().startswith(_PREFIX)]
    return {tuple(name[len(_PREFIX) :].lower().split("__")): name for name in ours}


def _unknown_variables(places: ConfigPlaces) -> list[Problem]:
    """Variables that the settings library would ignore or stumble over."""
    sections = children(Settings, ())
    broken = [
        Problem("HG108", "the variable's name or value cannot be read", _VARIABLE_FIX, f"environment {name}")
        for way, name in places.variables.items()
        if "" in way or not _is_text(name + os.environ[name])
    ]
    return broken or [
        Problem(
            "HG108",
            f"no section `{way[0]}` is known",
            suggest(str(way[0]), sections, "Sections"),
            f"environment {name}",
        )
        for way, name in places.variables.items()
        if way[0] not in sections
    ]


_VARIABLE_FIX = "Words of the name stand between two underscores each, and the value is UTF-8 text."


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
