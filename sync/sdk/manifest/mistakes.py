"""What in the objects of a manifest does not go together, each mistake with its place."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from sync.sdk.manifest.action import Action, answers
from sync.sdk.manifest.job import JobAnswer
from sync.sdk.manifest.lookup import Lookup
from sync.sdk.manifest.objects import ObjectManifest
from sync.sdk.manifest.request import Carrier
from sync.sdk.manifest.text import FORMS

__all__ = ["ALWAYS", "near", "of_object", "unknown"]

ALWAYS = frozenset({"audience", "base_url"})
_IN_A_BATCH = ALWAYS | {"batch_id", "op"}
_OF_A_RECORD = frozenset({"key", "op", "remote_id"})


def of_object(where: str, one: ObjectManifest, options: set[str]) -> Iterator[str]:
    fields = {f.name for f in one.fields}
    batch = options | _IN_A_BATCH
    for place, carrier in (*one.requests(), *one.searches(), *one.makers()):
        here = f"{where}.{place}"
        yield from (f"{here}: {message}" for found, message in carrier.mistakes() if found)
        yield from _of_carrier(here, carrier, batch, fields, one)
    if one.create is not None:
        yield from unknown(f"{where}.create", one.create.names(), options | {"title", "base_url"})
    if one.members is not None:
        yield from (f"{where}.members: {message}" for found, message in one.members.mistakes() if found)
        yield from unknown(f"{where}.members", one.members.names(), options | ALWAYS)
        if not one.open_fields:
            yield from (
                _no_field(f"{where}.members", name) for name in one.members.identifiers if name not in fields
            )
    if one.describe is not None:
        yield from unknown(f"{where}.describe", one.describe.names(), options | {"base_url"})


def _of_carrier(
    here: str, carrier: Carrier, batch: set[str], fields: set[str], one: ObjectManifest
) -> Iterator[str]:
    of_record = batch | fields | _OF_A_RECORD | {"fields"}
    if one.open_fields:  # they are named in mappings
        of_record |= {name for _, name in carrier.record_names()}
    if isinstance(carrier, Action):
        yield from _of_upload(here, carrier, batch)
        batch = batch | ({"opened"} if carrier.open is not None else set())
    known = batch | (of_record if carrier.per == "record" else set())
    known |= {"members"} if carrier.place == "path" else set()
    yield from unknown(here, carrier.names(), known)
    yield from unknown(here, carrier.record_names(), of_record)
    if isinstance(carrier, Action):
        yield from unknown(here, carrier.instruction_names(), batch | {"members"})
        answer = carrier.answer
        if isinstance(answer, JobAnswer):
            yield from (f"{here}.answer.poll: {message}" for found, message in answer.poll.mistakes() if found)
            yield from unknown(f"{here}.answer.poll", answer.poll.names(), batch | {"job"})
            if answer.poll.result is not None:
                yield from unknown(f"{here}.answer.poll.result", answer.poll.result.names(), batch | {"job"})
            yield from _of_job(here, answer)
    for wanted in _compared(carrier):
        if wanted not in ("remote_id", "key") and wanted not in fields and not one.open_fields:
            yield _no_field(here, wanted)
    if isinstance(carrier, Lookup) and carrier.record is None and carrier.per == "batch" and not carrier.value:
        yield f"{here}: `value` is missing: by which field are people looked up?"


def _of_upload(here: str, action: Action, batch: set[str]) -> Iterator[str]:
    if action.open is not None:
        yield from unknown(f"{here}.open", action.open.names(), batch)
    if action.close is not None:
        opened = {"opened"} if action.open is not None else set()
        yield from unknown(f"{here}.close", action.close.names(), batch | opened)
    if isinstance(action.answer, JobAnswer) and action.answer.opened and action.open is None:
        yield f"{here}.answer: `opened` needs `open`: which request begins the job?"


def _of_job(here: str, answer: JobAnswer) -> Iterator[str]:
    if [bool(answer.id), bool(answer.header), answer.opened].count(True) != 1:
        yield f"{here}.answer: give one of `id`, `header` and `opened = true`: where does the job's id stand?"
    if not answer.poll.path and answer.opened:
        yield f"{here}.answer.poll: `path` is missing"


def _compared(carrier: Carrier) -> Iterator[str]:
    """The fields that values are taken from or compared with."""
    parts: list[Any] = [carrier]
    if isinstance(carrier, Action):
        parts += answers(carrier.answer)
    yield from filter(None, (getattr(part, key, "") for part in parts for key in ("value", "match")))


def unknown(where: str, found: Iterable[tuple[str, str]], known: Iterable[str]) -> Iterator[str]:
    usable = set(known)
    for place, name in found:
        if ":" in name:
            yield f"{where}.{place}: '{{{name}}}': behind the colon stands {one_of(FORMS)}"
        elif name not in usable:
            yield f"{where}.{place}: nothing is called '{{{name}}}'{near(name, usable)}".replace(".:", ":")


def _no_field(where: str, name: str) -> str:
    return f"{where}: there is no field '{name}'"


def one_of(names: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    *most, last = (f"`{name}`" for name in names)
    return f"{', '.join(most)} or {last}"


def near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
