"""Collects the differences between recorded and recomputed values, within tolerances."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from filter_service.audit.replay.tolerances import EXACTLY, PLACES, Tolerance

FLOAT16_STEP = 2.0**-10  # of a value: the distance of two neighbours in float16, at most

Value = float | str | bool | None


@dataclass(frozen=True, slots=True)
class RecordDifference:
    """One value on record that was not found again."""

    place: str
    recorded: Value
    computed: Value
    tolerance: float
    difference: float | None = None  # None: there is no distance between the two


@dataclass
class RecordComparison:
    """Everything that was compared of one item."""

    differences: list[RecordDifference] = field(default_factory=list)
    largest: dict[str, float] = field(default_factory=dict)  # by quantity; compared numbers only
    notes: list[str] = field(default_factory=list)  # what could not be compared, and why

    def same(self, place: str, recorded: Value, computed: Value) -> bool:
        """What must be equal."""
        if recorded != computed:
            self.differences.append(RecordDifference(place, recorded, computed, EXACTLY.size))
        return recorded == computed

    def number(
        self,
        place: str,
        recorded: float | None,
        computed: float | None,
        tolerance: Tolerance | float,
        quantity: str = "",
    ) -> None:
        """What may differ a little; both may be None."""
        if recorded is None or computed is None:
            self.same(place, recorded, computed)
            return
        allowed = tolerance.size if isinstance(tolerance, Tolerance) else tolerance
        apart = abs(recorded - computed)
        self._seen(quantity or place, apart)
        if not apart <= allowed:  # nor NaN
            found = None if math.isnan(apart) else apart
            self.differences.append(RecordDifference(place, recorded, computed, allowed, found))

    def numbers(
        self, place: str, quantity: str, recorded: object, computed: object, **tolerances: float
    ) -> None:
        """Fields of the same name, each with its tolerance."""
        for name, allowed in tolerances.items():
            before, after = getattr(recorded, name), getattr(computed, name)
            self.number(f"{place}: {name}", before, after, allowed, f"{quantity}: {name}")

    def grid(
        self, place: str, recorded: npt.NDArray[np.float16], computed: npt.NDArray[np.float16]
    ) -> None:
        """Maps, place by place: the worst of those that differ too much is told."""
        if not self.same(f"{place}: shape", str(recorded.shape), str(computed.shape)):
            return
        a, b = recorded.astype(np.float64).ravel(), computed.astype(np.float64).ravel()
        apart = np.abs(a - b)
        allowed = PLACES.size + FLOAT16_STEP * np.maximum(np.abs(a), np.abs(b))
        over = np.where(np.isnan(apart), np.inf, apart - allowed)
        worst = int(over.argmax())
        self._seen("map: place", float(np.nanmax(apart, initial=0.0)))
        if over[worst] > 0:
            found = f"{place}: place {worst}, of {int((over > 0).sum())} that differ"
            self.differences.append(
                RecordDifference(
                    found,
                    float(a[worst]),
                    float(b[worst]),
                    float(allowed[worst]),
                    float(apart[worst]),
                )
            )

    def _seen(self, quantity: str, apart: float) -> None:
        self.largest[quantity] = max(self.largest.get(quantity, 0.0), apart)

    def told(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "differences": [
                {
                    "place": d.place,
                    "recorded": _finite(d.recorded),
                    "computed": _finite(d.computed),
                    "difference": _finite(d.difference),
                    "tolerance": d.tolerance,
                }
                for d in self.differences
            ],
            "largest": self.largest,
            "notes": self.notes,
        }


def _finite(value: Value) -> Value:
    """JSON has no NaN."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
