"""Finds entries' positions in the Merkle tree, and checks their inclusion proofs."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Text, cast, select
from sqlalchemy.orm import Session

from filter_service.db.tables import LedgerPayload, LedgerRow
from filter_service.errors import BrokenLedger
from filter_service.ledger.checkpoints import Checkpoint, newest_checkpoint, parse
from filter_service.ledger.codec import Payload, document, leaf
from filter_service.ledger.merkle import leaf_hash, verify_inclusion
from filter_service.ledger.notes import split
from filter_service.ledger.proofs import Inclusion, inclusion_of


@dataclass(frozen=True, slots=True)
class Step:
    """One hash on the way from a leaf to the root, and on which side it stands."""

    left: bool
    beside: bytes


@dataclass(frozen=True, slots=True)
class LogPosition:
    """One entry as anybody can check it: what it commits to, its leaf, and its way to the root."""

    leaf: bytes  # its data: canonical JSON
    commitment: str
    payload: Payload | None  # None: erased
    inclusion: Inclusion | None  # None: it waits to be sealed
    broken: str | None  # what is wrong with it, in a sentence

    @property
    def leaf_hash(self) -> str:
        return leaf_hash(self.leaf).hex()

    @property
    def document(self) -> dict[str, Any]:
        """To be written down elsewhere."""
        return document(self.leaf, self.payload)

    @property
    def steps(self) -> list[Step]:
        """The hashes of the proof, from the leaf up."""
        return list(_steps(self.inclusion)) if self.inclusion else []


def places_of(session: Session, entry_ids: Iterable[int]) -> dict[int, LogPosition]:
    """The places of some entries, each checked against the newest checkpoint."""
    wanted = sorted(entry_ids)
    proofs: Mapping[int, Inclusion] = {}
    signed, broken = None, None
    try:
        if stored := newest_checkpoint(session):
            signed = parse(split(stored.note)[0])
        proofs = inclusion_of(session, wanted)
    except BrokenLedger as error:
        broken = str(error)
    details = cast(LedgerPayload.details, Text)
    rows = (
        select(LedgerRow, LedgerPayload.actor, details, LedgerPayload.salt)
        .outerjoin(LedgerPayload, LedgerPayload.entry_id == LedgerRow.id)
        .where(LedgerRow.id.in_(wanted))
    )
    positions = {}
    for row, actor, written, salt in session.execute(rows):
        payload = None if salt is None else Payload(actor, written, salt)
        place = _place(row, payload, proofs.get(row.id), signed)
        positions[row.id] = place if broken is None else replace(place, broken=broken)
    return positions


def _place(
    row: LedgerRow, payload: Payload | None, inclusion: Inclusion | None, signed: Checkpoint | None
) -> LogPosition:
    committed = bytes.fromhex(row.commitment)
    data = leaf(row.id, row.at, row.event, row.item_id, row.batch_id, committed)
    broken = None
    if payload is not None and not payload.opens(row.commitment):
        broken = "What it says is not what it committed to."
    elif inclusion is not None and signed is not None:
        broken = _misplaced(data, inclusion, signed)
    return LogPosition(data, row.commitment, payload, inclusion, broken)


def _misplaced(data: bytes, inclusion: Inclusion, signed: Checkpoint) -> str | None:
    """None where the proof leads from the leaf to the root that was signed."""
    try:
        verify_inclusion(
            leaf_hash(data), inclusion.position, signed.size, signed.root, inclusion.proof
        )
    except BrokenLedger as error:
        return str(error)
    return None


def _steps(inclusion: Inclusion) -> Iterator[Step]:
    """As RFC 9162, 2.1.3.2 goes: a hash stands left of an odd one and of the last of its row."""
    at, last = inclusion.position, inclusion.size - 1
    for beside in inclusion.proof:
        left = bool(at & 1) or at == last
        yield Step(left, beside)
        while left and not at & 1 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
