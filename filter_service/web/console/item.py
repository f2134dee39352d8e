"""The page of one case: claiming, deciding, undoing, handing over and unblurring.

The page works as plain forms; a script that sends the same forms and asks for JSON gets the address
of the next case instead of being sent there.
"""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import BaseModel

from filter_service import accounts, ledger, retention
from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.db.tables import LedgerEntry, Person
from filter_service.errors import InvalidRequest
from filter_service.images.perceptual_hash import NEAR
from filter_service.reviews import case_claims, decisions, similar_images
from filter_service.reviews.case_file import CaseFile, casefile
from filter_service.reviews.influential_labels import InfluentialLabels, influential_labels
from filter_service.reviews.row_access import visible
from filter_service.reviews.settlement import Decision
from filter_service.reviews.undoable import undoable
from filter_service.reviews.visible_decisions import visible_decisions
from filter_service.web.console.queue import (
    address,
    ahead,
    filter_of,
    next_address,
    query_of,
    somebody,
)
from filter_service.web.http.access import able
from filter_service.web.http.pages import render, templates
from filter_service.web.http.service import Service, service

router = APIRouter(prefix="/items/{item_id}")

LEAVING = 10.0  # seconds that a claim outlives its page, so that a reload keeps it
PRECEDENTS = 6
LOOKALIKES = 60
ASK_SENIOR = "A senior should decide"
REASONS = (  # for leaving a case to somebody else; the keys 1 to 5
    "I would rather not see this",
    "I know somebody concerned",
    "I cannot tell what it shows",
    "The policy does not say",
    "The picture does not load",
)

Reader = Annotated[Caller, Depends(able(Ability.READ))]
Reviewer = Annotated[Caller, Depends(able(Ability.REVIEW))]
Revealer = Annotated[Caller, Depends(able(Ability.REVEAL))]
OurService = Annotated[Service, Depends(service)]
Queue = Annotated[str, Form()]


@router.get("")
def item(
    request: Request,
    item_id: int,
    caller: Reader,
    service: OurService,
    show: str | None = None,
    revealed: bool = False,
    soon: bool = False,
) -> Response:
    """The page of one item; `soon` draws it as it looks once this person has claimed it."""
    person, sessions = somebody(caller), service.sessions
    file = casefile(sessions, person, item_id, show)
    may_review = Ability.REVIEW in ABILITIES[caller.role]
    mine = may_review and (file.mine or soon)
    queue = query_of(filter_of(request.query_params))
    with sessions.begin() as session:
        gone = retention.why_gone(session, item_id)
    return render(
        request,
        "item.html",
        file=file,
        gone=gone,
        mine=mine,
        may_review=may_review,
        may_reveal=Ability.REVEAL in ABILITIES[caller.role],
        may_report=Ability.REPORT in ABILITIES[caller.role],
        revealed=revealed,
        queue=queue,
        undo=undoable(sessions, person),
        ahead=ahead(sessions, person, queue) if mine and not soon else [],
        colleagues=accounts.colleagues(sessions, person) if mine else [],
        precedents=_precedents(service, file),
        influences=_influences(service, caller, file),
        told=visible_decisions(sessions, person, item_id),
        history=_history(service, caller, file),
        reasons=REASONS,
        lease=service.settings.review_lease_seconds,
    )


@router.get("/lookalikes")
def alike(
    request: Request,
    item_id: int,
    caller: Reviewer,
    service: OurService,
    part: bool = False,
) -> Response:
    """What is so much like this one that both can be decided together; `part`: no whole page."""
    person = somebody(caller)
    file = casefile(service.sessions, person, item_id, None)
    found = similar_images.lookalikes(service.sessions, person, item_id, LOOKALIKES)
    template = "item/group.html" if part else "lookalikes.html"
    queue = query_of(filter_of(request.query_params))
    return render(request, template, file=file, found=found, near=NEAR, queue=queue)


@router.post("/claim")
def claim(item_id: int, caller: Reviewer, service: OurService, queue: Queue = "") -> Response:
    """Take this case, unless somebody else has it."""
    lease = service.settings.review_lease_seconds
    case_claims.claim(service.sessions, somebody(caller), item_id, lease)
    return RedirectResponse(address(item_id, queue), status_code=303)


class DecisionForm(BaseModel):
    """The form of a decision; `skip` is the reason to leave the case to somebody else."""

    decision: Decision | None = None
    skip: str = ""
    reason: str = ""
    note: str = ""
    also: list[int] = []
    queue: str = ""

    @property
    def meant(self) -> tuple[Decision, str]:
        """The decision and its reason."""
        if self.skip:
            return Decision.SKIPPED, self.skip
        if self.decision is None:
            raise InvalidRequest(f"No decision was sent: choose one of {', '.join(Decision)}.")
        asks = self.decision is Decision.ESCALATED
        return self.decision, self.reason or (ASK_SENIOR if asks else "")


