"""Runs the migrations: one process at a time, and never waiting long behind the service's locks."""

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from filter_service.db.tables import Table
from filter_service.settings import Settings

# Others that migrate at the same moment wait here, and find nothing left to do.
LOCK = "SELECT pg_advisory_lock(hashtext('filter_service migrations'))"
UNLOCK = "SELECT pg_advisory_unlock(hashtext('filter_service migrations'))"


def migrate() -> None:
    engine = create_engine(_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        connection.execute(text("SET lock_timeout = '10min'"))
        connection.execute(text(LOCK))
        # A migration that waits for a lock stops everybody who comes after it: fail soon instead.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET statement_timeout = '60s'"))
        connection.commit()
        try:
            _run(connection)
        finally:
            connection.rollback()
            connection.execute(text(UNLOCK))


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Table.metadata)
    with context.begin_transaction():
        context.run_migrations()


def _url() -> str:
    """Handed over by `db.schema.upgrade`; from the settings when alembic's own command runs."""
    url = context.config.get_main_option("sqlalchemy.url") or Settings.load().database_url
    if url is None:
        raise SystemExit("Set FILTER_SERVICE_DATABASE_URL, or use `filter-service db upgrade`.")
    return url


migrate()
