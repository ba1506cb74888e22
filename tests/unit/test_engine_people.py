"""Finding a person among the members, however the identifier is spelled, and however it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.engine.people import find, rejected_values
from sync.sdk.nouns import Field, Status
from tests.engine_bench import NAME, Bench

HASH = hashlib.sha256(b"ann.lee@x.example").hexdigest()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def found(bench: Bench, text: str) -> list[dict[str, Any]]:
    return find(bench.ledger, bench.settings, bench.job, text)


SPELLINGS = ["ann.lee@x.example", "Ann.Lee@X.example", "  ANN.LEE@X.EXAMPLE\n", "\u00a0ann.lee@x.example"]


@pytest.mark.parametrize(
    ("mapping", "field"),
    [
        ({"from": "email"}, {}),
        ({"from": "email", "transform": ["email"]}, {}),
        ({"from": "email", "transform": ["email", "sha256"]}, {}),
        ({"from": "email"}, {"normalise": "email", "hash": "sha256"}),
        ({"expr": "sha256(lower(trim(email)))"}, {}),
        ({"expr": "'crm:' || lower(trim(email))"}, {}),
    ],
    ids=["raw", "normalised", "hashed", "hashed by the platform", "hashed by expression", "computed"],
)
def test_an_address_is_found_in_any_spelling_however_it_is_kept(
    bench: Bench, mapping: dict[str, Any], field: dict[str, Any]
) -> None:
    bench.mapping["identifiers"] = [{"to": "email", **mapping}]
    bench.with_(fields=(Field("email", identifier=True, **field),))
    bench.synced([("1", "Ann.Lee@X.example", "Rome"), ("2", "bob@x.example", "Oslo")])
    for text in SPELLINGS:
        assert len(found(bench, text)) == 1, text
    assert found(bench, "ann@x.example") == []
    if "hash" in str(mapping) + str(field) or "sha" in str(mapping):
        assert len(found(bench, HASH)) == len(found(bench, HASH.upper())) == 1


def test_a_person_is_found_by_the_cohorts_key_and_by_the_second_identifier(bench: Bench) -> None:
    bench.mapping["identifiers"] = [
        {"to": "email", "from": "email"},
        {"to": "phone", "from": "city", "transform": [{"e164": "AU"}]},
    ]
    bench.synced([("k-1", "ann@x", "0412 345 678"), ("k-2", "bob@x", "0412 345 679")])
    assert (
        len(found(bench, "k-2")) == len(found(bench, "(04) 1234 5679")) == len(found(bench, "+61412345679")) == 1
    )
    assert found(bench, "K-2") == []


def test_a_numeric_identifier_is_found_though_its_transform_takes_no_text(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "n", "from": "n", "transform": [{"round": 0}]}]
    bench.mapping["fields"] = []
    bench.warehouse("CREATE TABLE people AS SELECT 1 AS id, 42 AS n")
    bench.deliver(bench.plan())
    assert len(found(bench, "42")) == 1


def test_what_is_known_of_a_member(bench: Bench) -> None:
    bench.mapping["audience"] = "1234"
    bench.people([("1", "ann@x", "Rome")])
    bench.deliver(bench.plan(), ids={"ann@x": "c-9"})
    (first,) = found(bench, "ann@x")
    assert (first["status"], first["destination"], first["audience"]) == ("member", "crm", "1234")
    assert (first["remote_id"], first["last_change"]) == ("c-9", "delivered")
    assert 0 <= bench.ledger.now() - first["since"] < 60
    bench.people([("1", "ann@x", "Kiel")])
    bench.deliver(bench.plan(), but={"ann@x": Status.REJECTED})
    (second,) = found(bench, "ann@x")
    assert (second["last_change"], second["since"], second["remote_id"]) == ("rejected", first["since"], "c-9")


def test_who_was_removed_or_never_there_is_not_found(bench: Bench) -> None:
    assert found(bench, "ann@x") == []
    bench.synced([("1", "ann@x", "Rome"), ("2", "bob@x", "Oslo")])
    bench.synced([("2", "bob@x", "Oslo")])
    assert found(bench, "ann@x") == []


@pytest.mark.parametrize("text", ["' OR 1=1 --", "'", '"', "\\", "%", "x" * 10_000, ""])
def test_nothing_is_found_by_what_is_no_identifier(bench: Bench, text: str) -> None:
    bench.synced([("1", "ann@x", "Rome")])
    assert found(bench, text) == []


def test_the_values_of_a_rejected_record_are_kept_as_the_destination_was_told(bench: Bench) -> None:
    bench.people([("1", "ann@x", "Rome"), ("2", "", "Oslo")])
    run = bench.deliver(bench.plan(), but={"ann@x": Status.REJECTED})
    refused, invalid = sorted(bench.ledger.rejected(NAME), key=lambda r: r.code, reverse=True)
    values = rejected_values(bench.settings, refused)
    assert (values["identifiers"], values["fields"], values["source_key"]) == (
        {"email": "ann@x"},
        {"city": "Rome"},
        "1",
    )
    assert rejected_values(bench.settings, invalid)["why"] == "identifier email is empty"
    (bench.settings.folder / "rejected" / NAME / f"{run}.parquet").unlink()
    assert rejected_values(bench.settings, refused) == {}
