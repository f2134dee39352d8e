"""Checks a policy's prompts and thresholds for mistakes, before any image is judged.

Words are compared by the cosine of their vectors: 1 where they are the same to the model. Without
a model it is 1 for the same letters, and 0 for others.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import ClassVectors, PolicyVectors
from filter_service.verdicts import calibration_line

ENOUGH_NEUTRAL = 16  # prompts: fewer hardly stand for what is ordinary
TOO_FEW = "8 make three times the false flags of 32"  # measured on photographs, 12 classes
ALIKE = 0.99  # cosine, 8 degrees: "dog" and "a dog", but neither "a big dog" nor "a cat"
THE_SAME = 1 - 1e-6  # cosine: nothing but rounding
LONGEST = 4_096  # tokens that a text is counted to

Side = tuple[int, Literal["prompts", "neutral"]]  # of which class
Matrix = npt.NDArray[np.float64]
Cosines = Callable[[Side, Side], Matrix]  # (texts of one, texts of the other)
Place = tuple[int | str, ...]  # such as ("classes", 0, "prompts", 2)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about a policy that its author should know; fatal: it cannot work as written."""

    place: Place
    sentence: str
    fatal: bool = False


def by_letters(policy: Policy) -> Iterator[Remark]:
    """All that can be said without a model."""
    return remarks(policy, by_text(policy))


def by_words(
    policy: Policy,
    vectors: PolicyVectors,
    tokenizer: Any,  # noqa: ANN401  (open_clip's own)
) -> Iterator[Remark]:
    """All that the model says that made these vectors."""
    yield from remarks(policy, by_model(vectors))
    yield from model_remarks(policy, vectors)
    yield from cut(policy, tokenizer)


def remarks(policy: Policy, cosines: Cosines) -> Iterator[Remark]:
    """What is said twice, or on both sides."""
    for number in range(len(policy.classes)):
        yield from _unchecked(policy, number)
        yield from _untold(policy, number, cosines)
        yield from _repeated(policy, (number, "prompts"), cosines)
    yield from _neutral(policy, cosines)
    for a, b in combinations(range(len(policy.classes)), 2):
        yield from _shared(policy, a, b, cosines)


def model_remarks(policy: Policy, vectors: PolicyVectors) -> Iterator[Remark]:
    """What only the model knows: directions that coincide, thresholds that nothing reaches."""
    for number, (wanted, class_vectors) in enumerate(
        zip(policy.classes, vectors.classes, strict=True)
    ):
        yield from _out_of_reach(number, wanted, class_vectors)
        yield from _idle(number, wanted, class_vectors)
    directions = [_direction(c) for c in vectors.classes]
    for a, b in combinations(range(len(directions)), 2):
        if float(directions[a] @ directions[b]) >= ALIKE:
            names = policy.classes[a].name, policy.classes[b].name
            yield Remark(
                ("classes", b),
                f"{names[1]} looks for what {names[0]} looks for, as far as the model can tell: "
                "both are flagged for the same images; reword one, or make them one class",
            )


def cut(policy: Policy, tokenizer: Any) -> Iterator[Remark]:  # noqa: ANN401  (open_clip's own)
    """Texts whose end the model never reads."""
    most = int(tokenizer.context_length)
    for place, prompt, templates in _prompts(policy):
        for template in templates:
            text = template.replace("{}", prompt)
            if len(text.encode()) < most - 2 or (tokens := _tokens(tokenizer, text)) <= most:
                continue
            yield Remark(
                place,
                f"{text[:60]!r} has {tokens} tokens, of which the model reads {most} only: "
                "shorten the prompt or its template",
            )
            break  # one template says it


def by_text(policy: Policy) -> Cosines:
    """The same words, in capitals or not, or others."""

    def cosines(a: Side, b: Side) -> Matrix:
        x, y = ([text.casefold() for text in _texts(policy, side)] for side in (a, b))
        return np.array([[float(p == q) for q in y] for p in x])

    return cosines


def by_model(vectors: PolicyVectors) -> Cosines:
    """As the model that made these vectors takes them."""

    def cosines(a: Side, b: Side) -> Matrix:
        x, y = (getattr(vectors.classes[number], which) for number, which in (a, b))  # (n, d)
        return _cosines(x, y)

    return cosines


