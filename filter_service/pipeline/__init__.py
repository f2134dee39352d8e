"""moderate(): screens images, confirms near thresholds, judges, and explains what is flagged.

It knows neither rows nor files nor queues: a notebook, the command line, a benchmark and a worker
all call the same function.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from filter_service.encoder import Encoder
from filter_service.explain.counterfactual import Memory
from filter_service.explain.explainer import Explanations, FlaggedClass
from filter_service.explain.memory import ArrayMemory
from filter_service.explain.relevance import Capture, capture
from filter_service.explain.words import Words
from filter_service.images import Image
from filter_service.pipeline.subject import Subject, subject_of
from filter_service.policy import Policy
from filter_service.policy.coverage import Coverage
from filter_service.scoring import FloatArray, PolicyVectors
from filter_service.verdicts import Outcome, is_sealed, judge_seen, score, threshold_margin
from filter_service.verdicts.explanation import Explanation

VIEWS = 64  # in one screening pass, so that a long animation cannot exhaust the memory
TINY = 1e-9  # logits: a band of zero is not divided by
AUDITED = 500  # one image of so many is confirmed wherever its margins lie: see `audited`
CONFIRMED = 16  # views in one confirming pass, whose activations are kept for the maps


def moderate(
    images: Sequence[Image | Subject],
    policy: Policy,
    encoder: Encoder,
    memories: Sequence[Memory] = (),
) -> list[Outcome]:
    """Judge images against a policy and explain every flag; one outcome per image, in order.

    Screening runs in the encoder's fast precision. Every view whose margin comes within the
    measured error band of a threshold, or passes it, is encoded again in float32, so that verdicts
    and the numbers of flagged images are always those of float32. So is a small sample of all
    others. What both passes say is compared, and where they lie further apart than they may, the
    band is widened for this call's images, too (`encoder.check`).
    An `Image` is looked at as its policy says, else as a whole; what no view shows is never called
    clear without a word: see `Outcome.seen` and `Policy.partial`.
    Counterfactuals are sought in `memories` and among the images of this call. Of an image that is
    flagged for a sealed class nothing leaves but its scores.
    """
    coverage = policy.coverage or Coverage.WHOLE
    tracks = [
        _Track(subject_of(i, encoder, coverage) if isinstance(i, Image) else i) for i in images
    ]
    _screen(tracks, encoder)
    bench = _Bench(encoder, encoder.vectors(policy))
    explanations = bench.explanations(tracks, memories)
    for together in _chunks([t for t in tracks if bench.suspects(t).any()]):
        bench.confirm(together, explanations)
    while late := [t for t in tracks if bench.unsure(t).any()]:  # the band was widened
        for together in _chunks(late):
            bench.confirm(together, explanations)
    return [bench.outcome(t) for t in tracks]


@dataclass
class _Track:
    """A subject on its way through `moderate`."""

    subject: Subject
    vectors: FloatArray = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    exact: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    changed: bool = True  # against what was known
    explanations: list[Explanation] = field(default_factory=list)


@dataclass(frozen=True)
class _Bench:
    """One policy and one encoder, with what is asked of them for every image."""

    encoder: Encoder
    vectors: PolicyVectors

    def suspects(self, track: _Track) -> npt.NDArray[np.bool_]:
        """Views to be confirmed or explained: over a threshold, or within the band: (views,)."""
        return self.unsure(track) | self._near(track).any(axis=1)

    def unsure(self, track: _Track) -> npt.NDArray[np.bool_]:
        """Views of which the fast pass alone must not decide: (views,)."""
        asked = self._near(track).any(axis=1) | audited(track.subject.digest)
        return np.asarray(asked & ~track.exact)

    def _near(self, track: _Track) -> npt.NDArray[np.bool_]:
        """Which views are over which threshold, or within its band: (views, classes)."""
        policy = self.vectors.policy
        thresholds = np.array([threshold_margin(c) for c in policy.classes])  # (classes,)
        margins = self.vectors.margins(track.vectors)  # (views, classes)
        band = self.encoder.band(policy)  # (classes,)
        slack = np.where(track.exact[:, None], 0.0, band)  # (views, classes)
        return ~np.asarray(margins < thresholds - slack)  # what is no number is near, too

    def _may_be_sealed(self, track: _Track) -> bool:
        """Such an image is nobody's neighbour."""
        sealed = [c.sealed is not None for c in self.vectors.policy.classes]
        return bool(self._near(track)[:, sealed].any())

    def confirm(self, tracks: Sequence[_Track], explanations: Explanations) -> None:
        """Encode suspect views in float32, and explain those that stay over a threshold."""
        rows = [(t, int(v)) for t in tracks for v in np.flatnonzero(self.suspects(t))]
        pixels = torch.cat([_exact_pixels(t)[self.suspects(t)] for t in tracks])  # (n, 3, h, w)
        seen = capture(self.encoder, pixels)
        self._compare(rows, seen.z)
        for (track, v), z in zip(rows, seen.z, strict=True):
            track.changed |= not track.exact[v]
            track.vectors[v], track.exact[v] = z, True
        for track in tracks:
            track.explanations.clear()
        self._explain(rows, pixels, seen, explanations)

    def _compare(self, rows: Sequence[tuple[_Track, int]], served: FloatArray) -> None:
        """Tell the running check how far the fast pass was off: one figure for each image."""
        furthest: dict[str, float] = {}
        for (track, v), z in zip(rows, served, strict=True):
            if track.exact[v]:
                continue
            fast, exact = self.vectors.margins(np.stack([track.vectors[v], z]))  # (classes,) each
            band = self.encoder.measured_band(self.vectors.policy)
            share = float(np.max(np.abs(fast - exact) / np.maximum(band, TINY)))
            share = share if math.isfinite(share) else math.inf
            digest = track.subject.digest
            furthest[digest] = max(furthest.get(digest, 0.0), share)
        self.encoder.check.observe(list(furthest.values()))

    def _explain(
        self,
        rows: Sequence[tuple[_Track, int]],
        pixels: Tensor,
        seen: Capture,
        explanations: Explanations,
    ) -> None:
        cases: list[tuple[_Track, FlaggedClass]] = []
        for row, (track, v) in enumerate(rows):
            if is_sealed(self.outcome(track).scores, self.vectors.policy):
                continue  # of what must not be shown nothing is computed either
            subject, view = track.subject, track.subject.views[v]
            cases += [
                (track, FlaggedClass(row, subject.digest, pixels[row], s, subject.size(v)))
                for s in self.outcome(track).scores
                if s.flagged and s.view == view
            ]
        if cases:
            records = explanations.explain([c for _, c in cases], seen)
            for (track, _), record in zip(cases, records, strict=True):
                track.explanations.append(record)

    def explanations(self, tracks: Sequence[_Track], memories: Sequence[Memory]) -> Explanations:
        """Ready to explain, with the images of this call as one more memory."""
        tracks = [t for t in tracks if not self._may_be_sealed(t)]
        here = ArrayMemory(
            policy=self.vectors,
            digests=[t.subject.digest for t in tracks for _ in t.vectors],
            vectors=np.concatenate([t.vectors for t in tracks])
            if tracks
            else np.zeros((0, self.encoder.dim), dtype=np.float32),
            exact=np.array([e for t in tracks for e in t.exact], dtype=np.bool_),
        )
        words = Words(self.encoder.encode_texts)
        return Explanations(self.encoder, self.vectors, [*memories, here], words)

    def outcome(self, track: _Track) -> Outcome:
        exact = tuple(map(bool, track.exact))
        margins = self.vectors.margins(track.vectors)  # (views, classes)
        scores = score(margins, track.subject.views, exact, self.vectors.policy)
        shut = is_sealed(scores, self.vectors.policy)
        subject, policy = track.subject, self.vectors.policy
        takes_partial = policy.takes_partial(subject.coverage)
        verdict, reason = judge_seen(scores, subject.seen, takes_partial)
        return Outcome(
            digest=track.subject.digest,
            verdict=verdict,
            scores=scores,
            reason=reason,
            vectors=track.vectors if track.changed and not shut else None,
            views=track.subject.views,
            exact=exact,
            explanations=tuple(track.explanations),
            pdq=None if shut else track.subject.pdq,
            notes=track.subject.notes,
            seen=track.subject.seen,
            extent=track.subject.extent,
        )


