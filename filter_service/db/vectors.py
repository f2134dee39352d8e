"""Nearest-neighbour search over stored vectors, for images and phrases, with pgvector.

Two roads lead to the nearest image on one side of a threshold. Where few images lie on that side,
they are read one by one through the index on margins: exact, and quick because they are few. Where
many do, the HNSW index is walked from the query outwards until enough of them have been met.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pgvector import HalfVector, Vector
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from filter_service.db.embeddings import unit
from filter_service.db.scope import OPERATOR, Scope
from filter_service.db.session import Sessions
from filter_service.db.tables import Float16s, Float32s, PolicyClass, StoredPolicy
from filter_service.db.vector_queries import (
    AMONG_QUERY,
    EACH_QUERY,
    FEW_QUERY,
    MANY_QUERY,
    NEAR_QUERY,
    OWN_ONLY,
    PHRASES_QUERY,
    PLAN,
    SEARCH_QUERY,
)
from filter_service.images.views import View
from filter_service.policy import Policy
from filter_service.scoring import FloatArray
from filter_service.verdicts import Verdict, threshold_margin
from filter_service.verdicts.neighbours import Neighbour, Phrase

FEW = 10_000  # images of one side that are read one by one
OWN = 50_000  # images of one client, the newest, that are where walking meets too few of them
RERANKED = 20  # nearest by float16 that compete for the first place in float32


@dataclass(frozen=True, slots=True)
class VectorHit:
    """A stored image: its view that is nearest to what was looked for, and its cosine with it."""

    digest: str
    view: View
    similarity: float


@dataclass(frozen=True, slots=True)
class _Side:
    """The images of one encoder whose margin for one class lies beyond a bound."""

    encoder: int
    class_id: int
    class_name: str
    verdict: Verdict
    bound: float  # logits

    def sql(self, query: str, dim: int, few: int) -> str:
        """Numbers of ours are written out: a plan must know which partition and index it is for."""
        clear = self.verdict is Verdict.CLEAR
        return query.format(
            encoder=self.encoder,
            class_id=self.class_id,
            compared=_compared(self.verdict),
            order="DESC" if clear else "ASC",
            few=few,
            dim=dim,
            among="",
        )


class StoredMemory:
    """Everything one encoder has seen, as the explanations ask for it (`counterfactual.Memory`)."""

    def __init__(
        self, sessions: Sessions, encoder_id: int, dim: int, scale: float, few: int = FEW
    ) -> None:
        self._sessions = sessions
        self._encoder = encoder_id
        self._dim = dim
        self._few = few
        self._scale = scale  # of the encoder's logits: logits = scale * cosine
        self._classes: dict[tuple[str, str], int] = {}
        self._many: set[tuple[int, Verdict]] = set()  # sides only grow

    def images(
        self,
        z: FloatArray,
        *,
        policy: Policy,
        class_name: str,
        side: Verdict,
        beyond: float,
        limit: int,
    ) -> list[Neighbour]:
        """Images nearest to z, (d,) unit, that a policy would put on this side of a class.

        `beyond` is how far past the threshold's margin they lie, in logits.
        """
        threshold = threshold_margin(policy.forbidden(class_name))
        bound = threshold - beyond if side is Verdict.CLEAR else threshold + beyond
        with self._sessions.begin() as session:
            class_id = self._class(session, policy, class_name)
            if class_id is None:
                return []
            asked = _Side(self._encoder, class_id, class_name, side, bound)
            session.execute(PLAN)
            neighbours: list[Neighbour] = []
            if self._has_many(session, asked):
                neighbours = self._nearest(session, MANY_QUERY, asked, z, limit)
            if len(neighbours) < limit:  # few, or all far from z: those nearest to the boundary
                neighbours = self._nearest(session, FEW_QUERY, asked, z, limit)
        return neighbours

    def phrases(
        self, z: FloatArray, *, near: FloatArray, side: Verdict, level: float, limit: int
    ) -> list[Phrase]:
        """Wordings nearest to `near`, (d,) unit, whose logit with z lies on a side of `level`."""
        with self._sessions.begin() as session:
            rows = session.execute(
                text(PHRASES_QUERY.format(compared=_compared(side))),
                {
                    "encoder": self._encoder,
                    "scale": self._scale,
                    "z": Vector(z),
                    "level": level,
                    "near": Vector(near),
                    "limit": limit,
                },
            )
            return [Phrase(text=wording, vector=Float32s.parse(v)) for wording, v in rows]

    def search(self, z: FloatArray, limit: int, scope: Scope = OPERATOR) -> list[VectorHit]:
        """Images nearest to a vector of a text or an image, (d,) unit, each by its best view.

        Only those that somebody has items of.
        """
        views = limit
        while True:
            hits, met = self._views(z, views, scope)
            best: dict[str, VectorHit] = {}
            for hit in hits:
                best.setdefault(hit.digest, hit)
            if len(best) >= limit or met < views:
                return list(best.values())[:limit]
            views *= 4  # a few animations may hold all of the nearest

    def _views(self, z: FloatArray, limit: int, scope: Scope) -> tuple[list[VectorHit], int]:
        """Of so many nearest views those that are shown, nearest first; and how many were met."""
        asked = {"z": HalfVector(z), "limit": limit}
        own = {**asked, "client": scope.client_id}
        with self._sessions.begin() as session:
            session.execute(PLAN)
            if scope.everyone:
                met = self._met(session, SEARCH_QUERY, asked)
            else:
                met = self._met(session, SEARCH_QUERY, own, among=OWN_ONLY)
                if len(met) < limit:
                    met = self._met(session, EACH_QUERY, {**own, "own": OWN})
        hits = [
            VectorHit(bytes(d).hex(), View.parse(f, v), float(s))
            for d, f, v, s, open_ in met
            if open_
        ]
        return sorted(hits, key=lambda h: -h.similarity), len(met)

    def _met(
        self, session: Session, query: str, values: dict[str, Any], among: str = ""
    ) -> list[Any]:
        sql = query.format(encoder=self._encoder, dim=self._dim, among=among)
        return list(session.execute(text(sql), values))

    def _class(self, session: Session, policy: Policy, name: str) -> int | None:
        key = policy.digest, name
        if key not in self._classes:
            class_id = session.scalar(
                select(PolicyClass.id)
                .join(StoredPolicy)
                .where(StoredPolicy.digest == policy.digest, PolicyClass.name == name)
            )
            if class_id is None:
                return None
            self._classes[key] = class_id
        return self._classes[key]

    def _has_many(self, session: Session, side: _Side) -> bool:
        key = side.class_id, side.verdict
        if key not in self._many:
            query = """
                SELECT EXISTS (
                    SELECT FROM scores WHERE encoder_id = {encoder} AND class_id = {class_id}
                    AND margin {compared} :bound OFFSET {few}
                )
            """
            if session.scalar(text(side.sql(query, self._dim, self._few)), {"bound": side.bound}):
                self._many.add(key)
        return key in self._many

    def _nearest(
        self, session: Session, query: str, side: _Side, z: FloatArray, limit: int
    ) -> list[Neighbour]:
        rows = session.execute(
            text(side.sql(query, self._dim, self._few)),
            {
                "bound": side.bound,
                "class_name": side.class_name,
                "z": HalfVector(z),
                "limit": max(limit, RERANKED),
            },
        )
        neighbours = [_neighbour(*row) for row in rows]
        return sorted(neighbours, key=lambda n: -float(n.vector @ z))[:limit]


def near(
    session: Session, encoder_id: int, dim: int, z: FloatArray, limit: int
) -> dict[int, float]:
    """Images nearest to z, (d,) unit, by id, with their cosines; of `limit` views at most."""
    session.execute(PLAN)
    query = NEAR_QUERY.format(encoder=encoder_id, dim=dim, among="")
    return _cosines(session, query, {"z": HalfVector(z), "limit": limit})


def among(
    session: Session, encoder_id: int, z: FloatArray, images: Collection[int]
) -> dict[int, float]:
    """The cosines of these images with z, (d,) unit, by id; each is read."""
    query = AMONG_QUERY.format(encoder=encoder_id)
    return _cosines(session, query, {"z": HalfVector(z), "images": list(images)})


def _cosines(session: Session, query: str, values: dict[str, Any]) -> dict[int, float]:
    return {image: float(cosine) for image, cosine in session.execute(text(query), values)}


def _compared(side: Verdict) -> str:
    """How a margin or logit compares with its bound on this side."""
    return "<" if side is Verdict.CLEAR else ">="


def _neighbour(
    digest: bytes, half: bytes, exact: bytes | None, margin: float, decision: str | None
) -> Neighbour:
    return Neighbour(
        digest=bytes(digest).hex(),
        vector=unit(Float16s.parse(half)) if exact is None else Float32s.parse(exact),
        margin=margin,
        exact=exact is not None,
        decision=decision,
    )
