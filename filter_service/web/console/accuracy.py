"""The accuracy page: how right classes are, how well probabilities hold, and what has drifted."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from filter_service.accounts import ABILITIES, Ability
from filter_service.accounts.callers import Caller
from filter_service.calibration.reliability import ProbabilityAgreement
from filter_service.calibration.standing_estimates import StandingEstimates, standing_estimates
from filter_service.db.keyset import LARGEST_ID
from filter_service.rendering import calibration_charts, charts
from filter_service.reviews.agreement import agreement
from filter_service.rollout.drift_alarms import accept, watches
from filter_service.web.console.queue import somebody
from filter_service.web.http.access import able
from filter_service.web.http.pages import render
from filter_service.web.http.service import Service, service

router = APIRouter()

Here = Annotated[Service, Depends(service)]
Reader = Annotated[Caller, Depends(able(Ability.READ))]
OF_PEOPLE = {Ability.REVIEW_SENIOR, Ability.AUDIT}  # who may know how each reviewer decided


@dataclass(frozen=True, slots=True)
class ClassReliability:
    """One class with its diagram."""

    of: StandingEstimates
    agreement: ProbabilityAgreement
    diagram: Markup


@router.get("/accuracy")
def accuracy(request: Request, here: Here, caller: Reader) -> Response:
    """Estimates, probabilities against what was found, and reviewers against what stood."""
    person = somebody(caller)
    estimated = standing_estimates(here.sessions, person.classes)
    knows_people = bool(OF_PEOPLE & ABILITIES[caller.role])
    reviewers = agreement(here.sessions, classes=person.classes) if knows_people else None
    return render(
        request,
        "accuracy.html",
        estimated=estimated,
        reliable=[ClassReliability(e, e.agreement, _diagram(e.agreement)) for e in estimated],
        reviewers=reviewers,
        watched=watches(here.sessions, person.classes),
        edits=Ability.POLICIES in ABILITIES[caller.role],
        shows_labels=bool({Ability.POLICIES, Ability.AUDIT} & ABILITIES[caller.role]),
        charts=charts,
    )


@router.post("/accuracy/accept")
def accept_drift(
    here: Here,
    caller: Annotated[Caller, Depends(able(Ability.POLICIES))],
    encoder: Annotated[int, Form(ge=1, le=LARGEST_ID)],
    watched: Annotated[int, Form(ge=1, le=LARGEST_ID)],
) -> Response:
    """Take what comes now as the reference of a class whose alarm stands."""
    somebody(caller)
    accept(here.sessions, encoder, watched, caller.actor)
    return RedirectResponse("/accuracy#watched", status_code=303)


def _diagram(of: ProbabilityAgreement) -> Markup:
    return calibration_charts.reliability([(b.promised, b.found, b.count) for b in of.bins])
