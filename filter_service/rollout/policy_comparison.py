"""Compares what two policy versions flag among stored vectors, in numpy.

Every vector is looked at in float16, as it is stored for the search, and in float32 arithmetic.
That moves a margin by a bound that is known, and whoever is nearer than that to a threshold, or
within the band in which the judge encodes again, is looked at again in the float32 vector, with
the arithmetic of the judge. So the verdicts are those that the judge gives, wherever a float32
vector is kept.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nlargest
from itertools import chain
from typing import Literal

import numpy as np
import numpy.typing as npt

from filter_service.policy import ForbiddenClass
from filter_service.scoring import ClassVectors, FloatArray, PolicyVectors
from filter_service.verdicts import certain_margin, threshold_margin

Ids = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Exactly = Callable[[Ids], tuple[FloatArray, Bools]]  # rows -> unit vectors, and whether float32

EXAMPLES = 12  # of each side
HALF = 2.0**-11  # of a number: what rounding to float16 can change
SINGLE = 2.0**-23  # likewise of float32, in each step of two sums


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """An image that one version flags and the other does not."""

    image_id: int
    class_name: str  # that it is flagged for
    above: float  # logits over that class's threshold, in the version that flags it
    other: float  # logits from the nearest threshold of the other version; below 0


@dataclass(frozen=True, slots=True)
class FlagCounts:
    """How many images are flagged for something."""

    both: int = 0
    only_old: int = 0
    only_new: int = 0

    def __add__(self, more: "FlagCounts") -> "FlagCounts":
        return FlagCounts(
            self.both + more.both, self.only_old + more.only_old, self.only_new + more.only_new
        )

    @property
    def old(self) -> int:
        return self.both + self.only_old

    @property
    def new(self) -> int:
        return self.both + self.only_new


@dataclass(frozen=True, slots=True)
class PolicyComparison:
    """What two versions answer for the same images."""

    images: int = 0
    vectors: int = 0  # views of frames
    total: FlagCounts = FlagCounts()  # flagged for any class
    classes: dict[str, FlagCounts] = field(default_factory=dict)
    lost: tuple[ChangedImage, ...] = ()  # flagged by the old version only, furthest over first
    gained: tuple[ChangedImage, ...] = ()  # by the new one only, likewise
    again: int = 0  # vectors so near to a threshold that their float32 form was asked for
    unsure: int = 0  # of these, those that have none: the judge would encode the image again
    acting: FlagCounts = FlagCounts()  # flagged for any class so surely that it acts by itself
    acting_classes: dict[str, FlagCounts] = field(default_factory=dict)  # those that can

    def __add__(self, more: "PolicyComparison") -> "PolicyComparison":
        return PolicyComparison(
            self.images + more.images,
            self.vectors + more.vectors,
            self.total + more.total,
            _added(self.classes, more.classes),
            _furthest((*self.lost, *more.lost)),
            _furthest((*self.gained, *more.gained)),
            self.again + more.again,
            self.unsure + more.unsure,
            self.acting + more.acting,
            _added(self.acting_classes, more.acting_classes),
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """A class as rows of one matrix product over the texts of both versions."""

    vectors: ClassVectors
    threshold: float  # margin, logits
    certain: float  # logits over the threshold from which on a flag acts by itself; inf: none does
    band: float  # how far a margin may lie from that of the judge, logits
    prompts: slice | npt.NDArray[np.intp]
    neutral: slice | npt.NDArray[np.intp]
    learnt: slice | npt.NDArray[np.intp]  # of the head's direction; empty without one


class Contrast:
    """Two versions of a policy in one encoder's space, ready for any number of vectors."""

    def __init__(
        self, old: PolicyVectors, new: PolicyVectors, hidden: Collection[str] = ()
    ) -> None:
        texts = _Texts()
        self.names = tuple(dict.fromkeys(c.name for v in (old, new) for c in v.classes))
        self._sides = tuple(
            tuple(
                _placed(c, version.policy.forbidden(c.name), float(band), texts)
                for c, band in zip(
                    version.classes,
                    np.broadcast_to(version.bands, len(version.classes)),
                    strict=True,
                )
            )
            for version in (old, new)
        )
        # What is sealed is counted, and no picture of it is ever an example.
        sealed = (c.name for v in (old, new) for c in v.policy.classes if c.sealed is not None)
        self._hidden = frozenset(hidden).union(sealed)
        self._texts = texts.matrix(old.classes[0].logit_scale.factor)  # (t, d)
        bands = [c.band for c in chain(*self._sides)]
        self._bands = np.array(bands, np.float32)[:, None]  # (classes of both, 1)
        certain = [c.certain for c in chain(*self._sides)]
        self._certain = np.array(certain, np.float32)[:, None]  # (classes of both, 1)

    def compare(self, images: Ids, vectors: FloatArray, exactly: Exactly) -> PolicyComparison:
        """Some images, all frames of each one after the other: ids (n,), vectors (n, d) unit."""
        logits: FloatArray = (
            self._texts @ vectors.T
        )  # (t, n): sums over few texts are quick along the images
        over = np.concatenate([_over(side, logits) for side in self._sides])  # (classes, n)
        near = np.abs(over) < self._bands
        if np.isfinite(self._certain).any():
            near |= np.abs(over - self._certain) < self._bands
        rows = np.flatnonzero(near.any(axis=0))
        unsure = 0
        if len(rows):  # the judge's own margins take their places
            again, exact = exactly(rows)
            for row, which, placed in zip(over, near[:, rows], chain(*self._sides), strict=True):
                if which.any():
                    row[rows[which]] = placed.vectors.margins(again[which]) - placed.threshold
            unsure = int((~exact).sum())
        starts = np.flatnonzero(np.diff(images, prepend=-1))
        if len(starts) < len(images):  # an image is what its worst frame is
            over = np.maximum.reduceat(over, starts, axis=1)
        old, new = np.split(over, [len(self._sides[0])])
        return replace(
            self._counted(images[starts], old, new),
            vectors=len(images),
            again=len(rows),
            unsure=unsure,
        )

    def _counted(self, images: Ids, old: FloatArray, new: FloatArray) -> PolicyComparison:
        flagged = [self._by_name(0, old >= 0), self._by_name(1, new >= 0)]  # (names, images) each
        by_old, by_new = (np.asarray(f.any(axis=0)) for f in flagged)
        certain = np.split(self._certain, [len(self._sides[0])])
        acting = [self._by_name(i, o >= certain[i]) for i, o in enumerate((old, new))]
        can = {c.vectors.name for c in chain(*self._sides) if np.isfinite(c.certain)}
        return PolicyComparison(
            images=len(images),
            total=_counts(by_old, by_new),
            classes=dict(zip(self.names, map(_counts, *flagged), strict=True)),
            lost=self._examples(images, (old, new), 0, by_old & ~by_new),
            gained=self._examples(images, (old, new), 1, by_new & ~by_old),
            acting=_counts(*(np.asarray(a.any(axis=0)) for a in acting)),
            acting_classes={
                name: _counts(o, n)
                for name, o, n in zip(self.names, *acting, strict=True)
                if name in can
            },
        )

    def _by_name(self, side: int, found: Bools) -> Bools:
        """What holds for a version's classes, in the order of all names: -> (names, n)."""
        named = np.zeros((len(self.names), found.shape[1]), np.bool_)
        named[[self.names.index(c.vectors.name) for c in self._sides[side]]] = found
        return named

    def _examples(
        self, images: Ids, over: tuple[FloatArray, FloatArray], side: Literal[0, 1], which: Bools
    ) -> tuple[ChangedImage, ...]:
        rows = np.flatnonzero(which)
        above = over[side][:, rows]  # (classes, some)
        names = [c.vectors.name for c in self._sides[side]]
        hidden = [i for i, name in enumerate(names) if name in self._hidden]
        shown = ~(above[hidden] >= 0).any(axis=0)
        rows, above = rows[shown], above[:, shown]
        worst = above.argmax(axis=0)
        most = above.max(axis=0)
        first = np.argsort(-most, kind="stable")[:EXAMPLES]
        return tuple(
            ChangedImage(
                int(images[rows[i]]),
                names[int(worst[i])],
                float(most[i]),
                float(over[1 - side][:, rows[i]].max()),
            )
            for i in first
        )


