"""Trains the bundled model on freshly drawn scenes: the first stage, before `tune`.

    python -m filter_service.demo.train --steps 6000 --out build/first

Every step sees new scenes. The text tower encodes the captions of *all* kinds and a sample of the
batch's own captions (pairs, colours, sizes, places, relations); every caption that is true of an
image is one of its positives, whoever wrote it. The first steps see mostly single objects, which
teaches names quickly. The learning rate stays level and falls in a line to nothing over the last
part (Hu et al. 2024), so that a run may be resumed with another number of steps. Everything random
depends on the seed and the step alone: a run that was stopped and resumed is the run that was not.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import count
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from filter_service.demo.kinds import KINDS
from filter_service.demo.scenes import DEV_SEEDS, a, captions, render, sample_scene

SIDE = 64  # pixels
VISION = {"image_size": SIDE, "patch_size": 8, "width": 128, "layers": 6, "head_width": 64}
SHAPE = ("width", "layers", "head_width", "patch_size")
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 3}
EMBED_DIM = 128
MEAN = STD = (0.5, 0.5, 0.5)
TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "an image with {}", "a scene with {}")
SAMPLED = 1  # captions of its own that an image brings to the batch, besides the kinds'
FIRST_STEPS = 1000  # steps that see mostly single objects
FIRST_OBJECTS = (0.7, 0.2, 0.1, 0.0)  # share of scenes with 1, 2, 3, 4 objects in them
OBJECTS = (0.25, 0.4, 0.25, 0.1)  # and after them
WARM = 300  # steps in which the learning rate rises
FALL = 0.3  # last part of the run, in which it falls
KEPT_CAPTIONS = 0.85  # captions kept of a batch's own, as a share of its images: one shape a run


class Scenes(IterableDataset[tuple[Tensor, list[list[str]]]]):
    """Batches from `step` on: images (b, 3, SIDE, SIDE) uint8 and the true captions of each."""

    def __init__(self, batch: int, seed: int, step: int = 0) -> None:
        self.batch, self.seed, self.step = batch, seed, step

    def __iter__(self) -> Iterator[tuple[Tensor, list[list[str]]]]:
        worker = get_worker_info()  # several draw in turns: the order stays that of the steps
        mine, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in count(self.step + mine, stride):
            shares = FIRST_OBJECTS if step < FIRST_STEPS else OBJECTS
            counts = np.random.default_rng((self.seed, step)).choice(4, self.batch, p=shares) + 1
            first = self.seed * 50_000_000 + step * self.batch
            scenes = [sample_scene(first + i, int(n)) for i, n in enumerate(counts)]
            images = np.stack([np.asarray(render(s, SIDE)) for s in scenes])  # (b, SIDE, SIDE, 3)
            yield torch.from_numpy(images).permute(0, 3, 1, 2), [captions(s) for s in scenes]


@lru_cache(maxsize=4096)
def token(text: str) -> Tensor:
    """Tokens of one caption: (context,)."""
    tokens: Tensor = _tokenizer()([text])[0]
    return tokens


@lru_cache(maxsize=1)
def _tokenizer() -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=TEXT["context_length"])


def tokens(texts: list[str]) -> Tensor:
    """Tokens of captions: (n, context)."""
    return torch.stack([token(t) for t in texts])


def build(vision: dict[str, int] = VISION) -> CLIP:
    """The architecture of the bundled model, at random weights."""
    return CLIP(EMBED_DIM, CLIPVisionCfg(**vision), CLIPTextCfg(**TEXT))


def step_loss(
    model: CLIP, images: Tensor, true: list[list[str]], rng: np.random.Generator
) -> Tensor:
    """Multi-positive contrastive loss of one batch of uint8 images (b, 3, SIDE, SIDE)."""
    device = model.logit_scale.device
    own = sorted({str(c) for captions in true for c in rng.choice(captions, SAMPLED)})
    own = [own[i] for i in rng.permutation(len(own))[: int(KEPT_CAPTIONS * len(true))]]
    plain = [a(kind) for kind in KINDS]
    texts = [str(rng.choice(TEMPLATES)).replace("{}", t) for t in plain + own]
    sets = [set(captions) for captions in true]
    truth = torch.tensor([[t in s for t in plain + own] for s in sets], device=device).float()

    x = (images.to(device).float() / 255 - 0.5) / 0.5  # (b, 3, SIDE, SIDE)
    z = model.encode_image(x, normalize=True)  # (b, d)
    t = model.encode_text(tokens(texts).to(device), normalize=True)  # (kinds + own, d)
    logits = model.logit_scale.exp() * z @ t.T  # (b, kinds + own)
    k = len(plain)
    return (
        positives(logits[:, :k], truth[:, :k])
        + 0.5 * positives(logits[:, k:], truth[:, k:])
        + 0.5 * positives(logits.T, truth.T)
    )


def positives(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against a uniform distribution over a row's positives; none: left out."""
    positives = truth.sum(1)  # (rows,)
    each = -(F.log_softmax(logits, 1) * truth).sum(1) / positives.clamp(min=1)  # (rows,)
    return each[positives > 0].mean()


