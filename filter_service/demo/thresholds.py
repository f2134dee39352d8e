"""Writes the demo's policy, each threshold chosen on development scenes.

    python -m filter_service.demo.thresholds

A threshold is the one with the fewest wrong answers, misses and false flags counted alike, over
`COUNT` scenes from `DEV_SEEDS`; neither the samples nor the test split have a part in it.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from filter_service.demo import POLICY, bundled
from filter_service.demo.kinds import FORBIDDEN, ORDINARY
from filter_service.demo.samples import moderation_scenes
from filter_service.demo.scenes import DEV_SEEDS, EMPTY, SIZES, Sizes, a
from filter_service.policy import Policy

COUNT = 2400
LOWEST, HIGHEST = -6.0, 12.0  # margins between which a threshold may lie
TEMPLATES = ["{}", "a picture of {}"]
SEVERITY = {
    "weapons": "high",
    "tobacco-and-drugs": "medium",
    "alcohol": "low",
    "gambling": "medium",
}
CLAUSE = {
    "weapons": "Pictures of weapons are not allowed.",
    "tobacco-and-drugs": "Pictures of tobacco, pills or syringes are not allowed.",
    "alcohol": "Pictures of alcoholic drinks are not allowed.",
    "gambling": "Pictures of games of chance are not allowed.",
}
HEADER = """\
# The policy of `make demo`, for the bundled model, which knows pictograms and not photographs.
# Written by `python -m filter_service.demo.thresholds`: each threshold is the one with the fewest
# wrong answers on development scenes. It says nothing about another model or other images.
"""

Margins = npt.NDArray[np.float64]


def document(thresholds: dict[str, float]) -> dict[str, object]:
    """The policy as plain data."""
    classes = [
        {
            "name": name,
            "prompts": [a(kind) for kind, _ in kinds],
            "threshold": thresholds[name],
            "severity": SEVERITY[name],
            "clause": CLAUSE[name],
        }
        for name, kinds in FORBIDDEN.items()
    ]
    return {
        "name": "demo",
        "on_failure": "hold",
        "templates": TEMPLATES,
        "neutral": [*(a(kind) for kind, _ in ORDINARY), EMPTY],
        "classes": classes,
    }


def best_threshold(margins: Margins, shown: npt.NDArray[np.bool_]) -> float:
    """The probability between two margins (n,) at which the fewest images are judged wrongly."""
    order = np.sort(margins)
    cuts = (order[1:] + order[:-1]) / 2
    cuts = cuts[(cuts > LOWEST) & (cuts < HIGHEST)]
    wrong = np.array([((margins >= cut) != shown).sum() for cut in cuts])
    best = cuts[wrong == wrong.min()]
    middle = float(best[len(best) // 2])
    return round(1 / (1 + math.exp(-middle)), 6)


def choose(model: bundled.BundledModel, sizes: Sizes = SIZES) -> dict[str, float]:
    """A threshold for every class, from the development scenes."""
    policy = Policy.model_validate(document(dict.fromkeys(FORBIDDEN, 0.5)))
    samples = list(moderation_scenes(DEV_SEEDS, COUNT, sizes=sizes))
    margins = model.vectors(policy).margins(model.encode_scenes(s.scene for s in samples))
    return {
        name: best_threshold(margins[:, i], np.array([name in s.classes for s in samples]))
        for i, name in enumerate(FORBIDDEN)
    }


def write(thresholds: dict[str, float], file: Path) -> None:
    text = yaml.safe_dump(document(thresholds), sort_keys=False, width=100, default_flow_style=None)
    file.write_text(HEADER + text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=bundled.FOLDER)
    parser.add_argument("--out", type=Path, default=POLICY)
    options = parser.parse_args()
    write(choose(bundled.load(options.model)), options.out)


if __name__ == "__main__":
    main()
