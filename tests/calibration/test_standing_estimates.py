"""Estimates that a job keeps: made after new labels, read by pages, figures and commands."""

import re
from dataclasses import asdict

import numpy as np
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from filter_service.accounts import Role
from filter_service.audit import transparency
from filter_service.audit.transparency import Period
from filter_service.calibration import labels
from filter_service.calibration.estimates import class_estimates
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.calibration.reliability import probability_agreement
from filter_service.calibration.standing_estimates import METHOD, refresh, standing_estimates
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.policy import Calibration, Policy
from filter_service.reviews.case_claims import claim
from filter_service.reviews.decisions import decide
from filter_service.reviews.review_rules import RuleKind, add_rule
from filter_service.reviews.settlement import Decision, settle
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.judged_stream import judge_stream
from tests.support.margin_worlds import reviewed
from tests.support.review_cases import LEASE, POLICY, colleague, one_case
from tests.support.web_clients import client_of, web_service

KNOWN = reviewed(seed=4, count=3_000)  # more than a page would read


@pytest.fixture
def labelled(sessions: Sessions) -> list[int]:
    """Images of the house's policy, of which people said whether they show a gun."""
    return label(sessions, POLICY)


def label(sessions: Sessions, policy: Policy) -> list[int]:
    with sessions.begin() as session:
        of = store_policy(session, policy), "gun"
        encoder = register_encoder(session, "ab" * 32, "simple", 4, {})
        images = judge_stream(session, of, encoder, KNOWN.margins.tolist())
        told = zip(images, KNOWN.truths.tolist(), KNOWN.chances.tolist(), strict=True)
        labels.keep(session, [ClassLabel(i, "gun", t, LabelSource.FLAG, c) for i, t, c in told])
    return images


def test_all_labels_are_used_and_kept_as_they_come_out(
    sessions: Sessions, labelled: list[int]
) -> None:
    assert refresh(sessions) == 1
    (found,) = standing_estimates(sessions)
    assert found.labels == len(labelled)
    assert found.estimates == class_estimates(KNOWN.margins, KNOWN.truths, KNOWN.chances, 0.0)


def test_nothing_is_made_anew_before_something_is_new(
    sessions: Sessions, labelled: list[int]
) -> None:
    assert [refresh(sessions) for _ in range(2)] == [1, 0]
    with sessions.begin() as session:
        labels.keep(session, [ClassLabel(labelled[0], "gun", True, LabelSource.FLAG, 1.0)])
    assert [refresh(sessions) for _ in range(2)] == [1, 0]
    with sessions.begin() as session:
        session.execute(text("UPDATE class_estimates SET at = at - interval '2 hours'"))
    assert refresh(sessions) == 1


def test_labels_that_are_gone_leave_no_estimate(sessions: Sessions, labelled: list[int]) -> None:
    refresh(sessions)
    with sessions.begin() as session:
        for image in labelled:
            labels.forget(session, image)
    refresh(sessions)
    assert standing_estimates(sessions) == []


def test_probabilities_are_measured_under_the_calibration_that_judges(sessions: Sessions) -> None:
    line = Calibration(a=0.9, b=-2.0)
    gun, *others = POLICY.classes
    calibrated = gun.model_copy(update={"calibration": line})
    label(sessions, POLICY.model_copy(update={"classes": (calibrated, *others)}))
    refresh(sessions)
    (found,) = standing_estimates(sessions)
    logits = 0.9 * KNOWN.margins - 2.0
    expected = probability_agreement(1 / (1 + np.exp(-logits)), KNOWN.truths, logits >= 0)
    assert found.calibrated
    assert found.agreement.brier.value == pytest.approx(expected.brier.value)
    assert found.agreement.flagged_error is not None and expected.flagged_error is not None
    assert found.agreement.flagged_error.value == pytest.approx(expected.flagged_error.value)
    assert len(found.agreement.bins) == 10


def test_figures_give_each_class_with_interval_sample_and_method(
    sessions: Sessions, labelled: list[int]
) -> None:
    refresh(sessions)
    (found,) = standing_estimates(sessions)
    report = transparency.report(sessions, Period.of(None, None))
    given = report.document()["estimates"]
    assert (given["confidence"], given["method"]) == (0.9, METHOD)
    (row,) = given["classes"]
    assert (row["class"], row["policy"], row["labels"]) == ("gun", "house", len(labelled))
    assert row["recall"] == asdict(found.estimates.recall)
    assert row["recall"]["low"] < row["recall"]["value"] < row["recall"]["high"]
    hidden = transparency.report(sessions, Period.of(None, None), ["knife"])
    assert hidden.document()["estimates"]["classes"] == []


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


def words(page: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_page_says_how_well_probabilities_hold(
    sessions: Sessions, app: FastAPI, labelled: list[int]
) -> None:
    refresh(sessions)
    (found,) = standing_estimates(sessions)
    page = client_of(app, sessions, Role.MODERATOR).get("/accuracy").text
    brier = found.agreement.brier
    assert f"Brier score {brier.value:.3f} {brier.low:.3f} to {brier.high:.3f}" in words(page)
    assert "Uncalibrated" in words(page) and '<svg class="chart square"' in page
    hidden = client_of(app, sessions, Role.MODERATOR, "knives", classes=("knife",))
    assert "gun" not in words(hidden.get("/accuracy").text)


def test_seniors_see_how_reviewers_agree_and_others_do_not(
    sessions: Sessions, app: FastAPI
) -> None:
    add_rule(sessions, colleague(sessions, "boss", Role.ADMIN), RuleKind.SECOND_LOOK)
    item = one_case(sessions)
    for login in ("ada", "ben"):
        person = colleague(sessions, login)
        claim(sessions, person, item, LEASE)
        decide(sessions, person, item, Decision.CONFIRMED, undo_seconds=0)
        settle(sessions)
    page = client_of(app, sessions, Role.SENIOR).get("/accuracy").text
    assert "ada 100 %" in words(page)
    knives = client_of(app, sessions, Role.SENIOR, "knives", classes=("knife",))
    assert "ada" not in words(knives.get("/accuracy").text)
    assert "ada" not in words(client_of(app, sessions, Role.MODERATOR).get("/accuracy").text)
