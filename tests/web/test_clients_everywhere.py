"""Every operation of the interface, asked about what is another client's."""

import pytest

from filter_service.db.session import Sessions
from filter_service.storage import Storage
from tests.support.every_operation import SENT, Two, named_in, two_clients


@pytest.fixture
def two(sessions: Sessions, storage: Storage) -> Two:
    return two_clients(sessions, storage)


def test_every_operation_is_one_that_is_asked_here(two: Two) -> None:
    for method, path in two.operations():
        assert named_in(path) <= set(two.known), f"{path}: say what of the other client fits"
        described = two.app.openapi()["paths"][path][method.lower()]
        if "requestBody" in described:
            assert f"{method} {path}" in SENT, f"{method} {path}: say what is sent"


def test_what_is_filled_in_is_there_for_its_own_client(two: Two) -> None:
    for method, path in two.operations():
        if method == "GET":
            assert two.ask(two.a, method, path).status_code == 200, path


def test_no_operation_gives_or_changes_what_is_anothers(two: Two) -> None:
    read = [path for method, path in two.operations() if method == "GET" and named_in(path)]
    pictures = ("overlay", "card")
    before = {p: two.ask(two.a, "GET", p).content for p in read if not p.endswith(pictures)}
    for method, path in two.operations():
        answer = two.ask(two.b, method, path)
        if named_in(path):
            assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
        else:
            assert answer.status_code < 300, f"{method} {path}: {answer.text}"
            assert not [s for s in two.secrets if s in answer.text], f"{method} {path}"
    assert {p: two.ask(two.a, "GET", p).content for p in before} == before
