"""Google Sheets: what becomes of a tab, against a spreadsheet in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.google_sheets import GoogleSheets, GoogleSheetsConfig
from sync.errors import AuthError, DestinationError, ProtocolError, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Delivery, Op, Page, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.google_sheets import FakeSheets, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection

ID = "1AbC-sheet_9"
TOKENS = "https://oauth2.googleapis.com/token"
TYPES = {"email": "VARCHAR", "name": "VARCHAR", "score": "DOUBLE"}


def never_user_entered(request: httpx.Request) -> Iterator[str]:
    """A value that is read as if typed could be a formula."""
    if b"USER_ENTERED" in request.content or b"formulaValue" in request.content:
        yield "a text could be run as a formula"


class TestGoogleSheetsContract(ConnectorContract):
    connector = GoogleSheets
    audience = "Lapsed 'n' lost"
    largest_record = 45_000  # a cell takes 50,000 characters
    described = Described(
        "google_sheets/values_v4.json",
        Path(__file__).parent / "descriptions" / "google_sheets_updates.json",
        authenticated=lambda request: request.headers.get("authorization", "").startswith("Bearer ya29."),
        rules=(never_user_entered,),
        reconstructed=True,  # of the updates; reading values is Google's own
    )
    mutants_caught: ClassVar[float] = 0.9

    @cached_property
    def fake(self) -> FakeSheets:
        fake = FakeSheets(ID)
        fake.add_tab(self.audience, rows=10, columns=2)
        return fake

    def begin(self) -> None:
        """A spreadsheet as it was at first: how large the tab is decides what is asked."""
        vars(self).pop("fake", None)

    def options(self, folder: Path) -> Mapping[str, Any]:
        return {"spreadsheet_id": ID, "service_account": FakeSheets().tokens.key(TOKENS)}

    def token_answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)


def connect(app: App, **config: Any) -> AbstractContextManager[GoogleSheets]:
    """A connector with its production client, whose wire is a function."""
    given = {"spreadsheet_id": ID, "service_account": FakeSheets().tokens.key(TOKENS)}
    return connection(GoogleSheets, app, **{**given, **config})


@pytest.fixture
def fake() -> FakeSheets:
    fake = FakeSheets(ID)
    fake.add_tab("Lapsed")
    return fake


@pytest.fixture
def sheets(fake: FakeSheets) -> Iterator[GoogleSheets]:
    with connect(fake) as connector:
        yield connector


def change(name: str, op: Op = Op.ADD, /, **fields: Any) -> Change:
    return Change(op, f"key-{name}", {"email": f"{name}@example.com"}, fields)


def push(
    connector: GoogleSheets,
    *changes: Change,
    audience: str = "Lapsed",
    types: Mapping[str, str] = TYPES,
) -> list[Status]:
    outcome = connector.push(Batch("b1", "winback", "row", audience, changes, types))
    assert isinstance(outcome, list)
    assert [receipt.key for receipt in outcome] == [one.key for one in changes]
    return [receipt.status for receipt in outcome]


def cells(fake: FakeSheets, title: str = "Lapsed") -> list[list[Any]]:
    return fake.tab(title).lines(0, 50)


# -- writing


def test_a_tab_has_a_row_for_everybody_below_the_names_of_the_columns(
    fake: FakeSheets, sheets: GoogleSheets
) -> None:
    statuses = push(sheets, change("ada", name="Ada", score=12.5), change("bob", Op.UPDATE, name=None, score=3))

    assert statuses == [Status.APPLIED, Status.APPLIED]
    assert cells(fake) == [
        ["email", "name", "score"],
        ["ada@example.com", "Ada", 12.5],
        ["bob@example.com", "", 3],
    ]


def test_the_next_audience_replaces_the_one_before_whole(fake: FakeSheets, sheets: GoogleSheets) -> None:
    push(sheets, *[change(f"p{n}", name="P", score=n) for n in range(20)])
    push(sheets, change("ada", name="Ada", score=1), change("gone", Op.REMOVE))

    assert cells(fake) == [["email", "name", "score"], ["ada@example.com", "Ada", 1]]


def test_an_empty_audience_leaves_the_names_of_the_columns(fake: FakeSheets, sheets: GoogleSheets) -> None:
    push(sheets, change("ada", name="Ada", score=1))

    assert push(sheets) == []
    assert cells(fake) == [["email", "name", "score"]]


def test_a_column_that_is_no_longer_mapped_is_gone(fake: FakeSheets, sheets: GoogleSheets) -> None:
    push(sheets, change("ada", name="Ada", score=1))
    push(sheets, change("ada"), types={"email": "VARCHAR"})

    assert cells(fake) == [["email"], ["ada@example.com"]]


def test_a_tab_grows_with_its_audience_in_the_same_request(fake: FakeSheets, sheets: GoogleSheets) -> None:
    fake.tabs = []
    tab = fake.add_tab("Lapsed", rows=2, columns=1)
    before = fake.requests

    push(sheets, *[change(f"p{n}", name="P", score=n) for n in range(9)])

    assert (tab.rows, tab.columns) == (10, 3)
    assert len(cells(fake)) == 10
    assert fake.requests - before == 4  # a token, the tabs, the first rows, the update


def test_an_update_of_which_a_part_is_refused_changes_nothing(fake: FakeSheets) -> None:
    tab = fake.add_tab("Tight", rows=2, columns=1)
    tab.cells = {(0, 0): "email", (1, 0): "ada@example.com"}

    def crooked(request: httpx.Request) -> httpx.Response:
        content = request.read().replace(b'"boolValue":true', b'"boolValue":7')
        return fake(httpx.Request(request.method, request.url, headers=request.headers, content=content))

    with connect(crooked) as connector, pytest.raises(RequestError):
        push(connector, change("bob", vip=True), change("eve", vip=True), audience="Tight", types={})

    assert (tab.rows, tab.columns) == (2, 1)
    assert cells(fake, "Tight") == [["email"], ["ada@example.com"]]


@pytest.mark.parametrize(
    "value", ['=HYPERLINK("http://evil.example")', "+1+1", "-2", "@SUM(A1)", "'quoted", "\t=1", "1e5", "TRUE"]
)
def test_a_text_stays_a_text_whatever_it_looks_like(fake: FakeSheets, sheets: GoogleSheets, value: str) -> None:
    push(sheets, change("ada", name=value))

    assert cells(fake)[1] == ["ada@example.com", value]


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        (True, True),
        (0, 0),
        (-1.5, -1.5),
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (["a", 1], '["a",1]'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_values_are_cells_of_their_kind(fake: FakeSheets, sheets: GoogleSheets, value: Any, cell: Any) -> None:
    push(sheets, change("ada", name=value))

    assert cells(fake)[1] == ["ada@example.com", cell]
    assert type(cells(fake)[1][1]) is type(cell)


def test_a_text_that_no_cell_holds_is_refused_by_its_column(fake: FakeSheets, sheets: GoogleSheets) -> None:
    with pytest.raises(RequestError, match="column 'name'") as raised:
        push(sheets, change("ada", name="x" * 50_001))

    assert "truncate" in raised.value.fix
    assert fake.requests == 0


def test_an_audience_of_too_many_cells_is_refused_before_anything_is_asked(fake: FakeSheets) -> None:
    crowd = [change(f"p{n}", born=n) for n in range(3)]
    with connect(fake, max_cells=11) as connector, pytest.raises(RequestError, match="fills 12 cells, over 11"):
        push(connector, *crowd)
    with connect(fake, max_cells=12) as connector, pytest.raises(RequestError, match="fills 16 cells, over 12"):
        push(connector, *crowd)

    assert fake.requests == 0


def test_a_tab_that_has_something_else_in_it_is_not_overwritten(fake: FakeSheets, sheets: GoogleSheets) -> None:
    budget = fake.add_tab("Budget")
    budget.cells = {(2, 0): "Rent", (2, 1): 900}

    with pytest.raises(RequestError, match="something else"):
        push(sheets, change("ada"), audience="Budget")

    assert budget.cells == {(2, 0): "Rent", (2, 1): 900}


def test_a_tab_that_is_not_there_is_told(fake: FakeSheets, sheets: GoogleSheets) -> None:
    with pytest.raises(RequestError, match="no tab"):
        push(sheets, change("ada"), audience="Gone")


def test_a_chart_on_a_tab_of_its_own_is_passed_over(fake: FakeSheets) -> None:
    def with_chart(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if request.url.path.endswith(ID) and "sheets" in answer.json():
            sheets = [{"properties": {"sheetId": 7, "title": "Chart"}}, *answer.json()["sheets"]]
            return httpx.Response(200, json={"sheets": sheets})
        return answer

    with connect(with_chart) as connector:
        assert push(connector, change("ada")) == [Status.APPLIED]
        with pytest.raises(RequestError):
            push(connector, change("ada"), audience="Chart")


def test_the_object_is_sent_whole(sheets: GoogleSheets) -> None:
    assert sheets.objects["row"].delivery is Delivery.SNAPSHOT


@pytest.mark.parametrize(
    "answer",
    [
        {"spreadsheetId": ID, "replies": []},
        {"spreadsheetId": ID, "replies": [{}, {}]},
        {"spreadsheetId": "another", "replies": [{}]},
        {"replies": [{}]},
    ],
)
def test_an_answer_to_another_update_proves_nothing(fake: FakeSheets, answer: dict[str, Any]) -> None:
    def lying(request: httpx.Request) -> httpx.Response:
        update = request.url.path.endswith(":batchUpdate")
        return httpx.Response(200, json=answer) if update else fake(request)

    with connect(lying) as connector, pytest.raises(ProtocolError):
        push(connector, change("ada"))


# -- reading


def _pages(connector: GoogleSheets, audience: str) -> Iterator[Page]:
    page = connector.members("row", audience)
    yield page
    while page.next is not None:
        page = connector.members("row", audience, page.next)
        yield page


def _everybody(pages: Sequence[Page]) -> list[Mapping[str, Any]]:
    return [member.identifiers for page in pages for member in page.members]


def test_a_tab_is_read_page_by_page(fake: FakeSheets, sheets: GoogleSheets) -> None:
    people = [change(f"p{n}", score=n) for n in range(12_000)]
    push(sheets, *people, types={"email": "VARCHAR", "score": "BIGINT"})

    pages = list(_pages(sheets, "Lapsed"))

    assert [len(page.members) for page in pages] == [10_000, 2_000]
    assert _everybody(pages)[0] == {"email": "p0@example.com", "score": 0}
    assert len({one["email"] for one in _everybody(pages)}) == 12_000


@pytest.mark.parametrize("rows", [1, 2, 1000])
def test_an_empty_tab_has_nobody_in_it(fake: FakeSheets, sheets: GoogleSheets, rows: int) -> None:
    fake.add_tab("New", rows=rows)

    assert _everybody(list(_pages(sheets, "New"))) == []


def test_rows_without_names_of_columns_are_no_members(fake: FakeSheets, sheets: GoogleSheets) -> None:
    fake.tab("Lapsed").cells = {(3, 0): "ada@example.com"}

    with pytest.raises(ProtocolError):
        sheets.members("row", "Lapsed")


# -- the spreadsheet


def test_a_tab_can_be_made_and_written(fake: FakeSheets, sheets: GoogleSheets) -> None:
    audience = sheets.create_audience("row", "It's new!")

    assert push(sheets, change("ada"), audience=audience) == [Status.APPLIED]
    assert _everybody(list(_pages(sheets, audience))) == [{"email": "ada@example.com"}]
    with pytest.raises(RequestError):
        sheets.create_audience("row", "It's new!")


@pytest.mark.parametrize(("status", "error"), [(403, AuthError), (404, RequestError)])
def test_a_spreadsheet_out_of_sight_is_told_with_whom_to_share_it(
    fake: FakeSheets, status: int, error: type[DestinationError]
) -> None:
    def blind(request: httpx.Request) -> httpx.Response:
        return fake(request) if request.url.path == "/token" else httpx.Response(status)

    with connect(blind) as connector, pytest.raises(error) as raised:
        connector.check()

    assert "headgate@fake-project.iam.gserviceaccount.com" in raised.value.fix


def test_a_refresh_token_is_another_way_in(fake: FakeSheets) -> None:
    def consenting(request: httpx.Request) -> httpx.Response:
        if request.url.host == "oauth2.googleapis.com":
            assert b"grant_type=refresh_token" in request.read()
            fake.tokens.given["ya29.user"] = float("inf")
            return httpx.Response(200, json={"access_token": "ya29.user", "expires_in": 3599})
        return fake(request)

    way = {"service_account": None, "client_id": "c1", "client_secret": "s3cret", "refresh_token": "1//r"}
    with connect(consenting, **way) as connector:
        assert push(connector, change("ada")) == [Status.APPLIED]


@pytest.mark.parametrize(
    "config",
    [
        {"service_account": None},
        {"service_account": None, "client_id": "c1", "client_secret": "s3cret"},
        {"client_id": "c1", "client_secret": "s3cret", "refresh_token": "1//r"},
        {"spreadsheet_id": "a/b"},
    ],
)
def test_a_configuration_without_exactly_one_way_in_is_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GoogleSheetsConfig(**{"spreadsheet_id": ID, "service_account": "{}", **config})


def test_two_service_accounts_are_two_accounts_and_the_key_is_not_told() -> None:
    key = FakeSheets().tokens.key(TOKENS)
    other = json.dumps(json.loads(key) | {"client_email": "other@example.com"})
    one, two = (GoogleSheetsConfig(spreadsheet_id=ID, service_account=text) for text in (key, other))

    assert GoogleSheets.account(one) != GoogleSheets.account(two)
    assert json.loads(key)["private_key"] not in GoogleSheets.account(one) + repr(one)


def test_the_fake_that_is_ready_can_be_synced_to() -> None:
    made = ready()
    with serve(made.app) as url:
        config = GoogleSheetsConfig(**made.options(url))
        with build_client(GoogleSheets, config, timeout=5) as client:
            statuses = push(GoogleSheets(config, client), change("ada"), audience=made.audiences["row"])

    assert statuses == [Status.APPLIED]
