"""Binds `[sources.*]` and `[destinations.*]` to their code: options checked, secrets still references."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError

from sync.errors import DestinationError, HeadgateError, Problem, ProjectError
from sync.files import Location, suggest
from sync.paths import usable
from sync.sdk import registry
from sync.sdk.connector import Connector
from sync.sdk.nouns import ObjectSpec
from sync.secrets import SecretError, parse, resolve
from sync.settings import DestinationSettings, Settings, SourceSettings
from sync.sources import open_source, option_models
from sync.sources.base import Source
from sync.validation import arms, problems

__all__ = ["BoundDestination", "BoundSource", "bind_destinations", "bind_sources"]

_PLACEHOLDER = "placeholder"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")

Leaf = Callable[[Any, Location, Any], Any]
"""(annotation, way, value) -> the value to use instead."""


# --- destinations ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoundDestination:
    """One configured account of a platform, with its connector's code."""

    name: str
    settings: DestinationSettings
    connector: type[Connector[Any]]
    config: Any  # with placeholders where secrets belong: good for describing, not for sending
    root: Path

    @cached_property
    def objects(self) -> Mapping[str, ObjectSpec]:
        """What can be written there; nothing is sent to find out."""
        from sync.sdk.http import offline_client

        with offline_client(self.connector, self.config) as client:
            return self.connector(self.config, client).objects

    @property
    def account(self) -> str:
        """Whose quota requests count against.

        Where that depends on a secret, the reference stands for it: no secret is read to find out, and two
        destinations with secrets of their own do not share a lane.
        """
        try:
            config = self.connector.config_model(**self.settings.options)
        except ValidationError:  # a reference does not look like the secret: only the real value would do
            references = ",".join(reference for _, reference in self.secrets())
            return f"{self.connector.account(self.config)} {references}"
        return self.connector.account(config)

    @property
    def identity(self) -> str:
        """What makes this another destination when it changes: the account and the address, not the secret."""
        return (
            f"{self.connector.name} {self.connector.account(self.config)} {self.connector.base_url(self.config)}"
        )

    def secrets(self) -> Iterator[tuple[Location, str]]:
        """The ways to the options that are references, and the references."""
        found: list[tuple[Location, str]] = []

        def note(annotation: Any, way: Location, value: Any) -> Any:
            if annotation is SecretStr:
                found.append((way, value))
            return value

        _map(self.connector.config_model, self.settings.options, (), note)
        yield from found

    def connect(
        self, timeout: float, connections: int, before_request: Callable[[], float | None]
    ) -> Connector[Any]:
        """A connector that can send; `timeout` limits one request, in seconds.

        `before_request` is called by the sending thread before each request.
        Raises `SecretError` where a secret is missing, `ProjectError` where its value does not fit.
        """
        from sync.sdk.http import build_client

        config = self._resolved()
        client = build_client(
            self.connector, config, timeout=timeout, connections=connections, before_request=before_request
        )
        return self.connector(config, client)

    def described(self, object: str, timeout: float) -> frozenset[str]:
        """The names of the fields that the account says an object has; none where it does not say."""
        from sync.sdk.connector import Describes

        try:
            connector = self.connect(timeout, 1, lambda: None)
        except (SecretError, ProjectError):
            return frozenset()
        try:
            if not isinstance(connector, Describes):
                return frozenset()
            return frozenset(one.name for one in connector.describe(object))
        except DestinationError:
            return frozenset()
        finally:
            connector.http.close()

    def _resolved(self) -> Any:
        where = f"[destinations.{self.name}]"
        model = self.connector.config_model
        options = _map(model, self.settings.options, (), _resolver(where, self.root))
        options = _map(model, options, (), lambda annotation, _, value: _absolute(annotation, value, self.root))
        try:
            return model(**options)
        except ValidationError as error:
            keys = ", ".join(f"`{'.'.join(map(str, d['loc']))}`" for d in error.errors(include_input=False))
            message = f"the value that {keys} of {where} refers to does not fit"
            raise ProjectError([Problem("HG107", message, "Check what the reference points to.")]) from None


def bind_destinations(settings: Settings) -> tuple[dict[str, BoundDestination], list[Problem]]:
    """Every destination whose options are valid, and the problems of the others."""
    bound: dict[str, BoundDestination] = {}
    found: list[Problem] = []
    for name, entry in settings.destinations.items():
        try:
            bound[name] = _destination(name, entry, settings)
        except ProjectError as error:
            found += error.problems
    return bound, found


def _destination(name: str, entry: DestinationSettings, settings: Settings) -> BoundDestination:
    where: Location = ("destinations", name)
    known = list(registry.available())
    if entry.type not in known and not registry.is_file(entry.type):
        fix = suggest(entry.type, known, "Installed connectors")
        raise ProjectError(
            [settings.places.problem((*where, "type"), "HG112", f"there is no connector {_told(entry.type)}", fix)]
        )
    try:
        connector = registry.load(entry.type, settings.root)
    except HeadgateError as error:
        if isinstance(error, ProjectError) and registry.is_file(entry.type):
            raise  # a manifest's problems have places of their own
        raise ProjectError(
            [settings.places.problem((*where, "type"), error.code, error.message, error.fix)]
        ) from None
    config = _checked(connector.config_model, entry.options, settings, where)
    return BoundDestination(name, entry, connector, config, settings.root)


