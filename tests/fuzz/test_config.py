"""config.toml and the environment: refused with a code and a place, or taken, whatever stands in them."""

from __future__ import annotations

import os
import tomllib
from typing import Any
from unittest import mock

import pytest
import tomlkit
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.command import CONFIG, MAPPING, Project, check_problems
from tests.fuzz.documents import HOSTILE_TEXT, hostile_values, mutated_data, mutated_text

WHOLE = (
    CONFIG
    + """
[state]
path = ".headgate"

[engine]
memory_limit = "128MB"
threads = 1
lease_ttl = "30s"

[plans]
expire_after = "1d"

[delivery]
request_timeout = 15
attempts = 5
backoff_first = 0.5

[audit]
checkpoints = "checkpoints"
every = 100

[destinations.hook]
type = "webhook"
url = "http://127.0.0.1:9/x"
secret = "env:HOOK_SECRET"
headers = { "X-Team" = "growth" }
batch_size = 100

[destinations.hook.delivery]
rate_limit = "100/10s"
"""
)
SEED: Any = tomllib.loads(WHOLE)

SNIPPETS = [
    *[text for text in HOSTILE_TEXT if len(text) < 100],
    "[",
    "]",
    "[[",
    "]]",
    "[state]\n",
    "[destinations.sink]\n",
    "[[destinations.sink]]\n",
    "a.b.c = 1\n",
    "'''",
    '"""',
    "'",
    '"',
    "=",
    " = 1\n",
    "{",
    "}",
    "inf",
    "nan",
    "-nan",
    "0x1",
    "1979-05-27T07:32:00Z",
    "25:61:61",
    "#",
    "\\u0000",
    "\\ud800",
    "\r",
    ",",
    "9" * 5000,
    "[" * 300,
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project") / "p")


def _try(project: Project, config: str | bytes, figures: Figures) -> None:
    project.write()
    raw = config if isinstance(config, bytes) else config.encode(errors="replace")
    (project.root / "config.toml").write_bytes(raw)
    figures.add("config files fuzzed")
    answer = project.headgate("validate", "--offline", "--json")
    assert answer.code in (0, 2)
    if answer.code == 2:
        assert check_problems(answer, "config.toml")
        return
    project.people()
    figures.add("fuzzed config files that were planned with")
    assert project.headgate("plan", "--json").code in (0, 1, 2, 3)


def _toml(data: Any) -> str:
    return tomlkit.dumps(_without_null(data))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_null(v) for k, v in value.items() if v is not None}
    return [_without_null(v) for v in value] if isinstance(value, list) else value


@given(mutated_data(SEED))
@examples(80)
def test_a_config_with_a_few_values_changed(project: Project, figures: Figures, data: Any) -> None:
    try:
        text = _toml(data)
        tomllib.loads(text)
    except (ValueError, RecursionError):  # the writer's limits, not ours
        return
    _try(project, text, figures)


@given(mutated_text(WHOLE, SNIPPETS))
@examples(80)
def test_a_config_with_a_few_characters_changed(project: Project, figures: Figures, raw: bytes) -> None:
    _try(project, raw, figures)


HURTFUL = {
    "digits": "x = " + "9" * 5000,
    "lists in lists": "x = " + "[" * 5000,
    "lists in lists, closed": "x = " + "[" * 5000 + "]" * 5000,
    "tables in tables": "x = " + "{a = " * 2000 + "1" + "}" * 2000,
    "a long dotted key": ".".join("a" * 5000) + " = 1",
    "a long table": "[" + ".".join("a" * 5000) + "]",
    "many tables": "\n".join(f"[people.g{i}]" for i in range(9_000)),
    "many tables of one name": "[[x]]\n" * 20_000,
    "text of 1 MB": 'x = "' + "a" * 1_000_000 + '"',
    "no memory": '[engine]\nmemory_limit = "0KB"',
    "little memory": '[engine]\nmemory_limit = "1KB"',
    "much memory": '[engine]\nmemory_limit = "999999TB"',
    "memory in other digits": '[engine]\nmemory_limit = "١MB"',
    "endless plans": "[plans]\nexpire_after = inf",
    "plans of a million years": '[plans]\nexpire_after = "999999999d"',
    "an endless lease": "[engine]\nlease_ttl = inf",
    "a lease of no time": "[engine]\nlease_ttl = 1e-300",
    "an endless request": "[delivery]\nrequest_timeout = inf",
    "nobody's home": '[state]\npath = "~nobody-at-all/x"',
    "state nowhere": '[state]\npath = "/dev/null/x"',
    "state in a file": '[state]\npath = "config.toml"',
    "state with NUL": '[state]\npath = "a\\u0000b"',
    "state with a long name": f'[state]\npath = "{"x" * 300}"',
    "checkpoints nowhere": '[audit]\ncheckpoints = "/dev/null/x"',
    "checkpoints with NUL": '[audit]\ncheckpoints = "a\\u0000b"',
    "a header of two lines": "[destinations.x]\ntype = 'webhook'\nurl = 'http://a/'\nheaders = {a = \"b\\nc\"}",
    "a port that is none": '[destinations.x]\ntype = "webhook"\nurl = "http://a:99999999/"',
    "a destination with NUL": '[destinations.x]\ntype = "file"\npath = "\\u0000"',
    "a destination of nobody": '[destinations.x]\ntype = "file"\npath = "~nobody-at-all/"',
    "a rate of no time": '[destinations.sink.delivery]\nrate_limit = "1/0s"',
    "a rate of many digits": '[destinations.sink.delivery]\nrate_limit = "' + "9" * 5000 + '/s"',
}


