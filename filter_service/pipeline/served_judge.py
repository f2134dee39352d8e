"""The judge of a worker: an encoder, limits, and where neighbours are."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from filter_service.encoder import Encoder
from filter_service.encoder.screening_check import MarginPairs
from filter_service.explain.counterfactual import Memory
from filter_service.images import Limits
from filter_service.images.views import ShareSeen, View, share_seen
from filter_service.pipeline import moderate
from filter_service.pipeline.subject import Subject, asked_vectors, decoded_views, prepare
from filter_service.policy import Policy
from filter_service.policy.coverage import Coverage
from filter_service.verdicts import KnownVectors, Outcome


@dataclass
class ServedJudge:
    """The judge of a worker (`moderation.Judge`): encoder, limits, and where neighbours are."""

    encoder: Encoder
    limits: Limits
    memories: Sequence[Memory] = ()
    coverage: Coverage = Coverage.WHOLE  # where the policy does not say
    report: Callable[[MarginPairs, float], float] | None = None  # -> how wide the band is to be

    def prepare(
        self,
        digest: str,
        load: Callable[[], bytes],
        known: KnownVectors | None,
        coverage: Coverage | None = None,
    ) -> Subject:
        coverage = coverage or self.coverage
        asked = None if known is None else asked_vectors(known, self.encoder, coverage)
        # Where one pass is exact, a vector that is not so yet is not worth keeping.
        if asked is None or (self.encoder.screening_is_exact and not all(asked.exact)):
            return prepare(load(), self.encoder, self.limits, coverage)
        return self._known(digest, asked, self._again(load, asked.views), coverage)

    def look(
        self,
        digest: str,
        load: Callable[[], bytes],
        known: KnownVectors | None,
        coverage: Coverage | None = None,
    ) -> KnownVectors:
        """The vectors of an image's views, in float32 unless they are known; raises ImageError."""
        subject = self.prepare(digest, load, known, coverage)
        if subject.known is not None:
            return subject.known
        assert subject.pixels is not None, "what is not known was decoded"
        vectors = self.encoder.encode(subject.pixels)  # (views, 3, h, w) -> (views, d)
        return KnownVectors(vectors, subject.views, (True,) * len(vectors), subject.extent)

    def moderate(self, subjects: Sequence[Subject], policy: Policy) -> list[Outcome]:
        outcomes = moderate(subjects, policy, self.encoder, self.memories)
        check = self.encoder.check
        if self.report and (pairs := check.take()).count:
            check.widen(self.report(pairs, check.widening))
        return outcomes

    def _known(
        self, digest: str, known: KnownVectors, load: Callable[[], Tensor], coverage: Coverage
    ) -> Subject:
        extent = known.extent
        assert extent is not None, "its views were chosen by it"
        size, boxes = (extent.width, extent.height), {v.box for v in known.views}
        return Subject(
            digest=digest,
            views=known.views,
            load=load,
            known=known,
            coverage=coverage,
            sizes=(size,) * len(known.views),
            seen=ShareSeen(share_seen(*size, self.encoder.preprocessing, boxes), extent.time),
            extent=extent,
        )

    def _again(self, load: Callable[[], bytes], views: Sequence[View]) -> Callable[[], Tensor]:
        return lambda: decoded_views(load(), self.limits, self.encoder, views)
