"""Generated texts in the log, what each key has used, and switches of models that outlive a restart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

COUNTS = ("requests_used", "tokens_used")


def upgrade() -> None:
    """Add the columns and the table."""
    op.add_column("served_predictions", sa.Column("kind", sa.String(), server_default="predict", nullable=False))
    op.add_column("served_predictions", sa.Column("answer", sa.String(), nullable=True))
    for name in COUNTS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.create_table(
        "model_switches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=True),
        sa.Column("export", sa.String(), nullable=True),
        sa.Column("alias_of", sa.String(), nullable=True),
        sa.Column("configured", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_switches")),
    )
    op.create_index(op.f("ix_model_switches_name_id"), "model_switches", ["name", "id"])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("model_switches")
    for name in COUNTS:
        op.drop_column("api_keys", name)
    op.drop_column("served_predictions", "answer")
    op.drop_column("served_predictions", "kind")
