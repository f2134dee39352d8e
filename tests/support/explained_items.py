"""Stores items with real pictures and hand-made explanations, without any model."""

import io
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from PIL import Image as Pillow
from sqlalchemy import func, insert, select

from filter_service.db.embeddings import keep_vectors, register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch, Item, PolicyClass, StoredExplanation, StoredImage
from filter_service.images import digest
from filter_service.images.views import View
from filter_service.policy import Policy
from filter_service.scoring import FloatArray
from filter_service.storage import Storage
from filter_service.verdicts import KnownVectors, Verdict
from filter_service.verdicts.explanation import Explanation
from tests.support.review_cases import POLICY

FINGERPRINT = "cd" * 32
DIM = 4
PREPROCESSING = {"size": [64, 64], "resize_mode": "squash"}


@dataclass(frozen=True)
class Pictured:
    """An item to be made."""

    data: bytes | None  # None: its file could not be read
    verdict: Verdict | None = Verdict.FLAGGED
    class_name: str = "gun"
    records: Mapping[str, Explanation] = field(default_factory=dict)  # by class
    vector: Sequence[float] | None = None  # (DIM,) of its frame 0
    reason: str | None = None
    keep: bool = True  # the bytes, in the storage


def coloured(
    colour: tuple[int, int, int] = (200, 120, 40),
    size: tuple[int, int] = (320, 160),
    form: str = "JPEG",
    **options: object,
) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Pillow.new("RGB", size, colour).save(file, form, **options)
    return file.getvalue()


def noisy(seed: int, size: tuple[int, int] = (320, 160)) -> bytes:
    """A picture with detail everywhere."""
    pixels = np.random.default_rng(seed).integers(256, size=(*size[::-1], 3), dtype=np.uint8)
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def stored(sessions: Sessions, storage: Storage, *items: Pictured) -> list[int]:
    """Items of one batch as workers leave them; -> their ids."""
    with sessions.begin() as session:
        encoder = register_encoder(
            session, FINGERPRINT, "simple", DIM, {"preprocessing": PREPROCESSING}
        )
        policy = store_policy(session, POLICY)
        batch = Batch(id=uuid.uuid4(), policy_id=policy, label="", priority=0, total=len(items))
        session.add(batch)
        session.flush()
        of_policy = select(PolicyClass.name, PolicyClass.id).where(PolicyClass.policy_id == policy)
        classes = dict(session.execute(of_policy).all())
        ids = []
        for number, wanted in enumerate(items):
            judged = wanted.verdict in (Verdict.FLAGGED, Verdict.CLEAR)
            image = None
            if wanted.data is not None:
                name = digest(wanted.data)
                if wanted.keep:
                    storage.put(name, wanted.data)
                image = session.scalar(select(StoredImage.id).where(StoredImage.digest == name))
                image = (
                    image
                    or session.scalars(
                        insert(StoredImage)
                        .values(digest=name, bytes=len(wanted.data))
                        .returning(StoredImage.id)
                    ).one()
                )
            row = {
                "batch_id": batch.id,
                "image_id": image,
                "source": f"{number}.jpg",
                "verdict": wanted.verdict,
                "reason": wanted.reason,
                "judged_at": datetime.now(UTC) if wanted.verdict else None,
                "encoder_id": encoder if judged else None,
                "class_id": classes[wanted.class_name] if judged else None,
                "margin": 2.0 if judged else None,
                "probability": 0.9 if judged else None,
            }
            item = session.scalars(insert(Item).values(**row).returning(Item.id)).one()
            ids.append(item)
            if wanted.vector is not None and image is not None:
                keep_vectors(session, encoder, {image: _known(wanted.vector)})
            for name, record in wanted.records.items():
                explanation = {
                    "item_id": item,
                    "class_id": classes[name],
                    "encoder_id": encoder,
                    "faithful": record.faithful,
                    "record": record.model_dump(mode="json"),
                    "created_at": func.now(),
                }
                session.execute(insert(StoredExplanation).values(**explanation))
        return ids


def encoder_of(sessions: Sessions, policy: Policy = POLICY) -> int:
    with sessions.begin() as session:
        return register_encoder(session, FINGERPRINT, "simple", DIM, {})


def _known(vector: Sequence[float]) -> KnownVectors:
    z: FloatArray = np.asarray([vector], dtype=np.float32)  # (1, d)
    z /= np.linalg.norm(z)
    return KnownVectors(z, (View(),), (True,))
