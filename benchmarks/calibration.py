"""Benchmarks calibrators, thresholds and drift where the truth is known.

    python -m benchmarks.calibration                 # 200 repeats of the worlds, some minutes
    python -m benchmarks.calibration --repeats 50 --parts calibrators,bounds

Two worlds. In one the margins of clear images are N(-1.8, 1.7) and those of present ones
N(3.1, 2.4), so that the true probability is known exactly; in the other they are the bundled
model's margins of demo scenes, from seeds of its own. In both 2.5 % of the images show the class.
People review what has a margin of 1.386 or more, and 2 % of the rest, in the order of arrival.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.isotonic import IsotonicRegression

from filter_service.calibration.calibrators import common_line, fit_calibrator
from filter_service.calibration.drift import MONTH, ClassDriftTest, class_drift_test
from filter_service.calibration.labelled_margins import Bools, Floats, LabelledMargins
from filter_service.calibration.threshold_choice import for_miss_rate
from filter_service.demo import POLICY, bundled
from filter_service.demo.samples import moderation_scene
from filter_service.demo.scenes import DEV_SEEDS
from filter_service.errors import InvalidRequest
from filter_service.policy import read_policy
from filter_service.scoring import policy_vectors

DEMO_SEEDS = DEV_SEEDS + 70_000_000  # used for nothing else
PRESENT = 0.025
FLAGGED = math.log(4)  # the margin at which an uncalibrated probability is .8
AUDITED = 0.02  # of the images below
COUNTS = (50, 200, 1000)
CLASSES = 12  # of the policy whose common line a class leans on, and that are watched together
EVALUATED = 400_000  # images that stand for all
BINS = 10
WANTED = 0.8  # precision
BARS = {50: (0.11, 0.50, 0.13), 200: (0.075, 0.25, 0.08), 1000: (0.065, 0.15, 0.05)}

Curve = Callable[[Floats], Floats]  # margins (n,) -> probabilities (n,)


@dataclass(frozen=True)
class World:
    """Margins with the chance that an image of each shows the class."""

    name: str
    draw: Callable[[np.random.Generator, int], tuple[Floats, Bools]]
    margins: Floats  # (m,), ascending: all images
    truth: Floats  # (m,): of each, the chance, or 0 and 1
    half: float  # the margin at which the chance is a half

    def calibration_error(self, curve: Curve) -> float:
        """Among flags: the mean gap of promised and true, of ten bins of equal counts."""
        flagged = self.margins >= FLAGGED
        promised, true = curve(self.margins[flagged]), self.truth[flagged]
        bins = np.array_split(np.arange(len(true)), BINS)
        return float(
            sum(len(b) * abs(promised[b].mean() - true[b].mean()) for b in bins) / len(true)
        )

    def threshold_error(self, curve: Curve) -> float:
        """Between the margins at which a half is promised and at which it is true, logits."""
        grid = np.linspace(-4.0, 12.0, 3201)
        over = np.flatnonzero(curve(grid) >= 0.5)
        return abs(float(grid[over[0]] if len(over) else grid[-1]) - self.half)

    def broken_promise(self, curve: Curve) -> float:
        """Promised less achieved precision, over the lowest margin that promises the wanted one."""
        counts = np.arange(1, len(self.margins) + 1)
        promised = np.cumsum(curve(self.margins)[::-1]) / counts
        achieved = np.cumsum(self.truth[::-1]) / counts
        enough = np.flatnonzero(promised >= WANTED)
        last = enough[-1] if len(enough) else 99
        return float(promised[last] - achieved[last])


def gaussian(seed: int = 0, present: float = PRESENT) -> World:
    """Two normal distributions: the logit of the true chance is a parabola."""

    def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Bools]:
        truths = rng.random(n) < present
        return np.where(truths, rng.normal(3.1, 2.4, n), rng.normal(-1.8, 1.7, n)), truths

    def chance(m: Floats) -> Floats:
        ratio = norm.logpdf(m, 3.1, 2.4) - norm.logpdf(m, -1.8, 1.7)
        return np.asarray(expit(ratio + logit(present)))

    margins = np.sort(draw(np.random.default_rng(seed), EVALUATED)[0])
    grid = np.linspace(0, 8, 80_001)
    half = float(grid[np.flatnonzero(chance(grid) >= 0.5)[0]])
    return World("two normal distributions", draw, margins, chance(margins), half)


def demo_world(count: int = 12_000) -> World:
    """The bundled model's margins for weapons, half of the scenes to fit on, half to look at."""
    model, policy = bundled.load(), read_policy(POLICY)
    vectors = policy_vectors(policy, model.encode_texts, model.logit_scale)
    weapons = vectors.classes[[c.name for c in policy.classes].index("weapons")]
    labelled = [moderation_scene(DEMO_SEEDS + i, i % 2 == 0) for i in range(count)]
    shown = np.array(["weapons" in scene.classes for scene in labelled])
    margins = weapons.margins(model.encode_scenes(s.scene for s in labelled))
    part = np.arange(count) // 2 % 2 == 0

    def draw_from(half: Bools) -> Callable[[np.random.Generator, int], tuple[Floats, Bools]]:
        def draw(rng: np.random.Generator, n: int) -> tuple[Floats, Bools]:
            truths = rng.random(n) < PRESENT
            yes, no = margins[half & shown], margins[half & ~shown]
            return np.where(truths, rng.choice(yes, n), rng.choice(no, n)), truths

        return draw

    seen, truths = draw_from(~part)(np.random.default_rng(1), EVALUATED)
    order = np.argsort(seen)
    line = fit_calibrator(LabelledMargins.of(seen, truths), common_line({}), "weapons")
    return World(
        "demo scenes",
        draw_from(part),
        seen[order],
        truths[order].astype(float),
        line.margin_at(0.5),
    )


