"""Opens cases: items that are to wait for a person's decision."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from sqlalchemy import null, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from filter_service import ledger
from filter_service.db.tables import Item, ReviewCase
from filter_service.ledger import Entry, Event
from filter_service.policy import Severity


class Stage(StrEnum):
    """Whose decision a case waits for."""

    FIRST = "first"
    SECOND = "second"  # blind: somebody else's, who does not learn the first
    SENIOR = "senior"  # escalated, or two people disagreed
    APPEAL = "appeal"  # somebody's who has not decided it before


@dataclass(frozen=True, slots=True)
class ReviewChance:
    """How likely it was that an item came to be reviewed, known when it was drawn."""

    item: float  # for whatever class
    classes: Mapping[str, float]  # for each class about which the review says something
    evenly: bool = True  # drawn, or one of all, whatever its margin

    @classmethod
    def of_flag(cls, class_name: str, chance: float = 1.0) -> Self:
        """Every flag waits for review, unless it acts by itself and is drawn with a chance."""
        return cls(chance, {class_name: chance})


@dataclass(frozen=True, slots=True)
class Opening:
    """An item that is to wait for review."""

    item_id: int
    batch_id: uuid.UUID
    image_id: int
    policy_id: int
    class_name: str
    severity: Severity
    margin: float  # logits above the threshold of this class; below 0 for a clear item
    sampled: bool = False
    stage: Stage = Stage.FIRST
    chance: ReviewChance | None = None  # None: somebody asked for it, as in an appeal
    reported: int = 0  # the rank of whoever reported it; such a case was not drawn


def open_case(session: Session, opening: Opening, actor: str) -> None:
    """Let one item wait for review."""
    open_cases(session, [opening], actor)


def open_cases(session: Session, openings: Sequence[Opening], actor: str) -> None:
    """Let items wait for review; one that waits already stays as it is."""
    if not openings:
        return
    rows = [
        {
            "item_id": o.item_id,
            "stage": o.stage,
            "sampled": o.sampled,
            "severity": list(Severity).index(o.severity),
            "margin": o.margin,
            "class_name": o.class_name,
            "policy_id": o.policy_id,
            "batch_id": o.batch_id,
            "image_id": o.image_id,
            "client_id": select(Item.client_id).where(Item.id == o.item_id).scalar_subquery(),
            "chance": o.chance and o.chance.item,
            "class_chances": null() if o.chance is None else dict(o.chance.classes),
            "evenly": not o.reported if o.chance is None else o.chance.evenly,
            "reported": o.reported,
        }
        for o in openings
    ]
    new = upsert(ReviewCase).on_conflict_do_nothing().returning(ReviewCase.item_id)
    added = set(session.scalars(new.values(rows)))
    ledger.append(
        session,
        [
            Entry(
                Event.OPENED,
                actor,
                o.item_id,
                o.batch_id,
                {"stage": o.stage, "class": o.class_name, "sampled": o.sampled},
            )
            for o in openings
            if o.item_id in added
        ],
    )
