"""Snowflake's own SQL for members that are kept there, as its documentation has it."""

from __future__ import annotations

import pytest

from sync.sources.base import Column
from sync.sources.snowflake_dialect import SnowflakeDialect
from sync.sources.snowflake_types import duckdb_type

DIALECT = SnowflakeDialect()


def test_a_digest_is_of_every_value_and_of_the_salt() -> None:
    sql = DIALECT.digest([Column("ID", "BIGINT"), Column('Odd "one', "VARCHAR")], "it's")

    assert sql == (
        "MD5('it''s' || '|' || COALESCE(TO_VARCHAR(\"ID\"), '') || '|' || "
        'COALESCE(MD5(TO_VARCHAR("Odd ""one")), \'\'))'
    )


@pytest.mark.parametrize(
    ("type", "told"),
    [
        ("DECIMAL(38,12)", 'TO_VARCHAR("C")'),
        ("DOUBLE", 'TO_VARCHAR("C") || \'/\' || TO_VARCHAR(HASH("C"))'),
        ("DATE", "TO_VARCHAR(\"C\", 'YYYY-MM-DD')"),
        ("TIME", "TO_VARCHAR(\"C\", 'HH24:MI:SS.FF9')"),
        ("TIMESTAMP", "TO_VARCHAR(\"C\", 'YYYY-MM-DD HH24:MI:SS.FF9')"),
        (
            "TIMESTAMP WITH TIME ZONE",
            "TO_VARCHAR(CONVERT_TIMEZONE('UTC', \"C\"), 'YYYY-MM-DD HH24:MI:SS.FF9')",
        ),
        ("JSON", 'MD5(TO_JSON("C") || \'/\' || TO_VARCHAR(HASH("C")))'),
        ("BLOB", 'MD5(HEX_ENCODE("C"))'),
    ],
)
def test_no_setting_of_the_session_shows_in_the_text_of_a_value(type: str, told: str) -> None:
    assert f"COALESCE({told}, '')" in DIALECT.digest([Column("C", type)], "")


def test_every_kind_of_column_that_can_be_read_has_a_text() -> None:
    class Metadata:
        precision, scale = 12, 2

        def __init__(self, type_code: int) -> None:
            self.type_code = type_code

    known = {duckdb_type(Metadata(code)) for code in range(21)} - {"UNKNOWN"}

    plain = {type for type in known if "TO_VARCHAR(\"C\"), ''" in DIALECT.digest([Column("C", type)], "")}
    assert plain == {"DECIMAL(12,2)", "BOOLEAN"}  # whose text no format changes


def test_a_number_is_read_from_hexadecimal_digits() -> None:
    assert DIALECT.number("substr(h, 1, 8)") == "TO_NUMBER(substr(h, 1, 8), 'XXXXXXXX')"


def test_a_temporary_table_is_in_our_schema() -> None:
    assert DIALECT.temporary("headgate", "headgate_keys") == "headgate.headgate_keys"
