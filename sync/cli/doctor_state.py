"""What `doctor` says of the state folder: who may read it, and what is encrypted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sync.project import Project

__all__ = ["encryption", "loose", "loose_secrets"]

_ENCRYPTED = ("members", "plans", "rejected")


def loose(folder: Path) -> list[Path]:
    """Everything in the folder, and the folder, that others than the owner may read or write."""
    found = [folder, *sorted(folder.rglob("*"))] if folder.is_dir() else []
    return [path for path in found if not path.is_symlink() and _open(path)]


def loose_secrets(project: Project) -> list[Path]:
    """Files that hold a secret and that others may read: those that `file:` references name."""
    references = [reference for _, reference in project.settings.state_keys()]
    references += [reference for _, reference in project.references()]
    references += [r for source in project.sources.values() for r in _texts(source.settings.options)]
    paths = {
        project.root / Path(r.removeprefix("file:")).expanduser() for r in references if r.startswith("file:")
    }
    return sorted(path for path in paths if path.is_file() and _open(path))


def _open(path: Path) -> bool:
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:  # a temporary file that is gone again
        return False


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def encryption(project: Project) -> tuple[str, str]:
    """(message, fix) about the encryption of state files. Raises `SecretError` and `Corrupt`."""
    from sync.state.parquet import key_of, name_of
    from sync.state_keys import read_keys

    settings = project.settings
    keys = [name_of(key) for key in read_keys(settings.state_keys(), project.root)]
    files = [p for kind in _ENCRYPTED for p in (settings.state_folder / kind).rglob("*.parquet")]
    found = Counter(key_of(path) for path in files)
    if not keys and not any(found):
        return "state files are not encrypted: no [state] key is set", ""
    told = [f"key {keys[0]} encrypts what is written" if keys else "no key is set"]
    told += [f"{count:,} files have {_whose(name, keys)}" for name, count in sorted(found.items(), key=str)]
    unreadable = set(found) - {None, *keys}
    fix = "name the keys of these files under [state] previous_keys" if unreadable else ""
    return "; ".join(told), fix


def _whose(name: str | None, keys: list[str]) -> str:
    if name is None:
        return "no encryption, from before"
    if name not in keys:
        return f"the key {name}, which is not set: they cannot be read"
    return "it" if name == keys[0] else f"the previous key {name}"
