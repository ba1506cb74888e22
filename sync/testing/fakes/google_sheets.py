"""A Google spreadsheet in memory: tabs with grids of cells, written by a service account.

It does what developers.google.com/workspace/sheets/api documents of the methods used; a `batchUpdate` is validated
and applied whole or not at all. The texts of messages are as the API words them, as far as remembered.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from sync.testing.fakes.google import TokenServer, error
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeSheets", "Tab", "ready"]

Json = dict[str, Any]
_SCOPE = "https://www.googleapis.com/auth/spreadsheets"
_LONGEST = 50_000
_RANGE = re.compile(r"(?:'((?:[^']|'')+)'|([^'!]+))!(\d+):(\d+)")
_KINDS: Mapping[str, Any] = {
    "stringValue": str,
    "numberValue": (int, float),
    "boolValue": bool,
    "formulaValue": str,
}


@dataclass
class Tab:
    """One sheet. `cells` has values by (row, column), from 0; a formula is a dict with `formula`."""

    id: int
    title: str
    rows: int = 1000
    columns: int = 26
    cells: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def properties(self) -> Json:
        """As the API has them."""
        grid = {"rowCount": self.rows, "columnCount": self.columns}
        return {"sheetId": self.id, "title": self.title, "gridProperties": grid}

    def lines(self, first: int, last: int) -> list[list[Any]]:
        """Rows from 0, the last one included; what is empty at the end of a row, and of the rows, is left out."""
        found: list[list[Any]] = [[] for _ in range(first, last + 1)]
        for (row, column), value in sorted(self.cells.items()):
            if first <= row <= last:
                line = found[row - first]
                line += [""] * (column + 1 - len(line))
                line[column] = value
        while found and not found[-1]:
            found.pop()
        return found


class _Invalid(Exception):
    """Why a request is refused."""


class FakeSheets(Fake):
    """One spreadsheet with `tabs`; `tokens` gives its service account tokens, at `/token` of the same address."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/token", "_token"),
        ("GET", "/v4/spreadsheets/([^/:]+)", "_get"),
        ("POST", "/v4/spreadsheets/([^/:]+):batchUpdate", "_update"),
        ("GET", "/v4/spreadsheets/([^/:]+)/values:batchGet", "_several"),
        ("GET", "/v4/spreadsheets/([^/:]+)/values/(.+)", "_values"),
    )

    def __init__(self, id: str = "sheet-1", **options: Any) -> None:
        super().__init__(**options)
        self.id = id
        self.tabs: list[Tab] = []
        self.tokens = TokenServer(_SCOPE)

    def add_tab(self, title: str, rows: int = 1000, columns: int = 26) -> Tab:
        """A tab that was there before."""
        tab = Tab(max((one.id for one in self.tabs), default=0) + 100, title, rows, columns)
        self.tabs.append(tab)
        return tab

    def tab(self, title: str) -> Tab:
        """The tab with this title. Raises `KeyError`."""
        return next(tab for tab in self.tabs if tab.title == title)

    # -- what every answer has in common

    def authorised(self, request: httpx.Request) -> bool:
        """By a token; whoever asks for one has none yet."""
        return request.url.path == "/token" or self.tokens.accepts(request)

    def unauthorised(self) -> httpx.Response:
        """401."""
        return error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - the API does not say
        """429, without a word of when."""
        return error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Write requests'.")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever was asked
        """404."""
        return error(404, "NOT_FOUND", "Requested entity was not found.")

    def _token(self, asked: Asked) -> httpx.Response:
        return self.tokens(asked.request)

    # -- reading

    def _get(self, asked: Asked) -> httpx.Response:
        if asked.parts[0] != self.id:
            return self.no_route(asked.request)
        if asked.params.get("fields") == "spreadsheetId":
            return httpx.Response(200, json={"spreadsheetId": self.id})
        return httpx.Response(200, json={"sheets": [{"properties": tab.properties} for tab in self.tabs]})

    def _values(self, asked: Asked) -> httpx.Response:
        if asked.parts[0] != self.id:
            return self.no_route(asked.request)
        try:
            return httpx.Response(200, json=self._read(asked.parts[1]))
        except _Invalid as exc:
            return error(400, "INVALID_ARGUMENT", str(exc))

    def _several(self, asked: Asked) -> httpx.Response:
        if asked.parts[0] != self.id:
            return self.no_route(asked.request)
        ranges = asked.request.url.params.get_list("ranges")
        try:
            found = [self._read(one) for one in ranges]
        except _Invalid as exc:
            return error(400, "INVALID_ARGUMENT", str(exc))
        return httpx.Response(200, json={"spreadsheetId": self.id, "valueRanges": found})

    def _read(self, a1: str) -> Json:
        match = _RANGE.fullmatch(a1)
        title = (match[1].replace("''", "'") if match[1] else match[2]) if match else ""
        tab = next((one for one in self.tabs if one.title == title), None)
        if match is None or tab is None:
            raise _Invalid(f"Unable to parse range: {a1}")
        first, last = int(match[3]), int(match[4])
        if not 1 <= first <= last or last > tab.rows:
            raise _Invalid(f"Range ({a1}) exceeds grid limits. Max rows: {tab.rows}, max columns: {tab.columns}")
        lines = tab.lines(first - 1, last - 1)
        return {"range": a1, "majorDimension": "ROWS", **({"values": lines} if lines else {})}

    # -- writing

    def _update(self, asked: Asked) -> httpx.Response:
        """The parts in their order; where one is not valid, the tabs are as they were."""
        if asked.parts[0] != self.id:
            return self.no_route(asked.request)
        before = [(tab, copy.deepcopy(vars(tab))) for tab in self.tabs]
        try:
            parts = asked.body["requests"]
            if not parts:
                raise _Invalid("Must specify at least one request.")
            replies = [self._apply(number, part) for number, part in enumerate(parts)]
        except _Invalid as exc:
            for tab, was in before:
                vars(tab).update(was)
            self.tabs = [tab for tab, _ in before]
            return error(400, "INVALID_ARGUMENT", str(exc))
        return httpx.Response(200, json={"spreadsheetId": self.id, "replies": replies})

    def _apply(self, number: int, part: Json) -> Json:
        kinds = {"addSheet": self._add, "updateSheetProperties": self._resize, "updateCells": self._write}
        if len(part) != 1 or not part.keys() <= kinds.keys():
            raise _Invalid(f"Invalid value at 'requests[{number}]' (oneof): one kind is to be set")
        ((kind, what),) = part.items()
        try:
            return kinds[kind](what)
        except _Invalid as exc:
            raise _Invalid(f"Invalid requests[{number}].{kind}: {exc}") from None

    def _add(self, what: Json) -> Json:
        properties = what.get("properties", {})
        title, grid = properties.get("title", f"Sheet{len(self.tabs) + 1}"), properties.get("gridProperties", {})
        if any(tab.title == title for tab in self.tabs):
            raise _Invalid(f'A sheet with the name "{title}" already exists. Please enter another name.')
        tab = self.add_tab(title, grid.get("rowCount", 1000), grid.get("columnCount", 26))
        return {"addSheet": {"properties": tab.properties}}

    def _resize(self, what: Json) -> Json:
        tab, mask = self._by_id(what.get("properties", {}).get("sheetId")), what.get("fields", "")
        if mask != "gridProperties.rowCount,gridProperties.columnCount":
            raise _Invalid(f"fields: this fake does not know the mask {mask!r}")
        grid = what["properties"]["gridProperties"]
        tab.rows, tab.columns = grid["rowCount"], grid["columnCount"]
        kept = {at: v for at, v in tab.cells.items() if at[0] < tab.rows and at[1] < tab.columns}
        tab.cells = kept
        return {}

    def _write(self, what: Json) -> Json:
        """Cells in the range that the rows do not cover lose their values."""
        if what.get("fields") != "userEnteredValue":
            raise _Invalid("fields: at least one field must be listed")
        area = what.get("range")
        if not isinstance(area, dict) or area.keys() != {"sheetId"}:
            raise _Invalid("range: this fake knows whole sheets only")
        tab, rows = self._by_id(area["sheetId"]), what.get("rows", [])
        if len(rows) > tab.rows:
            raise _Invalid(
                f"Attempting to write row: {tab.rows}, beyond the last requested row of: {tab.rows - 1}"
            )
        widest = max((len(row.get("values", [])) for row in rows), default=0)
        if widest > tab.columns:
            raise _Invalid(f"Attempting to write column: {tab.columns}, beyond the last requested column")
        tab.cells = dict(_cells(rows))
        return {}

    def _by_id(self, id: Any) -> Tab:
        tab = next((one for one in self.tabs if one.id == id), None)
        if tab is None:
            raise _Invalid(f"No grid with id: {id}")
        return tab


