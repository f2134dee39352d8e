"""The results of the faithfulness test, and whether they make a map faithful and specific.

No limit is in logits, so that nothing depends on a model's logit scale; docs/faithfulness.md has
what was tried and how the limits were chosen.
"""

import math
import statistics
from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, Field, model_validator

WEIGHTS = (2 / 3, 1 / 3)  # of the drops without a tenth and without a fifth of the places
FLOOR = 0.05  # least spread of random drops, as a share of the margin
FAITHFUL = 3.69  # spreads by which the marked places must cost more than others
SPECIFIC = 1.0  # likewise, of what they cost this class less what they cost the next one
CLEARLY = 1.0  # logits: the rule of schema 1
FIRST_ORDERS = 3  # random ones of schema 1


class _Frozen(BaseModel, frozen=True, extra="forbid"):
    """An immutable part of a record; unknown fields are refused."""


class Drops(_Frozen):
    """What one class's margin lost, in logits, with places filled with the mean colour."""

    marked: tuple[float, ...]  # the map's strongest places, by share
    least: tuple[float, ...]  # its weakest ones, by share
    random: tuple[tuple[float, ...], ...] = Field(min_length=2)  # an order a row, by share
    whole: float  # every place
    served: float  # the margin with every place there

    @model_validator(mode="after")
    def _by_share(self) -> Self:
        if any(len(row) != len(WEIGHTS) for row in (self.marked, self.least, *self.random)):
            raise ValueError("every order has a drop for each share")
        return self

    def less(self, other: "Drops") -> "Drops":
        """What this margin lost beyond another one, of the same masked images."""
        return Drops(
            marked=_less(self.marked, other.marked),
            least=_less(self.least, other.least),
            random=tuple(_less(a, b) for a, b in zip(self.random, other.random, strict=True)),
            whole=self.whole,
            served=self.served,
        )

    @property
    def deviation(self) -> float:
        """How many spreads of random drops the marked places cost more than others.

        Others: half random places, half the map's weakest ones.
        """
        drops = [_weighed(row) for row in self.random]
        spread = math.hypot(statistics.stdev(drops), FLOOR * self.served)
        others = (statistics.fmean(drops) + _weighed(self.least)) / 2
        return (_weighed(self.marked) - others) / spread if spread else 0.0


class Proof(_Frozen):
    """What the served model said when the explanation was put to the test."""

    explained_error: float | None  # |score explained - score served|, logits
    sum_error: float | None  # |map + remainder - margin|, logits
    shares: tuple[float, ...]  # of the places that were taken away
    drops: Drops | None  # None: there is no map to be tested
    next_class: str | None  # the one with the next-highest margin; None: there is no other
    next_drops: Drops | None  # its margin's, of the same masked images

    @classmethod
    def none(cls) -> Self:
        """There is no map."""
        return cls(
            explained_error=None,
            sum_error=None,
            shares=(),
            drops=None,
            next_class=None,
            next_drops=None,
        )

    @property
    def tested(self) -> bool:
        return self.drops is not None

    @property
    def top_drop(self) -> float | None:
        """Margin lost without the top tenth of places."""
        return self.drops.marked[0] if self.drops else None

    @property
    def least_drops(self) -> tuple[float, ...]:
        """And without the tenth and the fifth that the map marks least."""
        return self.drops.least if self.drops else ()

    @property
    def random_drops(self) -> tuple[float, ...]:
        """And without a random tenth, in several orders."""
        return tuple(row[0] for row in self.drops.random) if self.drops else ()

    @property
    def fifth_drop(self) -> float | None:
        return self.drops.marked[-1] if self.drops else None

    @property
    def random_fifth_drops(self) -> tuple[float, ...]:
        return tuple(row[-1] for row in self.drops.random) if self.drops else ()

    def as_first(self) -> "FirstProof":
        """The proof by the rule of schema 1, whose masked images are among these."""
        return FirstProof(
            explained_error=self.explained_error,
            sum_error=self.sum_error,
            top_drop=self.top_drop,
            random_drops=self.random_drops[:FIRST_ORDERS],
            fifth_drop=self.fifth_drop,
            random_fifth_drops=self.random_fifth_drops[:FIRST_ORDERS],
        )

    @property
    def faithful(self) -> bool:
        """These places matter: they cost the margin clearly more than others do."""
        return self.drops is not None and self.drops.deviation > FAITHFUL

    @property
    def specific(self) -> bool | None:
        """They matter for this class more than for the next one; None: not asked."""
        if self.drops is None or self.next_drops is None:
            return None
        return self.faithful and self.drops.less(self.next_drops).deviation > SPECIFIC


class FirstProof(_Frozen):
    """The proof of records of schema 1, and their rule."""

    explained_error: float | None  # |score explained - score served|, logits
    sum_error: float | None  # |map + remainder - margin|, logits
    top_drop: float | None  # margin lost without the top tenth of places
    random_drops: tuple[float, ...]  # and without a random tenth, in several orders
    fifth_drop: float | None = None  # the same without the top fifth
    random_fifth_drops: tuple[float, ...] = ()

    @property
    def tested(self) -> bool:
        return self.top_drop is not None

    @property
    def faithful(self) -> bool:
        """The marked places matter clearly more than random ones, in every order that was tried.

        Clearly: by a logit in the mean of tenth and fifth, that is, by a factor e in the odds.
        """
        if self.top_drop is None or self.fifth_drop is None:
            return False
        pairs = zip(self.random_drops, self.random_fifth_drops, strict=True)
        random = [(tenth + fifth) / 2 for tenth, fifth in pairs]
        return (self.top_drop + self.fifth_drop) / 2 > max(0.0, *random) + CLEARLY

    @property
    def specific(self) -> None:
        """Nobody asked."""
        return None

    @property
    def next_drops(self) -> None:
        return None

    @property
    def least_drops(self) -> tuple[()]:
        return ()


def _weighed(drops: Sequence[float]) -> float:
    """The mean of the drops of every share."""
    return sum(weight * drop for weight, drop in zip(WEIGHTS, drops, strict=True))


def _less(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    return tuple(x - y for x, y in zip(a, b, strict=True))
