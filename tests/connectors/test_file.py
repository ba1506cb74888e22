"""Files: what is written is what a reader gets, whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import resource
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, overload

import httpx
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from connectors.file import File, FileConfig
from sync.errors import AuthError, RequestError, Unavailable
from sync.sdk.nouns import Batch, Change, Delivery, Op, Receipt, Status
from sync.testing.contract import ConnectorContract


def connect(folder: Path, **config: Any) -> File:
    return File(FileConfig(path=folder, **config), httpx.Client())


def change(n: int, op: Op = Op.ADD, /, **fields: Any) -> Change:
    return Change(op, f"k{n}", {"email": f"p{n}@example.com"}, {} if op is Op.REMOVE else fields)


def batch(*changes: Change, id: str = "run1-0001", types: dict[str, str] | None = None) -> Batch:
    return Batch(id, "crm-export", "row", None, changes, types or {})


def push(connector: File, of: Batch) -> list[Receipt]:
    outcome = connector.push(of)
    assert not isinstance(outcome, list)  # a million receipts are not kept at once
    return list(outcome)  # type: ignore[arg-type]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_delta_is_a_file_per_batch_that_says_what_changed(tmp_path: Path) -> None:
    receipts = push(connect(tmp_path), batch(change(1, name="Ada", vip=True), change(2, Op.REMOVE)))

    assert [(r.key, r.status) for r in receipts] == [("k1", Status.APPLIED), ("k2", Status.APPLIED)]
    assert read_csv(tmp_path / "crm-export-run1-0001.csv") == [
        {"op": "add", "email": "p1@example.com", "name": "Ada", "vip": "true"},
        {"op": "remove", "email": "p2@example.com", "name": "", "vip": ""},
    ]


def test_a_batch_of_removals_has_the_columns_of_every_other_batch(tmp_path: Path) -> None:
    push(connect(tmp_path), batch(change(1, Op.REMOVE), types={"email": "VARCHAR", "name": "VARCHAR"}))

    header = (tmp_path / "crm-export-run1-0001.csv").read_text().splitlines()[0]
    assert header == "op,email,name"


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_replay_overwrites_its_own_file_with_the_same_bytes(tmp_path: Path, format: str) -> None:
    connector, one = connect(tmp_path, format=format), batch(change(1, name="Ada"), change(2, name=None))

    push(connector, one)
    (before,) = [(p.name, p.read_bytes()) for p in tmp_path.iterdir()]
    push(connector, one)

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [before]


def test_a_snapshot_replaces_the_file_and_has_no_op_column(tmp_path: Path) -> None:
    connector = connect(tmp_path, delivery="snapshot")

    push(connector, batch(change(1, name="Ada"), change(2, name="Bob")))
    push(connector, batch(change(2, name="Bob"), id="run2-0001"))

    assert read_csv(tmp_path / "crm-export.csv") == [{"email": "p2@example.com", "name": "Bob"}]
    assert connector.objects["row"].delivery is Delivery.SNAPSHOT
    assert connector.objects["row"].limits.batch_size is None


def test_an_empty_snapshot_is_a_header(tmp_path: Path) -> None:
    push(connect(tmp_path, delivery="snapshot"), batch(types={"email": "VARCHAR", "name": "VARCHAR"}))

    assert (tmp_path / "crm-export.csv").read_bytes() == b"email,name\r\n"


def test_csv_survives_what_people_put_into_text(tmp_path: Path) -> None:
    nasty = ['a,"b"', "line\r\nbreak", " lead", "", "Zoë 🐈", "=1+1", "\\N", "null"]

    push(connect(tmp_path), batch(*(change(n, note=text) for n, text in enumerate(nasty))))

    written = tmp_path / "crm-export-run1-0001.csv"
    assert [row["note"] for row in read_csv(written)] == nasty
    assert written.read_bytes().endswith(b"null\r\n")


def test_csv_writes_lists_and_objects_as_json_and_null_as_nothing(tmp_path: Path) -> None:
    push(connect(tmp_path), batch(change(1, tags=["a", "b"], place={"city": "Bern"}, score=1.5, gone=None)))

    (row,) = read_csv(tmp_path / "crm-export-run1-0001.csv")
    assert (json.loads(row["tags"]), json.loads(row["place"])) == (["a", "b"], {"city": "Bern"})
    assert (row["score"], row["gone"]) == ("1.5", "")


def test_formulas_are_defused_only_on_request(tmp_path: Path) -> None:
    row = change(1, a="=HYPERLINK(1)", b="@x", c="+41 79", d=-5, e="safe")

    push(connect(tmp_path, formula_guard=True), batch(row))

    (written,) = read_csv(tmp_path / "crm-export-run1-0001.csv")
    assert [written[c] for c in "abcde"] == ["'=HYPERLINK(1)", "'@x", "'+41 79", "-5", "safe"]


def test_json_lines_keep_types_nesting_and_null(tmp_path: Path) -> None:
    fields = {"n": 1, "x": 1.5, "yes": True, "none": None, "tags": ["a"], "place": {"city": "Zürich"}}

    push(connect(tmp_path, format="jsonl"), batch(change(1, **fields), change(2, Op.REMOVE)))

    lines = (tmp_path / "crm-export-run1-0001.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"op": "add", "email": "p1@example.com", **fields}
    assert json.loads(lines[1]) == {"op": "remove", "email": "p2@example.com"}


WIRE = {  # DuckDB type, wire value, what a Parquet reader gets back
    "yes": ("BOOLEAN", True, True),
    "small": ("TINYINT", 7, 7),
    "big": ("BIGINT", 2**62, 2**62),
    "huge": ("HUGEINT", str(2**64), Decimal(2**64)),
    "share": ("DOUBLE", 0.1, 0.1),
    "price": ("DECIMAL(10,2)", 19.9, Decimal("19.90")),
    "exact": ("DECIMAL(38,4)", "1234567890123456.7891", Decimal("1234567890123456.7891")),
    "born": ("DATE", "1990-02-28", date(1990, 2, 28)),
    "seen": ("TIMESTAMP", "2024-05-06T07:08:09.12", datetime(2024, 5, 6, 7, 8, 9, 120000)),  # noqa: DTZ001
    "zoned": ("TIMESTAMP WITH TIME ZONE", "2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    "raw": ("BLOB", "AAH/", b"\x00\x01\xff"),
    "uid": ("UUID", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
    "kind": ("ENUM('a', 'b')", "a", "a"),
    "gap": ("INTERVAL", "P1DT2H", "P1DT2H"),
    "bits": ("BIT", "0101", "0101"),
    "tags": ("VARCHAR[]", ["a", None], ["a", None]),
    "days": ("DATE[]", ["2024-01-01"], [date(2024, 1, 1)]),
    "place": (
        "STRUCT(city VARCHAR, since DATE)",
        {"city": "Bern", "since": "2020-01-01"},
        {"city": "Bern", "since": date(2020, 1, 1)},
    ),
    "scores": ("MAP(VARCHAR, INTEGER)", {"a": 1}, [("a", 1)]),
    "ranks": ("MAP(INTEGER, DOUBLE)", {"7": 0.5}, [(7, 0.5)]),
    "doc": ("JSON", {"a": [1]}, '{"a":[1]}'),
}


def test_parquet_has_the_types_of_the_warehouse(tmp_path: Path) -> None:
    types = {name: kind for name, (kind, _, _) in WIRE.items()}
    full, empty = {n: wire for n, (_, wire, _) in WIRE.items()}, dict.fromkeys(WIRE)

    push(connect(tmp_path, format="parquet"), batch(change(1, **full), change(2, **empty), types=types))

    table = pq.read_table(tmp_path / "crm-export-run1-0001.parquet")
    row, nulls = table.to_pylist()
    assert {name: row[name] for name in WIRE} == {name: back for name, (_, _, back) in WIRE.items()}
    assert all(nulls[name] is None for name in WIRE)
    assert (row["op"], row["email"]) == ("add", "p1@example.com")


def test_parquet_keeps_nanoseconds(tmp_path: Path) -> None:
    wire = ["2024-05-06T07:08:09.123456789", "1969-12-31T23:59:59.999999999"]
    changes = [change(n, at=at) for n, at in enumerate(wire)]

    push(connect(tmp_path, format="parquet"), batch(*changes, types={"at": "TIMESTAMP_NS"}))

    column = pq.read_table(tmp_path / "crm-export-run1-0001.parquet").column("at")
    assert column.cast("int64").to_pylist() == [1714979289123456789, -1]


def test_a_value_that_does_not_fit_is_refused_by_its_column_and_not_quoted(tmp_path: Path) -> None:
    connector = connect(tmp_path, format="parquet")

    with pytest.raises(RequestError, match="column 'born'") as refused:
        push(connector, batch(change(1, born="canary-of-ada"), types={"born": "DATE"}))

    assert "canary" not in refused.value.message
    assert list(tmp_path.iterdir()) == []


def test_a_field_called_op_is_refused_in_a_delta_and_fine_in_a_snapshot(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'op'"):
        push(connect(tmp_path), batch(change(1, op="x")))

    push(connect(tmp_path, delivery="snapshot"), batch(change(1, op="x")))
    assert read_csv(tmp_path / "crm-export.csv")[0]["op"] == "x"


def test_only_the_owner_can_read_what_was_written(tmp_path: Path) -> None:
    push(connect(tmp_path), batch(change(1)))

    (written,) = tmp_path.iterdir()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


class Broken(Sequence[Change]):
    """A batch whose reading breaks off half-way."""

    def __iter__(self) -> Iterator[Change]:
        yield change(1, name="new")
        raise KeyboardInterrupt

    def __len__(self) -> int:
        return 2

    @overload
    def __getitem__(self, index: int) -> Change: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Change]: ...
    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError


def test_a_snapshot_cut_short_leaves_the_old_file_whole(tmp_path: Path) -> None:
    connector = connect(tmp_path, delivery="snapshot")
    push(connector, batch(change(1, name="old")))

    with pytest.raises(KeyboardInterrupt):
        connector.push(Batch("b", "crm-export", "row", None, Broken()))

    assert [p.name for p in tmp_path.iterdir()] == ["crm-export.csv"]
    assert read_csv(tmp_path / "crm-export.csv")[0]["name"] == "old"


def test_what_a_killed_attempt_left_is_swept_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".crm-export-run1-0001.csv.abc.part").write_text("half")
    (tmp_path / ".other.csv.abc.part").write_text("not ours")

    push(connect(tmp_path), batch(change(1)))

    assert sorted(p.name for p in tmp_path.iterdir()) == [".other.csv.abc.part", "crm-export-run1-0001.csv"]


def test_names_follow_the_template_and_stay_inside_the_folder(tmp_path: Path) -> None:
    connector = connect(tmp_path, name="people.{batch}")

    push(connector, batch(change(1), id="../evil/1"))

    assert [p.name for p in tmp_path.iterdir()] == ["people...-evil-1.csv"]


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"name": "always-the-same"}, "needs {batch}"),
        ({"name": "../{batch}"}, "takes letters"),
        ({"name": ".{batch}"}, "leading dot"),
        ({"name": "{batch}-{date}"}, "takes letters"),
        ({"format": "jsonl", "formula_guard": True}, "csv"),
        ({"path": "s3://bucket/folder"}, "no URL"),
        ({"compression": "gzip"}, "Extra inputs"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(config: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        FileConfig(**{"path": "out", **config})


def test_making_the_connector_touches_nothing(tmp_path: Path) -> None:
    connector = connect(tmp_path / "absent")

    assert connector.objects["row"].ops == frozenset(Op)
    assert not (tmp_path / "absent").exists()


def test_a_missing_folder_is_unavailable_because_it_may_be_a_mount(tmp_path: Path) -> None:
    connector = connect(tmp_path / "absent")

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(Unavailable, match="No such file or directory; make it, or mount it") as raised:
            attempt()
        assert raised.value.applied is False


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Root may write anywhere, so these tests give that up for a while."""
    if (was := os.geteuid()) == 0:
        os.seteuid(65534)
    yield
    os.seteuid(was)


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_we_may_not_write_pauses_the_destination() -> None:
    connector = connect(Path("/usr"))

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(AuthError, match=r"/usr: Permission denied|/usr: Read-only") as raised:
            attempt()
        assert "write there" in raised.value.fix


