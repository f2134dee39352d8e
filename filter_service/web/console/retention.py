"""Pages for retention rules, legal holds, erasures and receipts."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import PlainTextResponse, RedirectResponse, Response
from pydantic import BaseModel

from filter_service import accounts, retention
from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.keyset import id_of, moment_of, page_of
from filter_service.errors import FilterServiceError, InvalidRequest
from filter_service.retention import ItemOutcome, RetainedPart, RetentionTerms
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.drafts import NOTHING, PendingForm, taken, whole_number
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/retention")

ROWS = 40  # of one page

Here = Annotated[Service, Depends(service)]
Keeper = Annotated[Caller, Depends(able(Ability.RETAIN))]
RuleId = Annotated[int, Form(ge=1, le=2**31 - 1)]
Done = Annotated[str, Query(max_length=200)]


class RetentionRuleForm(BaseModel):
    """The form of a rule, as it was typed."""

    class_name: str = ""
    outcome: str = ""
    parts: list[str] = [RetainedPart.BYTES.value]
    days: str = "365"
    warned: bool = False

    @property
    def terms(self) -> RetentionTerms:
        """Raises InvalidRequest."""
        if self.outcome not in ("", *ItemOutcome) or not set(self.parts) <= set(RetainedPart):
            raise InvalidRequest(
                f"outcome={self.outcome!r}, parts={self.parts!r}: choose of "
                f"{', '.join(ItemOutcome)} and of {', '.join(RetainedPart)}."
            )
        return RetentionTerms(
            days=whole_number("days", self.days),
            parts=tuple(p for p in RetainedPart if p in self.parts),
            class_name=self.class_name.strip() or None,
            outcome=ItemOutcome(self.outcome) if self.outcome else None,
        )


class ItemDraft(BaseModel):
    """The form of a hold or an erasure, as it was typed."""

    item: str = ""
    reason: str = ""

    @property
    def number(self) -> int:
        """Raises InvalidRequest."""
        return whole_number("item", self.item)


@router.get("")
def show_rules(request: Request, here: Here, caller: Keeper, done: Done = "") -> Response:
    """What is deleted when."""
    return _rules(request, here, RetentionRuleForm(), done=done)


@router.post("")
def add_rule(
    request: Request, here: Here, caller: Keeper, draft: Annotated[RetentionRuleForm, Form()]
) -> Response:
    """A rule that deletes within the time for complaints is asked for twice."""
    try:
        terms = draft.terms
        if terms.warning and not draft.warned:
            return _rules(request, here, draft, PendingForm(warning=terms.warning))
        retention.add_rule(here.sessions, terms, caller.actor)
    except FilterServiceError as error:
        return _rules(request, here, draft, PendingForm(error))
    return taken("/retention", "The rule holds from now on.")


@router.post("/remove")
def remove_rule(here: Here, caller: Keeper, rule: RuleId) -> Response:
    """What was deleted under it stays deleted."""
    retention.remove_rule(here.sessions, rule, caller.actor)
    return taken("/retention", "The rule is removed.")


@router.get("/holds")
def show_holds(
    request: Request, here: Here, caller: Keeper, after: str = "", done: Done = "", item: str = ""
) -> Response:
    """What may not be deleted."""
    return _holds(request, here, ItemDraft(item=item), after=after, done=done)


@router.post("/holds")
def hold(
    request: Request, here: Here, caller: Keeper, draft: Annotated[ItemDraft, Form()]
) -> Response:
    """Keep an item's image until the hold is released."""
    try:
        retention.hold(here.sessions, draft.number, draft.reason, caller.actor)
    except FilterServiceError as error:
        return _holds(request, here, draft, PendingForm(error))
    return taken("/retention/holds", f"Item {draft.number} is held.")


@router.post("/holds/release")
def release(
    request: Request, here: Here, caller: Keeper, draft: Annotated[ItemDraft, Form()]
) -> Response:
    """Let the rules see to it again."""
    try:
        retention.release(here.sessions, draft.number, draft.reason, caller.actor)
    except FilterServiceError as error:
        return _holds(request, here, ItemDraft(), PendingForm(error))
    return taken("/retention/holds", f"Item {draft.number} is no longer held.")


@router.get("/erasures")
def show_erasures(
    request: Request, here: Here, caller: Keeper, after: str = "", item: str = ""
) -> Response:
    """What was erased, and the form to erase."""
    return _erasures(request, here, ItemDraft(item=item), after=after)


@router.post("/erasures")
def erase(
    request: Request, here: Here, caller: Keeper, draft: Annotated[ItemDraft, Form()]
) -> Response:
    """At once, and for good."""
    person = somebody(caller)
    try:
        found = retention.erase(
            here.sessions, here.storage, draft.number, draft.reason, f"person {person.login}"
        )
    except FilterServiceError as error:
        return _erasures(request, here, draft, PendingForm(error))
    return RedirectResponse(f"/retention/erasures/{found.id}", status_code=303)


@router.get("/erasures/{erasure}")
def receipt(request: Request, here: Here, caller: Keeper, erasure: uuid.UUID) -> Response:
    """What was erased, and what stays."""
    found = retention.receipt(here.sessions, erasure)
    return render(request, "retention_receipt.html", receipt=found, tab="erasures")


@router.get("/erasures/{erasure}/text")
def receipt_text(here: Here, caller: Keeper, erasure: uuid.UUID) -> Response:
    """The same for a letter."""
    found = retention.receipt(here.sessions, erasure)
    name = f'attachment; filename="receipt-{erasure}.txt"'
    return PlainTextResponse(retention.as_text(found), headers={"Content-Disposition": name})


def _rules(
    request: Request,
    here: Service,
    draft: RetentionRuleForm,
    tried: PendingForm = NOTHING,
    done: str = "",
) -> Response:
    return render(
        request,
        "retention.html",
        tried.status,
        rules=retention.rules(here.sessions),
        draft=draft,
        tried=tried,
        done=done,
        classes=accounts.known_classes(here.sessions),
        outcomes=list(ItemOutcome),
        parts=list(RetainedPart),
        complaints=retention.COMPLAINTS,
        tab="rules",
    )


def _holds(
    request: Request,
    here: Service,
    draft: ItemDraft,
    tried: PendingForm = NOTHING,
    after: str = "",
    done: str = "",
) -> Response:
    found = retention.holds(here.sessions, id_of(after), ROWS + 1)
    page = page_of(found, ROWS, lambda hold: (hold.id,))
    return render(
        request,
        "retention_holds.html",
        tried.status,
        holds=page.rows,
        next=page.next,
        draft=draft,
        tried=tried,
        done=done,
        tab="holds",
    )


def _erasures(
    request: Request, here: Service, draft: ItemDraft, tried: PendingForm = NOTHING, after: str = ""
) -> Response:
    found = retention.erasures(here.sessions, moment_of(after), ROWS + 1)
    page = page_of(found, ROWS, lambda erased: (erased.requested_at.isoformat(), erased.id))
    return render(
        request,
        "retention_erasures.html",
        tried.status,
        erasures=page.rows,
        next=page.next,
        draft=draft,
        tried=tried,
        tab="erasures",
    )
