"""Runs the database's migrations, or checks that its schema is current."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from filter_service.db.session import ROLE, connect
from filter_service.errors import DatabaseOutdated

# Roles belong to the whole server, where another database may be migrated at the same moment.
_ROLE = f"""
DO $$ BEGIN
    CREATE ROLE {ROLE} NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;
GRANT {ROLE} TO CURRENT_USER;
"""


def upgrade(database_url: str, to: str = "head") -> None:
    """Run the migrations that the database lacks; several processes may do so at once.

    The role comes first: a backup does not hold it, for it belongs to the server. Raises
    DatabaseOutdated for a database that was restored before there was the role.
    """
    config = _config()
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    engine = connect(database_url, role=None)
    try:
        _make_role(engine)
        command.upgrade(config, to)
        _require_grants(engine)
    finally:
        engine.dispose()


def _make_role(engine: Engine) -> None:
    with engine.begin() as connection:
        found = connection.scalar(
            text("SELECT pg_has_role(rolname, 'MEMBER') FROM pg_roles WHERE rolname = :role"),
            {"role": ROLE},
        )
        if not found:
            connection.execute(text(_ROLE))


def _require_grants(engine: Engine) -> None:
    may = text("SELECT has_table_privilege(:role, 'alembic_version', 'SELECT')")
    with engine.connect() as connection:
        if not connection.scalar(may, {"role": ROLE}):
            raise DatabaseOutdated(
                f"This database was restored on a server without the role {ROLE}, so that every "
                "right of the service was left out. The role is there now: empty the database and "
                "restore the backup again, as docs/backup.md says."
            )


def require_current(engine: Engine) -> None:
    """Raise DatabaseOutdated unless the database has the schema that this code was written for."""
    found = version(engine)
    if found != head():
        raise DatabaseOutdated(
            f"The database is at schema {found or 'none'}, this code needs {head()}: "
            "run `filter-service db upgrade`."
        )


def version(engine: Engine) -> str | None:
    """The schema's version in the database; None when it is empty."""
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
        return found


@cache
def head() -> str:
    """The newest version that this code knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    assert newest is not None
    return newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config


def migrations() -> Path:
    """The migrations' folder: inside the installed package, or at the top of a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