def learning_rate(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step of a run."""
    return min(1.0, (step + 1) / WARM, max(0.0, (steps - step) / (FALL * steps)))


def train(options: argparse.Namespace) -> CLIP:
    """Run `steps` steps, going on from the checkpoint in the output folder if there is one."""
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vision = VISION | {name: getattr(options, name) for name in SHAPE}
    model = build(vision).to(device).train()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    checkpoint, done = options.out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    scenes = Scenes(options.batch, options.seed, done)
    batches = iter(DataLoader(scenes, batch_size=None, num_workers=options.drawers))
    start = time.monotonic()
    for step in range(done, options.steps):
        for group in optimizer.param_groups:
            group["lr"] = options.lr * learning_rate(step, options.steps)
        images, true = next(batches)
        loss = step_loss(model, images, true, np.random.default_rng((options.seed, step, 1)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if (step + 1) % 50 == 0:
            minutes = (time.monotonic() - start) / 60
            print(
                f"step {step + 1} of {options.steps}, {minutes:.1f} min, loss {loss.item():.3f}, "
                f"scale {model.logit_scale.exp().item():.1f}",
                flush=True,
            )
        if (step + 1) % 500 == 0 or step + 1 == options.steps:
            export(model, options.out, vision)
            state = {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint)
            print(f"  {quick_check(model)}", flush=True)
    checkpoint.unlink(missing_ok=True)
    return model


@torch.inference_mode()
def quick_check(model: CLIP, n: int = 200) -> str:
    """Top-1 on single objects and both among the top three on pairs, on development seeds."""
    model.eval()
    device = model.logit_scale.device
    t = model.encode_text(tokens([a(k) for k in KINDS]).to(device), normalize=True)
    answers = []
    for objects, top in ((1, 1), (2, 3)):
        scenes = [sample_scene(DEV_SEEDS + i, objects) for i in range(n)]
        x = torch.from_numpy(np.stack([np.asarray(render(s, SIDE)) for s in scenes]))
        x = (x.permute(0, 3, 1, 2).to(device).float() / 255 - 0.5) / 0.5  # (n, 3, SIDE, SIDE)
        best = (model.encode_image(x, normalize=True) @ t.T).topk(top).indices.tolist()
        right = [
            {o.kind for o in s.objects} <= {KINDS[i] for i in b}
            for s, b in zip(scenes, best, strict=True)
        ]
        answers.append(f"{objects} objects, top {top}: {np.mean(right):.1%}")
    model.train()
    return "; ".join(answers)


def export(model: CLIP, folder: Path, vision: dict[str, int] = VISION) -> None:
    """Write open_clip's own folder format, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": vision, "text_cfg": TEXT},
        "preprocess_cfg": {
            "size": SIDE,
            "mode": "RGB",
            "mean": MEAN,
            "std": STD,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        k: v.detach().half().cpu().contiguous()
        for k, v in model.state_dict().items()
        if k != "attn_mask"
    }
    save_file(weights, folder / "open_clip_model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/first"))
    parser.add_argument("--steps", type=int, default=6000, help="batches to train on")
    parser.add_argument("--batch", type=int, default=128, help="scenes a step")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    for name in SHAPE:  # of a model of another size, to compare with the bundled one
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=VISION[name])
    parser.add_argument("--drawers", type=int, default=1, help="processes that draw the scenes")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
