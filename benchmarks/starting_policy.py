"""Measures `policy start` in the demo's world: what its thresholds flag, what look-alikes change.

    python -m benchmarks.starting_policy                # 3,000 pictures, 40 seeds
    python -m benchmarks.starting_policy --pictures 600 --seeds 2

The stream shows something forbidden in one picture of fifty. Thresholds are set on some of it and
measured on the rest. Look-alikes are sought for a policy that calls few kinds ordinary, in a bank
of all kinds of the world, the forbidden ones among them: one that is proposed would be a mistake.
"""

import argparse
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from filter_service.calibration.picture_stream import PictureStream
from filter_service.calibration.starting_policy import StartingPolicy, starting_policy
from filter_service.demo import POLICY, bundled
from filter_service.demo.kinds import FORBIDDEN, KINDS, ORDINARY
from filter_service.demo.samples import LabelledScene, moderation_scene
from filter_service.demo.scenes import DEV_SEEDS, EMPTY, a
from filter_service.encoder import load_encoder
from filter_service.policy import Policy, read_policy
from filter_service.scoring import FloatArray
from filter_service.verdicts import threshold_margin

FIRST_SEED = DEV_SEEDS + 70_000_000
PRESENT = 50  # one picture of so many shows something forbidden
SHARE = 0.01
ASKED = (200, 500, 1_000)  # pictures that thresholds are set on
NEUTRAL = (8, 16, 32)


def scenes(count: int) -> list[LabelledScene]:
    return [moderation_scene(FIRST_SEED + i, i % PRESENT == 0) for i in range(count)]


class World:
    """The stream's pictures, what they show, and the model that sees them."""

    def __init__(self, count: int) -> None:
        self.encoder = load_encoder(device="cpu", precision="float32")
        drawn = scenes(count)
        self.vectors = bundled.load().encode_scenes(s.scene for s in drawn)  # (n, d)
        self.shows = np.array([[name in s.classes for name in FORBIDDEN] for s in drawn])
        self.bank = [a(kind) for kind in KINDS]

    def start(self, policy: Policy, rows: FloatArray, most: int) -> StartingPolicy:
        stream = PictureStream(rows, np.arange(len(rows)))
        logit_scale, texts = self.encoder.logit_scale, self.encoder.encode_texts
        return starting_policy(policy, stream, SHARE, logit_scale, texts, self.bank, most)

    def above(self, policy: Policy, rows: FloatArray) -> npt.NDArray[np.bool_]:
        """Which pictures are over which threshold: (n, classes)."""
        thresholds = np.array([threshold_margin(c) for c in policy.classes])
        return np.asarray(self.encoder.vectors(policy).margins(rows) >= thresholds)


def shares(world: World, policy: Policy, asked: int, seeds: int) -> Iterator[float]:
    """The share of the other pictures above each class's threshold, in percent."""
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(world.vectors))
        found = world.start(policy, world.vectors[order[:asked]], 0)
        yield from 100 * world.above(found.policy, world.vectors[order[asked:]]).mean(axis=0)


def few_neutral(policy: Policy, count: int, seed: int) -> Policy:
    """The demo's policy, with so few of its ordinary kinds."""
    drawn = np.random.default_rng(seed).choice([k for k, _ in ORDINARY], count - 1, replace=False)
    return policy.model_copy(update={"neutral": (*(a(str(kind)) for kind in drawn), EMPTY)})


def changed(world: World, policy: Policy, count: int, seeds: int) -> str:
    """False flags and recall without and with look-alikes, at the policy's own thresholds."""
    figures, synonyms, proposed = [], 0, 0
    forbidden = {a(kind) for kinds in FORBIDDEN.values() for kind, _ in kinds}
    half = len(world.vectors) // 2
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(world.vectors))
        few = few_neutral(policy, count, seed)
        made = world.start(few, world.vectors[order[:half]], 5).policy
        found = [
            c.model_copy(update={"threshold": old.threshold})
            for c, old in zip(made.classes, few.classes, strict=True)
        ]
        texts = [t for c in made.classes for t in c.look_alikes or ()]
        proposed, synonyms = proposed + len(texts), synonyms + len(forbidden.intersection(texts))
        rows, shows = world.vectors[order[half:]], world.shows[order[half:]]
        for version in (few, few.model_copy(update={"classes": tuple(found)})):
            above = world.above(version, rows)
            figures.append([above[~shows].mean(), above[shows].mean()])
    before, after = (100 * np.median(figures[i::2], axis=0) for i in (0, 1))
    return (
        f"{count} neutral prompts: false flags of a class {before[0]:.2f} -> {after[0]:.2f} %, "
        f"recall {before[1]:.1f} -> {after[1]:.1f} %; {proposed / seeds / 4:.1f} look-alikes a "
        f"class, {synonyms} of {proposed} forbidden"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=int, default=3_000)
    parser.add_argument("--seeds", type=int, default=40)
    options = parser.parse_args()
    world, policy = World(options.pictures), read_policy(POLICY)
    for asked in (n for n in ASKED if n < options.pictures):
        found = np.array(list(shares(world, policy, asked, options.seeds)))
        low, middle, high = np.quantile(found, [0.05, 0.5, 0.95])
        print(
            f"{SHARE:.0%} from {asked} pictures: median {middle:.2f} % of the others, "
            f"mean {found.mean():.2f} %, nine of ten from {low:.2f} to {high:.2f} %",
            flush=True,
        )
    for count in NEUTRAL:
        print(changed(world, policy, count, options.seeds), flush=True)


if __name__ == "__main__":
    main()
