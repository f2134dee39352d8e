"""The tolerances of a replay: how far recomputed numbers may deviate, and why."""

from dataclasses import dataclass

VERSION = 1  # of this list; entries of the ledger name it


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What is allowed for one kind of number."""

    name: str
    size: float
    unit: str
    reason: str


LOGITS = Tolerance(
    "logits",
    1e-3,
    "logits",
    "Another number of threads adds float32 numbers in another order: 7e-6 was measured. What "
    "matters to anybody is a hundred times larger.",
)
PLACES = Tolerance(
    "places",
    1e-3,
    "logits",
    "Maps are kept in float16: to the tolerance of logits a rounding step of the value, a "
    "thousandth of it, is added.",
)
SHARES = Tolerance("shares", 1e-3, "", "Weights of prompts, which follow from logits.")
PROBABILITIES = Tolerance(
    "probabilities",
    LOGITS.size / 4,
    "",
    "No probability moves by more than a quarter of its logits times the class's slope.",
)
DEGREES = Tolerance(
    "degrees",
    0.05,
    "degrees",
    "The boundary is sought until a step gains less than a thousandth of a degree; a vector that "
    "is kept in float16 has turned by up to 0.03 degrees.",
)
SCREENED = Tolerance(
    "screened",
    1.0,
    "bands",
    "Of images far from every threshold, and of masked ones, only a fast look is on record, in a "
    "lower precision. They may lie apart as far as the encoder's own band says, of the precision "
    "then or now, which is a multiple of what it measured on its probe images.",
)
SCREENED_DEGREES = Tolerance(
    "screened degrees",
    2.0,
    "degrees",
    "Likewise for angles: of bfloat16 every number on the way may be 0.4 per cent off.",
)
KEPT = Tolerance(
    "kept",
    2.0**-10,
    "times the encoder's scale",
    "Of an image whose bytes are gone there may be only a vector in float16: rounding moves it by "
    "up to 2^-11, and a margin by twice the scale times that; or, since then, an exact one, which "
    "may lie a band away from the fast look that was on record.",
)
EXACTLY = Tolerance(
    "exactly", 0.0, "", "Verdicts, classes, digests, methods, wordings and counts are the same."
)

STATED = (LOGITS, PLACES, SHARES, PROBABILITIES, DEGREES, SCREENED, SCREENED_DEGREES, KEPT, EXACTLY)


def of_margins(exact: bool, band: float) -> float:
    """What is allowed of a margin, in logits; of a fast look's as far as its band says."""
    return LOGITS.size if exact else max(LOGITS.size, SCREENED.size * band)
