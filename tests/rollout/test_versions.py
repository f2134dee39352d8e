"""Which version a name means, and what becomes of what was judged under the one before."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from filter_service import ledger, rollout
from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Activation,
    Batch,
    Embedding,
    Item,
    ItemAttribute,
    LedgerEntry,
    ListEntry,
    QueueEntry,
    Review,
    ReviewCase,
    ReviewOutcome,
)
from filter_service.errors import Conflict, InvalidRequest, NotAllowed, UnknownEntry, UnknownPolicy
from filter_service.images import digest
from filter_service.images.views import View
from filter_service.intake import batches, submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Entry, Event
from filter_service.moderation import drain
from filter_service.policy import Policy
from filter_service.reviews.case_claims import claim
from filter_service.reviews.decisions import decide
from filter_service.reviews.settlement import Decision, settle
from filter_service.rollout import Flags, reevaluation, requeue
from filter_service.rollout.named_policies import policy_for
from filter_service.rollout.reevaluation import reconsider_with
from filter_service.storage import Storage
from filter_service.verdicts import Verdict, judge, score, threshold_margin
from tests.support.placed_judge import Placed, Seeker, placed
from tests.support.policy_versions import MILD, STRICT, with_threshold
from tests.support.review_cases import colleague, events_of, stage_of
from tests.support.simple_classifier import POLICY, desk_of, vector

ANNA, BERT = "person anna", "person bert"
HOUSE = [f"{n} picture" for n in range(24)]  # files; their margins follow from their vectors


def proposed(
    sessions: Sessions, policy: Policy, flags: Flags = Flags.KEEP, four_eyes: bool = False
) -> Activation:
    return rollout.propose(sessions, policy, flags, "as we said", ANNA, four_eyes=four_eyes)


def events(sessions: Sessions) -> list[str]:
    query = select(LedgerEntry.event).order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return [e for e in session.scalars(query) if e.startswith("policy")]


def test_without_four_eyes_a_proposal_is_active(sessions: Sessions) -> None:
    made = proposed(sessions, STRICT)
    assert (made.activated_by, made.before_id) == (ANNA, None)
    assert made.done_at is not None
    assert policy_for(sessions, "shop") == STRICT
    assert events(sessions) == ["policy proposed", "policy activated"]


def test_with_four_eyes_somebody_else_activates(sessions: Sessions) -> None:
    made = proposed(sessions, STRICT, four_eyes=True)
    assert made.activated_at is None
    with pytest.raises(UnknownPolicy):  # what is only proposed means nothing yet
        policy_for(sessions, "shop")
    with pytest.raises(NotAllowed, match="somebody else"):
        rollout.activate(sessions, "shop", ANNA, made.id, four_eyes=True)
    with pytest.raises(NotAllowed, match="/policies/shop"):  # a shell has no two pairs of eyes
        rollout.activate(sessions, "shop", "service", made.id, four_eyes=True)
    made = rollout.activate(sessions, "shop", BERT, made.id, four_eyes=True)
    assert made.activated_by == BERT
    assert policy_for(sessions, "shop") == STRICT
    assert events(sessions) == ["policy proposed", "policy activated"]


def test_a_name_has_one_proposal_at_a_time(sessions: Sessions) -> None:
    made = proposed(sessions, STRICT, four_eyes=True)
    with pytest.raises(Conflict, match="Another version"):
        proposed(sessions, MILD, four_eyes=True)
    assert rollout.withdraw(sessions, "shop", ANNA, made.id).withdrawn_by == ANNA
    assert proposed(sessions, MILD, four_eyes=True).id
    with pytest.raises(UnknownEntry):
        rollout.withdraw(sessions, "other", ANNA, made.id)
    assert events(sessions) == ["policy proposed", "policy withdrawn", "policy proposed"]


def test_only_what_somebody_has_seen_is_activated(sessions: Sessions) -> None:
    seen = proposed(sessions, STRICT, four_eyes=True).id
    rollout.withdraw(sessions, "shop", ANNA, seen)
    other = proposed(sessions, MILD, four_eyes=True).id
    with pytest.raises(Conflict, match="Something else"):
        rollout.activate(sessions, "shop", BERT, seen, four_eyes=True)
    with pytest.raises(Conflict, match="Something else"):
        rollout.withdraw(sessions, "shop", BERT, seen)
    rollout.activate(sessions, "shop", BERT, other, four_eyes=True)
    assert policy_for(sessions, "shop") == MILD


def test_what_is_active_is_not_proposed_again(sessions: Sessions) -> None:
    proposed(sessions, STRICT)
    with pytest.raises(Conflict, match="active already"):
        proposed(sessions, STRICT)
    proposed(sessions, MILD)
    proposed(sessions, STRICT)  # going back is a change like any other
    assert policy_for(sessions, "shop") == STRICT


@pytest.mark.parametrize("reason", ["", "   ", "a" * 1_001, "a\x00b"])
def test_a_proposal_needs_a_reason(sessions: Sessions, reason: str) -> None:
    with pytest.raises(InvalidRequest, match="reason"):
        rollout.propose(sessions, STRICT, Flags.KEEP, reason, ANNA, four_eyes=False)


def submitted(
    sessions: Sessions, storage: Storage, policy: Policy, files: Sequence[str] = ("1 a",)
) -> None:
    given = [Submission(f, f.encode()) for f in files]
    submissions.accept(sessions, storage, lambda: None, given, policy)


def test_a_name_means_its_newest_version_until_one_is_activated(
    sessions: Sessions, storage: Storage
) -> None:
    submitted(sessions, storage, POLICY)
    submitted(sessions, storage, MILD)
    assert policy_for(sessions, "shop") == MILD
    made = proposed(sessions, STRICT, four_eyes=True)
    assert policy_for(sessions, "shop") == MILD
    rollout.activate(sessions, "shop", BERT, made.id, four_eyes=True)
    submitted(sessions, storage, with_threshold(0.7))
    assert policy_for(sessions, "shop") == STRICT
    assert policy_for(sessions, MILD.digest) == MILD
    (found,) = rollout.names(sessions)
    assert found.meant is not None
    assert (found.meant.digest, found.versions) == (STRICT.digest, 4)
    history = rollout.history(sessions, "shop")
    assert [v.stored.number for v in history] == [4, 3, 2, 1]
    assert (found.meant.number, found.meant.note) == (3, made.reason)
    assert [v.stored.policy for v in history if v.active] == [STRICT]


@pytest.fixture
def work(sessions: Sessions, storage: Storage) -> Callable[[], int]:
    """Judge whatever waits."""
    desk = desk_of(sessions, storage, Placed())
    return lambda: drain(desk)


ONE = POLICY.model_copy(update={"classes": POLICY.classes[:1]})
ONE_STRICT, ONE_MILD = with_threshold(0.1, ONE), with_threshold(0.9, ONE)


def verdicts(sessions: Sessions, policy: Policy) -> dict[str, Verdict | None]:
    """By file."""
    query = select(Item.source, Item.verdict).join(Batch).order_by(Item.id)
    with sessions.begin() as session:
        policy_id = rollout.version_of(sessions, policy.digest).id
        return dict(session.execute(query.where(Batch.policy_id == policy_id)).all())


def expected(policy: Policy) -> dict[str, Verdict]:
    side = placed(policy)
    vectors = {f: vector(digest(f.encode()))[None] for f in HOUSE}
    return {f: judge(score(side.margins(z), [View()], [True], policy)) for f, z in vectors.items()}


def latest(sessions: Sessions) -> Activation:
    with sessions.begin() as session:
        return session.scalars(select(Activation).order_by(Activation.id.desc()).limit(1)).one()


def test_keeping_touches_nothing(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    work()
    proposed(sessions, ONE_STRICT)
    assert reconsider_with(sessions, Seeker(), lambda: None) == 0
    assert verdicts(sessions, ONE_STRICT) == {}


@pytest.mark.parametrize("killed", [False, True])
def test_what_would_change_is_judged_anew_once(
    sessions: Sessions,
    storage: Storage,
    work: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    killed: bool,
) -> None:
    monkeypatch.setattr(reevaluation, "STEP", 5)
    submitted(sessions, storage, ONE, HOUSE)
    with sessions.begin() as session:
        for item in session.scalars(select(Item.id)).all():
            session.add(ItemAttribute(item_id=item, name="number", value=f"n{item}"))
    work()
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    knocks: list[int] = []
    if killed:
        interrupt(sessions, monkeypatch, after=3)
    reconsider_with(sessions, Seeker(), lambda: knocks.append(1))
    old, new = expected(ONE), expected(ONE_STRICT)
    changed = {f: v for f, v in new.items() if v is not old[f]}
    assert 3 < len(changed) < len(HOUSE)
    assert verdicts(sessions, ONE_STRICT) == dict.fromkeys(changed)
    work()
    assert verdicts(sessions, ONE_STRICT) == changed
    assert knocks
    done = latest(sessions)
    assert (done.touched, done.left_alone) == (len(changed), 0)
    assert done.done_at is not None
    assert batches.status(sessions, done.batch_id).finished  # type: ignore[arg-type]
    with sessions.begin() as session:
        pairs = session.execute(select(Item.id, Item.supersedes).where(Item.supersedes > 0)).all()
        said = dict(session.execute(select(ItemAttribute.item_id, ItemAttribute.value)).all())
    for item, before in pairs:
        assert before is not None
        assert said[item] == f"n{before}"  # what was said of it holds
        (entry,) = [e for e in of_item(sessions, before) if e.event == Event.REEVALUATED]
        assert entry.details["item"] == item
        assert "explained" in events_of(sessions, item)
    assert reconsider_with(sessions, Seeker(), lambda: None) == 0


def of_item(sessions: Sessions, item: int) -> list[LedgerEntry]:
    with sessions.begin() as session:
        return ledger.of_item(session, item)


def interrupt(sessions: Sessions, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Begin, and be killed in the midst of the step that comes after so many."""
    steps = iter(range(after))
    write = requeue._entries

    def dying(*given: object) -> object:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return write(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(requeue, "_entries", dying)
        with pytest.raises(KeyboardInterrupt):
            reconsider_with(sessions, Seeker(), lambda: None)
    assert latest(sessions).done_at is None
    assert latest(sessions).touched > 0


def test_what_still_waits_is_waited_for(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    assert reconsider_with(sessions, Seeker(), lambda: None) == 0
    assert latest(sessions).done_at is None
    work()
    assert reconsider_with(sessions, Seeker(), lambda: None) > 3


def test_what_still_arrives_is_waited_for(
    sessions: Sessions,
    storage: Storage,
    work: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(submissions, "CHUNK", 8)

    def files() -> Iterator[Submission]:
        for number, file in enumerate(HOUSE):
            if number == 8:  # the first ones are there, and judged
                work()
                proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
                assert reconsider_with(sessions, Seeker(), lambda: None) == 0
                assert latest(sessions).done_at is None
            yield Submission(file, file.encode())

    submissions.accept(sessions, storage, lambda: None, files(), ONE)
    work()
    reconsider_with(sessions, Seeker(), lambda: None)
    old, new = expected(ONE), expected(ONE_STRICT)
    assert verdicts(sessions, ONE_STRICT).keys() == {f for f in HOUSE if new[f] is not old[f]}
    assert latest(sessions).done_at is not None


def test_an_upload_that_was_given_up_holds_nothing(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    work()
    begun = datetime.now(UTC) - timedelta(days=2)
    with sessions.begin() as session:
        session.execute(update(Batch).values(total=None, submitted_at=begun))
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    assert reconsider_with(sessions, Seeker(), lambda: None) > 3
    assert latest(sessions).done_at is not None


def test_no_name_waits_for_another(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    other = ONE.model_copy(update={"name": "other"})
    submitted(sessions, storage, other, HOUSE)
    work()
    submitted(sessions, storage, ONE, HOUSE)
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    proposed(sessions, with_threshold(0.1, other), Flags.REEVALUATE)
    assert reconsider_with(sessions, Seeker(), lambda: None) > 3
    assert latest(sessions).done_at is not None
    assert verdicts(sessions, ONE_STRICT) == {}


@pytest.mark.parametrize("exact", [False, True])
def test_what_the_judge_would_encode_again_is_judged_anew(
    sessions: Sessions, storage: Storage, work: Callable[[], int], exact: bool
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    work()
    if not exact:
        with sessions.begin() as session:
            session.execute(update(Embedding).values(exact_vector=None))
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    reconsider_with(sessions, Seeker(band=1.0), lambda: None)
    old, new = expected(ONE), expected(ONE_STRICT)
    changed = {f for f in HOUSE if new[f] is not old[f]}
    side = placed(ONE_STRICT)
    margins = {f: side.margins(vector(digest(f.encode()))[None])[0, 0] for f in HOUSE}
    threshold = threshold_margin(ONE_STRICT.classes[0])
    near = {f for f, margin in margins.items() if abs(margin - threshold) < 1}
    assert near - changed
    assert verdicts(sessions, ONE_STRICT).keys() == (changed if exact else changed | near)


def test_items_without_vectors_are_left_and_counted(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    work()
    with sessions.begin() as session:
        gone = session.scalars(select(Item.image_id).order_by(Item.id).limit(6)).all()
        item = session.scalars(select(Item.id).order_by(Item.id).limit(6)).all()
        ledger.append(session, [Entry(Event.EXPIRED, "service", i) for i in item])
        for image in gone:
            session.execute(select(func.forget_image(image, ["embeddings"])))
    proposed(sessions, ONE_STRICT, Flags.REEVALUATE)
    reconsider_with(sessions, Seeker(), lambda: None)
    assert latest(sessions).left_alone == 6
    assert not set(verdicts(sessions, ONE_STRICT)) & set(HOUSE[:6])


@pytest.mark.parametrize("killed", [False, True])
def test_confirmed_flags_go_before_somebody_else(
    sessions: Sessions,
    storage: Storage,
    work: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    killed: bool,
) -> None:
    submitted(sessions, storage, ONE, HOUSE)
    work()
    anna, bert = colleague(sessions, "anna"), colleague(sessions, "bert", Role.MODERATOR)
    with sessions.begin() as session:
        flagged = dict(
            session.execute(
                select(Item.source, Item.id).where(Item.verdict == Verdict.FLAGGED)
            ).all()
        )
    *decided, waiting = flagged
    for name in decided:
        claim(sessions, anna, flagged[name], 60)
        decide(sessions, anna, flagged[name], Decision.CONFIRMED, undo_seconds=0)
    settle(sessions)
    proposed(sessions, ONE_MILD, Flags.REOPEN)
    if killed:
        with monkeypatch.context() as patch:
            patch.setattr(requeue, "open_cases", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                reconsider_with(sessions, Seeker(), lambda: None)
    mild = expected(ONE_MILD)
    reopened = [f for f in decided if mild[f] is Verdict.CLEAR]
    assert reconsider_with(sessions, Seeker(), lambda: None) == len(reopened) > 1
    for name in decided:
        assert (stage_of(sessions, flagged[name]) == "first") == (name in reopened)
        assert events_of(sessions, flagged[name]).count("reopened") == (name in reopened)
    assert "reopened" not in events_of(sessions, flagged[waiting])
    item = flagged[reopened[0]]
    with pytest.raises(Conflict):
        claim(sessions, anna, item, 60)
    claim(sessions, bert, item, 60)
    decide(sessions, bert, item, Decision.OVERTURNED, undo_seconds=0)
    settle(sessions)
    with sessions.begin() as session:
        assert session.get_one(ReviewOutcome, item).decision == "overturned"
        assert session.scalar(select(func.count()).select_from(QueueEntry)) == 0


def test_only_flags_of_the_old_version_are_reopened(
    sessions: Sessions, storage: Storage, work: Callable[[], int]
) -> None:
    submitted(sessions, storage, POLICY, HOUSE)
    work()
    mild = with_threshold(0.9)
    gun = mild.classes[1].model_copy(update={"threshold": 0.9})
    mild = mild.model_copy(update={"classes": (mild.classes[0], gun)})
    old, new = expected(POLICY), expected(mild)
    lost = [f for f in HOUSE if old[f] is Verdict.FLAGGED and new[f] is Verdict.CLEAR]
    clear = next(f for f in HOUSE if old[f] is Verdict.CLEAR)
    confirmed(sessions, [*lost[:2], clear], "gun")
    with sessions.begin() as session:
        entry = ListEntry(
            kind="block", class_name="gun", match="digest", image_digest="cd" * 32, reason="ours"
        )
        entry.created_by = ANNA
        session.add(entry)
        session.flush()
        session.execute(update(Item).where(Item.source == lost[1]).values(list_entry_id=entry.id))
    proposed(sessions, mild, Flags.REOPEN)
    assert reconsider_with(sessions, Seeker(), lambda: None) == 1
    with sessions.begin() as session:
        case = session.execute(
            select(Item.source, ReviewCase.class_name)
            .join(Item, Item.id == ReviewCase.item_id)
            .join(LedgerEntry, LedgerEntry.item_id == Item.id)
            .where(LedgerEntry.event == Event.REOPENED)
        ).one()
    assert tuple(case) == (lost[0], "gun")  # what people confirmed, not what scored highest


def confirmed(sessions: Sessions, files: Sequence[str], class_name: str) -> None:
    """Flags, each of which a person has let stand for this class."""
    anna = colleague(sessions, "anna")
    with sessions.begin() as session:
        items = session.scalars(select(Item).where(Item.source.in_(files))).all()
        session.execute(delete(ReviewCase).where(ReviewCase.item_id.in_([i.id for i in items])))
        for item in items:
            assert item.image_id is not None
            item.verdict = Verdict.FLAGGED
            review = Review(item_id=item.id, stage="first", person_id=anna.id, seconds=1.0)
            review.decision, review.revealed = "confirmed", True
            review.effective_at = datetime.now(UTC)
            session.add(review)
            session.flush()
            about = {"item_id": item.id, "image_id": item.image_id, "class_name": class_name}
            session.add(
                ReviewOutcome(**about, decision="confirmed", sampled=False, review_id=review.id)
            )
