"""What each connector's object needs to be lied to: a configuration, an honest destination, and its state.

Connectors are taken from the registry. One that has no stand of its own here is set up from its contract in
`tests/connectors`; then nobody looks into the destination, and the ledger's side is all that is compared.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from sync.mapping import Mode
from sync.sdk.connector import Config, Connector
from sync.sdk.http import build_client, offline_client
from sync.sdk.nouns import Delivery, ObjectSpec, Op
from sync.sdk.registry import available, load
from sync.sdk.wire import Transport
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.attio import FakeAttio
from sync.testing.fakes.hubspot import FakeHubSpot
from sync.testing.fakes.mailchimp import FakeMailchimp
from sync.testing.fakes.salesforce import FakeSalesforce
from sync.testing.hostile import asks_for_token

SECRET = "canary-secret-7f31"  # part of every credential
SECRETS = tuple(f"{SECRET}-{part}" for part in ("header", "hmac", "token", "key"))

People = dict[str, str]
"""What a destination has: a name (or nothing) by identifier."""


class Stand(ABC):
    """One object of one connector, and an honest destination for it. Each person has an address and a name."""

    connector: str
    object: str
    audience: str | None = None
    identifier = "email"
    field: str | None = None

    def __init__(self) -> None:
        self.kind: type[Connector[Any]] = load(self.connector)

    @property
    def name(self) -> str:
        """For people who read test names."""
        return f"{self.connector} {self.object}"

    @abstractmethod
    def options(self, url: str) -> Mapping[str, Any]:
        """The configuration, for a destination at `url`."""

    @abstractmethod
    def reset(self, known: Iterable[str]) -> None:
        """The destination knows these people, and has nobody in the audience."""

    @abstractmethod
    def app(self, request: httpx.Request) -> httpx.Response:
        """The honest answer."""

    def token(self, request: httpx.Request) -> httpx.Response:
        """What the token server says. It tells no lies here: what a scheme makes of those is tested by itself."""
        return httpx.Response(200, json={"access_token": f"{SECRET}-token"})

    def asks(self, op: Op) -> tuple[str | None, ...]:
        """The paths that a batch of this op asks, in order; None is any path."""
        return (None,)

    @abstractmethod
    def people(self) -> People | None:
        """What the destination has now; None where nobody can look."""

    @property
    def spec(self) -> ObjectSpec:
        """The object as the connector declares it."""
        config = self.config("http://127.0.0.1:1")
        with offline_client(self.kind, config) as client:
            return self.kind(config, client).objects[self.object]

    def kept(self, address: str) -> str:
        """An address as members have it: some platforms take digests only."""
        return hashlib.new(self._hash, address.encode()).hexdigest() if self._hash else address

    @cached_property
    def _hash(self) -> str | None:
        return next((f.hash for f in self.spec.fields if f.name == self.identifier), None)

    @property
    def mode(self) -> Mode:
        """Everything the object can do."""
        return Mode.MIRROR if Op.REMOVE in self.spec.ops else Mode.UPSERT

    @property
    def ops(self) -> list[Op]:
        """What can be made to happen: an update takes a field."""
        found = [op for op in (Op.ADD, Op.UPDATE, Op.REMOVE) if op in self.spec.ops and op in self.mode.ops]
        return found if self.field else [op for op in found if op is not Op.UPDATE]

    def config(self, url: str) -> Config:
        """The configuration, read by the connector's own model."""
        return self.kind.config_model.model_validate(dict(self.options(url)))

    def connect(self, road: Road, before: Callable[[], None]) -> Connector[Any]:
        """The connector with its production client; where its address is fixed, requests are diverted."""
        config = self.config(road.url)
        road.away = httpx.URL(self.kind.base_url(config)).host != "127.0.0.1"
        road.token = self.token
        client = build_client(self.kind, config, timeout=road.real.timeout, before_request=before, transport=road)
        return self.kind(config, client)


