"""Statements of reasons: which decision asks for one, what it says, and what ends it."""

import re
import uuid
from datetime import UTC, date, datetime
from hashlib import sha256

import pytest
from sqlalchemy import update

from filter_service import ledger, retention
from filter_service.accounts import Role
from filter_service.canonical import canonical
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Person, ReviewOutcome, StoredStatement
from filter_service.errors import InvalidStatement, UnknownItem
from filter_service.policy import Policy, parse_policy
from filter_service.reviews import hash_lists, review_rules
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.hash_lists import NewListEntry
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.reviews.settlement import Decision
from filter_service.statements.issuance import issue, issue_due, problems, statements_of
from filter_service.statements.issue_queue import note
from filter_service.statements.validation import check
from tests.support.proofs import FAILED
from tests.support.review_cases import colleague, events_of
from tests.support.statements import (
    decided,
    explained,
    explanation,
    items_of,
    policy,
    statements,
    waiting,
    with_class,
)

CONFIRMED, OVERTURNED = Decision.CONFIRMED, Decision.OVERTURNED


@pytest.fixture
def anna(sessions: Sessions) -> Person:
    return colleague(sessions, "anna")


def one(sessions: Sessions, item_id: int) -> StoredStatement:
    issue_due(sessions)
    return statements(sessions, item_id)[0]


def revealing() -> Policy:
    """A policy whose statements would name somebody."""
    return parse_policy(with_class(explanation="Ask anna@example.org why."))


def listed(sessions: Sessions, match: Match = Match.DIGEST, of: Policy | None = None) -> int:
    """An item whose picture a list forbids."""
    (item,) = items_of(sessions, "gun", of=of)
    sue = colleague(sessions, f"sue-{match}", Role.SENIOR)
    entered = NewListEntry(ListKind.BLOCK, "gun", match, item, reason="seen before")
    assert hash_lists.add_entry(sessions, sue, entered, decide_waiting=True).decided == 1
    return item


