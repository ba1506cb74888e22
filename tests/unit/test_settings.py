"""config.toml and the environment become one frozen `Settings` that knows where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from sync.engine.job import DeliverySettings, EngineSettings, GuardrailLimits
from sync.errors import Problem, ProjectError
from sync.settings import Settings, load_settings


def load(tmp_path: Path, text: str) -> Settings:
    (tmp_path / "config.toml").write_text(text)
    return load_settings(tmp_path)


def refused(tmp_path: Path, text: str) -> list[Problem]:
    with pytest.raises(ProjectError) as caught:
        load(tmp_path, text)
    return caught.value.problems


def test_without_any_setting_the_engine_has_its_own_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, "[state]\n")

    assert settings.engine_settings() == EngineSettings(folder=tmp_path / ".headgate")


def test_the_guardrails_default_to_the_engines(tmp_path: Path) -> None:
    given = load(tmp_path, "[state]\n").guardrails
    limits = GuardrailLimits()

    for name in ("max_removed", "max_removed_pct", "small_removal", "max_removed_pct_7d", "max_added_pct"):
        assert getattr(given, name) == getattr(limits, name)
    for name in ("hold_additions", "max_nulled_pct", "max_bad_keys", "warn_rejected_pct", "stop_rejected_pct"):
        assert getattr(given, name) == getattr(limits, name)


def test_the_file_sets_values(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [engine]
        memory_limit = "2GB"
        threads = 8
        [plans]
        expire_after = "7d"
        [delivery]
        backoff_first = "250ms"
        attempts = 2
        [state]
        path = "/var/lib/headgate"
        """,
    )

    assert settings.engine_settings() == EngineSettings(
        folder=Path("/var/lib/headgate"),
        memory_limit="2GB",
        threads=8,
        expire_after=7 * 86400,
        delivery=DeliverySettings(backoff_first=0.25, attempts=2),
    )


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE__ENGINE__THREADS", "7")
    monkeypatch.setenv("HEADGATE__PEOPLE__GROUPS", '{"leads": ["ana@acme.example"]}')

    settings = load(tmp_path, "[engine]\nthreads = 3\nmemory_limit = '1GB'\n")

    assert settings.engine.threads == 7
    assert settings.engine.memory_limit == "1GB"
    assert settings.people.groups == {"leads": ("ana@acme.example",)}


def test_options_from_the_environment_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE__SOURCES__SNOW__ACCOUNT", "123")
    monkeypatch.setenv("HEADGATE__SOURCES__SNOW__DIRECTORIES", '["a", "b"]')

    settings = load(tmp_path, "[sources.snow]\ntype = 'snowflake'\naccount = 'old'\nuser = 'u'\n")

    assert settings.sources["snow"].options == {"account": "123", "user": "u", "directories": ["a", "b"]}


def test_each_value_says_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADGATE__DESTINATIONS__CRM__URL", "http://b")

    settings = load(
        tmp_path,
        "[engine]\nmemory_limit = '1GB'\n\n[destinations.crm]\ntype = 'webhook'\nurl = 'http://a'\n",
    )

    assert settings.origin("engine.memory_limit") == "config.toml:2"
    assert settings.origin("destinations.crm.type") == "config.toml:5"
    assert settings.origin("destinations.crm.url") == "environment HEADGATE__DESTINATIONS__CRM__URL"
    assert settings.origin("engine.threads") == "default"


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = load(tmp_path, "[state]\n")

    with pytest.raises(ValidationError):
        settings.engine.threads = 3  # type: ignore[misc]


def test_a_connector_may_have_an_option_called_delivery(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        """
        [destinations.files]
        type = "file"
        delivery = "snapshot"
        [destinations.crm]
        type = "webhook"
        delivery = { rate_limit = "10/s", batch_size = 5 }
        """,
    )

    assert settings.destinations["files"].options == {"delivery": "snapshot"}
    assert settings.destinations["crm"].options == {}
    assert settings.destinations["crm"].delivery.batch_size == 5


@pytest.mark.parametrize(
    ("text", "code", "place", "message", "fix"),
    [
        ("[engine]\nmemory_limt = '1GB'\n", "HG105", (2, 1), "unknown key `memory_limt`", "`memory_limit`?"),
        ("[engin]\nthreads = 1\n", "HG105", (1, 1), "unknown key `engin`", "Did you mean `engine`?"),
        ("[engine]\nthreads = 'many'\n", "HG107", (2, 11), "`threads` must be a whole number", ""),
        ("[engine]\nthreads = 0\n", "HG107", (2, 11), "`threads` must be at least 1", ""),
        ("[engine]\nmemory_limit = 'lots'\n", "HG107", (2, 16), "`memory_limit` must be text like", ""),
        ("[plans]\nexpire_after = 'soon'\n", "HG107", (2, 16), "'soon' is not a duration", ""),
        ("[guardrails]\nmax_removed_pct = 101\n", "HG107", (2, 19), "at most 100", ""),
        ("[sources.w]\npath = 'x'\n", "HG106", (1, 1), "`w` lacks the key `type`", "Add `type`."),
        ("engine = 3\n", "HG107", (1, 10), "`engine` must be a group of keys", ""),
        ("[destinations.d]\ntype = 't'\ndelivery = { rate_limit = 'fast' }\n", "HG107", (3, 12), "not a rate", ""),
        ("[guardrails]\nallow_irreversible = ['removes']\n", "HG107", (2, 22), "one of", "Did you mean `remove`?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(
    tmp_path: Path, text: str, code: str, place: tuple[int, int], message: str, fix: str
) -> None:
    (problem,) = refused(tmp_path, text)

    assert (problem.code, problem.file, problem.line, problem.column) == (code, "config.toml", *place)
    assert message in problem.message
    assert fix in problem.fix


def test_every_problem_is_told_even_inside_one_line(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        "[engine]\nthreads = 0\n[destinations.d]\ntype = 't'\n"
        "delivery = { batch_size = 0, concurrency = 0, x = 1 }\n",
    )

    assert len(found) == 4


def test_a_bad_value_of_the_environment_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADGATE__GUARDRAILS__MAX_REMOVED", "few")

    (problem,) = refused(tmp_path, "[guardrails]\nmax_removed = 3\n")

    assert problem.where == "environment HEADGATE__GUARDRAILS__MAX_REMOVED"
    assert problem.message == "`max_removed` must be a whole number"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("HEADGATE__ENGINE__THRADS", "3", "threads"),
        ("HEADGATE__ENGIN__THREADS", "3", "engine"),
        ("HEADGATE__ENGINE", "not json", "HEADGATE__ENGINE"),
    ],
)
def test_a_misspelt_variable_is_never_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)

    (problem,) = refused(tmp_path, "[state]\n")

    assert words in problem.fix + problem.message


def test_a_folder_without_config_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        load_settings(tmp_path)

    assert caught.value.code == "HG101"
    assert "headgate init" in caught.value.fix


def test_a_config_that_is_no_toml_is_told(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "[engine\n")

    assert problem.code == "HG103"
