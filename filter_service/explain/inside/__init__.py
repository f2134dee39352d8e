"""How the model came to a decision: what layers, heads and neurons did, where it rests."""

from filter_service.explain.inside.contributions import Contributions, contributions
from filter_service.explain.inside.lens import Lens, lens
from filter_service.explain.inside.neurons import Neuron, Neurons, neurons
from filter_service.explain.inside.tracing import Patch, Trace, Traced, Tracing, removed, trace

__all__ = [
    "Contributions",
    "Lens",
    "Neuron",
    "Neurons",
    "Patch",
    "Trace",
    "Traced",
    "Tracing",
    "contributions",
    "lens",
    "neurons",
    "removed",
    "trace",
]
