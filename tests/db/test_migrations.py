"""The schema: migrations give exactly the declared tables, in any order of arrival."""

import json
import shutil
from multiprocessing import get_context
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, Text, cast, make_url, select, text

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.db import schema
from filter_service.db.scope import DEFAULT, only
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import LedgerPayload, LedgerRow, Table, UnsealedEntry
from filter_service.errors import DatabaseOutdated, DatabaseUnavailable
from filter_service.ledger.codec import Payload
from filter_service.reviews.queue import Filter, QueuedCase, waiting
from filter_service.rollout import stored_vectors
from filter_service.webhooks.endpoints import endpoints

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
    assert stored_vectors._quickest(sessions_of(engine)) is stored_vectors._SENT
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
    monkeypatch.setattr(schema, "__file__", str(package / "db" / "schema.py"))
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
        waiting = session.scalars(select(UnsealedEntry.entry_id)).all()
    engine.dispose()
    assert bytes.fromhex(row[0]) == Payload(row[2], row[3], salt=row[1]).commitment
    assert json.loads(row[3]) == details
    assert len(waiting) == 1


BEFORE = """
INSERT INTO policies (digest, name, document) VALUES
    (decode(repeat('01', 32), 'hex'), 'shop', '{"version": 1}'),
    (decode(repeat('02', 32), 'hex'), 'shop', '{"version": 2}'),
    (decode(repeat('03', 32), 'hex'), 'other', '{}');
INSERT INTO policy_classes (policy_id, position, name) VALUES (2, 0, 'knife');
INSERT INTO api_keys (name, prefix, digest, created_by) VALUES
    ('shop', 'fsk_a', decode(repeat('0a', 32), 'hex'), 'service'),
    ('forum', 'fsk_b', decode(repeat('0b', 32), 'hex'), 'service');
INSERT INTO webhook_endpoints (url, secret, created_by) VALUES
    ('https://shop.example/', 'whsec_a', 'key shop'),
    ('https://ours.example/', 'whsec_b', 'person admin');
INSERT INTO batches (id, policy_id, label, priority, submitted_at, total) VALUES
    ('00000000-0000-4000-8000-000000000001', 2, 'first', 0, now(), 1),
    ('00000000-0000-4000-8000-000000000002', 2, 'anew', 0, now(), 1);
INSERT INTO idempotency_keys (owner, key, request, batch_id, created_at) VALUES
    ('key shop', 'tuesday', decode(repeat('11', 32), 'hex'),
     '00000000-0000-4000-8000-000000000001', now() - interval '2 hours'),
    ('key forum', 'tuesday', decode(repeat('12', 32), 'hex'),
     '00000000-0000-4000-8000-000000000002', now()),
    ('person admin', 'tuesday', decode(repeat('13', 32), 'hex'),
     '00000000-0000-4000-8000-000000000002', now());
INSERT INTO images (digest, bytes) VALUES (decode(repeat('cd', 32), 'hex'), 9);
INSERT INTO items (batch_id, image_id, source, verdict, judged_at, class_id, margin, probability)
VALUES ('00000000-0000-4000-8000-000000000001', 1, 'a.jpg', 'flagged', now(), 1, 2.5, 0.9);
INSERT INTO items (batch_id, image_id, source, supersedes)
VALUES ('00000000-0000-4000-8000-000000000002', 1, 'a.jpg', 1);
INSERT INTO review_cases
    (item_id, stage, sampled, severity, margin, class_name, policy_id, batch_id, image_id)
VALUES (1, 'first', false, 2, 2.5, 'knife', 2, '00000000-0000-4000-8000-000000000001', 1);
INSERT INTO policy_activations
    (name, policy_id, before_id, flags, reason, proposed_by, activated_by, activated_at, batch_id)
VALUES ('shop', 2, 1, 'reevaluate', 'stricter', 'person a', 'person b', now(),
        '00000000-0000-4000-8000-000000000002');
"""

# Whose each row is once there are clients: 1 is the one called default, None the operator.
WHOSE = {
    "SELECT name FROM clients": ["default"],
    "SELECT client_id FROM api_keys WHERE NOT all_clients": [1, 1],
    "SELECT client_id FROM batches": [1, 1],
    "SELECT client_id FROM items": [1, 1],
    "SELECT client_id FROM review_cases": [1],
    "SELECT client_id FROM webhook_endpoints ORDER BY id": [1, None],
    "SELECT policy_id FROM policy_names WHERE client_id IS NULL AND name = 'shop' ORDER BY id": [
        *(1, 2)
    ],
    "SELECT count(*) FROM policy_names WHERE client_id IS NOT NULL": [0],
    "SELECT owner || ' ' || left(request::text, 4) FROM idempotency_keys ORDER BY owner": [
        r"client 1 \x11",
        r"person admin \x13",
    ],
    "SELECT activation_id FROM batches ORDER BY id": [None, 1],
    "SELECT count(*) FROM screening_checks": [0],
}


def test_what_was_here_before_clients_is_the_default_clients_and_policies_the_operators(
    empty_database_url: str,
) -> None:
    schema.upgrade(empty_database_url, "0004")
    engine = connect(empty_database_url, role=None)
    with engine.begin() as connection:
        connection.execute(text(BEFORE))
    schema.upgrade(empty_database_url)
    with engine.connect() as connection:
        found = {query: list(connection.scalars(text(query))) for query in WHOSE}
    sessions = sessions_of(engine)
    seen = [endpoints(sessions, scope=only(DEFAULT)), endpoints(sessions)]
    (case,) = _read_cases(sessions)
    engine.dispose()
    assert found == WHOSE
    assert [[e.url for e in some] for some in seen] == [
        ["https://shop.example/"],
        ["https://shop.example/", "https://ours.example/"],
    ]
    assert (case.item_id, case.client) == (1, "default")


def _read_cases(sessions: Sessions) -> list[QueuedCase]:
    admin = accounts.add_person(sessions, "admin", Profile(Role.ADMIN), None, "service")
    return waiting(sessions, admin, Filter(client="default")).cases
