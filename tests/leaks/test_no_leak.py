"""No secret is found anywhere, whatever went wrong; personal data only where the reference says."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from sync.cli import app
from tests.acceptance import faults
from tests.acceptance.faults import Answer, Request
from tests.figures import Figures
from tests.leaks.canaries import PERSON, SECRETS
from tests.leaks.scene import Finding, Scene

DOCUMENTED = Path(__file__).parent.parent.parent / "docs" / "reference" / "personal-data.md"
LOUD = ("-vvv", "--debug")


def documented() -> set[str]:
    """The places that the page lists: the first cell of each row of its tables."""
    return set(re.findall(r"^\| `([^`]+)` \|", DOCUMENTED.read_text(), re.MULTILINE))


@pytest.fixture(autouse=True)
def nothing_leaked(scene: Scene, figures: Figures) -> Iterator[None]:
    """After each test: scan all that was printed and written."""
    yield
    secrets, people = scene.secrets(), scene.person() - documented()
    figures.add("leaks: places scanned", scene.scanned)
    figures.add("leaks: commands", len(scene.printed) // 2)
    figures.add("leaks: secrets found", len(secrets))
    figures.add("leaks: personal data outside the documented places", len(people))
    assert secrets == []
    assert people == set()


def test_a_canary_that_is_planted_is_found(scene: Scene) -> None:
    """The scan itself bites: in every encoding, in text, in a column and in a Parquet file."""
    for secret in SECRETS.values():
        for form in secret.forms.values():
            assert secret.encodings_in(b"before " + form + b" after")
    folder = scene.project.root / ".headgate" / "plans"
    folder.mkdir(parents=True)
    scene.project.sql(f"COPY (SELECT * FROM vip_cohort) TO '{folder}/x.parquet' (COMPRESSION zstd)")
    scene.printed.append(("stdout of nothing", f"{SECRETS['token'].text} {PERSON['name'].text}"))

    assert Finding("token", "plain", "stdout of nothing") in scene.secrets()
    assert {"plans/", "stdout of nothing"} <= scene.person()
    scene.printed.clear()
    (folder / "x.parquet").unlink()


def test_the_ordinary_days_leave_what_is_documented_and_nothing_else(scene: Scene) -> None:
    scene.do("validate", *LOUD)
    scene.do("plan", "--json", *LOUD)
    assert scene.do("plan", "--out", "plans.json").code == 3
    held = scene.do("run")
    assert held.code == 3, held.text
    plan = re.search(r"approve (\w+)", held.text)
    assert plan is not None, held.text
    assert scene.do("approve", plan[1], "--reason", "looked at it", *LOUD).code == 0
    for words in (("status",), ("state", "show"), ("audit", "search"), ("audit", "verify"), ("doctor",)):
        scene.do(*words, "--json", *LOUD)
    assert scene.do("audit", "export", "--out", "audit.jsonl").code == 0
    known = scene.do("person", PERSON["email"].text, "--json")
    assert known.json["found"] or known.code == 0
    scene.do("person", PERSON["phone"].text, *LOUD)
    scene.project.sql("DELETE FROM vip_cohort WHERE user_id = 1")
    assert scene.do("run", *LOUD).code == 0


@pytest.mark.parametrize("status", [207, 422])
def test_a_destination_that_quotes_credentials_and_record_in_every_reason(delivered: Scene, status: int) -> None:
    delivered.quote_back(status, per_record=True)
    delivered.project.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id IN (1, 31)")

    assert delivered.do("run", "--json", *LOUD).code in (1, 4)

    listed = delivered.do("rejected", "list", "--json", *LOUD).json
    assert listed["count"] >= 1
    key = listed["records"][0]["key"]
    delivered.do("rejected", "show", "sink-vip", key, *LOUD)
    delivered.do("rejected", "show", "sink-vip", key, "--reveal", "--reason", "support case 7")
    delivered.do("rejected", "retry", "sink-vip", key, "--reason", "mended there")
    delivered.do("rejected", "give-up", "sink-vip", "--all", "--reason", "a test person", "--json")
    delivered.do("audit", "search", "--json")


ANSWERS = {
    "401": {"status": 401},
    "400": {"status": 400},
    "500": {"status": 500},
    "200 with something else": {"status": 200},
    "redirect": {
        "status": 302,
        "location": f"https://elsewhere.example/?k={SECRETS['token'].forms['percent'].decode()}",
    },
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_for_the_whole_batch_that_quotes_everything(scene: Scene, name: str) -> None:
    scene.project.extra = "[delivery]\nattempts = 1\n"
    scene.project.write()
    scene.quote_back(**ANSWERS[name])  # type: ignore[arg-type]

    assert scene.do("run", "--first-run", *LOUD).code in (1, 4)
    scene.do("run", "--json", *LOUD)


def test_credentials_in_an_address_are_told_to_nobody(scene: Scene) -> None:
    port = scene.sink.port
    user, key = SECRETS["url password"].text, SECRETS["url key"].text
    scene.project.extra = "[delivery]\nattempts = 1\n"
    scene.project.url = f"http://user:{user}@127.0.0.1:{port}/records?api_key={key}"
    scene.project.write()
    scene.do("validate", "--json")
    scene.do("connector", "list")
    scene.quote_back(500)
    scene.do("run", "--first-run", *LOUD)
    scene.sink.down()
    try:
        scene.do("run", "--first-run", "--json", *LOUD)
        scene.do("doctor", *LOUD)
    finally:
        scene.sink.up()


WRONG_PLACES = {
    "plain": 'secret = "{token}"',
    "plain, of a state key": '[state]\nkey = "{token}"',
    "in a list of keys": '[state]\nkey = "env:STATE_KEY"\nprevious_keys = ["{token}"]',
    "as a group": 'secret = {{ value = "{token}" }}',
    "as a list": 'secret = ["{token}"]',
    "under a wrong name": 'tokn = "{token}"',
    "as the number of something": 'timeout = "{token}"\nbatch_sise = "{token}"',
    "as a path": 'path = "{token}"',
    "in a file that is not TOML": "secret = {token}",
    "after a broken line": 'secret = "{token}\nurl = ',
    "as a type": '[destinations.other]\ntype = "{token}"',
    "as a password of a source": '[sources.snow]\ntype = "snowflake"\npassword = "{token}"',
    "as a password of a database": '[sources.pg]\ntype = "postgres"\npassword = "{token}"',
    "as a reference": 'secret = "env:{token}"',
    "as a number": 'batch_size = "{token}"',
}


@pytest.mark.parametrize("name", WRONG_PLACES)
def test_a_secret_in_the_wrong_place_of_a_file_is_not_repeated(
    scene: Scene, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    token = SECRETS["password"].text
    scene.project.destination = WRONG_PLACES[name].format(token=token)
    scene.project.write()

    for options in (LOUD, ("--json",)):
        words = ["validate", "--offline", "--project", str(scene.project.root), *options]
        assert app.run(words) == 2
        scene.keep(words, *capfd.readouterr())


def test_a_secret_in_the_wrong_variable_is_not_repeated(scene: Scene) -> None:
    for name in ("HEADGATE__ENGINE__THREADS", "HEADGATE__STATE__KEY", "HEADGATE__DESTINATIONS__SINK__SECRET"):
        scene.project.environment = {name: SECRETS["password"].text}
        assert scene.do("validate", "--offline", *LOUD).code == 2


PLUGIN = '''
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Limits, ObjectSpec, Op

from pydantic import SecretStr


class Buggy(Connector):
    """It fails in the middle of a batch, and says of what."""

    name = "buggy"
    title = "Buggy"
    docs = "None."

    class config_model(Config):
        secret: SecretStr

    objects = {"record": ObjectSpec(name="record", title="Record", ops=frozenset(Op), limits=Limits(batch_size=10),
                                    audience=False, open_fields=True)}

    def check(self):
        raise RuntimeError(f"no luck with {self.config.secret.get_secret_value()}")

    def push(self, batch):
        secret, change = self.config.secret.get_secret_value(), batch.changes[0]
        try:
            raise KeyError(f"{change.fields} {change.identifiers} {secret}")
        except KeyError as error:
            raise ValueError(f"cannot write {change!r} with {secret}") from error
'''


def test_a_connector_with_a_bug_that_quotes_record_and_secret(scene: Scene, tmp_path: Path) -> None:
    plugins = tmp_path / "plugins"
    about = plugins / "buggy-1.0.dist-info"
    about.mkdir(parents=True)
    (plugins / "buggy.py").write_text(PLUGIN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: buggy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[headgate.connectors]\nbuggy = buggy:Buggy\n")
    config = scene.project.root / "config.toml"
    config.write_text(
        '[sources.warehouse]\ntype = "duckdb"\npath = "warehouse.duckdb"\n'
        '[destinations.sink]\ntype = "buggy"\nsecret = "env:SINK_SECRET"\n[delivery]\nattempts = 1\n'
    )
    scene.project.environment["PYTHONPATH"] = str(plugins)

    done = scene.do("run", "--first-run", *LOUD)
    assert done.code in (1, 4), done.text
    scene.do("doctor", "--json", *LOUD)


def test_a_warehouse_whose_errors_quote_values(scene: Scene) -> None:
    scene.project.sql("ALTER TABLE vip_cohort RENAME TO people")
    scene.project.sql("CREATE VIEW vip_cohort AS SELECT * REPLACE (email::INTEGER AS score) FROM people")

    assert scene.do("plan", *LOUD).code == 1
    assert scene.do("run", "--first-run", "--json", *LOUD).code == 1
    scene.do("validate", *LOUD)


def test_rows_that_are_not_fit_to_be_sent(scene: Scene) -> None:
    scene.project.extra = "[guardrails]\nmax_bad_keys = 5\n"
    scene.project.write()
    scene.project.sql("ALTER TABLE vip_cohort ALTER user_id TYPE VARCHAR")
    email = PERSON["email"].text
    scene.project.sql(f"UPDATE vip_cohort SET user_id = '{email}' WHERE user_id IN ('1', '31')")

    scene.do("run", "--first-run", *LOUD)
    listed = scene.do("rejected", "list", *LOUD, "--json")
    for record in listed.json["records"][:1]:
        scene.do("rejected", "show", "sink-vip", record["key"], *LOUD)
        scene.do("rejected", "show", "sink-vip", record["key"], "--reveal", "--reason", "support case 8")
    scene.do("audit", "search", "--json")

    assert scene.person() == documented(), "the page lists what there is, and no more"


def test_a_run_that_is_told_to_stop_and_one_that_is_killed(scene: Scene) -> None:
    scene.project.batch_size = 1
    scene.project.write()
    scene.sink.latency = 0.1
    for end in ("terminate", "kill"):
        process = scene.project.start("run", "--first-run", *LOUD)
        seen = scene.sink.count
        scene.sink.faults = (faults.when(seen + 5, getattr(process, end)),)
        scene.end(process, "run")
    scene.sink.latency, scene.sink.faults = 0.0, ()
    assert scene.do("run", "--first-run", *LOUD).code == 0


def test_a_refusal_that_comes_while_the_audit_log_looks_on_is_not_in_it(delivered: Scene) -> None:
    def refuse(request: Request) -> Answer:
        return Answer(422, orjson.dumps({"message": f"{request.records}"}), apply=False)

    delivered.sink.faults = (refuse,)
    delivered.project.sql("UPDATE vip_cohort SET score = score + 1")
    delivered.do("run", "--json", *LOUD)
    assert delivered.do("audit", "export", "--out", "audit.jsonl").code == 0


def test_git_is_not_given_the_secrets(scene: Scene, tmp_path: Path) -> None:
    """The only program that is started: it gets no more of the environment than it needs."""
    seen, folder = scene.project.root / "seen.txt", tmp_path / "bin"
    folder.mkdir()
    git = folder / "git"
    git.write_text(f"#!{sys.executable}\nimport os\nopen({str(seen)!r}, 'a').write(repr(dict(os.environ)))\n")
    git.chmod(0o755)
    (scene.project.root / ".git").mkdir()
    scene.project.environment["PATH"] = str(folder)

    scene.do("plan")

    assert "PATH" in seen.read_text()
