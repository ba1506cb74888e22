"""What docs/write-a-connector.md shows works as it stands: each rung goes through the kit."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.sdk.nouns import Op
from sync.testing.contract import ConnectorContract, run
from sync.testing.hostile import WIRES

TEXT = (Path(__file__).parents[2] / "docs" / "write-a-connector.md").read_text()
BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+\.(?:py|toml))\n(.*?)^```|^```json (\S+)\n(.*?)^```", re.M | re.S)
FILES = {m[1] or m[3]: m[2] or m[4] for m in BLOCK.finditer(TEXT)}
PYTHON = sorted(name.removesuffix(".py") for name in FILES if name.endswith(".py"))


class Quick:
    """The checks of what every connector has from the client are made once, by the first rung."""

    def __contains__(self, sentence: object) -> bool:
        return not any(name in str(sentence) for name in WIRES)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The modules of the document, imported from a folder that holds nothing else."""
    folder = tmp_path_factory.mktemp("shown")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path.remove(str(folder))
    for name in PYTHON:
        sys.modules.pop(name, None)


def failures(contract: type[ConnectorContract], only: Any = None) -> list[str]:
    results = list(run(contract, only))
    assert sum(result.ok is True for result in results) > 35
    return [f"{r.check}: {r.message}" for r in results if r.ok is False]


def test_the_document_has_a_file_for_each_rung() -> None:
    assert {"acme.toml", "acme_http.py", "acme_push.py", "acme_job.py", "acme_contract.py"} <= set(FILES)


def test_the_first_rung_is_a_manifest(shown: Any) -> None:
    assert failures(shown("acme_contract").AcmeContract) == []


def test_the_second_rung_reads_an_answer(shown: Any) -> None:
    contract = type("Http", (shown("acme_contract").AcmeContract,), {"connector": shown("acme_http").Acme})

    assert failures(contract, Quick()) == []


class ById(ConnectorContract):
    """Whoever answers to the third rung."""

    def begin(self) -> None:
        self.people: set[str] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={})
        body = json.loads(request.content)
        if request.url.path.endswith("/search"):
            return httpx.Response(200, json={"people": [{"id": f"id-{e}", "email": e} for e in body["emails"]]})
        assert request.url.path in ("/v1/lists/1234/add", "/v1/lists/1234/remove")
        change = self.people.update if request.url.path.endswith("add") else self.people.difference_update
        change(body["ids"])
        return httpx.Response(200, json={"moved": body["ids"]})


def test_the_third_rung_makes_several_requests(shown: Any) -> None:
    kind = shown("acme_push").AcmeById
    contract = type("Push", (ById,), {"connector": kind, "config": {"token": "t0ken-of-acme"}})

    assert failures(contract, Quick()) == []


class InBulk(ConnectorContract):
    """Whoever answers to the fourth: an import is done when it is asked about for the second time."""

    def begin(self) -> None:
        self.asked: dict[str, int] = {}
        self.bad: list[dict[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            body = json.loads(request.content)
            assert set(body) == {"list", "op", "rows"}
            self.bad = []
            return httpx.Response(202, json={"id": str(len(self.asked) + 1)})
        times = self.asked[request.url.path] = self.asked.get(request.url.path, 0) + 1
        return httpx.Response(200, json={"state": "done" if times > 1 else "running", "bad": self.bad})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        response = self.answer(request)
        self.bad = [{"row": 0, "reason": "no box"}]
        return response


def test_the_fourth_rung_polls(shown: Any) -> None:
    kind = shown("acme_job").AcmeInBulk
    contract = type("Bulk", (InBulk,), {"connector": kind, "config": {"token": "t0ken-of-acme"}})

    assert failures(contract, Quick()) == []
    assert kind.objects["member"].ops == frozenset(Op)


def test_a_connector_is_held_to_the_vendors_description(shown: Any) -> None:
    from sync.testing.mutants import judge

    contract = shown("test_acme_described").TestAcmeDescribed

    assert failures(contract, Quick()) == []
    assert judge(contract).share >= contract.mutants_caught
