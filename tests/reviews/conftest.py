"""People who review, as fixtures."""

import pytest

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from tests.support.review_cases import colleague


@pytest.fixture
def ada(sessions: Sessions) -> Person:
    return colleague(sessions, "ada")


@pytest.fixture
def ben(sessions: Sessions) -> Person:
    return colleague(sessions, "ben")


@pytest.fixture
def sue(sessions: Sessions) -> Person:
    return colleague(sessions, "sue", Role.SENIOR)
