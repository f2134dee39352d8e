"""The commands for people and keys, on a real database."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.errors import InvalidRequest, NotSignedIn

PASSWORD = "correct horse battery staple"


class Line:
    """The command line, in this process."""

    def __call__(self, *words: str, typed: str = "") -> str:
        """What a command prints that succeeds."""
        result = self.result(*words, typed=typed)
        assert result.exit_code == 0, result.output
        return result.stdout

    def result(self, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(app, words, input=typed)

    def rows(self, *words: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*words, "--json").splitlines()]


@pytest.fixture
def line(
    database_url: str, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Line:
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", database_url)
    monkeypatch.setenv("FILTER_SERVICE_BROKER_URL", broker_url)
    monkeypatch.setenv("FILTER_SERVICE_DATA_DIR", str(tmp_path))
    return Line()


def knows(sessions: Sessions, login: str, password: str) -> bool:
    try:
        accounts.authenticate(sessions, login, password, "192.0.2.1")
    except NotSignedIn:
        return False
    return True


def test_the_first_admin_types_a_password_twice(line: Line, sessions: Sessions) -> None:
    said = line("user", "add", "Ada", "--role", "admin", typed=f"{PASSWORD}\n{PASSWORD}\n")
    assert said.split() == ["ada", "is", "admin"]
    assert knows(sessions, "ada", PASSWORD)


def test_a_password_is_made_and_printed_alone(line: Line, sessions: Sessions) -> None:
    made = line("user", "add", "ada", "--role", "moderator", "--generate").strip()
    assert knows(sessions, "ada", made)
    again = line("user", "password", "ada", "--generate").strip()
    assert not knows(sessions, "ada", made)
    assert knows(sessions, "ada", again)


def test_everything_about_somebody_can_be_said(line: Line) -> None:
    words = ("--name", "Ada", "--classes", "gun, knife", "--cap", "7", "--subject", "sub-1")
    line("user", "add", "ada", "--role", "senior", *words, "--no-password")
    line("user", "add", "eve", "--role", "auditor", "--password-stdin", typed=f"{PASSWORD}\r\n")
    line("user", "disable", "eve")
    ada, eve = line.rows("user", "list")
    assert ada | {"created": ""} == {
        "login": "ada",
        "name": "Ada",
        "role": "senior",
        "classes": ["gun", "knife"],
        "cap": 7,
        "subject": "sub-1",
        "created": "",
        "disabled": None,
    }
    assert eve["disabled"]
    line("user", "enable", "eve")
    assert line.rows("user", "list")[1]["disabled"] is None
    assert "gun, knife" in line("user", "list")


def test_wrong_words_are_refused_with_a_sentence(line: Line, sessions: Sessions) -> None:
    for words, sentence in (
        (("--role", "king", "--generate"), "'king' is none of admin"),
        (("--role", "service", "--generate"), "'service' is none of admin"),
        (("--role", "admin", "--generate", "--password-stdin"), "not both"),
    ):
        result = line.result("user", "add", "ada", *words)
        assert result.exit_code == 2
        assert sentence in " ".join(result.output.replace("│", "").split())
    weak = line.result("user", "add", "ada", "--role", "admin", "--password-stdin", typed="short\n")
    assert isinstance(weak.exception, InvalidRequest)
    assert accounts.everybody(sessions) == []


def test_the_last_admin_is_not_disabled(line: Line, sessions: Sessions) -> None:
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN), None, "service")
    assert "is the last admin" in str(line.result("user", "disable", "ada").exception)


def test_a_key_is_printed_once_and_revoked(line: Line, sessions: Sessions) -> None:
    assert line("key", "list") == ""
    secret = line("key", "add", "shop").strip()
    key = accounts.key_of(sessions, secret)
    assert secret not in line("key", "list")
    assert "is revoked" in line("key", "revoke", str(key.id))
    (row,) = line.rows("key", "list")
    assert (row["name"], row["starts with"], row["by"]) == ("shop", secret[:12], "service")
    assert row["revoked"]
