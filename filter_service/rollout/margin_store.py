"""Keeps the margins of edited classes in memory for a while, so that a slider answers at once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from filter_service.calibration import labels
from filter_service.canonical import canonical, text_digest
from filter_service.rollout.class_margins import EditedClass

KEPT = 48  # classes: some 1 MB each
FRESH = 300.0  # seconds; what is judged and decided meanwhile is seen afterwards

T = TypeVar("T")


@dataclass
class MarginStore(Generic[T]):
    """What was made for a key, the least lately asked for going first; made once at a time."""

    most: int = KEPT
    fresh: float = FRESH
    _found: OrderedDict[str, tuple[float, T]] = field(default_factory=OrderedDict)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _making: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str, make: Callable[[], T]) -> T:
        """What is kept, or what is made now; another one's error is nobody else's."""
        if (known := self._known(key)) is not None:
            return known
        with self._making:  # each reads megabytes and takes a core
            if (known := self._known(key)) is not None:
                return known
            made = make()
        with self._turn:
            self._found[key] = time.monotonic(), made
            while len(self._found) > self.most:
                self._found.popitem(last=False)
        return made

    def _known(self, key: str) -> T | None:
        with self._turn:
            at, known = self._found.get(key, (0.0, None))
            if known is None or time.monotonic() - at > self.fresh:
                return None
            self._found.move_to_end(key)
            return known


def key_of(asked: EditedClass) -> str:
    """The same for all edits that give the same margins, whatever their thresholds."""
    parts: list[object] = [asked.policy.name, asked.name, labels.words_of(asked.policy, asked.name)]
    if asked.active is not None and asked.active_name is not None:
        words = labels.words_of(asked.active, asked.active_name)
        parts += [asked.active.name, asked.active_name, words]
    return text_digest(canonical(parts))
