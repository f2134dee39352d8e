"""Tests whether Shapley values of words find the one wrong word of a caption."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.explaining.measures import spearman
from benchmarks.explaining.trials import Trials
from filter_service.demo.kinds import KINDS
from filter_service.demo.scenes import COLOURS, TEXTURES, Scene, a
from filter_service.encoder import Encoder
from filter_service.explain.words import Words

USED = 0.5  # logits that a wrong word must cost, or the model does not use the slot
FILLERS = frozenset({"a", "an", "on", "and", "of", "at", "the", "background", "in"})
PLACES = ("on the left", "on the right", "at the top", "at the bottom")
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Swap:
    """A true caption, the same with one word wrong, and which word that is."""

    slot: str
    true: str
    wrong: str

    @property
    def places(self) -> list[int]:
        """Positions at which the two differ."""
        pairs = zip(self.true.split(), self.wrong.split(), strict=True)
        return [i for i, (t, w) in enumerate(pairs) if t != w]


@dataclass(frozen=True)
class Found:
    """The results for one slot of the captions."""

    slot: str
    kept: int  # swaps that cost the caption more than `USED`
    of: int
    hits: float = 0.0  # share in which no other word's value fell as far as the wrong one's
    rank: float = 0.0  # rank correlation of the wrong word's fall with the caption's
    fillers: float = 0.0  # mean change of a filler word, over the fall of the wrong word


def words(encoder: Encoder, trials: Trials) -> list[Found]:
    shapley = Words(encoder.encode_texts)
    found: dict[str, list[tuple[bool, float, float, float]]] = {}
    tried: dict[str, int] = {}
    for i, scene in enumerate(trials.scenes):
        z = trials.z[i]
        for swap in _swaps(scene, np.random.default_rng((i, 5))):
            tried[swap.slot] = tried.get(swap.slot, 0) + 1
            true, wrong = (
                shapley.vectors(text, ("{}",)).values(z, encoder.logit_scale.factor, 1.0)
                for text in (swap.true, swap.wrong)
            )
            cost = true.logit - wrong.logit
            if cost <= USED:
                continue
            fall = np.array(
                [t.shapley - w.shapley for t, w in zip(true.words, wrong.words, strict=True)]
            )
            quiet = [abs(fall[i]) for i, w in enumerate(wrong.words) if w.word in FILLERS]
            hit = int(fall.argmax()) in swap.places
            row = (hit, float(fall[swap.places].sum()), cost, float(np.mean(quiet)))
            found.setdefault(swap.slot, []).append(row)
    return [_summary(slot, found.get(slot, []), of) for slot, of in tried.items()]


def _summary(slot: str, rows: list[tuple[bool, float, float, float]], of: int) -> Found:
    if not rows:
        return Found(slot, 0, of)
    hits, change, cost, quiet = (
        np.array(column, dtype=np.float64) for column in zip(*rows, strict=True)
    )
    return Found(
        slot=slot,
        kept=len(rows),
        of=of,
        hits=float(hits.mean()),
        rank=spearman(change, cost),
        fillers=float(quiet.mean() / change.mean()),
    )


def _swaps(scene: Scene, rng: np.random.Generator) -> Iterator[Swap]:
    first, second = scene.objects[:2]
    name = first.kind
    if " " in name or " " in second.kind:
        return
    shown = {o.kind for o in scene.objects}
    article = a(name).split()[:-1]
    others = [k for k in KINDS if k not in shown and " " not in k and a(k).split()[:-1] == article]
    other = str(rng.choice(others))
    colour, texture = scene.colour, scene.texture
    yield Swap(
        "object", f"{a(name)} on a {colour} background", f"{a(other)} on a {colour} background"
    )
    wrong = str(rng.choice([c for c in COLOURS if c != colour]))
    yield Swap(
        "colour", f"{a(name)} on a {colour} background", f"{a(name)} on a {wrong} background"
    )
    wrong = str(rng.choice([t for t in TEXTURES if t != texture]))
    yield Swap(
        "texture", f"{a(name)} on a {texture} background", f"{a(name)} on a {wrong} background"
    )
    place = _place(first.x, first.y)
    if place:
        word = place.split()[-1]
        yield Swap(
            "place", f"{a(name)} {place}", f"{a(name)} {place.replace(word, OPPOSITE[word])}"
        )
    relation = _relation(second.x - first.x, second.y - first.y)
    if relation:
        both = f"{a(name)} {relation} {a(second.kind)}"
        yield Swap("relation", both, f"{a(name)} {RELATIONS[relation]} {a(second.kind)}")


def _place(x: float, y: float) -> str | None:
    if x < 0.38 or x > 0.62:
        return PLACES[0] if x < 0.38 else PLACES[1]
    if y < 0.38 or y > 0.62:
        return PLACES[2] if y < 0.38 else PLACES[3]
    return None


def _relation(right: float, down: float) -> str | None:
    if abs(right) > 0.2:
        return "left of" if right > 0 else "right of"
    if abs(down) > 0.2:
        return "above" if down > 0 else "below"
    return None
