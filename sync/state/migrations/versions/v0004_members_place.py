"""Generations of members say where they are kept: in files of the state folder, or in a warehouse."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """All generations so far are files."""
    op.add_column("generation", sa.Column("place", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget where they are kept: those in a warehouse are then missing."""
    op.drop_column("generation", "place")
