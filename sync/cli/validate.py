"""`headgate validate`: check every file, and the warehouse behind them."""

from __future__ import annotations

import click

from sync.cli import output, words
from sync.cli.options import Options
from sync.cli.options import command as _command

# Not there, locked, no way in, nothing to compute on, too slow: the files may be right all the same.
_UNANSWERED = frozenset({"HG200", "HG201", "HG203", "HG205", "HG206", "HG208"})


@_command("validate")
@click.option("--offline", is_flag=True, help="Check the files only; do not ask the warehouse.")
@click.pass_obj
def command(options: Options, offline: bool) -> int:
    """Check every file, and the warehouse behind them.

    Exits 2 where a file must be mended, 1 where only the warehouse does not answer; warnings alone exit 0.
    """
    from sync.project import examine

    project, problems = examine(options.project)
    if project is not None and all(p.warning for p in problems):
        problems = project.validate(offline)
    errors = [p for p in problems if not p.warning]
    code = (1 if all(p.code in _UNANSWERED for p in errors) else 2) if errors else 0
    syncs = len(project.syncs()) if project is not None else 0
    if options.json:
        found = [output.problem_data(p) for p in problems]
        output.document("validate", valid=not errors, syncs=syncs, problems=found, exit_code=code)
        return code
    output.show_problems(problems)
    if errors:
        output.say(f"{len(errors)} to mend", kind="error", err=True)
    else:
        asked = "" if offline else f", and the warehouse has what {'it names' if syncs == 1 else 'they name'}"
        output.say(f"{words.several(syncs, 'sync')} in order{asked}", kind="ok")
    return code
