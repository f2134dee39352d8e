"""Matches missing payloads with the entries that record their erasure."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from filter_service.ledger.verification.contents import OVERLAP


@dataclass(slots=True)
class Erasures:
    """Matches payloads in one pass, remembering only items of which something was erased."""

    explained: int = 0
    unproven: int = 0  # only an entry that is not sealed says why
    _last: dict[int, datetime] = field(default_factory=dict)  # when an item was erased
    _waiting: dict[int, datetime] = field(default_factory=dict)  # likewise, not sealed
    _open: dict[int, list[tuple[datetime, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    @property
    def unexplained(self) -> list[tuple[int, str]]:
        """Lines and names of the entries whose payload is gone and no entry says why."""
        return sorted((number, name) for some in self._open.values() for _, number, name in some)

    def erased(self, entry: dict[str, Any], sealed: bool) -> None:
        """An entry says that its item was erased."""
        item, at = entry["item"], datetime.fromisoformat(entry["at"])
        (self._last if sealed else self._waiting)[item] = at
        some = self._open.pop(item, [])
        late = [one for one in some if one[0] - at > OVERLAP]
        if late:
            self._open[item] = late
        if sealed:
            self.explained += len(some) - len(late)
        else:
            self.unproven += len(some) - len(late)

    def missing(self, entry: dict[str, Any], number: int, name: str) -> None:
        """An entry has no payload."""
        item, at = entry["item"], datetime.fromisoformat(entry["at"])
        if item in self._last and at - self._last[item] <= OVERLAP:
            self.explained += 1
        elif item in self._waiting and at - self._waiting[item] <= OVERLAP:
            self.unproven += 1
        else:
            self._open[item].append((at, number, name))
