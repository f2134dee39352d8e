"""Fixtures of a sealed ledger, which is made once and copied for each test.

A file of tests that wants them says `pytest_plugins = ["tests.support.ledger_fixtures"]`.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from filter_service.local import Services
from tests.conftest import named
from tests.support.sealed_ledger import SEALED, Ledger, live, opened

# What waits for long is a fault, and the ledger may have been made long ago.
STILL_NEW = "UPDATE ledger SET at = now() WHERE id IN (SELECT entry_id FROM ledger_unsealed)"

_numbers = itertools.count()


@pytest.fixture(scope="session")
def sealed_folder(
    admin: Engine, servers: Services, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A database named SEALED, made once; -> the folder of its key and what was published."""
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {SEALED} TEMPLATE {template}"))
    folder = tmp_path_factory.mktemp("sealed")
    with opened(named(servers.database_url, SEALED), folder) as made:
        live(made)
    return folder


@pytest.fixture
def sealed(
    sealed_folder: Path, admin: Engine, servers: Services, tmp_path: Path
) -> Iterator[Ledger]:
    """A copy of the sealed ledger."""
    name = f"harmed_{next(_numbers)}"
    folder = shutil.copytree(sealed_folder, tmp_path / "ledger")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {SEALED}"))
    with opened(named(servers.database_url, name), folder) as made:
        made.harm(STILL_NEW)
        yield made
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
