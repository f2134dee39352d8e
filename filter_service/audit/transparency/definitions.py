"""The definition of each transparency figure, shown beside it on the page and in the file."""

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """What a figure counts in."""

    ITEMS = "items"
    SHARE = "share"
    SECONDS = "seconds"


@dataclass(frozen=True, slots=True)
class FigureDefinition:
    """The definition of one figure: key, title, unit and meaning."""

    key: str
    title: str
    unit: Unit
    definition: str


@dataclass(frozen=True, slots=True)
class ReportChapter:
    """Figures that belong together."""

    key: str
    title: str
    defined: tuple[FigureDefinition, ...]


CHAPTERS = (
    ReportChapter(
        "volume",
        "Volume",
        (
            FigureDefinition(
                "submitted",
                "Submitted",
                Unit.ITEMS,
                "Items of batches that were begun in the period, without those that the service "
                "judged anew by itself under another policy.",
            ),
            FigureDefinition(
                "judged",
                "Judged",
                Unit.ITEMS,
                "Items that became clear or flagged in the period; one that was judged anew under "
                "another policy counts for each verdict.",
            ),
            FigureDefinition(
                "flagged",
                "Flagged",
                Unit.ITEMS,
                "Judged items that were flagged for a forbidden class, by the model or a list.",
            ),
            FigureDefinition(
                "undetermined",
                "Undetermined",
                Unit.ITEMS,
                "Items that could not be judged in the period and still are not.",
            ),
        ),
    ),
    ReportChapter(
        "automation",
        "How decisions came about",
        (
            FigureDefinition(
                "by_model",
                "By the model alone",
                Unit.ITEMS,
                "Judged items whose verdict stands as the model gave it, with no decision of a "
                "person or a list until now.",
            ),
            FigureDefinition(
                "fully_automated",
                "Flags that acted by themselves",
                Unit.ITEMS,
                "Judged items whose flag reached its class's second threshold (certain), so that "
                "it acted before any person looked; a sample of them is reviewed all the same.",
            ),
            FigureDefinition(
                "by_lists",
                "By lists",
                Unit.ITEMS,
                "Judged items that a list of known images decided, which people keep.",
            ),
            FigureDefinition(
                "by_people",
                "By people",
                Unit.ITEMS,
                "Judged items about which a person has decided, flagged or drawn at random.",
            ),
            FigureDefinition(
                "automated_share",
                "Automated share",
                Unit.SHARE,
                "Share of the judged items that no person has decided about, but the model alone "
                "or a list.",
            ),
        ),
    ),
    ReportChapter(
        "decisions",
        "Decisions of people",
        (
            FigureDefinition(
                "confirmed",
                "Confirmed",
                Unit.ITEMS,
                "Flags that people let stand, by decisions that took effect in the period and "
                "stand now.",
            ),
            FigureDefinition(
                "overturned",
                "Overturned",
                Unit.ITEMS,
                "Flags that people took back, by decisions that took effect in the period and "
                "stand now.",
            ),
            FigureDefinition(
                "overturn_rate",
                "Overturn rate",
                Unit.SHARE,
                "Share of the flags that people decided about in the period which they took back.",
            ),
        ),
    ),
    ReportChapter(
        "errors",
        "Accuracy and possible rate of error",
        (
            FigureDefinition(
                "precision",
                "Flags that were right",
                Unit.SHARE,
                "Share of the period's flags that people confirmed, of those they decided about; "
                "it holds for all flags as far as these are like the others. Of flags that acted "
                "by themselves those drawn at random count, each for as many as it stands for.",
            ),
            FigureDefinition(
                "sample",
                "Clear items looked at",
                Unit.ITEMS,
                "Clear items of the period that were drawn at random and that people decided "
                "about, without those that were judged anew since.",
            ),
            FigureDefinition(
                "missed_share",
                "Clear items that were wrong",
                Unit.SHARE,
                "Estimated share of the clear items that should have been flagged, from those "
                "drawn at random, each weighted by how many it stands for.",
            ),
            FigureDefinition(
                "missed",
                "Missed items",
                Unit.ITEMS,
                "Estimated number of clear items that should have been flagged: the share of "
                "wrong ones, of the clear items it speaks for, without those judged anew since.",
            ),
        ),
    ),
    ReportChapter(
        "appeals",
        "Appeals",
        (
            FigureDefinition(
                "appeals_opened", "Opened", Unit.ITEMS, "Appeals opened in the period."
            ),
            FigureDefinition(
                "appeals_upheld",
                "Flag upheld",
                Unit.ITEMS,
                "Appeals answered in the period after which the image stays forbidden.",
            ),
            FigureDefinition(
                "appeals_reversed",
                "Flag reversed",
                Unit.ITEMS,
                "Appeals answered in the period after which it does not.",
            ),
            FigureDefinition(
                "reversal_rate",
                "Reversal rate",
                Unit.SHARE,
                "Share of the appeals answered in the period that reversed the flag.",
            ),
            FigureDefinition(
                "appeal_rate",
                "Appeal rate",
                Unit.SHARE,
                "Share of the items flagged in the period about which an appeal was opened until "
                "now.",
            ),
        ),
    ),
    ReportChapter(
        "times",
        "Median times",
        (
            FigureDefinition(
                "verdict_seconds",
                "Submission to verdict",
                Unit.SECONDS,
                "From the beginning of an item's batch to its verdict, for verdicts of the period, "
                "without items that were judged anew.",
            ),
            FigureDefinition(
                "decision_seconds",
                "Flag to decision",
                Unit.SECONDS,
                "From an item's flag to the first decision of a person about it, for first "
                "decisions of the period.",
            ),
            FigureDefinition(
                "claim_seconds",
                "Claim to decision",
                Unit.SECONDS,
                "From the moment somebody took a case to their decision, for decisions of the "
                "period.",
            ),
            FigureDefinition(
                "appeal_seconds",
                "Appeal to decision",
                Unit.SECONDS,
                "From the opening of an appeal to its answer, for answers of the period.",
            ),
        ),
    ),
)
