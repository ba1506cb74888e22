"""Metrics keep Prometheus' conventions, what asks for them asks for ones there are; datasets have common names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed
from ruamel.yaml import YAML

from sync.errors import StateError
from sync.project import Project, load
from sync.state.ledger import Ledger, open_ledger
from sync.telemetry.datasets import read_by, written_by
from sync.telemetry.metrics import Metrics
from sync.telemetry.names import METRICS, MetricName
from sync.telemetry.vitals import Check, Pulse, Vitals, answer

ROOT = Path(__file__).parent.parent.parent
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
NAMES = {one.full: one for one in METRICS}


@dataclass
class Clock:
    """A daemon's clock as one finds it."""

    jobs: dict[str, Any] = field(default_factory=dict)
    ticked: float = 0.0
    refused: str = ""
    late: float = 0.0
    ticking: bool = True


@pytest.fixture
def ledger(tmp_path):
    with open_ledger(tmp_path / "ledger.db") as made:
        yield made


def page(ledger: Ledger) -> str:
    metrics = Metrics(ledger, ledger.path.parent, Vitals(ledger, Clock(), Pulse()), 30.0)
    metrics.ended("vip", "completed", 1.0)
    return metrics.page()[0].decode()


# --- the rules of `promtool check metrics` (prometheus.io/docs/practices/naming) ------------------------------

_ABBREVIATED = re.compile(r"_(s|ms|us|ns|sec|secs|m|min|mins|h|hr|b|kb|mb|gb|pct)(_|$)")
_NOT_BASE = re.compile(
    r"(milli|micro|nano|kilo|mega|giga)?(minutes?|hours?|days?|weeks?|bits?|percents?)(_|$)|milli|kilo"
)
_KINDS = ("gauge", "counter", "histogram", "summary")


def complaints(metric: MetricName) -> list[str]:
    name = metric.full
    rules = {
        "says what it is": metric.help.endswith(".") and len(metric.help) > 10,
        "is ours": name.startswith("headgate_"),
        "is in snake case": re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name),
        "a counter ends in _total, and nothing else does": name.endswith("_total") == (metric.kind == "counter"),
        "a suffix of histograms is not taken": not name.endswith(("_bucket", "_count", "_sum", "_created")),
        "units are whole words": not _ABBREVIATED.search(name),
        "units are base units": not _NOT_BASE.search(name),
        "the kind is not in the name": not set(name.split("_")) & set(_KINDS),
        "labels are in snake case": all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in metric.labels),
        "labels are not reserved": not {"le", "quantile", "job", "instance", "__name__"} & set(metric.labels),
        "no label is about a person": not {"key", "email", "member", "record", "run", "batch"}
        & set(metric.labels),
    }
    return [rule for rule, kept in rules.items() if not kept]


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.full)
def test_a_metric_keeps_the_conventions(metric: MetricName) -> None:
    assert complaints(metric) == []


@pytest.mark.parametrize(
    ("metric", "complaint"),
    [
        (
            MetricName("headgate_runs_total", "gauge", "How many runs."),
            "a counter ends in _total, and nothing else does",
        ),
        (MetricName("headgate_wait_ms", "gauge", "How long it waits."), "units are whole words"),
        (MetricName("headgate_wait_minutes", "gauge", "How long it waits."), "units are base units"),
        (MetricName("headgate_runCount", "gauge", "How many runs."), "is in snake case"),
        (MetricName("headgate_runs", "gauge", ""), "says what it is"),
        (MetricName("headgate_runs", "gauge", "How many runs.", ("email",)), "no label is about a person"),
        (MetricName("headgate_runs", "gauge", "How many runs.", ("le",)), "labels are not reserved"),
    ],
)
def test_the_conventions_bite(metric: MetricName, complaint: str) -> None:
    assert complaint in complaints(metric)


