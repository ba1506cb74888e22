"""Prints the API's description: `python -m sync.web.describe > docs/reference/api.openapi.json`."""

from __future__ import annotations

import json

from sync.web.app import describe


def text() -> str:
    """The description as the committed file has it."""
    return json.dumps(describe(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(text(), end="")  # noqa: T201 - this is what it is for
