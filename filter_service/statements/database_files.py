"""Statements as files for the DSA Transparency Database, a hundred at most in each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.canonical import canonical, text_digest
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredStatement
from filter_service.errors import InvalidStatement
from filter_service.ledger import Entry, Event
from filter_service.statements.validation import AT_ONCE, check_file
from filter_service.storage import durable


@dataclass(frozen=True, slots=True)
class StatementFile:
    """One file."""

    path: Path
    count: int


def export(
    sessions: Sessions,
    folder: Path,
    since: datetime | None = None,
    until: datetime | None = None,
    actor: str = "service",
) -> Iterator[StatementFile]:
    """Write what no export has written yet, or everything that was issued in a period.

    Each file is written, marked and put down in the ledger in one transaction of its own. If this
    is killed, at worst the last file is written again under the same name; the database refuses
    a puid that it knows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last: StoredStatement | None = None
    while True:
        with sessions.begin() as session:
            statements = list(session.scalars(_next(since, until, last)))
            if not statements:
                return
            written = _write(session, folder, statements, actor)
        last = statements[-1]
        yield written


def content(statements: Sequence[StoredStatement]) -> dict[str, Any]:
    """What one call of the database takes; InvalidStatement names every rule that it breaks."""
    whole = {"statements": [s.document for s in statements]}
    if broken := check_file(whole):
        raise InvalidStatement(
            f"The statements from {statements[0].puid} on break rules of the database. "
            f"{' '.join(broken)} Nothing of them was written."
        )
    return whole


def _next(
    since: datetime | None, until: datetime | None, last: StoredStatement | None
) -> Select[StoredStatement]:
    """The next hundred; two exports at once take different ones."""
    query = (
        select(StoredStatement)
        .order_by(StoredStatement.issued_at, StoredStatement.puid)
        .limit(AT_ONCE)
    )
    if since is None and until is None:
        query = query.where(StoredStatement.exported_at.is_(None))
        return query.with_for_update(skip_locked=True)
    if since is not None:
        query = query.where(StoredStatement.issued_at >= since)
    if until is not None:
        query = query.where(StoredStatement.issued_at < until)
    if last is not None:
        key = tuple_(StoredStatement.issued_at, StoredStatement.puid)
        query = query.where(key > (last.issued_at, last.puid))
    return query


def _write(
    session: Session, folder: Path, statements: Sequence[StoredStatement], actor: str
) -> StatementFile:
    text = canonical(content(statements))
    begin = statements[0].issued_at.astimezone(UTC)
    path = folder / f"statements-{begin:%Y%m%dT%H%M%S}-{statements[0].puid}.json"
    durable.write(path, text.encode())
    session.execute(
        update(StoredStatement)
        .where(
            StoredStatement.puid.in_([s.puid for s in statements]),
            StoredStatement.exported_at.is_(None),
        )
        .values(exported_at=func.now())
    )
    details = {
        "what": "statements",
        "format": "json",
        "rows": len(statements),
        "file": path.name,
        "digest": text_digest(text),
    }
    ledger.append(session, [Entry(Event.EXPORTED, actor, details=details)])
    return StatementFile(path, len(statements))