def _cells(rows: list[Json]) -> Iterator[tuple[tuple[int, int], Any]]:
    for r, row in enumerate(rows):
        for c, cell in enumerate(row.get("values", [])):
            entered = cell.get("userEnteredValue")
            if entered is None:
                continue
            ((kind, value),) = entered.items() if len(entered) == 1 else [("", None)]
            wanted = _KINDS.get(kind)
            if wanted is None or not isinstance(value, wanted) or (kind == "numberValue" and value is True):
                raise _Invalid(f"rows[{r}].values[{c}]: Invalid value at 'user_entered_value'")
            if isinstance(value, str) and len(value) > _LONGEST:
                raise _Invalid("Your input contains more than the maximum of 50000 characters in a single cell.")
            if value != "":
                yield (r, c), {"formula": value} if kind == "formulaValue" else value


def ready() -> Ready:
    """A spreadsheet with an empty tab."""
    fake = FakeSheets()
    fake.add_tab("Lapsed buyers")

    def options(url: str) -> Json:
        key = fake.tokens.key(f"{url}/token")
        return {"spreadsheet_id": fake.id, "service_account": key, "base_url": url}

    def members(_: str, audience: str) -> set[str]:
        tab = fake.tab(audience)
        return {str(line[0]) for line in tab.lines(1, tab.rows - 1)}

    return Ready(fake, options, {"row": "Lapsed buyers"}, members=members)