class _Texts:
    """The different vectors of all prompts, each once, however many classes have it."""

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._vectors: list[FloatArray] = []

    def place(self, vectors: FloatArray) -> slice | npt.NDArray[np.intp]:
        """Where these are among the rows: (p, d) -> a stretch, or p numbers."""
        places = []
        for v in vectors:
            key = v.tobytes()
            if key not in self._rows:
                self._rows[key] = len(self._vectors)
                self._vectors.append(v)
            places.append(self._rows[key])
        if places == list(range(places[0], places[0] + len(places))) if places else False:
            return slice(places[0], places[0] + len(places))  # a view, where numbers would copy
        return np.array(places, np.intp)

    def matrix(self, scale: float) -> FloatArray:
        """So that a product with vectors is logits: (t, d)."""
        return np.asarray(np.stack(self._vectors) * scale, np.float32)


def _placed(
    vectors: ClassVectors, forbidden: ForbiddenClass, band: float, texts: _Texts
) -> _Placed:
    threshold = threshold_margin(forbidden)
    return _Placed(
        vectors,
        threshold,
        certain_margin(forbidden) - threshold,
        band + _band(vectors),
        texts.place(vectors.prompts),
        texts.place(vectors.neutral),
        texts.place(_learnt(vectors)),
    )


def _counts(old: Bools, new: Bools) -> FlagCounts:
    """How many of the same images (n,) each version says something of."""
    both = int((old & new).sum())
    return FlagCounts(both, int(old.sum()) - both, int(new.sum()) - both)


