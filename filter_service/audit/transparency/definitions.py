"""What each figure means, in a sentence that stands beside it on the page and in the file."""

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a figure counts in."""

    ITEMS = "items"
    SHARE = "share"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class Defined:
    """A figure before it is counted."""

    key: str
    title: str
    unit: Unit
    definition: str


@dataclass(frozen=True, slots=True)
class Chapter:
    """Figures that belong together."""

    key: str
    title: str
    defined: tuple[Defined, ...]


CHAPTERS = (
    Chapter(
        "volume",
        "Volume",
        (
            Defined(
                "submitted",
                "Submitted",
                Unit.ITEMS,
                "Items of batches that were begun in the period, without those that the service "
                "judged anew by itself under another policy.",
            ),
            Defined(
                "judged",
                "Judged",
                Unit.ITEMS,
                "Items that became clear or flagged in the period; one that was judged anew under "
                "another policy counts for each verdict.",
            ),
            Defined(
                "flagged",
                "Flagged",
                Unit.ITEMS,
                "Judged items that were flagged for a forbidden class, by the model or a list.",
            ),
            Defined(
                "undetermined",
                "Undetermined",
                Unit.ITEMS,
                "Items that could not be judged in the period and still are not.",
            ),
        ),
    ),
    Chapter(
        "automation",
        "How decisions came about",
        (
            Defined(
                "by_model",
                "By the model alone",
                Unit.ITEMS,
                "Judged items whose verdict stands as the model gave it, with no decision of a "
                "person or a list until now.",
            ),
            Defined(
                "by_lists",
                "By lists",
                Unit.ITEMS,
                "Judged items that a list of known images decided, which people keep.",
            ),
            Defined(
                "by_people",
                "By people",
                Unit.ITEMS,
                "Judged items about which a person has decided, flagged or drawn at random.",
            ),
            Defined(
                "automated_share",
                "Automated share",
                Unit.SHARE,
                "Share of the judged items that no person has decided about, but the model alone "
                "or a list.",
            ),
        ),
    ),
    Chapter(
        "decisions",
        "Decisions of people",
        (
            Defined(
                "confirmed",
                "Confirmed",
                Unit.ITEMS,
                "Flags that people let stand, by decisions that took effect in the period and "
                "stand now.",
            ),
            Defined(
                "overturned",
                "Overturned",
                Unit.ITEMS,
                "Flags that people took back, by decisions that took effect in the period and "
                "stand now.",
            ),
            Defined(
                "overturn_rate",
                "Overturn rate",
                Unit.SHARE,
                "Share of the flags that people decided about in the period which they took back.",
            ),
        ),
    ),
    Chapter(
        "errors",
        "Accuracy and possible rate of error",
        (
            Defined(
                "precision",
                "Flags that were right",
                Unit.SHARE,
                "Share of the period's flags that people confirmed, of those they decided about; "
                "it holds for all flags as far as these are like the others.",
            ),
            Defined(
                "sample",
                "Clear items looked at",
                Unit.ITEMS,
                "Clear items of the period that were drawn at random and that people decided "
                "about, without those that were judged anew since.",
            ),
            Defined(
                "missed_share",
                "Clear items that were wrong",
                Unit.SHARE,
                "Estimated share of the clear items that should have been flagged, from those "
                "drawn at random, each weighted by how many it stands for.",
            ),
            Defined(
                "missed",
                "Missed items",
                Unit.ITEMS,
                "Estimated number of clear items that should have been flagged: the share of "
                "wrong ones, of the clear items it speaks for, without those judged anew since.",
            ),
        ),
    ),
    Chapter(
        "appeals",
        "Appeals",
        (
            Defined("appeals_opened", "Opened", Unit.ITEMS, "Appeals opened in the period."),
            Defined(
                "appeals_upheld",
                "Flag upheld",
                Unit.ITEMS,
                "Appeals answered in the period after which the image stays forbidden.",
            ),
            Defined(
                "appeals_reversed",
                "Flag reversed",
                Unit.ITEMS,
                "Appeals answered in the period after which it does not.",
            ),
            Defined(
                "reversal_rate",
                "Reversal rate",
                Unit.SHARE,
                "Share of the appeals answered in the period that reversed the flag.",
            ),
            Defined(
                "appeal_rate",
                "Appeal rate",
                Unit.SHARE,
                "Share of the items flagged in the period about which an appeal was opened until "
                "now.",
            ),
        ),
    ),
    Chapter(
        "times",
        "Median times",
        (
            Defined(
                "verdict_seconds",
                "Submission to verdict",
                Unit.SECONDS,
                "From the beginning of an item's batch to its verdict, for verdicts of the period, "
                "without items that were judged anew.",
            ),
            Defined(
                "decision_seconds",
                "Flag to decision",
                Unit.SECONDS,
                "From an item's flag to the first decision of a person about it, for first "
                "decisions of the period.",
            ),
            Defined(
                "claim_seconds",
                "Claim to decision",
                Unit.SECONDS,
                "From the moment somebody took a case to their decision, for decisions of the "
                "period.",
            ),
            Defined(
                "appeal_seconds",
                "Appeal to decision",
                Unit.SECONDS,
                "From the opening of an appeal to its answer, for answers of the period.",
            ),
        ),
    ),
)
