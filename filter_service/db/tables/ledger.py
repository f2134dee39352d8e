"""Tables of the ledger: entries, positions in the tree, tiles, checkpoints and signers."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, SmallInteger, outerjoin, text
from sqlalchemy.orm import Mapped, column_property, mapped_column

from filter_service.db.tables.columns import Digest, Table, big_id, exact_json, now, small_id


class LedgerRow(Table):
    """One thing that happened; rows are added and never changed, which triggers enforce."""

    __tablename__ = "ledger"
    __table_args__ = (
        Index("ledger_of_item", "item_id", "id"),
        Index("ledger_of_batch", "batch_id", "id"),
    )
    id: Mapped[big_id]
    at: Mapped[now]
    event: Mapped[str]
    item_id: Mapped[int | None] = mapped_column(BigInteger)
    batch_id: Mapped[uuid.UUID | None]
    commitment: Mapped[str] = mapped_column(Digest, comment="SHA-256 of salt and payload.")


class LedgerPayload(Table):
    """Who did it and what it was about: what may have to be erased stays outside the tree."""

    __tablename__ = "ledger_payloads"
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), primary_key=True)
    salt: Mapped[bytes]
    actor: Mapped[str]
    details: Mapped[exact_json]


class LedgerEntry(Table):
    """An entry with its payload, to be read; actor and details are None once they are erased."""

    __table__ = outerjoin(LedgerRow.__table__, LedgerPayload.__table__)
    id: Mapped[int] = column_property(LedgerRow.__table__.c.id)
    at: Mapped[datetime]
    event: Mapped[str]
    item_id: Mapped[int | None]
    batch_id: Mapped[uuid.UUID | None]
    commitment: Mapped[str]
    actor: Mapped[str]
    details: Mapped[dict[str, Any]]


class UnsealedEntry(Table):
    """An entry that waits for its place in the tree; the row goes when it has one."""

    __tablename__ = "ledger_unsealed"
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), primary_key=True)


class SealedEntry(Table):
    """The place of an entry in the tree: leaves are counted from 0."""

    __tablename__ = "ledger_sealed"
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), unique=True)


class Tile(Table):
    """Up to 256 hashes of one level of the tree, side by side (C2SP tlog-tiles)."""

    __tablename__ = "ledger_tiles"
    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hashes: Mapped[bytes] = mapped_column(comment="32 bytes each; the last tile grows.")


class StoredCheckpoint(Table):
    """A signed statement of what the tree was at one size."""

    __tablename__ = "ledger_checkpoints"
    __table_args__ = (
        Index("checkpoints_to_publish", "size", postgresql_where=text("published_at IS NULL")),
    )
    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[str] = mapped_column(Digest)
    note: Mapped[str] = mapped_column(comment="C2SP tlog-checkpoint, signed.")
    at: Mapped[now]
    published_at: Mapped[datetime | None] = mapped_column(comment="Outside the database.")


class StoredSigner(Table):
    """A key that signs checkpoints, by its public part; the newest signs, the others did."""

    __tablename__ = "ledger_signers"
    id: Mapped[small_id]
    vkey: Mapped[str] = mapped_column(unique=True, comment="C2SP signed-note verifier key.")
    entry_id: Mapped[int] = mapped_column(ForeignKey("ledger.id"), comment="Signer added.")
    added_at: Mapped[now]
