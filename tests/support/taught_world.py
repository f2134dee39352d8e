"""Reviewed images of a class that its prompts name badly, with their vectors in the database."""

import hashlib
import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from sqlalchemy import insert
from sqlalchemy.orm import Session

from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.embeddings import keep_phrases, keep_vectors, register_encoder
from filter_service.db.policies import load_policy, store_policy
from filter_service.db.tables import Batch, Item, StoredImage, StoredScore
from filter_service.images.views import View
from filter_service.policy import ForbiddenClass, Policy, Preservation
from filter_service.scoring import FloatArray, LogitScale, PolicyVectors, policy_vectors
from filter_service.verdicts import KnownVectors, Verdict

DIM = 64
FINGERPRINT = "ab" * 32
AXES = ("a gun", "a street", "a toy gun", "a knife", "a secret", "a cup", "a tree")
POLICY = Policy(
    name="tested",
    neutral=("a street",),
    classes=(
        ForbiddenClass(name="gun", prompts=("a gun",), threshold=0.6),
        ForbiddenClass(name="knife", prompts=("a knife",), threshold=0.8),
        ForbiddenClass(
            name="secret", prompts=("a secret",), threshold=0.8, sealed=Preservation(days=9)
        ),
    ),
)


def encode(texts: Sequence[str]) -> FloatArray:
    """Each text an axis of its own: (n, d)."""
    return np.eye(DIM, dtype=np.float32)[[AXES.index(text) for text in texts]]


@dataclass(frozen=True)
class SimpleEncoder:
    """The encoder that is served, without a model."""

    id: int
    fingerprint: str = FINGERPRINT

    def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
        return self.id, policy_vectors(policy, encode, LogitScale(10.0))

    def identity(self) -> tuple[int, str]:
        return self.id, self.fingerprint


def pictures(seed: int, truths: npt.NDArray[np.bool_], tilt: float = 0.94) -> FloatArray:
    """Vectors of which those that show a gun mostly lie along "a toy gun": (n, d) unit."""
    rng = np.random.default_rng(seed)
    towards = math.sqrt(1 - tilt**2) * encode(["a gun"])[0] + tilt * encode(["a toy gun"])[0]
    z = rng.normal(size=(len(truths), DIM)) / 8 + 0.5 * truths[:, None] * towards
    return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class TaughtWorld:
    """What stands in the database."""

    policy_id: int
    encoder: SimpleEncoder
    images: list[int]
    items: list[int]
    vectors: FloatArray


def reviewed_pictures(
    session: Session,
    vectors: FloatArray,
    truths: npt.NDArray[np.bool_],
    policy: Policy = POLICY,
    source: LabelSource = LabelSource.FLAG,
) -> TaughtWorld:
    """Pictures with their margins for guns and what people found."""
    policy_id = store_policy(session, policy)
    encoder = SimpleEncoder(register_encoder(session, FINGERPRINT, "tested", DIM, {}))
    keep_phrases(session, encoder.id, dict(zip(AXES[2:], encode(AXES[2:]), strict=True)))
    names = [
        hashlib.sha256(v.tobytes() + bytes([i % 256])).hexdigest() for i, v in enumerate(vectors)
    ]
    added = insert(StoredImage).returning(StoredImage.id, sort_by_parameter_order=True)
    images = (
        list(session.scalars(added, [{"digest": d, "bytes": 1} for d in names])) if names else []
    )
    known = {
        i: KnownVectors(v[None], (View(),), (True,)) for i, v in zip(images, vectors, strict=True)
    }
    keep_vectors(session, encoder.id, known)
    class_id = load_policy(session, policy_id).class_ids["gun"]
    if images:
        margins = encoder.policy(policy)[1].classes[0].margins(vectors).tolist()
        about = {"encoder_id": encoder.id, "class_id": class_id, "frame": 0, "exact": True}
        scores = [
            {"image_id": i, "margin": m, **about} for i, m in zip(images, margins, strict=True)
        ]
        session.execute(insert(StoredScore), scores)
    items = _items(session, policy_id, encoder.id, class_id, images)
    chance = 1.0 if source is LabelSource.FLAG else None
    found = zip(images, truths.tolist(), items, strict=True)
    labels.keep(session, [ClassLabel(i, "gun", t, source, chance, n) for i, t, n in found])
    return TaughtWorld(policy_id, encoder, images, items, vectors)


def _items(
    session: Session, policy_id: int, encoder_id: int, class_id: int, images: Sequence[int]
) -> list[int]:
    """One flagged item of each image, of a new batch."""
    batch = Batch(id=uuid.uuid4(), policy_id=policy_id, label="", priority=0)
    session.add(batch)
    session.flush()
    about = {"batch_id": batch.id, "source": "", "verdict": Verdict.FLAGGED, "margin": 1.0}
    judged = {"encoder_id": encoder_id, "class_id": class_id, "judged_at": datetime.now(UTC)}
    rows = [{"image_id": image, **about, **judged} for image in images]
    added = insert(Item).returning(Item.id, sort_by_parameter_order=True)
    return list(session.scalars(added, rows)) if rows else []
