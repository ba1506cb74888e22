"""Tokens of the API, the keys its callers name their requests by, and requests that are answered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All requests so far are for runs, and nobody waits for their answers."""
    op.add_column("run_request", sa.Column("kind", sa.Text(), nullable=False, server_default="run"))
    op.add_column("run_request", sa.Column("ended_at", sa.Double()))
    op.add_column("run_request", sa.Column("report", sa.Text()))
    op.create_table(
        "token",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("syncs", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double()),
        sa.Column("revoked_at", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
        sa.UniqueConstraint("name", name="uq_token_name"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("sync", sa.Text(), nullable=False),
        sa.Column("slot", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("token", "key", name="pk_idempotency_key"),
    )


def downgrade() -> None:
    """Every token is lost with what was asked for by it."""
    op.drop_table("idempotency_key")
    op.drop_table("token")
    op.drop_column("run_request", "report")
    op.drop_column("run_request", "ended_at")
    op.drop_column("run_request", "kind")
