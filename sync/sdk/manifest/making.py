"""Makes the connector class of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, SecretStr, create_model
from pydantic import Field as Described

from sync.sdk.connector import Config
from sync.sdk.manifest.auth import Option
from sync.sdk.manifest.job import JobAnswer
from sync.sdk.manifest.model import Manifest
from sync.sdk.manifest.objects import ObjectManifest
from sync.sdk.manifest.platform import Creating, Describing, ManifestConnector, Polling, Reading
from sync.sdk.nouns import ObjectSpec

__all__ = ["make"]


def _type(option: Option) -> Any:
    """The type of an option in the configuration."""
    if option.secret:
        return SecretStr
    return Literal[option.choices] if option.choices else str


class _Options(Config):
    """Base of the configurations of manifests: a number may stand for text, an account's for example."""

    model_config = ConfigDict(coerce_numbers_to_str=True)


_ADDRESS = Option(
    description="Another address of the API: another region's, a proxy's or a stand-in's.", default=""
)


def make(manifest: Manifest, path: Path | None = None) -> type[ManifestConnector]:
    """The connector class of a manifest, which stands in the file `path`."""
    described: dict[str, Option] = {"base_url": _ADDRESS, **manifest.options}
    options: dict[str, Any] = {
        name: (_type(o), Described(default=... if o.default is None else o.default, description=o.description))
        for name, o in described.items()
    }
    camel = "".join(part.title() for part in manifest.name.split("_"))
    objects: dict[str, ObjectSpec] = {name: one.spec(name) for name, one in manifest.objects.items()}
    body = {
        "__doc__": manifest.docs,
        "name": manifest.name,
        "title": manifest.title,
        "docs": manifest.docs,
        "manifest": manifest,
        "path": path,
        "config_model": create_model(f"{camel}Config", __base__=_Options, **options),
        "objects": objects,
        "unavailable": frozenset(manifest.unavailable),
        "plain_success": frozenset(manifest.plain_success),
    }
    return type(camel, tuple(_bases(list(manifest.objects.values()))), body)


def _bases(objects: Sequence[ObjectManifest]) -> Iterable[type[ManifestConnector]]:
    """What the connector can do, by what its objects say."""
    if any(isinstance(action.answer, JobAnswer) for one in objects for _, action in one.requests()):
        yield Polling
    if any(one.create for one in objects):
        yield Creating
    if any(one.members for one in objects):
        yield Reading
    if any(one.describe for one in objects):
        yield Describing
    yield ManifestConnector
