"""Mechanistic analysis of a decision: layers, heads, neurons and causal tracing."""

from filter_service.explain.study.inside.causal_tracing import (
    Patch,
    Trace,
    TracedPatch,
    Tracing,
    removed,
    trace,
)
from filter_service.explain.study.inside.contributions import Contributions, contributions
from filter_service.explain.study.inside.logit_lens import Lens, lens
from filter_service.explain.study.inside.neurons import Neuron, Neurons, neurons

__all__ = [
    "Contributions",
    "Lens",
    "Neuron",
    "Neurons",
    "Patch",
    "Trace",
    "TracedPatch",
    "Tracing",
    "contributions",
    "lens",
    "neurons",
    "removed",
    "trace",
]
