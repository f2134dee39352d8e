"""Transparency figures: as counted by hand, with intervals as scipy has them."""

import json
from datetime import timedelta
from statistics import median
from typing import Any

import pytest
from fastapi import FastAPI
from scipy.stats import binomtest
from sqlalchemy import insert

from filter_service.accounts import Role
from filter_service.audit import transparency
from filter_service.audit.transparency import Period, TransparencyReport
from filter_service.calibration.intervals import Stratum, stratified, wilson
from filter_service.db.session import Sessions
from filter_service.db.tables import ReviewRule
from filter_service.errors import InvalidRequest
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.console import transparency as pages
from tests.support.decided_world import AUTHOR, START, Told, Writer, random_world
from tests.support.web_clients import app_of, client_of, key_client, web_service

DAY = timedelta(days=1)
PERIOD = Period(START + 3 * DAY, START + 12 * DAY)
FOREVER = Period(START - DAY, START + 365 * DAY)


def rule(sessions: Sessions, share: float, **more: Any) -> None:
    values = {"kind": "clear_sample", "created_by": AUTHOR, "created_at": START - 9 * DAY}
    with sessions.begin() as session:
        session.execute(insert(ReviewRule).values(**(values | {"share": share} | more)))


@pytest.mark.parametrize(("hits", "seen"), [(0, 1), (0, 50), (1, 7), (13, 200), (50, 50), (7, 9)])
def test_the_interval_is_wilsons(hits: int, seen: int) -> None:
    found = wilson(hits, seen)
    expected = binomtest(hits, seen).proportion_ci(0.95, method="wilson")
    assert found is not None
    assert found.value == hits / seen
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_seen_is_no_share() -> None:
    assert wilson(0, 0) is None
    assert stratified([Stratum(100, 0, 0)]) is None


def test_strata_that_are_alike_are_one_sample() -> None:
    together = stratified([Stratum(1000, 50, 5), Stratum(2000, 100, 10)])
    once = wilson(15, 150)
    assert together is not None
    assert once is not None
    assert (together.value, together.low, together.high) == pytest.approx(
        (once.value, once.low, once.high)
    )


def test_a_stratum_counts_for_its_size_not_its_sample() -> None:
    found = stratified([Stratum(900, 10, 1), Stratum(100, 100, 50), Stratum(5000, 0, 0)])
    assert found is not None
    assert found.value == pytest.approx(0.9 * 0.1 + 0.1 * 0.5)
    narrow = wilson(51, 110)
    assert narrow is not None
    assert found.high - found.low > narrow.high - narrow.low


def test_the_interval_holds_what_it_says() -> None:
    """Drawn 2,000 times from strata with shares of 2 % and 20 %; 95 % is what it promises."""
    import numpy as np

    rng = np.random.default_rng(5)
    cases, share, wrong = (9000, 1000), (0.02, 0.2), (0.01, 0.05)
    truth = sum(n * w for n, w in zip(cases, wrong, strict=True)) / sum(cases)
    held = 0
    for _ in range(2000):
        seen = [int(rng.binomial(n, s)) for n, s in zip(cases, share, strict=True)]
        hits = [int(rng.binomial(n, w)) for n, w in zip(seen, wrong, strict=True)]
        found = stratified([Stratum(*s) for s in zip(cases, seen, hits, strict=True)])
        held += found is not None and found.low <= truth <= found.high
    assert held / 2000 > 0.94


def within(at: Any, period: Period) -> bool:
    return at is not None and period.since <= at < period.until