def _unchecked(policy: Policy, number: int) -> Iterator[Remark]:
    """A flag that acts by itself on a number that nobody has compared with the truth."""
    wanted = policy.classes[number]
    if wanted.certain is not None and wanted.calibration is None:
        yield Remark(
            ("classes", number, "certain"),
            f"flags of {wanted.name} act by themselves from {wanted.certain:g} on, and no review "
            "says how many of them are right: leave certain out, and let policy calibrate "
            "--certain propose it once there are reviews",
        )


def _untold(policy: Policy, number: int, cosines: Cosines) -> Iterator[Remark]:
    """Prompts that are a neutral prompt to the model, too; if all are, nothing is left."""
    wanted, place = policy.classes[number], ("classes", number, "prompts")
    near_neutral = cosines((number, "prompts"), (number, "neutral"))  # (p, k)
    near = np.flatnonzero(near_neutral.max(axis=1) >= ALIKE).tolist()
    against = [int(near_neutral[p].argmax()) for p in near]
    texts = {
        p: f"{wanted.prompts[p]!r} is all but {_called(policy, wanted, k)} "
        f"(cosine {near_neutral[p, k]:.3f})"
        for p, k in zip(near, against, strict=True)
    }
    if len(near) == len(wanted.prompts):
        pairs = ", ".join(list(texts.values())[:3])
        what = f"nothing tells {wanted.name} from what is ordinary: {pairs}"
        yield Remark(place, f"{what}; reword its prompts or the neutral ones", fatal=True)
        return
    for p, sentence in texts.items():
        yield Remark((*place, p), f"{sentence}; reword one of the two")


def _called(policy: Policy, wanted: ForbiddenClass, k: int) -> str:
    """What a class is contrasted with, and which kind of prompt that is."""
    kind = "neutral prompt" if k < len(policy.ordinary_of(wanted)) else "look-alike"
    return f"the {kind} {policy.neutral_of(wanted)[k]!r}"


def _repeated(policy: Policy, side: Side, cosines: Cosines) -> Iterator[Remark]:
    texts, places = _texts(policy, side), _places(policy, side)
    same = np.triu(cosines(side, side) >= THE_SAME, k=1)  # (n, n)
    for second in np.flatnonzero(same.any(axis=0)).tolist():
        first = int(same[:, second].argmax())
        yield Remark(
            places[second],
            f"{texts[second]!r} says what {texts[first]!r} says already: leave one out",
        )


def _neutral(policy: Policy, cosines: Cosines) -> Iterator[Remark]:
    """What each class is contrasted with; of the lists that classes share each fault once."""
    told = set()
    for number in range(len(policy.classes)):
        faults = _repeated(policy, (number, "neutral"), cosines)
        for remark in (*faults, *few_neutral(policy, number)):
            if remark not in told:
                told.add(remark)
                yield remark


def few_neutral(policy: Policy, number: int) -> Iterator[Remark]:
    """That too little is called ordinary; look-alikes do not count, for they are no mixture."""
    wanted = policy.classes[number]
    if (count := len(policy.ordinary_of(wanted))) < ENOUGH_NEUTRAL:
        yield Remark(
            ("classes", number, "neutral") if wanted.neutral else ("neutral",),
            f"{count} neutral prompts hardly stand for all that is ordinary ({TOO_FEW}): give "
            f"{ENOUGH_NEUTRAL} or more, of many kinds",
        )


def _shared(policy: Policy, a: int, b: int, cosines: Cosines) -> Iterator[Remark]:
    first, second = policy.classes[a], policy.classes[b]
    same = cosines((b, "prompts"), (a, "prompts")) >= THE_SAME  # (p, q)
    for p in np.flatnonzero(same.any(axis=1)).tolist():
        yield Remark(
            ("classes", b, "prompts", p),
            f"{second.prompts[p]!r} stands in {first.name}, too: an image of it is flagged for "
            f"{second.name} and for {first.name}",
        )


def _out_of_reach(
    number: int, wanted: ForbiddenClass, class_vectors: ClassVectors
) -> Iterator[Remark]:
    """A threshold above, or below, whatever margin an image can have."""
    low, high = _margins(class_vectors)
    a, b = calibration_line(wanted)
    needed = math.log(wanted.threshold / (1 - wanted.threshold))
    if a * high + b < needed:
        sentence = f"no image can be flagged: none reaches more than {_sigmoid(a * high + b):.4g}"
    elif a * low + b >= needed:
        sentence = f"every image is flagged: none stays under {_sigmoid(a * low + b):.4g}"
    else:
        return
    yield Remark(
        ("classes", number, "threshold"),
        f"{sentence} for {wanted.name}, whose threshold is {wanted.threshold:g}; mend the "
        "threshold or the calibration",
        fatal=True,
    )


