"""A version in the shadow: what it would have flagged of live traffic, and no effect at all."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, insert, select, text, update
from typer.testing import CliRunner

from filter_service import retention, rollout
from filter_service.accounts import Role
from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.cli import app as commands
from filter_service.db.embeddings import register_encoder
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    LedgerEntry,
    PolicyShadow,
    QueueEntry,
    ShadowFlag,
    StoredImage,
)
from filter_service.errors import Conflict, InvalidPolicy, UnknownEntry, UnknownPolicy
from filter_service.images import digest
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.moderation import drain
from filter_service.policy import Policy, Preservation
from filter_service.rollout import Flags, shadow_run
from filter_service.rollout.shadow_report import ShadowReport, shadow_of, shadow_report
from filter_service.rollout.shadow_run import PolicyTexts, run_shadows
from filter_service.rollout.shadows import end_shadow, start_shadow
from filter_service.scoring import PolicyVectors
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import threshold_margin
from filter_service.web.app import create_app
from tasks.__main__ import CeleryQueue
from tests.support.placed_judge import Placed, Seeker, placed
from tests.support.policy_versions import with_threshold
from tests.support.review_cases import listening
from tests.support.served import environment
from tests.support.simple_classifier import POLICY, desk_of, vector
from tests.support.web_clients import client_of, web_service

ANNA = "person anna"
ONE = POLICY.model_copy(update={"classes": POLICY.classes[:1]})
STRICT = with_threshold(0.1, ONE)  # flags more
HOUSE = [f"{n} picture" for n in range(24)]  # files; their margins follow from their vectors


@pytest.fixture
def judge(sessions: Sessions, storage: Storage) -> Callable[..., None]:
    """Submit files under a version, and judge them."""
    desk = desk_of(sessions, storage, Placed())

    def judged(files: Sequence[str] = HOUSE, policy: Policy = ONE) -> None:
        given = [Submission(f, f.encode()) for f in files]
        submissions.accept(sessions, storage, lambda: None, given, policy)
        drain(desk)

    return judged


@pytest.fixture
def running(sessions: Sessions, judge: Callable[..., None]) -> PolicyShadow:
    """A version that flags more runs beside the one that judges."""
    return started(sessions, STRICT, judge)


def started(sessions: Sessions, policy: Policy, judge: Callable[..., None]) -> PolicyShadow:
    judge(["0 before"])
    rollout.propose(sessions, policy, Flags.KEEP, "to try it", ANNA, four_eyes=True)
    return start_shadow(sessions, policy.digest, ANNA)


def flagged(policy: Policy, files: Sequence[str] = HOUSE) -> set[str]:
    """Files that a version flags."""
    threshold = threshold_margin(policy.classes[0])
    z = {f: vector(digest(f.encode()))[None] for f in files}
    return {f for f in files if placed(policy).classes[0].margins(z[f])[0] >= threshold}


def found(sessions: Sessions) -> dict[str, tuple[bool, bool]]:
    """By file: whether the shadow flags it, and whether the version that judged it does."""
    query = select(Item.source, ShadowFlag.by_shadow, ShadowFlag.by_judge)
    with sessions.begin() as session:
        rows = session.execute(query.join(Item, Item.id == ShadowFlag.item_id))
        return {source: (shadow, judge) for source, shadow, judge in rows}


def now(sessions: Sessions) -> PolicyShadow:
    shadow = shadow_of(sessions, STRICT.digest)
    assert shadow is not None
    return shadow


def counted(sessions: Sessions, owner: Engine) -> dict[str, int]:
    """Rows of every table but the shadow's own."""
    with owner.connect() as connection:
        tables = connection.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        return {
            t: connection.execute(text(f"SELECT count(*) FROM {t}")).scalar_one()
            for t in tables
            if t not in ("policy_shadows", "shadow_flags")
        }