def by_hand(world: list[Told], period: Period) -> dict[str, float | None]:
    """The figures again, from what was written."""
    judged = [t for t in world if within(t.judged_at, period)]
    ruled = [t for t in judged if t.verdict is not Verdict.UNDETERMINED]
    flagged = [t for t in ruled if t.verdict is Verdict.FLAGGED]
    reviewed = [t for t in flagged if t.by == "people"]
    settled = [
        t.decision
        for t in world
        if t.by == "people" and not t.sampled and within(t.decided_at, period)
    ]
    deciding = [t for t in world if t.by == "people" and within(t.decided_at, period)]
    answered = [t.appeal for t in world if t.appeal and within(t.appeal[1], period)]
    sample = [t for t in ruled if t.sampled]
    upheld = sum(a[2] for a in answered)
    return {
        "submitted": sum(within(t.submitted_at, period) for t in world),
        "judged": len(ruled),
        "flagged": len(flagged),
        "undetermined": len(judged) - len(ruled),
        "by_model": sum(t.by == "nobody" for t in ruled),
        "fully_automated": 0,
        "by_lists": sum(t.by == "list" for t in ruled),
        "by_people": sum(t.by == "people" for t in ruled),
        "automated_share": sum(t.by != "people" for t in ruled) / len(ruled),
        "confirmed": settled.count("confirmed"),
        "overturned": settled.count("overturned"),
        "overturn_rate": settled.count("overturned") / len(settled),
        "precision": sum(t.decision == "confirmed" for t in reviewed) / len(reviewed),
        "sample": len(sample),
        "missed_share": sum(t.decision == "overturned" for t in sample) / len(sample),
        "missed": sum(t.decision == "overturned" for t in sample)
        / len(sample)
        * (len(ruled) - len(flagged)),
        "appeals_opened": sum(within(t.appeal[0], period) for t in world if t.appeal),
        "appeals_upheld": upheld,
        "appeals_reversed": len(answered) - upheld,
        "reversal_rate": (len(answered) - upheld) / len(answered),
        "appeal_rate": sum(t.appeal is not None for t in flagged) / len(flagged),
        "verdict_seconds": median((t.judged_at - t.submitted_at).total_seconds() for t in judged),
        "decision_seconds": median(
            (t.decided_at - t.judged_at).total_seconds()
            for t in deciding
            if t.verdict is Verdict.FLAGGED and t.decided_at
        ),
        "claim_seconds": median(t.seconds or 0.0 for t in deciding),
        "appeal_seconds": median((a[1] - a[0]).total_seconds() for a in answered),
    }


def test_what_was_drawn_for_being_near_alone_is_no_part_of_the_share_missed(
    sessions: Sessions,
) -> None:
    writer = Writer(sessions)
    rule(sessions, 0.5)
    rule(sessions, 0.9, margin_below=2.0)
    batch = writer.batch()
    clear = [writer.item(batch, Verdict.CLEAR) for _ in range(20)]
    for number, item in enumerate(clear):
        evenly = number < 10
        decision = "confirmed" if evenly else "overturned"
        writer.decided(item, decision, START, sampled=True, evenly=evenly)
    found = values(transparency.report(sessions, FOREVER))
    assert (found["sample"], found["missed_share"]) == (10, 0)


def values(report: TransparencyReport) -> dict[str, float | None]:
    return {f.key: f.value for s in report.sections for f in s.figures}


@pytest.mark.parametrize("period", [PERIOD, FOREVER])
def test_figures_are_as_counted_by_hand(sessions: Sessions, period: Period) -> None:
    world = random_world(sessions, 250)
    rule(sessions, 0.5)
    report = transparency.report(sessions, period)
    assert values(report) == pytest.approx(by_hand(world, period))
    flagged = [t for t in world if t.verdict is Verdict.FLAGGED and within(t.judged_at, period)]
    for row in report.classes:
        of_class = [t for t in flagged if t.class_name == row.name]
        reviewed = [t for t in of_class if t.by == "people"]
        assert row.flagged == len(of_class)
        assert row.confirmed == sum(t.decision == "confirmed" for t in reviewed)
        assert row.confirmed + row.overturned == len(reviewed)


def test_every_figure_says_what_it_means_and_rates_how_sure(sessions: Sessions) -> None:
    random_world(sessions, 80)
    rule(sessions, 0.5)
    document = transparency.report(sessions, FOREVER).document()
    assert json.loads(json.dumps(document)) == document
    for key, figure in document["figures"].items():
        assert figure["definition"].endswith("."), key
        if figure["unit"] == "share" and key != "automated_share":
            assert figure["low"] < figure["value"] < figure["high"]


