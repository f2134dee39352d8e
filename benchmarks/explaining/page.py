"""Writes the report on the choice of the default relevance map, with tables and figures."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from pydantic import TypeAdapter

from benchmarks.explaining import candidates
from benchmarks.explaining.candidates import RIVALS
from benchmarks.explaining.sanity import Sanity
from benchmarks.explaining.study import FILLS, Figures, Gap, Study
from benchmarks.explaining.trials import DELTA
from benchmarks.explaining.unoffered import EVERY
from benchmarks.explaining.wording import Found
from filter_service.explain.study.methods import OnePass

ONE_PASS = tuple(name for name, method in EVERY.items() if isinstance(method, OnePass))
DEFAULT = "decomposition"
SHOWN = (DEFAULT, "exact-decomposition", "chefer", "legrad", "ig-blur", "kernel-shap")
SCENES = 5  # in the picture of maps


@dataclass(frozen=True)
class Results:
    """Everything that was found out about one model."""

    model: str
    fingerprint: str
    shape: str
    images: int
    pairs: int
    dropped: int
    dev: dict[str, Figures]
    test: dict[str, Figures]
    gaps: dict[str, Gap]  # the default less each other method
    sanity: Sanity
    words: list[Found]
    absent: dict[str, float]  # share of a present object's total, on the development split


def worth(figures: Figures) -> float:
    """What the default was chosen by on the development split: both main figures count alike."""
    return (figures.causal.value + float(np.mean(list(figures.deletion.values())))) / 2


def keep(results: Results, folder: Path) -> None:
    """As JSON, for the page and for the next comparison."""
    folder.mkdir(parents=True, exist_ok=True)
    text = TypeAdapter(Results).dump_json(results, indent=1).decode()
    (folder / f"{results.model}.json").write_text(text + "\n", encoding="utf-8")


def write(folder: Path, path: Path) -> None:
    """The page of all results that a folder keeps, the bundled model's first."""
    files = sorted(folder.glob("*.json"), key=lambda f: (f.stem != "bundled", f.stem))
    results = [TypeAdapter(Results).validate_json(f.read_bytes()) for f in files]
    path.write_text("\n".join([_head(folder.name), *map(_section, results), HOW]), encoding="utf-8")


def _head(folder: str) -> str:
    return f"""\
# Which map is the default, and what it lost against

Written by `python -m benchmarks.explanations`; every figure is also in
`{folder}/`. Rendered scenes of two or three pictograms; a pair is one object and
the margin of its own name. A pair counts only if the margin falls by more than {DELTA:g} logits
when the scene is drawn again without the object.

**Causal agreement** is the rank correlation, over all objects of all pairs, of the map's mass on
an object with what the margin loses when that object is really left out. **Deletion** takes places
away in the map's order and **insertion** in the reverse; both are areas under the curve of the
margin as a share of the way from a random order (0) to the best order found by trying (1). Three
ways of taking away: the image's mean colour, a blur, and dropping the tokens. Brackets are 95 %
intervals of a bootstrap over images.

![Maps of some test scenes](pictures/map-grid.webp)

![Margin while places are taken away](pictures/deletion-curves.webp)
"""


def _section(r: Results) -> str:
    return "\n".join(
        [
            f"## The model `{r.model}`\n",
            f"{r.shape}; fingerprint `{r.fingerprint[:16]}`. {r.images} scenes of each split; "
            f"{r.pairs} pairs of the test split, {r.dropped} left out because the model does not "
            "use the object.\n",
            "### Chosen on the development split\n",
            _chosen(r.dev, r.absent),
            "### On the test split\n",
            _table(r.test),
            "### Is the default ahead?\n",
            _ahead(r),
            "### Sanity\n",
            _sane(r.sanity),
            "### Words\n",
            _worded(r.words),
        ]
    )


def _chosen(rows: dict[str, Figures], absent: dict[str, float]) -> str:
    """All that was tried, the best first."""
    order = sorted(rows.values(), key=worth, reverse=True)
    lines = [
        f"| {f.name} | {f.causal.value:.3f} | {f.deletion['mean']:.3f} | "
        f"{f.insertion['mean']:.3f} | {worth(f):.3f} | {_share(absent.get(f.name))} |"
        for f in order
    ]
    head = (
        "| map of one pass | causal agreement | deletion | insertion | mean of the first two | "
        "total for absent kinds |"
    )
    return "\n".join([head, "|---|---|---|---|---|---|", *lines, ""])


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _table(rows: dict[str, Figures]) -> str:
    head = (
        "| method | causal agreement | deletion: mean, blur, drop | insertion: mean, blur, drop "
        "| pointing | AP | AUC | energy |"
    )
    order = sorted(rows.values(), key=lambda f: f.causal.value, reverse=True)
    lines = [
        f"| {'**' + f.name + '**' if f.name == DEFAULT else f.name} | {f.causal} | "
        f"{_three(f.deletion)} | {_three(f.insertion)} | {f.pointing:.3f} | {f.precision:.3f} | "
        f"{f.auc:.3f} | {f.energy:.3f} |"
        for f in order
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *lines, ""])


def _three(by_fill: dict[str, float]) -> str:
    return ", ".join(f"{by_fill[f]:.3f}" for f in FILLS)


def _ahead(r: Results) -> str:
    """The default less each other method, in pairs."""
    head = "| against | causal agreement | deletion, mean of three | ahead in both |"
    lines = [
        f"| {name}{' (to beat)' if name in RIVALS else ''} | {g.causal} | {g.deletion} | "
        f"{_verdict(g)} |"
        for name, g in r.gaps.items()
    ]
    return "\n".join([head, "|---|---|---|---|", *lines, ""])


