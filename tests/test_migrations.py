"""The schema: migrations give exactly the declared tables, in any order of arrival."""

import json
import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, Text, cast, make_url, select, text

import filter_service
from filter_service.db import schema
from filter_service.db.session import connect, sessions_of
from filter_service.db.tables import LedgerPayload, LedgerRow, Table, Unsealed
from filter_service.errors import DatabaseOutdated, DatabaseUnavailable
from filter_service.ledger.entries import commitment, payload
from filter_service.versions import stored

DETAILS = cast(LedgerPayload.details, Text)


def test_migrations_and_tables_agree(owner: Engine) -> None:
    with owner.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Table.metadata) == []


def test_several_processes_may_migrate_at_once(empty_database_url: str) -> None:
    with get_context("spawn").Pool(3) as pool:
        pool.map(schema.upgrade, [empty_database_url] * 3)
    engine = connect(empty_database_url)
    assert schema.version(engine) == schema.head()
    engine.dispose()


def test_an_owner_who_is_no_superuser_can_migrate(admin: Engine, empty_database_url: str) -> None:
    url = make_url(empty_database_url)
    with admin.connect() as connection:  # as a hosted Postgres gives it
        connection.execute(text("CREATE ROLE plain LOGIN CREATEROLE"))
        connection.execute(text("GRANT filter_service_app TO plain WITH ADMIN OPTION"))
        connection.execute(text(f"ALTER DATABASE {url.database} OWNER TO plain"))
    there = connect(empty_database_url, role=None)
    with there.begin() as connection:
        connection.execute(text("CREATE EXTENSION vector"))
    there.dispose()
    plain = url.set(username="plain").render_as_string(hide_password=False)
    schema.upgrade(plain)
    engine = connect(plain)
    assert schema.version(engine) == schema.head()
    assert stored._quickest(sessions_of(engine)) is stored._SENT
    engine.dispose()


def test_an_empty_database_is_outdated(empty_database_url: str) -> None:
    engine = connect(empty_database_url, role=None)
    with pytest.raises(DatabaseOutdated, match="filter-service db upgrade"):
        schema.require_current(engine)
    engine.dispose()


def test_a_session_on_an_empty_database_says_what_to_do(empty_database_url: str) -> None:
    engine = connect(empty_database_url)
    with pytest.raises(DatabaseOutdated, match="filter-service db upgrade"):
        sessions_of(engine)().execute(select(1))
    engine.dispose()


def test_a_migrated_database_is_current(owner: Engine) -> None:
    schema.require_current(owner)


def test_a_server_that_does_not_answer_is_unavailable() -> None:
    engine = connect("postgresql://nobody@127.0.0.1:9/nothing")
    with pytest.raises(DatabaseUnavailable, match="FILTER_SERVICE_DATABASE_URL"):
        engine.connect()


def test_the_service_works_under_its_own_role(database_url: str) -> None:
    engine = connect(database_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "filter_service_app"
    engine.dispose()


def test_an_installed_package_carries_its_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "filter_service"
    shutil.copytree(schema.migrations(), package / "migrations")
    monkeypatch.setattr(filter_service, "__file__", str(package / "__init__.py"))
    assert schema.migrations() == package / "migrations"


def test_entries_of_before_commit_to_what_they_said(empty_database_url: str) -> None:
    schema.upgrade(empty_database_url, "0002")
    engine = connect(empty_database_url, role=None)
    details = {"reason": 'a "tab"\t, an ä and a \x7f', "margin": 1e-07, "none": None}
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO ledger (event, actor, details) VALUES ('failed', :actor, :details)"),
            {"actor": 'worker "\\1"', "details": json.dumps(details)},
        )
    schema.upgrade(empty_database_url)
    with sessions_of(engine).begin() as session:
        row = session.execute(
            select(LedgerRow.commitment, LedgerPayload.salt, LedgerPayload.actor, DETAILS).join(
                LedgerPayload, LedgerPayload.entry_id == LedgerRow.id
            )
        ).one()
        waiting = session.scalars(select(Unsealed.entry_id)).all()
    engine.dispose()
    assert bytes.fromhex(row[0]) == commitment(row[1], payload(row[2], row[3]))
    assert json.loads(row[3]) == details
    assert len(waiting) == 1
