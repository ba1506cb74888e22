"""Indexes of what waits: held plans and open run requests are asked for often, and are few among many."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_HELD = sa.text("status = 'held'")
_OPEN = sa.text("taken_at IS NULL")


def upgrade() -> None:
    """Nothing is lost or made."""
    op.create_index("ix_plan_held", "plan", ["sync"], sqlite_where=_HELD, postgresql_where=_HELD)
    op.create_index("ix_run_request_open", "run_request", ["sync"], sqlite_where=_OPEN, postgresql_where=_OPEN)


def downgrade() -> None:
    """Nothing is lost."""
    op.drop_index("ix_run_request_open", "run_request")
    op.drop_index("ix_plan_held", "plan")
