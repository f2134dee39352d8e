"""The words of statements: of every decision, in every language, and what a policy may say."""

import itertools
import re

import pytest
import yaml

from filter_service.canonical import canonical
from filter_service.errors import InvalidPolicy
from filter_service.policy import Policy, parse_policy
from filter_service.policy.statement_grounds import (
    Account,
    CodedWord,
    Monetary,
    NoticeSource,
    Provision,
    Visibility,
)
from filter_service.reviews.hash_matching import Match
from filter_service.statements import wording
from filter_service.statements.explanation_summary import PLACES, ExplanationSummary
from filter_service.statements.payload import document
from filter_service.statements.reasons import DecisionMaker, Strength
from filter_service.statements.validation import check
from tests.support.statements import (
    POLICY,
    policy,
    reasons,
    with_class,
)

CLAUSE = "    clause: Pictures of weapons are not allowed.\n"


@pytest.mark.parametrize(
    "said",
    [
        "We removed the picture.",
        "It has no end date",
        "in Austria, Germany and France",
        "“Pictures of weapons are not allowed.” (Rules, section 4)",
        "Nobody had reported the picture to us.",
        "A computer program found the picture. People made the decision.",
        "You have 184 days",
        "https://marketplace.example/complaints",
        "The Council for Disputes Online (https://disputes.example)",
        "You can go to court.",
        "Article 17",
        "Wir haben das Bild entfernt.",
        "Sie können sich bei uns beschweren.",
    ],
)
def test_the_notice_tells_what_the_law_asks(said: str) -> None:
    assert said in wording.notice(reasons())


def test_redress_is_told_to_users_only() -> None:
    said = canonical(document(reasons(), wording.facts(reasons(), "en")))
    assert not any(word in said for word in ("complaint", "court", "disputes"))


DECISIONS: list[tuple[DecisionMaker, DecisionMaker, str | None]] = [
    (DecisionMaker.MODEL, DecisionMaker.PERSON, None),
    (DecisionMaker.PERSON, DecisionMaker.PERSON, None),
    (DecisionMaker.MODEL, DecisionMaker.MODEL, None),
    *(
        (found, DecisionMaker.LIST, match)
        for found in (DecisionMaker.MODEL, DecisionMaker.LIST)
        for match in Match
    ),
]
EVIDENCE = (
    None,
    ExplanationSummary((), None, (), tested=False, faithful=False),
    ExplanationSummary(("top",), "a gun", ("gun",), tested=True, faithful=False),
    ExplanationSummary(PLACES[:3], "a big gun", ("big", "gun"), tested=True, faithful=True),
)


@pytest.mark.parametrize("languages", [["en"], ["de"], ["de", "en"]], ids="-".join)
@pytest.mark.parametrize("name", ["gun", "knife"])
def test_every_generated_statement_keeps_every_rule(name: str, languages: list[str]) -> None:
    policies = itertools.cycle(
        [policy(languages=languages, source=source) for source in NoticeSource]
    )
    for decision, probability, evidence in itertools.product(DECISIONS, (0.5, 0.9, 1.0), EVIDENCE):
        found_by, decided_by, match = decision
        made = reasons(
            name,
            next(policies),
            found_by=found_by,
            decided_by=decided_by,
            match=match,
            strength=Strength(probability, 0.5, probability * 4 - 2, calibrated=name == "knife"),
            evidence=evidence,
        )
        facts = wording.facts(made, made.notices.languages[0])
        assert check(document(made, facts)) == []
        text = wording.notice(made)
        assert len(wording.parts(text)) == len(languages)
        assert not re.search(r"[{}]| ,| \.(?!\d)|None|\n\n\n|  ", text), text


@pytest.mark.parametrize("field", ["visibility", "monetary", "provision", "account"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_every_restriction_has_its_words(field: str, language: str) -> None:
    words: dict[str, type[CodedWord]] = {
        "visibility": Visibility,
        "monetary": Monetary,
        "provision": Provision,
        "account": Account,
    }
    for word in words[field]:
        other = {f"{field}_other": "Something else happens."} if word == "other" else {}
        value = [word.value] if field == "visibility" else word.value
        known = yaml.safe_load(POLICY)
        stated = known["classes"][0]["statement"]
        known["notices"]["languages"] = [language]
        del stated["visibility"]
        stated |= {field: value, **other}
        made = reasons("gun", parse_policy(yaml.safe_dump(known)))
        assert check(document(made, wording.facts(made, "en"))) == []
        assert len(wording.parts(wording.notice(made))[0]) > 10


def test_a_statement_is_a_page_of_its_own() -> None:
    known = policy(platform="<b>Market</b> & place")
    made = wording.notice(reasons(of=known))
    page = wording.page(made, ["en", "de"])
    assert "&lt;b&gt;Market&lt;/b&gt; &amp; place" in page
    assert page.count("<h1>") == 2
    assert '<section lang="de">' in page
    assert "src=" not in page
    assert "href=" not in page


def test_sentences_are_short_enough_to_read() -> None:
    for language in ("en", "de"):
        text = wording.notice(reasons(of=policy(languages=[language])))
        sentences = [s for s in re.split(r"[.:!?]\s|\n", text) if s.strip()]
        lengths = sorted(len(s.split()) for s in sentences)
        assert sum(lengths) / len(lengths) < 12
        assert lengths[-1] <= 30


# What is refused.


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            POLICY.replace("    clause: Pictures of weapons are not allowed.\n", ""),
            "needs the clause",
        ),
        (POLICY.replace("Pictures of weapons", "a" * 500), "a statement quotes 500 at most"),
        (with_class(ground="illegal", reference=None), "needs a legal_ground"),
        (with_class(legal_ground="a law"), "legal_ground is for what is illegal"),
        (with_class(ground="illegal", legal_ground="a law"), "reference and also_illegal are for"),
        (with_class(visibility=[]), "nothing is restricted"),
        (with_class(visibility=["other"]), "say in visibility_other what it is"),
        (with_class(visibility_other="gone"), "visibility does not say other"),
        (with_class(monetary="other"), "say in monetary_other what it is"),
        (with_class(keywords=["other"]), "say in keyword_other what it is"),
        (with_class(keywords=["nudity"]), "'nudity' is no keyword of violence"),
        (with_class(keywords=["rudeness"]), "'rudeness' is no keyword"),
        (with_class(category="rudeness"), "statement.category"),
        (with_class(days=0), "statement.days"),
        (with_class(explanation=""), "statement.explanation"),
        (POLICY.replace("[DE, AT, FR]", "[DE, US]"), "'US' is no country of the EEA"),
        (POLICY.replace("[en, de]", "[en, tlh]"), "notices.languages"),
        (POLICY + "  complaint_days: 183\n", "notices.complaint_days"),
        (POLICY.replace("https://marketplace.example/rules/7", "rules"), "notices.terms_url"),
        (
            POLICY.replace("severity: high", "sealed: {days: 365}"),
            "what is sealed is never told of",
        ),
    ],
)
def test_a_policy_that_cannot_be_stated_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidPolicy, match=re.escape(said)):
        parse_policy(text)


def test_the_mapping_belongs_to_the_policys_digest() -> None:
    known = policy()
    assert parse_policy(POLICY).digest == known.digest
    assert policy(complaint_days=200).digest != known.digest
    without = known.model_copy(update={"notices": None})
    assert "notices" not in without.model_dump(mode="json")
    assert Policy.model_validate_json(known.model_dump_json()).digest == known.digest
