"""`headgate state`: what is remembered of each sync."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sync.cli import output, state_backup, words
from sync.cli.context import Session, opened, reason_of
from sync.cli.options import Options, SyncName, group
from sync.cli.state_change import forget, migrate, take_over
from sync.errors import UsageError


@group("state", default="show")
def command() -> None:
    """What is remembered of each sync: its members, interrupted runs and uncertain records."""


@command.command("show")
@click.argument("syncs", nargs=-1, type=SyncName(), metavar="[SYNC]...")
@click.pass_obj
def show(options: Options, syncs: tuple[str, ...]) -> None:
    """Members, generation, interrupted runs, uncertain and rejected records."""
    with opened(options) as session:
        found = [_data(session, job.name) for job in session.jobs(syncs)]
        if options.json:
            output.document("state show", syncs=found, exit_code=0)
            return
        for one in found:
            output.say(f"{one['sync']}: {words.several(one['members'], 'member')}, generation {one['generation']}")
            for name in ("since", "place", "base", "delta", "open_run", "dirty", "rejected"):
                if one[name]:
                    output.say(f"  {name.replace('_', ' ')}: {one[name]}")


@command.command("verify")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.option("--samples", default=3, show_default=True, help="Sample records shown of each kind, masked.")
@click.option("--repair", is_flag=True, help="Make a plan that mends it; it waits for `approve`. Needs --reason.")
@click.option("--reason", default="", help="Why it is to be mended; kept in the audit log.")
@click.pass_obj
def verify(options: Options, sync: str, samples: int, repair: bool, reason: str) -> int:
    """Compare the audience at the destination with the members: who is missing, who is there besides.

    Only for connectors that can read. Exit code 4 where they differ; nothing is sent.
    """
    why = reason_of(reason) if repair else ""
    from sync.cli import state_verify

    with opened(options) as session:
        return state_verify.verify(session, session.job(sync), samples, why)


@command.command("reset")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.option("--members", type=int, required=True, help="How many are forgotten, as `state show` says.")
@click.pass_obj
def reset(options: Options, sync: str, reason: str, members: int) -> None:
    """Forget what the destination has acknowledged: the next run is a first run and sends everybody again.

    Nobody is removed from the destination by this, and nobody who left the cohort since will be. SYNC may be one
    that no mapping has any more.
    """
    with opened(options) as session:
        if sync not in session.ledger.known_syncs():
            session.job(sync)
        count = forget(session, sync, members, reason_of(reason))
        if options.json:
            output.document("state reset", sync=sync, members=count, exit_code=0)
        else:
            output.say(f"{count:,} members of {sync} are forgotten", kind="ok")
            output.say(f"  next: {session.command(f'plan {sync}')}")


@command.command("merge")
@click.argument("old")
@click.argument("new")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.pass_obj
def merge(options: Options, old: str, new: str, reason: str) -> None:
    """Let NEW know the members of OLD: for a sync that was renamed, or two that became one.

    Both must write to the same audience with the same identifiers. What NEW knows already stays.
    """
    with opened(options) as session:
        if old == new:
            raise UsageError("a sync cannot be merged with itself")
        count = take_over(session, old, session.job(new), reason_of(reason))
        if options.json:
            output.document("state merge", sync=new, taken=count, exit_code=0)
        else:
            output.say(f"{new} knows {count:,} members of {old}", kind="ok")
            output.say(f"  next: {session.command(f'plan {new}')}")


@command.command("migrate")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.option("--to", type=click.Choice(["warehouse", "local"]), required=True, help="Where they are kept then.")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.pass_obj
def migrate_command(options: Options, sync: str, to: str, reason: str) -> None:
    """Keep the members of SYNC in its warehouse, or in the state folder: nobody is sent again.

    `members` under [sources.NAME] in config.toml has to say the same before the next run.
    """
    with opened(options) as session:
        job = session.job(sync)
        count = migrate(session, job, to, reason_of(reason))
        if options.json:
            output.document("state migrate", sync=sync, to=to, members=count, exit_code=0)
            return
        output.say(
            f"{count:,} members of {sync} are kept {words.kept_in(job.place if to == 'warehouse' else '')}",
            kind="ok",
        )
        if to == "local" and job.place:
            name = job.cohort.source.connection
            output.say(f'  next: members = "local" under [sources.{name}] in config.toml')
        else:
            output.say(f"  next: {session.command(f'plan {sync}')}")


@command.command("backup")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup_command(options: Options, file: Path) -> None:
    """Write the ledger and the files it names to FILE, while a daemon may go on working.

    Encrypted files stay encrypted. Members that a warehouse keeps are not in it, nor are the audit log's
    checkpoints.
    """
    with opened(options) as session:
        state_backup.back_up(session, file)


@command.command("restore")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.option("--over", is_flag=True, help="A state is there: move it aside, and put the backup in its place.")
@click.option("--in-step", is_flag=True, help="Nothing was sent since the backup was made: pause nothing.")
@click.pass_obj
def restore_command(options: Options, file: Path, reason: str, over: bool, in_step: bool) -> None:
    """Put the state that FILE has into the state folder. Every byte of it is checked first.

    What was sent since the backup was made, it does not know: so every sync that ever sent anything is paused, for
    a person to compare and to resume.
    """
    with opened(options) as session:
        state_backup.restore(session, file, reason_of(reason), over=over, in_step=in_step)


def _data(session: Session, sync: str) -> dict[str, Any]:
    ledger = session.ledger
    now, run = ledger.generation(sync), ledger.open_run(sync)
    return {
        "sync": sync,
        "members": now.members,
        "generation": now.number,
        "since": words.iso(now.at) if now.number else None,
        "place": now.place or "local",
        "base": now.base,
        "delta": now.delta,
        "open_run": run.id if run else None,
        "dirty": len(ledger.dirty(sync)),
        "rejected": len(ledger.rejected(sync, given_up=False)),
    }
