"""Writes a starting policy as a YAML file that says how it was made."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from textwrap import wrap

import yaml

from filter_service.calibration.starting_policy import StartingClass, StartingPolicy
from filter_service.calibration.starting_thresholds import CONFIDENCE
from filter_service.rendering.plain_names import plain

WIDTH = 98  # letters of a comment's line


@dataclass(frozen=True, slots=True)
class StartingConditions:
    """What a starting policy holds for."""

    source: str  # of the pictures, for people
    encoder: str
    fingerprint: str
    day: date


def starting_document(found: StartingPolicy, conditions: StartingConditions) -> str:
    """The policy as YAML, below comments on every threshold and look-alike."""
    document = found.policy.model_dump(mode="json", exclude_none=True)
    lines = [line for said in _said(found, conditions) for line in _comment(said)]
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=WIDTH)
    return "\n".join(lines) + "\n" + body


def _said(found: StartingPolicy, conditions: StartingConditions) -> Iterator[str]:
    share = found.classes[0].threshold.share
    yield (
        f"Written by `filter-service policy start` on {conditions.day}, from {found.pictures} "
        f"different pictures of {conditions.source}, without labels, as encoder "
        f"{conditions.encoder} sees them (fingerprint {conditions.fingerprint}). Look at it, then "
        "propose it: nothing was activated."
    )
    yield (
        f"Each threshold lies where {100 * share:.3g} % of the stream is expected above it. It is "
        f"a queue, not a probability. In brackets: between what shares that lies, with "
        f"{CONFIDENCE:.0%} confidence. {found.above} of these pictures are above some threshold."
    )
    for c in found.classes:
        yield _class(c, found.sought)


def _class(c: StartingClass, sought: int) -> str:
    t = c.threshold
    said = (
        f"- {c.name}: {t.margin:.2f} logits, {c.above} of these pictures above "
        f"({t.low:.2%} to {t.high:.2%})."
    )
    if c.proposed:
        named = ", ".join(f'"{text}" ({won})' for text, won in c.proposed.items())
        said += (
            f" Look-alikes proposed, and how many of the {sought} highest pictures fit each better "
            f"than every prompt: {named}. Take out what you forbid."
        )
    return said


def _comment(said: str) -> list[str]:
    """Lines of a comment, whatever the names in it hold."""
    indent = "# " + "  " * said.startswith("- ")
    return wrap(plain(said), WIDTH, initial_indent="# ", subsequent_indent=indent)
