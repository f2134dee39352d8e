"""What a change would do: the same answers as the judge's, wherever the vectors lie."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sqlalchemy import Engine, insert, select, text

from filter_service.db.embeddings import known_vectors, register_encoder
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, StoredImage
from filter_service.images.views import View
from filter_service.policy import Calibration, ForbiddenClass, Policy, Preservation
from filter_service.rollout import stored_vectors
from filter_service.rollout.policy_comparison import (
    EXAMPLES,
    Contrast,
    FlagCounts,
    PolicyComparison,
)
from filter_service.rollout.stored_vectors import ComparisonScope, compare
from filter_service.scoring import (
    ClassVectors,
    FloatArray,
    LearntDirection,
    LogitScale,
    PolicyVectors,
)
from filter_service.verdicts import Verdict, judge, score, threshold_margin

DIM, COUNT = 32, 3_000
LOGIT_SCALES = {
    "softmax": LogitScale(100.0),
    "sigmoid": LogitScale(100.0, bias=-10.0, sigmoid=True),
}


def unit(rows: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def version(
    logit_scale: LogitScale,
    names: Sequence[str],
    offset: float,
    seed: int = 1,
    learnt: Sequence[str] = (),
    certain: float | None = None,
) -> PolicyVectors:
    """Classes called so, each the same in every version; the offset moves their thresholds.

    Those that learnt have a head.
    """
    rng = np.random.default_rng(seed)
    neutral = unit(rng.standard_normal((3, DIM)))
    classes, forbidden = [], []
    for name in names:
        prompts = unit(np.random.default_rng(sum(name.encode())).standard_normal((4, DIM)))
        none = np.zeros((0, DIM), np.float32)
        head = LearntDirection(30 * prompts[1] - 20 * prompts[0], 3.0) if name in learnt else None
        against = none if logit_scale.sigmoid else neutral
        classes.append(ClassVectors(name, prompts, against, logit_scale, head))
        calibration = Calibration(a=0.7, b=-8 - offset)
        forbidden.append(
            ForbiddenClass(
                name=name,
                prompts=("a",),
                threshold=0.6,
                certain=certain,
                calibration=calibration,
            )
        )
    policy = Policy(name="house", neutral=("b",), classes=tuple(forbidden))
    return PolicyVectors(policy, tuple(classes))


def keep(
    sessions: Sessions, vectors: FloatArray, frames: Sequence[int] = (), every: int = 1
) -> int:
    """Images with these vectors, `frames` of each; every so many-th has its float32 form."""
    counts = frames or [1] * len(vectors)
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "test", DIM, {})
        rows = [{"digest": f"{i:064x}", "bytes": 1} for i in range(len(counts))]
        ids = session.scalars(insert(StoredImage).returning(StoredImage.id), rows).all()
        places = [(i, f) for i, n in zip(ids, counts, strict=True) for f in range(n)]
        session.execute(
            insert(Embedding),
            [
                {
                    "encoder_id": encoder,
                    "image_id": image,
                    "frame": frame,
                    "vector": v,
                    "exact_vector": v if n % every == 0 else None,
                }
                for n, ((image, frame), v) in enumerate(zip(places, vectors, strict=True))
            ],
        )
    return encoder


def judged(sessions: Sessions, encoder: int, sides: Sequence[PolicyVectors]) -> PolicyComparison:
    """By brute force: every image through the judge's own arithmetic, one after the other."""
    with sessions.begin() as session:
        known = known_vectors(session, encoder, session.scalars(select(StoredImage.id)).all())
    total, classes = (
        FlagCounts(),
        dict.fromkeys((n.name for s in sides for n in s.classes), FlagCounts()),
    )
    for v in known.values():
        scores = [score(s.margins(v.vectors), v.views, v.exact, s.policy) for s in sides]
        flags = [judge(s) is Verdict.FLAGGED for s in scores]
        total += counted(*flags)
        named = [{s.class_name for s in side if s.flagged} for side in scores]
        for name in classes:
            classes[name] += counted(*(name in side for side in named))
    views = sum(len(v.vectors) for v in known.values())
    return PolicyComparison(len(known), views, total, classes)


