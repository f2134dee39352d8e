"""Database connections and transactions, under a role with the fewest privileges."""

from collections.abc import Callable
from typing import Any

from pgvector.psycopg import register_vector
from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session, sessionmaker

from filter_service.canonical import canonical
from filter_service.db.arrays import register
from filter_service.errors import DatabaseOutdated, DatabaseUnavailable

ROLE = "filter_service_app"

Sessions = sessionmaker[Session]


def connect(database_url: str, role: str | None = ROLE) -> Engine:
    """An engine whose connections take the service's role; it connects when first used.

    What the driver says of a server that does not answer is raised as DatabaseUnavailable.
    """
    url = make_url(database_url)
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    engine = create_engine(
        url,
        pool_pre_ping=True,
        json_serializer=canonical,  # digests are taken of what is stored
        connect_args={
            "application_name": "filter_service",
            # Compiling a query takes longer than any query here runs.
            "options": "-c jit=off -c timezone=UTC",
        },
    )
    event.listen(engine, "connect", _prepare(role))
    event.listen(engine, "handle_error", _translate)
    return engine


def sessions_of(engine: Engine) -> Sessions:
    """A factory of sessions: `with sessions.begin() as session` is one transaction."""
    return sessionmaker(engine, expire_on_commit=False)


def _prepare(role: str | None) -> Callable[[Any, object], None]:
    def prepare(connection: Any, _: object) -> None:  # noqa: ANN401  (psycopg's, behind SQLAlchemy)
        register(connection)
        connection.autocommit = True
        known = connection.execute(
            "SELECT to_regtype('vector') IS NOT NULL, to_regrole(%s::text) IS NOT NULL", [role]
        ).fetchone()
        if role is not None and not all(known):
            raise DatabaseOutdated(
                "The database is empty, or was restored without the service's role: run "
                "`filter-service db upgrade`."
            )
        if known[0]:
            register_vector(connection)
        if role is not None:
            connection.execute(f'SET ROLE "{role}"')
        connection.autocommit = False

    return prepare


def _translate(context: ExceptionContext) -> None:
    lost = context.is_disconnect or context.connection is None
    if lost and isinstance(context.sqlalchemy_exception, OperationalError | InterfaceError):
        raise DatabaseUnavailable(
            f"Postgres does not answer ({str(context.original_exception).strip()}): "
            "check FILTER_SERVICE_DATABASE_URL and that the server runs."
        ) from context.original_exception
