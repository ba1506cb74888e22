"""`headgate destination`: what an account of a platform has, and making an audience in it."""

from __future__ import annotations

import difflib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from sync.cli import output
from sync.cli.context import Session, opened, reason_of
from sync.cli.options import Options, group
from sync.cli.room import rooms
from sync.errors import HeadgateError, UsageError

if TYPE_CHECKING:
    from sync.bindings import BoundDestination
    from sync.sdk.connector import Connector
    from sync.sdk.nouns import Field


@group("destination", default="list")
def command() -> None:
    """The configured accounts: their objects, fields and room; make an audience."""


@command.command("list")
@click.pass_obj
def list_(options: Options) -> None:
    """Every destination of config.toml, what can be written there, and the room that is left."""
    with opened(options) as session:
        project = session.project
        jobs = project.jobs(disabled=True)
        room = {name: one for one in rooms(project.settings.state_folder, jobs) for name in one.destinations}
        found = [_data(one, [j.name for j in jobs if j.destination == one.name]) for one in _every(session)]
        if options.json:
            for one in found:
                one["room"] = room[one["name"]].data() if one["name"] in room else None
            output.document("destination list", destinations=found, exit_code=0)
            return
        for one in found:
            output.say(f"{one['name']}: {one['title']}", kind="ok")
            for spec in one["objects"]:
                output.say(f"  {spec['name']}: {spec['title']} ({', '.join(spec['ops'])})")
            output.say(f"  syncs: {', '.join(one['syncs']) or 'none'}")
            if one["name"] in room:
                output.say(f"  room: {room[one['name']].words()}")


@command.command("fields")
@click.argument("name")
@click.argument("object", required=False)
@click.pass_obj
def fields(options: Options, name: str, object: str | None) -> None:
    """The fields that an object has in this account; asks the destination."""
    with opened(options) as session:
        destination = _named(session, name)
        kind = _object(destination, object)
        with _connected(session, destination) as connector:
            found = _described(connector, kind)
        if options.json:
            rows = [{k: getattr(f, k) for k in ("name", "type", "required", "description")} for f in found]
            output.document("destination fields", destination=name, object=kind, fields=rows, exit_code=0)
            return
        table = output.table("field", "type", "required", "description", fold=("description",))
        for one in found:
            table.add_row(one.name, one.type, "yes" if one.required else "", output.visible(one.description))
        output.console().print(table)


@command.command("create-audience")
@click.argument("name")
@click.argument("title")
@click.option("--object", "object", help="Which object's, where the destination has several with audiences.")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.pass_obj
def create_audience(options: Options, name: str, title: str, object: str | None, reason: str) -> None:
    """Make an empty audience at the destination, and print its id for a mapping's `audience:`."""
    from sync.sdk.connector import Creates
    from sync.state.nouns import Event

    why = reason_of(reason)
    with opened(options) as session:
        destination = _named(session, name)
        kind = _object(destination, object, audience=True)
        session.audit.ready()
        with _connected(session, destination) as connector:
            if not isinstance(connector, Creates):
                raise _cannot(destination, "make an audience")
            made = connector.create_audience(kind, title)
        about = {"object": kind, "audience": made, "title": title, "reason": why}
        session.ledger.record(Event(session.actor, "audience.created", name, about))
        if options.json:
            output.document("destination create-audience", destination=name, exit_code=0, **about)
            return
        output.say(f"{name} has a new audience for '{kind}': {title}", kind="ok")
        output.say(f'  in the mapping:  audience: "{made}"')


def _every(session: Session) -> list[BoundDestination]:
    return [one for _, one in sorted(session.project.destinations.items())]


def _data(destination: BoundDestination, syncs: list[str]) -> dict[str, Any]:
    specs = destination.objects.values()
    return {
        "name": destination.name,
        "connector": destination.connector.name,
        "title": destination.connector.title,
        "objects": [{"name": s.name, "title": s.title, "ops": sorted(op.value for op in s.ops)} for s in specs],
        "syncs": sorted(syncs),
    }


def _named(session: Session, name: str) -> BoundDestination:
    known = session.project.destinations
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    there = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(sorted(known)) or 'none'}"
    raise UsageError(f"config.toml has no destination '{name}'", fix=there)


def _object(destination: BoundDestination, name: str | None, *, audience: bool = False) -> str:
    """The object that is meant: the only one, where none is named."""
    fit = sorted(spec.name for spec in destination.objects.values() if spec.audience or not audience)
    if name is None and len(fit) == 1:
        return fit[0]
    if name in fit:
        return name
    what = "object with audiences" if audience else "object"
    if not fit:
        raise UsageError(f"{destination.name} has no {what}")
    said = f"{destination.name} has no {what} '{name}'" if name else f"which {what} of {destination.name}"
    raise UsageError(said, fix=f"name one of: {', '.join(fit)}")


@contextmanager
def _connected(session: Session, destination: BoundDestination) -> Iterator[Connector[Any]]:
    """The destination's connector; its requests take their turn in the account's lane."""
    from sync.engine.pacing import Pacers

    rates = dict.fromkeys(rate for spec in destination.objects.values() for rate in spec.limits.rates)
    pacer = Pacers(folder=session.engine.folder).of(destination.account, rates)
    stop = threading.Event()

    def turn() -> None:
        pacer.acquire(stop.wait)

    connector = destination.connect(session.engine.delivery.request_timeout, 1, turn)
    try:
        yield connector
    finally:
        connector.http.close()


def _described(connector: Connector[Any], object: str) -> list[Field]:
    """What the account says; where it cannot be asked, what the connector knows."""
    from sync.sdk.connector import Describes

    spec = connector.objects[object]
    said = connector.describe(object) if isinstance(connector, Describes) else ()
    if found := {field.name: field for field in said}:
        return sorted(({f.name: f for f in spec.identifiers} | found).values(), key=lambda field: field.name)
    if spec.open_fields:
        raise HeadgateError(
            f"connector '{connector.name}' cannot list the fields of '{object}'",
            code="HG531",
            fix="take any name that the destination knows, and see what a small first run makes of it",
        )
    return list(spec.fields)


def _cannot(destination: BoundDestination, what: str) -> HeadgateError:
    message = f"connector '{destination.connector.name}' cannot {what}"
    return HeadgateError(message, code="HG531", fix="make it in the platform, and write its id into the mapping")
