"""The conformance kit: what every connector promises, as checks an author runs against their own.

With pytest, in a connector's test file:

    class TestAcme(ConnectorContract):
        connector = Acme
        config = {"token": "t0ken"}

        def answer(self, request):
            return httpx.Response(200, json={"results": [...]})

Each check is one test, for each object the connector declares. Without pytest, `run` yields the results. With
`described`, each request that a check makes and each of the author's answers is held to the vendor's description.
"""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import httpx

from sync.errors import DestinationError, HeadgateError
from sync.sdk.connector import Config, Connector
from sync.sdk.http import build_client
from sync.sdk.nouns import Change, ObjectSpec, Op
from sync.testing import answers, audiences, declared, discovery, receipts, samples
from sync.testing.case import Case, Failure, NotApplicable, require
from sync.testing.check import CHECKS, Check
from sync.testing.hostile import RateSignal, Wire
from sync.testing.openapi import Described, Violation
from sync.testing.places import place_of

__all__ = ["ConnectorContract", "Result", "contract_for", "run"]

_ = (declared, receipts, answers, audiences, discovery)  # importing them registers their checks


Note = Callable[[str, object], None]
"""pytest's `record_property`: what the table of connectors is made of."""


class ConnectorContract:
    """What the kit has to know about a connector. An instance serves one check, so a stateful fake is fresh.

    `config` is what config.toml would have, secrets in the clear; make one up that occurs nowhere else, as it
    is looked for in logs. `expected` names errors that differ from the usual ones, by status. `described` is the
    vendor's description; where its files are not here, nothing is judged by it.
    """

    connector: ClassVar[type[Connector[Any]]]
    config: ClassVar[Mapping[str, Any]] = {}
    audience: ClassVar[str] = "1234"
    rate_signals: ClassVar[tuple[RateSignal, ...]] = RateSignal.usual()
    expected: ClassVar[Mapping[int, type[DestinationError]]] = {}
    check_methods: ClassVar[frozenset[str]] = frozenset()
    """HTTP methods `check()` may use beside GET, HEAD and OPTIONS."""
    largest_record: ClassVar[int] = 8_000_000
    """Bytes of the largest record the platform takes, where that is less than a batch has."""
    described: ClassVar[Described | None] = None
    test_request_mutants: ClassVar[Callable[..., None]]
    mutants_caught: ClassVar[float] = 0.7
    """The share of deliberately broken requests that `described` has to catch (`sync.testing.mutants`)."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.described is not None:
            cls.test_request_mutants = _test_request_mutants

    def begin(self) -> None:
        """Called before each check: the place for a stateful fake (pytest allows test classes no `__init__`)."""

    def answer(self, request: httpx.Request) -> httpx.Response:
        """What the destination says when all is well. May keep state."""
        return httpx.Response(500, json={"message": f"the contract has no answer to {request.method}"})

    def token_answer(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - fakes with a token server read it
        """What the token server says, where the connector's authentication fetches a token from one."""
        return httpx.Response(200, json={"access_token": "kit-token", "token_type": "Bearer", "expires_in": 3600})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:  # noqa: ARG002 - authors override it
        """What it says when it refuses the first record and takes the others; None: as `answer` does.

        Where it is not None for `GET https://localhost`, the kit checks how rejections are read, for each object
        of whose requests one is refused so.
        """
        return None

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """The changes to push, for a fake that has to know them."""
        return samples.changes(spec, op, count, prefix)

    def options(self, folder: Path) -> Mapping[str, Any]:  # noqa: ARG002 - authors override it
        """The configuration; `folder` is empty and for this check alone."""
        return self.config

    def make_config(self, folder: Path) -> Config:
        """The configuration, read by the connector's own model."""
        return self.connector.config_model.model_validate(dict(self.options(folder)))

    @property
    def has_answer(self) -> bool:
        """Whether the author gave a fake answer, or needs none."""
        return type(self).answer is not ConnectorContract.answer or not self.uses_http

    @property
    def judges(self) -> Described | None:
        """The vendor's description, where its files are here."""
        return self.described if self.described is not None and self.described.available else None

    @property
    def uses_http(self) -> bool:
        """Whether the connector speaks HTTP."""
        return bool(self.connector.base_url(self.make_config(Path(tempfile.gettempdir()))))

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """pytest's hook: a test for each check and object."""
        if "contract_check" in metafunc.fixturenames:
            cases = list(_cases(type(self)))
            names = [f"{object}: {check.sentence}" if object else check.sentence for check, object in cases]
            metafunc.parametrize(("contract_check", "contract_object"), cases, ids=names)

    def test_contract(
        self, contract_check: Check, contract_object: str, tmp_path: Path, record_property: Note
    ) -> None:
        """The connector keeps its promise."""
        import pytest

        case = Case(type(self)(), contract_object, tmp_path)
        record_property("connector", self.connector.name)
        try:
            _run(contract_check, case)
        except NotApplicable as exc:
            pytest.skip(str(exc))
        if contract_check.run is receipts.one_receipt_a_change:
            record_property("statuses", " ".join(case.statuses))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check. `ok` is None where it did not apply, and `message` says why.

    `where` is the line of the author's code, or the key of the manifest, that a failed check is about.
    """

    check: str
    object: str
    ok: bool | None
    message: str = ""
    where: str = ""


def run(contract: type[ConnectorContract], only: Container[str] | None = None) -> Iterator[Result]:
    """Run every check that applies, or those whose sentence is in `only`, one after the other.

    What a check finds is its result; raises `ValidationError` only where the contract's configuration is
    invalid.
    """
    for check, object in _cases(contract):
        if only is not None and check.sentence not in only:
            continue
        with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
            yield _result(check, contract, object, Path(folder))


def contract_for(connector: type[Connector[Any]], config: Mapping[str, Any]) -> type[ConnectorContract]:
    """A contract for a connector whose author's fake answer is not at hand.

    The checks that need one are left out: what remains are the declarations, and everything a destination can
    do wrong.
    """
    return type(f"{connector.__name__}Contract", (ConnectorContract,), {"connector": connector, "config": config})


def _cases(contract: type[ConnectorContract]) -> Iterator[tuple[Check, str]]:
    """The checks that apply, with the object for each; an empty object stands for the connector as a whole."""
    given = contract()
    config = given.make_config(Path(tempfile.gettempdir()))
    given.begin()
    client = build_client(
        contract.connector, config, timeout=1, transport=Wire(given.answer, token=given.token_answer)
    )
    objects = sorted(contract.connector(config, client).objects)
    for check in CHECKS:
        if (check.http and not given.uses_http) or (check.answer and not given.has_answer):
            continue
        yield from ((check, object) for object in (objects if check.per_object else [""]))


def _test_request_mutants(self: ConnectorContract, record_property: Note) -> None:
    """Enough deliberately broken requests are caught by the vendor's description and the author's rules."""
    import pytest

    if self.judges is None:
        pytest.skip("the vendor's description is not here: HEADGATE_DESCRIPTIONS names its folder")
    from sync.testing.mutants import judge

    verdict = judge(type(self))
    for name, value in {"connector": self.connector.name, "made": verdict.made, "caught": verdict.share}.items():
        record_property(name, value)
    said = f"{verdict.share:.1%} of {verdict.made} broken requests are caught, not {self.mutants_caught:.0%}"
    require(verdict.share >= self.mutants_caught, "\n".join([f"{said}. Nothing finds these:", *verdict.survivors]))


def _run(check: Check, case: Case) -> None:
    """Run a check. What differs from the vendor's description comes first: a failure may be its consequence."""
    try:
        check.run(case)
    finally:
        if case.violations:
            raise Violation("\n".join(dict.fromkeys(case.violations[:3])))


def _line(exc: Exception) -> str:
    """Where it was raised, and what stands there: an `assert` says nothing else."""
    *_, last = traceback.extract_tb(exc.__traceback__)
    return f" at {Path(last.filename).name}:{last.lineno} ({last.line})"


def _result(check: Check, contract: type[ConnectorContract], object: str, folder: Path) -> Result:
    failure: Exception
    try:
        _run(check, Case(contract(), object, folder))
        return Result(check.sentence, object, True)
    except NotApplicable as exc:
        return Result(check.sentence, object, None, str(exc))
    except Failure as exc:
        failure, said = exc, str(exc)
    except HeadgateError as exc:
        quoted = getattr(exc, "detail", "").strip()[:300]
        failure, said = exc, f"{type(exc).__name__}: {exc.message}" + (f": {quoted}" if quoted else "")
    except Exception as exc:  # noqa: BLE001 - a connector under test, or its stand-in, may raise anything
        failure, said = exc, f"it raised {type(exc).__name__}{_line(exc)}: {exc}".rstrip(": ")
    where = place_of(contract.connector, check, object, failure)
    return Result(check.sentence, object, False, said, where)
