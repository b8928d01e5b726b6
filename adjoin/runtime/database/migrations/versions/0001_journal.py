"""Keys and deployments, which earlier versions made by themselves, and the journal."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    there = sa.inspect(op.get_bind()).get_table_names()
    if "keys" not in there:
        op.create_table(
            "keys",
            sa.Column("digest", sa.LargeBinary, primary_key=True),
            sa.Column("id", sa.Text, nullable=False, unique=True),
            sa.Column("tenant", sa.Text, nullable=False),
            sa.Column("scopes", sa.Text, nullable=False),
            sa.Column("label", sa.Text, nullable=False),
            sa.Column("created", sa.Double, nullable=False),
            sa.Column("expires", sa.Double),
        )
    if "deployments" not in there:
        op.create_table(
            "deployments",
            sa.Column("tenant", sa.Text, primary_key=True),
            sa.Column("name", sa.Text, primary_key=True),
            sa.Column("revision", sa.Integer, nullable=False),
            sa.Column("created", sa.Double, nullable=False),
            sa.Column("text", sa.Text, nullable=False),
        )
    _journal()


def _journal() -> None:
    op.create_table(
        "graphs",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("wire", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("accepted", sa.LargeBinary, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
        sa.Column("graph", sa.LargeBinary, nullable=False),
        sa.Column("key", sa.Text),
        sa.Column("fingerprint", sa.LargeBinary),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("lives", sa.Integer, nullable=False),
        sa.Column("suspected", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("ended", sa.Double),
        sa.Column("seconds", sa.Double),
        sa.Column("usage", sa.LargeBinary),
    )
    op.create_index("runs_by_key", "runs", ["tenant", "key"], unique=True)
    op.create_index("runs_by_time", "runs", ["tenant", "created"])
    op.create_index("runs_by_state", "runs", ["state", "ended"])
    op.create_table(
        "recorded",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("stage", sa.Text, primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("skipped", sa.Boolean, nullable=False),
        sa.Column("usage", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("nbytes", sa.BigInteger, nullable=False),
        sa.Column("value", sa.LargeBinary),
    )
    op.create_table(
        "events",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
