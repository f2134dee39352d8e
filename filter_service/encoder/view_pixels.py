"""Selects an image's views, makes their pixels for the model, and measures their coverage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from filter_service.images import Frame, Image
from filter_service.images.views import Extent, ShareSeen, View, share_seen, windows
from filter_service.policy.coverage import Coverage

if TYPE_CHECKING:
    from filter_service.encoder import Encoder


def views_of(image: Image, encoder: "Encoder", coverage: Coverage) -> tuple[View, ...]:
    """Every look that is taken at an image, frame by frame."""
    count = len(image.frames)
    return tuple(
        View(frame.number, frame.reading, box)
        for frame in image.frames
        for box in windows(*full_size(image, frame), encoder.preprocessing, coverage, count)
    )


def pixels_of(image: Image, encoder: "Encoder", views: Sequence[View]) -> Tensor:
    """What a model is shown: (views, 3, h, w)."""
    return torch.stack([_pixels(image, encoder, view) for view in views])


def seen_of(image: Image, encoder: "Encoder", views: Sequence[View]) -> ShareSeen:
    """How much of an image its views show; of its frames the one that is seen least counts."""
    shares = [
        share_seen(
            *full_size(image, frame),
            encoder.preprocessing,
            [v.box for v in views if (v.frame, v.reading) == (frame.number, frame.reading)],
        )
        for frame in image.frames
    ]
    return ShareSeen(min(shares), image.seen_time)


def extent_of(image: Image) -> Extent | None:
    """None where frames are of several sizes."""
    sizes = {full_size(image, frame) for frame in image.frames}
    return Extent(*sizes.pop(), image.seen_time) if len(sizes) == 1 else None


def full_size(image: Image, frame: Frame) -> tuple[int, int]:
    """Width and height in the file, upright: a drafted frame is smaller here than there."""
    return (image.width, image.height) if image.drafted else frame.picture.size


def _pixels(image: Image, encoder: "Encoder", view: View) -> Tensor:
    frame = image.frame(view.frame, view.reading)
    if view.box is None:
        return encoder.pixels(frame.picture)
    full, here = full_size(image, frame), frame.picture.size
    return encoder.pixels(frame.picture, view.box.scaled(here[0] / full[0], here[1] / full[1]))
