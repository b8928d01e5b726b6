"""Alembic's entry: migrations run on the connection that opens the database."""

from alembic import context

from adjoin.runtime.database.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata)
context.run_migrations()