def reviewed(world: World, rng: np.random.Generator, count: int) -> LabelledMargins:
    """The first images that people look at."""
    margins, truths = world.draw(rng, 40 * count + 20_000)
    chances = np.where(margins >= FLAGGED, 1.0, AUDITED)
    rows = np.flatnonzero(rng.random(len(margins)) < chances)[:count]
    return LabelledMargins(margins[rows], truths[rows], chances[rows])


def ours(labels: LabelledMargins, others: list[LabelledMargins]) -> Curve:
    classes = {str(i): o for i, o in enumerate([labels, *others])}
    return fit_calibrator(labels, common_line(classes), "class").probability


def alone(labels: LabelledMargins, _: list[LabelledMargins]) -> Curve:
    """Ours, in a policy of one class."""
    return ours(labels, [])


def uncalibrated(_: LabelledMargins, __: list[LabelledMargins]) -> Curve:
    return lambda m: np.asarray(expit(m))


def line(weighted: bool = False, slope: bool = True, offset: bool = True) -> "Method":
    """A line of greatest likelihood, each label counting once or by its inverse chance."""

    def fit(labels: LabelledMargins, _: list[LabelledMargins]) -> Curve:
        weights = 1 / labels.chances if weighted else np.ones(len(labels))
        weights = weights / weights.mean()

        def loss(t: Floats) -> float:
            logits = _line(t) * 1.0
            signed = np.where(labels.truths, -logits, logits)
            return float((weights * np.logaddexp(0, signed)).sum() + 1e-4 * (t**2).sum())

        def _line(t: Floats) -> Floats:
            a = math.exp(t[0]) if slope else 1.0
            return np.asarray(a * labels.margins + (t[1] if offset else 0.0))

        a, b = minimize(loss, np.zeros(2), method="BFGS").x
        a, b = math.exp(a) if slope else 1.0, b if offset else 0.0
        return lambda m: np.asarray(expit(a * m + b))

    return fit


def isotonic(labels: LabelledMargins, _: list[LabelledMargins]) -> Curve:
    fitted = IsotonicRegression(out_of_bounds="clip", y_min=0, y_max=1)
    fitted.fit(labels.margins, labels.truths.astype(float))
    return lambda m: np.asarray(fitted.predict(m))


def beta(labels: LabelledMargins, _: list[LabelledMargins]) -> Curve:
    """Beta calibration (Kull, Silva Filho and Flach 2017) of sigmoid(margin)."""

    def parts(m: Floats) -> tuple[Floats, Floats]:
        return -np.logaddexp(0, -m), np.logaddexp(0, m)  # log p, -log (1 - p)

    x, y = parts(labels.margins)

    def loss(t: Floats) -> float:
        logits = math.exp(t[0]) * x + math.exp(t[1]) * y + t[2]
        signed = np.where(labels.truths, -logits, logits)
        return float(np.logaddexp(0, signed).sum() + 1e-4 * (t**2).sum())

    t = minimize(loss, np.zeros(3), method="BFGS").x

    def curve(m: Floats) -> Floats:
        p, q = parts(m)
        return np.asarray(expit(math.exp(t[0]) * p + math.exp(t[1]) * q + t[2]))

    return curve


Method = Callable[[LabelledMargins, list[LabelledMargins]], Curve]
METHODS: Mapping[str, Method] = {
    "served, 12 classes": ours,
    "served, 1 class": alone,
    "line, likelihood alone": line(),
    "line, inverse chances": line(weighted=True),
    "temperature": line(offset=False),
    "isotonic": isotonic,
    "beta": beta,
    "uncalibrated": uncalibrated,
}


def calibrators(world: World, repeats: int) -> Iterator[str]:
    """90 % quantiles over the repeats, of ECE among flags, threshold error, broken promise."""
    yield f"## Calibrators: {world.name}; 90 % quantiles of {repeats} repeats"
    for count in COUNTS:
        bars = ", ".join(f"{b:g}" for b in BARS[count])
        yield f"{count} labels: ECE among flags, threshold error (logits), promised less achieved"
        yield f"    {'bars':<24} {bars}"
        for name, method in METHODS.items():
            found = [_figures(world, method, count, i) for i in range(repeats)]
            known = np.array([f for f in found if f is not None])
            at = np.quantile(known, 0.9, axis=0)
            refused = f", {repeats - len(known)} refused" if len(known) < repeats else ""
            yield f"    {name:<24} " + ", ".join(f"{v:.3f}" for v in at) + refused


