"""Tables of stored images, and of stored bytes that belong to no image."""

from datetime import datetime

from sqlalchemy import ARRAY, VARCHAR, BigInteger, Index, text
from sqlalchemy.dialects.postgresql import BIT
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Digest, Table, big_id, now


class StoredImage(Table):
    """Bytes known by their digest; the storage keeps them."""

    __tablename__ = "images"
    __table_args__ = (
        # Those of which nothing is left are never looked at again.
        Index(
            "images_to_expire",
            "id",
            postgresql_where=text("NOT parts_gone @> '{bytes,embeddings,explanations}'"),
        ),
    )
    id: Mapped[big_id]
    digest: Mapped[str | None] = mapped_column(
        Digest, unique=True, comment="Null: erased, with everything that was computed of it."
    )
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[now]
    bytes_gone_at: Mapped[datetime | None] = mapped_column(
        comment="The storage keeps them no more: erased, or their time was over."
    )
    pdq: Mapped[str | None] = mapped_column(
        BIT(256), comment="Perceptual hash of the first frame; null: not judged, or too plain."
    )
    parts_gone: Mapped[list[str]] = mapped_column(
        ARRAY(VARCHAR),
        server_default=text("'{}'::character varying[]"),
        comment="bytes, embeddings, explanations: looked for and deleted since it was last judged.",
    )
    width: Mapped[int | None] = mapped_column(
        comment="Pixels, upright; null: not judged, or frames of several sizes."
    )
    height: Mapped[int | None] = mapped_column(comment="Likewise.")
    shown_time: Mapped[float | None] = mapped_column(
        comment="Share of its time on the screen that its frames stand for; null: not judged."
    )


class LooseBytes(Table):
    """Bytes in the storage that may be nobody's: still arriving, or to be deleted when due."""

    __tablename__ = "loose_bytes"
    __table_args__ = (Index("loose_of_digest", "digest"), Index("loose_due", "due_at"))
    id: Mapped[big_id]
    digest: Mapped[str] = mapped_column(Digest)
    due_at: Mapped[datetime]
