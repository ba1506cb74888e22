"""The command line itself: finding commands, shared options, errors and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import click
import pytest

from sync.cli import app, options
from sync.errors import HeadgateError, Problem, ProjectError, UsageError

NAMES = [name for section in app.COMMANDS.values() for name in section]


def shell(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sync.cli.app", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
    )


@pytest.fixture
def broken(monkeypatch):
    """Make `headgate version` raise something."""

    def install(error: BaseException) -> None:
        @options.command("version")
        def command() -> None:
            raise error

        monkeypatch.setattr(import_module("sync.cli.version"), "command", command)

    return install


@pytest.mark.parametrize("name", NAMES)
def test_every_command_of_the_table_is_there_and_has_help(name, capsys):
    assert app.run([name, "--help"]) == 0

    said = capsys.readouterr().out
    assert f"Usage: headgate {name}" in said
    assert "--json" in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_contract_names_every_command():
    contract = (
        "init demo validate plan run status approve reject rejected person audit connector state schema explain "
        "doctor version daemon"
    )
    assert set(contract.split()) <= set(NAMES)


def test_help_imports_no_command_and_nothing_heavy():
    code = (
        "import sys; from sync.cli.app import run; assert run(['--help']) == 0; "
        "heavy = {'duckdb', 'pyarrow', 'sqlalchemy', 'alembic', 'httpx', 'sqlglot', 'pydantic', 'rich', "
        "'apscheduler', 'structlog', 'cryptography', 'snowflake', "
        "'adbc_driver_manager'} & set(sys.modules); "
        f"commands = [m for m in sys.modules if m.startswith('sync.cli.') and m.rpartition('.')[2] in {NAMES!r}]; "
        "assert not heavy and not commands, (heavy, commands)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Plan and deliver" in done.stdout


def test_no_command_prints_the_help(capsys):
    assert app.run([]) == 0
    assert "Usage: headgate" in capsys.readouterr().out


@pytest.mark.parametrize("args", [["--json", "version"], ["version", "--json"]])
def test_shared_options_are_taken_before_and_after_the_command(args, capsys):
    assert app.run(args) == 0

    assert json.loads(capsys.readouterr().out)["schema"] == 1


def test_repeatable_options_add_up_over_both_places():
    @options.group("top", default="sub")
    def top() -> None: ...

    @top.command("sub")
    @click.pass_obj
    def sub(given: options.Options) -> options.Options:
        return given

    words = ["--select", "a", "--project", "here", "sub", "--select", "tag:b", "--exclude", "c", "-vv"]
    given = top.main(words, standalone_mode=False, obj=options.Options())

    assert (given.select, given.exclude, str(given.project), given.verbose) == (["a", "tag:b"], ["c"], "here", 2)


def test_a_mistyped_command_names_the_nearest(capsys):
    assert app.run(["paln"]) == 2

    assert "plan" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["run", "--nope"], ["nope"], ["approve"], ["explain"], ["audit", "nope"]])
def test_wrong_usage_exits_2_and_is_one_document_with_json(args, capsys):
    assert app.run([*args, "--json"]) == 2

    said = capsys.readouterr()
    document = json.loads(said.out)
    assert document["schema"] == 1
    assert set(document["error"]) == {"code", "message", "fix"}
    assert said.err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (HeadgateError("no", code="HG300", fix="do"), 1),
        (UsageError("no", fix="do"), 2),
        (ProjectError([Problem("HG101", "no", "do", "a.yaml", 3, 5, "  - x: y")]), 2),
    ],
)
def test_an_error_says_what_how_to_mend_it_and_its_code(error, code, broken, capsys):
    broken(error)

    assert app.run(["version"]) == code
    said = capsys.readouterr().err
    assert "no" in said
    assert "fix: do" in said
    assert error.code in said
    assert "Traceback" not in said


def test_problems_are_all_in_the_json(broken, capsys):
    broken(ProjectError([Problem("HG101", "one", file="a.yaml", line=3, column=5), Problem("HG102", "two")]))

    app.run(["version", "--json"])

    problems = json.loads(capsys.readouterr().out)["error"]["problems"]
    assert [(p["code"], p["line"], p["column"]) for p in problems] == [("HG101", 3, 5), ("HG102", 0, 0)]


def test_a_bug_is_a_message_without_its_text_and_a_trace_only_with_debug(broken, capsys):
    broken(KeyError("ana@acme.example"))

    assert app.run(["version"]) == 1
    quiet = capsys.readouterr()
    assert app.run(["version", "--debug"]) == 1
    loud = capsys.readouterr()

    assert "HG900" in quiet.err
    assert "ana@acme.example" not in quiet.err + quiet.out
    assert "Traceback" in loud.err


def test_the_keyboard_ends_a_command_without_a_trace(broken, capsys):
    broken(KeyboardInterrupt())

    assert app.run(["version"]) == 1
    assert "HG901" in capsys.readouterr().err


def test_a_reader_that_left_is_not_a_bug():
    done = subprocess.run(
        f"{sys.executable} -m sync.cli.app --help | true; {sys.executable} -c pass",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_it_runs_as_a_module_and_exits_with_the_code():
    assert shell("version").stdout.strip()
    assert shell("nope").returncode == 2


def test_forced_colour_is_coloured_and_refused_colour_is_not():
    coloured, plain = shell("nope", FORCE_COLOR="1", TERM="xterm"), shell("nope", NO_COLOR="1", FORCE_COLOR="1")

    assert "\x1b[31m" in coloured.stderr
    assert "\x1b[31m" not in plain.stderr
    assert "\x1b" not in shell("nope").stderr


def test_a_terminal_without_unicode_is_no_bug():
    assert shell("nope", PYTHONIOENCODING="ascii").returncode == 2


def test_explain_tells_a_code_and_a_guardrail(capsys):
    assert app.run(["explain", "hg190"]) == 0
    assert "What to do:" in capsys.readouterr().out
    assert app.run(["explain", "removals_pct", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["guardrail"] == "removals_pct"


def test_explain_names_the_nearest(capsys):
    assert app.run(["explain", "removal_pct"]) == 2
    assert "removals_pct" in capsys.readouterr().err
