"""Monitoring: `/metrics` for Prometheus, `/live` and `/ready`."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator.metrics import Info
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException

from filter_service.accounts import Ability
from filter_service.accounts.callers import Caller
from filter_service.db.schema import require_current
from filter_service.db.screening_checks import stored_checks
from filter_service.db.session import Sessions
from filter_service.errors import FilterServiceError, NotAllowed, for_clients
from filter_service.moderation.waiting_items import waiting_items
from filter_service.reviews.tallies import totals, waiting_now
from filter_service.rollout.drift_alarms import watches_in
from filter_service.web.http.access import able
from filter_service.web.http.service import Service, service
from filter_service.webhooks.delivery_log import deliveries_waiting

logger = logging.getLogger(__name__)
router = APIRouter()
Here = Annotated[Service, Depends(service)]

MOST = 100_000  # rows that are counted: beyond that the figure says "as many or more"
TOTALS = ("judged", "flagged", "undetermined", "confirmed", "overturned")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


@router.get("/live")
def live() -> dict[str, str]:
    """The process runs."""
    return {"status": "live"}


@router.get("/ready")
def ready(here: Here) -> dict[str, str]:
    """Database and image store answer; a problem with status 503 else."""
    try:
        require_current(here.sessions.kw["bind"])
        here.storage.has("0" * 64)
    except FilterServiceError as error:
        logger.warning("Not ready. %s", error)
        raise HTTPException(503, for_clients(error)) from error
    return {"status": "ready"}


@router.get("/metrics")
def metrics(request: Request, by: Annotated[Caller, Depends(able(Ability.READ))]) -> Response:
    """Everything that is counted, of all clients: Prometheus brings a key that sees them all."""
    if not by.scope.everyone:
        raise NotAllowed(
            f"{by.actor} sees one client, and /metrics counts for all: ask an admin for a key made "
            "with `key add NAME --all-clients`."
        )
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


def add_to(app: FastAPI) -> None:
    """Count every request, and register what is read from the database when somebody asks."""
    registry = app.state.registry = CollectorRegistry()
    here: Service = app.state.service
    registry.register(_Stored(here.sessions))
    requests = Counter(
        "filter_service_http_requests",
        "Requests answered.",
        ("method", "route", "status"),
        registry=registry,
    )
    seconds = Histogram(
        "filter_service_http_seconds", "From a request to its answer.", registry=registry
    )

    def count(answered: Info) -> None:
        """By route, never by address: addresses are endless."""
        route = getattr(answered.request.scope.get("route"), "path", "none")
        method = answered.method if answered.method in METHODS else "other"
        requests.labels(method, route, answered.modified_status).inc()
        seconds.observe(answered.modified_duration)

    watched = Instrumentator(should_group_status_codes=False, registry=registry)
    watched.add(count).instrument(app)


class _Stored(Collector):
    """What the database knows, read anew for every scrape."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        with self._sessions.begin() as session:
            yield from _queue(session)
            yield _deliveries(session)
            yield _totals(session)
            yield from _screening(session)
            yield from _drift(session)
        yield from _reviews(self._sessions)

    def describe(self) -> Iterator[Metric]:
        """Nothing: registering is no reason to ask the database."""
        return iter(())


def _queue(session: Session) -> Iterator[Metric]:
    found = waiting_items(session, MOST)
    waiting = GaugeMetricFamily(
        "filter_service_items_waiting",
        f"Items without a verdict, by stage; counted up to {MOST:,}.",
        labels=("stage",),
    )
    waiting.add_metric(("queued",), found.queued)
    waiting.add_metric(("judging",), found.judging)
    yield waiting
    yield _age(
        "filter_service_queue_age_seconds", "The oldest item without a verdict.", found.since
    )


def _deliveries(session: Session) -> Metric:
    return GaugeMetricFamily(
        "filter_service_deliveries_waiting",
        f"Webhook deliveries that are not made yet; counted up to {MOST:,}.",
        value=deliveries_waiting(session, MOST),
    )


def _totals(session: Session) -> Metric:
    found = CounterMetricFamily(
        "filter_service_items", "Items by what became of them.", labels=("outcome", "class")
    )
    for kind, class_name, amount in totals(session, TOTALS):
        found.add_metric((kind, class_name), amount)
    return found


def _screening(session: Session) -> Iterator[Metric]:
    """What confirmed images say of the fast pass, by encoder."""
    name, labels = "filter_service_screening_", ("encoder",)
    pairs = CounterMetricFamily(f"{name}pairs", "Images that both passes encoded.", labels=labels)
    outside = CounterMetricFamily(
        f"{name}outside", "Of these, with a margin outside the error band.", labels=labels
    )
    alarms = CounterMetricFamily(
        f"{name}alarms", "Times the band had to be widened: look at the workers.", labels=labels
    )
    total = CounterMetricFamily(
        f"{name}deviation", "Sum of their largest deviations, in measured bands.", labels=labels
    )
    furthest = GaugeMetricFamily(
        f"{name}furthest", "The largest deviation ever, in measured bands.", labels=labels
    )
    for check, encoder, fingerprint in stored_checks(session):
        label = (f"{encoder} {fingerprint[:12]}",)
        pairs.add_metric(label, check.pairs)
        outside.add_metric(label, check.outside)
        alarms.add_metric(label, check.alarms)
        total.add_metric(label, check.total)
        furthest.add_metric(label, check.furthest)
    yield from (pairs, outside, alarms, total, furthest)


def _drift(session: Session) -> Iterator[Metric]:
    """Classes that are watched for drift, and which of them have an alarm."""
    labels = ("policy", "class")
    alarm = GaugeMetricFamily(
        "filter_service_drift_alarm",
        "1: margins or flagged share of the class are no longer what they were.",
        labels=labels,
    )
    seen = GaugeMetricFamily(
        "filter_service_drift_images", "Images looked at since the watch began.", labels=labels
    )
    for watched in watches_in(session):
        label = (watched.policy, watched.class_name)
        alarm.add_metric(label, float(watched.alarm is not None))
        seen.add_metric(label, watched.seen)
    yield from (alarm, seen)


def _reviews(sessions: Sessions) -> Iterator[Metric]:
    now = waiting_now(sessions)
    cases = GaugeMetricFamily(
        "filter_service_reviews_waiting", "Cases that wait for a decision.", labels=("stage",)
    )
    for stage, count in now.by_stage.items():
        cases.add_metric((stage,), count)
    yield cases
    yield _age("filter_service_review_age_seconds", "The oldest such case.", now.oldest)


def _age(name: str, description: str, since: datetime | None) -> Metric:
    age = 0.0 if since is None else (datetime.now(UTC) - since).total_seconds()
    return GaugeMetricFamily(name, description, value=max(0.0, age))
