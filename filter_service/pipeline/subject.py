"""An image ready to be judged: its views, and their pixels or the vectors known already."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from filter_service.encoder import Encoder
from filter_service.encoder.view_pixels import extent_of, full_size, pixels_of, seen_of, views_of
from filter_service.images import Image, Limits, decode, reserved
from filter_service.images.perceptual_hash import pdq
from filter_service.images.views import Extent, ShareSeen, View, windows
from filter_service.policy.coverage import Coverage
from filter_service.verdicts import KnownVectors

STANDARD = Limits()


@dataclass(frozen=True, slots=True)
class Subject:
    """One image ready to be judged: pixels for the screening pass, or vectors known already."""

    digest: str
    views: tuple[View, ...]
    load: Callable[[], Tensor]  # -> (views, 3, h, w), fully decoded
    pixels: Tensor | None = None  # (views, 3, h, w)
    known: KnownVectors | None = None
    coverage: Coverage = Coverage.WHOLE
    sizes: tuple[tuple[int, int], ...] = ()  # of each view's frame, pixels
    seen: ShareSeen | None = None  # how much the views show
    extent: Extent | None = None  # None: frames of several sizes
    pdq: str | None = None  # of the first frame; None: too plain, or not decoded now
    notes: tuple[str, ...] = ()  # sentences: what of the file could not be obeyed

    def size(self, view: int) -> tuple[int, int] | None:
        """Of the frame of a view; None where nobody said."""
        return self.sizes[view] if self.sizes else None


def prepare(
    data: bytes,
    encoder: Encoder,
    limits: Limits = STANDARD,
    coverage: Coverage = Coverage.WHOLE,
) -> Subject:
    """Decode and preprocess one image, in any thread; raises ImageError."""
    with reserved(data, limits):
        return subject_of(decode(data, limits), encoder, coverage)


def decoded_views(data: bytes, limits: Limits, encoder: Encoder, views: Sequence[View]) -> Tensor:
    """The exact pixels of some views: (views, 3, h, w)."""
    with reserved(data, limits):
        return pixels_of(decode(data, limits), encoder, views)


def subject_of(image: Image, encoder: Encoder, coverage: Coverage) -> Subject:
    views = views_of(image, encoder, coverage)
    pixels = pixels_of(image, encoder, views)
    return Subject(
        digest=image.digest,
        views=views,
        load=lambda: pixels,
        pixels=pixels,
        coverage=coverage,
        sizes=tuple(full_size(image, image.frame(v.frame, v.reading)) for v in views),
        seen=seen_of(image, encoder, views),
        extent=extent_of(image),
        pdq=pdq(image.frames[0].picture),
        notes=image.notes,
    )


def asked_vectors(known: KnownVectors, encoder: Encoder, coverage: Coverage) -> KnownVectors | None:
    """The vectors of the views that are asked for, if they are all known."""
    if known.extent is None:  # of before there were views, or frames of several sizes
        return None
    size = known.extent.width, known.extent.height
    frames = sorted({(view.frame, view.reading) for view in known.views})
    boxes = windows(*size, encoder.preprocessing, coverage, len(frames))
    return known.of([View(*frame, box) for frame in frames for box in boxes])
