"""What people read: carets, numbers, masked values, progress."""

from __future__ import annotations

import io
import json

import pytest

from sync.cli import output, words
from sync.cli.observer import BarObserver, LineObserver, observing
from sync.errors import Problem


@pytest.mark.parametrize("column", [1, 5, 9])
def test_the_caret_stands_under_the_column(column):
    problem = Problem("HG101", "no", line=12, column=column, excerpt="  - name: x")

    line, caret = output.caret(problem)

    assert line[caret.index("^")] == "  - name: x"[column - 1]


def test_the_caret_of_a_long_line_is_on_the_screen():
    line, caret = output.caret(Problem("HG101", "no", line=1, column=401, excerpt="a" * 400 + "X" + "b" * 400))

    assert line[caret.index("^")] == "X"
    assert max(len(line), len(caret)) <= 80


def test_a_tab_before_the_column_is_kept():
    line, caret = output.caret(Problem("HG101", "no", line=1, column=3, excerpt="\t\tx: y"))

    assert line.index("x") == caret.index("^")
    assert caret.count("\t") == 2


@pytest.mark.parametrize("problem", [Problem("HG101", "no"), Problem("HG101", "no", line=3, excerpt="  ")])
def test_no_excerpt_no_caret(problem):
    assert output.caret(problem) == []


def test_a_document_is_one_line_of_json_with_its_schema(capsys):
    output.document("plan", syncs=[{"name": "für"}])

    assert json.loads(capsys.readouterr().out) == {"schema": 1, "command": "plan", "syncs": [{"name": "für"}]}


def test_square_brackets_are_text_and_not_markup(capsys):
    output.say("[red]no[/red] [HG101]", kind="error")

    assert "[red]no[/red] [HG101]" in capsys.readouterr().out


def test_a_table_has_no_ruling_when_it_is_not_on_a_terminal(capsys):
    table = output.table("sync", "members", right=["members"])
    table.add_row("vip", "1,000")
    output.console().print(table)

    said = capsys.readouterr().out
    assert said.isascii()
    assert "vip" in said


@pytest.mark.parametrize(
    ("value", "text"), [(9120, "9,120"), (23.14, "23.1"), (5.0, "5"), (None, "-"), ("x", "x"), (0, "0")]
)
def test_numbers_read_well(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(("count", "text"), [(1, "1 retry"), (0, "0 retries"), (2000, "2,000 retries")])
def test_one_is_not_several(count, text):
    assert words.several(count, "retry") == text


def test_times_read_well():
    assert words.iso(1790834400.0) == "2026-10-01T06:00:00Z"
    assert words.age(100.0, 160.0) == "60s ago"
    assert words.due(None, 1.0) == "-"
    assert words.cut("a b\n" + "c" * 99, 10) == "a b ccccc…"


def test_a_sample_shows_nobody():
    sample = {
        "op": "add",
        "source_key": "u17",
        "identifiers": {"email": "ana@acme.example", "id": 4711},
        "fields": {
            "first_name": "Ana",
            "country": "AU",
            "note": "call +61 412 345 678",
            "ltv": 12.5,
            "gone": None,
        },
    }

    shown = words.masked_sample(sample, frozenset({"first_name", "gone"}))

    text = json.dumps(shown, ensure_ascii=False)
    for personal in ("ana@", "4711", "Ana", "412 345"):
        assert personal not in text
    assert shown["fields"]["country"] == "AU"
    assert shown["fields"]["ltv"] == 12.5
    assert shown["fields"]["gone"] is None


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_progress_is_a_line_every_few_seconds_and_notes_are_always_said():
    said: list[str] = []
    clock = Clock()
    observer = LineObserver(said.append, quiet=5, clock=clock)
    for second in range(21):
        clock.now = float(second)
        observer.progress("vip", second * 50, 1000)
    observer.note("vip", "waiting 3 s, as the destination asks")

    assert said == [
        "vip: 250 of 1,000 records (25 %)",
        "vip: 500 of 1,000 records (50 %)",
        "vip: 750 of 1,000 records (75 %)",
        "vip: 1,000 of 1,000 records (100 %)",
        "vip: waiting 3 s, as the destination asks",
    ]


def test_phases_are_said_when_more_is_asked_for():
    quiet, verbose = list[str](), list[str]()
    LineObserver(quiet.append).phase("vip", "diff", "checksums")
    LineObserver(verbose.append, verbose=True).phase("vip", "diff", "checksums")

    assert quiet == []
    assert verbose == ["vip: comparing with the members, checksums"]


def test_bars_show_syncs_phases_and_notes():
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    console = Console(file=io.StringIO(), force_terminal=True, width=80, highlight=False)
    columns = (TextColumn("{task.description} {task.completed} {task.fields[phase]}"),)
    with Progress(*columns, console=console) as progress:
        observer = BarObserver(progress)
        observer.phase("vip", "deliver")
        observer.progress("vip", 50, 100)
        observer.note("vip", "retrying [batch 3]")

    said = console.file.getvalue()
    assert "vip 50 delivering" in said
    assert "retrying [batch 3]" in said


def test_without_a_terminal_progress_goes_to_stderr_as_lines(capsys):
    with observing(verbose=True) as observer:
        observer.phase("vip", "guard")
        observer.note("vip", "hello")

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["vip: judging the plan", "vip: hello"]
