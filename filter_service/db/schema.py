"""The version of the database's schema: bring it up to date, or say that it is not."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

import filter_service
from filter_service.errors import DatabaseOutdated


def upgrade(database_url: str, to: str = "head") -> None:
    """Run the migrations that the database lacks; several processes may do so at once."""
    config = _config()
    config.set_main_option("sqlalchemy.url", database_url.replace("%", "%%"))
    command.upgrade(config, to)


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
    package = Path(filter_service.__file__).parent
    inside = package / "migrations"
    return inside if inside.is_dir() else package.parent / "migrations"
