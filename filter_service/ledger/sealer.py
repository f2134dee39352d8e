"""Seals ledger entries: adds them to the Merkle tree and signs a checkpoint.

One sealer works at a time, in transactions that leave all of a checkpoint or nothing. Places are
given in the order in which entries are found: one whose transaction ends late comes late.
"""

from collections.abc import Callable, Sequence

from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.db.tables import SealedEntry, StoredCheckpoint
from filter_service.errors import BrokenLedger
from filter_service.ledger.checkpoints import Checkpoint, newest_checkpoint, open_checkpoint
from filter_service.ledger.codec import Payload, leaf
from filter_service.ledger.entries import Event
from filter_service.ledger.merkle import Frontier, leaf_hash
from filter_service.ledger.signers import LedgerSigner, known, who_signs
from filter_service.ledger.tiles import extend, stored
from filter_service.settings import Settings

CHUNK = 20_000  # entries of one checkpoint at most, so that a long backlog fits in memory

_LOCK = text("SELECT pg_advisory_xact_lock(hashtext('filter_service.ledger.sealing'))")

_WAITING = text("""
    SELECT id, at, event, item_id, batch_id, commitment
    FROM ledger_unsealed JOIN ledger ON id = entry_id
    ORDER BY entry_id LIMIT :limit
""")

_PLACE = text("""
    WITH gone AS (DELETE FROM ledger_unsealed WHERE entry_id = ANY (:ids))
    INSERT INTO ledger_sealed (position, entry_id)
    SELECT :size + place - 1, entry_id
    FROM unnest(:ids ::bigint[]) WITH ORDINALITY AS given (entry_id, place)
""")

_HAND_OVERS = text("""
    SELECT id, commitment, salt, vkey, before
    FROM ledger LEFT JOIN ledger_payloads AS told ON told.entry_id = id
    LEFT JOIN (
        SELECT entry_id, vkey, lag(vkey) OVER (ORDER BY id) AS before FROM ledger_signers
    ) AS signers ON signers.entry_id = id
    WHERE id = ANY (:ids)
""")

_DUE = text("""
    SELECT (SELECT count(*) FROM (SELECT FROM ledger_unsealed LIMIT :rows) AS first) = :rows
        OR EXISTS (
            SELECT FROM (SELECT entry_id FROM ledger_unsealed ORDER BY entry_id LIMIT 1) AS oldest
            JOIN ledger ON id = entry_id WHERE at <= now() - make_interval(secs => :seconds)
        )
""")


def seal(
    sessions: Sessions,
    signer: LedgerSigner,
    limit: int = CHUNK,
    published: Callable[[Session], Checkpoint] | None = None,
) -> Checkpoint | None:
    """Seal up to so many entries in one transaction; None if none waits.

    With `published`, None, too, where that is not the tree that the database has now. Raises
    BrokenLedger, and signs nothing, when the tree is not what was signed last.
    """
    try:
        with sessions.begin() as session:
            session.execute(_LOCK)
            tree = _right_edge(session, signer)
            if published is not None:
                last = published(session)
                if (last.size, last.root) != (tree.size, tree.root()):
                    return None
            return _seal(session, signer, tree, limit)
    except IntegrityError as error:
        raise BrokenLedger(
            f"An entry that waits to be sealed has its place already ({error.orig}): somebody "
            "wrote to the ledger's tables by hand. Run `filter-service audit verify`."
        ) from error


def is_due(sessions: Sessions, settings: Settings) -> bool:
    """Whether enough entries wait, or one has for long enough."""
    limits = {"rows": settings.seal_rows, "seconds": settings.seal_seconds}
    with sessions.begin() as session:
        return bool(session.scalar(_DUE, limits))


def _seal(session: Session, signer: LedgerSigner, tree: Frontier, limit: int) -> Checkpoint | None:
    waiting = session.execute(_WAITING, {"limit": limit}).all()
    if not waiting:
        return None
    _refuse_strangers(session, signer, [e.id for e in waiting if e.event == Event.SIGNER_ADDED])
    before = tree.size
    hashes = [leaf_hash(leaf(*entry)) for entry in waiting]
    session.execute(_PLACE, {"ids": [entry.id for entry in waiting], "size": before})
    extend(session, before, hashes)
    tree.extend(hashes)
    checkpoint = Checkpoint(signer.name, tree.size, tree.root())
    keys = signer.keys(who_signs(known(session), before, tree.size))
    session.add(
        StoredCheckpoint(size=tree.size, root=checkpoint.root.hex(), note=checkpoint.note(keys))
    )
    return checkpoint


def _refuse_strangers(session: Session, signer: LedgerSigner, ids: Sequence[int]) -> None:
    """These entries each hand over to a key that is at hand, in the words of `signers`.

    To sign any other would be to vouch for a key of whoever wrote the entry.
    """
    at_hand = {key.vkey for key in (*signer.before, signer.key)}
    for entry in session.execute(_HAND_OVERS, {"ids": ids}) if ids else ():
        details = {"before": entry.before, "vkey": entry.vkey}
        told = Payload.of("service", details, entry.salt or b"")
        if entry.vkey not in at_hand or not told.opens(entry.commitment.hex()):
            raise BrokenLedger(
                f"Entry {entry.id} says that another key signs from now on, but it is not one that "
                "is kept here: nothing was signed. Unless the key was changed just now, somebody "
                "wrote to the ledger by hand; run `filter-service audit verify`."
            )


def _right_edge(session: Session, signer: LedgerSigner) -> Frontier:
    """The tree that was signed last, as far as it takes to go on from there."""
    last = newest_checkpoint(session)
    places = session.scalar(select(func.max(SealedEntry.position)))
    size = 0 if last is None else last.size
    if (-1 if places is None else places) != size - 1:
        raise BrokenLedger(
            f"The newest checkpoint is over {size:,} entries, but the last that is sealed has "
            f"place {places}: something was deleted or added. Run `filter-service audit verify`."
        )
    if last is None:
        return Frontier()
    keys = signer.keys(who_signs(known(session), size, size))  # not any that the database names
    checkpoint, _ = open_checkpoint(last.note, [key.vkey for key in keys])
    tree = Frontier.of(stored(session), size)
    if (checkpoint.origin, checkpoint.size, checkpoint.root) != (signer.name, size, tree.root()):
        raise BrokenLedger(
            f"The tree of {size:,} entries has the root {tree.root().hex()}, but what was signed "
            f"is {checkpoint.text!r}: something was changed. Run `filter-service audit verify`."
        )
    return tree
