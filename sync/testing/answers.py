"""Checks of what a connector makes of refusals, failures and nonsense."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import httpx

from sync.errors import AuthError, DestinationError, RateLimited, RequestError, Unavailable
from sync.sdk.nouns import Job, Op, Receipt
from sync.testing import samples
from sync.testing.case import SUCCESS, Case, Failure, NotApplicable, require, told, watching
from sync.testing.check import check
from sync.testing.hostile import NONSENSE, WIRES, Answer, Diverted, Wire, always, quoting, refusing, serving

_MOST = 4  # of the requests of one push so many are tried in turn
_WIRE_TIMEOUT = 0.35  # seconds


def status(code: int, headers: Mapping[str, str] | None = None) -> Answer:
    """A destination that answers everything so."""
    return always(httpx.Response(code, headers=headers, json={"message": "no", "status": "error"}))


def _wires(case: Case, bad: Answer, op: Op | None = None) -> Iterator[Wire]:
    """Wires on which every request fails; then, where a push makes several, one of them at a time."""
    yield case.wire(bad)
    if not case.contract.has_answer:
        return
    count = case.requests_of_a_good_push(op)
    for at in range(min(count, _MOST) if count > 1 else 0):
        yield case.wire(bad, at)


def _push(case: Case, wire: httpx.BaseTransport, op: Op | None = None) -> list[Receipt] | DestinationError:
    try:
        return case.push(case.connect(wire, timeout=_WIRE_TIMEOUT), case.batch(op))
    except DestinationError as exc:
        return exc


def _expect(case: Case, bad: Answer, error: type[DestinationError], what: str) -> Iterator[DestinationError]:
    """On every wire the error is raised, or (one request of several failing) not all counts as applied."""
    for wire in _wires(case, bad):
        outcome = _push(case, wire)
        if isinstance(outcome, DestinationError):
            require(isinstance(outcome, error), f"{what} became {type(outcome).__name__}, not {error.__name__}")
            yield outcome
        else:
            require(wire.at is not None, f"{what} did not raise {error.__name__}")
            require(not all(r.status in SUCCESS for r in outcome), f"{what} counts as applied")


@check("401 and 403 are AuthError", http=True, answer=False)
def credentials(case: Case) -> None:
    """The destination is paused and a person told."""
    for code in (401, 403):
        error = case.contract.expected.get(code, AuthError)
        list(_expect(case, status(code), error, f"status {code}"))


@check("429 is RateLimited, in each way the vendor says for how long", http=True, answer=False)
def rate_limits(case: Case) -> None:
    """The pause asked for is kept in full."""
    for signal in case.contract.rate_signals:
        answer = status(429, signal.headers(time.time()))
        for found in _expect(case, answer, RateLimited, f"429 ({signal.name})"):
            said = found.retry_after if isinstance(found, RateLimited) else None
            near = said == signal.seconds or (
                said is not None and signal.seconds is not None and abs(said - signal.seconds) <= 3
            )
            require(near, f"429 ({signal.name}) asks for {signal.seconds} s; it was read as {said}")


@check("408 and 5xx are Unavailable, with an unknown outcome", http=True, answer=False)
def failures(case: Case) -> None:
    """They are sent again; nobody knows what the first one did."""
    for code in (408, 500, 502, 503, 504):
        error = case.contract.expected.get(code, Unavailable)
        for found in _expect(case, status(code), error, f"status {code}"):
            claims = isinstance(found, Unavailable) and found.applied
            require(not claims, f"status {code} is said to have been applied")


@check("a refused batch is never applied", http=True, answer=False)
def refusals(case: Case) -> None:
    """400, 404, 413 and 422 for the whole batch: bisected by the engine."""
    op = next((op for op in case.ops if op is not Op.REMOVE), Op.REMOVE)
    for code in (400, 404, 413, 422):
        for wire in _wires(case, status(code), op):
            outcome = _push(case, wire, op)
            if isinstance(outcome, DestinationError):
                error = case.contract.expected.get(code, RequestError)
                fits = isinstance(outcome, error)
                require(fits, f"status {code} became {type(outcome).__name__}, not {error.__name__}")
            else:
                applied = [r for r in outcome if r.status in SUCCESS]
                require(
                    len(applied) < (1 if wire.at is None else len(outcome)), f"status {code} counts as applied"
                )


@check("a redirect is neither followed nor applied", http=True, answer=False)
def redirects(case: Case) -> None:
    """Credentials must not travel to where an answer points."""
    wire = case.wire(status(302, {"Location": "https://elsewhere.example/"}))
    outcome = _push(case, wire)
    require(not any(r.url.host == "elsewhere.example" for r in wire.requests), "a redirect was followed")
    require(isinstance(outcome, DestinationError), "a redirect counts as an answer")


@check("nothing is tried twice: retrying is the engine's", http=True, answer=False)
def no_retries(case: Case) -> None:
    """A retry inside push escapes pacing, the lease and the count."""
    for code in (429, 500, 503):
        wire = case.wire(status(code, {"Retry-After": "0"}))
        with watching() as watch:
            _push(case, wire)
        seen = wire.bodies
        require(len(seen) == len(set(seen)), f"after {code} the same request was sent again")
        require(not watch.slept, f"after {code} it sleeps")


@check("a refused connection is Unavailable, and certainly nothing was applied", http=True, answer=False)
def refused(case: Case) -> None:
    """The request was never sent."""
    with refusing() as port:
        outcome = _push(case, Diverted(port, timeout=_WIRE_TIMEOUT))
    if not isinstance(outcome, Unavailable):
        raise Failure(f"a refused connection became {type(outcome).__name__}")
    require(outcome.applied is False, "nothing was sent, yet the outcome is called unknown")


def _broken_wire(name: str) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        with serving(WIRES[name]) as port:
            transport = Diverted(port, timeout=_WIRE_TIMEOUT)
            outcome = _push(case, transport)
            transport.close()
        require(isinstance(outcome, DestinationError), f"a destination that {name} counts as an answer")
        require(
            not isinstance(outcome, AuthError | RequestError | RateLimited),
            f"a destination that {name} became {type(outcome).__name__}: a later try may go through",
        )
        claims = isinstance(outcome, Unavailable) and outcome.applied is not None
        require(not claims, "the request was sent, so its outcome is unknown")

    return run


for _name in WIRES:
    check(f"a destination that {_name} leaves the outcome unknown", http=True, answer=False)(_broken_wire(_name))


def _nonsense(name: str) -> Callable[[Case], None]:
    def run(case: Case) -> None:
        if name in case.connector.plain_success:
            raise NotApplicable("the connector documents this as a plain success")
        for op in case.ops:
            for wire in _wires(case, always(NONSENSE[name]), op):
                outcome = _push(case, wire, op)
                if isinstance(outcome, DestinationError):
                    continue
                applied = [r for r in outcome if r.status in SUCCESS]
                most = 1 if wire.at is None else len(outcome)
                require(len(applied) < most, f"{op}: a 200 with {name} counts as applied")

    return run


for _name in NONSENSE:
    check(f"a 200 with nonsense ({_name}) is never applied", http=True, answer=False)(_nonsense(_name))


@check("a poll answered with nonsense settles nothing as applied", http=True)
def nonsense_polls(case: Case) -> None:
    """A job is over when the platform says so, in words we know."""
    for op in case.ops:
        batch, job = case.batch(op), case.connect().push(case.batch(op))
        if not isinstance(job, Job):
            raise NotApplicable("it answers with receipts at once")
        for name, response in NONSENSE.items():
            try:
                outcome = case.poll(case.connect(case.wire(always(response))), job, batch)
            except DestinationError:
                continue
            settled = outcome.settled if isinstance(outcome, Job) else outcome
            fresh = [r for r in settled if r.status in SUCCESS and r not in job.settled]
            require(not fresh, f"{op}: a poll answered with {name} settles records as applied")


@check("an answer that quotes the request leaks neither personal data nor secrets", http=True, answer=False)
def quoted(case: Case) -> None:
    """Messages, causes and logs are kept; only `detail` is evidence."""
    for code in (200, 302, 400, 401, 422, 429, 500):
        wire = case.wire(quoting(code))
        connector, batch = case.connect(wire), case.batch()
        with watching() as watch:
            outcome: list[Receipt] | DestinationError
            try:
                outcome = case.push(connector, batch)
            except DestinationError as exc:
                outcome = exc
        said = watch.said + (told(outcome) if isinstance(outcome, DestinationError) else "")
        require(samples.CANARY not in said, f"status {code}: personal data is in a message, a cause or a log")
        require(
            not any(s in said for s in case.secrets), f"status {code}: a secret is in a message, a cause or a log"
        )


@check("check() raises AuthError on 401 and 403", http=True, answer=False, per_object=False)
def check_credentials(case: Case) -> None:
    """It is what `doctor` asks."""
    for code in (401, 403):
        wire = case.wire(status(code))
        try:
            case.connect(wire).check()
        except DestinationError as exc:
            error = case.contract.expected.get(code, AuthError)
            require(isinstance(exc, error), f"check() raised {type(exc).__name__} on {code}")
        else:
            require(False, f"check() is content with {code}" if wire.requests else "check() asks nobody")


@check("check() raises Unavailable when nobody is there", http=True, answer=False, per_object=False)
def check_reachable(case: Case) -> None:
    """It must not claim that all is well."""
    with refusing() as port:
        try:
            case.connect(Diverted(port, timeout=_WIRE_TIMEOUT)).check()
        except Unavailable:
            return
    require(False, "check() is content with a destination that refuses connections")


@check("check() goes well when the destination does, and writes nothing", http=True, per_object=False)
def check_reads(case: Case) -> None:
    """It is run at any time."""
    wire = case.wire()
    case.connect(wire).check()
    methods = {r.method for r in wire.requests} - {"GET", "HEAD", "OPTIONS"} - case.contract.check_methods
    require(not methods, f"check() sends {', '.join(sorted(methods))}: it should only read")
