"""Second stage of training: fits the vector of the word "empty" to empty grounds.

    python -m filter_service.demo.train --steps 6000 --out build/first
    python -m filter_service.demo.tune --start build/first

The first stage sees whole squares with things in them, and takes an empty ground, or the edge of a
thing, for whatever resembles it most. A service looks at such places: at windows of long pages and,
where it explains, at squares in part hidden. Its image vectors tell them from things well enough;
what was missing is a text. So the image tower and all other words stay as they are, and the vector
of the word "empty", which the first stage never used, is fitted to looks drawn by `looks`.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor

from filter_service.demo.kinds import KINDS
from filter_service.demo.looks import look
from filter_service.demo.scenes import EMPTY, a
from filter_service.demo.train import SIDE, TEMPLATES, TEXT, build, export, positives, token, tokens

FIRST_SEED = 600_000_000  # of the looks: neither the first stage's nor a split's
WORD = "empty"
LEARNING_RATE = 1e-2
FALL = 0.5  # last part of the run, in which it falls
BATCH = 1024  # looks a step
CHUNK = 128  # looks in one forward pass


def started(folder: Path) -> CLIP:
    """The model of the first stage, of which one word learns."""
    model = build().eval()
    weights = load_file(folder / "open_clip_model.safetensors")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    model.requires_grad_(False)
    words = model.token_embedding.weight.requires_grad_(True)
    learnt = torch.zeros(TEXT["vocab_size"], 1)
    learnt[token(WORD)[1]] = 1  # behind the start of the text
    words.register_hook(lambda gradient: gradient * learnt)
    return model


@torch.inference_mode()
def seen(model: CLIP, count: int) -> tuple[Tensor, Tensor]:
    """Looks as unit vectors (n, d), and which kinds are in each, or else nothing (n, kinds + 1)."""
    vectors, truth = [], []
    for first in range(FIRST_SEED, FIRST_SEED + count, CHUNK):
        looks = [look(first + i, SIDE) for i in range(CHUNK)]
        images = torch.from_numpy(np.stack([np.asarray(p) for p, _ in looks]))  # (b, SIDE, SIDE, 3)
        x = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5  # (b, 3, SIDE, SIDE)
        vectors.append(model.encode_image(x, normalize=True))  # (b, d)
        shown = [{o.kind for o in scene.objects} for _, scene in looks]
        truth.append(torch.tensor([[*(k in s for k in KINDS), not s] for s in shown]).float())
    return torch.cat(vectors).clone(), torch.cat(truth).clone()


def learn(model: CLIP, z: Tensor, truth: Tensor, steps: int, seed: int) -> None:
    """Fit the word to looks (n, d) and what is in them (n, kinds + 1)."""
    with torch.no_grad():
        kinds = [
            model.encode_text(tokens([t.replace("{}", a(kind)) for kind in KINDS]), normalize=True)
            for t in TEMPLATES
        ]  # (kinds, d) each
    optimizer = torch.optim.Adam([model.token_embedding.weight], lr=LEARNING_RATE)
    rng = np.random.default_rng(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (steps - step) / (FALL * steps))
        rows = torch.from_numpy(rng.choice(len(z), BATCH, replace=False))
        text = tokens([TEMPLATES[step % len(TEMPLATES)].replace("{}", EMPTY)])
        empty = model.encode_text(text, normalize=True)  # (1, d)
        texts = torch.cat([kinds[step % len(TEMPLATES)], empty])  # (kinds + 1, d)
        logits = model.logit_scale.exp() * z[rows] @ texts.T  # (BATCH, kinds + 1)
        loss = positives(logits, truth[rows]) + 0.5 * positives(logits.T, truth[rows].T)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} of {steps}, loss {loss.item():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--start", type=Path, default=Path("build/first"), help="the first stage")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--looks", type=int, default=6144, help="drawn, seen again in many steps")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    start = time.monotonic()
    model = started(options.start)
    z, truth = seen(model, options.looks)
    learn(model, z, truth, options.steps, options.seed)
    export(model, options.out)
    print(f"{(time.monotonic() - start) / 60:.1f} min; without things: {truth[:, -1].mean():.1%}")


if __name__ == "__main__":
    main()
