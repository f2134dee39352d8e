"""The report of a verification: faults, warnings, and counts of what was checked."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from heapq import heappush, heappushpop

from filter_service.ledger.verification.checks import CHECKS

LISTED = 20  # faults that a report names; the others are counted
KEPT = 1_000  # rows of one kind that are looked for, so as to be named


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one of the numbered checks."""

    number: int
    sentence: str
    broken: int | None  # places where it does not hold; None: nothing was there to check it with
    faults: tuple[str, ...]  # those of the report that are of this check


@dataclass(frozen=True, slots=True)
class VerificationReport:
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
    checks: tuple[CheckResult, ...]
    warnings: tuple[str, ...] = ()
    published: int = 0  # checkpoints outside the database; an export knows none of these
    explanations: int = 0  # whose text is what was committed to
    statements: int = 0  # of reasons, likewise
    policies: int = 0
    unproven: int = 0  # payloads and explanations that only an entry without a place excuses
    kept: int = 0  # checkpoints of whoever checks that the tree agrees with

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken == 0


@dataclass(slots=True)
class Faults:
    """Collects what is wrong, so that the first place in the tree can be told first.

    However many there are, and in whatever order they are found, only those first ones are kept.
    """

    count: int = 0
    _by_check: Counter[int] = field(default_factory=Counter)
    _found: list[tuple[float, int, str, int]] = field(default_factory=list)  # the last place on top

    def add(self, check: int, position: float, sentence: str) -> None:
        """Note where a check does not hold: at a position, or after all of them (`inf`)."""
        self.count += 1
        self._by_check[check] += 1
        fault = -position, -self.count, sentence, check
        if len(self._found) < LISTED:
            heappush(self._found, fault)
        else:
            heappushpop(self._found, fault)

    @property
    def first(self) -> tuple[str, ...]:
        """The first places."""
        return tuple(sentence for _, _, sentence, _ in sorted(self._found, reverse=True))

    def results(self, made: Collection[int]) -> tuple[CheckResult, ...]:
        """Of every check, also of those that were not made."""
        said = sorted(self._found, reverse=True)
        return tuple(
            CheckResult(
                number,
                sentence,
                self._by_check[number] if number in made or self._by_check[number] else None,
                tuple(fault for _, _, fault, check in said if check == number),
            )
            for number, sentence in CHECKS.items()
        )


def unproven(count: int) -> str:
    """What is to be said of things that only entries without a place excuse."""
    return (
        f"NOT PROVEN: {count:,} payloads or explanations are gone, and the entries that say why "
        "are not sealed: anybody can have put them there. Verify again once they are."
    )
