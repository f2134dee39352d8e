"""Statements as files for the database, by commands, and on their page."""

import json
import uuid
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, insert, select, text
from typer.testing import CliRunner, Result

from filter_service.accounts import Role
from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry, Person, StoredStatement
from filter_service.errors import InvalidStatement
from filter_service.policy import parse_policy
from filter_service.statements import database_files
from filter_service.statements.issuance import issue_due
from filter_service.statements.payload import document
from filter_service.statements.validation import check_file
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.review_cases import colleague, events_of
from tests.support.statements import (
    decided,
    items_of,
    reasons,
    statements,
    waiting,
    with_class,
)
from tests.support.web_clients import client_of, web_service


@pytest.fixture
def anna(sessions: Sessions) -> Person:
    return colleague(sessions, "anna")


@pytest.fixture
def many(sessions: Sessions) -> None:
    """Two hundred and thirty statements."""
    said = document(reasons(), "A computer program found the picture.")
    rows = [
        {
            "puid": (puid := uuid.uuid4()),
            "item_id": item,
            "language": "en",
            "document": {**said, "puid": str(puid)},
            "notice": "",
        }
        for item in items_of(sessions, *["gun"] * 230)
    ]
    with sessions.begin() as session:
        session.execute(insert(StoredStatement), rows)


def test_files_hold_a_hundred_each_and_all_once(
    sessions: Sessions, many: None, tmp_path: Path
) -> None:
    written = list(database_files.export(sessions, tmp_path / "out"))
    assert [w.count for w in written] == [100, 100, 30]
    contents = [json.loads(w.path.read_text()) for w in written]
    assert [check_file(c) for c in contents] == [[], [], []]
    assert len({s["puid"] for c in contents for s in c["statements"]}) == 230
    assert list(database_files.export(sessions, tmp_path / "out")) == []
    with sessions.begin() as session:
        told = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "exported")).all()
    assert [e.details["digest"] for e in told] == [
        sha256(w.path.read_bytes()).hexdigest() for w in written
    ]


def test_an_export_that_was_killed_goes_on(sessions: Sessions, many: None, tmp_path: Path) -> None:
    first = next(database_files.export(sessions, tmp_path))
    rest = list(database_files.export(sessions, tmp_path))
    assert [first.count, *(w.count for w in rest)] == [100, 100, 30]
    assert len({first.path, *(w.path for w in rest)}) == 3


def test_a_period_is_exported_again_on_demand(
    sessions: Sessions, many: None, tmp_path: Path
) -> None:
    list(database_files.export(sessions, tmp_path))
    long_ago, now = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
    again = list(database_files.export(sessions, tmp_path, since=long_ago, until=now))
    assert sum(w.count for w in again) == 230
    assert list(database_files.export(sessions, tmp_path, since=now)) == []


def test_what_breaks_a_rule_is_not_exported(
    sessions: Sessions, many: None, owner: Engine, tmp_path: Path
) -> None:
    with owner.begin() as connection:
        spoilt = """UPDATE statements SET document = '{"puid": "a b"}'"""
        connection.execute(text(spoilt))
    with pytest.raises(InvalidStatement, match="puid is 'a b'"):
        list(database_files.export(sessions, tmp_path))
    assert list(tmp_path.iterdir()) == []


# By commands.


def ran(database_url: str, folder: Path, *words: str) -> Result:
    environment = {
        "FILTER_SERVICE_DATABASE_URL": database_url,
        "FILTER_SERVICE_BROKER_URL": "redis://127.0.0.1:9/0",
        "FILTER_SERVICE_DATA_DIR": str(folder),
    }
    return CliRunner().invoke(app, ["statements", *words], env=environment)


def test_commands_issue_show_and_export(
    sessions: Sessions, anna: Person, database_url: str, tmp_path: Path
) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    assert "1 statements were issued" in ran(database_url, tmp_path, "issue").stdout
    assert "stands" in ran(database_url, tmp_path, "issue", str(item)).stdout
    assert "About your picture on Marketplace" in ran(database_url, tmp_path, "show", "1").stdout
    assert ran(database_url, tmp_path, "show", "1", "--html").stdout.startswith("<!doctype html>")
    shown = json.loads(ran(database_url, tmp_path, "show", "1", "--json").stdout)
    assert shown["puid"] == str(statements(sessions)[0].puid)
    done = ran(database_url, tmp_path, "export", "--out", str(tmp_path / "out"))
    (file,) = (tmp_path / "out").iterdir()
    assert str(file) in done.stdout
    assert ran(database_url, tmp_path, "check", str(file)).exit_code == 0
    (other,) = items_of(sessions, "fork")
    assert "no statement has to be" in ran(database_url, tmp_path, "issue", str(other)).stdout
    assert ran(database_url, tmp_path, "show", str(other)).exit_code == 1


# On their page.


@pytest.fixture
def page(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


def test_the_page_shows_notice_and_document(
    page: FastAPI, sessions: Sessions, anna: Person
) -> None:
    (item,) = items_of(sessions, "knife")
    auditor = client_of(page, sessions, Role.AUDITOR)
    assert "No statement of reasons" in auditor.get(f"/items/{item}/statement").text
    decided(sessions, anna, item)
    answer = auditor.post(f"/items/{item}/statement")
    assert "Weapons Act, section 42a" in answer.text
    assert "Sie können sich bei uns beschweren." in answer.text
    assert "STATEMENT_CATEGORY_UNSAFE_AND_PROHIBITED_PRODUCTS" in answer.text


def test_downloads_are_written_down(page: FastAPI, sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    issue_due(sessions)
    (stated,) = statements(sessions)
    auditor = client_of(page, sessions, Role.AUDITOR)
    at = f"/items/{item}/statement/{stated.puid}"
    assert check_file(auditor.get(f"{at}.json").json()) == []
    assert auditor.get(f"{at}.txt").text == stated.notice
    assert auditor.get(f"{at}.html").headers["content-disposition"].startswith("attachment")
    assert auditor.get(f"{at}.exe").status_code == 422
    assert auditor.get(f"/items/{item}/statement/{uuid.UUID(int=1)}.txt").status_code == 404
    assert events_of(sessions, item).count("exported") == 3


def test_what_cannot_be_issued_says_why(page: FastAPI, sessions: Sessions, anna: Person) -> None:
    told = parse_policy(with_class(explanation="Ask anna@example.org why."))
    (item,) = items_of(sessions, "gun", of=told)
    decided(sessions, anna, item)
    auditor = client_of(page, sessions, Role.AUDITOR)
    answer = auditor.post(f"/items/{item}/statement")
    assert "holds an e-mail address (anna@example.org)" in answer.text
    assert waiting(sessions) == [item]


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.SENIOR, Role.POLICY_EDITOR])
def test_only_those_who_export_read_it(page: FastAPI, sessions: Sessions, role: Role) -> None:
    (item,) = items_of(sessions, "gun")
    assert client_of(page, sessions, role).get(f"/items/{item}/statement").status_code == 403


def test_a_closed_class_stays_closed(page: FastAPI, sessions: Sessions) -> None:
    (item,) = items_of(sessions, "gun")
    auditor = client_of(page, sessions, Role.AUDITOR, classes=("knife",))
    assert auditor.get(f"/items/{item}/statement").status_code == 403
