"""Lists every command of the command line with its parameters, as typer has them."""

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from typer.models import ArgumentInfo, ParameterInfo

from filter_service.cli.command_table import COMMANDS
from filter_service.cli.deferred_commands import function_at


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
        return [f"{self.options[0]}={value}"]

    @property
    def options(self) -> list[str]:
        """By which it is given, where it is no argument."""
        if isinstance(self.info, ArgumentInfo):
            return []
        long = [d for d in self.info.param_decls or () if d.startswith("--")]
        return long or [f"--{self.name.replace('_', '-').strip('-')}"]


@dataclass(frozen=True)
class Command:
    """The words that call it, and what it takes."""

    path: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def registered() -> Iterator[Command]:
    """Every command of the program."""
    for words, path in COMMANDS.items():
        yield Command(tuple(words.split()), tuple(parameters(function_at(path))))


def parameters(callback: Callable[..., Any]) -> Iterator[Parameter]:
    for name, hint in typing.get_type_hints(callback, include_extras=True).items():
        info = next(
            (m for m in getattr(hint, "__metadata__", ()) if isinstance(m, ParameterInfo)), None
        )
        if info is not None:
            default = inspect.signature(callback).parameters[name].default
            yield Parameter(name, hint.__origin__, info, default is inspect.Parameter.empty)
