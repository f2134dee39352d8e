"""Parses stored JSON tolerantly, since a record must be shown even if it was tampered with."""

import json
import re

from filter_service.canonical import is_digest_of, text_digest
from filter_service.policy import Policy
from filter_service.verdicts.explanation import Explanation

# A map that was tampered with may fail anywhere between its base64 and its shape.
UNREADABLE = (
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip

_DIGEST = re.compile("[0-9a-f]{64}")


def explanation_in(text: str) -> Explanation | None:
    """None where it cannot be read."""
    try:
        explanation = Explanation.model_validate(json.loads(text))
        drawable = explanation.map is None or explanation.map.grid.ndim == 2
        named = all(_DIGEST.fullmatch(image.digest) for image in explanation.images)
        _ = (
            explanation.faithful,
            explanation.specific,
            explanation.fills,
        )  # what follows from numbers can be told
        return explanation if drawable and named else None
    except UNREADABLE:
        return None


def policy_in(document: object) -> Policy | None:
    """None where it cannot be read."""
    try:
        return Policy.model_validate(document)
    except UNREADABLE:
        return None


def digest_of(text: str, told: object) -> str:
    """SHA-256 of a text, to be compared with the one that the ledger tells."""
    return str(told) if is_digest_of(told, text) else text_digest(text)
