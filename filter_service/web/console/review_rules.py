"""Pages for hash lists, and for the rules on second looks and samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel
from sqlalchemy import select, true

from filter_service import accounts
from filter_service.accounts import Ability, sees
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Person, PolicyClass, StoredImage
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.reviews import hash_lists, review_rules
from filter_service.reviews.hash_lists import ListEntryView, NewListEntry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.list_matches import AT_ONCE
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import Caller, able
from filter_service.web.http.pages import render
from filter_service.web.http.paging import LARGEST_ID, cursor, key_of
from filter_service.web.http.problems import status_of
from filter_service.web.http.row_access import visible
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/lists")

ROWS = 40  # entries of one page
SHOWN = 24  # pictures of a preview

Here = Annotated[Service, Depends(service)]
Editor = Annotated[Caller, Depends(able(Ability.RULES))]
EntryId = Annotated[int, Form(ge=1, le=LARGEST_ID)]


class ListEntryForm(BaseModel):
    """The form of an entry, as it was typed."""

    kind: str = ListKind.ALLOW.value
    class_name: str = ""
    match: str = Match.PDQ.value
    item: str = ""
    digest: str = ""
    within: str = ""
    reason: str = ""

    @property
    def entered(self) -> NewListEntry:
        """Raises InvalidRequest."""
        if self.kind not in list(ListKind) or self.match not in list(Match):
            raise InvalidRequest(
                f"kind={self.kind!r}, match={self.match!r}: choose one of "
                f"{', '.join(ListKind)} and one of {', '.join(Match)}."
            )
        item = int(_number("item", self.item, whole=True)) if self.item.strip() else None
        within = _number("distance", self.within) if self.within.strip() else None
        return NewListEntry(
            ListKind(self.kind),
            self.class_name.strip(),
            Match(self.match),
            item_id=item,
            digest=self.digest.strip().lower() or None if item is None else None,
            within=within if self.match != Match.DIGEST else None,
            reason=self.reason,
        )

    @property
    def query(self) -> str:
        """The address of its preview ends with this."""
        return urlencode({k: v for k, v in self.model_dump().items() if v})


class Visit(ListEntryForm):
    """An address of the page, with a form filled in or none."""

    after: str = ""
    done: str = ""


class Addition(ListEntryForm):
    """The form when it is sent."""

    decide_waiting: bool = False


class ReviewRuleForm(BaseModel):
    """The form of a review rule, as it was typed."""

    kind: str = review_rules.RuleKind.SECOND_LOOK.value
    class_name: str = ""
    margin_below: str = ""
    share: str = "10"  # per cent

    @property
    def options(self) -> dict[str, Any]:
        """Raises InvalidRequest."""
        if self.kind not in list(review_rules.RuleKind):
            raise InvalidRequest(
                f"{self.kind!r} is no rule: choose {' or '.join(review_rules.RuleKind)}."
            )
        margin = self.margin_below.strip()
        return {
            "kind": review_rules.RuleKind(self.kind),
            "class_name": self.class_name.strip() or None,
            "margin_below": _number("margin", margin) if margin else None,
            "share": _number("share", self.share) / 100,
        }


@dataclass(frozen=True, slots=True)
class ListEntryRow:
    """An entry with an item of its image, and the address of what it matches."""

    entry: ListEntryView
    item_id: int | None

    @property
    def query(self) -> str:
        """The address of the preview of what it matches among what waits."""
        e = self.entry
        by_item = e.match is Match.RADIUS and self.item_id is not None
        return ListEntryForm(
            kind=e.kind,
            class_name=e.class_name,
            match=e.match,
            item=str(self.item_id) if by_item else "",
            digest="" if by_item else e.digest or "",
            within="" if e.within is None else f"{e.within:g}",
            reason=e.reason,
        ).query


@router.get("")
def show(
    request: Request, here: Here, caller: Editor, visit: Annotated[Visit, Query()]
) -> Response:
    """The lists, and the form to add to them; `item` fills it in from an item."""
    if visit.item and not visit.class_name:
        found = _class_of(here.sessions, visit.item)
        visit = visit.model_copy(update={"class_name": found})
    return _lists(request, here, caller, visit, after=visit.after, done=visit.done)


@router.get("/preview")
def preview(
    request: Request, here: Here, caller: Editor, draft: Annotated[ListEntryForm, Query()]
) -> Response:
    """What waits and would be decided by an entry, before there is one."""
    person = somebody(caller)
    try:
        found = hash_lists.preview(here.sessions, person, draft.entered)
    except FilterServiceError as error:
        return _lists(request, here, caller, draft, error=error)
    return _lists(request, here, caller, draft, found=found)


@router.post("")
def add(
    request: Request, here: Here, caller: Editor, form: Annotated[Addition, Form()]
) -> Response:
    """A new entry, which decides what waits if that was ticked."""
    person = somebody(caller)
    try:
        added = hash_lists.add_entry(here.sessions, person, form.entered, form.decide_waiting)
    except FilterServiceError as error:
        return _lists(request, here, caller, form, error=error)
    more = f" It decided {added.decided} that waited." if form.decide_waiting else ""
    return _done("/lists", f"The entry stands.{more}")


@router.post("/remove")
def remove(here: Here, caller: Editor, entry: EntryId) -> Response:
    """What an entry has decided stays decided."""
    hash_lists.remove_entry(here.sessions, somebody(caller), entry)
    return _done("/lists", "The entry is removed.")


@router.get("/rules")
def show_rules(
    request: Request, here: Here, caller: Editor, done: Annotated[str, Query(max_length=200)] = ""
) -> Response:
    """Second looks and samples of clear items."""
    return _rules(request, here, somebody(caller), ReviewRuleForm(), done=done)


@router.post("/rules")
def add_rule(
    request: Request, here: Here, caller: Editor, draft: Annotated[ReviewRuleForm, Form()]
) -> Response:
    person = somebody(caller)
    try:
        review_rules.add_rule(here.sessions, person, **draft.options)
    except FilterServiceError as error:
        return _rules(request, here, person, draft, error=error)
    return _done("/lists/rules", "The rule holds from now on.")


@router.post("/rules/remove")
def remove_rule(here: Here, caller: Editor, rule: EntryId) -> Response:
    """What was drawn already stays drawn."""
    review_rules.remove_rule(here.sessions, somebody(caller), rule)
    return _done("/lists/rules", "The rule is removed.")


def _lists(
    request: Request,
    here: Service,
    caller: Caller,
    draft: ListEntryForm,
    *,
    after: str = "",
    done: str = "",
    found: Sequence[int] | None = None,
    error: FilterServiceError | None = None,
) -> Response:
    person = somebody(caller)
    last = key_of(after, int)[0] if after else None
    page = hash_lists.entries(here.sessions, after=last, limit=ROWS + 1)
    items = _items_of(here.sessions, caller, [e.digest for e in page if e.digest])
    return render(
        request,
        "lists.html",
        status_of(error) if error else 200,
        shown=[
            ListEntryRow(e, items.get(e.digest or ""))
            for e in page[:ROWS]
            if sees(person, e.class_name)
        ],
        next=cursor(page[ROWS - 1].id) if len(page) > ROWS else None,
        after=after,
        draft=draft,
        opened=bool(draft.item or draft.digest or error or found is not None),
        done=done,
        found=found,
        most=AT_ONCE,
        pictures=SHOWN,
        usual=hash_lists.USUAL,
        classes=_classes(here.sessions, person),
        problem=str(error) if error else "",
    )


def _rules(
    request: Request,
    here: Service,
    person: Person,
    draft: ReviewRuleForm,
    *,
    done: str = "",
    error: FilterServiceError | None = None,
) -> Response:
    with here.sessions.begin() as session:
        active = review_rules.active_rules(session)
    return render(
        request,
        "rules.html",
        status_of(error) if error else 200,
        rules=active,
        draft=draft,
        done=done,
        classes=_classes(here.sessions, person),
        problem=str(error) if error else "",
    )


def _done(address: str, said: str) -> Response:
    return RedirectResponse(f"{address}?{urlencode({'done': said})}", status_code=303)


def _classes(sessions: Sessions, person: Person) -> list[str]:
    return [name for name in accounts.known_classes(sessions) if sees(person, name)]


def _class_of(sessions: Sessions, item: str) -> str:
    """The class that an item was flagged for, or nearly; empty if there is none."""
    if not item.isdecimal() or int(item) > LARGEST_ID:
        return ""
    query = (
        select(PolicyClass.name)
        .join(Item, Item.class_id == PolicyClass.id)
        .where(Item.id == int(item))
    )
    with sessions.begin() as session:
        return session.scalar(query) or ""


def _items_of(sessions: Sessions, caller: Caller, digests: Sequence[str]) -> dict[str, int]:
    """Some item of each image that this person may see."""
    one = (
        select(Item.id)
        .where(Item.image_id == StoredImage.id, visible(caller))
        .limit(1)
        .lateral("one")
    )
    query = (
        select(StoredImage.digest, one.c.id)
        .select_from(StoredImage)
        .join(one, true())
        .where(StoredImage.digest.in_(digests))
    )
    with sessions.begin() as session:
        return dict(session.execute(query).all())


def _number(name: str, text: str, whole: bool = False) -> float:
    """Raises InvalidRequest."""
    try:
        value = int(text) if whole else float(text.replace(",", "."))
        if not math.isfinite(value) or not 0 <= value <= LARGEST_ID:
            raise ValueError
    except ValueError as error:
        raise InvalidRequest(f"{name}={text[:40]!r} is no number: write digits only.") from error
    return value
