"""The worker: sets up encoder, database and storage once per process, drains the queue."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import TYPE_CHECKING

from filter_service import moderation
from filter_service.db.embeddings import (
    has_phrases,
    index_grown,
    keep_phrases,
    register_encoder,
)
from filter_service.db.schema import require_current
from filter_service.db.screening_checks import keep_pairs, widening_of
from filter_service.db.session import connect, sessions_of
from filter_service.db.vectors import StoredMemory
from filter_service.errors import InvalidSettings
from filter_service.images import Limits
from filter_service.moderation import WorkerContext
from filter_service.settings import Settings
from filter_service.storage import Storage

if TYPE_CHECKING:
    from filter_service.pipeline.subject import Subject


class Worker:
    """Drains the queue of one database with one encoder, which is loaded when there is work."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSettings, DatabaseUnavailable or DatabaseOutdated."""
        if settings.database_url is None:
            raise InvalidSettings(
                "FILTER_SERVICE_DATABASE_URL is not set: set it, or start the worker with "
                "`filter-service up`, which brings its own database."
            )
        self.settings = settings
        self._engine = connect(settings.database_url)
        require_current(self._engine)
        self.sessions = sessions_of(self._engine)

    def close(self) -> None:
        """End its connections."""
        self._engine.dispose()

    @cached_property
    def desk(self) -> "WorkerContext[Subject]":
        """With the encoder on it, which takes seconds and the most of the memory.

        Raises NotExplainable for a model whose flags could not be explained.
        """
        # torch: not before there is work
        from filter_service.encoder import encoder_of, phrases
        from filter_service.explain.relevance import explainer_of
        from filter_service.pipeline.served_judge import ServedJudge

        s = self.settings
        encoder = encoder_of(s)
        explainer_of(encoder)  # or no flag could be explained
        with self.sessions.begin() as session:
            encoder_id = register_encoder(
                session, encoder.fingerprint, encoder.name, encoder.dim, encoder.details
            )
            new_here = not has_phrases(session, encoder_id)
            encoder.check.widen(widening_of(session, encoder_id))
        if new_here:
            bank = phrases()
            vectors = encoder.encode_texts(bank)  # (n, d)
            with self.sessions.begin() as session:
                keep_phrases(session, encoder_id, dict(zip(bank, vectors, strict=True)))
        memory = StoredMemory(self.sessions, encoder_id, encoder.dim, encoder.logit_scale.factor)
        return WorkerContext(
            sessions=self.sessions,
            storage=Storage(s.images_at),
            judge=ServedJudge(
                encoder,
                Limits.of(s),
                [memory],
                s.coverage,
                report=partial(keep_pairs, self.sessions, encoder_id),
            ),
            encoder_id=encoder_id,
            batch_size=s.batch_size,
            decode_threads=s.decode_threads,
            lease_seconds=s.lease_seconds,
        )

    def drain(self, stop: Callable[[], bool], notify_workers: Callable[[], object]) -> int:
        """Judge what is queued (see `moderation.drain`); how many items."""
        with self.sessions.begin() as session:
            if not moderation.has_work(session):
                return 0
        return moderation.drain(self.desk, stop, self.settings.drain_seconds, notify_workers)

    def index(self) -> int:
        """Build the search indexes that have come to pay; how many."""
        with self.sessions.begin() as session:
            return index_grown(session)
