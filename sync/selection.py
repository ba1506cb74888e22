"""Which syncs a command means: names, and `--select`/`--exclude` with globs, `tag:`, `destination:`, `owner:`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sync.errors import UsageError
from sync.files import suggest
from sync.mapping import Cohort, Sync

__all__ = ["Candidate", "covers", "pick"]

_KINDS = ("name", "tag", "destination", "owner")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sync and the cohort it belongs to; `where` is the place it is written at."""

    cohort: Cohort
    sync: Sync
    where: str = ""

    def says(self, kind: str) -> tuple[str, ...]:
        """What a selector of this kind is compared with."""
        match kind:
            case "tag":
                return self.sync.tags
            case "destination":
                return (self.sync.destination,)
            case "owner":
                return (self.cohort.owner,)
            case _:
                return (self.sync.name,)


def covers(selectors: Iterable[str], candidate: Candidate) -> bool:
    """Does one of the selectors mean the sync; none mean every sync. Raises `UsageError` for one that is none."""
    selectors = list(selectors)
    return not selectors or any(_matches(selector, candidate) for selector in selectors)


def pick(
    candidates: Sequence[Candidate],
    names: Iterable[str] = (),
    select: Iterable[str] = (),
    exclude: Iterable[str] = (),
    *,
    disabled: bool = False,
) -> list[Candidate]:
    """The syncs that are named or selected (all of them where nothing is), less the excluded ones.

    Disabled syncs are left out unless `disabled`. Raises `UsageError` for a name that no sync has, for a
    disabled sync that is named, and where a selection leaves nothing.
    """
    names, select, exclude = list(names), list(select), list(exclude)
    wanted = {c.sync.name for n in names for c in _named(n, candidates, disabled)}
    wanted |= {c.sync.name for s in select for c in _selected(s, candidates)}
    left_out = {c.sync.name for s in exclude for c in _selected(s, candidates)}
    chosen = [
        c
        for c in candidates
        if (c.sync.name in wanted or not (names or select))
        and c.sync.name not in left_out
        and (disabled or not c.sync.disabled)
    ]
    if not chosen and (select or exclude):
        words = [*(f"--select {s}" for s in select), *(f"--exclude {s}" for s in exclude)]
        fix = "Selectors are a name, a glob such as `crm-*`, `tag:...`, `destination:...` or `owner:...`."
        raise UsageError(f"no sync is left by {' '.join(words)}", code="HG192", fix=fix)
    return chosen


def _named(name: str, candidates: Sequence[Candidate], disabled: bool) -> list[Candidate]:
    found = [c for c in candidates if c.sync.name == name]
    if not found:
        fix = (
            suggest(name, [c.sync.name for c in candidates], "Syncs") or "Write a first mapping: mappings/*.yaml."
        )
        raise UsageError(f"there is no sync `{name}`", code="HG191", fix=fix)
    if found[0].sync.disabled and not disabled:
        fix = f"Delete `disabled: true` in {found[0].where}."
        raise UsageError(f"the sync `{name}` is disabled", code="HG193", fix=fix)
    return found


def _matches(selector: str, candidate: Candidate) -> bool:
    kind, pattern = _parsed(selector)
    return any(fnmatchcase(text, pattern) for text in candidate.says(kind))


def _parsed(selector: str) -> tuple[str, str]:
    kind, colon, pattern = selector.partition(":")
    if not colon:
        kind, pattern = "name", selector
    if kind not in _KINDS:
        fix = suggest(kind, _KINDS, "Kinds")
        raise UsageError(f"`{selector}` is no selector: unknown kind `{kind}`", code="HG192", fix=fix)
    return kind, pattern


def _selected(selector: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    kind, pattern = _parsed(selector)
    found = [c for c in candidates if _matches(selector, c)]
    if not found and kind == "name" and not set(pattern) & set("*?["):
        return _named(pattern, candidates, disabled=True)
    return found
