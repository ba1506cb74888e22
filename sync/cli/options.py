"""The options every command takes, before or after its name, and the click classes that add them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

__all__ = ["Command", "Group", "Options", "SyncName", "command", "group"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class Options:
    """What was given so far; the words before and after the command's name fill the same one."""

    project: Path = Path()
    json: bool = False
    select: list[str] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)
    debug: bool = False
    verbose: int = 0


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    options, name = context.ensure_object(Options), str(parameter.name)
    if isinstance(getattr(options, name), list):
        getattr(options, name).extend(value)
    elif value:
        setattr(options, name, Path(value) if name == "project" else value)


def _globals() -> list[click.Parameter]:
    common: dict[str, Any] = {"callback": _keep, "expose_value": False, "is_eager": True}
    return [
        click.Option(["--project"], metavar="DIR", help="The project's folder (default: this one).", **common),
        click.Option(["--json"], is_flag=True, help="One JSON document on stdout.", **common),
        click.Option(
            ["--select"],
            multiple=True,
            metavar="WHAT",
            help="Only these syncs: a name, a glob, tag:T, destination:D or owner:O; repeatable.",
            **common,
        ),
        click.Option(["--exclude"], multiple=True, metavar="WHAT", help="But not these; repeatable.", **common),
        click.Option(["--debug"], is_flag=True, help="Show the trace of an error.", **common),
        click.Option(["-v", "--verbose"], count=True, help="Say more; repeatable.", **common),
    ]


class _Helped(click.Command):
    """Prints the options it shares with every other command in a section of their own."""

    shared: tuple[click.Parameter, ...] = ()

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options first."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                (shared if parameter in self.shared else own).append(record)
        if own:
            with formatter.section("Options"):
                formatter.write_dl(own)
        with formatter.section("Options of every command"):
            formatter.write_dl(shared)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class Command(_Helped):
    """A command that takes the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared = tuple(_globals())
        self.params = [*self.params, *self.shared]


class Group(_Helped, click.Group):
    """A group that takes the shared options, as its commands do."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shared = tuple(_globals())
        self.params = [*self.params, *self.shared]


class SyncName(click.ParamType[str]):
    """The name of a sync; the shell completes it from the project's files."""

    name = "sync"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """The project's syncs that begin so; none where the files cannot be read."""
        from sync.errors import HeadgateError
        from sync.project import examine

        try:
            project, _ = examine(ctx.ensure_object(Options).project)
        except HeadgateError:
            return []
        names = [c.sync.name for c in project.syncs()] if project is not None else []
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a function a command; what it returns is the exit code (None is 0)."""
    return click.command(name, cls=Command)


def group(name: str, default: str) -> Callable[[Callable[..., Any]], Group]:
    """Make a function a group of commands; `default` is meant where none is named."""

    def make(function: Callable[..., Any]) -> Group:
        @click.pass_context
        def otherwise(context: click.Context) -> Any:
            if context.invoked_subcommand is None:
                return context.invoke(made.commands[default])
            return None

        otherwise.__doc__ = function.__doc__
        made: Group = click.group(name, cls=Group, invoke_without_command=True)(otherwise)
        return made

    return make
