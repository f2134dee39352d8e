"""The bytes of entries: as they are defined, and as they were when the first were sealed."""

import uuid
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import filter_service
from filter_service.canonical import canonical
from filter_service.ledger.codec import Payload, document, leaf, leaf_of
from tests.support.ledger_entries import leaf_of_columns

EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
BYTES_OF_32 = st.binary(min_size=32, max_size=32)

SAID = '{"actor":"person ada","details":{"class":"knife","note":"Unfug, groß"}}'
PAYLOAD = Payload.of("person ada", {"note": "Unfug, groß", "class": "knife"}, bytes(range(32)))
LEAF = (
    b'{"at":"2026-01-31T23:59:59.000007Z","batch":"6f1e4c1e-0000-4000-8000-000000000001",'
    b'"commitment":"' + b"ab" * 32 + b'","event":"judged","id":7,"item":3}'
)


@given(
    st.integers(1, 2**63 - 1),
    st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)),
    TEXT,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.uuids(),
    BYTES_OF_32,
)
def test_the_quick_way_makes_the_same_leaf(
    entry_id: int,
    at: datetime,
    event: str,
    item: int | None,
    batch: uuid.UUID | None,
    commitment: bytes,
) -> None:
    since = at - EPOCH
    micros = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    same = leaf_of_columns(entry_id, at, event, item, batch, commitment)
    assert leaf(entry_id, micros, event, item, batch and str(batch), commitment) == same
    assert leaf(entry_id, at, event, item, batch, commitment) == same


@given(TEXT, TEXT)
def test_the_quick_way_makes_the_same_payload(actor: str, note: str) -> None:
    said = {"actor": actor, "details": {"note": note}}
    assert Payload.of(actor, {"note": note}, b"").text == canonical(said)


@given(TEXT, TEXT, BYTES_OF_32)
def test_an_entry_is_read_as_it_was_written_down(actor: str, note: str, salt: bytes) -> None:
    payload = Payload.of(actor, {"note": note}, salt)
    written = document(LEAF, payload)
    assert Payload.decode(written["payload"]) == payload
    assert leaf_of(written["entry"]) == LEAF


def test_the_bytes_stay_as_they_were() -> None:
    at = datetime(2026, 1, 31, 23, 59, 59, 7, tzinfo=UTC)
    batch = uuid.UUID("6f1e4c1e-0000-4000-8000-000000000001")
    assert leaf(7, at, "judged", 3, batch, b"\xab" * 32) == LEAF
    assert PAYLOAD.text == SAID
    assert PAYLOAD.commitment == sha256(bytes(range(32)) + SAID.encode()).digest()


@pytest.mark.parametrize(
    "other",
    [{"actor": "person adb"}, {"details": "{}"}, {"salt": bytes(32)}],
    ids=["actor", "details", "salt"],
)
def test_a_commitment_is_opened_by_one_payload(other: dict[str, Any]) -> None:
    commitment = PAYLOAD.commitment.hex()
    assert PAYLOAD.opens(commitment)
    assert not PAYLOAD._replace(**other).opens(commitment)


def test_a_payload_with_another_length_of_salt_opens_nothing() -> None:
    longer = PAYLOAD._replace(salt=bytes(33))
    assert not longer.opens(longer.commitment.hex())
    assert not longer.is_unambiguous


def test_nobody_else_hashes_entries() -> None:
    rooms = Path(filter_service.__file__).parent
    hashing = {
        path.name
        for room in ("ledger", "audit")
        for path in (rooms / room).rglob("*.py")
        if "hashlib" in path.read_text()
    }
    whole_files_and_trees = {"export.py", "export_check.py", "merkle.py", "notes.py"}
    assert hashing == {"codec.py", *whole_files_and_trees}
