"""Sample results of the faithfulness test: passed, failed, and of schema 1."""

from filter_service.verdicts.faithfulness import Drops, FirstProof, Proof


def drops(marked: float, *random: float, whole: float = 5.0) -> Drops:
    """The same without a tenth and a fifth of the places."""
    return Drops(
        marked=(marked, marked),
        least=(0.0, 0.0),
        random=tuple((d, d) for d in random),
        whole=whole,
        served=whole,
    )


def proof(marked: float = 4.0, next_marked: float | None = 1.0) -> Proof:
    """Of a map whose marked places cost so much, and so much of the next class's margin."""
    random = (0.1, 0.2, 0.3, 0.2)
    return Proof(
        explained_error=0.0,
        sum_error=0.0,
        shares=(0.1, 0.2),
        drops=drops(marked, *random),
        next_class=None if next_marked is None else "alcohol",
        next_drops=None if next_marked is None else drops(next_marked, *random),
    )


PASSED, FAILED = proof(), proof(0.1)
FIRST = FirstProof(
    explained_error=0.0,
    sum_error=0.0,
    top_drop=4.0,
    random_drops=(0.1, 0.2),
    fifth_drop=5.0,
    random_fifth_drops=(0.2, 0.3),
)