def test_an_empty_period_has_no_rates_and_says_why(sessions: Sessions) -> None:
    report = transparency.report(sessions, FOREVER)
    assert values(report)["judged"] == 0
    for figure in (f for s in report.sections for f in s.figures if f.unit != "items"):
        assert figure.value is None
        assert figure.note.endswith(".")


def some_clear(writer: Writer, count: int, at: Any, seen: int, missed: int) -> None:
    batch = writer.batch()
    for n in range(count):
        item = writer.item(batch, Verdict.CLEAR, judged_at=at)
        if n < seen:
            writer.decided(
                item, "overturned" if n < missed else "confirmed", at + DAY, sampled=True
            )


def test_where_no_sample_is_drawn_there_is_no_estimate(sessions: Sessions) -> None:
    some_clear(Writer(sessions), 5, START, 0, 0)
    found = transparency.report(sessions, FOREVER)["missed_share"]
    assert found.value is None
    assert "No estimate is possible: no clear item could be drawn" in found.note


def test_a_sample_that_nobody_has_looked_at_is_no_estimate(sessions: Sessions) -> None:
    some_clear(Writer(sessions), 5, START, 0, 0)
    rule(sessions, 0.5)
    found = transparency.report(sessions, FOREVER)["missed_share"]
    assert found.value is None
    assert "nobody has decided" in found.note


def test_unequal_shares_are_weighted(sessions: Sessions) -> None:
    """While one rule held 8 of 10 were seen, none wrong; later 2 of 20, one of them wrong."""
    writer = Writer(sessions)
    rule(sessions, 0.8, removed_at=START + DAY)
    rule(sessions, 0.1, created_at=START + DAY)
    some_clear(writer, 10, START, 8, 0)
    some_clear(writer, 20, START + 2 * DAY, 2, 1)
    report = transparency.report(sessions, FOREVER)
    share = report["missed_share"]
    assert share.value == pytest.approx(20 * 0.5 / 30)
    assert report["missed"].value == pytest.approx(10)
    expected = stratified([Stratum(10, 8, 0), Stratum(20, 2, 1)])
    assert expected is not None
    assert (share.low, share.high) == (expected.low, expected.high)


def test_flags_that_acted_count_by_those_drawn_of_them(sessions: Sessions) -> None:
    """Ten flags waited, all right; of a hundred that acted ten were drawn, half of them right."""
    rule(sessions, 0.1, kind="certain_sample")
    writer = Writer(sessions)
    batch = writer.batch()
    for _ in range(10):
        writer.decided(writer.item(batch), "confirmed", START, chance=1.0)
    acted = [writer.item(batch, fully_automated=True) for _ in range(100)]
    for number, item in enumerate(acted[:10]):
        writer.decided(item, "confirmed" if number % 2 else "overturned", START, chance=0.1)
    for item in acted[10:14]:
        writer.decided(item, "overturned", START)  # on appeal: it stands for no others
    found = transparency.report(sessions, FOREVER)
    assert found["fully_automated"].value == 100
    assert found["precision"].value == pytest.approx((10 + 50) / 110)
    assert found["precision"].of == 20
    (gun,) = found.classes
    assert (gun.flagged, gun.fully_automated, gun.overturned) == (110, 100, 9)
    assert gun.precision is not None and gun.precision.value == pytest.approx(60 / 110)


def test_each_share_of_flags_that_acted_is_a_stratum(sessions: Sessions) -> None:
    """Half were drawn, then a tenth: who were drawn then stand for more."""
    rule(sessions, 0.5, kind="certain_sample", removed_at=START + 5 * DAY)
    rule(sessions, 0.1, kind="certain_sample", created_at=START + 5 * DAY)
    writer = Writer(sessions)
    batch = writer.batch()
    for day, drawn, decision in ((1, 20, "confirmed"), (6, 4, "overturned")):
        at = START + day * DAY
        items = [writer.item(batch, fully_automated=True, judged_at=at) for _ in range(40)]
        for item in items[:drawn]:
            writer.decided(item, decision, at, chance=drawn / 40)
    assert transparency.report(sessions, FOREVER)["precision"].value == pytest.approx(0.5)