@pytest.mark.parametrize("name", HURTFUL)
def test_a_config_made_to_hurt(project: Project, figures: Figures, name: str) -> None:
    _try(project, CONFIG + HURTFUL[name], figures)


# --- the environment ------------------------------------------------------------------------------------------

_WORDS = ["ENGINE", "STATE", "DELIVERY", "DESTINATIONS", "SOURCES", "SINK", "WAREHOUSE", "PATH", "THREADS", "TYPE"]
_WORDS += ["PEOPLE", "GROUPS", "A", "", "X", "MEMORY_LIMIT", "GUARDRAILS", "MAX_REMOVED", "0", "ENGİNE", "OPTIONS"]
_VALUES = ["[" * 5000, "{", "{}", "[]", "null", "1", "true", '{"threads": 2}', '["\\ud800"]', "\udcff", "1e999"]
_VALUES += [text for text in HOSTILE_TEXT if "\0" not in text]
_NAMES = st.lists(st.sampled_from(_WORDS), min_size=1, max_size=4).map(
    lambda words: "HEADGATE__" + "__".join(words)
)


@given(st.dictionaries(_NAMES, st.sampled_from(_VALUES) | hostile_values().map(str), min_size=1, max_size=3))
@example({"HEADGATE__ENGINE____X": "1"})
@example({"HEADGATE__ENGINE__THREADS__X": "1"})
@example({"HEADGATE__STATE__PATH": "\udcff"})
@example({"HEADGATE__DESTINATIONS__X": "[" * 5000})
@examples(80)
def test_an_environment_of_anything(project: Project, figures: Figures, variables: dict[str, str]) -> None:
    values = {name: value.replace("\0", "") for name, value in variables.items()}
    project.write().people()
    figures.add("environments fuzzed")
    with mock.patch.dict(os.environ, values):
        answer = project.headgate("validate", "--offline", "--json")
        if answer.code == 2:
            assert check_problems(answer, "config.toml")
        assert project.headgate("plan", "--json").code in (0, 1, 2, 3)


def test_a_variable_of_a_wrong_kind_is_named_and_not_the_file(project: Project) -> None:
    project.write()
    with mock.patch.dict(os.environ, {"HEADGATE__ENGINE__THREADS__X": "1"}):
        (problem,) = project.headgate("validate", "--json").json["problems"]

    assert problem["file"] == "environment HEADGATE__ENGINE__THREADS__X"
    assert "`threads` must be a whole number" in problem["message"]


@pytest.mark.parametrize("secret", ["a\nb", "gr\u00fcn", "x\0y", ""])
def test_a_secret_that_no_header_can_hold_is_said_before_anything_is_sent(project: Project, secret: str) -> None:
    extra = '[destinations.hook]\ntype = "webhook"\nurl = "http://127.0.0.1:9/"\n'
    extra += '[destinations.hook.secret_headers]\nX-Key = "file:key"\n'
    project.write().people()
    (project.root / "config.toml").write_text(CONFIG + extra)
    (project.root / "key").write_text(secret + "\n")
    mapping = MAPPING.replace("destination: sink", "destination: hook").replace("object: row", "object: record")
    (project.root / "mappings" / "vips.yaml").write_text(mapping)

    answer = project.headgate("run", "--first-run", "--json")

    (sync,) = answer.json["syncs"]
    assert (answer.code, sync["status"]) == (1, "failed")
    assert sync["applied"] == sync["rejected"] == sync["unknown"] == 0
    assert not secret or secret not in answer.out + answer.err
