"""Checks which open_clip architectures get a relevance map, and writes docs/architectures.md.

    python -m benchmarks.architectures --write

Every image tower is laid out without weights and asked for its explainer; then it gets random
weights and its maps are held against the contract: grid and remainder add up to the score, the
same in a batch as alone, whatever the other classes are. Nothing is downloaded. A tower above
so many million parameters (--whole) is shortened to the first two blocks of each stage, at full
width.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from filter_service.errors import NotExplainable
from filter_service.explain.relevance import RelevanceMap, capture, find_explainer, refusal
from filter_service.scoring import FloatArray

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
WHOLE = 60  # million parameters: larger towers are shortened
BLOCKS = 2  # of each stage, when shortened
LENGTH = 50.0  # of a direction, in logits: about half of CLIP's usual scale
TITLES = ("configuration", "image tower", "parameters", "pooling", "map", "grid", "tried", "error")
FILLING = {
    *("normal_", "uniform_", "constant_", "zeros_", "ones_"),
    *("trunc_normal_", "kaiming_uniform_", "xavier_uniform_"),
    *("fill_", "zero_", "mul_", "add_", "div_", "erfinv_", "clamp_"),
}
POOLINGS = {"token": "class token", "avg": "average", "map": "learnt query"}

Tower = Any  # open_clip's and timm's classes carry no types


@dataclass(frozen=True, slots=True)
class Structure:
    """What is known of an image tower without its weights, from its layout alone."""

    tower: str
    parameters: float
    pooling: str
    account: str  # the map's method, or why there is none
    explained: bool

    @property
    def cells(self) -> tuple[str, ...]:
        return self.tower, f"{self.parameters / 1e6:.0f} M", self.pooling, self.account


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of checking a tower's maps at random weights."""

    grid: str
    tried: str
    error: str

    @property
    def cells(self) -> tuple[str, ...]:
        return self.grid, self.tried, self.error


@dataclass
class TowerAlone:
    """What a map needs of an encoder, without a text tower."""

    model: Any

    def encode(self, pixels: Tensor) -> FloatArray:
        with torch.inference_mode():
            out = self.model.visual(pixels)
            out = out[0] if isinstance(out, tuple) else out  # CoCa gives its tokens too
            z: FloatArray = F.normalize(out, dim=-1).numpy()
        return z


class Unfilled(TorchFunctionMode):
    """Tensors without storage keep no values; computing initial ones takes most of a layout."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        if getattr(func, "__name__", "") in FILLING:
            filled = args[0] if args else (kwargs or {})["tensor"]
            if filled.is_meta:
                return filled
        return func(*args, **(kwargs or {}))


def laid_out(name: str) -> Tower:
    """A configuration's image tower without weights."""
    config = open_clip.get_model_config(name)
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    with torch.device("meta"), Unfilled():
        return _build_vision_tower(config["embed_dim"], vision, config.get("quick_gelu", False))


def kinds() -> Iterator[list[str]]:
    """All configurations, those with the same image tower together."""
    found: dict[str, list[str]] = {}
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        tower = [config["vision_cfg"], config["embed_dim"], config.get("quick_gelu", False)]
        found.setdefault(json.dumps(tower, sort_keys=True), []).append(name)
    yield from found.values()


def structure(tower: Tower) -> Structure:
    """How a tower would be explained, told from its layout."""
    explainer = find_explainer(tower)
    inner = f" around {type(tower.trunk).__name__}" if hasattr(tower, "trunk") else ""
    return Structure(
        tower=type(tower).__name__ + inner,
        parameters=sum(p.numel() for p in tower.parameters()),
        pooling=_pooling(tower),
        account=explainer.method if explainer else refusal(tower),
        explained=explainer is not None,
    )


def trial(tower: Tower, limit: float = WHOLE) -> Trial:
    """Give a laid-out tower random weights and hold its maps against the contract."""
    whole = sum(p.numel() for p in tower.parameters()) <= limit * 1e6
    tried = "whole" if whole else shorten(tower)
    fill(tower)
    size = tower.image_size
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    try:
        maps, error = hold(TowerAlone(SimpleNamespace(visual=tower)), pixels)
    except NotExplainable as refused:
        return Trial("", tried, str(refused))
    return Trial("{} × {}".format(*maps[0].grid.shape[1:]), tried, f"{error:.0e}")


def hold(encoder: Any, pixels: Tensor) -> tuple[list[RelevanceMap], float]:  # noqa: ANN401
    """Maps of two images for two classes, and the largest departure from the contract in logits."""
    seen = capture(encoder, pixels)
    u = np.random.default_rng(2).normal(size=(len(pixels), 2, seen.z.shape[1]))
    u = (LENGTH * u / np.linalg.norm(u, axis=-1, keepdims=True)).astype(np.float32)
    maps = seen.maps(range(len(pixels)), u)
    served = np.einsum("ncd,nd->nc", u.astype(np.float64), seen.z)
    alone = capture(encoder, pixels[1:2]).maps([0], u[1:2])[0]
    single = seen.maps([0], u[:1, 1:])[0]
    gaps = [
        np.stack([m.grid.sum(axis=(1, 2)) + m.remainder for m in maps]) - served,
        np.stack([m.explained for m in maps]) - served,
        maps[1].grid - alone.grid,
        maps[0].grid[1] - single.grid[0],
    ]
    if any(module._forward_hooks for module in encoder.model.visual.modules()):
        raise RuntimeError("a hook was left behind")
    return maps, max(float(np.abs(gap).max()) for gap in gaps)


