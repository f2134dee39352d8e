"""Registers arriving bytes and images, which protects them from deletion, and queues items.

Bytes are kept before the rows that speak of them, and may be deleted while they are on their way
again. So whoever is about to keep some says so first (`expect`), and takes that back in the
transaction in which an item refers to them (`arrived`); what nobody took back in time is nobody's.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.orm import Session

from filter_service.db.arrays import column, columns, one_of
from filter_service.db.tables import Item, LooseBytes, StoredImage
from filter_service.errors import StorageUnavailable

ARRIVES = timedelta(days=1)  # bytes without an item are deleted after that

_FADED = StoredImage.bytes_gone_at.is_not(None) | (func.cardinality(StoredImage.parts_gone) > 0)

# Shared by those who keep the same bytes, exclusive for `retention.orphaned_bytes`, which deletes.
_TURN = text("""
    SELECT pg_advisory_xact_lock_shared(hashtext('filter_service bytes'), turn)
    FROM unnest(:turns ::integer[]) AS turn
""")

# Numbers are given out in the order of the rows, so that the smallest is the first one's.
_EXPECT = text("""
    INSERT INTO loose_bytes (digest, due_at)
    SELECT digest, now() + :arrives
    FROM unnest(:digests ::bytea[]) WITH ORDINALITY AS new (digest, place)
    ORDER BY place RETURNING id
""")

_IMAGES = text("""
    INSERT INTO images (digest, bytes)
    SELECT * FROM unnest(:digests ::bytea[], :sizes ::bigint[])
    ON CONFLICT (digest) DO NOTHING
""")

_WAITING = text("""
    INSERT INTO queue (item_id, priority) SELECT unnest(:items ::bigint[]), :priority
""")


def turn(digest: str) -> int:
    """Whose turn it is with some bytes is a matter of this number."""
    return int.from_bytes(bytes.fromhex(digest[:8]), signed=True)


def expect(session: Session, digests: Sequence[str]) -> list[int]:
    """Say that these bytes are about to be kept; to be committed before they are."""
    session.execute(_TURN, {"turns": sorted({turn(d) for d in digests})})
    rows = {"digests": [bytes.fromhex(d) for d in digests], "arrives": ARRIVES}
    return sorted(session.scalars(_EXPECT, rows).all()) if digests else []


def arrived(session: Session, expected: Collection[int]) -> None:
    """Items refer to these bytes from now on; raises StorageUnavailable if they came too late."""
    if not expected:
        return
    gone = delete(LooseBytes).where(one_of(LooseBytes.id, expected)).returning(LooseBytes.id)
    if len(session.scalars(gone).all()) < len(expected):
        raise StorageUnavailable(
            f"Some of {len(expected)} files took longer than {ARRIVES.days} day from being kept to "
            "being queued and may have been deleted: submit them again."
        )


def unwanted(session: Session, expected: Collection[int]) -> None:
    """The caller has no use for these bytes after all: they go soon, unless they are another's."""
    gone = delete(LooseBytes).where(LooseBytes.id.in_(expected)).returning(LooseBytes.digest)
    if rows := [{"digest": d, "due_at": func.now()} for d in session.scalars(gone)]:
        session.execute(insert(LooseBytes).values(rows))


def keep_images(session: Session, sizes: Mapping[str, int]) -> dict[str, int]:
    """The ids of images by digest; those that are new are added, and nothing of them is gone.

    Nobody deletes them until the caller's transaction has ended; by then an item is in the way.
    """
    ids: dict[str, int] = {}
    faded: list[int] = []
    while missing := sorted(sizes.keys() - ids.keys()):  # again if one was erased just now
        rows = [(bytes.fromhex(digest), sizes[digest]) for digest in missing]
        session.execute(_IMAGES, columns("digests sizes", rows))
        here = (
            select(StoredImage.digest, StoredImage.id, _FADED)
            .where(one_of(StoredImage.digest, missing))
            .order_by(StoredImage.id)  # as everybody who locks several
            .with_for_update(read=True, key_share=True)
        )
        for digest, image, is_faded in session.execute(here).all():
            if digest is not None:
                ids[digest] = image
                faded += [image] if is_faded else []
    if faded:
        back = update(StoredImage).where(one_of(StoredImage.id, faded))
        session.execute(back.values(bytes_gone_at=None, parts_gone=[]))
    return ids


def hold_images(session: Session, images: Collection[int]) -> None:
    """Nobody deletes these while the caller's transaction lasts; some may be gone already."""
    rows = select(StoredImage.id).where(StoredImage.id.in_(images)).order_by(StoredImage.id)
    session.execute(rows.with_for_update(read=True, key_share=True)).all()


def enqueue(session: Session, items: Sequence[int], priority: int) -> None:
    """Let items with an image wait for a worker."""
    enqueue_kept(session, items, priority)
    if items:
        _compute_again(session, items)


def enqueue_kept(session: Session, items: Sequence[int], priority: int) -> None:
    """The same for items of images that were kept in this transaction."""
    if items:
        session.execute(_WAITING, {"items": column(items), "priority": priority})


def _compute_again(session: Session, items: Sequence[int]) -> None:
    """What is judged may have vectors and explanations again, which have their own time."""
    images = select(Item.image_id).where(one_of(Item.id, items))
    anew = update(StoredImage).where(
        StoredImage.id.in_(images), func.cardinality(StoredImage.parts_gone) > 0
    )
    left = func.array_remove(
        func.array_remove(StoredImage.parts_gone, "embeddings"), "explanations"
    )
    session.execute(anew.values(parts_gone=left).execution_options(synchronize_session=False))
