"""Compares two versions of a policy field by field, for people to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel

from filter_service.policy import ForbiddenClass, Policy
from filter_service.policy.learnt_head import LearntHead

LABELS = {
    "on_failure": "what cannot be judged",
    "neutral": "contrasted with",
    "look_alikes": "look-alikes",
    "clause": "rule",
    "prompts": "prompts",
    "threshold": "threshold",
    "certain": "acts by itself from",
}
OF_POLICY = "as the policy says"  # a class that has none of its own
NONE = "none"


class Change(StrEnum):
    """What became of something from the old version to the new one."""

    SAME = "same"
    CHANGED = "changed"
    ADDED = "added"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class DiffValue:
    """One value of a field; a prompt among others, for example."""

    text: str
    change: Change


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One field, in both versions."""

    field: str
    old: tuple[DiffValue, ...]
    new: tuple[DiffValue, ...]

    @property
    def changed(self) -> bool:
        return any(part.change is not Change.SAME for part in (*self.old, *self.new))


@dataclass(frozen=True, slots=True)
class DiffSection:
    """A class, or what holds for all of them, with its fields."""

    name: str
    change: Change
    lines: tuple[DiffLine, ...]


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """Two versions side by side."""

    whole: DiffSection
    classes: tuple[DiffSection, ...]

    @property
    def count(self) -> int:
        """How many sections are not the same."""
        return sum(s.change is not Change.SAME for s in (self.whole, *self.classes))


def differ(old: Policy, new: Policy) -> PolicyDiff:
    """Everything that either version says; classes in the new order, then those that are gone."""
    before = {c.name: c for c in old.classes}
    after = {c.name: c for c in new.classes}
    names = [*after, *(name for name in before if name not in after)]
    whole = _lines(_fields(old, {"name", "classes"}), _fields(new, {"name", "classes"}))
    return PolicyDiff(
        DiffSection("", _change(whole), whole),
        tuple(_class(name, before.get(name), after.get(name)) for name in names),
    )


def read(policy: Policy) -> PolicyDiff:
    """One version in plain reading: nothing of it is changed."""
    return differ(policy, policy)


def _class(name: str, old: ForbiddenClass | None, new: ForbiddenClass | None) -> DiffSection:
    before = _fields(old, {"name"}) if old else {}
    after = _fields(new, {"name"}) if new else {}
    lines = _lines(before, after)
    if old is None or new is None:
        return DiffSection(name, Change.ADDED if old is None else Change.REMOVED, lines)
    return DiffSection(name, _change(lines), lines)


def _change(lines: Sequence[DiffLine]) -> Change:
    return Change.CHANGED if any(line.changed for line in lines) else Change.SAME


def _lines(
    old: Mapping[str, Sequence[str]], new: Mapping[str, Sequence[str]]
) -> tuple[DiffLine, ...]:
    lines = []
    for field in dict.fromkeys([*new, *old]):
        before, after = old.get(field, ()), new.get(field, ())
        lines.append(
            DiffLine(
                LABELS.get(field, field.replace("_", " ")),
                tuple(_part(text, after, Change.REMOVED) for text in before),
                tuple(_part(text, before, Change.ADDED) for text in after),
            )
        )
    return tuple(lines)


def _part(text: str, others: Sequence[str], otherwise: Change) -> DiffValue:
    return DiffValue(text, Change.SAME if text in others else otherwise)


def _fields(of: BaseModel, besides: set[str]) -> dict[str, tuple[str, ...]]:
    """What a version says, field by field, as people read it; what it leaves out is left out."""
    inherits = {"templates", "neutral"} if isinstance(of, ForbiddenClass) else set()
    fields: dict[str, tuple[str, ...]] = {}
    for name in type(of).model_fields:
        value = getattr(of, name)
        if name in besides:
            continue
        if value is None or value == "":
            fields[name] = (OF_POLICY,) if name in inherits else ()
        else:
            fields[name] = tuple(_texts(value))
    return {name: texts for name, texts in fields.items() if texts}


def _texts(value: Any) -> Sequence[str]:  # noqa: ANN401  (whatever a policy can hold)
    """Each entry of a list by itself, each field of what has fields as `field: value`."""
    if isinstance(value, LearntHead):
        return value.lines
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        texts = {k.replace("_", " "): ", ".join(_texts(v)) for k, v in value.items()}
        return [f"{k}: {text}" for k, text in texts.items() if text]
    if isinstance(value, list | tuple):
        return [", ".join(_texts(v)) if isinstance(v, BaseModel) else str(v) for v in value]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [str(value)]
