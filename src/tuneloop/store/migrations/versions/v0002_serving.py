"""Keys to the service, its log of predictions, and the right answers that come back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

MOMENT = sa.DateTime(timezone=True)
LONG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("tokens_per_minute", sa.Integer(), nullable=True),
        sa.Column("replaces", sa.String(16), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("revoked_at", MOMENT, nullable=True),
        sa.Column("last_used_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["replaces"], ["api_keys.id"], name=op.f("fk_api_keys_replaces_api_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    _create_served_predictions()
    op.create_table(
        "feedback",
        sa.Column("id", LONG_ID, nullable=False),
        sa.Column("prediction_id", LONG_ID, nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("entities", sa.String(), nullable=True),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["served_predictions.id"], name=op.f("fk_feedback_prediction_id_served_predictions")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_prediction_id_id"), "feedback", ["prediction_id", "id"])


def _create_served_predictions() -> None:
    op.create_table(
        "served_predictions",
        sa.Column("id", LONG_ID, nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=True),
        sa.Column("text_sha256", sa.String(64), nullable=True),
        sa.Column("redaction", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=True),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("route", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("entities", sa.String(), nullable=True),
        sa.Column("latency_s", sa.Double(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "redaction IN ('none', 'mask', 'hash', 'drop')", name=op.f("ck_served_predictions_redaction")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_served_predictions")),
        sa.UniqueConstraint("request_id", "item", name=op.f("uq_served_predictions_request_id_item")),
    )
    op.create_index(op.f("ix_served_predictions_created_at"), "served_predictions", ["created_at"])


def downgrade() -> None:
    """Remove the tables."""
    for table in ("feedback", "served_predictions", "api_keys"):
        op.drop_table(table)
