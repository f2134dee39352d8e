"""Lists every command of the command line with its parameters, as typer has them."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import typer
from typer.models import ArgumentInfo, ParameterInfo


@dataclass(frozen=True)
class Parameter:
    """What a command takes: its name, its type, and how it is given."""

    name: str
    kind: Any
    info: ParameterInfo
    required: bool

    def words(self, value: str) -> list[str]:
        if isinstance(self.info, ArgumentInfo):
            return [value]
        long = [d for d in self.info.param_decls or () if d.startswith("--")]
        return [f"{long[0] if long else '--' + self.name.replace('_', '-').strip('-')}={value}"]


@dataclass(frozen=True)
class Command:
    """The words that call it, and what it takes."""

    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def registered(node: typer.Typer, *path: str) -> Iterator[Command]:
    """Every command of the program."""
    for found in node.registered_commands:
        assert found.callback is not None
        name = found.name or found.callback.__name__.replace("_", "-")
        yield Command((*path, name), tuple(parameters(found.callback)))
    for group in node.registered_groups:
        assert group.typer_instance is not None
        yield from registered(group.typer_instance, *path, str(group.name))


def parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    for name, hint in typing.get_type_hints(callback, include_extras=True).items():
        info = next(
            (m for m in getattr(hint, "__metadata__", ()) if isinstance(m, ParameterInfo)), None
        )
        if info is not None:
            default = inspect.signature(callback).parameters[name].default
            yield Parameter(name, hint.__origin__, info, default is inspect.Parameter.empty)
