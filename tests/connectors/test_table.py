"""`docs/connectors.md` says what the connectors are."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from sync.sdk.registry import available
from sync.testing.table import contracts, figures, objects, replaced

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "connectors.md"


def test_the_document_says_what_each_connector_takes() -> None:
    found = contracts(HERE)
    document = DOCUMENT.read_text()

    assert set(found) == {name for name, entry in available().items() if entry.distribution == "headgate"}
    assert replaced(document, "objects", objects(found)) == document, "run `python -m sync.testing.table`"


def test_a_part_that_is_not_there_is_an_error() -> None:
    with pytest.raises(LookupError, match="the document has no part `figures`"):
        replaced("<!-- objects: by hand -->\n<!-- end of objects -->", "figures", "none")


@pytest.mark.endless
def test_figures_come_from_running_the_contracts(tmp_path: Path) -> None:
    (tmp_path / "test_hook.py").write_text(
        textwrap.dedent("""
            import httpx
            from connectors.webhook import Webhook
            from sync.testing.contract import ConnectorContract

            class TestHook(ConnectorContract):
                connector = Webhook
                config = {"url": "https://hooks.example/in"}

                def answer(self, request):
                    return httpx.Response(200)
        """)
    )

    table = figures(contracts(tmp_path), tmp_path)

    row = next(line for line in table.splitlines() if "`webhook`" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1] == "applied"
    assert int(cells[3]) > 40
    assert table.endswith(f"{cells[3]} checks in all.")