def _added(a: Mapping[str, FlagCounts], b: Mapping[str, FlagCounts]) -> dict[str, FlagCounts]:
    none = FlagCounts()
    return {n: a.get(n, none) + b.get(n, none) for n in dict.fromkeys([*a, *b])}


def _learnt(vectors: ClassVectors) -> FloatArray:
    """A head's direction so that scaled as the texts are it gives logits: (1, d), or (0, d)."""
    if vectors.learnt is None:
        return np.zeros((0, vectors.prompts.shape[1]), np.float32)
    return np.asarray(vectors.learnt.weights[None] / vectors.logit_scale.factor, np.float32)


def _band(vectors: ClassVectors) -> float:
    """How far the margin of a float16 vector in float32 may lie from the judge's, in logits.

    The margin's gradient is scale times (a mean of prompts - a mean of neutral prompts), which is
    no longer than the two furthest of them are apart, and a head's direction.
    """
    d = vectors.prompts.shape[1]
    longest = 1.0
    if not vectors.logit_scale.sigmoid:
        cosines = vectors.prompts.astype(np.float64) @ vectors.neutral.T.astype(np.float64)
        longest = float(np.sqrt(max(0.0, 2 - 2 * cosines.min())))
    learnt = float(np.linalg.norm(_learnt(vectors)))
    longest, single = longest + learnt, SINGLE * d * (1 + learnt)
    return float(vectors.logit_scale.factor * (HALF * longest + single))


def _over(side: Sequence[_Placed], logits: FloatArray) -> FloatArray:
    """Logits over each class's threshold: (t, n) -> (classes, n)."""
    over = np.empty((len(side), logits.shape[1]), np.float32)
    levels: dict[bytes, FloatArray] = {}  # classes often share their neutral prompts
    for row, placed in zip(over, side, strict=True):
        logit_scale, prompts = placed.vectors.logit_scale, logits[placed.prompts]  # (p, n)
        if logit_scale.sigmoid:
            row[:] = prompts.max(axis=0) + np.float32(logit_scale.bias - placed.threshold)
        else:
            key = np.arange(len(logits))[placed.neutral].tobytes()
            if key not in levels:
                levels[key] = _logmeanexp(logits[placed.neutral])
            row[:] = _logmeanexp(prompts) - levels[key] - np.float32(placed.threshold)
        if placed.vectors.learnt is not None:
            row[:] += logits[placed.learnt][0] + np.float32(placed.vectors.learnt.offset)
    return over


def _logmeanexp(x: FloatArray) -> FloatArray:
    top = x.max(axis=0)  # (n,)
    return np.asarray(top + np.log(np.exp(x - top).mean(axis=0)), np.float32)  # (p, n) -> (n,)


def _furthest(changed: Sequence[ChangedImage]) -> tuple[ChangedImage, ...]:
    return tuple(nlargest(EXAMPLES, changed, key=lambda c: (c.above, c.image_id)))
