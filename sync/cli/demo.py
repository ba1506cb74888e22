"""`headgate demo`: the main job on a warehouse made for it, by the commands a person would type."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sync.cli import demo_crm, output
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.cli.signals import draining
from sync.errors import HeadgateError, UsageError

if TYPE_CHECKING:
    from sync.testing.fakes.crm import Crm

SYNC = "crm-vip"
_DAILY = (
    # one in a hundred or so: some move, some spend more, some leave, some come back
    "UPDATE people SET country = 'NO' WHERE orders >= 5 AND hash(customer_id) % 120 = 0",
    "UPDATE people SET ltv_cents = ltv_cents + 4900 WHERE orders >= 5 AND hash(customer_id) % 150 = 1",
    "UPDATE people SET consented = false WHERE orders >= 5 AND consented AND hash(customer_id) % 160 = 2",
    "UPDATE people SET orders = 5 WHERE orders = 4 AND hash(customer_id) % 14 = 3",
)
_LOSS = ("DELETE FROM people WHERE hash(customer_id) % 10 < 3",)


@dataclass
class Story:
    """The demo as it goes: where it plays, and what the commands answered."""

    folder: Path
    crm: Crm
    steps: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, title: str, *lines: str) -> None:
        """A step in plain words."""
        output.say()
        output.say(f"{len({s['title'] for s in self.steps}) + 1}. {title}")
        for line in lines:
            output.say(f"   {line}")
        self.title = title

    def do(self, *args: str, expect: int = 0) -> None:
        """Type a command, show it and what it says. Raises `HeadgateError` where it ends otherwise."""
        from sync.cli import app

        output.say(f"$ headgate {_typed(args)}")
        code = app.run(args)
        self.steps.append({"title": self.title, "command": f"headgate {_typed(args)}", "exit_code": code})
        if code != expect:
            raise HeadgateError(f"the demo's step ended with exit code {code} instead of {expect}", code="HG900")

    def warehouse(self, *statements: str) -> None:
        """Change the warehouse, and build the cohort again as it does every day."""
        change(self.folder, statements)


@_command("demo")
@click.option(
    "--dir", "folder", type=click.Path(file_okay=False, path_type=Path), help="Where (default: headgate-demo)."
)
@click.option("--serve", is_flag=True, help="In a folder of the demo: keep its CRM answering, to play with.")
@click.option(
    "--sql", metavar="SQL", help="In a folder of the demo: change its warehouse, and refresh the cohort."
)
@click.pass_obj
def command(options: Options, folder: Path | None, serve: bool, sql: str | None) -> int:
    """See the whole of it at work, on a warehouse made for it, in under half a minute.

    20,000 people in DuckDB, a cohort of them, and a small CRM on this machine: the first run, a change and only
    the difference, then a loss in the warehouse that the gate holds until it is approved. Nothing leaves this
    machine, and the folder stays.
    """
    if sql is not None:
        return _sql(folder or options.project, sql, options)
    if serve:
        return _serve(folder or options.project)
    began = time.monotonic()
    with redirect_stdout(sys.stderr) if options.json else nullcontext():
        made = _new_folder(folder or options.project / "headgate-demo", given=folder is not None)
        story = _play(made)
        wall = time.monotonic() - began
        _farewell(made, wall)
    if options.json:
        crm = {
            "people": len(story.crm.people),
            "requests": dict(story.crm.requests),
            "records": dict(story.crm.records),
        }
        output.document("demo", folder=str(made), steps=story.steps, crm=crm, wall_s=round(wall, 3), exit_code=0)
    return 0


def _play(folder: Path) -> Story:
    from sync.templates import write_project

    write_project(folder, True)
    output.say(f"made {folder}: config.toml, mappings/, a DuckDB warehouse of 20,000 fictional people")
    here = folder.resolve()
    with _as_demo(), chdir(here):
        demo_crm.free_port(here)
        with demo_crm.serving(here) as crm:
            output.say(f"a small CRM answers at {demo_crm.configured(here)}, on this machine only")
            return _tell_it(Story(here, crm))


def _tell_it(story: Story) -> Story:
    for chapter in (_first_run, _difference, _nothing, _loss, _approval, _trail):
        chapter(story)
    return story


def _first_run(story: Story) -> None:
    story.tell(
        "The first run",
        "mappings/vip_customers.yaml keeps the CRM's list of VIP customers true. A first run is always held",
        "until somebody allows it.",
    )
    story.do("validate")
    story.do("plan", SYNC, expect=3)
    story.do("run", SYNC, "--first-run")
    output.say(f"the CRM: {demo_crm.counts(story.crm)}")


def _difference(story: Story) -> None:
    story.tell("The next day", "In the warehouse some people moved, some spent more, some left and some came.")
    story.warehouse(*_DAILY)
    story.crm.requests.clear()
    story.crm.records.clear()
    story.do("plan", SYNC)
    story.do("run", SYNC)
    output.say(f"the CRM: {demo_crm.counts(story.crm)}: only the difference")


def _nothing(story: Story) -> None:
    story.tell("Nothing changed", "An unchanged cohort costs one scan and no request at all.")
    before = story.crm.requests.total()
    story.do("run", SYNC)
    output.say(f"the CRM received {story.crm.requests.total() - before} requests")


def _loss(story: Story) -> None:
    story.tell("A bad night", "A load failed: 30 % of the people are gone from the warehouse. Did they all leave?")
    story.warehouse(*_LOSS)
    before = len(story.crm.people)
    story.do("run", SYNC, expect=3)
    output.say(f"the CRM still has all of its {before:,} people" if before == len(story.crm.people) else "")


def _approval(story: Story) -> None:
    story.tell(
        "A decision",
        "Suppose that it is right: they were test accounts. Somebody says so, and exactly this plan is delivered.",
    )
    story.do("approve", SYNC, "--reason", "test accounts were purged, ticket 8123")
    output.say(f"the CRM: {demo_crm.counts(story.crm)}")


def _trail(story: Story) -> None:
    story.tell("Who did what, and why", "The log is chained by hash, with signed checkpoints in a second place.")
    story.do("audit", "search")
    story.do("audit", "verify")
    story.do("status")


def _farewell(folder: Path, wall: float) -> None:
    output.say()
    output.say(f"That took {wall:.0f} s. The folder stays: {folder}", kind="ok")
    if "UV_RUN_RECURSION_DEPTH" in os.environ:
        output.say("To play on (with uv, type `uv run headgate` for `headgate`):")
    else:
        output.say("To play on:")
    output.say(f"  cd {folder}")
    output.say("  headgate demo --serve &          keeps the CRM answering")
    output.say("""  headgate demo --sql "UPDATE people SET first_name = 'Zoe' WHERE country = 'SE'\"""")
    output.say("  headgate plan                    what would change")
    output.say("  headgate run                     and change it")
    output.say("  headgate status")


