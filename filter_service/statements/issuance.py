"""Issues statements of reasons for restrictions, and withdraws them when these end."""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.canonical import canonical, text_digest
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, StatementDue, StoredStatement
from filter_service.errors import DatabaseUnavailable, InvalidStatement, UnknownItem
from filter_service.ledger import Entry, Event
from filter_service.statements import personal_data, wording
from filter_service.statements.payload import document
from filter_service.statements.reasons import Reasons, hidden_in, reasons_of
from filter_service.statements.validation import check

ACTOR = "service"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IssuanceResult:
    """What became of one item's statement."""

    item_id: int
    puid: uuid.UUID | None  # of the statement that stands; None: none has to
    new: bool = False
    withdrawn: bool = False


def issue_due(sessions: Sessions, limit: int = 500) -> int:
    """Issue and withdraw what decisions ask for; how many.

    Each in a transaction of its own, so that this may be killed anywhere and run several times at
    once. What breaks a rule waits, with its problem, until somebody asks for it again.
    """
    return sum(_attempt(sessions, item_id) for item_id in _due(sessions, 0, limit))


def issue_all(sessions: Sessions) -> int:
    """The same for everything that waits now, however much it is."""
    count, last = 0, 0
    while ids := _due(sessions, last, 500):
        count += sum(_attempt(sessions, item_id) for item_id in ids)
        last = ids[-1]
    return count


def issue(sessions: Sessions, item_id: int) -> IssuanceResult:
    """Issue an item's statement if there has to be one and is none, or withdraw it.

    Doing it twice does it once. Raises UnknownItem, or InvalidStatement with every broken rule.
    """
    with sessions.begin() as session:
        _lock(session, item_id)
        session.execute(delete(StatementDue).where(StatementDue.item_id == item_id))
        return _issue(session, item_id)


def problems(sessions: Sessions, limit: int = 100) -> list[tuple[int, str]]:
    """Items whose statements could not be issued, with the reasons."""
    query = (
        select(StatementDue.item_id, StatementDue.problem)
        .where(StatementDue.problem.is_not(None))
        .order_by(StatementDue.item_id)
        .limit(limit)
    )
    with sessions.begin() as session:
        return [(item, problem or "") for item, problem in session.execute(query)]


def problem_of(sessions: Sessions, item_id: int) -> str:
    """Why an item's statement could not be issued so far; empty: nothing is known to be wrong."""
    with sessions.begin() as session:
        due = session.get(StatementDue, item_id)
    return (due.problem if due else None) or ""


def statements_of(sessions: Sessions, item_id: int) -> Sequence[StoredStatement]:
    """An item's statements, the one that stands first; raises UnknownItem."""
    query = select(StoredStatement).where(StoredStatement.item_id == item_id)
    with sessions.begin() as session:
        if session.get(Item, item_id) is None:
            raise UnknownItem(f"There is no item {item_id}: check the id.")
        rows = session.scalars(
            query.order_by(StoredStatement.issued_at.desc(), StoredStatement.puid)
        )
        return sorted(rows, key=lambda s: s.withdrawn_at is not None)


def stated(session: Session, item_id: int) -> dict[str, Any] | None:
    """What the platform has to send about an item as it stands, in a decision's own transaction.

    It is what is issued a moment later, if it is not yet. None: nothing is restricted, no statement
    is sent for it, or something is wrong, which whoever issues it says: no decision waits for that.
    """
    try:
        with session.begin_nested():
            return _stated(session, item_id)
    except DatabaseUnavailable:
        raise
    except InvalidStatement:
        return None
    except Exception:
        logger.exception("What is to be stated about item %d could not be told.", item_id)
        return None


def _stated(session: Session, item_id: int) -> dict[str, Any] | None:
    reasons = reasons_of(session, item_id)
    if reasons is None:
        return None
    standing = session.scalar(_standing(item_id))
    if standing is not None:
        return _told(str(standing.puid), standing.language, standing.document, standing.notice)
    filed, notice = _checked(session, reasons)
    return _told(str(reasons.puid), ",".join(reasons.notices.languages), filed, notice)


def _told(puid: str, language: str, filed: dict[str, Any], notice: str) -> dict[str, Any]:
    return {"puid": puid, "language": language, "document": filed, "notice": notice}


def _standing(item_id: int) -> Select[StoredStatement]:
    return select(StoredStatement).where(
        StoredStatement.item_id == item_id, StoredStatement.withdrawn_at.is_(None)
    )