def counted(old: bool, new: bool) -> FlagCounts:
    return FlagCounts(int(old and new), int(old and not new), int(new and not old))


def near_thresholds(sides: Sequence[PolicyVectors], n: int) -> FloatArray:
    """Vectors moved along one class's gradient until they lie on its threshold, nearly: (n, d)."""
    rng = np.random.default_rng(7)
    found = []
    for i in range(n):
        side = sides[i % 2]
        c = i // 2 % len(side.classes)
        place, forbidden = side.classes[c], side.policy.classes[c]
        assert forbidden.calibration is not None
        wanted = threshold_margin(forbidden)
        z = unit(rng.standard_normal(DIM).astype(np.float32))
        for _ in range(30):
            off = wanted + 1e-4 * rng.standard_normal() - place.margins(z[None])[0]
            direction = place.direction(z)
            z = unit(z + 0.5 * off * direction / (direction @ direction))
        found.append(z)
    return np.stack(found)


@pytest.mark.parametrize("logit_scale", LOGIT_SCALES.values(), ids=LOGIT_SCALES)
@pytest.mark.parametrize(("every", "learnt"), [(1, ()), (3, ()), (3, ("gun",))])
def test_the_counts_are_those_of_the_judge(
    sessions: Sessions,
    logit_scale: LogitScale,
    every: int,
    learnt: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides = (
        version(logit_scale, ["gun", "knife", "fire"], 0),
        version(logit_scale, ["knife", "gun", "mask"], 2, learnt=learnt),
    )
    anywhere = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)))
    vectors = np.concatenate([near_thresholds(sides, 200), anywhere.astype(np.float32)])
    encoder = keep(sessions, vectors, every=every)
    monkeypatch.setattr(stored_vectors, "PIECE", 500)  # several pieces, for both threads
    found, expected = (
        compare(sessions, ComparisonScope(encoder, *sides)),
        judged(sessions, encoder, sides),
    )
    assert (found.images, found.vectors) == (expected.images, expected.vectors)
    assert found.total == expected.total
    assert found.classes == expected.classes
    assert min(found.total.both, found.total.only_old, found.total.only_new) > 10
    assert 100 < found.again < COUNT  # the band holds what lies near, and not everything
    assert (found.unsure > 0) == (every > 1)


def test_flags_that_act_by_themselves_are_counted(sessions: Sessions) -> None:
    """As the judge has them, the nearest to either threshold, too."""
    logit_scale = LOGIT_SCALES["softmax"]
    sides = (
        version(logit_scale, ["gun", "knife"], 0),
        version(logit_scale, ["knife", "gun"], 2, certain=0.9),
    )
    raised = [  # so that what is moved onto a threshold lies on the second one
        PolicyVectors(
            s.policy.model_copy(
                update={
                    "classes": tuple(
                        c.model_copy(update={"threshold": c.certain or c.threshold})
                        for c in s.policy.classes
                    )
                }
            ),
            s.classes,
        )
        for s in sides
    ]
    anywhere = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)))
    near = np.concatenate([near_thresholds(sides, 100), near_thresholds(raised, 100)])
    vectors = np.concatenate([near, anywhere.astype(np.float32)])
    encoder = keep(sessions, vectors)
    found = compare(sessions, ComparisonScope(encoder, *sides))
    expected = judged(sessions, encoder, raised)
    assert found.acting.old == 0  # none of its classes can
    assert found.acting.new == expected.total.new > 10
    assert found.acting_classes == {
        name: FlagCounts(only_new=c.new) for name, c in expected.classes.items()
    }
    assert found.classes == judged(sessions, encoder, sides).classes