@router.post("/decision")
def decide(
    request: Request,
    item_id: int,
    caller: Reviewer,
    service: OurService,
    said: Annotated[DecisionForm, Form()],
) -> Response:
    """Decide a case, and what is like it, and claim the next one."""
    person, (decision, reason) = somebody(caller), said.meant
    decisions.decide(
        service.sessions,
        person,
        item_id,
        decision,
        reason=reason,
        note=said.note,
        undo_seconds=service.settings.undo_seconds,
        also=said.also,
    )
    following = next_address(service, person, said.queue)
    return _gone_on(request, service, person, following or f"/queue?{said.queue}", said.queue)


@router.post("/undo")
def undo(
    request: Request,
    item_id: int,
    caller: Reviewer,
    service: OurService,
    review: Annotated[Sequence[int], Form()],
    queue: Queue = "",
) -> Response:
    """Take a decision back; the case that was begun meanwhile stays this person's, too."""
    lease = service.settings.review_lease_seconds
    person = somebody(caller)
    decisions.undo(service.sessions, person, tuple(review), lease)
    return _gone_on(request, service, person, address(item_id, queue), queue)


@router.post("/beat")
def beat(
    item_id: int,
    caller: Reviewer,
    service: OurService,
    leaving: Annotated[bool, Form()] = False,
) -> Response:
    """The page is open and somebody is there; or it is being closed, and the claim ends soon."""
    lease = LEAVING if leaving else service.settings.review_lease_seconds
    case_claims.extend(service.sessions, somebody(caller), item_id, lease)
    return Response(status_code=204)


@router.post("/release")
def release(item_id: int, caller: Reviewer, service: OurService, queue: Queue = "") -> Response:
    """Give a case back to the queue."""
    case_claims.release(service.sessions, somebody(caller), item_id)
    return RedirectResponse(f"/queue?{queue}", status_code=303)


@router.post("/handover")
def hand_over(
    item_id: int,
    caller: Reviewer,
    service: OurService,
    to_login: Annotated[str, Form()],
    queue: Queue = "",
) -> Response:
    """Give a case to a colleague."""
    case_claims.hand_over(service.sessions, somebody(caller), item_id, to_login.strip().lower())
    return RedirectResponse(f"/queue?{queue}", status_code=303)


@router.post("/reveal")
def reveal(
    request: Request,
    item_id: int,
    caller: Revealer,
    service: OurService,
    queue: Queue = "",
) -> Response:
    """Let the picture be fetched unblurred, which the ledger remembers."""
    person = somebody(caller)
    file = casefile(service.sessions, person, item_id, None)
    cap = service.settings.reveal_cap
    name = file.shown.name if file.shown else ""
    accounts.reveal(service.sessions, person, item_id, name, cap)
    if not _wants_json(request):
        shown = f"{queue}&revealed=1" if queue else "revealed=1"
        return RedirectResponse(address(item_id, shown), status_code=303)
    counts = accounts.revealed_today(service.sessions, person)
    return JSONResponse({"today": sum(counts.values())})


def _gone_on(request: Request, service: Service, person: Person, to: str, queue: str) -> Response:
    """To the next page; a script is told where, what can be undone, and what comes after that."""
    to = to.removesuffix("?")
    if not _wants_json(request):
        return RedirectResponse(to, status_code=303)
    undo = undoable(service.sessions, person)
    token = getattr(request.state, "csrf_token", "")
    template = templates().get_template("item/undo.html")
    said = template.render(undo=undo, csrf_token=token, queue=queue) if undo else ""
    soon = ahead(service.sessions, person, queue)
    return JSONResponse({"next": to, "said": said, "ahead": soon})


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _precedents(service: Service, file: CaseFile) -> list[similar_images.Precedent]:
    """How the images that are most like this one were decided for the class that is shown."""
    if file.shown is None or file.digest is None:
        return []
    item_id, name = file.item.id, file.shown.name
    return similar_images.precedents(service.sessions, item_id, name, PRECEDENTS)


def _influences(service: Service, caller: Caller, file: CaseFile) -> InfluentialLabels | None:
    """Which reviews made the probability of the class that is shown."""
    shown = file.shown
    if shown is None:
        return None
    with service.sessions.begin() as session:
        return influential_labels(
            session, file.item, shown.forbidden, shown.margin, visible(caller)
        )


def _history(service: Service, caller: Caller, file: CaseFile) -> list[LedgerEntry]:
    """The item's ledger, for those who check; whoever may decide the case does so without it."""
    may = ABILITIES[caller.role]
    if Ability.AUDIT not in may or (file.case and Ability.REVIEW in may):
        return []
    with service.sessions.begin() as session:
        return ledger.of_item(session, file.item.id)
