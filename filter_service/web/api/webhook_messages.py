"""The messages that webhooks get, as the description shows them: an envelope and its data."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from filter_service.reviews.report_input import ReportSource
from filter_service.verdicts import Verdict
from filter_service.webhooks import EventType
from filter_service.webhooks.outbox import PING


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class ItemMessage(_Data):
    """Which item of whose batch something happened to."""

    item: int
    batch: uuid.UUID
    source: str = Field(description="The file's name or address, as submitted.")


class StatementMessage(_Data):
    """What the platform has to send."""

    puid: uuid.UUID
    language: str
    document: dict[str, Any] = Field(description="For the Transparency Database.")
    notice: str = Field(description="For the user who is affected.")


class FlaggedMessage(ItemMessage):
    """An image was flagged; of a restricted class it is told no more than that."""

    verdict: Verdict
    class_name: str = Field(alias="class")
    probability: float | None = Field(None, description="0 to 1.")
    list_entry: int | None = Field(None, description="The list that decided, if one did.")
    fully_automated: bool = Field(False, description="Act now: no person looks at it first.")
    statement: StatementMessage | None = None


class ClearMessage(ItemMessage):
    """An image is clear, or was flagged and a list allows it."""

    verdict: Verdict
    final: Verdict
    list_entry: int | None


class UndeterminedMessage(ItemMessage):
    """An image could not be judged: nobody knows what it shows."""

    verdict: Verdict
    reason: str


class DecidedMessage(ItemMessage):
    """People, or a list, have decided for good."""

    class_name: str = Field(alias="class")
    verdict: Verdict
    decision: str = Field(description="confirmed or overturned, of the verdict.")
    final: Verdict = Field(description="How the picture is to be treated.")
    list_entry: int | None = None
    statement: StatementMessage | None = None


class AppealOpenedMessage(ItemMessage):
    """Somebody disagrees."""

    appeal: uuid.UUID


class AppealClosedMessage(ItemMessage):
    """An appeal was answered."""

    appeal: uuid.UUID
    upheld: bool = Field(description="The flag stands.")
    verdict: Verdict
    final: Verdict
    class_name: str | None = Field(None, alias="class")
    decision: str | None = None


class ReportOpenedMessage(ItemMessage):
    """Somebody says that a picture is forbidden."""

    report: uuid.UUID
    reported_as: ReportSource
    class_name: str | None = Field(alias="class")
    reference: str | None = Field(description="Of whoever reported it.")


class ReportClosedMessage(ItemMessage):
    """A report was answered."""

    report: uuid.UUID
    reported_as: ReportSource
    reference: str | None
    final: Verdict


class BatchMessage(_Data):
    """Nothing of a batch is left to judge."""

    batch: uuid.UUID
    label: str
    total: int
    cancelled: bool
    clear: int
    flagged: int
    undetermined: int
    erased: int


class DriftMessage(BaseModel):
    """What comes is no longer what a class was calibrated on."""

    model_config = ConfigDict(extra="allow")

    said: str = Field(description="What moved, since when and by how much, in words.")
    advice: str


class PingMessage(_Data):
    """A test, to one webhook."""

    asked_by: str


T = TypeVar("T", bound=BaseModel)


class WebhookMessage(BaseModel, Generic[T]):
    """The envelope of every message; its signature covers the whole body."""

    type: str
    timestamp: datetime
    data: T


_ITEM = {"item": 7, "batch": "7f3c1a52-9a0e-4f0e-8d5a-0c8f4ad1b6a7", "source": "1.jpg"}
_WHICH = "0b9f1c1e-4f0b-4a57-9d2c-2f6f7f1f3f11"
_STATEMENT = {
    "puid": "90f2271c-3d0b-5a79-8dc4-0b44be7e1c7b",
    "language": "en",
    "document": {"decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT"},
    "notice": "About your picture on Marketplace …",
}
_DECIDED = {
    **{"class": "weapons", "verdict": "flagged", "decision": "confirmed", "final": "flagged"},
    "statement": _STATEMENT,
}
_REPORT = {"report": _WHICH, "reported_as": "user", "reference": "ticket-4711"}
_COUNTS = {"clear": 8, "flagged": 1, "undetermined": 1, "erased": 0}

# What each event's data is like, with an example.
MESSAGES: dict[str, tuple[type[BaseModel], dict[str, Any]]] = {
    EventType.BATCH_FINISHED: (
        BatchMessage,
        {"batch": _ITEM["batch"], "label": "Tuesday", "total": 10, "cancelled": False, **_COUNTS},
    ),
    EventType.ITEM_FLAGGED: (
        FlaggedMessage,
        {**_ITEM, "verdict": "flagged", "class": "weapons", "probability": 0.97},
    ),
    EventType.ITEM_CLEAR: (
        ClearMessage,
        {**_ITEM, "verdict": "clear", "final": "clear", "list_entry": None},
    ),
    EventType.ITEM_UNDETERMINED: (
        UndeterminedMessage,
        {**_ITEM, "verdict": "undetermined", "reason": "The file is empty."},
    ),
    EventType.REVIEW_DECIDED: (DecidedMessage, {**_ITEM, **_DECIDED}),
    EventType.APPEAL_OPENED: (AppealOpenedMessage, {**_ITEM, "appeal": _WHICH}),
    EventType.APPEAL_CLOSED: (
        AppealClosedMessage,
        {**_ITEM, "appeal": _WHICH, "upheld": True, "verdict": "flagged", "final": "flagged"},
    ),
    EventType.REPORT_OPENED: (ReportOpenedMessage, {**_ITEM, **_REPORT, "class": "weapons"}),
    EventType.REPORT_CLOSED: (ReportClosedMessage, {**_ITEM, **_REPORT, "final": "flagged"}),
    EventType.CLASS_DRIFTED: (
        DriftMessage,
        {"said": "The margins of weapons have moved since Monday.", "advice": "Calibrate again."},
    ),
    PING: (PingMessage, {"asked_by": "key shop"}),
}


def describe(router: APIRouter) -> None:
    """Put every message among a description's webhooks."""
    for type_, (data, example) in MESSAGES.items():
        router.post(
            str(type_),
            operation_id=f"receive_{str(type_).replace('.', '_')}",
            summary=str(type_),
            description=data.__doc__ or "",
            status_code=204,
            tags=["webhooks"],
        )(_receiver(str(type_), data, example))


def _receiver(type_: str, data: type[BaseModel], example: dict[str, Any]) -> Callable[..., None]:
    """A function that takes such a message, for the description alone."""
    message = {"type": type_, "timestamp": "2026-11-21T12:00:00Z", "data": example}

    def receive(body: Any) -> None:  # noqa: ANN401
        """Answer 2xx; what is answered with anything else is sent again."""

    receive.__annotations__["body"] = Annotated[
        WebhookMessage[data],  # type: ignore[valid-type]
        Body(examples=[message]),
    ]
    return receive
