"""The command line: finds the command, and turns every outcome into words and an exit code.

A command is imported when it is asked for, so that `headgate --help` stays quick; the words below are all the
help needs. Exit codes: 0 done or nothing to do, 1 failed, 2 bad usage or invalid files, 3 held, 4 done but
records were rejected or are unknown, 5 changes pending (`plan --detailed-exitcode` only).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

import click

from sync.cli import output
from sync.cli.options import Group, Options
from sync.cli.trace import guard
from sync.errors import HeadgateError, ProjectError, StateError, UsageError

__all__ = ["COMMANDS", "main", "root", "run"]

COMMANDS: dict[str, dict[str, str]] = {
    "Start": {
        "demo": "See the whole of it at work, on a warehouse made for it.",
        "init": "Make a project: config.toml and a first mapping.",
        "validate": "Check every file, and the warehouse behind them.",
    },
    "Sync": {
        "plan": "Show what a run would change, and what holds it.",
        "run": "Plan and deliver, or hold for a decision.",
        "approve": "Release a held plan, with a reason.",
        "reject": "Turn a held plan down, with a reason.",
        "pause": "Stop syncs, or all of a destination, for a while.",
        "resume": "Let paused syncs and destinations run again.",
        "daemon": "Run every sync on its schedule.",
    },
    "Look": {
        "status": "Health, activity and figures of every sync.",
        "rejected": "Records a destination refused: list, show, retry, give up.",
        "alert": "What is wrong and who was told; mute, test.",
        "person": "Where one person is known; forget them everywhere.",
        "audit": "Who did what and why: search, verify, export.",
        "explain": "What a code or a guardrail means, and what to do.",
    },
    "Care": {
        "doctor": "Check the installation, the state and every connection.",
        "destination": "What a destination has: fields, room; make an audience.",
        "connector": "List the connectors, or test one.",
        "token": "Machines that may use the HTTP API: make, list, revoke.",
        "state": "What is remembered of each sync: show, reset, merge.",
        "schema": "Write JSON Schemas for editors.",
        "version": "Print the version.",
    },
}
_NAMES = {name: text for section in COMMANDS.values() for name, text in section.items()}


class LazyGroup(Group):
    """Knows its commands by name and imports `sync.cli.NAME` when one is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of the help."""
        return list(_NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of that name."""
        if cmd_name not in _NAMES:
            return None
        found: click.Command = import_module(f"sync.cli.{cmd_name}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command where there is none of that name."""
        if args and args[0] not in _NAMES and not args[0].startswith("-"):
            raise click.exceptions.NoSuchCommand(args[0], possibilities=list(_NAMES), ctx=ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table above; nothing is imported."""
        width = max(map(len, _NAMES)) + 2
        for section, commands in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width - 2), text) for name, text in commands.items()])


@click.group("headgate", cls=LazyGroup, invoke_without_command=True)
@click.version_option(package_name="headgate", message="%(version)s")
@click.pass_context
def root(context: click.Context) -> None:
    """The gate between the warehouse and every tool a customer meets.

    Plans every change to a destination, judges it, and holds what is destructive until a person approves it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error is already on the right stream."""
    options = Options(json="--json" in args, debug="--debug" in args)
    output.begin()
    try:
        _refuse_bytes(args)
        code = root.main(args=list(args), prog_name="headgate", standalone_mode=False, obj=options)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return output.failure(HeadgateError("stopped by the keyboard", code="HG901"), options, 1)
    except click.ClickException as error:
        return _misused(error, options)
    except (ProjectError, UsageError) as error:
        return output.failure(error, options, 2)
    except HeadgateError as error:
        return output.failure(error, options, 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _DISK:
            return output.internal(error, options)
        with suppress(OSError):  # what is full may be where this is said
            output.failure(_disk(error), options, 1)
        return 1
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes a message
        return output.internal(error, options)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


def _disk(error: OSError) -> StateError:
    return StateError(
        f"a file could not be written: {(error.strerror or 'the disk failed').lower()}",
        code="HG341",
        fix="check the free space of the state folder's disk and of wherever the output goes, then run again",
    )


def _refuse_bytes(args: Sequence[str]) -> None:
    """Raise `UsageError` for bytes that are no text: neither the ledger nor a warehouse could keep them."""
    for arg in args:
        try:
            arg.encode()
        except UnicodeEncodeError:
            shown = arg.encode(errors="replace").decode()
            raise UsageError(f"`{shown}` is not UTF-8 text", fix="check the terminal's encoding") from None


def _misused(error: click.ClickException, options: Options) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "headgate"
    return output.failure(UsageError(error.format_message(), fix=f"see: {path} --help"), options, 2)


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The `headgate` command."""
    guard()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