def _idle(number: int, wanted: ForbiddenClass, class_vectors: ClassVectors) -> Iterator[Remark]:
    if wanted.look_alikes and class_vectors.logit_scale.sigmoid:
        yield Remark(
            ("classes", number, "look_alikes"),
            f"this model contrasts {wanted.name} with nothing, so that its look-alikes change "
            "nothing: leave them out, or raise the threshold",
        )


def _margins(class_vectors: ClassVectors) -> tuple[float, float]:
    """Bounds on the margin of any image, in logits: the lowest, the highest."""
    low, high = _prompts_margins(class_vectors)
    if (learnt := class_vectors.learnt) is None:
        return low, high
    most = float(np.linalg.norm(learnt.weights.astype(np.float64)))
    return low + learnt.offset - most, high + learnt.offset + most


def _prompts_margins(class_vectors: ClassVectors) -> tuple[float, float]:
    """The same of the prompts alone.

    The log of a mean of exponentials lies between the mean and the maximum.
    """
    scale, bias = class_vectors.logit_scale.factor, class_vectors.logit_scale.bias
    if class_vectors.logit_scale.sigmoid:
        return -scale + 2 * bias, scale + 2 * bias
    prompts, neutral = (
        class_vectors.prompts.astype(np.float64),
        class_vectors.neutral.astype(np.float64),
    )
    high = np.linalg.norm(prompts - neutral.mean(axis=0), axis=1).max()
    low = np.linalg.norm(neutral - prompts.mean(axis=0), axis=1).max()
    nearest = np.sqrt(np.clip(2 - 2 * _cosines(prompts, neutral), 0, None)).min(axis=1).max()
    # The mean holds the nearest neutral prompt with its share.
    return -float(scale * low), float(min(scale * high, scale * nearest + math.log(len(neutral))))


def _cosines(x: npt.ArrayLike, y: npt.ArrayLike) -> Matrix:
    """Of unit vectors, without the rounding of float32: (n, d), (m, d) -> (n, m)."""
    a, b = (np.asarray(v, np.float64) for v in (x, y))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return np.asarray(a @ b.T)


def _direction(found: ClassVectors) -> Matrix:
    """Where images of a class lie, seen from what is ordinary: (d,) unit."""
    towards = found.prompts.mean(axis=0, dtype=np.float64)
    if not found.logit_scale.sigmoid:
        towards = towards - found.neutral.mean(axis=0, dtype=np.float64)
    if found.learnt is not None:
        towards = towards + found.learnt.weights / found.logit_scale.factor
    return np.asarray(towards / max(float(np.linalg.norm(towards)), 1e-12))


def _prompts(policy: Policy) -> Iterator[tuple[Place, str, Sequence[str]]]:
    """Every prompt, where it stands, and what is put around it."""
    for i, text in enumerate(policy.neutral):
        yield ("neutral", i), text, policy.templates
    for number, c in enumerate(policy.classes):
        for which in ("prompts", "neutral", "look_alikes"):
            for i, text in enumerate(getattr(c, which) or ()):
                yield ("classes", number, which, i), text, policy.templates_of(c)


def _texts(policy: Policy, side: Side) -> Sequence[str]:
    wanted = policy.classes[side[0]]
    return wanted.prompts if side[1] == "prompts" else policy.neutral_of(wanted)


def _places(policy: Policy, side: Side) -> list[Place]:
    """Where each of these texts stands."""
    number, which = side
    wanted, its = policy.classes[number], ("classes", number)
    if which == "prompts":
        return [(*its, "prompts", i) for i in range(len(wanted.prompts))]
    ordinary: Place = (*its, "neutral") if wanted.neutral else ("neutral",)
    return [
        *((*ordinary, i) for i in range(len(policy.ordinary_of(wanted)))),
        *((*its, "look_alikes", i) for i in range(len(wanted.look_alikes or ()))),
    ]


def _tokens(tokenizer: Any, text: str) -> int:  # noqa: ANN401
    """How many a text has before it is padded."""
    ids = np.asarray(tokenizer([text], context_length=LONGEST))[0]  # (LONGEST,)
    return int(np.flatnonzero(ids != ids[-1]).max(initial=-1)) + 1


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
