"""Logistic regression with a Gaussian prior on every weight: what calibrators and heads share.

scikit-learn's pulls all weights to zero and knows no fixed part of the logit; here a slope is
pulled to one, and a head starts from the prompts' margin.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STEPS = 100  # of Newton's method; it needs 5 to 15
CLOSE = 1e-10  # largest change of a weight at which it has arrived
REFINED = 6  # further steps with the same curvature, for a fit without one label
REFINED_LABELS = 60  # that move the asked logit most; all together would take their square


@dataclass(frozen=True, slots=True)
class Prior:
    """What the weights are before there are labels."""

    mean: Floats  # (p,)
    precision: Floats  # (p,), one over the variance; 0: nothing is known


@dataclass(frozen=True, slots=True)
class LogisticFit:
    """Weights at the maximum of the posterior, and how far they are known."""

    weights: Floats  # (p,)
    covariance: Floats  # (p, p), of the Gaussian that has the same curvature there


def fit(
    x: Floats,
    truths: Bools,
    prior: Prior,
    offset: Floats | None = None,
    start: Floats | None = None,
) -> LogisticFit:
    """Newton's method with step halving: x (n, p), truths (n,), offset (n,) logits -> weights.

    `start` (p,): weights that are nearly right, which saves steps.

    No weight of any label: where labels are chosen by a part of x, P(truth | x) needs none, and
    weighting by the inverse chance only adds noise.
    """
    fixed = np.zeros(len(x)) if offset is None else offset  # (n,)
    weights = (prior.mean if start is None else start).copy()
    loss = _loss(x, truths, prior, fixed, weights)
    for _ in range(STEPS):
        step = np.linalg.solve(
            _curvature(x, prior, fixed, weights), _slope(x, truths, prior, fixed, weights)
        )
        size = 1.0
        while (
            new := _loss(x, truths, prior, fixed, weights - size * step)
        ) > loss and size > CLOSE:
            size /= 2
        weights, loss = weights - size * step, new
        if np.abs(size * step).max() < CLOSE:
            break
    covariance = np.linalg.inv(_curvature(x, prior, fixed, weights))
    return LogisticFit(weights, np.asarray(covariance, np.float64))


def without_each(
    fitted: LogisticFit,
    x: Floats,
    truths: Bools,
    prior: Prior,
    at: Floats,
    offset: Floats | None = None,
) -> Floats:
    """The weights that a fit without each single label has: (n, p), asked for the logit at (p,).

    One Newton step from the whole fit, with its curvature less the label's own (Sherman and
    Morrison's formula), is the influence of Cook and Weisberg. Some more steps with the same
    curvature bring those labels that move the logit most to what fitting again gives.
    """
    fixed = np.zeros(len(x)) if offset is None else offset  # (n,)
    inverse = fitted.covariance  # (p, p)
    p = expit(x @ fitted.weights + fixed)  # (n,)
    spread = p * (1 - p)  # (n,)
    moved = x @ inverse  # (n, p): H^-1 x_i
    leverage = np.clip(spread * (x * moved).sum(axis=1), 0.0, 0.99)  # (n,)
    weights = fitted.weights + ((p - truths) / (1 - leverage))[:, None] * moved  # (n, p)
    left = np.argsort(-np.abs((weights - fitted.weights) @ at))[:REFINED_LABELS]  # (k,)
    for _ in range(REFINED):
        residuals = expit(x @ weights[left].T + fixed[:, None]) - truths[:, None]  # (n, k)
        residuals[left, np.arange(len(left))] = 0.0
        slopes = residuals.T @ x + prior.precision * (weights[left] - prior.mean)  # (k, p)
        steps = slopes @ inverse  # (k, p)
        along = (steps * x[left]).sum(axis=1)  # (k,)
        steps += (spread[left] * along / (1 - leverage[left]))[:, None] * moved[left]
        weights[left] -= steps
        if np.abs(steps).max(initial=0.0) < CLOSE:
            break
    return np.asarray(weights, np.float64)


def _loss(x: Floats, truths: Bools, prior: Prior, fixed: Floats, weights: Floats) -> float:
    """Negative log posterior, up to a constant."""
    logits = x @ weights + fixed  # (n,)
    pull = 0.5 * (prior.precision * (weights - prior.mean) ** 2).sum()
    return float(np.logaddexp(0.0, logits).sum() - logits[truths].sum() + pull)


def _slope(x: Floats, truths: Bools, prior: Prior, fixed: Floats, weights: Floats) -> Floats:
    residuals = expit(x @ weights + fixed) - truths  # (n,)
    return np.asarray(x.T @ residuals + prior.precision * (weights - prior.mean))  # (p,)


def _curvature(x: Floats, prior: Prior, fixed: Floats, weights: Floats) -> Floats:
    p = expit(x @ weights + fixed)  # (n,)
    h = (x * (p * (1 - p))[:, None]).T @ x + np.diag(prior.precision)  # (p, p)
    return np.asarray(h + CLOSE * np.eye(len(h)))
