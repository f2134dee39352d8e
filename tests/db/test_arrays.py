"""Columns travel as arrays, and what arrives is what was sent."""

import uuid
from typing import Any

import pytest
from sqlalchemy import select, text

from filter_service.db.arrays import columns, one_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Tally

COLUMNS: dict[str, list[Any]] = {
    "bigint": [0, -1, 2**62],
    "int": [1, None, 3],
    "double precision": [0.1, -1e300, 5e-324],
    "boolean": [True, False, True],
    "varchar": ['{"a":"\\\\"}', "", "ü, NULL"],
    "bytea": [b"\x00\\", b"", bytes(range(256))],
    "uuid": [uuid.UUID(int=i) for i in (0, 1, 2**128 - 1)],
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_arrives_as_it_was_sent(sessions: Sessions, kind: str) -> None:
    rows: list[tuple[Any]] = [(value,) for value in COLUMNS[kind]]
    with sessions.begin() as session:
        arrived = session.scalars(
            text(f"SELECT unnest(:values ::{kind}[])"), columns("values", rows)
        )
        assert list(arrived) == COLUMNS[kind]


def test_no_rows_are_empty_columns() -> None:
    assert columns("a b", []) == {"a": [], "b": []}


@pytest.mark.parametrize(("kinds", "expected"), [(["a", "c"], 2), ([], 0)])
def test_rows_are_found_by_a_list_of_values(
    sessions: Sessions, kinds: list[str], expected: int
) -> None:
    with sessions.begin() as session:
        session.add_all([Tally(kind=kind, amount=1) for kind in "abc"])
        session.flush()
        found = session.scalars(select(Tally.kind).where(one_of(Tally.kind, kinds)))
        assert len(found.all()) == expected
