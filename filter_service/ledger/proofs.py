"""Makes and checks inclusion and consistency proofs, as JSON documents.

A proof is a document of JSON that a person can read and any program can check, without a database.
"""

from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import SealedEntry, StoredCheckpoint
from filter_service.errors import BrokenLedger, InvalidRequest, UnknownItem
from filter_service.ledger.checkpoints import Checkpoint, newest_checkpoint, open_checkpoint
from filter_service.ledger.codec import Payload, leaf_of
from filter_service.ledger.entry_stream import history
from filter_service.ledger.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from filter_service.ledger.notes import VerifiedNote, VerifyingKey, split
from filter_service.ledger.tiles import stored

FORMAT = "filter-service ledger proof 1"


@dataclass(frozen=True, slots=True)
class Inclusion:
    """That an entry is in the tree of one size (RFC 9162, 2.1.3)."""

    position: int  # of its leaf, from 0
    size: int  # of the tree of the newest checkpoint
    proof: tuple[bytes, ...]  # hashes of the other branches, from the leaf to the root


@dataclass(frozen=True, slots=True)
class Consistency:
    """That a tree only added to an older one (RFC 9162, 2.1.4)."""

    old: Checkpoint
    new: Checkpoint
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Proven:
    """What a document of proofs shows."""

    item: int
    entries: int  # in the tree
    waiting: int  # not in it yet, so that nothing shows that they are as they were
    hidden: int  # without their payload: erased, or left out of the document
    checkpoint: Checkpoint
    signers: tuple[str, ...]


def inclusion_of(session: Session, entry_ids: Collection[int]) -> dict[int, Inclusion]:
    """Proofs for those of these entries that are sealed; the others wait, and are left out."""
    size = session.scalar(select(func.max(StoredCheckpoint.size)))
    if size is None or not entry_ids:
        return {}
    places = select(SealedEntry.entry_id, SealedEntry.position).where(
        SealedEntry.entry_id.in_(entry_ids), SealedEntry.position < size
    )
    read = stored(session)
    return {
        entry_id: Inclusion(position, size, tuple(inclusion_proof(read, position, size)))
        for entry_id, position in session.execute(places)
    }


def prove(sessions: Sessions, item_id: int) -> dict[str, Any]:
    """A document with everything that happened to an item, and the proofs of it.

    Raises UnknownItem when nothing ever happened to it.
    """
    with sessions() as session:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        found = history(session, item_id)
        if not found:
            raise UnknownItem(
                f"The ledger has no entry of item {item_id}: look for its number with "
                "`filter-service items`."
            )
        proofs = inclusion_of(session, [written.entry_id for written in found])
        checkpoint = newest_checkpoint(session)
    told = [(written.document, proofs.get(written.entry_id)) for written in found]
    return proof_document(item_id, checkpoint, told)


def proof_document(
    item_id: int,
    checkpoint: StoredCheckpoint | None,
    told: Sequence[tuple[dict[str, Any], Inclusion | None]],
) -> dict[str, Any]:
    """Entries of an item as `check_proof` takes them, each with its proof unless it waits."""
    return {
        "format": FORMAT,
        "item": item_id,
        "checkpoint": checkpoint and checkpoint.note,
        "entries": [_proven(entry, proof) for entry, proof in told if proof],
        "waiting": [entry for entry, proof in told if proof is None],
    }


def check_proof(document: Any, vkeys: Sequence[str]) -> Proven:  # noqa: ANN401  (what JSON holds)
    """Check a document that `prove` made, with nothing but keys: BrokenLedger names what is wrong.

    Nothing of it is believed but the signature of one of the keys. That no entry of the item was
    left out of the document is not shown by it.
    """
    try:
        return _check(document, vkeys)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise BrokenLedger(
            f"This is not a document that `filter-service audit prove` made ({error!r}): it was "
            "changed, or is another file."
        ) from error


