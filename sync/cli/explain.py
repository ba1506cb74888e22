"""`headgate explain`: what a code or a guardrail means, and what to do."""

from __future__ import annotations

from dataclasses import asdict

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
        output.document("explain", **asdict(entry), exit_code=0)
        return
    name = f" ({entry.guardrail})" if entry.guardrail else ""
    output.say(f"{entry.code}{name}: {entry.title}")
    for title, text in (("", entry.means), ("Why: ", entry.why), ("What to do: ", entry.fix)):
        output.say("\n" + click.wrap_text(title + text, width=78))
    if entry.example:
        output.say("\nExample:")
        for line in entry.example.strip().splitlines():
            output.say(f"    {line}".rstrip())
