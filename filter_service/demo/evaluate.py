"""Measures the bundled model on the test split and writes its card.

    python -m filter_service.demo.evaluate

Every image is a scene drawn at the size of the samples, written as a JPEG file and read back; every
text is a prompt with the templates of the demo's policy, as the service asks it.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from filter_service.demo import POLICY, bundled, samples
from filter_service.demo.card import card
from filter_service.demo.kinds import KINDS, TRAINED_STYLES, UNSEEN_STYLE
from filter_service.demo.scenes import SIZES, TEST_SEEDS, Scene, Sizes, a, sample_scene
from filter_service.policy import Policy, read_policy
from filter_service.scoring import FloatArray, ensemble

CARD = Path(__file__).parent / "MODEL_CARD.md"
COUNT = 1000  # scenes behind each figure of recognition
JUDGED = 1500  # scenes behind the figures of moderation
OPPOSITE = {"left of": "right of", "above": "below"}


@dataclass(frozen=True, slots=True)
class Share:
    """A share of right answers, as two counts."""

    right: int
    of: int

    def __str__(self) -> str:
        if self.of == 0:
            return "none | 0 / 0 | none"
        low, high = wilson(self.right, self.of)
        return f"{self.right / self.of:.1%} | {self.right} / {self.of} | {low:.1%} to {high:.1%}"


def wilson(right: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share; (0, 1) where nothing was counted."""
    if of == 0:
        return 0.0, 1.0
    share, spread = right / of, z * z / of
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / of + spread / (4 * of))
    return max(0.0, middle - half), min(1.0, middle + half)


class Examination:
    """The questions put to the model, each on its own test seeds."""

    def __init__(self, model: bundled.BundledModel, policy: Policy) -> None:
        self.model, self.policy = model, policy
        prompts = [a(kind) for kind in KINDS]
        self.kinds = ensemble(prompts, policy.templates, model.encode_texts)  # (kinds, d)

    def recognised(
        self, objects: int, top: int, styles: tuple[str, ...] = TRAINED_STYLES
    ) -> tuple[Share, Share]:
        """Scenes with all their kinds among the `top` best, and single objects among them."""
        scenes = [sample_scene(TEST_SEEDS + i, objects, KINDS, styles) for i in range(COUNT)]
        best = np.argsort(-self.model.encode_scenes(scenes) @ self.kinds.T, axis=1)[:, :top]
        hits = [
            sum(o.kind in {KINDS[k] for k in row} for o in scene.objects)
            for scene, row in zip(scenes, best, strict=True)
        ]
        whole = sum(h == objects for h in hits)
        return Share(whole, COUNT), Share(sum(hits), COUNT * objects)

    def related(self) -> Share:
        """Whether `left of` and `above` beat their opposites for the two objects of a scene."""
        scenes, pairs = [], []
        for i in range(4 * COUNT):
            scene = sample_scene(TEST_SEEDS + 2_000_000 + i, 2)
            if pair := relation(scene):
                scenes.append(scene)
                pairs.append(pair)
            if len(scenes) == COUNT:
                break
        z = self.model.encode_scenes(scenes)  # (n, d)
        true, false = (self.model.encode_texts([p[j] for p in pairs]) for j in (0, 1))  # (n, d)
        return Share(int(((z * true).sum(1) > (z * false).sum(1)).sum()), len(pairs))

    def judged(
        self, styles: tuple[str, ...], offset: int, sizes: Sizes = SIZES
    ) -> dict[str, Share]:
        """Verdicts at the policy's thresholds: right ones, and precision and recall by class."""
        drawn = list(samples.moderation_scenes(TEST_SEEDS + offset, JUDGED, styles, sizes))
        flagged = self._flags(self.model.encode_scenes(s.scene for s in drawn))  # (n, classes)
        names = [c.name for c in self.policy.classes]
        shown = np.array([[name in s.classes for name in names] for s in drawn])  # (n, classes)
        right = int((flagged.any(1) == shown.any(1)).sum())
        found = {"right verdict (flagged or clear)": Share(right, JUDGED)}
        for who, f, s in (
            ("all", flagged.any(1), shown.any(1)),
            *((name, flagged[:, i], shown[:, i]) for i, name in enumerate(names)),
        ):
            found[f"{who}: precision"] = Share(int((f & s).sum()), int(f.sum()))
            found[f"{who}: recall"] = Share(int((f & s).sum()), int(s.sum()))
        return found

    def _flags(self, z: FloatArray) -> np.ndarray:
        probability = 1 / (1 + np.exp(-self.model.vectors(self.policy).margins(z)))
        return probability >= np.array([c.threshold for c in self.policy.classes])


def relation(scene: Scene) -> tuple[str, str] | None:
    """A caption that relates the two objects, and the same with the relation turned round."""
    one, two = scene.objects
    for first, second in ((one, two), (two, one)):
        gaps = {"left of": second.x - first.x, "above": second.y - first.y}
        for words, gap in gaps.items():
            if gap > 0.2:
                names = a(first.kind), a(second.kind)
                return f"{names[0]} {words} {names[1]}", f"{names[0]} {OPPOSITE[words]} {names[1]}"
    return None


def figures(exam: Examination, say: Callable[[str], None]) -> dict[str, dict[str, Share]]:
    """Everything that the card states, by table."""
    asked = {"1 object": (1, 1), "2 objects": (2, 3), "3 objects": (3, 5)}
    tables: dict[str, dict[str, Share]] = {}
    for title, styles in (("trained styles", TRAINED_STYLES), ("unseen style", (UNSEEN_STYLE,))):
        rows: dict[str, Share] = {}
        for name, (objects, top) in asked.items():
            whole, each = exam.recognised(objects, top, styles)
            rows[f"{name}, all among the top {top}"] = whole
            if objects > 1:
                rows[f"{name}, objects among the top {top}"] = each
            say(f"{title}: {name}: {whole}")
        tables[f"recognition, {title}"] = rows
    tables["relations"] = {"right order preferred (chance 50 %)": exam.related()}
    tables["moderation, trained styles"] = exam.judged(TRAINED_STYLES, 4_000_000)
    tables["moderation, unseen style"] = exam.judged((UNSEEN_STYLE,), 6_000_000)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=bundled.FOLDER)
    parser.add_argument("--policy", type=Path, default=POLICY)
    parser.add_argument("--out", type=Path, default=CARD)
    options = parser.parse_args()
    exam = Examination(bundled.load(options.model), read_policy(options.policy))
    tables = figures(exam, lambda line: print(line, flush=True))
    printed = {t: {k: str(v) for k, v in rows.items()} for t, rows in tables.items()}
    options.out.write_text(card(printed, bundled.training_facts(options.model)))


if __name__ == "__main__":
    main()
