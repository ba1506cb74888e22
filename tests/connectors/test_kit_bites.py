"""The conformance kit bites: a sound connector passes whole, and each planted bug is caught by its check."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ConfigDict, SecretStr

from sync.errors import AuthError, DestinationError, ProtocolError, RequestError, Unavailable
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector, HttpConnector
from sync.sdk.nouns import Batch, Field, Job, Limits, Member, ObjectSpec, Op, Outcome, Page, Receipt, Status
from sync.sdk.values import dumps, json_object
from sync.testing.case import watching
from sync.testing.check import CHECKS
from sync.testing.contract import ConnectorContract, contract_for, run
from sync.testing.hostile import RateSignal

MEMBER = ObjectSpec(
    name="member",
    title="List member",
    ops=frozenset({Op.ADD, Op.REMOVE}),
    fields=(Field("email", required=True, identifier=True), Field("first_name"), Field("score", "number")),
    limits=Limits(batch_size=100, concurrency=4),
)


class SoundConfig(Config):
    token: SecretStr


class Sound(HttpConnector[SoundConfig]):
    """A list: one POST a batch, a status a record."""

    name = "sound"
    title = "Sound"
    docs = "Make a token under Settings."
    config_model: ClassVar[type[Config]] = SoundConfig
    objects: ClassVar[dict[str, ObjectSpec]] = {"member": MEMBER}  # type: ignore[misc]

    @classmethod
    def base_url(cls, config: Any) -> str:
        return "https://api.sound.example"

    @classmethod
    def auth(cls, config: Any) -> httpx.Auth | None:
        return Bearer(SecretStr(str(config.token.get_secret_value())))

    def check(self) -> None:
        self.http.get("/me")

    def request(self, batch: Batch) -> httpx.Request:
        people = [{**c.identifiers, **c.fields} for c in batch.changes]
        url = f"/lists/{batch.audience}/{batch.changes[0].op}"
        return self.http.build_request("POST", url, content=dumps(people), headers={"Idempotency-Key": batch.id})

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        results = self.results(response)
        if len(results) != len(batch.changes):
            raise ProtocolError("the list of results does not fit")
        return [self.receipt(c.key, r) for c, r in zip(batch.changes, results, strict=True)]

    def results(self, response: httpx.Response) -> list[Any]:
        results = (json_object(response.content) or {}).get("results")
        if not isinstance(results, list):
            raise ProtocolError("no list of results")
        return results

    def receipt(self, key: str, result: Any) -> Receipt:
        if result == {"status": "ok"}:
            return Receipt(key, Status.APPLIED)
        return Receipt(key, Status.REJECTED, str(result.get("error")))


def _results(request: httpx.Request) -> list[dict[str, str]]:
    count = len(json.loads(request.content)) if request.content else 0
    return [{"status": "ok"} for _ in range(count)]


class SoundContract(ConnectorContract):
    connector = Sound
    config: ClassVar = {"token": "sound-t0ken-1"}

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"results": _results(request)})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        results = [{"status": "error", "error": "no such country"}, *_results(request)[1:]]
        return httpx.Response(200, json={"results": results})


class TestSound(SoundContract):
    """The sound connector passes whole."""


class JobConfig(SoundConfig):
    pass


class SoundJob(Connector[JobConfig]):
    """A job: submitted, polled twice."""

    name = "soundjob"
    title = "Sound jobs"
    docs = "Make a token under Settings."
    config_model = JobConfig
    objects: ClassVar[dict[str, ObjectSpec]] = {"member": MEMBER}  # type: ignore[misc]

    @classmethod
    def base_url(cls, config: Any) -> str:
        return "https://api.sound.example"

    def check(self) -> None:
        self.http.get("/me")

    def push(self, batch: Batch) -> Outcome:
        people = [{**c.identifiers, **c.fields, "op": c.op} for c in batch.changes]
        answer = json_object(self.http.post("/jobs", content=dumps(people)).content) or {}
        if not isinstance(answer.get("job"), str):
            raise ProtocolError("no job")
        return Job(answer["job"], {"checksum": 1}, (Receipt(batch.changes[0].key, Status.ACCEPTED),), 2)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        answer = json_object(self.http.get(f"/jobs/{job.id}").content) or {}
        return self.settle(job, batch, answer.get("state"))

    def settle(self, job: Job, batch: Batch, state: Any) -> Outcome:
        if state == "running":
            return Job(job.id, job.data, job.settled, 2)
        if state != "done":
            raise ProtocolError("no state")
        known = {r.key for r in job.settled}
        return [Receipt(c.key, Status.APPLIED) for c in batch.changes if c.key not in known]


class SoundJobContract(ConnectorContract):
    connector = SoundJob
    config: ClassVar = {"token": "sound-t0ken-2"}

    def begin(self) -> None:
        self.polled = 0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            return httpx.Response(202, json={"job": "j1"})
        self.polled += 1
        return httpx.Response(200, json={"state": "done" if self.polled > 1 else "running"})


class TestSoundJob(SoundJobContract):
    """The sound connector with jobs passes whole."""


# Planted bugs: each class is the sound one with one mistake.


class DropsWhatIsShort(Sound):
    def receipts(self, batch, response):
        return [self.receipt(c.key, r) for c, r in zip(batch.changes, self.results(response), strict=False)]


class TrustsAny200(Sound):
    def receipts(self, batch, response):
        return [Receipt(c.key, Status.APPLIED) for c in batch.changes]


class TrustsAnyObject(Sound):
    def receipts(self, batch, response):
        bad = response.json().get("failed", [])
        return [Receipt(c.key, Status.REJECTED if c.key in bad else Status.APPLIED, "bad") for c in batch.changes]


class SearchesTheText(Sound):
    def receipts(self, batch, response):
        well = '"ok"' in response.text
        return [Receipt(c.key, Status.APPLIED if well else Status.UNKNOWN) for c in batch.changes]


class AnswersTwice(Sound):
    def receipts(self, batch, response):
        return [*super().receipts(batch, response), *super().receipts(batch, response)]


class Swallows(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except DestinationError:
            return [Receipt(c.key, Status.UNKNOWN) for c in batch.changes]


class SwallowsRefusals(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except RequestError:
            return [Receipt(c.key, Status.APPLIED) for c in batch.changes]


class CallsFailuresRefusals(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except Unavailable as exc:
            raise RequestError("it failed") from exc


class LosesThePause(Sound):
    @classmethod
    def retry_after(cls, response):
        return 1.0


class Retries(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except Unavailable:
            return super().push(batch)


class Sleeps(Sound):
    def push(self, batch):
        time.sleep(0.01)
        return super().push(batch)


class SleepsElsewhere(Sound):
    def push(self, batch):
        thread = threading.Thread(target=lambda: time.sleep(0.01))
        thread.start()
        thread.join()
        return super().push(batch)


class ReadsTheEnvironment(Sound):
    def request(self, batch):
        os.environ.get("SOUND_REGION")
        return super().request(batch)


class OwnClient(Sound):
    def push(self, batch):
        with contextlib.suppress(httpx.HTTPError):
            httpx.post("http://127.0.0.1:9/", timeout=0.1)
        return super().push(batch)


class Logs(Sound):
    def push(self, batch):
        logging.getLogger("sound").debug("pushing %s", batch.changes)
        return super().push(batch)


class Prints(Sound):
    def push(self, batch):
        print(batch.changes[0].fields or batch.changes[0].identifiers)
        return super().push(batch)


class QuotesThePeer(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except RequestError as exc:
            raise RequestError(f"refused: {exc.detail}") from None


class QuotesInTheCause(Sound):
    def push(self, batch):
        try:
            return super().push(batch)
        except RequestError as exc:
            raise RequestError("refused") from ValueError(exc.detail)


class ChangesTheBatch(Sound):
    def request(self, batch):
        for change in batch.changes:
            change.identifiers["email"] = change.identifiers["email"].upper()
        return super().request(batch)


class NewKeyEachTime(Sound):
    def request(self, batch):
        request = super().request(batch)
        request.headers["Idempotency-Key"] = str(uuid.uuid4())
        return request


class StampsTheBody(Sound):
    def request(self, batch):
        people = [{**c.identifiers, "at": time.time_ns()} for c in batch.changes]
        return self.http.build_request("POST", "/lists/1/add", content=dumps(people))


class KeepsTheBatch(Sound):
    def request(self, batch):
        self.batch = batch
        return super().request(batch)

    def receipts(self, batch, response):
        return super().receipts(self.batch, response)


class NoReason(Sound):
    def receipt(self, key, result):
        return Receipt(key, Status.APPLIED if result == {"status": "ok"} else Status.REJECTED)


class RejectsAll(Sound):
    def receipts(self, batch, response):
        good = all(r == {"status": "ok"} for r in self.results(response))
        return [Receipt(c.key, Status.APPLIED if good else Status.REJECTED, "one failed") for c in batch.changes]


class MakesKeys(Sound):
    def receipts(self, batch, response):
        made = zip(batch.changes, super().receipts(batch, response), strict=True)
        label = re.compile(r"\.(\w+)@")
        return [Receipt("key-" + label.search(c.identifiers["email"])[1], r.status) for c, r in made]


class StumblesOverNulls(Sound):
    def request(self, batch):
        for change in batch.changes:
            change.fields.get("first_name", "").strip()
        return super().request(batch)


class SmallerThanDeclared(Sound):
    def request(self, batch):
        if len(batch.changes) > 50:
            raise RequestError("at most 50")
        return super().request(batch)


class SecondTimeIsAnError(Sound):
    seen: ClassVar[set[str]] = set()

    def receipts(self, batch, response):
        again = batch.id in self.seen
        self.seen.add(batch.id)
        found = super().receipts(batch, response)
        return [Receipt(r.key, Status.REJECTED, "exists") for r in found] if again else found


class FollowsRedirects(Sound):
    def push(self, batch):
        request = self.request(batch)
        request.extensions["expects"] = {302}
        response = self.http.send(request)
        if response.status_code == 302:
            response = self.http.get(response.headers["location"])
        return self.receipts(batch, response)


class CheckIsContent(Sound):
    def check(self):
        with contextlib.suppress(AuthError):
            self.http.get("/me")


class CheckIsBlind(Sound):
    def check(self):
        with contextlib.suppress(Unavailable):
            self.http.get("/me")


class CheckWrites(Sound):
    def check(self):
        self.http.post("/lists/1/add", json=[])


class CallsWhenMade(Sound):
    def __init__(self, config, http):
        super().__init__(config, http)
        http.get("/me")


class PlainToken(Sound):
    class Plain(Config):
        token: str

    config_model = Plain

    @classmethod
    def auth(cls, config):
        return Bearer(SecretStr(config.token))


class LaxConfig(Sound):
    class Lax(SoundConfig):
        model_config = ConfigDict(extra="ignore")

    config_model = Lax


class Nameless(Sound):
    docs = ""


def _with(**changes: Any) -> dict[str, ObjectSpec]:
    given = {name: getattr(MEMBER, name) for name in MEMBER.__dataclass_fields__}
    return {"member": ObjectSpec(**{**given, **changes})}


class Contradicts(Sound):
    objects = _with(irreversible=frozenset({Op.UPDATE}))


class OddTypes(Sound):
    objects = _with(fields=(*MEMBER.fields, Field("age", "int")))


class NoLimit(Sound):
    objects = _with(limits=Limits(batch_size=0))


class NoPoll(SoundJob):
    poll = None


class NotJson(SoundJob):
    def push(self, batch):
        return Job("j1", {"when": object()})


class AsksAgain(SoundJob):
    def settle(self, job, batch, state):
        outcome = super().settle(job, batch, state)
        return outcome if isinstance(outcome, Job) else [Receipt(c.key, Status.APPLIED) for c in batch.changes]


class ForgetsSettled(SoundJob):
    def settle(self, job, batch, state):
        outcome = super().settle(job, batch, state)
        return Job(job.id, job.data) if isinstance(outcome, Job) else outcome


class DoneUnlessRunning(SoundJob):
    def settle(self, job, batch, state):
        return super().settle(job, batch, "running" if state == "running" else "done")


class Reading(Sound):
    """A sound connector that reads its list."""

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        answer = json_object(self.http.get(f"/lists/{audience}", params={"after": after or "0"}).content) or {}
        if not isinstance(answer.get("emails"), list):
            raise ProtocolError("no list of members")
        return Page([Member({"email": email}) for email in answer["emails"]], answer.get("next"))


class ReadingContract(SoundContract):
    connector = Reading

    def begin(self) -> None:
        self.emails: list[str] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            at = int(request.url.params.get("after", 0))
            rest = {"next": str(at + 2)} if at + 2 < len(self.emails) else {}
            return httpx.Response(200, json={"emails": self.emails[at : at + 2], **rest})
        told = [person["email"] for person in json.loads(request.content)]
        self.emails = [email for email in self.emails if email not in told]
        self.emails += told if request.url.path.endswith("add") else []
        return super().answer(request)


class TestReading(ReadingContract):
    """A connector that reads passes whole."""


class ReadingInPart(Reading):
    """A sound connector that reads some of its objects: this one it cannot."""

    objects: ClassVar[dict[str, ObjectSpec]] = {k: replace(v, readable=False) for k, v in Sound.objects.items()}

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        raise AssertionError("this object cannot be read")


class ReadingInPartContract(ReadingContract):
    connector = ReadingInPart


def test_an_object_that_cannot_be_read_is_not_read() -> None:
    checks = {
        "who was added is read back, and who was removed is not",
        "nonsense instead of a page of members is an error, never an empty audience",
    }

    assert [(result.check in checks, result.ok) for result in run(ReadingInPartContract, checks)] == [
        (True, None)
    ] * 2


class ReadsThePageOnce(Reading):
    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        return replace(super().members(object, audience, after), next=None)


class ReadsNobody(Reading):
    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        answer = self.http.get(f"/lists/{audience}").content
        return Page([Member({"email": email}) for email in (json_object(answer) or {}).get("emails", [])])


class Able(Reading):
    """A sound connector that makes lists, and says which fields there are."""

    def create_audience(self, object: str, title: str) -> str:
        return self.made(json_object(self.http.post("/lists", content=dumps({"title": title})).content) or {})

    def made(self, answer: dict[str, Any]) -> str:
        if not isinstance(answer.get("id"), str):
            raise ProtocolError("no id")
        return answer["id"]

    def describe(self, object: str) -> Iterable[Field]:
        return self.fields(json_object(self.http.get("/fields").content) or {})

    def fields(self, answer: dict[str, Any]) -> Iterable[Field]:
        if not isinstance(answer.get("fields"), list):
            raise ProtocolError("no fields")
        return [Field(one["name"], one["type"]) for one in answer["fields"]]


class AbleContract(ReadingContract):
    connector = Able

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/lists":
            return httpx.Response(200, json={"id": "new"})
        if request.url.path == "/fields":
            known = [{"name": "email", "type": "string"}, {"name": "score", "type": "number"}]
            return httpx.Response(200, json={"fields": known})
        if request.url.path.startswith("/lists/"):
            known = request.url.path.split("/")[2] in ("1234", "new")
            return super().answer(request) if known else httpx.Response(404)
        return super().answer(request)


class TestAble(AbleContract):
    """A connector that makes and describes passes whole."""


class MakesAnotherId(Able):
    def made(self, answer):
        return f"list-{super().made(answer)}"


class MakesAnyId(Able):
    def made(self, answer):
        return str(answer.get("id"))


class DescribesOddTypes(Able):
    def fields(self, answer):
        return [replace(one, type="varchar") for one in super().fields(answer)]


class DescribesTwice(Able):
    def fields(self, answer):
        return [*super().fields(answer), *super().fields(answer)]


class DescribesNothing(Able):
    def fields(self, answer):
        return [Field(one["name"]) for one in answer.get("fields", [])]


BUGS: list[tuple[type[Connector[Any]], str]] = [
    (DropsWhatIsShort, "an answer one entry short is not read as if it were whole"),
    (TrustsAny200, "a 200 with nonsense (html) is never applied"),
    (TrustsAny200, "a 200 with nonsense (empty) is never applied"),
    (TrustsAnyObject, "a 200 with nonsense ({}) is never applied"),
    (SearchesTheText, "an answer cut in the middle is never read as applied"),
    (AnswersTwice, "every change of every op gets exactly one receipt, and all is applied"),
    (Swallows, "401 and 403 are AuthError"),
    (Swallows, "a destination that resets the connection leaves the outcome unknown"),
    (SwallowsRefusals, "a refused batch is never applied"),
    (CallsFailuresRefusals, "408 and 5xx are Unavailable, with an unknown outcome"),
    (CallsFailuresRefusals, "a refused connection is Unavailable, and certainly nothing was applied"),
    (CallsFailuresRefusals, "a destination that never answers leaves the outcome unknown"),
    (LosesThePause, "429 is RateLimited, in each way the vendor says for how long"),
    (Retries, "nothing is tried twice: retrying is the engine's"),
    (Sleeps, "it never sleeps, reads the environment or opens connections of its own"),
    (SleepsElsewhere, "it never sleeps, reads the environment or opens connections of its own"),
    (ReadsTheEnvironment, "it never sleeps, reads the environment or opens connections of its own"),
    (OwnClient, "it never sleeps, reads the environment or opens connections of its own"),
    (Logs, "a push that goes well writes no personal data and no secret to logs or the terminal"),
    (Prints, "a push that goes well writes no personal data and no secret to logs or the terminal"),
    (QuotesThePeer, "an answer that quotes the request leaks neither personal data nor secrets"),
    (QuotesInTheCause, "an answer that quotes the request leaks neither personal data nor secrets"),
    (ChangesTheBatch, "the batch it is given stays as it was"),
    (NewKeyEachTime, "the same batch makes the same requests, byte for byte"),
    (StampsTheBody, "the same batch makes the same requests, byte for byte"),
    (KeepsTheBatch, "two threads do not mix their batches up"),
    (NoReason, "a rejected record has a reason, and the others are applied"),
    (RejectsAll, "a rejected record has a reason, and the others are applied"),
    (MakesKeys, "changes and receipts agree on keys, whatever the keys look like"),
    (StumblesOverNulls, "odd texts, empty fields and other scripts go through"),
    (SmallerThanDeclared, "a full batch of the declared size works"),
    (SecondTimeIsAnError, "the same batch twice gives the same receipts where it says it is idempotent"),
    (FollowsRedirects, "a redirect is neither followed nor applied"),
    (CheckIsContent, "check() raises AuthError on 401 and 403"),
    (CheckIsBlind, "check() raises Unavailable when nobody is there"),
    (CheckWrites, "check() goes well when the destination does, and writes nothing"),
    (CallsWhenMade, "making it does nothing: no requests, no connections, no output"),
    (PlainToken, "secrets of its configuration are SecretStr and are not shown"),
    (LaxConfig, "its configuration is frozen and refuses unknown keys"),
    (Nameless, "it has a name, a title and documentation"),
    (Contradicts, "its objects are consistent"),
    (OddTypes, "its fields have known types and names of their own"),
    (NoLimit, "its limits can be kept"),
    (NoPoll, "every change of every op gets exactly one receipt, and all is applied"),
    (NotJson, "a job survives JSON, is polled, and never asks again about settled records"),
    (AsksAgain, "a job survives JSON, is polled, and never asks again about settled records"),
    (ForgetsSettled, "a job survives JSON, is polled, and never asks again about settled records"),
    (DoneUnlessRunning, "a poll answered with nonsense settles nothing as applied"),
    (ReadsThePageOnce, "who was added is read back, and who was removed is not"),
    (MakesAnotherId, "an audience that it makes can be filled at once"),
    (MakesAnyId, "nonsense instead of a new audience's id is an error"),
    (DescribesOddTypes, "the fields it says the account has are of known types, and each is there once"),
    (DescribesTwice, "the fields it says the account has are of known types, and each is there once"),
    (DescribesNothing, "nonsense instead of fields is an error, never an account without fields"),
    (ReadsNobody, "nonsense instead of a page of members is an error, never an empty audience"),
]


BASES: list[tuple[type[Connector[Any]], type[ConnectorContract]]] = [
    (SoundJob, SoundJobContract),
    (Able, AbleContract),
    (Reading, ReadingContract),
    (Connector, SoundContract),
]


@pytest.mark.parametrize(("bug", "sentence"), BUGS, ids=[f"{bug.__name__}-{n}" for n, (bug, _) in enumerate(BUGS)])
def test_a_planted_bug_is_caught(bug: type[Connector[Any]], sentence: str) -> None:
    base = next(b for kind, b in BASES if issubclass(bug, kind))
    contract = type("Planted", (base,), {"connector": bug})

    found = [r.ok for r in run(contract, only={sentence})]

    assert False in found


def test_who_ran_before_is_not_watched() -> None:
    done = threading.Event()

    def a_neighbour() -> None:
        while not done.is_set():
            time.sleep(0.001)
            os.environ.get("NEIGHBOUR")
            logging.getLogger("neighbour").info("still here")
            with contextlib.suppress(OSError), socket.socket() as client:
                client.connect(("127.0.0.1", 9))

    neighbour = threading.Thread(target=a_neighbour)
    neighbour.start()
    try:
        with watching() as watch:
            time.sleep(2.0)  # noted only
            done.wait(0.05)
    finally:
        done.set()
        neighbour.join()

    assert watch.slept == [2.0]
    assert (watch.environment, watch.connected, watch.log) == ([], [], [])


def test_a_vendors_own_rate_signal_is_asked_for() -> None:
    in_ms = RateSignal("epoch ms", lambda now: {"X-Reset": str(int((now + 60) * 1000))}, 60)
    contract = type("Vendor", (SoundContract,), {"rate_signals": (in_ms,)})

    (result,) = run(contract, only={"429 is RateLimited, in each way the vendor says for how long"})

    assert result.ok is False
    assert "60" in result.message


def test_without_the_authors_answer_the_kit_still_tries_all_that_can_go_wrong() -> None:
    results = list(run(contract_for(Sound, {"token": "t0ken-of-mine"})))

    assert len(results) > 25
    assert not [r for r in results if r.ok is False]


def test_each_check_is_a_sentence_of_its_own() -> None:
    sentences = [check.sentence for check in CHECKS]

    assert len(sentences) == len(set(sentences)) > 45
