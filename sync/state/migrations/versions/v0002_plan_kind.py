"""Plans say where their changes come from: the diff, a run that is undone, or the destination itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Plans made so far come from a diff."""
    op.add_column("plan", sa.Column("kind", sa.Text(), nullable=False, server_default="diff"))
    op.add_column("plan", sa.Column("origin", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    """Forget where plans come from."""
    op.drop_column("plan", "origin")
    op.drop_column("plan", "kind")
