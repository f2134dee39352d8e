"""Fills a console with decisions, appeals, rules and lists, for its pages to show."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, insert, select, update

from filter_service import accounts, rollout, webhooks
from filter_service.accounts import Role
from filter_service.calibration.drift import FALSE_ALARMS, MONTH
from filter_service.calibration.standing_estimates import judging_versions, refresh
from filter_service.db.policies import load_policy
from filter_service.db.tables import (
    Batch,
    Item,
    Person,
    PolicyShadow,
    ReviewCase,
    ReviewOutcome,
    StoredEncoder,
    StoredWatch,
    Tally,
)
from filter_service.demo import POLICY
from filter_service.policy import Severity, read_policy
from filter_service.reviews import case_claims, hash_lists, review_rules
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.case_opening import Opening, open_case
from filter_service.reviews.decisions import decide
from filter_service.reviews.hash_lists import NewListEntry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.settlement import Decision, settle
from filter_service.reviews.tallies import DAYS
from filter_service.rollout.drift_alarms import DriftAlarm
from filter_service.rollout.shadow_run import run_shadows
from filter_service.rollout.shadows import start_shadow
from filter_service.webhooks.delivery import deliver_due
from tests.support.console_world import World
from tests.support.web_clients import somebody

LEASE = 3600.0
HOUSE = read_policy(POLICY)
STRICTER = HOUSE.model_copy(
    update={"classes": tuple(c.model_copy(update={"threshold": 0.3}) for c in HOUSE.classes)}
)
STATEMENT = "This is a poster for a museum of the history of brewing, and nobody drinks in it."

# Samples by what the bundled model made of them, or by what `furnish` lets people do with them.
SEVERAL = "063.jpg"  # flagged for two classes
UNFAITHFUL = "084.jpg"  # its map failed the test
DISPUTED = "051.jpg"  # escalated, waits for a senior
SECOND = "039.jpg"  # waits for another person
APPEALED = "003.jpg"
MISSED = "027.jpg"  # clear, drawn as a sample
COPIED = "000.jpg"  # four copies of it wait
DECIDED = "042.jpg"
FAILED = "half.jpg"
PENDING = "093.jpg"  # decided just now, so that it can be undone
CONFIRMED = (
    *("042.jpg", "057.jpg", "036.jpg", "054.jpg"),  # gambling
    *("006.jpg", "003.jpg", "030.jpg", "060.jpg"),
)
OVERTURNED = ("024.jpg", "081.jpg", "045.jpg")


def furnish(world: World) -> None:
    """Let people decide, disagree, make rules and lists; some of it waits."""
    ben = somebody(world.sessions, Role.MODERATOR, "ben")
    sue = somebody(world.sessions, Role.SENIOR, "sue")
    somebody(world.sessions, Role.MODERATOR, "ada", classes=("weapons", "gambling"), reveal_cap=20)
    for name in CONFIRMED:
        say(world, ben, name, Decision.CONFIRMED)
    for name in OVERTURNED:
        say(world, ben, name, Decision.OVERTURNED)
    _make_rules(world, sue)
    say(world, ben, SECOND, Decision.CONFIRMED)
    say(world, ben, DISPUTED, Decision.ESCALATED)
    _draw(world, MISSED)
    open_appeal(world.sessions, world.item(APPEALED), STATEMENT, "key shop")
    accounts.add_key(world.sessions, "shop", "person admin")
    moderator = somebody(world.sessions, Role.MODERATOR)
    accounts.reveal(world.sessions, moderator, world.item(SEVERAL), "weapons", None)
    say(world, moderator, PENDING, Decision.CONFIRMED, undo_seconds=3600)
    refresh(world.sessions)


def say(
    world: World, person: Person, name: str, decision: Decision, undo_seconds: float = 0
) -> None:
    """Decide about a sample, with effect at once unless it can be undone."""
    item = world.item(name)
    case_claims.claim(world.sessions, person, item, LEASE)
    reason = "the policy does not say" if decision is Decision.ESCALATED else None
    decide(world.sessions, person, item, decision, reason=reason, undo_seconds=undo_seconds)
    settle(world.sessions)


def hold(world: World, person: Person, *names: str) -> None:
    for name in names:
        case_claims.claim(world.sessions, person, world.item(name), LEASE)


def _make_rules(world: World, by: Person) -> None:
    review_rules.add_rule(
        world.sessions, by, review_rules.RuleKind.SECOND_LOOK, class_name="weapons"
    )
    review_rules.add_rule(
        world.sessions, by, review_rules.RuleKind.SECOND_LOOK, margin_below=0.5, share=0.2
    )
    review_rules.add_rule(world.sessions, by, review_rules.RuleKind.CLEAR_SAMPLE, share=0.01)
    wine = NewListEntry(
        ListKind.ALLOW, "alcohol", Match.PDQ, world.item("066.jpg"), reason="our sponsor"
    )
    hash_lists.add_entry(world.sessions, by, wine)
    seen = replace(wine, kind=ListKind.BLOCK, class_name="gambling", match=Match.DIGEST)
    hash_lists.add_entry(world.sessions, by, replace(seen, reason="sent again and again"))
    alike = replace(seen, match=Match.RADIUS, item_id=world.item(DECIDED), within=9.0)
    hash_lists.add_entry(
        world.sessions, by, replace(alike, reason="the same machine from all sides")
    )


def _draw(world: World, name: str) -> None:
    """A clear item is drawn for review."""
    with world.sessions.begin() as session:
        item = session.scalars(select(Item).where(Item.source == name)).one()
        batch = session.get_one(Batch, item.batch_id)
        opening = Opening(
            item_id=item.id,
            batch_id=item.batch_id,
            image_id=item.image_id or 0,
            policy_id=batch.policy_id,
            class_name="alcohol",
            severity=Severity.LOW,
            margin=-0.8,
            sampled=True,
        )
        open_case(session, opening, "worker 1")


def look_on(world: World) -> None:
    """A stricter version runs in the shadow over all that was judged; its class has drifted."""
    rollout.propose(
        world.sessions, STRICTER, rollout.Flags.KEEP, "to try it", "person boss", four_eyes=True
    )
    start_shadow(world.sessions, STRICTER.digest, "person boss")
    with world.sessions.begin() as session:
        session.execute(update(PolicyShadow).values(reached=0))
    run_shadows(world.sessions, world.service.seeker)
    with world.sessions.begin() as session:
        (version,) = judging_versions(session)
        known = load_policy(session, version.policy_id)
        encoder = session.get_one(StoredEncoder, version.encoder_id)
        alarm = DriftAlarm(
            policy=known.policy.name,
            version=known.policy.digest,
            class_name="gambling",
            encoder=encoder.fingerprint,
            moved=["margins", "flagged share"],
            since=datetime.now(UTC),
            images=450,
            margin_before=-1.7,
            margin_now=-0.7,
            spread=1.9,
            share_before=0.02,
            share_now=0.05,
            false_alarms=FALSE_ALARMS,
        )
        watched = {"reference": [0.0], "flagged": 20, "flagged_of": 1000, "month": MONTH}
        begun = {"margin_evidence": [0.0], "share_evidence": [0.0], "reached": 0, "calm": 0}
        where = {"encoder_id": encoder.id, "class_id": known.class_ids["gambling"]}
        given = {"alarmed_at": datetime.now(UTC), "alarm": alarm.document()}
        session.execute(insert(StoredWatch).values(**where, **watched, **begun, **given))


def listen(world: World) -> None:
    """Two platforms: one that nobody answers at, and one that nothing is sent to."""
    for url, events in (
        ("http://127.0.0.1:9/moderation", None),
        ("https://shop.example/a/rather/long/address/of/a/receiver", ["batch.finished"]),
    ):
        webhooks.add_endpoint(world.sessions, world.service.settings, url, events, "person admin")
    webhooks.ping(world.sessions, 1, "person admin")
    deliver_due(world.sessions, world.service.settings)


# What the pictures of the pages are taken of

CLASSES = {"weapons": 0.004, "gambling": 0.006, "alcohol": 0.009, "tobacco-and-drugs": 0.0025}
WRONG = {"weapons": 0.06, "gambling": 0.11, "alcohol": 0.19, "tobacco-and-drugs": 0.09}
SLOW = {"weapons": 7.5, "gambling": 5.2, "alcohol": 4.1, "tobacco-and-drugs": 9.8}


def month(world: World) -> None:
    """A month of figures as a platform of some 20,000 images a day might have had it: made up."""
    draw = random.Random(4)
    now = datetime.now(UTC)
    rows: list[tuple[str, str, float, datetime]] = []
    for days in range(DAYS):
        at = now - timedelta(days=days, seconds=1)
        judged = round(20_000 * (0.75 if at.weekday() > 4 else 1) * draw.uniform(0.9, 1.1))
        rows.append(("judged", "", judged, at))
        rows.append(("undetermined", "", draw.randint(0, 4), at))
        for name, share in CLASSES.items():
            flagged = round(judged * share * draw.uniform(0.7, 1.3) * (2.2 if days == 9 else 1))
            wrong = round(flagged * WRONG[name] * draw.uniform(0.5, 1.5))
            rows += [
                ("flagged", name, flagged, at),
                ("confirmed", name, flagged - wrong, at),
                ("overturned", name, wrong, at),
                ("timed", name, flagged, at),
                ("seconds", name, round(flagged * SLOW[name]), at),
            ]
    keys = ("kind", "class_name", "amount", "at")
    with world.sessions.begin() as session:
        session.execute(insert(Tally), [dict(zip(keys, row, strict=True)) for row in rows])


def age(world: World) -> None:
    """As if what waits had come over the last hours, and what is decided over the last weeks."""
    with world.sessions.begin() as session:
        waiting = select(ReviewCase.item_id).order_by(ReviewCase.item_id)
        for n, item in enumerate(session.scalars(waiting).all()):
            came = {"opened_at": func.now() - timedelta(minutes=3 + 37 * n % 101)}
            session.execute(update(ReviewCase).where(ReviewCase.item_id == item).values(came))
        decided = select(ReviewOutcome.item_id).order_by(ReviewOutcome.item_id)
        for n, item in enumerate(session.scalars(decided).all()):
            then = {"at": func.now() - timedelta(days=2 + 5 * n % 17)}
            session.execute(update(ReviewOutcome).where(ReviewOutcome.item_id == item).values(then))