class Road(httpx.BaseTransport):
    """The production transport, to a server at `url`; where `away`, whatever host a request is meant for."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url
        self.away = False
        self.token: Callable[[httpx.Request], httpx.Response] | None = None
        self.real = Transport(timeout=timeout)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.token is not None and asks_for_token(request):
            return self.token(request)
        if self.away:
            there = httpx.URL(self.url)
            url = request.url.copy_with(scheme=there.scheme, host=there.host, port=there.port)
            content = request.read()
            extensions = request.extensions
            request = httpx.Request(
                request.method, url, headers=request.headers, content=content, extensions=extensions
            )
        return self.real.handle_request(request)

    def close(self) -> None:
        self.real.close()


class WebhookRecord(Stand):
    """Records by address; it answers with an entry a record."""

    connector, object, field = "webhook", "record", "name"

    def options(self, url: str) -> Mapping[str, Any]:
        keys = {"X-Key": f"{SECRET}-header"}
        return {"url": f"{url}/records", "secret": f"{SECRET}-hmac", "secret_headers": keys}

    def reset(self, known: Iterable[str]) -> None:
        self._people: People = {}

    def people(self) -> People:
        return dict(self._people)

    def app(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        for record in body["records"]:
            if body["op"] == "remove":
                self._people.pop(record["email"], None)
            else:
                self._people[record["email"]] = record["name"]
        return httpx.Response(200, json={"errors": [None] * len(body["records"])})


class HubSpotListMember(Stand):
    """A list; its contacts are there already."""

    connector, object, audience, field = "hubspot", "list_member", "1", "firstname"

    def options(self, url: str) -> Mapping[str, Any]:
        return {"token": f"{SECRET}-token", "base_url": url}

    def reset(self, known: Iterable[str]) -> None:
        self._fake = FakeHubSpot(f"{SECRET}-token", limit=1_000_000)
        self._fake.add_list("Lapsed buyers")
        for email in known:
            self._fake.add_contact(email)

    def asks(self, op: Op) -> tuple[str | None, ...]:
        """A removal goes by the id of its addition; who is in the list already is looked up."""
        move, look = ("/crm/v3/lists/1/memberships/add-and-remove", "/crm/v3/lists/records/memberships/batch/read")
        find, write = (f"/crm/v3/objects/contacts/batch/{word}" for word in ("read", "update"))
        return {Op.ADD: (find, write, move), Op.UPDATE: (find, write, move, look), Op.REMOVE: (move,)}[op]

    def people(self) -> People:
        contacts = self._fake.contacts
        return {contacts[id]["email"]: contacts[id].get("firstname", "") for id in self._fake.lists["1"]}

    def app(self, request: httpx.Request) -> httpx.Response:
        return self._fake(request)


class HubSpotContact(HubSpotListMember):
    """Contacts, made where they are missing and never removed."""

    object, audience = "contact", None

    def reset(self, known: Iterable[str]) -> None:
        super().reset(())

    def asks(self, op: Op) -> tuple[str | None, ...]:
        return ("/crm/v3/objects/contacts/batch/upsert",)

    def people(self) -> People:
        return {c["email"]: c.get("firstname", "") for c in self._fake.contacts.values()}


class SalesforceCampaignMember(Stand):
    """A campaign; its contacts are there already."""

    connector, object, field = "salesforce", "campaign_member", "Status"
    identifier = "Email"

    def options(self, url: str) -> Mapping[str, Any]:
        return {"base_url": url, "access_token": f"{SECRET}-token"}

    def reset(self, known: Iterable[str]) -> None:
        self._fake = FakeSalesforce(f"{SECRET}-token")
        self._fake.required = {}
        self.audience = self._fake.add("Campaign", Name="Lapsed buyers")
        for email in known:
            self._fake.add("Contact", Email=email)

    def people(self) -> People:
        members, contacts = self._fake.members(str(self.audience)), self._fake.records["Contact"]
        return {contacts[id]["Email"]: row.get("Status", "") for id, row in members.items()}

    def app(self, request: httpx.Request) -> httpx.Response:
        return self._fake(request)


class SalesforceContact(SalesforceCampaignMember):
    """Contacts by an external id, never removed."""

    object, field, identifier = "contact", "LastName", "External_Id__c"

    def reset(self, known: Iterable[str]) -> None:
        super().reset(())
        self.audience = None

    def people(self) -> People:
        records = self._fake.records[self.object.title()].values()
        return {one["External_Id__c"]: one.get("LastName", "") for one in records}


class SalesforceLead(SalesforceContact):
    """Leads by an external id, never removed."""

    object = "lead"


class AttioListEntry(Stand):
    """A list; its people are there already."""

    connector, object, field, identifier = "attio", "list_entry", "stage", "email_addresses"

    def options(self, url: str) -> Mapping[str, Any]:
        return {"base_url": url, "token": f"{SECRET}-token"}

    def reset(self, known: Iterable[str]) -> None:
        self._fake = FakeAttio(f"{SECRET}-token")
        self.audience = self._fake.add_list("Lapsed buyers")
        for address in known:
            self._fake.add("people", address)

    def people(self) -> None:
        """Nobody looks: who is said to have no entry stays where they are, so that a lie about it shows there."""

    def app(self, request: httpx.Request) -> httpx.Response:
        return self._fake(request)


class CustomerIoSegment(Stand):
    """A manual segment, by id."""

    connector, object, audience, identifier = "customerio", "segment_member", "7", "id"

    def options(self, url: str) -> Mapping[str, Any]:
        return {"site_id": "site-1", "api_key": f"{SECRET}-key"}

    def reset(self, known: Iterable[str]) -> None:
        self._people: People = {}

    def people(self) -> People:
        return dict(self._people)

    def app(self, request: httpx.Request) -> httpx.Response:
        for id in json.loads(request.content)["ids"]:
            if "remove" in request.url.path:
                self._people.pop(id, None)
            else:
                self._people[id] = ""
        return httpx.Response(200, json={})


class MailchimpSegment(Stand):
    """A static segment; its members are contacts already."""

    connector, object, audience, identifier = "mailchimp", "segment_member", "100", "email_address"

    def options(self, url: str) -> Mapping[str, Any]:
        return {"api_key": f"{SECRET}-key-us6", "list_id": "a1", "base_url": f"{url}/3.0"}

    def reset(self, known: Iterable[str]) -> None:
        self._fake = FakeMailchimp(f"{SECRET}-key-us6", "a1")
        self._fake.add_segment("Lapsed buyers")
        for email in known:
            self._fake.add_contact(email)

    def asks(self, op: Op) -> tuple[str | None, ...]:
        """Whoever its answer leaves open is looked up, each at an address of their own."""
        return ("/3.0/lists/a1/segments/100",)

    def people(self) -> People:
        return {self._fake.contacts[hash]["email_address"]: "" for hash in self._fake.segments["100"]}

    def app(self, request: httpx.Request) -> httpx.Response:
        return self._fake(request)


class FromContract(Stand):
    """An object of a connector that has no stand of its own: its contract says how to set it up and answers."""

    def __init__(self, contract: ConnectorContract, object: str) -> None:
        self.connector, self.object, self._contract = contract.connector.name, object, contract
        super().__init__()
        self.audience = contract.audience if self.spec.audience else None
        self.identifier = next((f.name for f in self.spec.identifiers), "email")
        own = [f.name for f in self.spec.fields if not f.identifier and f.type == "string"]
        self.field = own[0] if own else "name" if self.spec.open_fields else None

    def options(self, url: str) -> Mapping[str, Any]:
        return self._contract.options(Path(tempfile.gettempdir()))

    def reset(self, known: Iterable[str]) -> None:
        self._contract.begin()

    def people(self) -> None:
        return None

    def token(self, request: httpx.Request) -> httpx.Response:
        return self._contract.token_answer(request)

    def app(self, request: httpx.Request) -> httpx.Response:
        return self._contract.answer(request)


OWN: tuple[type[Stand], ...] = (
    WebhookRecord,
    HubSpotListMember,
    HubSpotContact,
    CustomerIoSegment,
    MailchimpSegment,
    AttioListEntry,
    SalesforceCampaignMember,
    SalesforceContact,
    SalesforceLead,
)


def contracts() -> dict[str, type[ConnectorContract]]:
    """The contract classes of the connectors' tests, by connector."""
    found: dict[str, type[ConnectorContract]] = {}
    for path in sorted((Path(__file__).parent.parent / "connectors").glob("test_*.py")):
        if "ConnectorContract" not in path.read_text() or path.stem == "test_registry":
            continue
        module = importlib.import_module(f"tests.connectors.{path.stem}")
        for one in vars(module).values():
            if isinstance(one, type) and issubclass(one, ConnectorContract) and hasattr(one, "connector"):
                found.setdefault(one.connector.name, one)
    return found


def stands() -> Iterator[Stand]:
    """A stand for every object of every connector of this distribution that speaks HTTP and is sent changes."""
    return (stand for stand in _all() if stand.spec.delivery is Delivery.DELTA)


def wholes() -> Iterator[Stand]:
    """The same for those that are sent whole audiences."""
    return (stand for stand in _all() if stand.spec.delivery is Delivery.SNAPSHOT)


def _all() -> Iterator[Stand]:
    own = {(kind.connector, kind.object): kind for kind in OWN}
    known = contracts()
    for name, entry in available().items():
        if entry.distribution != "headgate":
            continue
        contract = known[name]()
        contract.begin()
        if not contract.uses_http:
            continue
        config = contract.make_config(Path(tempfile.gettempdir()))
        with offline_client(load(name), config) as client:
            objects = sorted(load(name)(config, client).objects)
        for object in objects:
            yield own[name, object]() if (name, object) in own else FromContract(known[name](), object)