def test_a_full_disk_is_unavailable_and_the_old_file_stays(tmp_path: Path) -> None:
    connector = connect(tmp_path, delivery="snapshot")
    push(connector, batch(change(1, name="old")))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(Unavailable) as raised:
            push(connector, batch(*(change(n, name="x" * 500) for n in range(50))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert raised.value.applied is False
    assert [row["name"] for row in read_csv(tmp_path / "crm-export.csv")] == ["old"]


LARGE = """
    import resource, sys
    from collections.abc import Sequence
    from pathlib import Path
    import httpx
    from connectors.file import File, FileConfig
    from sync.sdk.nouns import Batch, Change, Op

    class Members(Sequence):
        def __len__(self): return int(sys.argv[3])
        def __getitem__(self, i): raise NotImplementedError
        def __iter__(self):
            for n in range(len(self)):
                email, at = f"person{n}@example.com", "2024-05-06T07:08:09Z"
                yield Change(Op.ADD, str(n), {"email": email}, {"name": f"N {n}", "ltv": n / 7, "at": at})

    config = FileConfig(path=Path(sys.argv[1]), format=sys.argv[2], delivery="snapshot")
    types = {"email": "VARCHAR", "name": "VARCHAR", "ltv": "DOUBLE", "at": "TIMESTAMP WITH TIME ZONE"}
    connector = File(config, httpx.Client())
    sent = sum(1 for _ in connector.push(Batch("b", "all", "row", None, Members(), types)))
    print(sent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_large_snapshot_is_streamed(tmp_path: Path, format: str) -> None:
    def peak(rows: int) -> int:
        command = [sys.executable, "-c", textwrap.dedent(LARGE), str(tmp_path), format, str(rows)]
        sent, megabytes = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        assert int(sent) == rows
        return int(megabytes)

    assert peak(100_000) - peak(1_000) < 50


class TestFileContract(ConnectorContract):
    connector = File

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder)}


class TestFileSnapshotContract(ConnectorContract):
    connector = File

    def options(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder), "delivery": "snapshot", "format": "jsonl"}
