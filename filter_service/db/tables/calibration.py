"""Table of labels: what is true of an image and a class."""

from sqlalchemy import BigInteger, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from filter_service.db.tables.columns import Table, now


class StoredLabel(Table):
    """The truth about one image and one class, whatever encoder looks at it."""

    __tablename__ = "labels"
    __table_args__ = (
        Index("labels_of_class", "class_name", text("at DESC"), text("image_id DESC")),
        Index("labels_of_item", "item_id", postgresql_where=text("item_id IS NOT NULL")),
    )
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    class_name: Mapped[str] = mapped_column(primary_key=True)
    truth: Mapped[bool] = mapped_column(comment="The image shows it.")
    source: Mapped[str] = mapped_column(comment="flag, sample, appeal or upload.")
    chance: Mapped[float | None] = mapped_column(
        comment="With which it came to be known; null: unknown, or not by the margin."
    )
    item_id: Mapped[int | None] = mapped_column(
        ForeignKey("items.id"), comment="That was decided; null: uploaded."
    )
    review_id: Mapped[int | None] = mapped_column(BigInteger, comment="The decision that stands.")
    at: Mapped[now]
