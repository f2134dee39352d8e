"""What deletes for good shows what will go, and asks."""

import uuid

import pytest
from sqlalchemy import select

from filter_service import moderation, retention
from filter_service.db.session import Sessions
from filter_service.db.tables import Erasure, RetentionRule
from filter_service.errors import InvalidRequest
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.storage import Storage
from tests.support.command_line import Line, line, settings
from tests.support.simple_classifier import POLICY, SimpleJudge, desk_of

__all__ = ["line", "settings"]  # fixtures

ERASE = ("erase", "1", "--reason", "asked for")
ADD = ("retention", "add", "--days", "0", "--part", "bytes", "--outcome", "clear")


@pytest.fixture
def batch(sessions: Sessions, storage: Storage) -> uuid.UUID:
    """Three clear items, two of them of the same image."""
    files = [Submission("mine.jpg", b"-3 same"), Submission("theirs.jpg", b"-3 same")]
    files += [Submission("another.jpg", b"-3 other!")]
    found = submissions.accept(sessions, storage, lambda: None, files, POLICY)
    moderation.drain(desk_of(sessions, storage, SimpleJudge()), lambda: False, 60.0, lambda: None)
    return found


@pytest.mark.parametrize("words", [ERASE, ADD])
def test_with_nobody_to_ask_nothing_is_done(
    line: Line, sessions: Sessions, batch: uuid.UUID, words: tuple[str, ...]
) -> None:
    result = line.result(*words)
    assert isinstance(result.exception, InvalidRequest)
    assert "--yes" in str(result.exception)
    with sessions.begin() as session:
        assert session.scalars(select(Erasure)).all() == []
        assert session.scalars(select(RetentionRule)).all() == []


def test_an_erasure_shows_whose_bytes_go_too(line: Line, batch: uuid.UUID) -> None:
    said = line.result(*ERASE, "--yes").stderr
    assert "7 bytes" in said and "1 other items" in said
    assert f"item 2 of batch {batch}: theirs.jpg" in said
    assert "another.jpg" not in said


def test_a_rule_shows_what_goes_at_once(
    line: Line, sessions: Sessions, storage: Storage, batch: uuid.UUID
) -> None:
    said = line.result(*ADD, "--yes").stderr
    assert "2 images, with 16 bytes, of 3 items" in " ".join(said.split())
    assert retention.expire(sessions) == 2  # as it said
