"""Records, counts and caps each person's views of unblurred images."""

from datetime import date
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.accounts.roles import Ability, may, sees
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry, Person, Reveals
from filter_service.errors import NotAllowed
from filter_service.ledger import Entry, Event


def reveal(
    sessions: Sessions, person: Person, item_id: int, class_name: str, settings_cap: int | None
) -> None:
    """Write down that somebody looks at an image unblurred; raises NotAllowed if they may not.

    Every look is in the ledger; an image counts once a day, however often it is looked at.
    """
    if not may(person, Ability.REVEAL) or not sees(person, class_name):
        raise NotAllowed(
            f"{person.login!r} may not see images of the class {class_name!r}: an admin can "
            "change that."
        )
    with sessions.begin() as session:
        # The row is this person's turn: two looks at once cannot both be the last one allowed.
        own = select(Person.reveal_cap, func.current_date()).where(Person.id == person.id)
        own_cap, today = session.execute(own.with_for_update(key_share=True)).one()
        cap = settings_cap if own_cap is None else own_cap
        if not session.scalar(select(_looked(person, item_id))):
            _check(session, person, cap, today)
            _count(session, person, class_name, today)
        details = {"class": class_name}
        entry = Entry(Event.REVEALED, f"person {person.login}", item_id=item_id, details=details)
        ledger.append(session, [entry])


def has_revealed(session: Session, person: Person, item_id: int) -> bool:
    """Whether this person was shown the image today, so that it may be sent."""
    return bool(session.scalar(select(_looked(person, item_id))))


def revealed_today(sessions: Sessions, person: Person) -> dict[str, int]:
    """How many images this person saw unblurred today (UTC), by class."""
    with sessions.begin() as session:
        rows = session.execute(
            select(Reveals.class_name, Reveals.count)
            .where(Reveals.person_id == person.id, Reveals.day == func.current_date())
            .order_by(Reveals.class_name)
        )
        return {name: count for name, count in rows}


def _looked(person: Person, item_id: int) -> Any:  # noqa: ANN401  (an expression of SQLAlchemy's)
    looks = select(LedgerEntry.id).where(
        LedgerEntry.item_id == item_id,
        LedgerEntry.event == Event.REVEALED.value,
        LedgerEntry.actor == f"person {person.login}",
        LedgerEntry.at >= func.current_date(),
    )
    return looks.exists()


def _check(session: Session, person: Person, cap: int | None, today: date) -> None:
    if cap is None:
        return
    seen = select(func.coalesce(func.sum(Reveals.count), 0))
    count = session.scalar(seen.where(Reveals.person_id == person.id, Reveals.day == today)) or 0
    if count >= cap:
        raise NotAllowed(
            f"You have seen {count} images unblurred today and your cap is {cap}: go on with "
            "blurred ones, or ask an admin for a higher cap."
        )


def _count(session: Session, person: Person, class_name: str, today: date) -> None:
    first = {"person_id": person.id, "day": today, "class_name": class_name, "count": 1}
    session.execute(
        insert(Reveals)
        .values(first)
        .on_conflict_do_update(
            index_elements=["person_id", "day", "class_name"], set_={"count": Reveals.count + 1}
        )
    )
