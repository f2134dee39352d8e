"""The page of the review queue: waiting cases, filters, and claiming the next one."""

import uuid
from collections.abc import Mapping
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from filter_service.accounts import ABILITIES, Ability, sees
from filter_service.accounts.callers import Caller
from filter_service.accounts.clients import client_names
from filter_service.db.policies import policy_names
from filter_service.db.session import Sessions
from filter_service.db.tables import Person
from filter_service.errors import InvalidRequest, NotAllowed
from filter_service.intake.item_lists import probabilities
from filter_service.reviews import case_claims, tallies
from filter_service.reviews import queue as review_queue
from filter_service.reviews.case_file import SEVERITIES
from filter_service.reviews.case_opening import Stage
from filter_service.reviews.queue import Filter, Held, Order
from filter_service.reviews.undoable import undoable
from filter_service.web.http.access import able, caller
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

HELD: tuple[Held, ...] = ("all", "free", "mine")
ORDERS: tuple[Order, ...] = ("urgency", "age")
ROWS = 40  # of one page
MOST_NAMES = 200  # of policies to choose from
MINE = 12  # of somebody's own claims that are shown above it


@router.get("/")
def home(found: Annotated[Caller, Depends(caller)]) -> Response:
    """Where somebody's work is; custodians have no other."""
    reads = Ability.READ in ABILITIES[found.role]
    return RedirectResponse("/queue" if reads else "/sealed", status_code=303)


@router.get("/queue")
def queue(
    request: Request,
    caller: Annotated[Caller, Depends(able(Ability.READ))],
    service: Annotated[Service, Depends(service)],
    after: str | None = None,
) -> Response:
    """What waits for somebody who may see it; their own claims first."""
    person, chosen = somebody(caller), filter_of(request.query_params)
    page = review_queue.waiting(service.sessions, person, chosen, after, ROWS)
    begun = review_queue.waiting(service.sessions, person, Filter(held="mine"), None, MINE).cases
    mine = [c for c in begun if not c.pending]
    waiting = tallies.waiting_now(service.sessions, person.classes)
    shown = [c.item_id for c in page.cases]
    return render(
        request,
        "queue.html",
        page=page,
        mine=mine,
        waiting=waiting,
        chosen=chosen,
        asked=query_of(chosen),
        probabilities=probabilities(service.sessions, shown),
        classes=sorted(c for c in waiting.by_class if sees(person, c)),
        policies=policy_names(service.sessions, MOST_NAMES),
        clients=client_names(service.sessions, chosen.client),
        stages=list(Stage),
        severities=SEVERITIES,
        undo=undoable(service.sessions, person),
        may_review=Ability.REVIEW in ABILITIES[caller.role],
        turned=after is not None,
    )


@router.post("/queue/next")
def start(
    caller: Annotated[Caller, Depends(able(Ability.REVIEW))],
    service: Annotated[Service, Depends(service)],
    queue: Annotated[str, Form()] = "",
) -> Response:
    """Claim the next case that this filter lets through, and go to it."""
    found = next_address(service, somebody(caller), queue)
    return RedirectResponse(found or "/queue?" + queue, status_code=303)


def somebody(caller: Caller) -> Person:
    """The person behind a caller: pages are for people, platforms have `/v1`."""
    if caller.person is None:
        raise NotAllowed(f"{caller.actor} is no person: the console's pages are for people.")
    return caller.person


def next_address(service: Service, person: Person, queue: str) -> str | None:
    """The page of the next case, which is now this person's; None when nothing waits for them."""
    chosen = filter_of(dict(parse_qsl(queue)))
    lease = service.settings.review_lease_seconds
    case = case_claims.claim_next(service.sessions, person, chosen, lease)
    return None if case is None else address(case.item_id, queue)


def address(item_id: int, queue: str) -> str:
    """The page of an item, from which the same queue goes on."""
    return f"/items/{item_id}?{queue}" if queue else f"/items/{item_id}"


def ahead(sessions: Sessions, person: Person, queue: str, limit: int = 2) -> list[str]:
    """The pages that would come next, as they look once claimed."""
    found = review_queue.ahead(sessions, person, filter_of(dict(parse_qsl(queue))), limit)
    return [address(c.item_id, queue) for c in found]


def filter_of(query: Mapping[str, str]) -> Filter:
    """The filter that an address or a form asks for; raises InvalidRequest."""
    batch, stage = query.get("batch") or None, query.get("stage") or None
    try:
        return Filter(
            class_name=query.get("class") or None,
            policy=query.get("policy") or None,
            client=query.get("client") or None,
            batch=None if batch is None else uuid.UUID(batch.strip()),
            stage=None if stage is None else Stage(stage),
            held=_one_of(query, "held", HELD),
            order=_one_of(query, "order", ORDERS),
        )
    except ValueError as error:
        raise InvalidRequest(
            f"batch={batch!r}, stage={stage!r}: a batch is given by its id, a stage is one of "
            f"{', '.join(Stage)}."
        ) from error


Choice = TypeVar("Choice", bound=str)


def _one_of(query: Mapping[str, str], name: str, known: tuple[Choice, ...]) -> Choice:
    """What was chosen, the first unless something was."""
    given = query.get(name) or known[0]
    for choice in known:
        if choice == given:
            return choice
    raise InvalidRequest(f"{name}={given!r} is not known: choose one of {', '.join(known)}.")


def query_of(chosen: Filter) -> str:
    """A filter as the query of an address; `filter_of` reads it."""
    given = {
        "class": chosen.class_name,
        "policy": chosen.policy,
        "client": chosen.client,
        "batch": chosen.batch,
        "stage": chosen.stage,
        "held": None if chosen.held == "all" else chosen.held,
        "order": None if chosen.order == "urgency" else chosen.order,
    }
    return urlencode({name: str(value) for name, value in given.items() if value})
