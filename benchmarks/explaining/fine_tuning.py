"""Fine-tunes variants of the bundled model, on which the faithfulness test is tried.

    python -m benchmarks.explaining.fine_tuning --name scale-10 --out build/scale-10
    python -m benchmarks.explaining.fine_tuning --name large --out build/large

Both are the bundled model whose image tower learnt on from new scenes, its texts left as they are.
`scale-10` keeps its logit scale at 10, so that a margin holds few logits; `large` sees objects that
fill up to half of the picture, so that no tenth of the places holds one. Some minutes each on two
cores. The policy is written beside the weights, its thresholds chosen on the development split.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from filter_service.demo import bundled, thresholds
from filter_service.demo.evaluate import Examination
from filter_service.demo.kinds import KINDS, TRAINED_STYLES
from filter_service.demo.scenes import LARGE, SIZES, Sizes, a, render, sample_scene
from filter_service.demo.train import SIDE, TEMPLATES, build, export, positives, tokens
from filter_service.policy import read_policy

OBJECTS = (0.4, 0.4, 0.2)  # share of scenes with 1, 2, 3 objects in them
WARM = 30  # steps in which the learning rate rises
FALL = 0.4  # last part of the run, in which it falls
FIRST_SEED = 700_000_000  # of the scenes: neither the bundled model's nor a split's
BATCH = 48  # scenes a step
LEARNING_RATE = 6e-4


@dataclass(frozen=True)
class Recipe:
    """What a model sees, and what stays as it is."""

    seed: int
    steps: int
    scale: float | None = None  # of the logits, kept; None: learnt
    large: bool = False  # objects that fill up to half of the picture

    @property
    def sizes(self) -> Sizes:
        return LARGE if self.large else SIZES


RECIPES = {
    "scale-10": Recipe(seed=11, steps=240, scale=10.0),
    "large": Recipe(seed=12, steps=160, large=True),
}


class Scenes(IterableDataset[tuple[Tensor, Tensor]]):
    """Batches: images (b, 3, SIDE, SIDE) uint8, and which kinds each of them shows (b, kinds)."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for step in count():
            first = FIRST_SEED + self.recipe.seed * 1_000_000 + step * BATCH
            rng = np.random.default_rng((self.recipe.seed, step))
            counts = rng.choice(len(OBJECTS), BATCH, p=OBJECTS) + 1
            scenes = [
                sample_scene(first + i, int(n), sizes=self.recipe.sizes)
                for i, n in enumerate(counts)
            ]
            images = np.stack([np.asarray(render(s, SIDE)) for s in scenes])  # (b, SIDE, SIDE, 3)
            shown = [[kind in {o.kind for o in s.objects} for kind in KINDS] for s in scenes]
            yield torch.from_numpy(images).permute(0, 3, 1, 2), torch.tensor(shown).float()


def started(recipe: Recipe) -> CLIP:
    """The bundled weights, of which the image tower learns."""
    model = build().train()
    weights = load_file(bundled.FOLDER / "open_clip_model.safetensors")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    model.requires_grad_(False)
    model.visual.requires_grad_(True)
    if recipe.scale is None:
        model.logit_scale.requires_grad_(True)
    else:
        model.logit_scale.data.fill_(math.log(recipe.scale))
    return model


@torch.inference_mode()
def kinds(model: CLIP) -> list[Tensor]:
    """The kinds' vectors by template: (kinds, d) each."""
    texts = [[t.replace("{}", a(kind)) for kind in KINDS] for t in TEMPLATES]
    return [model.encode_text(tokens(t), normalize=True) for t in texts]


def tune(recipe: Recipe) -> CLIP:
    """Go on from the bundled weights."""
    torch.manual_seed(recipe.seed)
    model = started(recipe)
    texts = [t.clone() for t in kinds(model)]
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    batches = iter(DataLoader(Scenes(recipe), batch_size=None, num_workers=1))
    began = time.monotonic()
    for step in range(recipe.steps):
        left = (recipe.steps - step) / (FALL * recipe.steps)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARM, left)
        images, shown = next(batches)
        z = model.encode_image((images.float() / 255 - 0.5) / 0.5, normalize=True)  # (b, d)
        logits = model.logit_scale.exp() * z @ texts[step % len(texts)].T  # (b, kinds)
        loss = positives(logits, shown) + 0.5 * positives(logits.T, shown.T)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        if (step + 1) % 25 == 0:
            gone = (time.monotonic() - began) / 60
            print(f"step {step + 1}, {gone:.1f} min, loss {loss.item():.3f}", flush=True)
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", choices=RECIPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = RECIPES[options.name]
    export(tune(recipe), options.out)
    model, policy = bundled.load(options.out), options.out / "policy.yaml"
    thresholds.write(thresholds.choose(model, recipe.sizes), policy)
    exam = Examination(model, read_policy(policy))
    found = {k: str(v) for k, v in exam.judged(TRAINED_STYLES, 4_000_000, recipe.sizes).items()}
    (options.out / "accuracy.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
