"""An app with one judged batch, in which every operation of the API finds something."""

import uuid

import numpy as np
from fastapi import FastAPI

from filter_service.db.embeddings import register_encoder
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.db.tables import Item
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from tests.support.explained_items import DIM, FINGERPRINT, Pictured, noisy, stored
from tests.support.explanation_records import record
from tests.support.web_clients import NullSeeker, web_service


class FixedSeeker(NullSeeker):
    """Looks for whatever one vector stands for."""

    def __init__(self, encoder_id: int) -> None:
        self._sought = QueryVector(encoder_id, np.array([1, 0, 0, 0], np.float32), 1.0)

    def text(self, text: str) -> QueryVector:
        return self._sought

    def image(self, data: bytes) -> QueryVector:
        return self._sought


def furnished(sessions: Sessions, storage: Storage) -> tuple[FastAPI, uuid.UUID]:
    """An app and its one judged batch: a flagged item, a clear one, one that is undetermined."""
    flagged, *_ = stored(
        sessions,
        storage,
        Pictured(noisy(1), records={"gun": record()}, vector=(1, 0, 0, 0)),
        Pictured(noisy(2), verdict=Verdict.CLEAR, vector=(0, 1, 0, 0)),
        Pictured(None, verdict=Verdict.UNDETERMINED, reason="gone"),
    )
    with sessions.begin() as session:
        batch = session.get_one(Item, flagged).batch_id
        encoder = register_encoder(session, FINGERPRINT, "simple", DIM, {})
    return create_app(web_service(sessions, storage, seeker=FixedSeeker(encoder))), batch