def _verdict(gap: Gap) -> str:
    if gap.causal.low > 0 and gap.deletion.low > 0:
        return "yes"
    behind = [n for n, i in (("causal", gap.causal), ("deletion", gap.deletion)) if i.high < 0]
    return "**behind in " + " and ".join(behind) + "**" if behind else "**not for sure**"


def _sane(s: Sanity) -> str:
    left = ", ".join(f"{share:.2f}" for _, share in s.randomised)
    return (
        f"- Layers at random from the last one down; rank correlation with the true map: {left}.\n"
        f"- Each of two objects has more under its own name than under the other's in "
        f"{s.follows:.1%} of {s.of} scenes.\n"
        f"- Mean total of the map: {s.present:.2f} logits for an object that is there, "
        f"{s.absent:.2f} for one that is not ({s.absent / s.present:.1%}).\n"
    )


def _worded(rows: list[Found]) -> str:
    head = "| slot | swaps used by the model | wrong word found | rank correlation | fillers |"
    lines = [
        f"| {f.slot} | {f.kept} of {f.of} | {f.hits:.1%} | {f.rank:.3f} | {f.fillers:.2f} |"
        if f.kept
        else f"| {f.slot} | 0 of {f.of} | | | |"
        for f in rows
    ]
    return "\n".join([head, "|---|---|---|---|---|", *lines, ""])


HOW = """\
## How to read it

Models besides the bundled one are smaller and trained for less time, so that a default that suits
only one model would show. The oracle's order is sought by trying, eight places at a time with the
mean fill, on 100 pairs; a method can pass it, with another fill above all. "against x 0.2" means
that a head's evidence against the class counts a fifth; the rest of it is in the remainder. The
default is the one with the best mean of causal agreement and deletion among those whose maps give
kinds that are not in the picture less than a tenth of the total of objects that are.

## What the default does not beat

**Integrated gradients**, from a blur for the bundled model, from three of four baselines for the
smaller one, in causal agreement only: the intervals hold zero, so neither is ahead. They ask the
model 24 times for each map and so see what its MLPs do with a place, of which a decomposition of
attention knows nothing; in deletion, where the order of all places counts and not only the sum over
an object, the default is far ahead of each. Tried for it on the development split: the last layers
alone, rollouts through earlier ones, other weights of heads, of queries against keys and of
evidence against the class; what gains in causal agreement (evidence against the class in full,
the *exact decomposition*) loses more in deletion and gives absent kinds large negative totals.
**Kernel SHAP**, by 256 masked passes, agrees better with what is causal, and by far worse with
deletion. Both are there for an audit (`explain --method`); neither costs little enough for a queue.

**Absent kinds** get less than a tenth under the bundled model, for which the default was chosen,
and more under the smaller one, which is wrong about one object in eight.
"""


def draw_curves(rows: dict[str, Figures], path: Path) -> None:
    figure = Figure(figsize=(9.6, 3.4), dpi=150, layout="constrained")
    axes = figure.subplots(1, len(FILLS), sharey=True)
    names = [n for n in (*SHOWN, "raw-attention", "random") if n in rows]
    colours = mpl.colormaps["tab10"](range(len(names)))
    for ax, fill in zip(axes, FILLS, strict=True):
        for name, colour in zip(names, colours, strict=True):
            shape = rows[name].curves[fill]
            x = np.linspace(0, 100, len(shape))
            wide = 2.4 if name == DEFAULT else 1.2
            ax.plot(x, shape, label=name, color=colour, linewidth=wide)
        ax.set_title({"mean": "mean colour", "blur": "blur", "drop": "tokens dropped"}[fill])
        ax.set_xlabel("places taken away, %")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("margin, logits")
    axes[-1].legend(frameon=False, fontsize=8)
    figure.savefig(path)


def draw_maps(study: Study, path: Path) -> None:
    """Scenes in rows, methods in columns, one scale of logits a method."""
    rows = study.first[:SCENES]
    names = [n for n in (*SHOWN, "maskclip", "grad-cam") if n in EVERY]
    grids = {n: _some(study, n, rows) for n in names}
    figure = Figure(
        figsize=(1.45 * (len(names) + 1), 1.6 * len(rows)), dpi=130, layout="constrained"
    )
    axes = figure.subplots(len(rows), len(names) + 1)
    for y, row in enumerate(rows):
        pair = study.trials.pairs[row]
        x = study.trials.pixels[pair.image]
        picture = (x.permute(1, 2, 0).numpy() * 0.5 + 0.5).clip(0, 1)
        axes[y, 0].imshow(picture)
        axes[y, 0].set_ylabel(pair.kind, fontsize=8)
        for ax, name in zip(axes[y, 1:], names, strict=True):
            most = max(float(np.abs(g).max()) for g in grids[name])
            ax.imshow(picture.mean(axis=2), cmap="gray", alpha=0.35, extent=(0, 1, 0, 1))
            ax.imshow(
                grids[name][y], cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.8, extent=(0, 1, 0, 1)
            )
            if y == 0:
                ax.set_title(name.replace("-", " "), fontsize=8)
    for ax in axes.ravel():
        ax.set_xticks([])
        ax.set_yticks([])
    figure.savefig(path)


def _some(study: Study, name: str, rows: Iterable[int]) -> list[Any]:
    found = []
    for row in rows:
        pair = study.trials.pairs[row]
        x, u = study.trials.pixels[pair.image][None], pair.direction[None, None]
        method = candidates.costly().get(name, EVERY[name])
        found.append(method(study.encoder, x, u)[0].grid[0])
    return found
