"""A real Postgres and a real Redis for the tests that want them; each test has its own database."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis
from sqlalchemy import Engine, make_url, text

from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.local import Services, services
from filter_service.settings import Settings
from filter_service.storage import Storage

TEMPLATE = "migrated"
MEMORY, ENOUGH = Path("/dev/shm"), 6 * 2**30  # a file system in memory, and how much it must have
_numbers = itertools.count()


@pytest.fixture(scope="session")
def servers() -> Iterator[Services]:
    """Postgres and Redis for this run of the tests."""
    # A database for a test is a thousand files, made and deleted: some disks need a second for it.
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ENOUGH
    with TemporaryDirectory(prefix="filter-service-", dir=MEMORY if roomy else None) as name:
        folder = Path(name)
        folder.chmod(0o711)  # where root runs the tests, the servers' own account must pass
        settings = Settings(data_dir=folder / "data", database_url=None, broker_url=None)
        with services(settings) as found:
            yield found


@pytest.fixture(scope="session")
def admin(servers: Services) -> Iterator[Engine]:
    """The owner of the server, outside any transaction."""
    engine = connect(servers.database_url, role=None)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for setting in ("fsync = off", "max_wal_size = '256MB'"):
            connection.execute(text(f"ALTER SYSTEM SET {setting}"))
        connection.execute(text("SELECT pg_reload_conf()"))
    yield engine.execution_options(isolation_level="AUTOCOMMIT")
    engine.dispose()


@pytest.fixture(scope="session")
def template(admin: Engine, servers: Services) -> str:
    """A migrated database that nobody uses, to be copied."""
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {TEMPLATE}"))
    upgrade(named(servers.database_url, TEMPLATE))
    return TEMPLATE


@pytest.fixture
def empty_database_url(admin: Engine, servers: Services) -> Iterator[str]:
    """A database without any table."""
    yield from database_from(admin, servers, "template1")


@pytest.fixture
def database_url(admin: Engine, servers: Services, template: str) -> Iterator[str]:
    """A migrated, empty database."""
    yield from database_from(admin, servers, template)


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    """Sessions as the service has them, under its own role."""
    engine = connect(database_url)
    yield sessions_of(engine)
    engine.dispose()


@pytest.fixture
def owner(database_url: str) -> Iterator[Engine]:
    """The database as its owner sees it, who may do more than the service."""
    engine = connect(database_url, role=None)
    yield engine
    engine.dispose()


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "images").as_uri())


@pytest.fixture
def broker_url(servers: Services) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(servers.broker_url) as client:
        client.flushall()
    return servers.broker_url


def named(url: str, database: str) -> str:
    """The same server's other database."""
    return make_url(url).set(database=database).render_as_string(hide_password=False)


def database_from(admin: Engine, servers: Services, template: str) -> Iterator[str]:
    """A copy of a database, for as long as somebody wants it."""
    name = f"test_{next(_numbers)}"
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield named(servers.database_url, name)
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