def shorten(tower: Tower) -> str:
    """Keep the first two blocks of every stage, at full width; returns what is left."""
    trunk: Any = getattr(tower, "trunk", tower)
    if hasattr(trunk, "transformer"):
        trunk = trunk.transformer
    for name in ("resblocks", "blocks"):
        if hasattr(trunk, name):
            count = len(getattr(trunk, name))
            setattr(trunk, name, getattr(trunk, name)[:BLOCKS])
            return f"{BLOCKS} of {count} blocks"
    if hasattr(trunk, "layer1"):
        for name in ("layer1", "layer2", "layer3", "layer4"):
            setattr(trunk, name, getattr(trunk, name)[:BLOCKS])
    else:
        for stage in trunk.stages if hasattr(trunk, "stages") else trunk.layers:
            stage.blocks = stage.blocks[:BLOCKS]
    return f"{BLOCKS} blocks of each stage"


def fill(tower: Tower) -> None:
    """Random weights of a size at which attention has preferences and no layer is idle."""
    tower.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(0)
    for module in tower.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    with torch.no_grad():
        for name, p in tower.named_parameters():
            matrix = p.ndim > 1 and ("weight" in name or "proj" in name)
            p.normal_(0.0, p[0].numel() ** -0.5 if matrix else 1.0, generator=generator)
            if p.ndim == 1:
                p.mul_(0.1).add_(0.0 if "bias" in name else 1.0)


def rows(
    names: Iterable[str], limit: float | None = WHOLE
) -> Iterator[tuple[bool, tuple[str, ...]]]:
    """Whether explained, and the table's row, of every configuration; no limit: no numbers."""
    wanted = set(names)
    for group in kinds():
        if not wanted & set(group):
            continue
        tower = laid_out(group[0])
        known = structure(tower)
        tried = known.explained and limit is not None
        cells = trial(tower, limit or 0.0).cells if tried else ("", "", "")
        for name in group:
            if name in wanted:
                yield known.explained, (name, *known.cells, *cells)


def page(found: list[tuple[bool, tuple[str, ...]]], limit: float) -> str:
    """The whole of docs/architectures.md."""
    table = sorted((row for _, row in found), key=lambda row: row[0].lower())
    whole = sum(row[6] == "whole" for row in table)
    lines = [" | ".join(cells) for cells in (TITLES, ["---"] * len(TITLES), *table)]
    return "\n".join(
        [
            "# Architectures",
            "",
            "Generated by `python -m benchmarks.architectures --write`; a test compares it with",
            "the code.",
            "",
            f"**{sum(done for done, _ in found)} of {len(found)} configurations** of open_clip "
            f"{open_clip.__version__} get a relevance map whose",
            "grid and remainder add up to the score that was served. The text tower plays no part:",
            "it only gives the direction.",
            "",
            f"Tried with random weights on noise, directions {LENGTH:g} logits long: {whole} "
            "configurations as they are;",
            f"{len(table) - whole} above {limit:g} million parameters shortened to the "
            f"first {BLOCKS} blocks of each stage, at full",
            "width. `error` is the largest departure in logits, of: grid and remainder against the",
            "score served, the score explained against it, the map in a batch against the map",
            "alone, the map among other classes against the map by itself; 1e-04 is allowed.",
            "",
            "What the maps are:",
            "",
            "- *decomposition of all layers*: what each layer's attention wrote into the class",
            "  token, place by place; MLPs, the class token itself and biases are the remainder.",
            "- *shares of the attentional, latent or attention pooling*: what each place gave",
            "  to the pooling that ends the tower; an MLP after it enters to first order.",
            "- *shares of the average pooling*: each place's part of the mean, through the norm",
            "  and the head that follow. The places of a convolutional or hierarchical trunk have",
            "  seen much of the image by then, and the grid is as coarse as the last feature map.",
            "",
            *(f"| {line} |" for line in lines),
            "",
        ]
    )


def _pooling(tower: Tower) -> str:
    if hasattr(tower, "trunk"):
        pool = getattr(tower.trunk, "global_pool", "")
        return POOLINGS.get(pool, "average") if hasattr(tower.trunk, "blocks") else "feature map"
    if hasattr(tower, "attnpool"):
        return "mean as query"
    if tower.attn_pool is not None:
        return "first query"
    return "class token" if tower.pool_type == "tok" else "average"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="configurations; all of them unless told")
    parser.add_argument("--structure", action="store_true", help="without weights and numbers")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    parser.add_argument("--whole", type=float, default=WHOLE, help="million parameters")
    options = parser.parse_args()
    if options.write and (options.names or options.structure):
        parser.error("--write is for the whole table")
    found, start = [], time.monotonic()
    limit = None if options.structure else options.whole
    for done, row in rows(options.names or open_clip.list_models(), limit):
        found.append((done, row))
        print(f"{time.monotonic() - start:5.0f} s  " + " | ".join(row), flush=True)
    print(f"{sum(done for done, _ in found)} of {len(found)} explained")
    if options.write:
        PAGE.write_text(page(found, options.whole), encoding="utf-8")


if __name__ == "__main__":
    main()
