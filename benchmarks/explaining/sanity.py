"""Sanity checks of relevance maps: weight randomisation, prompt dependence, absent objects."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.explaining.candidates import maps
from benchmarks.explaining.measures import masses, spearman
from benchmarks.explaining.trials import Array, Namer, Trials
from filter_service.demo.kinds import KINDS
from filter_service.encoder import Encoder
from filter_service.explain.study.methods import Method

ABSENT = 3  # kinds asked for that a scene does not show


@dataclass(frozen=True)
class Sanity:
    """The results of the sanity checks."""

    randomised: list[tuple[int, float]]  # layers at random from the top, rank correlation left
    follows: float  # share of two-object scenes where each object has more under its own prompt
    of: int  # scenes
    present: float  # mean total of the map, logits
    absent: float


def sanity(encoder: Encoder, method: Method, trials: Trials) -> Sanity:
    return Sanity(
        _randomised(encoder, method, trials),
        *_follows(encoder, method, trials),
        *_totals(encoder, method, trials),
    )


def _randomised(encoder: Encoder, method: Method, trials: Trials) -> list[tuple[int, float]]:
    """Cascading randomisation from the last layer on (Adebayo et al. 2018)."""
    true = maps(encoder, method, trials)
    other = copy.copy(encoder)
    other.model = copy.deepcopy(encoder.model)
    tower: Any = other.model.visual
    blocks = list(tower.transformer.resblocks)
    torch.manual_seed(0)
    found = []
    for count, block in enumerate(reversed(blocks), start=1):
        for p in block.parameters():
            if p.ndim >= 2:
                p.data.normal_(0.0, float(p.data.std()))
        if count == len(blocks):
            tower.conv1.weight.data.normal_(0.0, float(tower.conv1.weight.data.std()))
            tower.proj.data.normal_(0.0, float(tower.proj.data.std()))
        now = maps(other, method, trials)
        each = [spearman(a.ravel(), b.ravel()) for a, b in zip(true, now, strict=True)]
        found.append((count, float(np.mean(each))))
    return found


def _follows(encoder: Encoder, method: Method, trials: Trials) -> tuple[float, int]:
    grids = maps(encoder, method, trials)
    right = total = 0
    rows: dict[int, list[int]] = {}
    for i, pair in enumerate(trials.pairs):
        if len(trials.scenes[pair.image].objects) == 2:
            rows.setdefault(pair.image, []).append(i)
    for both in rows.values():
        if len(both) == 2:
            a, b = (trials.pairs[i] for i in both)
            on_a, on_b = (masses(trials, p, grids[i]) for p, i in zip((a, b), both, strict=True))
            total += 1
            right += bool(on_a[a.target] > on_b[a.target] and on_b[b.target] > on_a[b.target])
    return right / max(total, 1), total


def absent_share(encoder: Encoder, method: Method, trials: Trials) -> float:
    """Mean total of the map for kinds that are not there, over that for objects that are."""
    present, absent = _totals(encoder, method, trials)
    return absent / present


def _totals(encoder: Encoder, method: Method, trials: Trials) -> tuple[float, float]:
    """Mean sum of the map for objects that are there, and for kinds that are not."""
    namer, rng = Namer(encoder), np.random.default_rng(1)
    asked: list[Array] = []
    for scene, z in zip(trials.scenes, trials.z, strict=True):
        others = [k for k in KINDS if k not in {o.kind for o in scene.objects}]
        kinds = rng.choice(others, ABSENT, replace=False)
        asked.append(np.stack([namer(str(k)).direction(z) for k in kinds]))
    totals = []
    for start in range(0, len(asked), 32):
        u = np.stack(asked[start : start + 32]).astype(np.float32)  # (n, ABSENT, d)
        found = method(encoder, trials.pixels[start : start + 32], u)
        totals += [m.grid.sum(axis=(1, 2)).mean() for m in found]
    present = maps(encoder, method, trials).sum(axis=(1, 2))
    return float(present.mean()), float(np.mean(totals))
