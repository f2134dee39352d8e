"""Neighbours from the store against brute force over the same vectors."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import Engine, insert, text

from filter_service.db.embeddings import (
    index_grown,
    keep_phrases,
    keep_vectors,
    known_vectors,
    register_encoder,
)
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredImage, StoredScore
from filter_service.db.vectors import StoredMemory
from filter_service.explain.counterfactual import Memory
from filter_service.explain.memory import ArrayMemory
from filter_service.images.views import View
from filter_service.policy import ForbiddenClass, Policy
from filter_service.scoring import ClassVectors, FloatArray, LogitScale, PolicyVectors
from filter_service.verdicts import KnownVectors, Verdict

DIM = 32
NUMBER = 3_000
POLICY = Policy(
    name="shop",
    neutral=("a photo",),
    classes=(ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.5),),
)
DIRECTION = np.eye(DIM, dtype=np.float32)[0]  # the margin is 10 times the first coordinate, less 3


@dataclass(frozen=True)
class Store:
    """Images in the database, and the same in memory."""

    encoder_id: int
    vectors: FloatArray  # (n, d) unit
    margins: FloatArray  # (n,)

    def nearest(self, z: FloatArray, side: Verdict, beyond: float, limit: int) -> list[str]:
        """Brute force: digests of the nearest on one side."""
        if side is Verdict.CLEAR:
            there = np.flatnonzero(self.margins < -beyond)
        else:
            there = np.flatnonzero(self.margins >= beyond)
        order = np.argsort(-(self.vectors[there] @ z))[:limit]
        return [name(int(i)) for i in there[order]]


def name(number: int) -> str:
    return f"{number:064x}"


def clustered(number: int, seed: int) -> FloatArray:
    """Vectors of low rank around some centres, as real embeddings are: (n, d) unit."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, DIM // 2))
    spread = centres[rng.integers(30, size=number)] + 0.4 * rng.normal(size=(number, DIM // 2))
    z = spread @ np.random.default_rng(0).normal(size=(DIM // 2, DIM))
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture
def store(sessions: Sessions) -> Store:
    return fill(sessions, clustered(NUMBER, seed=1))


def fill(sessions: Sessions, vectors: FloatArray) -> Store:
    margins = (10 * vectors @ DIRECTION - 3).astype(np.float32)
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "random", DIM, {})
        (class_id,) = load_policy(session, store_policy(session, POLICY)).class_ids.values()
        ids = list(
            session.scalars(
                insert(StoredImage).returning(StoredImage.id, sort_by_parameter_order=True),
                [{"digest": name(i), "bytes": 1} for i in range(len(vectors))],
            )
        )
        known = [KnownVectors(z[None], (View(),), (True,)) for z in vectors]
        keep_vectors(session, encoder, dict(zip(ids, known, strict=True)))
        score = {"encoder_id": encoder, "class_id": class_id, "frame": 0, "exact": True}
        session.execute(
            insert(StoredScore),
            [
                {**score, "image_id": image, "margin": float(m)}
                for image, m in zip(ids, margins, strict=True)
            ],
        )
    return Store(encoder, vectors, margins)


def memory(sessions: Sessions, store: Store, few: int = NUMBER) -> StoredMemory:
    return StoredMemory(sessions, store.encoder_id, DIM, scale=100.0, few=few)


def in_arrays(store: Store, phrases: dict[str, FloatArray]) -> ArrayMemory:
    """The same images and phrases without a database."""
    knife = ClassVectors(
        "knife",
        0.1 * DIRECTION[None],
        np.zeros((0, DIM), np.float32),
        LogitScale(100.0, -3.0, True),
    )
    return ArrayMemory(
        policy=PolicyVectors(POLICY, (knife,)),
        digests=[name(i) for i in range(len(store.vectors))],
        vectors=store.vectors,
        exact=np.ones(len(store.vectors), dtype=np.bool_),
        wordings=list(phrases),
        wording_vectors=np.stack(list(phrases.values())),
    )


def ask(
    memory: StoredMemory, z: FloatArray, side: Verdict, beyond: float = 0.0, limit: int = 5
) -> list[str]:
    found = memory.images(
        z, policy=POLICY, class_name="knife", side=side, beyond=beyond, limit=limit
    )
    return [n.digest for n in found]


def agreement(answer: Callable[[FloatArray], list[str]], store: Store, side: Verdict) -> float:
    """Share of queries whose nearest neighbour is the exact one."""
    queries = clustered(50, seed=2)
    hits = [answer(z)[:1] == store.nearest(z, side, 0.0, 1) for z in queries]
    return float(np.mean(hits))


@pytest.mark.parametrize("side", [Verdict.CLEAR, Verdict.FLAGGED])
def test_few_are_searched_exactly(sessions: Sessions, store: Store, side: Verdict) -> None:
    found = memory(sessions, store)
    assert agreement(lambda z: ask(found, z, side), store, side) == 1.0


@pytest.mark.parametrize("side", [Verdict.CLEAR, Verdict.FLAGGED])
def test_many_are_found_through_the_index(sessions: Sessions, store: Store, side: Verdict) -> None:
    with sessions.begin() as session:
        assert index_grown(session, at_least=NUMBER) == 1
    found = memory(sessions, store, few=10)
    assert agreement(lambda z: ask(found, z, side), store, side) >= 0.95


def test_neighbours_come_nearest_first(sessions: Sessions, store: Store) -> None:
    z = store.vectors[7]
    assert ask(memory(sessions, store), z, Verdict.CLEAR) == store.nearest(z, Verdict.CLEAR, 0, 5)


def test_neighbours_lie_as_far_beyond_the_threshold_as_asked(
    sessions: Sessions, store: Store
) -> None:
    z = store.vectors[7]
    found = ask(memory(sessions, store), z, Verdict.FLAGGED, beyond=0.3)
    assert found == store.nearest(z, Verdict.FLAGGED, 0.3, 5)


def test_a_vector_in_float32_comes_back_as_it_was(sessions: Sessions, store: Store) -> None:
    found = memory(sessions, store).images(
        store.vectors[7],
        policy=POLICY,
        class_name="knife",
        side=Verdict.CLEAR,
        beyond=0.0,
        limit=1,
    )
    number = int(found[0].digest, 16)
    assert found[0].exact
    assert np.array_equal(found[0].vector, store.vectors[number])


def test_a_policy_that_was_never_used_has_no_neighbours(sessions: Sessions, store: Store) -> None:
    other = Policy(name="other", neutral=POLICY.neutral, classes=POLICY.classes)
    found = memory(sessions, store).images(
        store.vectors[0],
        policy=other,
        class_name="knife",
        side=Verdict.CLEAR,
        beyond=0.0,
        limit=1,
    )
    assert found == []


@pytest.mark.parametrize("indexed", [False, True])
def test_an_image_finds_itself_first(sessions: Sessions, store: Store, indexed: bool) -> None:
    with sessions.begin() as session:
        index_grown(session, at_least=1 if indexed else NUMBER + 1)
    hits = memory(sessions, store).search(store.vectors[11], limit=3)
    assert hits[0].digest == name(11)
    assert hits[0].similarity == pytest.approx(1.0, abs=1e-3)


def test_the_index_is_built_once_and_only_when_it_pays(sessions: Sessions, store: Store) -> None:
    built = []
    for at_least in (NUMBER + 1, NUMBER, NUMBER):
        with sessions.begin() as session:
            built.append(index_grown(session, at_least))
    assert built == [0, 1, 0]


@pytest.mark.parametrize(("few", "index"), [(NUMBER, "scores_1_encoder"), (10, "nearest")])
def test_no_search_reads_a_whole_table(
    sessions: Sessions, owner: Engine, store: Store, few: int, index: str
) -> None:
    flush = text("SELECT pg_stat_force_next_flush()")
    with sessions.begin() as session:
        index_grown(session, at_least=1)
        session.execute(flush)
    with owner.begin() as connection:
        connection.execute(text("ANALYZE"))
    with owner.begin() as connection:
        connection.execute(text("SELECT pg_stat_reset()"))
    ask(memory(sessions, store, few), store.vectors[0], Verdict.CLEAR)
    scans = text("""
        SELECT seq_scan FROM pg_stat_user_tables WHERE relname IN ('embeddings_1', 'scores_1')
    """)
    used = text("""
        SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname LIKE :index
    """)
    with sessions.begin() as session:
        session.execute(flush)
    with owner.connect() as connection:
        assert list(connection.scalars(scans)) == [0, 0]
        assert connection.scalar(used, {"index": f"%{index}%"})


def test_kept_vectors_are_known(sessions: Sessions, store: Store) -> None:
    with sessions.begin() as session:
        known = known_vectors(session, store.encoder_id, [1, 2])
    assert known.keys() == {name(0), name(1)}
    assert np.array_equal(known[name(0)].vectors, store.vectors[:1])


def test_a_float32_vector_replaces_one_from_less(sessions: Sessions, store: Store) -> None:
    rough, fine = store.vectors[1][None], store.vectors[2][None]
    with sessions.begin() as session:
        encoder = register_encoder(session, "cd" * 32, "rough", DIM, {})
        keep_vectors(session, encoder, {1: KnownVectors(rough, (View(),), (False,))})
        keep_vectors(session, encoder, {1: KnownVectors(fine, (View(),), (True,))})
        keep_vectors(session, encoder, {1: KnownVectors(rough, (View(),), (False,))})
        known = known_vectors(session, encoder, [1])[name(0)]
    assert known.exact == (True,)
    assert np.array_equal(known.vectors, fine)


def test_an_encoder_is_registered_once(sessions: Sessions) -> None:
    with sessions.begin() as session:
        first = register_encoder(session, "ab" * 32, "one", DIM, {"a": 1})
    with sessions.begin() as session:
        assert register_encoder(session, "ab" * 32, "one", DIM, {"a": 1}) == first


@pytest.mark.parametrize("side", [Verdict.CLEAR, Verdict.FLAGGED])
@pytest.mark.parametrize("level", [20.0, -float("inf")])
def test_the_nearest_phrases_on_a_side_are_found(
    sessions: Sessions, store: Store, side: Verdict, level: float
) -> None:
    phrases = {f"phrase {i}": z for i, z in enumerate(clustered(40, seed=3))}
    with sessions.begin() as session:
        keep_phrases(session, store.encoder_id, phrases)
    z, near = store.vectors[0], phrases["phrase 5"]
    stored = memory(sessions, store).phrases(z, near=near, side=side, level=level, limit=3)
    logits = {p: 100.0 * float(v @ z) for p, v in phrases.items()}
    there = [p for p in phrases if (logits[p] >= level) == (side is Verdict.FLAGGED)]
    assert [p.text for p in stored] == sorted(there, key=lambda p: -float(phrases[p] @ near))[:3]


@pytest.mark.parametrize("side", [Verdict.CLEAR, Verdict.FLAGGED])
def test_a_memory_in_arrays_finds_what_the_store_finds(
    sessions: Sessions, store: Store, side: Verdict
) -> None:
    phrases = {f"phrase {i}": z for i, z in enumerate(clustered(40, seed=3))}
    with sessions.begin() as session:
        keep_phrases(session, store.encoder_id, phrases)
    both: list[Memory] = [memory(sessions, store), in_arrays(store, phrases)]
    for z in clustered(10, seed=4):
        stored, here = (
            m.phrases(z, near=phrases["phrase 5"], side=side, level=20.0, limit=4) for m in both
        )
        assert [p.text for p in stored] == [p.text for p in here]
        near, same = (
            m.images(z, policy=POLICY, class_name="knife", side=side, beyond=0.1, limit=4)
            for m in both
        )
        assert [n.digest for n in near] == [n.digest for n in same]