def test_a_confirmed_flag_is_stated_once(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    assert waiting(sessions) == [item]
    assert [issue_due(sessions), issue_due(sessions)] == [1, 0]
    assert issue(sessions, item).new is False
    assert waiting(sessions) == []
    (stated,) = statements(sessions)
    assert stated.document["puid"] == str(stated.puid)
    assert check(stated.document) == []


def test_the_ledger_commits_to_document_and_notice(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    stated = one(sessions, item)
    with sessions.begin() as session:
        entry = ledger.of_item(session, item)[-1]
    assert (entry.event, entry.actor) == ("stated", "service")
    assert entry.details["document"] == sha256(canonical(stated.document).encode()).hexdigest()
    assert entry.details["notice"] == sha256(stated.notice.encode()).hexdigest()
    assert entry.details["puid"] == str(stated.puid)


@pytest.mark.parametrize(
    ("sampled", "decision"), [(False, OVERTURNED), (True, CONFIRMED)], ids=["cleared", "clear"]
)
def test_what_is_not_restricted_is_not_stated(
    sessions: Sessions, anna: Person, sampled: bool, decision: Decision
) -> None:
    (item,) = items_of(sessions, "gun", sampled=sampled)
    decided(sessions, anna, item, decision)
    assert issue_due(sessions) == 0
    assert waiting(sessions) == []


def test_a_class_without_a_mapping_is_not_stated(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "fork")
    decided(sessions, anna, item)
    assert issue_due(sessions) == 0


def test_a_policy_without_notices_sends_none(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun", of=policy().model_copy(update={"notices": None}))
    decided(sessions, anna, item)
    assert issue_due(sessions) == 0
    assert waiting(sessions) == []


def test_an_upheld_appeal_changes_nothing(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    before = one(sessions, item)
    open_appeal(sessions, item, "It is a toy.", "key shop")
    decided(sessions, colleague(sessions, "ben"), item)
    assert issue_due(sessions) == 0
    assert [s.puid for s in statements(sessions)] == [before.puid]


def test_an_overturned_flag_ends_its_statement(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    before = one(sessions, item)
    open_appeal(sessions, item, "It is a toy.", "key shop")
    decided(sessions, colleague(sessions, "ben"), item, OVERTURNED)
    assert issue_due(sessions) == 1
    (after,) = statements(sessions)
    assert after.withdrawn_at is not None
    assert (after.document, after.notice) == (before.document, before.notice)
    assert events_of(sessions, item)[-1] == "statement withdrawn"


def test_a_new_restriction_gets_a_new_statement(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    first = one(sessions, item)
    with sessions.begin() as session:  # lifted, and later imposed anew by a decision of its own
        outcome = session.get_one(ReviewOutcome, item)
        outcome.decision = OVERTURNED
        note(session, [item])
    assert issue_due(sessions) == 1
    with sessions.begin() as session:
        outcome = session.get_one(ReviewOutcome, item)
        outcome.decision, outcome.review_id = CONFIRMED, None
        note(session, [item])
    assert issue_due(sessions) == 1
    now = statements_of(sessions, item)
    assert len({s.puid for s in now}) == 2
    assert now[0].withdrawn_at is None
    assert now[1].puid == first.puid


# Who found it and who decided, as the database asks.

SAID = ("automated_detection", "automated_decision")


def test_a_persons_decision_is_partly_automated(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    said = one(sessions, item).document
    assert [said[f] for f in SAID] == ["Yes", "AUTOMATED_DECISION_PARTIALLY"]
    assert "A person looked at the case" in said["decision_facts"]


def test_a_find_in_a_sample_is_not_automated(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun", sampled=True)
    decided(sessions, anna, item, OVERTURNED)
    stated = one(sessions, item)
    assert [stated.document[f] for f in SAID] == ["No", "AUTOMATED_DECISION_NOT_AUTOMATED"]
    assert "checked at random" in stated.document["decision_facts"]
    assert "No computer program found the picture." in stated.notice


def test_a_lists_decision_is_fully_automated(sessions: Sessions) -> None:
    item = listed(sessions)
    stated = one(sessions, item)
    assert [stated.document[f] for f in SAID] == ["Yes", "AUTOMATED_DECISION_FULLY"]
    assert "exactly the same file" in stated.document["decision_facts"]
    assert stated.review_id is None
    assert "You can ask for a person" in stated.notice


@pytest.mark.parametrize("language", ["en", "de"])
def test_what_the_model_found_stays_its_find(
    sessions: Sessions, anna: Person, language: str
) -> None:
    (item,) = items_of(sessions, "gun", of=policy(languages=[language]))
    decided(sessions, anna, item)
    with sessions.begin() as session:  # as erasing leaves it, or an explanation's expiry
        session.execute(update(Item).where(Item.id == item).values(margin=None, probability=None))
    stated = one(sessions, item)
    assert [stated.document[f] for f in SAID] == ["Yes", "AUTOMATED_DECISION_PARTIALLY"]
    found = "Ein Computerprogramm" if language == "de" else "A computer program"
    facts = stated.document["decision_facts"]
    assert facts.startswith(f"{found}") and " 100" not in facts


def test_what_a_list_found_stays_its_find(sessions: Sessions, anna: Person) -> None:
    item = listed(sessions)
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id == item).values(margin=None, probability=None))
    open_appeal(sessions, item, "It is a toy.", "key shop")
    decided(sessions, anna, item)
    stated = one(sessions, item)
    assert [stated.document[f] for f in SAID] == ["Yes", "AUTOMATED_DECISION_PARTIALLY"]
    assert "matched a picture that had been forbidden" in stated.document["decision_facts"]


def test_nothing_is_stated_of_what_was_erased(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    retention.request(sessions, item, "asked for", "service")
    assert (waiting(sessions), issue_due(sessions)) == ([], 0)


def test_what_was_erased_is_still_withdrawn(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    one(sessions, item)
    open_appeal(sessions, item, "It is a toy.", "key shop")
    decided(sessions, colleague(sessions, "ben"), item, OVERTURNED)
    retention.request(sessions, item, "asked for", "service")
    assert issue_due(sessions) == 1
    assert statements(sessions)[0].withdrawn_at is not None


def test_several_looks_are_told(sessions: Sessions, anna: Person) -> None:
    review_rules.add_rule(
        sessions, colleague(sessions, "sue", Role.SENIOR), review_rules.RuleKind.SECOND_LOOK
    )
    (item,) = items_of(sessions, "gun")
    decided(sessions, anna, item)
    assert issue_due(sessions) == 0
    decided(sessions, colleague(sessions, "ben"), item)
    assert "2 people looked at the case" in one(sessions, item).document["decision_facts"]


def test_a_platform_may_act_on_flags(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun", of=policy(acts_on="flag"))
    with sessions.begin() as session:
        note(session, [item])
    stated = one(sessions, item)
    assert [stated.document[f] for f in SAID] == ["Yes", "AUTOMATED_DECISION_FULLY"]
    decided(sessions, anna, item)
    assert issue_due(sessions) == 0, "the restriction is the same"
    with sessions.begin() as session:
        session.get_one(ReviewOutcome, item).decision = OVERTURNED
        note(session, [item])
    assert issue_due(sessions) == 1
    with sessions.begin() as session:
        session.get_one(ReviewOutcome, item).decision = CONFIRMED
        note(session, [item])
    assert issue_due(sessions) == 1
    newest = statements_of(sessions, item)[0]
    assert newest.document["automated_decision"] == "AUTOMATED_DECISION_PARTIALLY"


def test_the_puid_is_of_the_decision_alone(sessions: Sessions, anna: Person) -> None:
    items = items_of(sessions, "gun", "gun")
    for item in items:
        decided(sessions, anna, item)
    issue_due(sessions)
    assert len({s.puid for s in statements(sessions)}) == 2
    assert {s.puid.version for s in statements(sessions)} == {5}
    stated = statements(sessions)[0]
    with sessions.begin() as session:
        batch = session.get_one(Item, stated.item_id).batch_id
    assert stated.puid == uuid.uuid5(batch, f"review {stated.review_id}")


# What it says.


def test_the_explanation_is_told_in_words(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    explained(sessions, item)
    decided(sessions, anna, item)
    stated = one(sessions, item)
    facts = stated.document["decision_facts"]
    assert "88 of 100, where the limit is 50" in facts
    assert "the description “a gun”, above all from the word “gun”" in facts
    assert "the upper left counted most" in facts
    assert "This was tested: without the parts that counted most" in facts
    assert "links oben" in stated.notice


def test_a_map_that_failed_its_test_is_doubted(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    explained(sessions, item, proof=FAILED.model_dump(mode="json"))
    decided(sessions, anna, item)
    assert "the test did not confirm it" in one(sessions, item).document["decision_facts"]


def test_every_field_of_a_mapping_is_sent(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "knife")
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id == item).values(content_date=date(2026, 1, 31)))
    decided(sessions, anna, item)
    said = one(sessions, item).document
    today = datetime.now(UTC).date()
    assert said["content_date"] == "2026-01-31"
    assert said["application_date"] == str(today)
    ends = {v for k, v in said.items() if k.startswith("end_date")}
    assert ends == {str(date.fromordinal(today.toordinal() + 90))}
    assert said["illegal_content_legal_ground"] == "Weapons Act, section 42a"
    assert said["category_specification_other"] == "knives"
    assert said["territorial_scope"] == ["AT", "DE", "FR"]
    assert said["decision_account"] == "DECISION_ACCOUNT_SUSPENDED"
    assert "incompatible_content_ground" not in said


def test_personal_data_stops_a_statement(sessions: Sessions, anna: Person) -> None:
    said = "decision_facts holds an e-mail address (anna@example.org)"
    (item,) = items_of(sessions, "gun")
    words = explanation().words[0].model_copy(update={"prompt": "a gun of anna@example.org"})
    explained(sessions, item, words=[words.model_dump(mode="json")])
    decided(sessions, anna, item)
    assert issue_due(sessions) == 0
    ((waits, problem),) = problems(sessions)
    assert (waits, statements(sessions)) == (item, [])
    assert said in problem
    assert issue_due(sessions) == 0, "it waits until somebody asks"
    with pytest.raises(InvalidStatement, match=re.escape(said)):
        issue(sessions, item)


def test_a_persons_name_stops_a_statement(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    words = explanation().words[0].model_copy(update={"prompt": "Anna with a gun"})
    explained(sessions, item, words=[words.model_dump(mode="json")])
    decided(sessions, anna, item)
    with pytest.raises(InvalidStatement, match=r"It holds a name \(anna\)"):
        issue(sessions, item)


def test_a_users_own_words_stop_a_statement(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    words = explanation().words[0].model_copy(update={"prompt": "a toy of my small son"})
    explained(sessions, item, words=[words.model_dump(mode="json")])
    decided(sessions, anna, item)
    open_appeal(sessions, item, "This is a toy of my small son.", "key shop")
    with pytest.raises(InvalidStatement, match="words of a user"):
        issue(sessions, item)


def test_one_that_fails_stops_none_behind(sessions: Sessions, anna: Person) -> None:
    (bad,) = items_of(sessions, "gun", of=revealing())
    (good,) = items_of(sessions, "gun")
    decided(sessions, anna, bad)
    decided(sessions, anna, good)
    assert issue_due(sessions) == 1
    assert [s.item_id for s in statements(sessions)] == [good]
    assert waiting(sessions) == [bad]


def test_a_later_decision_tries_again(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun", of=revealing())
    decided(sessions, anna, item)
    issue_due(sessions)
    open_appeal(sessions, item, "It is a toy.", "key shop")
    decided(sessions, colleague(sessions, "ben"), item, OVERTURNED)
    issue_due(sessions)
    assert waiting(sessions) == []


def test_nothing_of_file_and_people_is_told(sessions: Sessions, anna: Person) -> None:
    (item,) = items_of(sessions, "gun")
    with sessions.begin() as session:
        session.execute(update(Item).where(Item.id == item).values(source="ben-meier-1981.jpg"))
    decided(sessions, anna, item)
    stated = one(sessions, item)
    everything = f"{canonical(stated.document)} {stated.notice}".lower()
    assert not [n for n in ("meier", "1981", "anna", ".jpg") if n in everything]


def test_an_item_that_is_not_there_has_no_statement(sessions: Sessions) -> None:
    for ask in (issue, statements_of):
        with pytest.raises(UnknownItem):
            ask(sessions, 99)