def test_each_class_is_contrasted_with_its_own_of_very_many_neutral_prompts() -> None:
    """Long lists that begin and end alike were once taken for one: numpy writes only their ends."""
    rng, logit_scale = np.random.default_rng(5), LOGIT_SCALES["softmax"]
    every = unit(rng.standard_normal((1_200, DIM)))
    neutral = [every, *(every.copy() for _ in range(2))]
    for replaced in neutral[1:]:
        replaced[100:1_100] = unit(rng.standard_normal((1_000, DIM)))
    prompts = unit(rng.standard_normal((2, DIM)))
    classes = tuple(ClassVectors(f"c{i}", prompts, n, logit_scale) for i, n in enumerate(neutral))
    forbidden = [ForbiddenClass(name=c.name, prompts=("a", "b"), threshold=0.5) for c in classes]
    policy = Policy(name="house", neutral=("n",), classes=tuple(forbidden))
    side = PolicyVectors(policy, classes)
    vectors = unit(prompts[:1] + 0.3 * rng.standard_normal((500, DIM))).astype(np.float32)
    found = Contrast(side, side).compare(
        np.arange(500), vectors, lambda rows: (vectors[rows], np.ones(len(rows), np.bool_))
    )
    flagged = (side.margins(vectors) >= 0).sum(axis=0)
    assert len(set(flagged)) == 3
    assert [c.both for c in found.classes.values()] == flagged.tolist()


def test_an_image_is_what_its_worst_frame_is(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides = (
        version(LOGIT_SCALES["softmax"], ["gun"], 0),
        version(LOGIT_SCALES["softmax"], ["gun"], 5),
    )
    frames = [1 + i % 4 for i in range(400)]
    vectors = unit(np.random.default_rng(3).standard_normal((sum(frames), DIM)).astype(np.float32))
    encoder = keep(sessions, vectors, frames)
    monkeypatch.setattr(stored_vectors, "PIECE", 7)  # so that images end in the midst of pieces
    found, expected = (
        compare(sessions, ComparisonScope(encoder, *sides)),
        judged(sessions, encoder, sides),
    )
    assert (found.images, found.vectors) == (400, sum(frames))
    assert (found.total, found.classes) == (expected.total, expected.classes)
    assert found.total.only_old > 5


def test_examples_are_the_furthest_ones(sessions: Sessions) -> None:
    sides = (
        version(LOGIT_SCALES["softmax"], ["gun"], 0),
        version(LOGIT_SCALES["softmax"], ["gun"], 9),
    )
    vectors = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)).astype(np.float32))
    encoder = keep(sessions, vectors)
    found = compare(sessions, ComparisonScope(encoder, *sides))
    margins = [s.margins(vectors)[:, 0] for s in sides]
    wanted = [(m - (np.log(1.5) + 8 + o) / 0.7) for m, o in zip(margins, (0, 9), strict=True)]
    lost = np.where((wanted[0] >= 0) & (wanted[1] < 0), wanted[0], -np.inf)
    best = np.argsort(-lost)[:EXAMPLES]
    assert [c.above for c in found.lost] == pytest.approx(lost[best], abs=1e-2)
    assert all(c.other < 0 for c in found.lost)
    assert not found.gained


def test_no_example_shows_what_is_sealed(sessions: Sessions) -> None:
    old, new = (
        version(LOGIT_SCALES["softmax"], ["gun"], 9),
        version(LOGIT_SCALES["softmax"], ["gun"], 0),
    )
    vectors = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)).astype(np.float32))
    encoder = keep(sessions, vectors)
    assert compare(sessions, ComparisonScope(encoder, old, new)).gained
    gun = new.policy.classes[0].model_copy(update={"sealed": Preservation(days=9)})
    sealed = PolicyVectors(new.policy.model_copy(update={"classes": (gun,)}), new.classes)
    found = compare(sessions, ComparisonScope(encoder, old, sealed))
    assert found.total.only_new > 0
    assert not found.gained


