"""Pages for hash lists: images that are always or never flagged, with all that are like them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from filter_service import accounts
from filter_service.accounts import Ability, sees
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import LARGEST_ID, id_of, page_of
from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.reviews import hash_lists
from filter_service.reviews.hash_lists import ListEntryView, NewListEntry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.list_matches import AT_ONCE
from filter_service.reviews.sightings import some_item_of
from filter_service.reviews.stored_explanations import class_of
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.drafts import NOTHING, PendingForm, number, taken, whole_number
from filter_service.web.http.pages import render
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
        item = whole_number("item", self.item) if self.item.strip() else None
        within = number("distance", self.within) if self.within.strip() else None
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
        number = int(visit.item) if visit.item.isdecimal() else LARGEST_ID + 1
        with here.sessions.begin() as session:
            found = class_of(session, number) or "" if number <= LARGEST_ID else ""
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
        return _lists(request, here, caller, draft, tried=PendingForm(error))
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
        return _lists(request, here, caller, form, tried=PendingForm(error))
    more = f" It decided {added.decided} that waited." if form.decide_waiting else ""
    return taken("/lists", f"The entry stands.{more}")


@router.post("/remove")
def remove(here: Here, caller: Editor, entry: EntryId) -> Response:
    """What an entry has decided stays decided."""
    hash_lists.remove_entry(here.sessions, somebody(caller), entry)
    return taken("/lists", "The entry is removed.")


def _lists(
    request: Request,
    here: Service,
    caller: Caller,
    draft: ListEntryForm,
    *,
    after: str = "",
    done: str = "",
    found: Sequence[int] | None = None,
    tried: PendingForm = NOTHING,
) -> Response:
    person = somebody(caller)
    entries = hash_lists.entries(here.sessions, after=id_of(after), limit=ROWS + 1)
    page = page_of(entries, ROWS, lambda entry: (entry.id,))
    with here.sessions.begin() as session:
        items = some_item_of(session, caller, [e.digest for e in page.rows if e.digest])
    return render(
        request,
        "lists.html",
        tried.status,
        shown=[
            ListEntryRow(e, items.get(e.digest or ""))
            for e in page.rows
            if sees(person, e.class_name)
        ],
        next=page.next,
        after=after,
        draft=draft,
        opened=bool(draft.item or draft.digest or tried.error or found is not None),
        done=done,
        found=found,
        most=AT_ONCE,
        pictures=SHOWN,
        usual=hash_lists.USUAL,
        classes=open_classes(here.sessions, person),
        problem=tried.said,
    )


def open_classes(sessions: Sessions, person: Person) -> list[str]:
    """The classes that somebody may see."""
    return [name for name in accounts.known_classes(sessions) if sees(person, name)]
