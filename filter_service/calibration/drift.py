"""Watches a stream of margins against the one that a calibration was fitted on.

A test that may be looked at after every image: the chance that it ever gives an alarm although
nothing changed is bounded (Ville's inequality for bets on ranks; Vovk, Nouretdinov and Gammerman
2003 for the idea). Bets start over now and then, so that a change after a long quiet time is found
as soon as one at the start (a sum of Shiryaev and Roberts, bounded by its mean).
"""

import math
from dataclasses import dataclass, field

import numpy as np

from filter_service.calibration.labelled_margins import Floats

FALSE_ALARMS = 0.01  # chance of one within a month, nothing having changed
MONTH = 30_000  # items over which the chance is stated
BLOCK = 50  # items that are looked at together
TILTS = np.array([-1.6, -0.8, -0.4, 0.4, 0.8, 1.6])  # bets that ranks rise, or fall


@dataclass
class DriftMonitor:
    """Says when the margins of one class no longer come from where they came from.

    reference (r,): margins that the calibration was fitted for, in no order.
    """

    reference: Floats
    false_alarms: float = FALSE_ALARMS
    month: int = MONTH
    evidence: Floats = field(default_factory=lambda: np.zeros(len(TILTS)))  # of each bet
    seen: int = 0

    def __post_init__(self) -> None:
        self.reference = np.sort(self.reference)

    @property
    def bound(self) -> float:
        """The evidence at which an alarm is given.

        After n blocks the mean evidence is n at most where nothing has changed, so that by Doob's
        inequality the chance of an alarm within a month is at most half of the stated one.
        """
        return self.month / BLOCK / (self.false_alarms / 2)

    @property
    def doubt(self) -> float:
        """How far the reference's shares may lie from the true ones, by its number alone.

        Dvoretzky, Kiefer and Wolfowitz's bound, with the other half of the stated chance.
        """
        return math.sqrt(math.log(2 / (self.false_alarms / 2)) / (2 * len(self.reference)))

    def update(self, margins: Floats) -> bool:
        """Look at margins (n,) as they come; whether there is an alarm now."""
        ranks = self.ranks(margins)  # (n,) in (0, 1)
        for start in range(0, len(ranks) - BLOCK + 1, BLOCK):
            won = np.prod(self._payoff(ranks[start : start + BLOCK]), axis=0)  # (bets,)
            self.evidence = (1 + self.evidence) * won
            self.seen += BLOCK
        return bool(self.evidence.mean() >= self.bound)

    def ranks(self, margins: Floats) -> Floats:
        """Where each lies in the reference, as a share; in the middle of equals."""
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
