"""With a key, what stands in the state folder cannot be read without it; a key that is missing sends nothing."""

from __future__ import annotations

import base64
import os

import pytest

from tests.leaks.canaries import PERSON
from tests.leaks.scene import Scene

MEMBERS_BY_EMAIL = "ALTER TABLE vip_cohort ALTER user_id TYPE VARCHAR; UPDATE vip_cohort SET user_id = email"
FILES = {"members/", "plans/", "rejected/"}


@pytest.fixture
def personal(scene: Scene) -> Scene:
    """Members whose identifier is their e-mail address, the canary's of them once."""
    scene.project.sql("DELETE FROM vip_cohort WHERE user_id = 31")
    scene.project.sql(MEMBERS_BY_EMAIL)
    return scene


def keys(scene: Scene, text: str) -> None:
    scene.project.extra = f"[state]\n{text}\n"
    scene.project.write()


def encryption(scene: Scene) -> dict[str, object]:
    checks = scene.do("doctor", "--offline", "--json").json["checks"]
    return next(check for check in checks if check["name"] == "encryption")


def refused(scene: Scene) -> None:
    """Nothing is sent, and the error names the way out."""
    before = scene.sink.count
    done = scene.do("run", "--debug")

    assert done.code == 1
    assert "HG342" in done.text
    assert "previous_keys" in done.text
    assert scene.sink.count == before


def test_with_a_key_the_files_hold_nothing_that_can_be_read(personal: Scene) -> None:
    keys(personal, 'key = "env:STATE_KEY"')
    assert personal.do("run", "--first-run", "--json").sync["applied"] == 59
    personal.quote_back(422, per_record=True)
    personal.project.sql("UPDATE vip_cohort SET score = score + 1 WHERE first_name LIKE 'Zo%'")
    personal.do("run")
    key = personal.do("rejected", "list", "--json").json["records"][0]["key"]

    assert personal.person() & FILES == set()
    assert personal.secrets() == []
    assert personal.do("rejected", "show", "sink-vip", key, "--json").json["record"]["values"]
    assert personal.do("person", "zoe.canary@leak-canary.example", "--json").json["found"]
    assert "encrypts what is written" in str(encryption(personal)["message"])


def test_a_key_that_is_gone_or_another_one_stops_the_run(personal: Scene) -> None:
    keys(personal, 'key = "env:STATE_KEY"')
    assert personal.do("run", "--first-run").code == 0
    personal.project.sql("UPDATE vip_cohort SET score = score + 1")
    keys(personal, "")
    refused(personal)
    personal.project.environment["STATE_KEY"] = base64.b64encode(os.urandom(32)).decode()
    keys(personal, 'key = "env:STATE_KEY"')
    refused(personal)
    assert not encryption(personal)["ok"]
    del personal.project.environment["STATE_KEY"]

    assert "HG151" in personal.do("run").text


def test_a_key_is_set_and_changed_without_losing_what_was_written_before(personal: Scene) -> None:
    assert personal.do("run", "--first-run").code == 0
    assert "members/" in personal.person()
    keys(personal, 'key = "env:STATE_KEY"')
    personal.project.sql("UPDATE vip_cohort SET score = score + 1")
    assert personal.do("run", "--json").sync["update"] == 59
    new = base64.b64encode(os.urandom(32)).decode()
    personal.project.environment["NEW_KEY"] = new
    keys(personal, 'key = "env:NEW_KEY"\nprevious_keys = ["env:STATE_KEY"]')
    personal.project.sql("UPDATE vip_cohort SET score = score + 1")
    done = personal.do("run", "--json")

    assert (done.code, done.sync["update"], done.sync["unchanged"]) == (0, 59, 0)
    told = encryption(personal)
    assert told["ok"]
    assert "previous key" in str(told["message"])


@pytest.mark.parametrize("value", ["a passphrase", base64.b64encode(b"short").decode(), ""])
def test_what_is_no_key_is_refused_before_anything_is_written(scene: Scene, value: str) -> None:
    scene.project.environment["STATE_KEY"] = value
    keys(scene, 'key = "env:STATE_KEY"')
    done = scene.do("run", "--first-run")

    assert done.code == 1
    assert "HG153" in done.text or "HG151" in done.text
    assert not value or value not in done.text
    assert scene.sink.count == 0


def test_a_person_is_forgotten_in_encrypted_files_too(personal: Scene) -> None:
    keys(personal, 'key = "env:STATE_KEY"')
    assert personal.do("run", "--first-run").code == 0
    email = PERSON["email"].text
    personal.project.sql(f"DELETE FROM vip_cohort WHERE email = '{email}'")
    personal.do("person", email, "--forget", "--reason", "asked for it by letter", "--debug")
    personal.do("run", "--debug")

    assert personal.do("person", email, "--json").json["found"] == []
    assert encryption(personal)["message"] != ""
    assert "no encryption" not in str(encryption(personal)["message"])
    assert personal.person() & FILES == set()
    assert personal.secrets() == []