def _figures(
    world: World, method: Method, count: int, repeat: int
) -> tuple[float, float, float] | None:
    rng = np.random.default_rng([repeat, count])
    labels = reviewed(world, rng, count)
    others = [reviewed(world, rng, count) for _ in range(CLASSES - 1)] if method is ours else []
    try:
        curve = method(labels, others)
    except InvalidRequest:
        return None
    return (
        world.calibration_error(curve),
        world.threshold_error(curve),
        world.broken_promise(curve),
    )


def bounds(repeats: int) -> Iterator[str]:
    """How often a promise about misses is broken, and how often none is given."""
    yield f"## Miss rates of at most 10 %, promised with 90 % confidence, {repeats} repeats"
    world = gaussian()
    for positives in (25, 100, 500):
        yield _kept(
            f"{positives} positives drawn at random",
            [_uniform(np.random.default_rng(i), positives) for i in range(repeats)],
        )
    for share, lean in ((0.02, 0.2), (0.1, 0.5)):
        found = [_mixture(world, np.random.default_rng(i), share, lean) for i in range(repeats)]
        yield _kept(f"{share:.0%} of the clear, {lean:.0%} near the threshold", found)
    flags = LabelledMargins.of([2.0, 3.0, 4.0] * 30, [True] * 90)
    try:
        for_miss_rate(flags, 0.1, reviewed_from=FLAGGED)
    except InvalidRequest as refusal:
        yield f"    from flags alone: refused ({refusal})"


def _uniform(rng: np.random.Generator, positives: int) -> LabelledMargins:
    clear = 39 * positives  # 2.5 % are present
    margins = np.concatenate([rng.normal(3.1, 2.4, positives), rng.normal(-1.8, 1.7, clear)])
    return LabelledMargins.of(margins, np.arange(len(margins)) < positives, AUDITED)


def _mixture(world: World, rng: np.random.Generator, share: float, lean: float) -> LabelledMargins:
    margins, truths = world.draw(rng, 100_000)
    near = 1 - (1 - share) * (1 - lean)
    chances = np.where(margins >= FLAGGED, 1.0, np.where(margins > -1.0, near, share))
    rows = rng.random(len(margins)) < chances
    return LabelledMargins(margins[rows], truths[rows], chances[rows])


def _kept(name: str, found: list[LabelledMargins]) -> str:
    missed = []
    for labels in found:
        try:
            threshold = for_miss_rate(labels, 0.1, reviewed_from=FLAGGED)
        except InvalidRequest:
            continue
        missed.append(norm.cdf(threshold.margin, 3.1, 2.4))
    if not missed:
        return f"    {name}: refused in all {len(found)}"
    broken = np.mean(np.array(missed) > 0.1)
    refused = len(found) - len(missed)
    mean = np.mean(missed)
    return f"    {name}: broken {broken:.1%}, missed on average {mean:.3f}, refused {refused}"


def drift(repeats: int) -> Iterator[str]:
    """False alarms of quiet months, and after how many items a shift is found, as it is wired.

    Each repeat is a policy of twelve classes with both of their tests; one class moves.
    """
    yield f"## Drift: months of 30,000 items, {repeats} repeats; a shift of half a deviation"
    world = gaussian()
    spread = float(world.margins.std())
    for size in (1_000, 50_000):
        quiet, after = 0, []
        for i in range(repeats):
            rng = np.random.default_rng([i, size])
            tests = [_drift_test(world, rng, size) for _ in range(CLASSES)]
            quiet += any([test.update(world.draw(rng, MONTH)[0]) for test in tests])
            moved = _drift_test(world, rng, size)
            shift = spread / 2 * (1 if i % 2 else -1)
            blocks = (moved.update(world.draw(rng, 50)[0] + shift) for _ in range(40))
            after.append(next((50 * (n + 1) for n, alarm in enumerate(blocks) if alarm), math.inf))
        found = sum(a <= 2_000 for a in after)
        yield (
            f"    reference of {size}: false alarms in {quiet}, found within 2,000 items in "
            f"{found}, after a median of {np.median(after):g}"
        )


def _drift_test(world: World, rng: np.random.Generator, size: int) -> ClassDriftTest:
    return class_drift_test(world.draw(rng, size)[0], FLAGGED, CLASSES)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--parts", default="calibrators,demo,bounds,drift")
    options = parser.parse_args()
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "calibrators": lambda: calibrators(gaussian(), options.repeats),
        "demo": lambda: calibrators(demo_world(), options.repeats),
        "bounds": lambda: bounds(options.repeats),
        "drift": lambda: drift(min(100, options.repeats)),
    }
    for name in options.parts.split(","):
        for said in parts[name]():
            print(said, flush=True)


if __name__ == "__main__":
    main()
