"""Watches a stream of margins against the one that a calibration was fitted on.

A test that may be looked at after every image: the chance that it ever gives an alarm although
nothing changed is bounded (Ville's inequality for bets on ranks; Vovk, Nouretdinov and Gammerman
2003 for the idea). Bets start over now and then, so that a change after a long quiet time is found
as soon as one at the start (a sum of Shiryaev and Roberts, bounded by its mean).
"""

import math
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import beta

from filter_service.calibration.labelled_margins import Bools, Floats

FALSE_ALARMS = 0.01  # chance of one within a month, nothing having changed
MONTH = 30_000  # items over which the chance is stated
BLOCK = 50  # items that are looked at together
REFERENCE = 2_000  # margins of a reference at most
TILTS = np.array([-1.6, -0.8, -0.4, 0.4, 0.8, 1.6])  # bets that ranks rise, or fall
TIMES = np.array([1.5, 2.5, 5.0])  # bets that a share is so many times as large, or as small


@dataclass
class SequentialTest:
    """Bets that something changed, whose winnings are evidence once they are large."""

    evidence: Floats  # (bets,): what each has won
    false_alarms: float = FALSE_ALARMS
    month: int = MONTH
    seen: int = 0

    @property
    def bound(self) -> float:
        """The evidence at which an alarm is given.

        After n blocks the mean evidence is n at most where nothing has changed, so that by Doob's
        inequality the chance of an alarm within a month is at most half of the stated one.
        """
        return self.month / BLOCK / (self.false_alarms / 2)

    @property
    def alarmed(self) -> bool:
        return bool(self.evidence.mean() >= self.bound)

    def bet(self, payoffs: Floats) -> bool:
        """Take what each bet makes of some items, (n, bets); whether there is an alarm now.

        Nothing is bet any more once there is one.
        """
        for start in range(0, len(payoffs) - BLOCK + 1, BLOCK):
            if self.alarmed:
                break
            won = np.prod(payoffs[start : start + BLOCK], axis=0)  # (bets,)
            self.evidence = (1 + self.evidence) * won
            self.seen += BLOCK
        return self.alarmed


@dataclass
class DriftMonitor(SequentialTest):
    """Says when the margins of one class no longer come from where they came from.

    reference (r,): margins that the calibration was fitted for, in no order.
    """

    reference: Floats = field(kw_only=True)
    evidence: Floats = field(default_factory=lambda: np.zeros(len(TILTS)))

    def __post_init__(self) -> None:
        self.reference = np.sort(self.reference)

    @property
    def doubt(self) -> float:
        """How far the reference's shares may lie from the true ones, by its number alone.

        Dvoretzky, Kiefer and Wolfowitz's bound, with the other half of the stated chance.
        """
        return math.sqrt(math.log(2 / (self.false_alarms / 2)) / (2 * len(self.reference)))

    def update(self, margins: Floats) -> bool:
        """Look at margins (n,) as they come; whether there is an alarm now."""
        return self.bet(self._payoff(self.ranks(margins)))

    def ranks(self, margins: Floats) -> Floats:
        """Where each lies in the reference, as a share in (0, 1); in the middle of equals."""
        low = np.searchsorted(self.reference, margins, side="left")
        high = np.searchsorted(self.reference, margins, side="right")
        return np.asarray((low + high + 1) / 2 / (len(self.reference) + 1))

    def _payoff(self, ranks: Floats) -> Floats:
        """What each bet makes of one: (n,) ranks -> (n, bets).

        It is fair for uniform ranks. With a doubt about them it might win as much as its range
        times the doubt, by which it is lowered.
        """
        highest = TILTS / -np.expm1(-TILTS)  # (bets,), at rank 1; at rank 0 it is this less TILTS
        paid = highest * np.exp(TILTS * (ranks[:, None] - 1))  # (n, bets)
        return np.asarray(paid / (1 + np.abs(TILTS) * self.doubt))


@dataclass
class ShareMonitor(SequentialTest):
    """Says when the flagged share of a class is no longer what it was.

    A bet that it grew is fair at the largest share that the reference allows, and loses below it;
    one that it shrank at the smallest (Clopper and Pearson, with half of the stated chance).
    """

    flagged: int = field(kw_only=True)  # of the reference
    of: int = field(kw_only=True)
    evidence: Floats = field(default_factory=lambda: np.zeros(2 * len(TIMES)))

    def update(self, flags: Bools) -> bool:
        """Look at whether each of some items is flagged, (n,); whether there is an alarm now."""
        return self.bet(self._payoff(flags))

    @property
    def limits(self) -> tuple[float, float]:
        """Between what the share lay."""
        tail = self.false_alarms / 2 / 2
        k, n = self.flagged, self.of
        low = float(beta.ppf(tail, k, n - k + 1)) if k else 0.0
        high = float(beta.ppf(1 - tail, k + 1, n - k)) if k < n else 1.0
        return low, high

    def _payoff(self, flags: Bools) -> Floats:
        """What each bet makes of one: (n,) -> (n, bets)."""
        low, high = self.limits
        before = np.repeat([high, low], len(TIMES))  # (bets,)
        claimed = np.concatenate([np.minimum(high * TIMES, (1 + high) / 2), low / TIMES])
        with np.errstate(invalid="ignore", divide="ignore"):  # shares of 0 and 1 make no bet
            right = np.where(before > 0, claimed / before, 1.0)
            wrong = np.where(before < 1, (1 - claimed) / (1 - before), 1.0)
        return np.where(flags[:, None], right, wrong)


@dataclass(frozen=True, slots=True)
class ClassDriftTest:
    """Both tests of one class, as live traffic is watched."""

    margins: DriftMonitor
    shares: ShareMonitor
    threshold: float  # logits: from there on an image is flagged

    @property
    def moved(self) -> list[str]:
        """What is no longer what it was."""
        tests = {"margins": self.margins, "flagged share": self.shares}
        return [name for name, test in tests.items() if test.alarmed]

    @property
    def evidence(self) -> float:
        """Mean winnings of the test that has won more."""
        return max(float(self.margins.evidence.mean()), float(self.shares.evidence.mean()))

    def update(self, margins: Floats) -> bool:
        """Let both look at margins (n,) as they come; whether there is an alarm now."""
        self.margins.update(margins)
        self.shares.update(margins >= self.threshold)
        return bool(self.moved)


def class_drift_test(
    before: Floats, threshold: float, classes: int = 1, month: int = MONTH
) -> ClassDriftTest:
    """A test against margins (n,) of before, the newest first, for one of so many classes.

    The stated chance of a false alarm is that of all classes and both tests together.
    """
    rate = part(classes)
    flagged = int((before >= threshold).sum())
    return ClassDriftTest(
        DriftMonitor(false_alarms=rate, month=month, reference=before[:REFERENCE]),
        ShareMonitor(false_alarms=rate, month=month, flagged=flagged, of=len(before)),
        threshold,
    )


def part(classes: int) -> float:
    """What one test of one class may have of the stated chance of a false alarm."""
    return FALSE_ALARMS / (2 * classes)
