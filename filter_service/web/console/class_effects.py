"""What the editor shows of one class: margins, what its threshold would do, pictures that cross."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fastapi import Request
from markupsafe import Markup

from filter_service.accounts.callers import Caller
from filter_service.calibration.labels import restricted_classes
from filter_service.calibration.separating_phrases import SeparatingPhrases
from filter_service.db.query_encoder import WordedPolicy
from filter_service.errors import FilterServiceError, InvalidRequest, ModelUnavailable
from filter_service.policy import ForbiddenClass, Policy
from filter_service.rendering.stream_chart import (
    MarginScale,
    StreamMargins,
    scale_of,
    stream_histogram,
)
from filter_service.reviews import tallies
from filter_service.reviews.review_rules import active_rules
from filter_service.reviews.row_access import may_see
from filter_service.reviews.sightings import newest_by_image
from filter_service.rollout.class_margins import ClassMargins, EditedClass, class_margins
from filter_service.rollout.class_phrases import class_phrases
from filter_service.rollout.margin_store import MarginStore, key_of
from filter_service.rollout.threshold_effects import (
    CrossingImage,
    ThresholdEffects,
    Thresholds,
    Traffic,
    effects,
)
from filter_service.verdicts import calibration_line, certain_margin, threshold_margin
from filter_service.web.console.model_warmup import warming
from filter_service.web.http.service import Service

SHOWN = 8  # pictures on either side
PATIENCE = 2.0  # seconds that figures for other words wait for the model
LOADING = "The model is still being loaded: look again in a few seconds."
NOTHING = "No image has been judged or kept yet, so that there is nothing to show."


@dataclass(frozen=True, slots=True)
class CrossingPicture:
    """An image that crosses, with the newest item of it that this person may see."""

    crossing: CrossingImage
    digest: str
    item_id: int


@dataclass(frozen=True, slots=True)
class ClassEffects:
    """All that is shown of a class; or a sentence that says why nothing is."""

    why_none: str = ""
    name: str = ""
    certain: float = math.inf  # margin, logits
    line: tuple[float, float] = (1.0, 0.0)  # slope and offset from margin to logit
    calibrated: bool = False
    computed: bool = False  # margins are of other words than the active version's
    scale: MarginScale = field(default_factory=lambda: MarginScale(-4.0, 4.0))
    chart: Markup = field(default_factory=Markup)
    found: ThresholdEffects | None = None
    images_a_day: float = 0.0
    down: tuple[CrossingPicture, ...] = ()
    up: tuple[CrossingPicture, ...] = ()


@dataclass
class EditorMemory:
    """What the editor keeps between requests, in one web process."""

    margins: MarginStore[ClassMargins] = field(default_factory=MarginStore)
    phrases: MarginStore[SeparatingPhrases] = field(default_factory=MarginStore)
    traffic: MarginStore[float] = field(default_factory=MarginStore)


def effects_of(
    here: Service, request: Request, caller: Caller, asked: EditedClass, *, drawn: bool
) -> ClassEffects:
    """Everything about a class of a valid policy; without the chart unless it is to be drawn."""
    try:
        found = margins_of(here, request, caller, asked)
    except FilterServiceError as error:
        return ClassEffects(why_none=str(error), name=asked.name)
    forbidden = asked.policy.forbidden(asked.name)
    active = _active(asked)
    images_a_day = _memory(request).traffic.get("", lambda: _images_a_day(here))
    with here.sessions.begin() as session:
        traffic = Traffic(images_a_day, asked.name, active_rules(session))
    active_margin = None if active is None else threshold_margin(active)
    at = Thresholds(threshold_margin(forbidden), active_margin, certain_margin(forbidden))
    done = effects(found, at, traffic)
    margins = _drawn_margins(asked, found, at)
    return ClassEffects(
        name=asked.name,
        certain=at.certain,
        line=calibration_line(forbidden),
        calibrated=forbidden.calibration is not None,
        computed=found.computed,
        scale=scale_of(margins),
        chart=stream_histogram(margins, f"Margins for {asked.name}") if drawn else Markup(),
        found=done,
        images_a_day=images_a_day,
        down=_pictures(here, caller, done.crossing_down),
        up=_pictures(here, caller, done.crossing_up),
    )


def phrases_of(
    here: Service, request: Request, caller: Caller, asked: EditedClass
) -> SeparatingPhrases:
    """What tells confirmed flags from overturned ones in words; raises as `margins_of` does."""
    found = margins_of(here, request, caller, asked)
    margin = threshold_margin(_active(asked) or asked.policy.forbidden(asked.name))
    key = f"{key_of(asked)} {margin:.3f}"
    return _memory(request).phrases.get(key, lambda: class_phrases(here.sessions, found, margin))


def margins_of(here: Service, request: Request, caller: Caller, asked: EditedClass) -> ClassMargins:
    """From memory, or read now; raises InvalidRequest for what nobody may be told, Transient."""

    def make() -> ClassMargins:
        return class_margins(here.sessions, asked, lambda policy: _words(here, request, policy))

    _require_open(here, caller, asked)
    found = _memory(request).margins.get(key_of(asked), make)
    if not len(found.stream):
        raise InvalidRequest(NOTHING)
    return found


def _require_open(here: Service, caller: Caller, asked: EditedClass) -> None:
    names = {asked.name, asked.label_name}
    with here.sessions.begin() as session:
        hidden = names & restricted_classes(session)
    if hidden or asked.policy.forbidden(asked.name).sealed is not None:
        raise InvalidRequest(f"{asked.name} is restricted: nothing of its pictures is shown.")
    if not all(may_see(caller, name) for name in names):
        raise InvalidRequest(
            f"{asked.name} is not among the classes that you may see: an admin can change that."
        )


def _words(here: Service, request: Request, policy: Policy) -> WordedPolicy:
    if not warming(request, here).ready(PATIENCE):
        raise ModelUnavailable(LOADING)
    return here.seeker.words(policy)


def _active(asked: EditedClass) -> ForbiddenClass | None:
    """The class that the active version has in its place."""
    if asked.active is None or asked.active_name is None:
        return None
    return asked.active.forbidden(asked.active_name)


def _drawn_margins(asked: EditedClass, found: ClassMargins, at: Thresholds) -> StreamMargins:
    truths = found.labelled.truths
    return StreamMargins(
        found.stream.edited,
        found.known.edited[truths],
        found.known.edited[~truths],
        at.margin,
        at.active if asked.same_words else None,  # other words have another scale
        at.certain,
    )


def _pictures(
    here: Service, caller: Caller, crossing: Sequence[CrossingImage]
) -> tuple[CrossingPicture, ...]:
    """The first of those of which this person may see an item."""
    if not crossing:
        return ()
    with here.sessions.begin() as session:
        known = newest_by_image(session, caller, [c.image_id for c in crossing])
    seen = [CrossingPicture(c, *known[c.image_id]) for c in crossing if c.image_id in known]
    return tuple(seen[:SHOWN])


def _images_a_day(here: Service) -> float:
    """Over the days since the first one of the last month on which something was judged."""
    judged = tallies.judged_by_day(here.sessions)
    days = (datetime.now(UTC).date() - min(judged)).days + 1 if judged else 1
    return sum(judged.values()) / days


def _memory(request: Request) -> EditorMemory:
    state = request.app.state
    found: EditorMemory | None = getattr(state, "editor_memory", None)
    if found is None:
        found = state.editor_memory = EditorMemory()
    return found
