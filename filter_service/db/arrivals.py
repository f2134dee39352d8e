"""Rows of what arrives: images whose bytes are kept, and the queue in which items wait."""

from collections.abc import Iterable, Mapping

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service.db.tables import Image, Queued


def keep_images(session: Session, sizes: Mapping[str, int]) -> dict[str, int]:
    """The ids of images by digest; those that are new are added."""
    if not sizes:
        return {}
    rows = [{"digest": digest, "bytes": size} for digest, size in sorted(sizes.items())]
    session.execute(upsert(Image).on_conflict_do_nothing(index_elements=["digest"]), rows)
    found = session.execute(select(Image.digest, Image.id).where(Image.digest.in_(sizes)))
    return {digest: image for digest, image in found if digest is not None}


def enqueue(session: Session, items: Iterable[int], priority: int) -> None:
    """Let items with an image wait for a worker."""
    if rows := [{"item_id": item, "priority": priority} for item in items]:
        session.execute(insert(Queued), rows)
