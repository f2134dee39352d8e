"""The form of a policy in the editor: fields by name, from a document and back to one.

What the form does not show, such as statements of reasons, travels in a field of its own and comes
back as it was.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from filter_service.errors import InvalidRequest

LISTS = ("prompts", "look_alikes", "neutral", "templates")  # a line for each entry
NUMBERS = ("threshold", "certain")  # with a point or a comma
OF_CLASS = ("name", *NUMBERS, "severity", "clause", *LISTS)
OF_POLICY = ("name", "on_failure", "coverage", "partial", "neutral", "templates")
REST = "rest"  # of a class or of the policy: what the form does not show
MOST_CLASSES = 100

_CLASS_FIELD = re.compile(r"c(\d{1,3})-name")
_BREAKS = re.compile(r"\s*[\r\n]+\s*")

Place = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class ClassForm:
    """The fields of one class; numbers stay, whatever classes are taken out."""

    number: int
    was: str  # its name in the document that the form was filled from; empty: it is new
    values: Mapping[str, str]

    @property
    def prefix(self) -> str:
        return f"c{self.number}-"

    @property
    def name(self) -> str:
        return self.values["name"]


@dataclass(frozen=True, slots=True)
class PolicyForm:
    """A policy as somebody types it, right or wrong."""

    base: Mapping[str, Any]  # the document that it was filled from
    values: Mapping[str, str]
    classes: tuple[ClassForm, ...]

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Filled from a valid policy's document."""
        classes = [
            ClassForm(number, c["name"], {f: _shown(f, c.get(f)) for f in OF_CLASS})
            for number, c in enumerate(document["classes"])
        ]
        return cls(document, {f: _shown(f, document.get(f)) for f in OF_POLICY}, tuple(classes))

    @classmethod
    def empty(cls) -> Self:
        """From nothing, with one class to be written."""
        values = dict.fromkeys(OF_POLICY, "") | {"on_failure": "hold"}
        return cls({}, values, ()).with_class()

    @classmethod
    def sent(cls, fields: Mapping[str, str]) -> Self:
        """As a browser sends it; raises InvalidRequest where the form itself was tampered with."""
        numbers = sorted({int(m[1]) for f in fields if (m := _CLASS_FIELD.fullmatch(f))})
        classes = [
            ClassForm(
                n,
                fields.get(f"c{n}-was", ""),
                {f: _typed(fields.get(f"c{n}-{f}", "")) for f in OF_CLASS},
            )
            for n in numbers[: MOST_CLASSES + 1]
        ]
        values = {f: _typed(fields.get(f, "")) for f in OF_POLICY}
        return cls(_document(fields.get("base", "")), values, tuple(classes))

    def with_class(self) -> Self:
        """And an empty one after all others."""
        number = max((c.number for c in self.classes), default=-1) + 1
        values = dict.fromkeys(OF_CLASS, "") | {"threshold": "0.9", "severity": "medium"}
        return replace(self, classes=(*self.classes, ClassForm(number, "", values)))

    def without_class(self, number: int) -> Self:
        return replace(self, classes=tuple(c for c in self.classes if c.number != number))

    def document(self) -> dict[str, Any]:
        """What is typed, as a policy's document, which may be faulty."""
        known = {c["name"]: c for c in _classes(self.base)}
        classes = [_filled(known.get(c.was, {}), OF_CLASS, c.values) for c in self.classes]
        return _filled(self.base, OF_POLICY, self.values) | {"classes": classes}

    def field_of(self, place: Place) -> tuple[str, str]:
        """The field that a place of the document stands in, and how its line is called there."""
        if place[:1] != ("classes",) or len(place) == 1:
            return self._field("", self.values, OF_POLICY, place)
        found = self.classes[int(place[1])]
        return self._field(found.prefix, found.values, OF_CLASS, place[2:] or ("name",))

    @staticmethod
    def _field(
        prefix: str, values: Mapping[str, str], shown: tuple[str, ...], place: Place
    ) -> tuple[str, str]:
        if not place or place[0] not in shown:
            return f"{prefix}{REST}", ".".join(map(str, place))
        field = str(place[0])
        if len(place) == 1 or not isinstance(place[1], int):
            return prefix + field, ""
        lines = [n for n, line in enumerate(values[field].split("\n"), 1) if line.strip()]
        return prefix + field, f"line {lines[place[1]]}" if place[1] < len(lines) else ""


def _filled(
    base: Mapping[str, Any], shown: tuple[str, ...], values: Mapping[str, str]
) -> dict[str, Any]:
    """A part of the document: what the form does not show as it was, the rest as it is typed."""
    kept = {k: v for k, v in base.items() if k not in shown and v is not None}
    return kept | dict(_values(shown, values))


def _values(shown: tuple[str, ...], values: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Fields that say something; what is empty is left out, as in a file."""
    for field in shown:
        text = values[field]
        if field in LISTS:
            if lines := [line.strip() for line in text.split("\n") if line.strip()]:
                yield field, lines
        elif field in NUMBERS:
            if text.strip():
                yield field, text.strip().replace(",", ".")
        elif field == "clause":
            yield field, text
        elif text.strip():
            yield field, text.strip()


def _shown(field: str, value: Any) -> str:  # noqa: ANN401  (whatever a policy can hold)
    if value is None:
        return ""
    if field in LISTS:
        return "\n".join(_BREAKS.sub(" ", str(line)) for line in value)
    return str(value)


def _typed(text: str) -> str:
    """Browsers send the ends of lines as the net has them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _document(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise _changed() from error
    if not isinstance(found, dict) or not all(map(_is_class, _classes(found))):
        raise _changed()
    return found


def _classes(document: Mapping[str, Any]) -> list[Any]:
    found = document.get("classes", [])
    return found if isinstance(found, list) else [found]


def _is_class(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("name"), str)


def _changed() -> InvalidRequest:
    return InvalidRequest(
        "What the form was filled from did not come back as it was sent: open the editor again."
    )
