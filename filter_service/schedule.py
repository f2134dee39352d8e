"""Background jobs: settlement, webhooks, estimates, sealing, expiry, backfill and clean-up."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func

from filter_service.calibration import standing_estimates
from filter_service.db.schema import require_current
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import IdempotencyKey, Login, LoginFailure
from filter_service.errors import FilterServiceError, InvalidSettings
from filter_service.intake.abandoned_batches import close_abandoned
from filter_service.intake.fetch_queue import fetch_due
from filter_service.ledger.publication import seal_and_publish
from filter_service.retention import expire, sweep
from filter_service.reviews import report_cases
from filter_service.reviews.missing_cases import open_missing
from filter_service.reviews.settlement import settle
from filter_service.reviews.tallies import compact
from filter_service.rollout.drift_watch import watch
from filter_service.rollout.reevaluation import reconsider
from filter_service.rollout.shadow_run import PolicyTexts, run_shadows
from filter_service.settings import Settings
from filter_service.statements.issuance import issue_due
from filter_service.storage import Storage
from filter_service.webhooks import announce_finished
from filter_service.webhooks.delivery import deliver_due

KEPT = timedelta(days=1)  # failed log-ins, and the keys of requests that may be repeated

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScheduleContext:
    """What background jobs need: settings, database, image store, policies' texts."""

    settings: Settings
    sessions: Sessions
    storage: Storage
    notify_workers: Callable[[], object]
    stop: Callable[[], bool]
    texts: PolicyTexts


@dataclass(frozen=True, slots=True)
class Chore:
    """A background job that is run at an interval."""

    seconds: float  # between two times
    do: Callable[[ScheduleContext], int]  # -> how many
    said: str  # of so many


CHORES = {
    "settle": Chore(1, lambda p: settle(p.sessions), "%d decisions took effect."),
    "state": Chore(2, lambda p: issue_due(p.sessions), "%d statements were issued or withdrawn."),
    "close": Chore(60, lambda p: close_abandoned(p.sessions), "%d batches were cut short."),
    "announce": Chore(1, lambda p: announce_finished(p.sessions), "%d batches are finished."),
    "deliver": Chore(
        1, lambda p: deliver_due(p.sessions, p.settings, p.stop), "%d webhooks were delivered."
    ),
    "fetch": Chore(
        2,
        lambda p: fetch_due(p.sessions, p.storage, p.settings, p.notify_workers),
        "%d fetches were tried.",
    ),
    "seal": Chore(
        2, lambda p: seal_and_publish(p.sessions, p.settings), "%d checkpoints were published."
    ),
    "estimate": Chore(
        60,
        lambda p: standing_estimates.refresh(p.sessions, p.stop),
        "How right %d classes are was estimated.",
    ),
    "watch": Chore(60, lambda p: watch(p.sessions, p.stop), "%d classes have drifted."),
    "compact": Chore(60, lambda p: compact(p.sessions), "%d tallies were put together."),
    "expire": Chore(3600, lambda p: expire(p.sessions, p.stop), "%d images had their time."),
    "erase": Chore(
        10, lambda p: sweep(p.sessions, p.storage, p.stop), "The bytes of %d images are deleted."
    ),
    "open": Chore(
        3600, lambda p: open_missing(p.sessions, p.stop), "%d flags without a case have one now."
    ),
    "answer": Chore(
        60,
        lambda p: report_cases.follow_left(p.sessions, p.stop),
        "%d reported items were put before people or answered.",
    ),
    "reconsider": Chore(
        5,
        lambda p: reconsider(p.sessions, p.settings, p.notify_workers, p.stop),
        "%d items are judged anew or reopened.",
    ),
    "shadow": Chore(
        30,
        lambda p: run_shadows(p.sessions, p.texts, p.stop),
        "%d items were looked at by versions in the shadow.",
    ),
    "forget": Chore(3600, lambda p: forget(p.sessions), "%d expired log-ins and keys are gone."),
}


class Chores:
    """Runs background jobs in one process, each kind once at a time."""

    def __init__(
        self,
        settings: Settings,
        notify_workers: Callable[[], object],
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Raises InvalidSettings, DatabaseUnavailable or DatabaseOutdated."""
        if settings.database_url is None:
            raise InvalidSettings(
                "FILTER_SERVICE_DATABASE_URL is not set: set it, or start the chores with "
                "`filter-service up`, which brings its own database."
            )
        self._engine = connect(settings.database_url)
        try:
            require_current(self._engine)
        except BaseException:
            self.close()
            raise
        storage = Storage(settings.images_at)
        sessions = sessions_of(self._engine)
        self._place = ScheduleContext(
            settings, sessions, storage, notify_workers, stop, PolicyTexts(settings, sessions)
        )
        self._busy = {name: threading.Lock() for name in CHORES}

    def close(self) -> None:
        """End its connections."""
        self._engine.dispose()

    def do(self, name: str) -> int:
        """Do one chore; how many things were done, none while its last time is still at work.

        What goes wrong is said and forgotten: it is tried again soon, and the others go on.
        """
        if not self._busy[name].acquire(blocking=False):
            return 0
        try:
            done = CHORES[name].do(self._place)
        except FilterServiceError as error:
            logger.warning("The chore %r is put off. %s", name, error)
            return 0
        except Exception:  # the one door: whatever it is, the next time comes soon
            logger.exception("The chore %r failed; it will be tried again.", name)
            return 0
        finally:
            self._busy[name].release()
        if done:
            logger.info(CHORES[name].said, done)
        return done


def forget(sessions: Sessions) -> int:
    """Remove log-ins that have ended, old failures, and keys whose requests nobody repeats."""
    gone = (
        delete(Login).where(Login.expires_at < func.now()).returning(1),
        delete(LoginFailure).where(LoginFailure.at < func.now() - KEPT).returning(1),
        delete(IdempotencyKey).where(IdempotencyKey.created_at < func.now() - KEPT).returning(1),
    )
    with sessions.begin() as session:
        return sum(len(session.execute(statement).all()) for statement in gone)
