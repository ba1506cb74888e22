"""Google Sheets: a tab that always holds everybody in an audience.

Facts and where they come from. *Reference* is that of the Sheets API v4 (developers.google.com/workspace/sheets),
whose discovery document is the description of the `values` methods; *limits* is its page "Usage limits".

- A request is applied whole or not at all: `spreadsheets.batchUpdate` promises it of all its parts (reference),
  the page on limits of every request. So a tab is written by one `batchUpdate`, and nobody ever sees half of it.
- `updateCells` with a range clears what its rows do not cover (reference, UpdateCellsRequest): rows of people who
  left are gone with the same request. The range is the whole tab. Only values are written, formats stay.
- A cell is written as `stringValue`, `numberValue` or `boolValue` (reference, ExtendedValue). Only `formulaValue`
  is ever a formula, so a text such as `=HYPERLINK(...)` stays a text.
- 60 reads and 60 writes a minute for a user, payloads of about 2 MB recommended, 180 seconds a request (limits);
  no `Retry-After` is documented. A cell takes 50,000 characters, a spreadsheet 10 million cells (Google Drive
  help, "Files you can store in Google Drive").
- A service account is a user: share the spreadsheet with its address, as an editor.

The tab belongs to the sync: whatever else is in it is overwritten. One that has something in its first five rows,
and none of our columns, is refused. The first row has the names of the columns: identifiers, then fields. Lists
and objects are JSON text, null is an empty cell, and whole numbers beyond 2^53, which a cell would round, are
text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import httpx
from pydantic import Field as Option

from sync.errors import AuthError, ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import service_account_email
from sync.sdk.connector import Connector
from sync.sdk.google import GoogleConfig
from sync.sdk.nouns import Batch, Member, Outcome, Page, Status, Value
from sync.sdk.objects import Delivery, Limits, ObjectSpec, Op, Rate
from sync.sdk.settled import every
from sync.sdk.values import dumps, path_part, text

__all__ = ["GoogleSheets", "GoogleSheetsConfig"]

_PAGE = 10_000  # rows read at a time
_LONGEST = 50_000  # characters of a cell
_EXACT = 2**53  # the largest whole number that a cell keeps
_PEEK = 5  # rows looked at before a tab is overwritten


class GoogleSheetsConfig(GoogleConfig):
    """One spreadsheet, written by a service account, or on behalf of somebody who agreed to it."""

    spreadsheet_id: str = Option(pattern="^[A-Za-z0-9_-]+$", description="The part of its address after `/d/`.")
    base_url: str = Option("https://sheets.googleapis.com", description="Where the API is.")
    max_cells: int = Option(200_000, ge=1, le=5_000_000, description="A larger audience is refused.")


class _Grid(Shape):
    rows: int = Option(alias="rowCount", ge=0)
    columns: int = Option(alias="columnCount", ge=0)


class _Properties(Shape):
    id: int = Option(alias="sheetId")
    title: str
    grid: _Grid = Option(_Grid(rowCount=0, columnCount=0), alias="gridProperties")  # a chart has none


class _Sheet(Shape):
    properties: _Properties


class _Known(Shape):
    id: str = Option(alias="spreadsheetId", min_length=1)


class _Values(Shape):
    range: str
    values: list[list[Any]] = Option([])


class _Several(_Known):
    ranges: list[_Values] = Option(alias="valueRanges", min_length=2, max_length=2)


class _Updated(_Known):
    replies: list[dict[str, Any]]


class GoogleSheets(Connector[GoogleSheetsConfig]):
    """Writes a whole tab at a time."""

    name = "google_sheets"
    title = "Google Sheets"
    docs = __doc__ or ""
    config_model = GoogleSheetsConfig
    objects: Mapping[str, ObjectSpec] = {
        "row": ObjectSpec(
            name="row",
            title="Row of a tab",
            ops=frozenset(Op),
            limits=Limits(rates=(Rate(60, 60.0),), mixed_ops=True),
            delivery=Delivery.SNAPSHOT,
            open_fields=True,
        )
    }

    @classmethod
    def auth(cls, config: GoogleSheetsConfig) -> httpx.Auth:
        """Tokens for the service account, or for whoever gave the refresh token."""
        return config.tokens("https://www.googleapis.com/auth/spreadsheets")

    def check(self) -> None:
        """Read the spreadsheet's id."""
        read(_Known, self._spreadsheet("spreadsheetId"))

    def push(self, batch: Batch) -> Outcome:
        """Replace the tab by the batch. Raises `RequestError` where it is too large, or the tab is not ours."""
        columns, rows = self._table(batch)
        tab = self._tab(batch.audience)
        self._refuse_others(tab, columns)
        self._update([*_grown(tab, len(rows), len(columns)), _write(tab, rows)])
        return every(batch.changes, Status.APPLIED)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - there is one object
        """Add a tab; its title."""
        (reply,) = self._update([{"addSheet": {"properties": {"title": title, "gridProperties": _FROZEN}}}])
        added = httpx.Response(200, content=dumps(reply.get("addSheet")))
        return read(_Sheet, added).properties.title

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """Some rows of a tab, by the names in its first row."""
        tab = self._tab(audience)
        first, rows = int(after or 2), tab.grid.rows
        last = min(first + _PAGE - 1, rows)
        if first > rows:
            return Page([])
        params = [("ranges", _range(tab.title, 1, 1)), ("ranges", _range(tab.title, first, last))]
        answer = self.http.get(f"{self._path}/values:batchGet", params=[*params, *_UNFORMATTED])
        header, body = read(_Several, answer).ranges
        names = [text(name) for name in next(iter(header.values), [])]
        if body.values and not any(names):
            raise ProtocolError("the tab has rows, and its first row has no names")
        members = [Member(dict(_named(names, row))) for row in body.values if any(cell != "" for cell in row)]
        return Page(members, str(last + 1) if last < rows else None)

    # -- what is written

    def _table(self, batch: Batch) -> tuple[list[str], list[Value]]:
        """The names of the columns, and the rows as `updateCells` takes them, the names first."""
        self._refuse_crowd(len(batch.changes), len(batch.types))
        present = [{**c.identifiers, **c.fields, **c.identifiers} for c in batch.changes if c.op is not Op.REMOVE]
        columns = list(dict.fromkeys([*batch.types, *(name for row in present for name in row)]))
        self._refuse_crowd(len(present), len(columns))
        rows = [{"values": [_cell(name, row.get(name)) for name in columns]} for row in present]
        return columns, [{"values": [_cell(name, name) for name in columns]}, *rows]

    def _refuse_crowd(self, people: int, columns: int) -> None:
        if (cells := (people + 1) * columns) > self.config.max_cells:
            fix = "send fewer people or fields, or raise `max_cells`"
            raise RequestError(f"this audience fills {cells:,} cells, over {self.config.max_cells:,}", fix=fix)

    def _refuse_others(self, tab: _Properties, columns: Iterable[str]) -> None:
        """Raise `RequestError` for a tab that somebody uses for something else."""
        if not tab.grid.rows:
            return
        look = _range(tab.title, 1, min(_PEEK, tab.grid.rows))
        found = read(_Values, self.http.get(f"{self._path}/values/{path_part(look)}")).values
        names = {text(name) for name in next(iter(found), [])}
        if any(found) and not names & set(columns):
            fix = "name another tab as `audience`, or empty this one"
            raise RequestError(f"the tab '{tab.title}' has something else in it", fix=fix)

    # -- requests

    @property
    def _path(self) -> str:
        return f"/v4/spreadsheets/{self.config.spreadsheet_id}"

    def _spreadsheet(self, fields: str) -> httpx.Response:
        """Parts of the spreadsheet. Raises `AuthError` or `RequestError`, saying with whom it has to be shared."""
        response = self.send("GET", self._path, params={"fields": fields}, expects={403, 404})
        if response.status_code in (403, 404):
            key = self.config.service_account
            who = service_account_email(key) if key is not None else "whoever gave the refresh token"
            kind = AuthError if response.status_code == 403 else RequestError
            message = f"Google Sheets answered {response.status_code} for the spreadsheet"
            raise kind(message, response.text, fix=f"check its id, and share it with {who} as an editor")
        return response

    def _tab(self, audience: str | None) -> _Properties:
        """The tab with this title. Raises `RequestError` where there is none."""
        fields = "sheets.properties(sheetId,title,gridProperties(rowCount,columnCount))"
        for sheet in read(list[_Sheet], self._spreadsheet(fields), at="sheets"):
            if sheet.properties.title == audience:
                return sheet.properties
        fix = "give the title of a tab as `audience`, or make one"
        raise RequestError("the spreadsheet has no tab with the audience's name", fix=fix)

    def _update(self, requests: Sequence[Value]) -> list[dict[str, Any]]:
        """One `batchUpdate`; the reply to each part. Raises `ProtocolError` where one is missing."""
        done = read(_Updated, self.send("POST", f"{self._path}:batchUpdate", {"requests": list(requests)}))
        if done.id != self.config.spreadsheet_id or len(done.replies) != len(requests):
            raise ProtocolError("the answer of Google Sheets is not one to this update")
        return done.replies


