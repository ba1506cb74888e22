"""Members of a campaign: the people are found first, then their rows, and those are made, changed or deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from connectors.salesforce.answers import Saved, about, receipt
from connectors.salesforce.session import Session, record
from connectors.salesforce.soql import KINDS, in_parts, is_id, kind_of, literal, same
from sync.errors import ProtocolError, RequestError
from sync.sdk.nouns import Batch, Change, Member, Op, Page, Receipt, Status
from sync.sdk.values import text

__all__ = ["Campaigns"]


class Campaigns:
    """Campaigns of people who are found by the field `key` among those `kinds`: contacts, leads or both."""

    def __init__(self, session: Session, key: str, kinds: Sequence[str]) -> None:
        self._session = session
        self._key = key
        self._kinds = kinds

    def push(self, batch: Batch) -> list[Receipt]:
        """One receipt a change. Raises `RequestError` where the audience is no campaign's id."""
        campaign = _campaign(batch.audience)
        people, settled = self._find(batch.changes)
        rows = self._rows(campaign, sorted(set(people.values())))
        first: dict[str, Change] = {}
        for change in batch.changes:
            if change.key in people and first.setdefault(people[change.key], change).fields != change.fields:
                why = "another record of this batch is the same person, with other values"
                settled[change.key] = Receipt(change.key, Status.REJECTED, why)
        kept = {person: change for person, change in first.items() if change.op is not Op.REMOVE}
        gone = {person: rows[person] for person in first if person not in kept and person in rows}
        done = self._delete(gone) | self._write(campaign, kept, rows)
        nothing_to_do = Saved(success=True)
        return [
            settled.get(c.key) or receipt(c.key, done.get(people[c.key], nothing_to_do), people[c.key])
            for c in batch.changes
        ]

    def members(self, audience: str | None, after: str | None) -> Page:
        """A page of a campaign's members; `after` is how many came before, and the path of the page."""
        count, _, path = (after or "0 ").partition(" ")
        columns = ", ".join(f"{kind}Id, {kind}.{self._key}" for kind in self._kinds)
        where = f"WHERE CampaignId = {literal(_campaign(audience))} ORDER BY Id"
        query = f"SELECT Id, {columns} FROM CampaignMember {where}"
        page = self._session.page(path, int(count)) if path else self._session.first(query)
        members = [self._member(row) for row in page.records]
        following = f"{int(count) + len(page.records)} {page.next}"
        return Page([m for m in members if m is not None], None if page.done else following)

    def _member(self, row: Mapping[str, object]) -> Member | None:
        """The row's person; None where it is of a kind that is not looked for."""
        if not is_id(row.get("Id")):
            raise ProtocolError("Salesforce answered a query with rows that have no ids")
        for kind in self._kinds:
            if kind_of(id := str(row.get(f"{kind}Id"))) == kind:
                inner = row.get(kind)
                value = inner.get(self._key) if isinstance(inner, dict) else None
                return Member({self._key: text(value)} if value else {}, id)
        return None

    # -- people

    def _find(self, changes: Sequence[Change]) -> tuple[dict[str, str], dict[str, Receipt]]:
        """Contact or lead ids by change key, and receipts for those that have none.

        A removal goes by the id that its addition was answered with: the address may have changed since.
        """
        ids = {c.key: c.remote_id for c in changes if c.op is Op.REMOVE and c.remote_id and kind_of(c.remote_id)}
        wanted = {c.key: text(c.identifiers[self._key]) for c in changes if c.key not in ids}
        found = self._lookup({value for value in wanted.values() if value})
        ids |= {key: min(found[v.lower()]) for key, v in wanted.items() if len(found.get(v.lower(), ())) == 1}
        lost = [c for c in changes if c.key not in ids]
        return ids, {c.key: _absent(c, wanted[c.key].lower() in found) for c in lost}

    def _lookup(self, values: set[str]) -> dict[str, set[str]]:
        """Ids by value, in lower case; of two kinds that know a value the first counts."""
        if self._key == "Id":
            return {value.lower(): {value} for value in values if kind_of(value) in self._kinds}
        found: dict[str, set[str]] = {}
        for kind in self._kinds:
            found |= self._people(kind, sorted(value for value in values if value.lower() not in found))
        return found

    def _people(self, kind: str, values: Sequence[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        asked = {value.lower() for value in values}
        unconverted = " AND IsConverted = false" if kind == "Lead" else ""
        for part in in_parts(values):
            query = f"SELECT Id, {self._key} FROM {kind} WHERE {self._key} IN ({part}){unconverted}"
            for row in self._session.query(query):
                id, value = str(row.get("Id")), text(row.get(self._key)).lower()
                if value not in asked or kind_of(id) != kind:
                    raise ProtocolError("Salesforce answered a query with somebody who was not asked for")
                found.setdefault(value, set()).add(id)
        return found

    # -- rows

    def _rows(self, campaign: str, people: Sequence[str]) -> dict[str, str]:
        """The ids of the campaign's rows, by contact or lead id."""
        rows: dict[str, str] = {}
        for kind in KINDS.values():
            column, ours = f"{kind}Id", {person[:15]: person for person in people if kind_of(person) == kind}
            for part in in_parts(ours.values()):
                where = f"CampaignId = {literal(campaign)} AND {column} IN ({part})"
                for row in self._session.query(
                    f"SELECT Id, CampaignId, {column} FROM CampaignMember WHERE {where}"
                ):
                    person = ours.get(str(row.get(column))[:15])
                    if person is None or not same(campaign, row.get("CampaignId")) or not is_id(row.get("Id")):
                        raise ProtocolError("Salesforce answered a query with rows that were not asked for")
                    rows[person] = row["Id"]
        return rows

    def _write(self, campaign: str, kept: Mapping[str, Change], rows: Mapping[str, str]) -> dict[str, Saved]:
        """Make the rows that are not there, and change the fields of those that are."""
        new = [person for person in kept if person not in rows]
        old = [person for person in kept if person in rows and kept[person].fields]
        of = {person: {"CampaignId": campaign, f"{kind_of(person)}Id": person} for person in new}
        made = [record("CampaignMember", {**kept[person].fields, **of[person]}) for person in new]
        changed = [record("CampaignMember", {**kept[person].fields, "Id": rows[person]}) for person in old]
        done = dict(zip(new, self._session.save("POST", made), strict=True)) if new else {}
        updated = self._session.save("PATCH", changed) if old else []
        return done | {person: about(one, rows[person]) for person, one in zip(old, updated, strict=True)}

    def _delete(self, rows: Mapping[str, str]) -> dict[str, Saved]:
        """Delete rows, by person; one that is deleted already is as it should be."""
        saved = self._session.delete(list(rows.values())) if rows else []
        return {
            person: Saved(success=True)
            if {error.code for error in one.errors} == {"ENTITY_IS_DELETED"} and not one.success
            else about(one, row)
            for (person, row), one in zip(rows.items(), saved, strict=True)
        }


def _campaign(audience: str | None) -> str:
    if not is_id(audience):
        fix = "give the 15 or 18 characters of the campaign's id as `audience`"
        raise RequestError("the audience is not a campaign's id", fix=fix)
    return str(audience)


def _absent(change: Change, several: bool) -> Receipt:
    """The receipt of a change without exactly one person; nothing was sent for it."""
    if several:
        return Receipt(change.key, Status.DEFERRED, "Salesforce has several people with this identifier")
    if change.op is Op.REMOVE:
        return Receipt(change.key, Status.APPLIED)
    return Receipt(change.key, Status.REJECTED, "Salesforce has no contact or lead with this identifier")
