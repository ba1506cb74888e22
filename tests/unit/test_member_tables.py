"""What the tables of members ask of a warehouse."""

from __future__ import annotations

from typing import Any

from sync.sources.member_tables import MemberTables


class Heard:
    """A session that writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def execute(self, sql: str) -> None:
        self.asked.append(sql)


def test_no_statement_names_who_is_forgotten() -> None:
    heard: Any = Heard()

    MemberTables(heard, "headgate", "vips").unsee(["17"], ["customer-7", "customer-8"])

    assert len(heard.asked) == 2
    assert "key IN ('17')" in heard.asked[0]
    assert "customer" not in heard.asked[1]
    assert "md5(" in heard.asked[1]
