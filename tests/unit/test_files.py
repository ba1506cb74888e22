"""Whatever a person wrote, reading a file gives data with places, or problems with places."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.errors import Problem
from sync.files import Document, Mark, Unreadable, known, nearest, read_toml, read_yaml, suggest


def yaml(tmp_path: Path, text: str | bytes) -> Document:
    path = tmp_path / "m.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(path, "mappings/m.yaml")


def toml(tmp_path: Path, text: str) -> Document:
    path = tmp_path / "config.toml"
    path.write_text(textwrap.dedent(text))
    return read_toml(path, "config.toml")


def refused(tmp_path: Path, text: str | bytes) -> list[Problem]:
    with pytest.raises(Unreadable) as caught:
        yaml(tmp_path, text)
    return caught.value.problems


def test_every_value_of_a_yaml_file_has_its_place(tmp_path: Path) -> None:
    document = yaml(tmp_path, "a: 1\nb:\n  - { c: x, d: [2, 3] }\n")

    assert document.data == {"a": 1, "b": [{"c": "x", "d": [2, 3]}]}
    assert document.values["b", 0, "d", 1] == Mark(3, 20)
    assert document.keys["b", 0, "d"] == Mark(3, 13)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NO", "NO"),
        ("yes", "yes"),
        ("010", 10),
        ("0o10", 8),
        ("-0x1F", -31),
        ("1_000", 1000),
        ("1.5e3", 1500.0),
        ("2024-01-01", "2024-01-01"),
        ("12:30", "12:30"),
        ("~", None),
        ("", None),
        ("true", True),
        ("'1'", "1"),
        ("100/10s", "100/10s"),
    ],
)
def test_values_are_read_as_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    data = yaml(tmp_path, f"a: {text}\n").data

    assert data["a"] == value
    assert type(data["a"]) is type(value)


def test_aliases_repeat_a_value(tmp_path: Path) -> None:
    assert yaml(tmp_path, "a: &x [1, 2]\nb: *x\n").data == {"a": [1, 2], "b": [1, 2]}


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    assert yaml(tmp_path, b"\xef\xbb\xbfa: 1\n").data == {"a": 1}


def test_windows_line_ends_keep_their_places(tmp_path: Path) -> None:
    assert yaml(tmp_path, "a: 1\r\nb: 2\r\n").values["b",] == Mark(2, 4)


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "code", "place", "words"),
    [
        ("a:\n\t- b\n", "HG103", (2, 1), "tab"),
        ("a: 1\nb: 2\na: 3\n", "HG104", (3, 1), "`a` stands here twice, first in line 1"),
        ("a: b: c\n", "HG103", (1, 5), "mapping values are not allowed"),
        ("a: [1,\nb: 2\n", "HG103", None, ""),
        ("a: 'open\n", "HG103", (1, 4), "end of stream"),
        ("", "HG102", (0, 0), "empty"),
        (" \n\n", "HG102", (0, 0), "empty"),
        ("# nothing\n", "HG102", (0, 0), "only comments"),
        ("- a\n- b\n", "HG107", (1, 1), "keys at its top level"),
        ("just text\n", "HG107", (1, 1), "keys at its top level"),
        ("a: 1\n---\nb: 2\n", "HG103", (2, 1), "another document"),
        ("%YAML 1.1\n---\na: NO\n", "HG103", (1, 1), "directives"),
        ("a: *nowhere\n", "HG103", (1, 4), "alias"),
        ("a: &x [*x]\n", "HG103", (1, 4), "contains itself"),
        ("a: !!python/object:os.system x\n", "HG103", (1, 4), "not supported"),
        ("a: !secret x\n", "HG103", (1, 4), "not supported"),
        ("<<: { a: 1 }\n", "HG103", (1, 1), "plain names"),
        ("? [a, b]\n: 1\n", "HG103", (1, 3), "plain names"),
        ("a: \x07\n", "HG103", (1, 4), "control character"),
        (b"a: \xff\xfe\n", "HG102", (1, 4), "UTF-8"),
        ("a: 1\n".encode("utf-16"), "HG102", (1, 1), "UTF-8"),
        ("a: " + "[" * 3000 + "]" * 3000, "HG103", (0, 0), "too deeply"),
        ("a: " + "x" * 300_000, "HG102", (0, 0), "larger than 256 KiB"),
        (bomb(), "HG103", None, "too many values"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, str | bytes) else "",
)
def test_a_bad_yaml_file_gives_one_problem_with_its_place(
    tmp_path: Path, text: str | bytes, code: str, place: tuple[int, int] | None, words: str
) -> None:
    (problem,) = refused(tmp_path, text)

    assert problem.code == code
    assert words in problem.message
    assert problem.fix
    assert problem.file == "mappings/m.yaml"
    assert place is None or (problem.line, problem.column) == place


def test_several_double_keys_are_all_told(tmp_path: Path) -> None:
    found = refused(tmp_path, "a: 1\na: 2\nb: { c: 1, c: 2 }\n")

    assert [(p.line, p.column) for p in found] == [(2, 1), (3, 12)]


@pytest.mark.parametrize("make", ["missing", "folder"])
def test_a_file_that_cannot_be_opened_is_a_problem(tmp_path: Path, make: str) -> None:
    path = tmp_path / "m.yaml"
    if make == "folder":
        path.mkdir()

    with pytest.raises(Unreadable) as caught:
        read_yaml(path, "m.yaml")

    assert caught.value.problems[0].code == "HG102"


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=60), st.text(alphabet="ab:-[]{}&*!#'\"|>%@` \n\t,?<~0", max_size=60)))
def test_no_text_at_all_makes_reading_fall_over(tmp_path: Path, text: str | bytes) -> None:
    raw = text.encode() if isinstance(text, str) else text
    path = tmp_path / "x"
    path.write_bytes(raw)

    for read in (read_yaml, read_toml):
        codes, data = read_or_codes(read, path)
        assert isinstance(data, dict) or codes <= {"HG102", "HG103", "HG104", "HG107"}


def read_or_codes(read: Callable[[Path, str], Document], path: Path) -> tuple[set[str], object]:
    try:
        return set(), read(path, "x").data
    except Unreadable as error:
        return {p.code for p in error.problems}, None


def test_every_table_and_key_of_a_toml_file_has_its_place(tmp_path: Path) -> None:
    document = toml(
        tmp_path,
        '''\
        # a comment with ] and "
        [x."y.z"]   # [
        list = [1,
          "]",
          2]
        text = """
        [no]
        a = 1
        """
        'odd key' = 'C:\\'
        a.b = {c = 1}
        [[many]]
        n = 1
        [[many]]
        [many.sub]
        m = 2
        ''',
    )

    assert document.keys["x", "y.z"] == Mark(2, 1)
    assert document.values["x", "y.z", "list"] == Mark(3, 8)
    assert document.keys["x", "y.z", "odd key"] == Mark(10, 1)
    assert document.values["x", "y.z", "a", "b"] == Mark(11, 7)
    assert document.mark(("x", "y.z", "a", "b", "c")) == Mark(11, 7)
    assert document.keys["many", 1, "sub", "m"] == Mark(16, 1)
    assert ("no",) not in document.keys


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(alphabet="abc.-\"'\\ é", min_size=1, max_size=5),
        st.recursive(
            st.one_of(st.integers(), st.booleans(), st.text(max_size=8)),
            lambda inner: st.one_of(
                st.lists(inner, max_size=3), st.dictionaries(st.text(alphabet="ab", min_size=1), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_places_are_found_in_any_toml_that_a_library_writes(tmp_path: Path, data: dict[str, object]) -> None:
    import tomlkit

    text = "# first\n" + tomlkit.dumps(data)
    path = tmp_path / "c.toml"
    path.write_text(text, newline="")

    document = read_toml(path, "c.toml")

    assert document.data == data
    for name in data:
        mark = document.keys[(name,)]
        line = text.split("\n")[mark.line - 1]
        assert name in line or "\\" in line  # written with escapes


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("a = 1\nb = text\n", "HG103", 2),
        ("a = 1\na = 2\n", "HG104", 2),
        ("[t]\nx = 1\n[t]\n", "HG104", 3),
        ("a = [1,\n", "HG103", 2),
        ("a: 1\n", "HG103", 1),
    ],
)
def test_a_bad_toml_file_gives_one_problem_with_its_line(tmp_path: Path, text: str, code: str, line: int) -> None:
    with pytest.raises(Unreadable) as caught:
        toml(tmp_path, text)

    (problem,) = caught.value.problems
    assert problem.code == code
    assert abs(problem.line - line) <= 1


def test_excerpts_of_config_never_show_values(tmp_path: Path) -> None:
    document = toml(tmp_path, '[destinations.crm]\ntokn = "pat-canary"\nlist = [\n  "canary",\n]\n')

    shown = [document.excerpt(line) for line in range(9)]

    assert "[destinations.crm]" in shown
    assert "tokn = …" in shown
    assert not any("canary" in text for text in shown)


def test_the_nearest_place_stands_for_what_is_missing(tmp_path: Path) -> None:
    document = yaml(tmp_path, "a:\n  b: 1\n")

    assert document.mark(("a", "zzz", 3)) == Mark(2, 3)
    assert document.mark(("a", "zzz"), key=True) == Mark(1, 1)
    assert known(document.data, ("a", "b", "c")) == ("a", "b")


def test_the_name_that_was_meant_is_found() -> None:
    assert nearest("Mirorr", ["mirror", "upsert"]) == "mirror"
    assert nearest("qqq", ["mirror"]) is None
    assert suggest("mirorr", ["mirror", "upsert"], "Modes") == "Did you mean `mirror`?"
    assert suggest("qqq", ["a", "b"], "Modes") == "Modes: `a`, `b`."
    assert suggest("qqq", [], "Modes") == ""