def test_no_example_shows_what_somebody_may_not_see(sessions: Sessions) -> None:
    old, new = (version(LOGIT_SCALES["softmax"], ["gun", "mask"], offset) for offset in (9, 0))
    vectors = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)).astype(np.float32))
    asked = ComparisonScope(keep(sessions, vectors), old, new, hidden=frozenset({"gun"}))
    found = compare(sessions, asked)
    assert len(found.gained) == EXAMPLES  # of those that they may see, and so not fewer
    assert {c.class_name for c in found.gained} == {"mask"}


def test_what_the_judge_would_encode_again_is_unsure(sessions: Sessions) -> None:
    side = version(LOGIT_SCALES["softmax"], ["gun"], 0)
    vectors = unit(np.random.default_rng(3).standard_normal((COUNT, DIM)).astype(np.float32))
    encoder = keep(sessions, vectors, every=2)
    wide = replace(side, bands=np.array([2.0]))
    screened = side.margins(vectors[1::2])[:, 0]
    within = np.abs(screened - (np.log(1.5) + 8) / 0.7) < 2
    found = compare(sessions, ComparisonScope(encoder, side, wide))
    assert found.unsure == pytest.approx(int(within.sum()), abs=3)
    assert compare(sessions, ComparisonScope(encoder, side, side)).unsure < found.unsure


def test_only_the_newest_are_looked_at(sessions: Sessions) -> None:
    side = version(LOGIT_SCALES["softmax"], ["gun"], 0)
    vectors = unit(np.random.default_rng(3).standard_normal((90, DIM)).astype(np.float32))
    encoder = keep(sessions, vectors)
    found = compare(sessions, ComparisonScope(encoder, side, side, most=40))
    assert found.vectors == 40
    assert found.total == judged_newest(side, vectors[-40:])


def judged_newest(side: PolicyVectors, vectors: FloatArray) -> FlagCounts:
    flagged = [judge(score(side.margins(z[None]), [View()], [True], side.policy)) for z in vectors]
    return FlagCounts(both=sum(f is Verdict.FLAGGED for f in flagged))


def test_nothing_stored_is_nothing_changed(sessions: Sessions) -> None:
    side = version(LOGIT_SCALES["softmax"], ["gun"], 0)
    assert compare(sessions, ComparisonScope(1, side, side)).images == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_half_is_widened_as_numpy_would(order: str) -> None:
    numbers = np.arange(65_536, dtype=np.uint16).view(np.float16)
    finite = numbers[np.isfinite(numbers)].reshape(-1, 2)
    halves = finite.astype(f"{order}f2").view(f"{order}i2")
    assert np.array_equal(widened(halves), finite.astype(np.float32))


@pytest.mark.parametrize("form", [stored_vectors._RAW, stored_vectors._SENT])
def test_halves_come_from_the_database_as_they_were_written(
    sessions: Sessions, form: stored_vectors._Form
) -> None:
    query = f"SELECT {form.vector} FROM (SELECT '[0.333,-2]'::halfvec AS vector)"
    with sessions.begin() as session:
        found = session.scalar(text(query))
    read = widened(np.frombuffer(found, form.halves, offset=4)[None])
    assert read.tolist() == [[float(np.float16(0.333)), -2.0]]


def test_the_quickest_form_is_taken_only_where_the_server_casts_so(
    sessions: Sessions, owner: Engine
) -> None:
    assert stored_vectors._quickest(sessions) is stored_vectors._RAW
    with owner.begin() as connection:
        connection.execute(text("DROP CAST (halfvec AS bytea)"))
    assert stored_vectors._quickest(sessions) is stored_vectors._SENT


def widened(halves: np.ndarray[Any, np.dtype[np.int16]]) -> FloatArray:
    into = np.empty(halves.shape, np.int32)
    stored_vectors._widen(halves, into)
    return into.view(np.float32)
