"""Reads YAML so that every fault has its line and field."""

from collections.abc import Sequence
from typing import Any

import yaml
from pydantic_core import ErrorDetails


class PolicyLoader(yaml.SafeLoader):
    """YAML whose every fault is a YAMLError with its line."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """Refuse a key that stands twice: of two `classes` the first would go without a word."""
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in keys:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value} stands there twice", problem_mark=key.start_mark
                )
            keys.add(str(key.value))
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: ANN401
        """Name the place of a value that PyYAML takes for a date or a number and cannot read."""
        try:
            return super().construct_object(node, deep)
        except (AttributeError, LookupError, ValueError) as error:
            raise yaml.MarkedYAMLError(
                problem=f"no {node.tag.rpartition(':')[2]} can be read there; quote what is text",
                problem_mark=node.start_mark,
            ) from error


def fault_of(error: yaml.YAMLError, text: str) -> tuple[int, str]:
    """The line of what is not YAML, and what is wrong there."""
    if isinstance(error, yaml.reader.ReaderError):
        return text.count("\n", 0, error.position) + 1, str(error.reason)
    assert isinstance(error, yaml.MarkedYAMLError), error
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1, error.problem or str(error)


def follows(fault: ErrorDetails, faults: Sequence[ErrorDetails]) -> bool:
    """Whether a list is called too short only because pydantic dropped its faulty members."""
    place = fault["loc"]
    inside = (f["loc"] for f in faults if len(f["loc"]) > len(place))
    return fault["type"] == "too_short" and any(i[: len(place)] == place for i in inside)


def field_path(location: tuple[int | str, ...]) -> str:
    """('classes', 0, 'threshold') -> classes[0].threshold"""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "policy"


def line_of(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """The line of the deepest node on the way to a field; a missing field has its parent's."""
    if node is None:
        return 1
    child: yaml.Node | None = None
    if location:
        head = location[0]
        if isinstance(node, yaml.MappingNode):
            child = next((v for k, v in node.value if k.value == head), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(head, int):
            child = node.value[head] if head < len(node.value) else None
    return int(node.start_mark.line) + 1 if child is None else line_of(child, location[1:])
