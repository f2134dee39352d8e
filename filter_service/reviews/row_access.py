"""Row access: which items a caller may see, by client, class and restriction."""

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from filter_service.accounts import sees
from filter_service.accounts.callers import Caller
from filter_service.db.tables import Item, PolicyClass
from filter_service.errors import NotAllowed, UnknownItem
from filter_service.reviews import restricted
from filter_service.verdicts import Verdict


def visible(caller: Caller) -> ColumnElement[bool]:
    """The condition on items; platforms see all that is theirs and not locked away."""
    return ~restricted.is_locked(Item.image_id) & _open(caller)


def answered(caller: Caller) -> ColumnElement[bool]:
    """The condition on items in a list of verdicts: a platform has to act on every one of its own.

    It learns of what is locked away that it is flagged, and for what; nothing else of it opens.
    """
    return _open(caller) if caller.person is None else visible(caller)


def _open(caller: Caller) -> ColumnElement[bool]:
    if caller.person is None or caller.person.classes is None:
        return caller.scope.has(Item.client_id)
    open_to_them = select(PolicyClass.id).where(PolicyClass.name.in_(caller.person.classes))
    theirs = Item.class_id.in_(open_to_them)
    return or_(Item.verdict.is_distinct_from(Verdict.FLAGGED), theirs)


def may_see(caller: Caller, class_name: str) -> bool:
    return caller.person is None or sees(caller.person, class_name)


def item_for(session: Session, caller: Caller, item_id: int) -> Item:
    """An item; raises UnknownItem or NotAllowed."""
    item = session.scalar(select(Item).where(Item.id == item_id, caller.scope.has(Item.client_id)))
    if item is None:
        raise UnknownItem(f"There is no item {item_id}: the items of a batch name theirs.")
    restricted.require_open(session, item_id)
    if session.scalar(select(Item.id).where(Item.id == item_id, visible(caller))) is None:
        raise NotAllowed(
            f"Item {item_id} was flagged for a class that {caller.actor} may not see: an admin "
            "can change that."
        )
    return item
