"""Says in sentences what the tests of an explanation have shown."""

from filter_service.verdicts.explanation import BLUR, MEAN_COLOUR, Explanation
from filter_service.verdicts.faithfulness import Proof

NO_BETTER = "The marked places matter no more than random ones."


def tested(record: Explanation) -> str:
    """Whether the marked places matter, and for this class more than for the next one.

    Empty where there was no test.
    """
    proof = record.proof
    if not proof.tested:
        return ""
    if not record.faithful:
        return f"Not faithful: {NO_BETTER[0].lower()}{NO_BETTER[1:]}"
    specific = _specific(proof, record.class_name) if isinstance(proof, Proof) else ""
    return f"Faithful: these places matter. {specific}".strip()


def _specific(proof: Proof, class_name: str) -> str:
    if proof.next_class is None:
        return "Whether for this class alone was not tested: there is no other to compare with."
    more = f"matter for {class_name} more than for {proof.next_class}, the next class"
    shown = f"Specific: they {more}."
    return shown if proof.specific else f"Not specific: that they {more}, is not shown."


def necessary(record: Explanation, outlined: bool) -> str:
    """What the region does whose removal clears the image; empty where none was sought."""
    region, relevance_map = record.region, record.map
    if region is None or relevance_map is None:
        return ""
    fills = record.fills if len(region.places) < relevance_map.grid.size else ()
    if not fills:
        return "No part of the picture decides by itself."
    share = f"{max(1, round(100 * len(region.places) / relevance_map.grid.size))} % of the picture"
    part = f"the outlined {share}" if outlined else share
    if len(fills) == len((MEAN_COLOUR, BLUR)):
        return f"Without {part} it would not be flagged."
    if fills == (MEAN_COLOUR,):
        return f"With {part} in its mean colour it would not be flagged; blurred, it still would."
    return f"With {part} blurred it would not be flagged; in its mean colour, it still would."
