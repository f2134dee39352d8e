"""What was found: the places that are not as they were, and what was looked at."""

from dataclasses import dataclass, field

LISTED = 20  # faults that a report names; the others are counted
KEPT = 1_000  # of which these are chosen, the first places in the tree


@dataclass(frozen=True, slots=True)
class Report:
    """The result of looking at everything; `faults` is empty exactly if it is as it was sealed."""

    entries: int  # in the tree
    waiting: int  # entries that are not sealed yet
    erased: int  # payloads that were erased lawfully, their commitment intact
    checkpoints: int
    keys: tuple[str, ...]  # that signed, in their order
    keys_given: bool  # by whoever checks, and not taken from what is checked
    witnesses: dict[str, int]  # by key: the largest size that it has co-signed
    faults: tuple[str, ...]  # the first of them, each a sentence
    broken: int  # how many there are
    warnings: tuple[str, ...] = ()
    published: int = 0  # checkpoints outside the database; an export knows none of these
    explanations: int = 0  # whose text is what was committed to
    policies: int = 0

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken == 0


@dataclass(slots=True)
class Faults:
    """Collects what is wrong, so that the first place in the tree can be told first."""

    count: int = 0
    _found: list[tuple[float, str]] = field(default_factory=list)

    def add(self, position: float, sentence: str) -> None:
        """Note something that is wrong at a position, or after all of them (`inf`)."""
        self.count += 1
        if len(self._found) < KEPT:
            self._found.append((position, sentence))

    @property
    def first(self) -> tuple[str, ...]:
        """The first places."""
        return tuple(sentence for _, sentence in sorted(self._found, key=lambda f: f[0])[:LISTED])