def test_without_a_draw_nothing_is_said_of_flags_that_acted(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    writer.decided(writer.item(batch), "confirmed", START, chance=1.0)
    writer.item(batch, fully_automated=True)
    found = transparency.report(sessions, FOREVER)["precision"]
    assert (found.value, found.of) == (1.0, 1)
    assert found.note == "Says nothing about 1 flags that acted by themselves."


def test_what_no_rule_could_draw_is_not_spoken_for(sessions: Sessions) -> None:
    writer = Writer(sessions)
    rule(sessions, 0.5, class_name="gun", created_at=START + DAY)
    rule(sessions, 0.5, class_name="another", created_at=START - DAY)
    some_clear(writer, 7, START, 0, 0)
    some_clear(writer, 4, START + 2 * DAY, 2, 1)
    share = transparency.report(sessions, FOREVER)["missed_share"]
    assert (share.value, share.of) == (0.5, 4)
    assert "7 clear items" in share.note


def test_undone_decisions_and_second_looks_do_not_count_as_first(sessions: Sessions) -> None:
    writer = Writer(sessions)
    item = writer.item(writer.batch())
    writer.decided(item, "confirmed", START + timedelta(hours=1))
    assert transparency.report(sessions, FOREVER)["decision_seconds"].value == 3600


def test_what_was_judged_anew_is_estimated_once_and_not_timed(sessions: Sessions) -> None:
    writer = Writer(sessions)
    rule(sessions, 0.5)
    old = writer.item(writer.batch(), Verdict.CLEAR, judged_at=START + timedelta(minutes=1))
    writer.decided(old, "overturned", START + DAY, sampled=True)
    batch = writer.batch()
    writer.item(batch, Verdict.FLAGGED, judged_at=START + DAY, supersedes=old)
    some_clear(writer, 4, START + timedelta(minutes=1), 2, 0)
    report = transparency.report(sessions, FOREVER)
    assert report["judged"].value == 6
    assert (report["sample"].value, report["missed"].value) == (2, 0)
    assert report["verdict_seconds"].value == 60


def test_a_period_ends_after_it_begins() -> None:
    with pytest.raises(InvalidRequest, match="not after it begins"):
        Period(START, START)


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return app_of(web_service(sessions, storage), pages)


def test_the_page_shows_every_figure_with_its_definition(app: FastAPI, sessions: Sessions) -> None:
    random_world(sessions, 80)
    rule(sessions, 0.5)
    client = client_of(app, sessions, Role.AUDITOR)
    asked = {"from": "2026-03-01", "to": "2026-03-31"}
    page = client.get("/figures", params=asked).text
    document = client.get("/figures.json", params=asked).json()
    for figure in document["figures"].values():
        assert figure["definition"].replace("'", "&#39;") in page
    assert 'class="whisker"' in page
    assert document["since"] == "2026-03-01T00:00:00.000000Z"
    assert document["until"] == "2026-04-01T00:00:00.000000Z"


def test_figures_are_for_those_who_may_export(app: FastAPI, sessions: Sessions) -> None:
    for path in ("/figures", "/figures.json"):
        assert client_of(app, sessions, Role.MODERATOR).get(path).status_code == 403
        assert key_client(app, sessions, path.strip("/")).get(path).status_code == 403
        assert client_of(app, sessions, Role.AUDITOR).get(path).status_code == 200


def test_classes_that_somebody_may_not_see_have_no_row(app: FastAPI, sessions: Sessions) -> None:
    random_world(sessions, 80)
    client = client_of(app, sessions, Role.AUDITOR, classes=("knife",))
    classes = client.get("/figures.json?from=2026-03-01&to=2026-03-31").json()["classes"]
    assert [c["name"] for c in classes] == ["knife"]
