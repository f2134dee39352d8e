"""Monitors the error of screening in service, by the margins of confirmed images."""

import logging
import threading
from collections import deque
from dataclasses import dataclass, field
from statistics import median

# When pairs deviate too far, the band is made this many times as wide as the furthest of them.
ROOM = 2.0
MOST = 1e6  # with such a band every image is encoded twice
RECENT = 64  # pairs
# Half of the recent pairs further off than this part of the band: the fast pass is not the one that
# was measured. Of sound ones half lie within a fourteenth.
DRIFT = 1 / 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MarginPairs:
    """Statistics of the pairs of margins since they were last taken."""

    count: int = 0
    outside: int = 0  # of the band as it was then
    furthest: float = 0.0  # deviation, in measured bands
    total: float = 0.0  # of all deviations, for their mean
    alarms: int = 0


@dataclass
class ScreeningCheck:
    """Compares screened margins with served ones for as long as an encoder serves.

    A deviation is counted in measured bands. One outside the band, or a drift of many within it,
    raises the alarm, and the band is widened: `widening` is what measured bands are multiplied by.
    """

    encoder: str  # its name, for the log
    widening: float = 1.0
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    _pairs: MarginPairs = MarginPairs()
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def observe(self, deviations: list[float]) -> bool:
        """Take one deviation for each confirmed image; whether the band had to be widened."""
        with self._turn:
            self._recent.extend(deviations)
            furthest = max(deviations, default=0.0)
            outside = sum(d > self.widening for d in deviations)
            alarm = outside > 0 or self._drifts()
            p = self._pairs
            self._pairs = MarginPairs(
                p.count + len(deviations),
                p.outside + outside,
                max(p.furthest, furthest),
                p.total + sum(deviations),
                p.alarms + alarm,
            )
            if alarm:
                self._widen(outside, furthest)
            return alarm

    def widen(self, widening: float) -> None:
        """At least so far: what another worker of the same encoder saw."""
        with self._turn:
            self.widening = max(self.widening, widening)

    def take(self) -> MarginPairs:
        """What was seen since the last time."""
        with self._turn:
            pairs, self._pairs = self._pairs, MarginPairs()
            return pairs

    def _drifts(self) -> bool:
        full = len(self._recent) == RECENT
        return full and median(self._recent) > DRIFT * self.widening

    def _widen(self, outside: int, furthest: float) -> None:
        before = self.widening
        self.widening = min(MOST, ROOM * max(before, furthest))
        why = (
            f"{outside} screened margins lay outside the band"
            if outside
            else f"half of the last {RECENT} screened margins deviate by more than a third of it"
        )
        logger.error(
            "The fast pass of %s is not what was measured: %s. Its band is widened from %.2f to "
            "%.2f times the measured one, so that verdicts do not depend on it; "
            "more images are encoded twice. Look at drivers, hardware and what the images are.",
            self.encoder,
            why,
            before,
            self.widening,
        )
        self._recent.clear()
