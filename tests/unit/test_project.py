"""A project loads only where settings, mappings and connectors fit together; else it says all that does not."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import pytest

from sync.checks import check_sync_columns
from sync.engine.job import GuardrailLimits
from sync.errors import Problem, ProjectError, UsageError
from sync.project import Project, examine, load
from sync.sdk.nouns import Field, ObjectSpec, Op, Rate
from sync.secrets import SecretError
from sync.sources.base import Column

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "w.duckdb"

[destinations.crm]
type = "webhook"
url = "http://127.0.0.1:9/people"
secret = "env:CRM_SECRET"

[destinations.hubspot]
type = "hubspot"
token = "env:HUBSPOT_TOKEN"

[destinations.files]
type = "file"
path = "out"

[people.groups]
leads = ["ana@acme.example", "ben@acme.example"]
"""

MAPPING = """\
version: 1
cohort:
  name: vips
  owner: lifecycle@acme.example
  source: { connection: warehouse, table: vips, key: id }
syncs:
  - name: crm-vips
    destination: crm
    mode: mirror
    identifiers:
      - { to: email, from: email, transform: [email] }
    fields:
      - { to: first_name, from: first_name }
    tags: [daily]
  - name: hubspot-vips
    destination: hubspot
    object: list_member
    audience: "1234"
    mode: mirror
    identifiers:
      - { to: email, from: email }
"""


def nothing() -> None:
    """What the engine would do before each request."""