_FROZEN = {"rowCount": 1000, "columnCount": 26, "frozenRowCount": 1}
_UNFORMATTED = [("valueRenderOption", "UNFORMATTED_VALUE")]


def _range(title: str, first: int, last: int) -> str:
    """Rows of a tab in A1 notation; an apostrophe in its title is doubled."""
    return "'{}'!{}:{}".format(title.replace("'", "''"), first, last)


def _grown(tab: _Properties, rows: int, columns: int) -> Iterator[Value]:
    """The part that makes a tab large enough; none where it is."""
    if rows > tab.grid.rows or columns > tab.grid.columns:
        size = {"rowCount": max(rows, tab.grid.rows), "columnCount": max(columns, tab.grid.columns)}
        mask = "gridProperties.rowCount,gridProperties.columnCount"
        properties = {"sheetId": tab.id, "gridProperties": size}
        yield {"updateSheetProperties": {"properties": properties, "fields": mask}}


def _write(tab: _Properties, rows: list[Value]) -> Value:
    """The part that writes the rows and clears the rest of the tab."""
    return {"updateCells": {"range": {"sheetId": tab.id}, "rows": rows, "fields": "userEnteredValue"}}


def _cell(name: str, value: Value) -> Value:
    """A cell. Raises `RequestError`, naming the column, for a text that is too long."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"userEnteredValue": {"boolValue": value}}
    if isinstance(value, int | float) and abs(value) <= _EXACT:
        return {"userEnteredValue": {"numberValue": value}}
    if len(written := text(value)) > _LONGEST:
        fix = f"cut it in the mapping: `transform: [{{truncate: {_LONGEST}}}]`"
        raise RequestError(f"column '{name}' has a text of more than {_LONGEST:,} characters", fix=fix)
    return {"userEnteredValue": {"stringValue": written}}


def _named(names: Sequence[str], row: Sequence[Value]) -> Iterator[tuple[str, Value]]:
    return ((name, value) for name, value in zip(names, row, strict=False) if name and value != "")
