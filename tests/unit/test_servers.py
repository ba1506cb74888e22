"""The servers that other tests rely on are real."""

from __future__ import annotations

import os
import subprocess

from tests.servers import Postgres


def test_a_postgres_cluster_has_a_database_for_each_test(postgres: Postgres) -> None:
    first, second = postgres.database(), postgres.database()

    postgres.ask(first, "create table here (n int)")

    count = "select count(*) from pg_tables where tablename = 'here'"
    assert (postgres.ask(first, count), postgres.ask(second, count)) == ("1", "0")


def test_the_cluster_asks_for_its_password_over_tcp(postgres: Postgres) -> None:
    psql, url = str(postgres.programs / "psql"), postgres.url("postgres")
    said = [
        subprocess.run([psql, "-X", "-At", "-c", "select 1", one], capture_output=True, env=dict(os.environ))
        for one in (url, url.replace(postgres.password, "wrong"))
    ]

    assert [(done.returncode, done.stdout) for done in said] == [(0, b"1\n"), (2, b"")]