def test_it_says_what_it_would_have_flagged_of_what_comes(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge()
    assert run_shadows(sessions, Seeker()) == len(HOUSE)
    by_shadow, by_judge = flagged(STRICT), flagged(ONE)
    assert 3 < len(by_judge) < len(by_shadow) < len(HOUSE)
    assert found(sessions) == {f: (True, f in by_judge) for f in by_shadow}
    assert (now(sessions).seen, now(sessions).left_alone) == (len(HOUSE), 0)


def test_nothing_else_is_written(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow, owner: Engine
) -> None:
    listening(sessions)
    judge()
    before = counted(sessions, owner)
    assert run_shadows(sessions, Seeker()) == len(HOUSE)
    assert counted(sessions, owner) == before


def test_however_it_runs_every_item_counts_once(
    sessions: Sessions,
    judge: Callable[..., None],
    running: PolicyShadow,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow_run, "STEP", 5)
    judge(HOUSE[:7])
    assert [run_shadows(sessions, Seeker()) for _ in range(2)] == [7, 0]
    judge(HOUSE[7:])
    stops = iter([False, False, False, True])  # ended in the midst of it
    run_shadows(sessions, Seeker(), lambda: next(stops, True))
    run_shadows(sessions, Seeker())
    assert now(sessions).seen == len(HOUSE)
    assert set(found(sessions)) == flagged(STRICT)


def test_an_item_that_still_waits_is_waited_for(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge(HOUSE[:3])
    with sessions.begin() as session:
        waits = session.scalars(select(Item.id).where(Item.source == HOUSE[1])).one()
        session.execute(insert(QueueEntry).values(item_id=waits, priority=0))
    assert run_shadows(sessions, Seeker()) == 1
    with sessions.begin() as session:
        late = datetime.now(UTC) - timedelta(hours=2)
        session.execute(update(QueueEntry).values(queued_at=late))
    assert run_shadows(sessions, Seeker()) == 2


def test_what_another_encoder_judged_is_left_alone_and_counted(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge(HOUSE[:5])
    with sessions.begin() as session:
        other = register_encoder(session, "cd" * 32, "another", 4, {})
        mine = update(Item).where(Item.source.in_(HOUSE[:2]))
        session.execute(mine.values(encoder_id=other))
    assert run_shadows(sessions, Seeker()) == 3
    assert (now(sessions).seen, now(sessions).left_alone) == (3, 2)


def test_other_policies_and_what_was_judged_before_are_not_looked_at(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge(HOUSE[:4], ONE.model_copy(update={"name": "other"}))
    assert run_shadows(sessions, Seeker()) == 0
    assert found(sessions) == {}


def test_one_version_of_a_name_runs_at_a_time_and_never_the_one_that_judges(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    with pytest.raises(Conflict, match="another version"):
        start_shadow(sessions, ONE.digest, ANNA)
    with pytest.raises(Conflict, match="runs in the shadow already"):
        start_shadow(sessions, STRICT.digest, ANNA)
    with pytest.raises(UnknownPolicy):
        start_shadow(sessions, "ab" * 32, ANNA)
    end_shadow(sessions, STRICT.digest, ANNA)
    with pytest.raises(UnknownEntry, match="does not run"):
        end_shadow(sessions, STRICT.digest, ANNA)
    judge(HOUSE[:2])
    assert run_shadows(sessions, Seeker()) == 0
    with sessions.begin() as session:
        entries = select(LedgerEntry.event).where(LedgerEntry.event.like("shadow%"))
        assert session.scalars(entries).all() == ["shadow started", "shadow ended"]


def test_a_version_that_judges_by_now_ends_its_shadow(
    sessions: Sessions, running: PolicyShadow
) -> None:
    waiting = rollout.waiting_of(sessions, "shop")
    assert waiting is not None
    rollout.activate(sessions, "shop", "person bert", waiting[0].id, four_eyes=True)
    run_shadows(sessions, Seeker())
    assert now(sessions).ended_by == "service"


def report(sessions: Sessions) -> ShadowReport:
    return shadow_report(sessions, now(sessions))


def test_it_says_how_many_of_its_flags_people_had_confirmed(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge()
    run_shadows(sessions, Seeker())
    won = sorted(flagged(STRICT) - flagged(ONE))
    with sessions.begin() as session:
        for number, name in enumerate(won[:3]):
            image = session.scalars(select(Item.image_id).where(Item.source == name)).one() or 0
            label = ClassLabel(image, "knife", number > 0, LabelSource.SAMPLE, 0.1)
            labels.keep(session, [label])
    (knife,) = report(sessions).classes
    assert (knife.won.count, knife.won.right, knife.won.wrong) == (len(won), 2, 1)
    assert (knife.both.count, knife.lost.count) == (len(flagged(ONE)), 0)


def test_an_erased_item_is_forgotten(
    sessions: Sessions, storage: Storage, judge: Callable[..., None], running: PolicyShadow
) -> None:
    judge()
    run_shadows(sessions, Seeker())
    gone = min(flagged(STRICT))
    with sessions.begin() as session:
        item = session.scalars(select(Item.id).where(Item.source == gone)).one()
    receipt = retention.erase(sessions, storage, item, "somebody asked for it", "service")
    assert receipt.removed["flags of shadows"] == 1
    with sessions.begin() as session:
        assert item not in session.scalars(select(ShadowFlag.item_id)).all()


def test_of_restricted_classes_nothing_is_kept(
    sessions: Sessions, judge: Callable[..., None]
) -> None:
    """Both classes of the shadow flag the same pictures here, and one of them is restricted."""
    knife, gun = (c.model_copy(update={"threshold": 0.1}) for c in POLICY.classes)
    sealed = gun.model_copy(update={"sealed": Preservation(days=30)})
    started(sessions, ONE.model_copy(update={"classes": (knife, sealed)}), judge)
    judge()
    assert run_shadows(sessions, Seeker()) == len(HOUSE)
    assert found(sessions) == {}


def test_one_that_cannot_be_asked_keeps_no_other_from_looking(
    sessions: Sessions, judge: Callable[..., None], running: PolicyShadow
) -> None:
    class Refusing(Seeker):
        def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
            if policy.name == "shop":
                raise InvalidPolicy("The head of knife has 3 numbers.")
            return super().policy(policy)

    other, stricter = (p.model_copy(update={"name": "other"}) for p in (ONE, STRICT))
    judge(["0 before"], other)
    rollout.propose(sessions, stricter, Flags.KEEP, "to try it", ANNA, four_eyes=True)
    start_shadow(sessions, stricter.digest, ANNA)
    judge(HOUSE[:2], ONE)
    judge(HOUSE[:3], other)
    assert run_shadows(sessions, Refusing()) == 3


def test_texts_are_asked_for_once(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Asked(Seeker):
        def policy(self, policy: Policy) -> tuple[int, PolicyVectors]:
            asked.append(policy.digest)
            return super().policy(policy)

    monkeypatch.setattr(shadow_run, "policy_encoder", lambda *_: Asked())
    texts = PolicyTexts(Settings(), sessions)
    for policy in (ONE, STRICT, ONE):
        texts.policy(policy)
    assert asked == [ONE.digest, STRICT.digest]


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_an_editor_starts_and_ends_it_and_sees_what_differs(
    sessions: Sessions, app: FastAPI, judge: Callable[..., None]
) -> None:
    judge(["0 before"])
    rollout.propose(sessions, STRICT, Flags.KEEP, "to try it", ANNA, four_eyes=True)
    version = f"/policies/version/{STRICT.digest}"
    editor = client_of(app, sessions, Role.POLICY_EDITOR)
    moderator = client_of(app, sessions, Role.MODERATOR)
    assert f'href="{version}/shadow"' in editor.get(version).text
    assert moderator.post(f"{version}/shadow/start").status_code == 403
    assert "It looks on" in editor.post(f"{version}/shadow/start").text
    judge()
    run_shadows(sessions, Seeker())
    page = moderator.get(f"{version}/shadow").text
    won = flagged(STRICT) - flagged(ONE)
    assert f"{len(flagged(ONE))} none decided 0 {len(won)} none decided" in words(page)
    with sessions.begin() as session:
        items = session.scalars(select(Item.id).where(Item.source.in_(won))).all()
        digests = session.scalars(
            select(StoredImage.digest).join(Item).where(Item.id.in_(items))
        ).all()
    assert {int(i) for i in re.findall(r'class="look" href="/items/(\d+)"', page)} == set(items)
    assert all(f"/pictures/image/{d}/blurred" in page for d in digests)
    assert "Let it run" not in page
    hidden = client_of(app, sessions, Role.MODERATOR, "guns", classes=("gun",))
    closed = hidden.get(f"{version}/shadow").text
    assert "knife" not in closed and "/items/" not in closed
    assert "It does not run" in editor.post(f"{version}/shadow/end").text


def test_the_command_starts_prints_and_ends_it(
    sessions: Sessions,
    judge: Callable[..., None],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url, broker_url="redis://x:9/0")
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    judge(["0 before"])
    rollout.propose(sessions, STRICT, Flags.KEEP, "to try it", ANNA, four_eyes=True)

    def asked(*words: str) -> str:
        result = CliRunner().invoke(
            commands, ["policy", "shadow", STRICT.digest[:12], *words], obj=CeleryQueue()
        )
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "runs in the shadow; see" in asked()
    judge()
    run_shadows(sessions, Seeker())
    won = len(flagged(STRICT) - flagged(ONE))
    assert f"newly {won} (confirmed 0, overturned 0)" in asked("--show")
    assert "no more" in asked("--stop")
    assert now(sessions).ended_by == "service"
