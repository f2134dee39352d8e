"""Response models of the API, and how they are made of what the rooms tell."""

import uuid
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from filter_service.db.unjudged import UnjudgedReason
from filter_service.images.views import is_partial
from filter_service.intake.batches import BatchRow, Status
from filter_service.intake.item_answers import ItemState
from filter_service.verdicts import Verdict


class PolicyReference(BaseModel):
    """One version of a policy."""

    name: str
    digest: str

    @classmethod
    def of(cls, row: BatchRow) -> "PolicyReference":
        return cls(name=row.policy, digest=row.digest)


class Progress(BaseModel):
    """How many items of a batch are in which state."""

    clear: int
    flagged: int
    undetermined: int
    waiting: int = Field(description="Queued, being judged or being fetched.")
    cancelled: int = Field(description="With the batch, before there was a verdict.")
    erased: int = Field(description="Before there was a verdict.")
    stranded: int = Field(description="Without a verdict and in no queue: submit them again.")

    @classmethod
    def of(cls, status: Status) -> "Progress":
        return cls(
            clear=status.clear,
            flagged=status.flagged,
            undetermined=status.undetermined,
            waiting=status.waiting,
            cancelled=status.cancelled,
            erased=status.erased,
            stranded=status.stranded,
        )


class BatchAnswer(BaseModel):
    """What was submitted in one go."""

    id: uuid.UUID
    label: str
    policy: PolicyReference
    priority: int
    submitted_at: datetime
    cancelled_at: datetime | None
    total: int | None = Field(description="Items; null while they still arrive.")

    @classmethod
    def of(cls, row: BatchRow) -> "BatchAnswer":
        batch = row.batch
        return cls(
            id=batch.id,
            label=batch.label,
            policy=PolicyReference.of(row),
            priority=batch.priority,
            submitted_at=batch.submitted_at,
            cancelled_at=batch.cancelled_at,
            total=batch.total,
        )


class BatchWithProgress(BatchAnswer):
    """A batch, and how far it has come."""

    progress: Progress
    finished: bool = Field(description="Nothing more will happen to it by itself.")


class BatchPage(BaseModel):
    """Batches, the newest first."""

    batches: list[BatchAnswer]
    next: str | None = Field(description="Give it as `after` for the next page; null: no more.")


class AcceptedBatch(BaseModel):
    """A batch that is judged from now on; `Location` leads to it."""

    batch: uuid.UUID
    policy: PolicyReference = Field(description="The version that it is judged under, for good.")


class CancellationResult(BaseModel):
    """How many items were taken back."""

    cancelled: int


class RetryResult(BaseModel):
    """How many undetermined items were queued again."""

    retried: int


class ReviewAnswer(BaseModel):
    """How moderators decided, as it stands now."""

    decision: str = Field(description="confirmed or overturned.")
    at: datetime

    @classmethod
    def of(cls, state: ItemState) -> "ReviewAnswer | None":
        if state.decision is None or state.decided_at is None:
            return None
        return cls(decision=state.decision, at=state.decided_at)


class ItemAnswer(BaseModel):
    """One submission of one image, and its verdict."""

    id: int
    batch: uuid.UUID
    source: str = Field(description="The file's name or address, as submitted.")
    digest: str | None = Field(description="SHA-256 of the bytes; null: none were had.")
    verdict: Verdict | None = Field(description="Null: `unjudged` says why.")
    unjudged: UnjudgedReason | None = Field(
        description="Why there is no verdict; null: there is one."
    )
    reason: str | None = Field(description="Why it is undetermined.")
    class_name: str | None = Field(description="The class with the worst score.")
    margin: float | None = Field(description="Of that class, in logits.")
    probability: float | None = Field(description="Of that class, 0 to 1.")
    seen_pixels_share: float | None = Field(
        description="Share of each frame that the model looked at, 0 to 1; null: not known."
    )
    seen_time_share: float | None = Field(
        description="Share of its time on the screen that the model looked at; null: not known."
    )
    seen_pixels: float | None = Field(description="The share of before, under its older name.")
    seen_time: float | None = Field(description="Likewise, the share of time.")
    partial: bool = Field(description="A part of the image was not looked at.")
    fully_automated: bool = Field(
        description="The flag acts by itself: no person looks at it first."
    )
    judged_at: datetime | None
    review: ReviewAnswer | None

    @classmethod
    def of(cls, state: ItemState) -> "ItemAnswer":
        item = state.item
        return cls(
            id=item.id,
            batch=item.batch_id,
            source=item.source,
            digest=state.digest,
            verdict=item.verdict,
            unjudged=state.unjudged,
            reason=item.reason,
            class_name=state.class_name,
            margin=item.margin,
            probability=item.probability,
            seen_pixels_share=item.seen_pixels,
            seen_time_share=item.seen_time,
            seen_pixels=item.seen_pixels,
            seen_time=item.seen_time,
            partial=is_partial(item.seen_pixels, item.seen_time),
            fully_automated=item.fully_automated,
            judged_at=item.judged_at,
            review=ReviewAnswer.of(state),
        )


class ItemPage(BaseModel):
    """Items in the order in which they came."""

    items: list[ItemAnswer]
    next: str | None = Field(description="Give it as `after` for the next page; null: no more.")


class ExplanationAnswer(BaseModel):
    """The record of why an item was flagged for one class, as it was written then."""

    class_name: str
    faithful: bool = Field(
        description="The marked places matter: the map passed the faithfulness test; one that did "
        "not is not drawn."
    )
    specific: bool | None = Field(
        description="They matter for this class more than for the next one; null: there was none "
        "to compare with, or the record is of a version that did not ask."
    )
    created_at: datetime
    record: dict[str, Any] = Field(
        description="As it was written then. `map.grid` says how strongly each place of the "
        "picture speaks for the class, in logits: `shape` is rows and columns, `float16` base64 of "
        "IEEE 754 half-precision numbers, little-endian, row by row from the upper left; each "
        "covers an equal part of what the model saw: all that it takes of frame `frame`, "
        "or the window that `view` names. Their sum and `map.remainder` are the margin. A word's "
        "`grid` is encoded likewise."
    )


class FoundItem(BaseModel):
    """An item of an image that was found."""

    id: int
    batch: uuid.UUID
    source: str
    verdict: Verdict | None
    class_name: str | None


class SearchHit(BaseModel):
    """A stored image near to what was looked for."""

    digest: str
    frame: int = Field(description="Which frame of it, from 0.")
    view: str = Field(description="Which part of the frame, in pixels; empty: as a whole.")
    similarity: float = Field(description="Cosine of the two vectors.")
    items: list[FoundItem] = Field(description="Its newest items.")


class Sightings(BaseModel):
    """Stored images, the nearest first."""

    images: list[SearchHit]


class AppealAnswer(BaseModel):
    """Somebody disagrees with a verdict."""

    id: uuid.UUID
    item: int
    statement: str
    opened_by: str
    opened_at: datetime
    closed_at: datetime | None = Field(description="Null: it waits for a decision.")
    upheld: bool | None = Field(description="The flag stands.")


class AppealList(BaseModel):
    """Everything that was said against one verdict, oldest first."""

    appeals: list[AppealAnswer]
