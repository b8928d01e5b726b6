"""The tables, as queries see them; how they came about is in ``migrations/versions/``.

Times are in seconds since the epoch. Digests are sha256.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("tenant", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("created", Double, nullable=False),
    Column("expires", Double),
)

deployments = Table(
    "deployments",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("text", Text, nullable=False),
)

#: One row: how many transactions SQLite has committed; PostgreSQL's stays at 0.
commits = Table(
    "commits",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("number", BigInteger, nullable=False),
)

#: Graphs that durable runs began with, in their wire form, by its digest.
graphs = Table(
    "graphs",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("wire", LargeBinary, nullable=False),
)

#: Durable runs. What was accepted never changes and has a checksum; ``lives`` counts how often a
#: service took the run up, ``suspected`` how often it died soon after.
runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("accepted", LargeBinary, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("graph", LargeBinary, nullable=False),
    Column("key", Text),
    Column("fingerprint", LargeBinary),
    Column("created", Double, nullable=False),
    Column("lives", Integer, nullable=False),
    Column("suspected", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("ended", Double),
    Column("seconds", Double),
    Column("usage", LargeBinary),
    Index("runs_by_key", "tenant", "key", unique=True),
    Index("runs_by_time", "tenant", "created"),
    Index("runs_by_state", "state", "ended"),
)

#: The result of each stage, once. ``value`` is absent when it lies in the store of values, and the
#: digest when the stage has none that others need.
recorded = Table(
    "recorded",
    metadata,
    Column("run", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("skipped", Boolean, nullable=False),
    Column("usage", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("nbytes", BigInteger, nullable=False),
    Column("value", LargeBinary),
)

#: What readers of a durable run have been shown, in order.
events = Table(
    "events",
    metadata,
    Column("run", Text, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("checksum", BigInteger, nullable=False),
)

#: What each call of a model consumed, once, from the usage logs of replicas; the load of a replica
#: is its number 0. ``day`` counts days since the epoch, in UTC.
calls = Table(
    "calls",
    metadata,
    Column("log", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("run", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("place", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("prompt", BigInteger, nullable=False),
    Column("cached", BigInteger, nullable=False),
    Column("generated", BigInteger, nullable=False),
    Column("embedded", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("waited", Double, nullable=False),
    Column("loaded", Double, nullable=False),
    Column("at", Double, nullable=False),
    Column("day", Integer, nullable=False),
    Index("calls_by_run", "run"),
    Index("calls_by_time", "tenant", "at"),
)

#: Runs that have ended, and what is billed of them: of each stage one attempt at most.
settled = Table(
    "settled",
    metadata,
    Column("run", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("workflow", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("at", Double, nullable=False),
    Column("day", Integer, nullable=False),
    Index("settled_by_time", "tenant", "at"),
)
settled_stages = Table(
    "settled_stages",
    metadata,
    Column("run", Text, primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("seconds", Double, nullable=False),
)