def _due(sessions: Sessions, after: int, limit: int) -> list[int]:
    query = (
        select(StatementDue.item_id)
        .where(StatementDue.problem.is_(None), StatementDue.item_id > after)
        .order_by(StatementDue.item_id)
        .limit(limit)
    )
    with sessions.begin() as session:
        return list(session.scalars(query))


def _attempt(sessions: Sessions, item_id: int) -> bool:
    """A statement that cannot be issued must not stop those behind."""
    try:
        with sessions.begin() as session:
            _lock(session, item_id)
            own = select(StatementDue).where(StatementDue.item_id == item_id)
            row = session.scalar(own.with_for_update(skip_locked=True))
            if row is None or row.problem is not None:
                return False  # somebody else has done it, or just decides again
            session.delete(row)
            done = _issue(session, item_id)
            return done.new or done.withdrawn
    except DatabaseUnavailable:
        raise
    except InvalidStatement as error:
        problem = str(error)
        logger.warning("The statement for item %d waits: %s", item_id, problem)
    except Exception:
        logger.exception("The statement for item %d failed.", item_id)
        problem = "The service failed, and its log says how: try again."
    with sessions.begin() as session:
        waiting = update(StatementDue).where(StatementDue.item_id == item_id)
        session.execute(waiting.values(problem=problem))
    return False


def _lock(session: Session, item_id: int) -> None:
    """One at a time for one item, so that no decision gets two statements."""
    key = func.hashtextextended(f"filter_service statement {item_id}", 0)
    session.execute(select(func.pg_advisory_xact_lock(key)))


def _issue(session: Session, item_id: int) -> IssuanceResult:
    reasons = reasons_of(session, item_id)
    standing = session.scalar(_standing(item_id))
    if reasons is None and standing is not None:
        return _withdraw(session, standing)
    if reasons is None or standing is not None:
        return IssuanceResult(item_id, standing.puid if standing else None)
    filed, notice = _checked(session, reasons)
    row = {
        "puid": reasons.puid,
        "item_id": item_id,
        "review_id": reasons.review_id,
        "language": ",".join(reasons.notices.languages),
        "document": filed,
        "notice": notice,
    }
    session.execute(insert(StoredStatement).values(row))
    details = {
        "puid": str(reasons.puid),
        "policy": reasons.policy.digest,
        "class": reasons.forbidden.name,
        "review": reasons.review_id,
        "document": text_digest(canonical(filed)),
        "notice": text_digest(notice),
    }
    entry = Entry(Event.STATED, ACTOR, item_id, reasons.batch_id, details)
    ledger.append(session, [entry])
    return IssuanceResult(item_id, reasons.puid, new=True)


def _withdraw(session: Session, statement: StoredStatement) -> IssuanceResult:
    """It stays as it was issued, and the ledger says that it no longer holds."""
    item = session.get_one(Item, statement.item_id)
    statement.withdrawn_at = session.scalars(select(func.now())).one()
    details = {"puid": str(statement.puid)}
    entry = Entry(Event.STATEMENT_WITHDRAWN, ACTOR, item.id, item.batch_id, details)
    ledger.append(session, [entry])
    return IssuanceResult(item.id, None, withdrawn=True)


def _checked(session: Session, reasons: Reasons) -> tuple[dict[str, Any], str]:
    """Document and notice; InvalidStatement names every rule that they break."""
    facts = wording.facts(reasons, reasons.notices.languages[0])
    filed, notice = document(reasons, facts), wording.notice(reasons)
    broken = [*check(filed), *_revealing(session, reasons, filed, notice)]
    if broken:
        raise InvalidStatement(
            f"The statement for item {reasons.item_id} breaks rules. {' '.join(broken)} Mend the "
            "policy, and issue it again."
        )
    return filed, notice


def _revealing(session: Session, reasons: Reasons, filed: dict[str, Any], notice: str) -> list[str]:
    """What either text gives away of anybody whom the record knows."""
    hidden = hidden_in(session, reasons.item_id)
    policy = canonical(reasons.policy.model_dump(mode="json"))
    ours = " ".join([policy, *map(wording.vocabulary, reasons.notices.languages)])
    text = f"{canonical(filed)} {notice}"
    personal = list(personal_data.named(text, hidden.names, ours))
    for theirs in hidden.texts:
        personal += personal_data.quoted(text, theirs, ours)
    return [f"It holds {what}: no personal data may be sent." for what in personal]
