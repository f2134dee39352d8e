"""Drift of live traffic, from the job that watches it to pages, metrics, webhooks and doctor."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, insert, select, update

from filter_service.accounts import Role
from filter_service.calibration.drift import BLOCK
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    LedgerEntry,
    OutboxEvent,
    QueueEntry,
    StoredImage,
    StoredScore,
    StoredWatch,
    WebhookEndpoint,
)
from filter_service.policy import Calibration, CalibrationOrigin, Policy, Preservation
from filter_service.rollout.drift_alarms import alarms, watches
from filter_service.rollout.drift_watch import watch
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.judged_stream import judge_stream
from tests.support.margin_worlds import FLAGGED, stream
from tests.support.review_cases import POLICY, listening
from tests.support.web_clients import client_of, key_client, web_service

GUN = POLICY.classes[0].model_copy(update={"threshold": 0.8})  # at FLAGGED
HOUSE = POLICY.model_copy(update={"classes": (GUN,)})
SHIFT = 0.94  # logits: half a standard deviation of the stream
ENCODER = "ab" * 32


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def judged(
    sessions: Sessions, margins: np.ndarray, policy: Policy = HOUSE, encoder: str = ENCODER
) -> list[int]:
    """Images that came and were judged; -> their ids."""
    with sessions.begin() as session:
        of = store_policy(session, policy), "gun"
        encoder_id = register_encoder(session, encoder, "simple", 4, {})
        return judge_stream(session, of, encoder_id, margins.tolist())


def quiet(rng: np.random.Generator, count: int) -> np.ndarray:
    return stream(rng, count)[0]


def row(sessions: Sessions) -> StoredWatch:
    with sessions.begin() as session:
        return session.scalars(select(StoredWatch)).one()


def drifted(sessions: Sessions, rng: np.random.Generator) -> None:
    """Two thousand images, and then twelve hundred that are half a deviation higher."""
    judged(sessions, quiet(rng, 2_000))
    watch(sessions)
    judged(sessions, quiet(rng, 500))
    judged(sessions, quiet(rng, 1_200) + SHIFT)


def test_a_quiet_stream_is_watched_and_gives_no_alarm(
    sessions: Sessions, rng: np.random.Generator
) -> None:
    judged(sessions, quiet(rng, 999))
    assert watch(sessions) == 0
    assert watches(sessions) == []  # too few to compare with
    judged(sessions, quiet(rng, 1_001))
    assert watch(sessions) == 0
    judged(sessions, quiet(rng, 6_020))
    assert watch(sessions) == 0
    (found,) = watches(sessions)
    assert (found.class_name, found.seen, found.alarm) == ("gun", 6_000, None)
    judged(sessions, quiet(rng, 30))  # with the twenty that were left they make a block
    watch(sessions)
    assert row(sessions).seen == 6_050


def test_half_a_deviation_gives_one_alarm_and_one_event(
    sessions: Sessions, rng: np.random.Generator
) -> None:
    listening(sessions)
    drifted(sessions, rng)
    assert [watch(sessions) for _ in range(3)] == [1, 0, 0]
    (alarm,) = alarms(sessions)
    assert "margins" in alarm.moved
    assert 0.3 < alarm.deviations < 0.7
    assert alarm.share_now > 1.3 * alarm.share_before
    assert BLOCK <= alarm.images <= 1_000
    with sessions.begin() as session:
        (event,) = session.scalars(select(OutboxEvent)).all()
    assert (event.type, event.payload["class"], event.batch_id) == ("class.drifted", "gun", None)
    assert event.payload["said"] == alarm.sentence
    assert event.payload["margins"]["deviations"] == pytest.approx(alarm.deviations)
    judged(sessions, quiet(rng, 1_000) + SHIFT)
    assert watch(sessions) == 0


def test_an_alarm_says_since_when(sessions: Sessions, rng: np.random.Generator) -> None:
    judged(sessions, quiet(rng, 2_000))
    watch(sessions)
    start = datetime(2026, 5, 1, tzinfo=UTC)
    before, after = judged(sessions, quiet(rng, 500)), judged(sessions, quiet(rng, 1_200) + SHIFT)
    with sessions.begin() as session:  # one image a minute
        for number, image in enumerate([*before, *after]):
            at = start + timedelta(minutes=number)
            session.execute(update(Item).where(Item.image_id == image).values(judged_at=at))
    watch(sessions)
    (alarm,) = alarms(sessions)
    assert abs(alarm.since - start - timedelta(minutes=500)) <= timedelta(minutes=4 * BLOCK)
    assert f"Since {alarm.since:%Y-%m-%d %H:%M} UTC" in alarm.sentence


def test_a_flagged_share_that_triples_is_found_though_margins_hardly_move(
    sessions: Sessions, rng: np.random.Generator
) -> None:
    judged(sessions, quiet(rng, 4_000))
    watch(sessions)
    margins = quiet(rng, 3_000)
    clear = np.flatnonzero(margins < FLAGGED)
    margins[clear[: len(margins) // 8]] = FLAGGED + 0.01
    rng.shuffle(margins)
    judged(sessions, margins)
    watch(sessions)
    (alarm,) = alarms(sessions)
    assert "flagged share" in alarm.moved


def test_how_often_it_runs_changes_nothing(sessions: Sessions, rng: np.random.Generator) -> None:
    margins = quiet(rng, 700)
    judged(sessions, quiet(rng, 2_000))
    watch(sessions)
    for start in range(0, 700, 140):
        judged(sessions, margins[start : start + 140])
        watch(sessions)
        watch(sessions)
    often = row(sessions)
    with sessions.begin() as session:
        first = session.get_one(StoredWatch, (often.encoder_id, often.class_id))
        first.reached, first.seen = first.reached - 700, 0
        first.margin_evidence, first.share_evidence = [0.0] * 6, [0.0] * 6
    watch(sessions)
    once = row(sessions)
    assert (once.reached, once.seen) == (often.reached, often.seen) == (2_700, 700)
    assert once.margin_evidence == pytest.approx(often.margin_evidence)
    assert once.share_evidence == pytest.approx(often.share_evidence)


def test_another_version_and_another_encoder_start_anew(
    sessions: Sessions, rng: np.random.Generator
) -> None:
    drifted(sessions, rng)
    watch(sessions)
    stricter = HOUSE.model_copy(update={"classes": (GUN.model_copy(update={"threshold": 0.7}),)})
    judged(sessions, quiet(rng, 60) + SHIFT, stricter)
    assert (watch(sessions), alarms(sessions)) == (0, [])
    (found,) = watches(sessions)  # compared with what it began with, in the same words
    assert found.seen == 0
    judged(sessions, quiet(rng, 60) + SHIFT, stricter, "cd" * 32)
    assert (watch(sessions), watches(sessions)) == (0, [])  # no margin of it is known before


def test_a_calibration_is_compared_with_what_came_until_its_day(
    sessions: Sessions, owner: Engine, rng: np.random.Generator
) -> None:
    day = datetime(2026, 5, 1, tzinfo=UTC)
    origin = CalibrationOrigin(
        encoder=ENCODER,
        wording=HOUSE.wording(GUN),
        reviews=50,
        until=day.date(),
        covariance=(0.01, 0.0, 0.01),
    )
    line = Calibration(a=1.0, b=0.0, origin=origin)
    fitted = HOUSE.model_copy(update={"classes": (GUN.model_copy(update={"calibration": line}),)})
    old = judged(sessions, quiet(rng, 1_500), fitted)
    with owner.begin() as connection:
        of_then = StoredImage.id <= old[-1]
        connection.execute(update(StoredImage).where(of_then).values(created_at=day))
    judged(sessions, quiet(rng, 1_200) + SHIFT, fitted)
    assert watch(sessions) == 1  # what it began with had moved already


def test_an_image_that_still_waits_is_waited_for(
    sessions: Sessions, rng: np.random.Generator
) -> None:
    judged(sessions, quiet(rng, 2_000))
    watch(sessions)
    with sessions.begin() as session:
        image = session.scalar(
            insert(StoredImage).values(digest="cd" * 32, bytes=1).returning(StoredImage.id)
        )
        batch = session.scalars(select(Batch.id)).first()
        item = session.scalar(
            insert(Item).values(batch_id=batch, image_id=image, source="").returning(Item.id)
        )
        session.execute(insert(QueueEntry).values(item_id=item, priority=0))
    judged(sessions, quiet(rng, 200))
    watch(sessions)
    assert row(sessions).seen == 0
    with sessions.begin() as session:
        late = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(QueueEntry).values(queued_at=late))
    watch(sessions)
    assert row(sessions).seen == 200


def test_restricted_classes_are_not_watched(sessions: Sessions, rng: np.random.Generator) -> None:
    sealed = GUN.model_copy(update={"sealed": Preservation(days=30)})
    open_class = POLICY.classes[1]
    judged(sessions, quiet(rng, 1_200), HOUSE.model_copy(update={"classes": (sealed, open_class)}))
    watch(sessions)
    assert watches(sessions) == []
    with sessions.begin() as session:
        assert session.scalars(select(StoredScore.class_id)).first() is not None
        assert session.scalars(select(StoredWatch)).all() == []


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_an_alarm_shows_on_pages_and_in_metrics_until_an_editor_accepts_it(
    sessions: Sessions, app: FastAPI, rng: np.random.Generator
) -> None:
    drifted(sessions, rng)
    watch(sessions)
    (alarm,) = alarms(sessions)
    editor = client_of(app, sessions, Role.POLICY_EDITOR)
    moderator = client_of(app, sessions, Role.MODERATOR)
    prometheus = key_client(app, sessions, all_clients=True)
    gauge = 'filter_service_drift_alarm{class="gun",policy="house"}'
    assert f"{gauge} 1.0" in prometheus.get("/metrics").text
    for path in ("/overview", "/accuracy"):
        assert alarm.sentence in words(moderator.get(path).text)
    assert "policy calibrate house" in words(moderator.get("/accuracy").text)
    hidden = client_of(app, sessions, Role.MODERATOR, "knives", classes=("knife",))
    assert "gun" not in words(hidden.get("/overview").text + hidden.get("/accuracy").text)
    watched = row(sessions)
    form = {"encoder": watched.encoder_id, "watched": watched.class_id}
    assert moderator.post("/accuracy/accept", data=form).status_code == 403
    assert editor.post("/accuracy/accept", data=form).status_code == 200
    assert editor.post("/accuracy/accept", data=form).status_code == 404
    assert alarms(sessions) == []
    with sessions.begin() as session:
        entry = session.scalars(select(LedgerEntry).order_by(LedgerEntry.id.desc())).first()
        assert entry is not None and entry.event == "drift accepted"
    judged(sessions, quiet(rng, 1_200) + SHIFT)
    assert watch(sessions) == 0  # it begins with the newest
    judged(sessions, quiet(rng, 1_200) + SHIFT)
    assert (watch(sessions), row(sessions).seen) == (0, 1_200)
    assert f"{gauge} 0.0" in prometheus.get("/metrics").text


def test_a_clients_webhook_is_not_told(sessions: Sessions, rng: np.random.Generator) -> None:
    with sessions.begin() as session:
        session.add(
            WebhookEndpoint(url="https://a.example", secret="s", created_by="key a", client_id=1)
        )
    drifted(sessions, rng)
    assert watch(sessions) == 1
    with sessions.begin() as session:
        assert session.scalars(select(OutboxEvent)).all() == []
