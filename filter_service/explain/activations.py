"""Records an image tower's activations in one forward pass, by hooks, for its explainer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from filter_service.explain.attention import Site, Tail

Keep = Callable[[tuple[Any, ...], Any], Tensor]  # (arguments, output) of a module -> what to keep


@dataclass(frozen=True, slots=True)
class Reading:
    """What a tower's activations mean: the sites that wrote into the pooled token, and its tail."""

    sites: Sequence[Site]
    pooled: Tensor  # (n, e): the stream at the pooled token, or the pooling's output
    tail: Tail  # from there to the embedding before normalisation
    prefix: int  # tokens before the first place (class token, mean token)
    grid: tuple[int, int]  # height and width in places
    norms: Tensor | None = None  # (n, j): token norms at the last block's input

    def take(self, rows: Sequence[int]) -> Self:
        """The reading of some images; one may occur more than once."""
        index = list(rows)
        return replace(
            self,
            sites=[site.take(index) for site in self.sites],
            pooled=self.pooled[index],
            norms=None if self.norms is None else self.norms[index],
        )


class Explainer(Protocol):
    """One way to read a kind of image tower; a new one joins `towers.EXPLAINERS`."""

    method: str

    def supports(self, tower: nn.Module) -> bool:
        """Whether a map of this tower would be exact."""

    def watch(self, tower: nn.Module) -> dict[nn.Module, Keep]:
        """Which modules to listen to in the forward pass, and what to keep of each."""

    def read(self, tower: nn.Module, kept: dict[nn.Module, Tensor]) -> Reading:
        """Make sense of what was kept."""


class ActivationTape:
    """Forward hooks that keep activations; they come off also when the forward raises.

    With `graph`, what is kept can be differentiated through.
    """

    def __init__(self, watched: dict[nn.Module, Keep], graph: bool = False) -> None:
        self._watched = watched
        self._graph = graph
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._kept: dict[nn.Module, list[Tensor]] = {module: [] for module in watched}

    def __enter__(self) -> Self:
        for module, keep in self._watched.items():
            self._handles.append(module.register_forward_hook(self._listener(keep)))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _listener(self, keep: Keep) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def listen(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:  # noqa: ANN401
            value = keep(arguments, output)
            self._kept[module].append(value if self._graph else value.detach().float())

        return listen

    def activations(self) -> dict[nn.Module, Tensor]:
        """What was kept of each module, over all batches of the pass."""
        return {m: p[0] if len(p) == 1 else torch.cat(p) for m, p in self._kept.items()}
