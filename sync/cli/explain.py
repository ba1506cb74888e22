"""`headgate explain`: what a code or a guardrail means, and what to do."""

from __future__ import annotations

import click

from sync.cli import output
from sync.cli.options import Options
from sync.cli.options import command as _command


@_command("explain")
@click.argument("code")
@click.pass_obj
def command(options: Options, code: str) -> None:
    """Explain a code (HG202) or a guardrail (removals_pct)."""
    from sync.codes import explain

    entry = explain(code)
    if options.json:
        keys = ("code", "title", "means", "why", "fix", "example")
        output.document("explain", **{key: getattr(entry, key, "") for key in keys}, exit_code=0)
    else:
        output.say(str(entry))