# --- sources --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class BoundSource:
    """One warehouse connection."""

    name: str
    settings: SourceSettings
    model: type[BaseModel]
    root: Path
    options: BaseModel  # with placeholders where secrets belong

    def open(self, purpose: str = "") -> Source:
        """The source, ready to be asked; `purpose` is the sync. Raises `SecretError` or `SourceError`."""
        options = _map(self.model, self.settings.options, (), _resolver(f"[sources.{self.name}]", self.root))
        return open_source(self.name, {"type": self.settings.type, **options}, self.root, purpose)


def bind_sources(settings: Settings) -> tuple[dict[str, BoundSource], list[Problem]]:
    """Every source whose options are valid, and the problems of the others."""
    models = option_models()
    bound: dict[str, BoundSource] = {}
    found: list[Problem] = []
    for name, entry in settings.sources.items():
        where: Location = ("sources", name)
        if entry.type not in models:
            fix = suggest(entry.type, models, "Kinds of source")
            message = f"there is no source of the type {_told(entry.type)}"
            found.append(settings.places.problem((*where, "type"), "HG112", message, fix))
            continue
        try:
            options = _checked(models[entry.type], entry.options, settings, where)
            bound[name] = BoundSource(name, entry, models[entry.type], settings.root, options)
        except ProjectError as error:
            found += error.problems
    return bound, found


def _told(word: str) -> str:
    """The word where it looks like a name; what else stands there may be a secret that slipped a line."""
    return f"`{word}`" if _NAME.fullmatch(word) else "of the name that stands here"


# --- options --------------------------------------------------------------------------------------------------


def _checked(model: type[BaseModel], options: dict[str, Any], settings: Settings, where: Location) -> BaseModel:
    """The options as the type's model has them, with placeholders for secrets. Raises `ProjectError`."""
    found: list[Problem] = []
    hidden: set[Location] = set()

    def path(annotation: Any, way: Location, value: Any) -> Any:
        try:
            return _absolute(annotation, value, settings.root)
        except ValueError as error:
            found.append(settings.places.problem((*where, *way), "HG107", f"`{way[-1]}`: {error}"))
            return str(settings.root)

    def leaf(annotation: Any, way: Location, value: Any) -> Any:
        if annotation is not SecretStr:
            return path(annotation, way, value) if where[0] == "destinations" else value
        hidden.add((*where, *way))
        try:
            parse(value)
        except SecretError as error:
            problem = settings.places.problem(
                (*where, *way), error.code, f"`{way[-1]}`: {error.message}", error.fix
            )
            found.append(problem)
        return SecretStr(_PLACEHOLDER)

    replaced = _map(model, options, (), leaf)
    try:
        config = model(**replaced)
    except ValidationError as error:
        found += problems(error, model, settings.places, where, skip=hidden)
        if not found:  # only placeholders did not fit: the real values are judged when they are there
            config = model.model_construct(**replaced)
    if found:
        raise ProjectError(found)
    return config


def _resolver(where: str, root: Path) -> Leaf:
    """Puts secrets in the place of references."""

    def leaf(annotation: Any, way: Location, value: Any) -> Any:
        if annotation is not SecretStr:
            return value
        try:
            secret = resolve(parse(value), root)
        except SecretError as error:
            message = f"{where} {'.'.join(map(str, way))}: {error.message}"
            raise SecretError(message, code=error.code, fix=error.fix) from None
        _hide(secret)
        return secret

    return leaf


def _hide(secret: SecretStr) -> None:
    """No log line shows this value from now on."""
    from sync.logging import register_secret

    register_secret(secret.get_secret_value())


def _absolute(annotation: Any, value: Any, root: Path) -> Any:
    """Paths are relative to the project, not to wherever the command was started. Raises `ValueError`."""
    if annotation is Path and isinstance(value, str) and "://" not in value:
        return str(root.absolute() / usable(Path(value)).expanduser())
    return value


def _map(annotation: Any, value: Any, way: Location, leaf: Leaf) -> Any:
    """The value with every text in it, whose annotation is known, replaced by what `leaf` says."""
    found = arms(annotation)
    if isinstance(value, dict):
        return {key: _map(_inside(found, key), item, (*way, key), leaf) for key, item in value.items()}
    if isinstance(value, list):
        items = next((get_args(arm)[0] for arm in found if get_origin(arm) in (list, tuple, frozenset)), None)
        return [_map(items, item, (*way, index), leaf) for index, item in enumerate(value)]
    if isinstance(value, str):
        wanted = next((arm for arm in found if arm in (SecretStr, Path)), None)
        return leaf(wanted, way, value)
    return value


def _inside(found: list[Any], key: str) -> Any:
    for arm in found:
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            fields = {f.alias or name: f.annotation for name, f in arm.model_fields.items()}
            return fields.get(key)
        if isinstance(origin := get_origin(arm), type) and issubclass(origin, Mapping):
            return get_args(arm)[1]
    return None