def _screen(tracks: Sequence[_Track], encoder: Encoder) -> None:
    """Give every track its vectors: those that are known, or one fast pass over all the others."""
    fresh = [(t, t.subject.pixels) for t in tracks if t.subject.pixels is not None]
    for track in tracks:
        if (known := track.subject.known) is not None:
            track.vectors, track.exact = known.vectors.copy(), np.array(known.exact)
            track.changed = False
    if not fresh:
        return
    pixels = torch.cat([p for _, p in fresh])  # (n, 3, h, w)
    z = np.concatenate([encoder.screen(part) for part in torch.split(pixels, VIEWS)])  # (n, d)
    ends = np.cumsum([len(p) for _, p in fresh])
    for (track, _), vectors in zip(fresh, np.split(z, ends[:-1]), strict=True):
        track.vectors = vectors.copy()
        track.exact = np.full(len(vectors), encoder.screening_is_exact, dtype=np.bool_)


def audited(digest: str) -> bool:
    """Whether an image is confirmed although nothing asks for it.

    Those near a threshold show errors that lift a margin; one that the fast pass puts far too low
    would never be seen again. One in 500 costs a fifth of a percent of images a second pass, and of
    a million it is 2,000 pairs. By digest, so that the same images are meant each time.
    """
    return zlib.crc32(digest.encode()) % AUDITED == 0


def _chunks(tracks: Sequence[_Track]) -> Iterator[list[_Track]]:
    """Tracks together as long as their views are few; those of one image stay together."""
    chunk: list[_Track] = []
    for track in tracks:
        if chunk and sum(len(t.vectors) for t in [*chunk, track]) > CONFIRMED:
            yield chunk
            chunk = []
        chunk.append(track)
    if chunk:
        yield chunk


def _exact_pixels(track: _Track) -> Tensor:
    subject = track.subject
    return subject.load() if subject.pixels is None else subject.pixels