class Folder:
    """A project to change and load."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = CONFIG
        self.mapping = MAPPING
        self.others: dict[str, str] = {}

    def write(self) -> None:
        (self.root / "mappings").mkdir(exist_ok=True)
        (self.root / "config.toml").write_text(self.config)
        for name, text in {"vips.yaml": self.mapping, **self.others}.items():
            (self.root / "mappings" / name).write_text(text)

    def load(self) -> Project:
        self.write()
        return load(self.root)

    def problems(self) -> list[Problem]:
        self.write()
        return examine(self.root)[1]

    def problem(self) -> Problem:
        (found,) = self.problems()
        return found

    def warehouse(self, *statements: str) -> None:
        with duckdb.connect(str(self.root / "w.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def at(text: str, part: str) -> tuple[int, int]:
    before = text[: text.index(part)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


# --- loading --------------------------------------------------------------------------------------------------


def test_a_whole_project_loads_without_a_word(folder: Folder) -> None:
    assert folder.problems() == []


def test_the_jobs_have_everything_the_engine_needs(folder: Folder) -> None:
    crm, hubspot = folder.load().jobs()

    assert (crm.name, crm.destination, crm.spec.name) == ("crm-vips", "crm", "record")
    assert crm.account == "http://127.0.0.1:9"
    assert crm.guardrails == GuardrailLimits()
    assert crm.limits.batch_size == 100
    assert (hubspot.spec.name, hubspot.sync.audience) == ("list_member", "1234")


@pytest.mark.parametrize(
    ("old", "new", "part", "code", "message", "fix"),
    [
        ("destination: crm", "destination: crn", "crn", "HG110", "no destination `crn`", "Did you mean `crm`?"),
        ("destination: crm", "destination: zzz", "zzz", "HG110", "no destination", "`crm`, `hubspot`, `files`"),
        ("connection: warehouse", "connection: warhouse", "warhouse", "HG111", "no connection", "`warehouse`?"),
        ("object: list_member", "object: list_members", "list_members", "HG113", "no object", "`list_member`?"),
        ("object: list_member\n    ", "", "name: hubspot-vips", "HG113", "several objects", "`contact`"),
        ("mode: mirror\n    identifiers", "mode: mirror\n    object: records\n    identifiers", "records", "HG113",
         "no object `records`", "Did you mean `record`?"),
        ('audience: "1234"\n    ', "", "name: hubspot-vips", "HG117", "needs an audience", "Add `audience"),
        ("tags: [daily]", 'audience: "1"', "audience", "HG117", "has no audiences", "Delete"),
        ("{ to: email, from: email }", "{ to: phone, from: phone }", "phone,", "HG115",
         "does not find people by `phone`", "`email`"),
        ("{ to: first_name, from", "{ to: email, from", "email, from: first", "HG118", "mapped twice", "one of"),
        ("name: hubspot-vips", "name: crm-vips", None, "HG118", "stands in mappings/vips.yaml:7", "own name"),
        ("transform: [email]", "transform: [emial]", "emial", "HG121", "unknown transform", "email"),
        ("transform: [email]", "transform: [trim, {truncate: x}]", "{truncate", "HG122", "whole number", ""),
        ("from: first_name }", "expr: '(SELECT 1)' }", "'(SELECT", "HG124", "", ""),
        ("from: first_name }", "expr: 'a +' }", "'a +'", "HG123", "cannot be read", ""),
        ("tags: [daily]", "guardrails: { max_removed: 5000 }", "5000", "HG119", "at most 1000", "only tighten"),
        ("tags: [daily]", "guardrails: { approve: { by: [lead] } }", "lead]", "HG127", "no group", "`leads`?"),
        ("tags: [daily]", "schedule: { cron: '99 * * * *' }", "'99", "HG125", "", "Five fields"),
        ("tags: [daily]", "schedule: { cron: '1 2 * * *', timezone: Mars }", "Mars", "HG125", "time zone", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told_with_place_and_fix(
    folder: Folder, old: str, new: str, part: str | None, code: str, message: str, fix: str
) -> None:
    folder.mapping = MAPPING.replace(old, new, 1)

    problem = next(p for p in folder.problems() if p.code == code)

    assert message in problem.message
    assert fix in problem.fix
    assert problem.file == "mappings/vips.yaml"
    if part is not None:
        assert (problem.line, problem.column) == at(folder.mapping, part)
    with pytest.raises(ProjectError):
        folder.load()


def test_a_mode_the_object_cannot_keep_is_refused(folder: Folder) -> None:
    folder.mapping = MAPPING.replace('object: list_member\n    audience: "1234"', "object: contact")

    problem = folder.problem()

    assert problem.code == "HG114"
    assert problem.message == "mode `mirror` needs to remove, which `contact` cannot"
    assert "`upsert`" in problem.fix


def test_problems_of_all_files_are_told_together(folder: Folder) -> None:
    folder.mapping = MAPPING.replace("destination: crm", "destination: crn")
    folder.config = CONFIG.replace('path = "out"', 'pth = "out"')
    folder.others["b.yml"] = "version: [\n"
    folder.others["c.yaml"] = MAPPING.replace("name: vips", "name: others").replace("mode: mirror", "mode: miror")

    found = folder.problems()

    assert {(p.code, p.file) for p in found} == {
        ("HG105", "config.toml"),
        ("HG103", "mappings/b.yml"),
        ("HG107", "mappings/c.yaml"),
        ("HG110", "mappings/vips.yaml"),
    }


def test_a_destination_that_is_broken_is_told_once_and_in_config(folder: Folder) -> None:
    folder.config = CONFIG.replace("http://127.0.0.1:9/people", "people")

    assert [(p.code, p.file) for p in folder.problems()] == [("HG107", "config.toml")]


@pytest.mark.parametrize(
    ("old", "new", "code", "fix"),
    [
        ('type = "webhook"', 'type = "webhok"', "HG112", "`webhook`?"),
        ('type = "duckdb"', 'type = "duckbd"', "HG112", "`duckdb`?"),
        ("url = ", "urll = ", "HG105", "`url`?"),
        ('path = "w.duckdb"', 'path = ":memory:"', "HG107", ""),
    ],
)
def test_a_table_of_config_is_checked_by_its_types_own_model(
    folder: Folder, old: str, new: str, code: str, fix: str
) -> None:
    folder.config = CONFIG.replace(old, new)

    problem = next(p for p in folder.problems() if p.code == code)

    assert problem.file == "config.toml"
    assert problem.line
    assert fix in problem.fix


def test_a_secret_in_plain_text_is_refused_and_never_shown(folder: Folder) -> None:
    folder.config = CONFIG.replace("env:HUBSPOT_TOKEN", "pat-canary-1").replace("env:CRM_SECRET", "env:canary 2")

    found = folder.problems()

    assert [p.code for p in found] == ["HG152", "HG150"]
    assert [p.line for p in found] == [8, 12]
    assert "canary" not in str(found)


def test_a_folder_without_mappings_is_only_warned_of(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(CONFIG)

    project, found = examine(tmp_path)

    assert [(p.code, p.warning) for p in found] == [("HG128", True)]
    assert load(tmp_path).jobs() == []
    assert project is not None


def test_limits_without_effect_are_warned_of(folder: Folder) -> None:
    folder.mapping = MAPPING.replace("tags: [daily]", "delivery: { batch_size: 500, concurrency: 9 }")

    found = folder.load().validate(offline=True)

    assert [p.code for p in found] == ["HG126", "HG126"]
    assert all(p.warning for p in found)


def test_a_notifier_that_is_not_configured_is_refused_wherever_it_is_named(folder: Folder) -> None:
    folder.mapping = MAPPING.replace("tags: [daily]", "alerts: [{ on: [held], to: [slack, slak] }]")
    folder.config = CONFIG + '[alerts.slack]\nurl = "env:SLACK_URL"\n[alerting]\nto = ["mail"]\n'

    with pytest.raises(ProjectError) as caught:
        folder.load()

    mapping, config = sorted(caught.value.problems, key=lambda p: p.file, reverse=True)
    assert {mapping.code, config.code} == {"HG129"}
    assert "Did you mean `slack`?" in mapping.fix
    assert (config.file, config.message) == ("config.toml", "there is no notifier `mail`")


def test_the_address_of_a_notifier_is_a_reference(folder: Folder) -> None:
    folder.config = CONFIG + '[alerts.slack]\nurl = "slack://TOKEN-canary/x"\n'

    with pytest.raises(ProjectError) as caught:
        folder.load()

    assert [p.code for p in caught.value.problems] == ["HG150"]
    assert "canary" not in str(caught.value.problems[0].message)


# --- what a mapping may tighten -------------------------------------------------------------------------------


def test_guardrails_and_limits_are_the_stricter_of_both(folder: Folder) -> None:
    folder.config = CONFIG.replace(
        "[people", "[destinations.crm.delivery]\nrate_limit = '9/s'\nbatch_size = 50\n[people"
    )
    folder.mapping = MAPPING.replace(
        "tags: [daily]",
        "guardrails: { max_removed: 7, allow_irreversible: [remove], approve: { by: [leads], four_eyes: true } }\n"
        "    delivery: { rate_limit: 100/10s, batch_size: 80, concurrency: 2 }",
    )

    job = folder.load().jobs(names=["crm-vips"])[0]

    assert job.guardrails.max_removed == 7
    assert job.guardrails.max_removed_pct == 5.0
    assert job.guardrails.approvers == {"ana@acme.example", "ben@acme.example"}
    assert job.guardrails.allow_irreversible == {Op.REMOVE}
    assert job.guardrails.four_eyes
    assert (job.limits.batch_size, job.limits.concurrency) == (50, 2)
    assert job.limits.rates == (Rate(9, 1), Rate(100, 10))


@pytest.mark.parametrize(
    ("ceiling", "own"),
    [
        ("max_removed_pct = 2", "max_removed_pct: 3"),
        ("max_bad_keys = 0", "max_bad_keys: 1"),
        ("hold_additions = true", "hold_additions: false"),
        ("allow_irreversible = ['add']", "allow_irreversible: [remove]"),
        ("approve = { four_eyes = true }", "approve: { four_eyes: false }"),
        ("approve = { by = ['leads'] }", "approve: { by: [eve@acme.example] }"),
    ],
)
def test_no_mapping_loosens_what_config_says(folder: Folder, ceiling: str, own: str) -> None:
    folder.config = CONFIG + f"[guardrails]\n{ceiling}\n"
    folder.mapping = MAPPING.replace("tags: [daily]", f"guardrails: {{ {own} }}")

    problem = folder.problem()

    assert problem.code == "HG119"


def test_what_config_says_of_approvals_holds_where_the_mapping_is_silent(folder: Folder) -> None:
    folder.config = (
        CONFIG + "[guardrails]\nhold_additions = true\napprove = { by = ['leads'], four_eyes = true }\n"
    )

    limits = folder.load().jobs()[0].guardrails

    assert limits.approvers == {"ana@acme.example", "ben@acme.example"}
    assert limits.four_eyes
    assert limits.hold_additions


# --- which syncs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("select", "exclude", "names"),
    [
        ([], [], ["crm-vips", "hubspot-vips"]),
        (["crm-vips"], [], ["crm-vips"]),
        (["*-vips"], ["hub*"], ["crm-vips"]),
        (["tag:daily"], [], ["crm-vips"]),
        (["destination:hub*"], [], ["hubspot-vips"]),
        (["owner:lifecycle@*"], ["tag:daily"], ["hubspot-vips"]),
        (["tag:daily", "hubspot-vips"], [], ["crm-vips", "hubspot-vips"]),
    ],
)
def test_syncs_are_chosen_by_selectors(
    folder: Folder, select: list[str], exclude: list[str], names: list[str]
) -> None:
    assert [job.name for job in folder.load().jobs(select=select, exclude=exclude)] == names


@pytest.mark.parametrize(
    ("words", "code", "fix"),
    [
        ({"names": ["crm-vip"]}, "HG191", "Did you mean `crm-vips`?"),
        ({"select": ["crm-vip"]}, "HG191", "Did you mean `crm-vips`?"),
        ({"select": ["zzz*"]}, "HG192", "glob"),
        ({"select": ["tga:daily"]}, "HG192", "Did you mean `tag`?"),
        ({"exclude": ["*"]}, "HG192", "glob"),
    ],
)
def test_a_selection_that_means_nothing_is_an_error(
    folder: Folder, words: dict[str, list[str]], code: str, fix: str
) -> None:
    with pytest.raises(UsageError) as caught:
        folder.load().jobs(**words)  # type: ignore[arg-type]

    assert caught.value.code == code
    assert fix in caught.value.fix


def test_a_disabled_sync_is_left_out_and_cannot_be_named(folder: Folder) -> None:
    folder.mapping = MAPPING.replace("tags: [daily]", "disabled: true")
    project = folder.load()

    assert [job.name for job in project.jobs()] == ["hubspot-vips"]
    assert [job.name for job in project.jobs(disabled=True)] == ["crm-vips", "hubspot-vips"]
    with pytest.raises(UsageError) as caught:
        project.jobs(names=["crm-vips"])
    assert caught.value.code == "HG193"
    assert "mappings/vips.yaml:7" in caught.value.fix


# --- what is sent ---------------------------------------------------------------------------------------------


def digest(folder: Folder, mapping: str = MAPPING, config: str = CONFIG) -> str:
    folder.mapping, folder.config = mapping, config
    return folder.load().jobs()[0].mapping_digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: vips\n", "name: vips\n  title: Best\n  purpose: Love\n"),
        ("owner: lifecycle@acme.example", "owner: ana@acme.example"),
        ("tags: [daily]", "guardrails: { max_removed: 3 }"),
        ("tags: [daily]", "schedule: { every: 1h }\n    delivery: { rate_limit: 1/s }"),
        ("version: 1", "# a remark\nversion: 1"),
        ("destination: crm\n", "destination: crm\n    object: record\n"),
        ("transform: [email] }", "transform: [{ name: email }], pii: true }"),
    ],
)
def test_the_digest_stays_where_nothing_that_is_sent_changes(folder: Folder, old: str, new: str) -> None:
    assert old in MAPPING
    assert digest(folder, MAPPING.replace(old, new, 1)) == digest(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("table: vips", "table: others"),
        ("table: vips", "query: SELECT * FROM vips"),
        ("key: id", "key: email"),
        ("mode: mirror", "mode: upsert"),
        ("transform: [email]", "transform: [email, sha256]"),
        ("to: first_name", "to: name"),
        ("from: first_name", "value: first_name"),
        ("destination: crm\n", "destination: files\n"),
    ],
)
def test_the_digest_moves_with_everything_that_is_sent(folder: Folder, old: str, new: str) -> None:
    assert old in MAPPING
    assert digest(folder, MAPPING.replace(old, new, 1)) != digest(folder)


def test_the_digest_moves_with_the_address_and_not_with_its_speed(folder: Folder) -> None:
    before = digest(folder)

    assert digest(folder, config=CONFIG.replace(":9/people", ":9/other")) != before
    assert (
        digest(folder, config=CONFIG.replace("[people", "[destinations.crm.delivery]\nbatch_size = 3\n[people"))
        == before
    )


# --- who changed it -------------------------------------------------------------------------------------------


def git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)


def commit(root: Path, mail: str) -> None:
    git(root, "add", "-A")
    git(
        root, "-c", f"user.email={mail}", "-c", "user.name=X", "commit", "-q", "-m", "x", "--author", f"X <{mail}>"
    )


def test_outside_of_git_nobody_is_the_author(folder: Folder) -> None:
    assert folder.load().jobs()[0].author == ""


def test_the_author_is_whoever_committed_the_mapping_last(folder: Folder) -> None:
    folder.write()
    git(folder.root, "init", "-q")
    commit(folder.root, "ana@acme.example")
    (folder.root / "other.txt").write_text("x")
    commit(folder.root, "ben@acme.example")

    assert load(folder.root).jobs()[0].author == "ana@acme.example"


def test_the_author_is_looked_up_anew_each_time_that_the_files_are_read(folder: Folder) -> None:
    folder.write()
    git(folder.root, "init", "-q")
    commit(folder.root, "ana@acme.example")
    before = load(folder.root).jobs()[0].author
    folder.mapping += "# changed\n"
    folder.write()
    commit(folder.root, "ben@acme.example")

    assert (before, load(folder.root).jobs()[0].author) == ("ana@acme.example", "ben@acme.example")


def test_an_edit_that_is_not_committed_is_of_whoever_works_here(folder: Folder) -> None:
    folder.write()
    git(folder.root, "init", "-q")
    commit(folder.root, "ana@acme.example")
    git(folder.root, "config", "user.email", "eve@acme.example")
    folder.mapping += "# changed\n"
    folder.write()

    assert load(folder.root).jobs()[0].author == "eve@acme.example"


# --- asking the warehouse -------------------------------------------------------------------------------------


def test_the_warehouse_is_asked_for_tables_and_columns(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRM_SECRET", "x")
    monkeypatch.setenv("HUBSPOT_TOKEN", "x")
    folder.warehouse("CREATE TABLE vips(id INT, email TEXT, first_name TEXT)")

    assert folder.load().validate(offline=False) == []


def test_a_missing_column_or_table_names_what_was_meant(folder: Folder) -> None:
    folder.warehouse("CREATE TABLE vips(ident INT, email TEXT, firstname TEXT)")
    found = [p for p in folder.load().validate(offline=False) if not p.warning]

    assert {(p.code, p.line) for p in found} == {("HG212", 5), ("HG212", 13)}
    assert any("'firstname'" in p.fix for p in found)

    folder.mapping = MAPPING.replace("table: vips", "table: vpis")
    (problem,) = (p for p in folder.load().validate(offline=False) if not p.warning)
    assert (problem.code, problem.line) == ("HG202", 5)
    assert "vips" in problem.fix


def test_a_column_of_another_kind_than_the_field_is_warned_of(folder: Folder) -> None:
    file = folder.load().files[0]
    fields = tuple(Field(name, type=kind) for name, kind in (("email", "string"), ("first_name", "number")))
    spec = ObjectSpec("person", "Person", frozenset(Op), fields)

    text, number = (
        list(check_sync_columns(file, 0, spec, [Column("ID", "INTEGER"), Column("EMAIL", "VARCHAR"), column]))
        for column in (Column("FIRST_NAME", "VARCHAR"), Column("first_name", "DECIMAL(18,2)"))
    )

    assert [(p.code, p.line, p.warning) for p in text] == [("HG132", 13, True)]
    assert text[0].message == "`first_name` is a number, and the column `first_name` is VARCHAR"
    assert number == []


def test_a_warehouse_that_is_not_there_is_told_at_the_mapping(folder: Folder) -> None:
    (problem,) = (p for p in folder.load().validate(offline=False) if not p.warning)

    assert (problem.file, problem.line) == ("mappings/vips.yaml", 5)
    assert "w.duckdb" in problem.message


def test_secrets_are_wanted_only_where_something_is_sent(folder: Folder) -> None:
    project = folder.load()

    assert project.validate(offline=True) == []
    missing = [p for p in project.validate(offline=False) if p.warning]
    assert [(p.code, p.line) for p in missing] == [("HG151", 8), ("HG151", 12)]
    with pytest.raises(SecretError, match=r"\[destinations.crm\] secret: .* `CRM_SECRET` is not set"):
        project.jobs()[0].connect(nothing)


# --- connecting -----------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server on the loopback that keeps the headers it is sent."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()

        do_OPTIONS = do_HEAD

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", seen
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_connector_is_made_with_the_real_secret(
    folder: Folder, listener: tuple[str, list[dict[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, seen = listener
    (folder.root / "token").write_text("real-value\n")
    folder.config = CONFIG.replace("http://127.0.0.1:9", address).replace(
        'secret = "env:CRM_SECRET"', 'secret_headers = { X-Token = "file:token" }'
    )

    connector = folder.load().jobs(names=["crm-vips"])[0].connect(nothing)
    with connector.http:
        connector.check()

    assert seen[0]["X-Token"] == "real-value"


def test_paths_are_relative_to_the_project(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (folder.root / "elsewhere").mkdir()
    folder.mapping = MAPPING.replace("destination: crm", "destination: files")
    project = folder.load()
    monkeypatch.chdir(folder.root / "elsewhere")

    connector = project.jobs(names=["crm-vips"])[0].connect(nothing)

    assert connector.config.path == folder.root / "out"
    connector.http.close()
