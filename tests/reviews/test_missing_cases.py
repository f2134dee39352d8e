"""Flags that nothing became of wait for review, as those of before there were cases."""

import pytest
from sqlalchemy import Engine, text

from filter_service import moderation, retention
from filter_service.db.session import Sessions
from filter_service.intake import item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.reviews.missing_cases import open_missing
from filter_service.storage import Storage
from tests.support.simple_classifier import POLICY, SimpleJudge, desk_of


@pytest.fixture
def flags(sessions: Sessions, storage: Storage) -> list[int]:
    """Four flagged items and a clear one, of which the first two lost their cases."""
    files = [Submission(f"{i}", f"3 x{i}".encode()) for i in range(4)]
    files.append(Submission("clear", b"-3 y"))
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    moderation.drain(desk_of(sessions, storage, SimpleJudge()), lambda: False, 60.0, lambda: None)
    return [item.id for item in item_lists.items(sessions)]


def cases(owner: Engine) -> dict[int, tuple[object, ...]]:
    columns = "item_id, stage, sampled, severity, margin, class_name, policy_id, batch_id, image_id"
    with owner.connect() as connection:
        rows = connection.execute(text(f"SELECT {columns} FROM review_cases ORDER BY item_id"))
        return {row[0]: tuple(row) for row in rows}


def lose(owner: Engine) -> None:
    with owner.begin() as connection:
        connection.execute(text("DELETE FROM review_cases"))


def test_a_flag_without_a_case_gets_the_one_it_should_have(
    sessions: Sessions, owner: Engine, flags: list[int]
) -> None:
    before = cases(owner)
    assert list(before) == flags[:4]
    lose(owner)
    assert open_missing(sessions) == 4
    assert cases(owner) == before
    assert open_missing(sessions) == 0


def test_what_was_erased_decided_or_locked_away_gets_none(
    sessions: Sessions, storage: Storage, owner: Engine, flags: list[int]
) -> None:
    lose(owner)
    retention.erase(sessions, storage, flags[0], "asked for", "service")
    decided = (
        "INSERT INTO review_outcomes (item_id, image_id, class_name, decision, sampled) "
        "SELECT id, image_id, 'knife', 'confirmed', false FROM items WHERE id = :item"
    )
    image = "SELECT image_id FROM items WHERE id = :item"
    gone = f"UPDATE images SET bytes_gone_at = now() WHERE id = ({image})"
    with owner.begin() as connection:
        connection.execute(text(decided), {"item": flags[1]})
        connection.execute(text(gone), {"item": flags[2]})
    assert open_missing(sessions) == 1
    assert list(cases(owner)) == [flags[3]]
