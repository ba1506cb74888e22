"""What is configured of an org, and the objects that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field as Option
from pydantic import SecretStr, model_validator

from connectors.salesforce.session import MOST
from sync.sdk.connector import Config
from sync.sdk.nouns import Field, Limits, ObjectSpec, Op, Order

__all__ = ["SalesforceConfig", "objects_of"]

_JOB = 10_000  # records of a job: Salesforce works through as many at a time (Bulk API 2.0, "Limits")
_JOB_BYTES = 7_000_000  # of a job: its results repeat its rows, and an answer is read up to 16 MiB
_NAME = r"^[A-Za-z]\w{0,79}$"


class SalesforceConfig(Config):
    """One org. Give `client_id` and `client_secret`, or an `access_token`."""

    base_url: str = Option(
        pattern=r"^https?://[^/]+$", description="The org's My Domain: https://acme.my.salesforce.com."
    )
    client_id: str = Option("", description="The consumer key of an external client app with the flow turned on.")
    client_secret: SecretStr | None = Option(None, description="Its consumer secret.")
    access_token: SecretStr | None = Option(None, description="A session's token, which ends with the session.")
    api_version: str = Option("64.0", pattern=r"^\d{2,3}\.0$", description="Of the REST API.")
    contact_key: str = Option("External_Id__c", pattern=_NAME, description="External id field of contacts.")
    lead_key: str = Option("External_Id__c", pattern=_NAME, description="External id field of leads.")
    member_key: str = Option(
        "Email",
        pattern=_NAME,
        description="How people are found for a campaign: Email, Id or an external id field.",
    )
    people: tuple[Literal["Contact", "Lead"], ...] = Option(
        ("Contact", "Lead"), min_length=1, description="Where they are looked for: the first that has them wins."
    )
    bulk_above: int = Option(2000, ge=0, description="A batch of more contacts or leads becomes a bulk job.")

    @model_validator(mode="after")
    def _has_one_way_in(self) -> SalesforceConfig:
        ways = (bool(self.client_id and self.client_secret), self.access_token is not None)
        if sum(ways) != 1 or bool(self.client_id) != bool(self.client_secret):
            raise ValueError("give client_id and client_secret, or access_token")
        return self


def objects_of(config: SalesforceConfig | None = None) -> Mapping[str, ObjectSpec]:
    """The objects of a configuration, or those of the default one."""
    options = config.model_dump() if config else {n: f.default for n, f in SalesforceConfig.model_fields.items()}
    job = options["bulk_above"] < _JOB
    limits = Limits(_JOB if job else MOST, _JOB_BYTES if job else None, concurrency=2, mixed_ops=True)

    def upserted(name: str, title: str, *needed: str) -> ObjectSpec:
        key = Field(options[f"{name}_key"], required=True, identifier=True, description="An external id field.")
        fields = (key, *(Field(field, description="A new one has to have it.") for field in needed))
        ops = frozenset({Op.ADD, Op.UPDATE})
        return ObjectSpec(name, title, ops, fields, limits, audience=False, open_fields=True)

    key = options["member_key"]
    who = Field(key, required=True, identifier=True, normalise="email" if key == "Email" else None)
    # Rows of a campaign lock it, so that two requests at a time would be in each other's way. Removals go first:
    # where a person's address changed, the old and the new one are the same contact.
    member = ObjectSpec(
        name="campaign_member",
        title="Campaign member",
        ops=frozenset(Op),
        fields=(who, Field("Status", description="One of the campaign's; without it the campaign's default.")),
        limits=Limits(batch_size=MOST),
        order=Order.REMOVALS_FIRST,
        open_fields=True,
    )
    specs = (member, upserted("contact", "Contact", "LastName"), upserted("lead", "Lead", "LastName", "Company"))
    return {spec.name: spec for spec in specs}
