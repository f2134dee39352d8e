"""The columns of an export: one row for each item, the same in every format."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Row = tuple[Any, ...]  # one value for each of COLUMNS


class ColumnType(StrEnum):
    """What a column holds; any value may be missing but the item's id."""

    TEXT = "text"  # from outside or long: anything may stand in it
    NAME = "name"  # one of a few texts of this service
    NUMBER = "whole number"
    REAL = "number"
    YES_NO = "yes or no"
    MOMENT = "moment"  # UTC
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export: name, type and description."""

    name: str
    kind: ColumnType
    meaning: str  # what it means, for people


COLUMNS = (
    Column("item", ColumnType.NUMBER, "The item's id; rows are in its order."),
    Column("batch", ColumnType.TEXT, "What it was submitted in."),
    Column("label", ColumnType.TEXT, "The batch's name, as the platform gave it."),
    Column("source", ColumnType.TEXT, "The file's name or address, as the platform gave it."),
    Column(
        "digest", ColumnType.TEXT, "SHA-256 of the image; empty: it was unreadable, or is erased."
    ),
    Column("bytes", ColumnType.NUMBER, "Size of the image's file."),
    Column("submitted_at", ColumnType.MOMENT, "When its batch was begun."),
    Column("content_date", ColumnType.DAY, "When its user put it up, if the platform said so."),
    Column("policy", ColumnType.NAME, "Name of the policy."),
    Column("policy_digest", ColumnType.NAME, "Which version of it."),
    Column("encoder", ColumnType.NAME, "Name of the encoder that judged."),
    Column("encoder_fingerprint", ColumnType.NAME, "Which one, exactly."),
    Column("verdict", ColumnType.NAME, "clear, flagged or undetermined; empty: not judged yet."),
    Column("reason", ColumnType.TEXT, "Why it is undetermined."),
    Column("class", ColumnType.NAME, "It is flagged for this class, or nearest to it."),
    Column("margin", ColumnType.REAL, "Evidence for the class, in logits."),
    Column("probability", ColumnType.REAL, "From the margin, 0 to 1; the policy may say how."),
    Column("threshold", ColumnType.REAL, "The probability from which on the policy flags."),
    Column("judged_at", ColumnType.MOMENT, "When the verdict was recorded."),
    Column("list_entry", ColumnType.NUMBER, "The entry of a list that decided."),
    Column("list_decision", ColumnType.NAME, "confirmed (blocked) or overturned (allowed) by it."),
    Column(
        "sampled",
        ColumnType.YES_NO,
        "Reviewed as a clear item that was drawn at random, or reported.",
    ),
    Column("review_decision", ColumnType.NAME, "What people decided in the end about the verdict."),
    Column("decided_at", ColumnType.MOMENT, "When they did."),
    Column("stages", ColumnType.NAME, "Stages in which people decided, in order, with + between."),
    Column("seconds_to_decide", ColumnType.REAL, "From the claim to the last decision."),
    Column("standing", ColumnType.NAME, "The verdict as it stands after lists and people."),
    Column("appeal_opened_at", ColumnType.MOMENT, "Of the newest appeal."),
    Column("appeal_closed_at", ColumnType.MOMENT, "When it was answered."),
    Column("appeal_upheld", ColumnType.YES_NO, "Yes: the image stays forbidden."),
    Column("statement", ColumnType.TEXT, "puid of the newest statement of reasons."),
    Column("supersedes", ColumnType.NUMBER, "The item that was judged anew, under another policy."),
    Column("bytes_gone_at", ColumnType.MOMENT, "When the image's bytes were deleted."),
    Column("erased", ColumnType.YES_NO, "Yes: on request, with all that was computed of it."),
    Column("fully_automated", ColumnType.YES_NO, "Its flag acted before any person looked at it."),
    Column("reports", ColumnType.NUMBER, "How often it was reported."),
    Column(
        "reported_as",
        ColumnType.NAME,
        "By whom: authority, own, trusted_flagger, user, with + between.",
    ),
)