def _new_folder(wanted: Path, *, given: bool) -> Path:
    """The folder, or the first free numbered one beside it; a folder that was named is taken or refused."""
    if not wanted.exists():
        return wanted
    if given:
        raise UsageError(f"{wanted} is there already", fix="name another: headgate demo --dir DIR")
    numbered = (wanted.with_name(f"{wanted.name}-{number}") for number in range(2, 10_000))
    return next(folder for folder in numbered if not folder.exists())


@contextmanager
def _as_demo() -> Iterator[None]:
    """Keep settings of the environment out: they are another project's."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("HEADGATE__")}
    try:
        yield
    finally:
        os.environ.update(taken)


def change(folder: Path, statements: Sequence[str]) -> None:
    """Run SQL in the demo's warehouse and refresh its cohort. Raises `UsageError` where DuckDB refuses it."""
    import duckdb

    from sync.templates import WAREHOUSE, refresh_demo

    if not (folder / WAREHOUSE).is_file():
        raise UsageError(f"{folder} is not a folder of the demo", fix="make one: headgate demo")
    try:
        with duckdb.connect(str(folder / WAREHOUSE)) as connection:
            for statement in statements:
                connection.execute(statement)
        refresh_demo(folder)
    except duckdb.Error as error:
        raise UsageError(f"the warehouse refuses this: {error}") from None


def _sql(folder: Path, sql: str, options: Options) -> int:
    change(folder, [sql])
    if options.json:
        output.document("demo", folder=str(folder), exit_code=0)
    else:
        output.say("the warehouse is changed, and the cohort is built again", kind="ok")
    return 0


def _serve(folder: Path) -> int:
    with demo_crm.serving(folder) as crm, draining(lambda _: None) as stop:
        output.say(
            f"the CRM answers at {demo_crm.configured(folder)} with {len(crm.people):,} people; Ctrl-C stops it"
        )
        told = 0
        while not stop.wait(0.5):
            if crm.requests.total() != told:
                told = crm.requests.total()
                output.say(f"the CRM: {demo_crm.counts(crm)}")
                sys.stdout.flush()
    return 0


def _typed(args: Sequence[str]) -> str:
    import shlex

    return " ".join(shlex.quote(arg) for arg in args)
