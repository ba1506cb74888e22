"""Salesforce: members of a campaign, contacts and leads. `connector` has the facts and where they come from."""

from __future__ import annotations

from connectors.salesforce.connector import Salesforce
from connectors.salesforce.options import SalesforceConfig

__all__ = ["Salesforce", "SalesforceConfig"]
