"""The objects of the fake Salesforce org: their fields and ids, and the forms of results and refusals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

Json = dict[str, Any]
PREFIXES = {"Contact": "003", "Lead": "00Q", "Campaign": "701", "CampaignMember": "00v", "Job": "750"}
LONGEST = {"Status": 40}  # characters; others take what a text area takes
FIELDS: Mapping[str, Mapping[str, str]] = {
    "Contact": {
        "LastName": "string", "FirstName": "string", "Email": "email", "Phone": "phone", "Birthdate": "date",
        "HasOptedOutOfEmail": "boolean", "Score__c": "double", "Tier__c": "picklist", "Tags__c": "multipicklist",
        "External_Id__c": "string",
    },
    "Lead": {
        "LastName": "string", "Company": "string", "FirstName": "string", "Email": "email", "Status": "picklist",
        "IsConverted": "boolean", "External_Id__c": "string",
    },
    "Campaign": {"Name": "string", "IsActive": "boolean"},
    "CampaignMember": {
        "CampaignId": "reference", "ContactId": "reference", "LeadId": "reference", "Status": "picklist",
        "HasResponded": "boolean", "Note__c": "textarea",
    },
}  # fmt: skip
READ_ONLY = {"Id", "IsConverted", "HasResponded"}
FIXED = {"CampaignId", "ContactId", "LeadId"}  # given when a row is made, and never again
DEFAULTED = {"IsActive", "HasOptedOutOfEmail", "IsConverted", "HasResponded"}


def kept(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value not in (None, "")}


def failed(code: str, message: str, fields: Iterable[str] = ()) -> Json:
    return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": list(fields)}]}


def refusal(status: int, code: str, message: str) -> httpx.Response:
    return httpx.Response(status, json=[{"message": message, "errorCode": code}])


def described(name: str, type: str, *, required: bool) -> Json:
    writable = name not in READ_ONLY
    return {
        "name": name,
        "label": name.removesuffix("__c").replace("_", " "),
        "type": type,
        "createable": writable,
        "updateable": writable and name not in FIXED,
        "nillable": not required and name not in DEFAULTED and name != "CampaignId",
        "defaultedOnCreate": name in DEFAULTED,
        "externalId": name == "External_Id__c",
    }


def is_id(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9A-Za-z]{15}([0-9A-Za-z]{3})?", value) is not None


def with_suffix(id: str) -> str:
    """The 18 characters of an id of 15: three more say which letters are capitals (Salesforce Help)."""
    bits = [sum(c.isupper() << n for n, c in enumerate(id[at : at + 5])) for at in (0, 5, 10)]
    return id + "".join("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bit] for bit in bits)