def consistency(
    sessions: Sessions, old: int | Checkpoint, new: int | Checkpoint, vkeys: Sequence[str]
) -> Consistency:
    """That the tree of `new` only added to that of `old`: BrokenLedger if it did not.

    A size stands for the checkpoint in the database; a checkpoint is one that somebody kept, whose
    signature is checked already.
    """
    with sessions() as session:
        older, newer = (_checkpoint(session, given, vkeys) for given in (old, new))
        if older.size > newer.size:
            raise InvalidRequest(
                f"The first tree has {older.size:,} entries and the second {newer.size:,}: give "
                "the older one first."
            )
        if older.origin != newer.origin:
            raise BrokenLedger(
                f"The checkpoints are of two logs, {older.origin!r} and {newer.origin!r}."
            )
        proof = tuple(consistency_proof(stored(session), older.size, newer.size))
    verify_consistency(older.size, older.root, newer.size, newer.root, proof)
    return Consistency(older, newer, proof)


def opened_with(vkeys: Sequence[str], note: str) -> tuple[Checkpoint, VerifiedNote]:
    """The checkpoint in a note that one of these keys signed, and by whom it is signed."""
    signers = {(name, content[:4]) for name, content in split(note)[1]}
    if signers.isdisjoint((key.name, key.id) for key in map(VerifyingKey.of, vkeys)):
        names = ", ".join(f"{name}+{key_id.hex()}" for name, key_id in signers)
        raise BrokenLedger(
            f"No known key signed this checkpoint, but {names}. If the key was changed since you "
            "got yours, give the newer one, too: `filter-service audit verify` with yours names "
            "every key that it leads to."
        )
    return open_checkpoint(note, vkeys)


def _proven(entry: dict[str, Any], inclusion: Inclusion) -> dict[str, Any]:
    proof = [b64encode(hashed).decode() for hashed in inclusion.proof]
    return {**entry, "position": inclusion.position, "proof": proof}


def _check(document: Mapping[str, Any], vkeys: Sequence[str]) -> Proven:
    if document["format"] != FORMAT:
        raise ValueError(f"its format is {document['format']!r}")
    if document["checkpoint"] is None:
        raise BrokenLedger("Nothing was sealed when this was made: ask for it again later.")
    checkpoint, opened = opened_with(vkeys, document["checkpoint"])
    for proven in document["entries"]:
        hashed = leaf_hash(leaf_of(proven["entry"]))
        proof = [b64decode(beside, validate=True) for beside in proven["proof"]]
        verify_inclusion(hashed, proven["position"], checkpoint.size, checkpoint.root, proof)
    told = [*document["entries"], *document["waiting"]]
    if len({one["entry"]["id"] for one in told}) < len(told):
        raise BrokenLedger("It tells of one entry more than once: entries were repeated.")
    for one in told:
        _check_payload(one, document["item"])
    return Proven(
        item=document["item"],
        entries=len(document["entries"]),
        waiting=len(document["waiting"]),
        hidden=sum(one["payload"] is None for one in told),
        checkpoint=checkpoint,
        signers=opened.verified,
    )


def _check_payload(told: Mapping[str, Any], item: int) -> None:
    """The payload, if it is there, is what the entry of this item committed to."""
    entry, given = told["entry"], told["payload"]
    if entry["item"] != item:
        raise BrokenLedger(f"Entry {entry['id']} is of item {entry['item']} and not of {item}.")
    if given is None:
        return
    payload = Payload.decode(given)
    if not payload.is_unambiguous:
        raise ValueError(f"the payload of entry {entry['id']} is none")
    if not payload.opens(entry["commitment"]):
        raise BrokenLedger(
            f"The payload of entry {entry['id']} ({entry['event']}, item {item}) is not what it "
            "committed to: its salt, actor or details were changed."
        )


def _checkpoint(session: Session, given: int | Checkpoint, vkeys: Sequence[str]) -> Checkpoint:
    if isinstance(given, Checkpoint):
        return given
    found = session.get(StoredCheckpoint, given)
    if found is None:
        below = select(StoredCheckpoint.size).where(StoredCheckpoint.size < given)
        nearest = session.scalar(below.order_by(StoredCheckpoint.size.desc()).limit(1))
        hint = f"one below is {nearest}" if nearest else "none is smaller"
        raise InvalidRequest(
            f"There is no checkpoint of size {given}; {hint}. Give the size of one, or a file that "
            "holds one."
        )
    return opened_with(vkeys, found.note)[0]
