"""Rendered test scenes with causal ground truth: every object can be left out and redrawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from filter_service.demo.kinds import KINDS, ORDINARY
from filter_service.demo.samples import as_submitted
from filter_service.demo.scenes import Scene, a, mask, sample_scene, without
from filter_service.encoder import Encoder
from filter_service.scoring import ClassVectors, FloatArray, ensemble

DELTA = 2.0  # logits that a margin must lose without its object, or the model does not use it
TEMPLATES = ("{}", "a picture of {}")
NEUTRAL = tuple(name for name, _ in ORDINARY)
OBJECTS = (2, 3)  # in a scene, in turns
MASK_SIDE = 192  # pixels; a multiple of every grid
BATCH = 64

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """One object of one scene, whose removal lowers the margin of its own kind."""

    image: int  # index of the scene
    kind: str
    target: int  # which object of the scene it is
    vectors: ClassVectors
    direction: FloatArray  # (d,) of the margin at the scene's embedding
    margin: float  # logits
    drops: Array  # (objects,) logits that the margin loses without each object


@dataclass(frozen=True)
class Trials:
    """Scenes, and the pairs that the model really answers by the object."""

    scenes: list[Scene]
    pixels: Tensor  # (n, 3, h, w)
    z: FloatArray  # (n, d)
    pairs: list[Pair]
    dropped: int  # pairs that were left out because the model does not use the object

    def cover(self, pair: Pair, grid: tuple[int, int]) -> Array:
        """Share of every place that each object of the pair's scene covers: (objects, h, w)."""
        scene, (h, w) = self.scenes[pair.image], grid
        masks = np.stack([mask(scene, j, MASK_SIDE) for j in range(len(scene.objects))])
        parts = masks.reshape(len(masks), h, MASK_SIDE // h, w, MASK_SIDE // w)
        return np.asarray(parts.mean(axis=(2, 4)), dtype=np.float64)


class Namer:
    """The margin of any kind of object: its name against those of all ordinary kinds."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        prompts = ensemble([a(k) for k in KINDS], TEMPLATES, encoder.encode_texts)  # (kinds, d)
        self._prompt = dict(zip(KINDS, prompts, strict=True))

    def __call__(self, kind: str) -> ClassVectors:
        neutral = np.stack([self._prompt[k] for k in NEUTRAL if k != kind])
        return ClassVectors(kind, self._prompt[kind][None], neutral, self.encoder.logit_scale)


def pixels_of(encoder: Encoder, scenes: Sequence[Scene]) -> Tensor:
    """As the service sees them, through a JPEG file: (n, 3, h, w)."""
    return torch.stack([encoder.pixels(as_submitted(s)) for s in scenes])


def encode(encoder: Encoder, pixels: Tensor) -> FloatArray:
    """(n, 3, h, w) -> (n, d), in batches."""
    return np.concatenate([encoder.encode(part) for part in pixels.split(BATCH)])


def draw(encoder: Encoder, first_seed: int, count: int) -> Trials:
    """The first `count` scenes from a seed on, whatever they show."""
    namer = Namer(encoder)
    scenes = [sample_scene(first_seed + i, OBJECTS[i % len(OBJECTS)]) for i in range(count)]
    pixels = pixels_of(encoder, scenes)
    fewer = [[without(s, j) for j in range(len(s.objects))] for s in scenes]
    z = encode(encoder, pixels)  # (n, d)
    rest = encode(encoder, pixels_of(encoder, [s for parts in fewer for s in parts]))
    ends = np.cumsum([len(parts) for parts in fewer])
    pairs, dropped = [], 0
    for i, (scene, without_each) in enumerate(zip(scenes, np.split(rest, ends[:-1]), strict=True)):
        for j, placed in enumerate(scene.objects):
            vectors = namer(placed.kind)
            margin = float(vectors.margins(z[i][None])[0])
            drops = margin - vectors.margins(without_each)  # (objects,)
            if drops[j] <= DELTA:
                dropped += 1
                continue
            u = vectors.direction(z[i])
            pairs.append(Pair(i, placed.kind, j, vectors, u, margin, drops))
    return Trials(scenes, pixels, z, pairs, dropped)
