"""Mechanistic analysis of a decision: layers, heads, neurons and causal tracing."""

from filter_service.explain.study.inside.causal_tracing import Patch, Trace, Tracing, removed, trace
from filter_service.explain.study.inside.contributions import Contributions, contributions
from filter_service.explain.study.inside.logit_lens import Lens, lens
from filter_service.explain.study.inside.neurons import Neurons, neurons

__all__ = [
    "Contributions",
    "Lens",
    "Neurons",
    "Patch",
    "Trace",
    "Tracing",
    "contributions",
    "lens",
    "neurons",
    "removed",
    "trace",
]
