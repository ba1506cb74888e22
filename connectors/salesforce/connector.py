"""Salesforce: members of a campaign, contacts and leads.

Facts and where they come from. *REST*, *Bulk* and *Objects* are Salesforce's REST API, Bulk API 2.0 and Object
Reference guides (developer.salesforce.com); what is marked so is from memory and not confirmed.

- sObject Collections write up to 200 records a request, and answer a result a record in the order in which they
  were sent (REST, "Insert", "Update", "Upsert" and "Delete Records Using sObject Collections"). An upsert goes by
  an external id field; record ids are refused there.
- A campaign member is a row with a campaign and a contact or a lead. A second row for the same person is refused,
  and there is no upsert since version 16 (Objects, "CampaignMember"). So people and rows are looked up first.
  Removing deletes the row, with its status and the date of the first response; the contact or lead stays.
- A query is a GET whose address holds some 16,000 bytes (from memory), so that long lists of people are looked up
  in parts; an answer names the page after it (REST, "Query More Results"). In a text, `\\` and `'` are escaped
  (SOQL and SOSL Reference, "Reserved Characters").
- Bulk: a job is created, given one CSV file of up to 100 MB and closed, and works by itself from then on;
  successfulResults and failedResults repeat its rows with `sf__Id` or `sf__Error` (Bulk, "Get Job Successful
  Record Results" and following), unprocessedrecords those it did not come to. An empty cell changes nothing and
  `#N/A` clears (from memory).
- What an org may call in 24 hours is shared by all its integrations. Beyond it the answer is 403 with the code
  REQUEST_LIMIT_EXCEEDED, without a word on when to come back.
- The OAuth 2.0 client credentials flow asks the org's own address, My Domain, for tokens (Salesforce Help,
  "OAuth 2.0 Client Credentials Flow").
- Several choices of a picklist are separated by semicolons; null clears a field (from memory).
"""

from __future__ import annotations

from collections.abc import Iterable

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, TypeAdapter, ValidationError

from connectors.salesforce import bulk
from connectors.salesforce.answers import Described, field_of, reason, receipt
from connectors.salesforce.campaign import Campaigns
from connectors.salesforce.options import SalesforceConfig, objects_of
from connectors.salesforce.session import MOST, Session, record
from sync.errors import DestinationError, RateLimited, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Bearer, ClientCredentials
from sync.sdk.connector import Connector
from sync.sdk.nouns import Batch, Change, Field, Job, Outcome, Page, Receipt

__all__ = ["Salesforce"]

_KINDS = {"campaign_member": "CampaignMember", "contact": "Contact", "lead": "Lead"}


class _Refusal(Shape):
    code: str = Option(alias="errorCode")


_REFUSALS = TypeAdapter(list[_Refusal])


class Salesforce(Connector[SalesforceConfig]):
    """Keeps campaigns, whose contacts and leads must exist already, and contacts and leads by an external id."""

    name = "salesforce"
    title = "Salesforce"
    docs = __doc__ or ""
    config_model = SalesforceConfig
    objects = objects_of()

    def __init__(self, config: SalesforceConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = objects_of(config)
        self._session = Session(http, config.api_version)
        self._campaigns = Campaigns(self._session, config.member_key, config.people)

    @classmethod
    def account(cls, config: SalesforceConfig) -> str:
        """The org, which owns the quota, whoever asks."""
        return config.base_url

    @classmethod
    def auth(cls, config: SalesforceConfig) -> httpx.Auth:
        """A token of the org's own token server, or the one that was given."""
        if config.access_token is not None:
            return Bearer(config.access_token)
        url, secret = f"{config.base_url}/services/oauth2/token", config.client_secret or SecretStr("")
        return ClientCredentials(url, config.client_id, secret, in_body=True)

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:
        """A 403 can be the end of the org's calls, or of those that it may have open at a time."""
        try:
            codes = {one.code for one in _REFUSALS.validate_json(response.content)}
        except ValidationError:
            return None
        return RateLimited if response.status_code == 403 and "REQUEST_LIMIT_EXCEEDED" in codes else None

    def check(self) -> None:
        """Read one of the people."""
        self._session.query(f"SELECT Id FROM {self.config.people[0]} LIMIT 1")

    def push(self, batch: Batch) -> Outcome:
        """Send the batch: a campaign's in a few requests, contacts and leads as a job where there are many."""
        if batch.object == "campaign_member":
            return self._campaigns.push(batch)
        kind, key, changes = _KINDS[batch.object], self._key(batch), batch.changes
        if len(changes) > self.config.bulk_above:
            return bulk.begin(self._session, kind, key, changes)
        parts = [changes[start : start + MOST] for start in range(0, len(changes), MOST)]
        return [one for part in parts for one in self._upsert(kind, key, part)]

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """Ask after a bulk job."""
        return bulk.poll(self._session, self._key(batch), job, batch)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only campaigns are audiences
        """Make an active campaign; its id."""
        (made,) = self._session.save("POST", [record("Campaign", {"Name": title, "IsActive": True})])
        if not made.success or not made.id:
            raise RequestError("Salesforce did not make the campaign", reason(made.errors))
        return made.id

    def describe(self, object: str) -> Iterable[Field]:
        """The fields of the object that this user may write."""
        path = f"{self._session.data}/sobjects/{_KINDS[object]}/describe"
        found = map(field_of, read(Described, self.http.get(path)).fields)
        return [field for field in found if field is not None]

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a campaign's members, by the field that people are found by."""
        return self._campaigns.members(audience, after)

    def _key(self, batch: Batch) -> str:
        return self.objects[batch.object].identifiers[0].name

    def _upsert(self, kind: str, key: str, changes: Iterable[Change]) -> list[Receipt]:
        records = {c.key: record(kind, {**c.fields, key: c.identifiers[key]}) for c in changes}
        saved = self._session.save("PATCH", list(records.values()), f"/{kind}/{key}")
        return [receipt(name, one, one.id) for name, one in zip(records, saved, strict=True)]
