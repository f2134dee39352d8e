"""Commands whose modules are imported only when they are run or asked for their own help."""

import ast
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class DeferredCommand(TyperCommand):
    """Stands for a function of one of our modules; its callback gives the function's path."""

    @property
    def path(self) -> str:
        assert self.callback is not None
        return str(self.callback())

    def make_context(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401  (typer hides the types)
        single = typer.Typer(add_completion=False)
        single.command()(function_at(self.path))
        return typer.main.get_command(single).make_context(*given, **named)


class CommandGroup(TyperGroup):
    """Lists its commands by the first paragraphs of their docstrings, importing none of them."""

    def format_help(self, *given: Any, **named: Any) -> None:  # noqa: ANN401
        for command in self.commands.values():
            if isinstance(command, DeferredCommand):
                module, name = command.path.split(".")
                command.help = _docstrings(module)[name]
        super().format_help(*given, **named)


def application(
    name: str, about: str, groups: dict[str, str], commands: dict[str, str]
) -> typer.Typer:
    """Groups by name with their help, commands by the words that call them with their paths."""
    root = _group(about, name)
    found = {"": root, **{group: _group(said) for group, said in groups.items()}}
    for words, path in commands.items():
        group, _, last = words.rpartition(" ")
        found[group].command(last, cls=DeferredCommand)(_standing_for(path))
    for group in groups:
        root.add_typer(found[group], name=group)
    return root


def function_at(path: str) -> Callable[..., None]:
    """The function behind a command: `batches.submit` is `submit` of our module `batches`."""
    module, name = path.split(".")
    found: Callable[..., None] = getattr(import_module(f"{__package__}.{module}"), name)
    return found


def _group(about: str, name: str | None = None) -> typer.Typer:
    return typer.Typer(
        name=name, help=about, cls=CommandGroup, no_args_is_help=True, add_completion=False
    )


def _standing_for(path: str) -> Callable[[], str]:
    return lambda: path


@cache
def _docstrings(module: str) -> dict[str, str]:
    """By function, read and not imported."""
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return {f.name: ast.get_docstring(f) or "" for f in functions}
