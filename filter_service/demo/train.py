"""Train the bundled model on freshly drawn scenes; one command reproduces it.

    python -m filter_service.demo.train --out filter_service/demo/model

Every step sees new scenes. The text tower encodes the captions of *all* kinds and a sample of the
batch's own captions (pairs, colours, sizes, places, relations); every caption that is true of an
image is one of its positives, whoever wrote it. For the first part of the run half of the patches
are left out of the image tower (as in FLIP, Li et al. 2023), which halves its cost and accustoms it
to images with holes.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from filter_service.demo.kinds import KINDS
from filter_service.demo.scenes import Scene, a, captions, render, sample_scene

SIDE = 64  # pixels
VISION = {"image_size": SIDE, "patch_size": 8, "width": 128, "layers": 6, "head_width": 64}
TEXT = {"context_length": 24, "vocab_size": 49408, "width": 96, "heads": 4, "layers": 3}
EMBED_DIM = 128
MEAN = STD = (0.5, 0.5, 0.5)
TEMPLATES = ("{}", "a picture of {}", "a photo of {}", "an image with {}", "a scene with {}")
SAMPLED = 1  # captions of its own that an image brings to the batch, besides the kinds'
FEW_PATCHES = 0.6  # part of the run with half of the patches
OBJECTS = (0.3, 0.35, 0.25, 0.1)  # share of scenes with 1, 2, 3, 4 objects


class Scenes(IterableDataset[tuple[Tensor, list[list[str]]]]):
    """Endless batches: images (b, 3, SIDE, SIDE) uint8 and the true captions of each."""

    def __init__(self, batch: int, seed: int) -> None:
        self.batch, self.seed = batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, list[list[str]]]]:
        rng = np.random.default_rng(self.seed)
        seed = self.seed * 50_000_000
        while True:
            scenes: list[Scene] = []
            for n in rng.choice(4, self.batch, p=OBJECTS) + 1:
                scenes.append(sample_scene(seed, int(n)))
                seed += 1
            images = np.stack([np.asarray(render(s, SIDE)) for s in scenes])  # (b, SIDE, SIDE, 3)
            yield torch.from_numpy(images).permute(0, 3, 1, 2), [captions(s) for s in scenes]


class Texts:
    """Tokens of captions, remembered: the tokenizer is slow and captions recur."""

    def __init__(self) -> None:
        self.tokenizer = open_clip.SimpleTokenizer(context_length=TEXT["context_length"])
        self.known: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        for text in texts:
            if text not in self.known:
                self.known[text] = self.tokenizer([text])[0]
        return torch.stack([self.known[t] for t in texts])  # (n, context)


def build() -> CLIP:
    """The architecture of the bundled model, at random weights."""
    return CLIP(EMBED_DIM, CLIPVisionCfg(**VISION, patch_dropout=0.5), CLIPTextCfg(**TEXT))


def step_loss(
    model: CLIP, images: Tensor, true: list[list[str]], tokens: Texts, rng: np.random.Generator
) -> Tensor:
    """Multi-positive contrastive loss of one batch of uint8 images (b, 3, SIDE, SIDE)."""
    device = model.logit_scale.device
    own = sorted({str(c) for captions in true for c in rng.choice(captions, SAMPLED)})
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
        _positives(logits[:, :k], truth[:, :k])
        + 0.5 * _positives(logits[:, k:], truth[:, k:])
        + 0.5 * _positives(logits.T, truth.T)
    )


def _positives(logits: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy against a uniform distribution over a row's positives; none: left out."""
    count = truth.sum(1)  # (rows,)
    each = -(F.log_softmax(logits, 1) * truth).sum(1) / count.clamp(min=1)  # (rows,)
    return each[count > 0].mean()


def train(options: argparse.Namespace) -> CLIP:
    """Run until `steps` or `minutes` is reached; the schedule follows whichever is further."""
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build().to(device).train()
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}],
        lr=options.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    batches = iter(DataLoader(Scenes(options.batch, options.seed), batch_size=None, num_workers=1))
    tokens, rng = Texts(), np.random.default_rng(options.seed)
    start, step, progress = time.monotonic(), 0, 0.0
    while progress < 1:
        elapsed = (time.monotonic() - start) / 60
        progress = min(1.0, max(step / options.steps, elapsed / options.minutes))
        warm = min(1.0, (step + 1) / 300)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * warm * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)
        model.visual.patch_dropout.prob = 0.5 if progress < FEW_PATCHES else 0.0
        images, true = next(batches)
        loss = step_loss(model, images, true, tokens, rng)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        step += 1
        if step % 50 == 0:
            print(
                f"step {step} {elapsed:.1f} min {progress:.0%} loss {loss.item():.3f} "
                f"scale {model.logit_scale.exp().item():.1f}",
                flush=True,
            )
        if step % 500 == 0:
            export(model, options.out)
            print(f"  {quick_check(model, tokens)}", flush=True)
    export(model, options.out)
    return model


@torch.inference_mode()
def quick_check(model: CLIP, tokens: Texts, n: int = 200) -> str:
    """Top-1 on single objects and both among the top three on pairs, on development seeds."""
    from filter_service.demo.scenes import DEV_SEEDS

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


def export(model: CLIP, folder: Path) -> None:
    """Write open_clip's own folder format, weights in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_cfg": {"embed_dim": EMBED_DIM, "vision_cfg": VISION, "text_cfg": TEXT},
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
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--steps", type=int, default=5000, help="stop after this many steps")
    parser.add_argument("--minutes", type=float, default=math.inf, help="or after this long")
    parser.add_argument("--batch", type=int, default=128, help="scenes a step")
    parser.add_argument("--lr", type=float, default=1.5e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=1)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
