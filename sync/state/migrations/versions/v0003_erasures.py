"""People who asked to be forgotten: the erasures, and the digests that keep them out of later plans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nobody was forgotten so far."""
    op.create_table(
        "erasure",
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("remembered_at", sa.Double()),
        sa.Column("remembered_by", sa.Text()),
        sa.Column("remembered_reason", sa.Text()),
        sa.PrimaryKeyConstraint("seq", name="pk_erasure"),
        sa.UniqueConstraint("id", name="uq_erasure_id"),
    )
    op.create_table(
        "erasure_part",
        sa.Column("erasure", sa.Text(), nullable=False),
        sa.Column("sync", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("keys", sa.Text(), nullable=False),
        sa.Column("rows", sa.Text(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.PrimaryKeyConstraint("erasure", "sync", name="pk_erasure_part"),
        sa.ForeignKeyConstraint(["erasure"], ["erasure.id"], name="fk_erasure_part_erasure"),
    )
    op.create_index("ix_erasure_part_sync_state", "erasure_part", ["sync", "state"])
    op.create_table(
        "forgotten",
        sa.Column("sync", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("erasure", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("probe", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sync", "digest", "erasure", name="pk_forgotten"),
        sa.ForeignKeyConstraint(["erasure"], ["erasure.id"], name="fk_forgotten_erasure"),
    )


def downgrade() -> None:
    """Forget who was forgotten: they would be sent again."""
    op.drop_table("forgotten")
    op.drop_index("ix_erasure_part_sync_state", "erasure_part")
    op.drop_table("erasure_part")
    op.drop_table("erasure")