def test_the_page_has_every_metric_once_with_its_kind_and_help(ledger: Ledger) -> None:
    text = page(ledger)
    families = {family.name: family for family in parsed(text)}

    assert len(families) == text.count("# TYPE ") == text.count("# HELP ")
    for metric in METRICS:
        family = families[metric.name]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
    assert {name for name in families if name.startswith("headgate_")} == {one.name for one in METRICS}
    assert "process_resident_memory_bytes" in families


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")
def test_promtool_has_nothing_to_say(ledger: Ledger) -> None:
    done = subprocess.run(["promtool", "check", "metrics"], input=page(ledger), text=True, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the PATH")
@pytest.mark.parametrize(
    "asked", [("check", "rules", RULES), ("test", "rules", ROOT / "tests/unit/rules_test.yml")]
)
def test_promtool_takes_the_alert_rules_and_sees_them_fire(asked: tuple[Any, ...]) -> None:
    done = subprocess.run(["promtool", *map(str, asked)], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


# --- what uses them -------------------------------------------------------------------------------------------

_SERIES = {
    series: metric
    for metric in METRICS
    for series in (
        [f"{metric.name}_{part}" for part in ("bucket", "count", "sum")]
        if metric.kind == "histogram"
        else [metric.full]
    )
}


def problems(query: str) -> list[str]:
    """What a query names that there is not: a metric, or a label of one."""
    found = [f"no metric {name}" for name in re.findall(r"\bheadgate_\w+", query) if name not in _SERIES]
    for name, matchers in re.findall(r"\b(headgate_\w+)\{([^}]*)\}", query):
        known = {*(_SERIES[name].labels if name in _SERIES else ()), "job", "instance", "le"}
        found += [
            f"{name} has no label {label}" for label in re.findall(r"(\w+)\s*[!=]", matchers) if label not in known
        ]
    return found


def rules() -> list[dict[str, Any]]:
    document = YAML(typ="safe").load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    return json.loads((ROOT / "deploy/grafana/headgate.json").read_text())["panels"]


def test_every_alert_is_about_metrics_that_exist_and_says_what_to_do() -> None:
    assert len(rules()) >= 10
    for rule in rules():
        assert problems(rule["expr"]) == [], rule["alert"]
        assert "headgate_" in rule["expr"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"}
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def test_every_panel_of_the_dashboard_asks_for_metrics_that_exist() -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(queries) > 20
    assert [problem for query in queries for problem in problems(query)] == []
    assert len({panel["id"] for panel in panels()}) == len(panels())
    boxes = [tuple(panel["gridPos"][side] for side in "xywh") for panel in panels()]
    assert all(x + w <= 24 for x, _, w, _ in boxes)


def test_nearly_every_metric_is_looked_at_by_an_alert_or_a_panel() -> None:
    asked = (ROOT / "deploy/grafana/headgate.json").read_text() + str([rule["expr"] for rule in rules()])
    unseen = {metric.name for metric in METRICS if metric.name not in asked}
    assert unseen == {"headgate_last_tick_timestamp_seconds", "headgate_last_run_timestamp_seconds"}


def test_a_query_for_what_there_is_not_is_found() -> None:
    assert problems("rate(headgate_runs_total[5m]) / headgate_nonsense") == ["no metric headgate_nonsense"]
    assert problems('headgate_members{email="x"}') == ["headgate_members has no label email"]


def test_the_reference_has_every_metric() -> None:
    head = "| metric | kind | labels | what it is |\n|---|---|---|---|\n"
    rows = [
        f"| `{m.full}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |" for m in METRICS
    ]

    assert head + "\n".join(rows) + "\n" in (ROOT / "docs/reference/metrics.md").read_text()


# --- vital signs ----------------------------------------------------------------------------------------------


def failing(checks: Any) -> list[str]:
    return [check.check for check in checks if not check.ok]


def test_a_daemon_that_turns_and_ticks_is_alive_and_ready(ledger: Ledger) -> None:
    vitals = Vitals(ledger, Clock(), Pulse())

    assert answer(vitals.alive())[0] == answer(vitals.ready())[0] == 200
    assert [check.check for check in vitals.ready()] == ["draining", "loop", "clock", "alerts", "files", "ledger"]


@pytest.mark.parametrize(
    ("clock", "what"), [(Clock(late=90.0), "clock"), (Clock(refused="HG105"), "files")], ids=["late", "refused"]
)
def test_what_is_wrong_with_the_clock_or_the_files_is_said(ledger: Ledger, clock: Clock, what: str) -> None:
    vitals = Vitals(ledger, clock, Pulse())
    status, document = answer(vitals.ready())

    assert (status, document["status"]) == (503, "failing")
    assert failing(vitals.ready()) == [what]
    assert all(check["why"] for check in document["checks"] if not check["ok"])
    assert answer(vitals.alive())[0] == 200


def test_a_main_loop_that_does_not_turn_is_dead_unless_it_drains(ledger: Ledger, monkeypatch) -> None:
    stopping = [False]
    pulse = Pulse()
    vitals = Vitals(ledger, Clock(), pulse, lambda: stopping[0])
    real = time.monotonic
    monkeypatch.setattr("sync.telemetry.vitals.time.monotonic", lambda: real() + 600)

    assert failing(vitals.alive()) == ["loop"]
    stopping[0] = True
    assert failing(vitals.alive()) == []
    assert failing(vitals.ready()) == ["draining"]
    stopping[0] = False
    pulse.beat()
    assert failing(vitals.alive()) == []


def test_nobody_who_looks_for_alerts_is_not_ready_and_does_not_work(ledger: Ledger, monkeypatch) -> None:
    looking = Pulse()
    clock = Clock()
    vitals = Vitals(ledger, clock, Pulse(), looking=looking)
    assert vitals.working()
    clock.ticking = False
    assert not vitals.working()
    clock.ticking = True
    monkeypatch.setattr(looking, "_last", time.monotonic() - 600)

    assert failing(vitals.ready()) == ["alerts"]
    assert not vitals.working()


def test_a_ledger_that_cannot_be_written_is_not_ready(ledger: Ledger, monkeypatch) -> None:
    def full() -> None:
        raise StateError("the disk is full", code="HG313")

    monkeypatch.setattr(ledger, "write_nothing", full)
    vitals = Vitals(ledger, Clock(), Pulse())

    assert failing(vitals.ready()) == ["ledger"]
    assert not vitals.working()
    assert "HG313" in str(answer(vitals.ready()))


def test_nobody_waits_for_a_ledger_that_somebody_else_tries_to_write(ledger: Ledger, monkeypatch) -> None:
    vitals, writing, go = Vitals(ledger, Clock(), Pulse()), threading.Event(), threading.Event()
    vitals.ready()
    real = time.monotonic
    monkeypatch.setattr(ledger, "write_nothing", lambda: (writing.set(), go.wait(10)))
    monkeypatch.setattr("sync.telemetry.vitals.time.monotonic", lambda: real() + 30)
    first = threading.Thread(target=vitals.ready)
    first.start()
    assert writing.wait(10)

    assert vitals.ready()[-1] == Check("ledger", ok=True)
    monkeypatch.setattr("sync.telemetry.vitals.time.monotonic", lambda: real() + 60)
    assert vitals.ready()[-1] == Check("ledger", ok=False, why="it has been written for 30s")
    go.set()
    first.join(10)
    assert vitals.ready()[-1] == Check("ledger", ok=True)


def test_writing_nothing_writes_and_changes_nothing(ledger: Ledger) -> None:
    ledger.write_nothing()
    wal = ledger.path.with_name("ledger.db-wal")
    before = wal.stat().st_size
    ledger.write_nothing()

    assert wal.stat().st_size > before
    ledger.check()


# --- names of datasets ----------------------------------------------------------------------------------------

CONFIG = """\
[sources.duck]
type = "duckdb"
path = "w.duckdb"
[sources.pg]
type = "postgres"
host = "db.acme.example"
database = "analytics"
user = "reader"
[sources.snow]
type = "snowflake"
account = "MyOrg-Acme"
user = "HEADGATE"
database = "analytics"
schema = "marts"
password = "env:NOTHING"
[destinations.crm]
type = "webhook"
url = "http://127.0.0.1:9/people"
[destinations.app]
type = "postgres_table"
host = "db.acme.example"
database = "app"
user = "headgate"
"""


def project(folder: Path, source: str, *, destination: str = "crm", audience: str = "") -> Project:
    (folder / "mappings").mkdir(exist_ok=True)
    (folder / "config.toml").write_text(CONFIG)
    (folder / "mappings" / "vip.yaml").write_text(
        "version: 1\n"
        f"cohort: {{ name: vip, source: {{ {source}, key: id }} }}\n"
        f"syncs:\n  - {{ name: s, destination: {destination}, mode: mirror, {audience}"
        "identifiers: [{ to: email, from: email }] }\n"
    )
    return load(folder)


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("connection: pg, table: marts.vip", ["postgres://db.acme.example:5432 analytics.marts.vip"]),
        ("connection: pg, table: vip", ["postgres://db.acme.example:5432 analytics.public.vip"]),
        ("connection: snow, table: vip", ["snowflake://myorg-acme ANALYTICS.MARTS.VIP"]),
        ("connection: snow, table: 'other.raw.\"vip\"'", ["snowflake://myorg-acme OTHER.RAW.vip"]),
        (
            "connection: pg, query: 'WITH b AS (FROM sales.orders) SELECT id FROM b JOIN people USING (id)'",
            ["postgres://db.acme.example:5432 analytics.sales.orders",
             "postgres://db.acme.example:5432 analytics.public.people"],
        ),
    ],
)  # fmt: skip
def test_tables_are_named_as_openlineage_names_them(tmp_path: Path, source: str, named: list[str]) -> None:
    found = project(tmp_path, source)
    (job,) = found.jobs()
    names = [f"{one.namespace} {one.name}" for one in read_by(found, job)]

    assert sorted(names) == sorted(named)


def test_a_table_of_duckdb_is_in_its_file(tmp_path: Path) -> None:
    found = project(tmp_path, "connection: duck, table: vip")
    (job,) = found.jobs()
    (name,) = read_by(found, job)

    assert (name.namespace, name.name) == (f"duckdb://{(tmp_path / 'w.duckdb').resolve()}", "main.vip")


def test_an_audience_is_named_by_its_destination_and_a_table_of_postgresql_as_others_name_it(
    tmp_path: Path,
) -> None:
    found = project(tmp_path, "connection: duck, table: vip")
    (job,) = found.jobs()
    audience = replace(job, sync=job.sync.model_copy(update={"audience": "1234"}))
    table = replace(audience, sync=job.sync.model_copy(update={"audience": "crm.people"}), destination="app")

    assert written_by(found, job).name == "record"
    assert (written_by(found, audience).namespace, written_by(found, audience).name) == (
        "webhook://crm",
        "record/1234",
    )
    named = written_by(found, table)
    assert (named.namespace, named.name) == ("postgres://db.acme.example:5432", "app.crm.people")
