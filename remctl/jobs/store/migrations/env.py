"""What Alembic runs for each command; the connection is that of whoever calls (see `remctl.jobs.store._upgrade`)."""

from alembic import context

from remctl.jobs.store._schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
