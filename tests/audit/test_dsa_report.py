"""The Commission's report on automated means: counted right, and only as the template has it."""

import csv
import io
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from filter_service.audit.transparency import dsa_counts
from filter_service.audit.transparency.dsa_counts import ReviewedGroup, SystemAudit
from filter_service.audit.transparency.dsa_report import dsa_report, reporting_period
from filter_service.audit.transparency.dsa_report_rules import problems
from filter_service.audit.transparency.dsa_template import (
    FLAGGERS,
    MEASURES,
    METRICS,
    NOTICES,
    NOTIFIED,
    OWN,
    TOTAL,
    ProviderKind,
    rows,
)
from filter_service.calibration.estimates import class_estimates
from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, Restriction
from filter_service.errors import InvalidRequest
from filter_service.verdicts import Verdict
from tests.support.decided_world import START, Writer

YEAR = reporting_period("2026")
SERVICE = "Marketplace, images"


@pytest.fixture(scope="module")
def table() -> list[list[str]]:
    """A file of a platform with two systems, filled in by hand."""
    systems = ("policy house, encoder a 01", "policy shop, encoder a 01")
    fixed = (SERVICE, "2026-01-01/2026-12-31", "Use of automated means for content moderation")
    found = [HEADER.split(",")]
    for row in rows(ProviderKind.PLATFORM, systems):
        notified = row.scope.startswith("NAM")
        value = "" if notified else "0.91" if row.system else "7"
        about = f"System: {row.system}. " if row.system else ""
        about += "Not applicable: there are no notices." if notified else "Counted by hand."
        applies = {
            "NAM Total": "Only for providers of hosting services, including online platforms",
            "NAM Trusted Flagger": "Only for providers of online platforms",
        }.get(row.scope, "All")
        found.append([applies, *fixed, row.indicator, row.scope, value, about])
    return found


HEADER = (
    "Applicability,Service,Reporting period,Section,Indicator,Scope,Value,Contextual Information"
)


def written(table: list[list[str]]) -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows(table)
    return file.getvalue().encode()


def test_a_file_that_follows_the_template_has_no_problem(table: list[list[str]]) -> None:
    assert len(table) == 1 + 8 + 2 * 3 * 4
    assert problems(written(table)) == []


@pytest.mark.parametrize(
    ("provider", "counts", "each"),
    [("intermediary", 4, 6), ("hosting", 6, 9), ("platform", 8, 12), ("vlop", 56, 84)],
)
def test_each_kind_of_provider_has_its_rows(provider: str, counts: int, each: int) -> None:
    assert len(list(rows(ProviderKind(provider), ()))) == counts
    assert len(list(rows(ProviderKind(provider), ("a", "b", "c")))) == counts + 3 * each


def cell(line: int, column: int, value: str) -> Callable[[list[list[str]]], bytes]:
    """The file with one field changed; line 1 is the first row, which counts measures."""

    def changed(table: list[list[str]]) -> bytes:
        other = [list(row) for row in table]
        other[line][column] = value
        return written(other)

    return changed


def swapped(table: list[list[str]]) -> bytes:
    return written([table[0], table[2], table[1], *table[3:]])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lambda t: b"\xef\xbb\xbf" + written(t), "byte order mark"),
        (lambda t: written(t).replace(b"\n", b"\r\n"), "carriage return"),
        (lambda t: written(t)[:-1], "last line does not end"),
        (lambda t: written(t).replace(b"hand", b"h\xe4nd", 1), "no UTF-8"),
        (lambda t: written(t).replace(b"Counted by hand.", b'"Counted" by', 1), "RFC 4180"),
        (lambda t: written(t).replace(b"Scope,", b"Scopes,"), "name the columns"),
        (lambda t: written([*t, t[1][:7]]), "has 7 fields"),
        (cell(1, 0, "Only for VLOPs"), "the applicability is 'Only for VLOPs'"),
        (cell(1, 1, "=SUM(A1)"), "takes for a formula"),
        (cell(1, 1, "Another"), "'Service' differs"),
        (cell(1, 2, "2026"), "'2026' is no period"),
        (cell(1, 2, "2026-12-31/2026-01-01"), "no period"),
        (cell(1, 3, "Notices"), "the section is 'Notices'"),
        (cell(1, 4, "Number of measures"), "is no indicator of scope 'Total number'"),
        (cell(1, 4, "Number of notices not processed by automated means"), "is no indicator of"),
        (cell(1, 5, "Everything"), "'Everything' is no scope"),
        (cell(1, 6, "7.0"), "must be a whole number"),
        (cell(1, 6, "-7"), "must be a whole number"),
        (cell(1, 6, ""), "a value is missing, and nothing says why"),
        (cell(3, 6, "86%"), "'86%' must be a decimal between 0 and 1"),
        (cell(3, 6, "1.2"), "must be a decimal between 0 and 1"),
        (cell(3, 6, "0,86"), "must be a decimal between 0 and 1"),
        (cell(1, 7, " "), "the contextual information has 1 letters"),
        (cell(3, 7, "Counted by hand."), "must begin with 'System: '"),
        (lambda t: written(t[:-1]), "is missing"),
        (lambda t: written([*t, t[1]]), "stands there more than once"),
        (swapped, "not in the template's order"),
        (cell(9, 6, "8"), "is 8 in scope 'Own-initiative', more than in all"),
    ],
)
def test_each_rule_broken_once_is_refused(
    table: list[list[str]], broken: Callable[[list[list[str]]], bytes], said: str
) -> None:
    found = problems(broken(table))
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    ("said", "since", "until"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-H1", "2026-01-01", "2026-07-01"),
        ("2026-H2", "2026-07-01", "2027-01-01"),
        ("2026-02-01/2026-02-28", "2026-02-01", "2026-03-01"),
    ],
)
def test_a_period_is_a_year_a_half_or_two_days(said: str, since: str, until: str) -> None:
    found = reporting_period(said)
    assert (f"{found.since:%Y-%m-%d}", f"{found.until:%Y-%m-%d}") == (since, until)


@pytest.mark.parametrize("said", ["", "2026-H3", "last year", "2026-13-01/2026-14-01", "0", "9999"])
def test_what_is_no_period_is_refused(said: str) -> None:
    with pytest.raises(InvalidRequest, match="is no reporting period"):
        reporting_period(said)


def test_metrics_of_a_system_are_those_of_its_reviews() -> None:
    """Three hundred clear items: a miss stands for two near the threshold, and for ten beyond."""
    audit = SystemAudit(
        "house",
        "a",
        "01" * 32,
        1,
        [
            ReviewedGroup("flagged", "confirmed", None, 60),
            ReviewedGroup("flagged", "overturned", None, 40),
            ReviewedGroup("clear", "overturned", 0.1, 2),
            ReviewedGroup("clear", "overturned", 0.5, 4),
            ReviewedGroup("clear", "confirmed", 0.1, 26),
            ReviewedGroup("clear", "confirmed", 0.5, 6),
            ReviewedGroup("clear", None, None, 262),
        ],
    )
    accuracy, precision, recall = audit.metrics()
    assert accuracy.value == pytest.approx((60 + 272) / 400)
    assert precision.value == pytest.approx(0.6)
    assert recall.value == pytest.approx(60 / 88)
    # The same as of a class whose threshold makes these flags.
    same = class_estimates(
        np.repeat([1.0, -1.0], [100, 38]),
        np.repeat([True, False, True, False], [60, 40, 6, 32]),
        np.repeat([1.0, 0.1, 0.5, 0.1, 0.5], [100, 2, 4, 26, 6]),
        0.0,
    )
    assert (recall.low, recall.high) == pytest.approx((same.recall.low, same.recall.high))


def test_flags_that_wait_are_made_up_for_by_those_reviewed() -> None:
    groups = [
        ReviewedGroup("flagged", "confirmed", None, 30),
        ReviewedGroup("flagged", None, None, 30),
        ReviewedGroup("clear", "overturned", 0.5, 10),
        ReviewedGroup("clear", "confirmed", 0.5, 90),
        ReviewedGroup("clear", None, None, 100),
    ]
    recall = SystemAudit("house", "a", "01" * 32, 1, groups).metrics()[2]
    assert recall.value == pytest.approx(60 / 80)


ACTED = (
    ReviewedGroup("flagged", "confirmed", None, 40),
    ReviewedGroup("flagged", "overturned", None, 10),
    ReviewedGroup("flagged", None, None, 400, acted=True),
    ReviewedGroup("flagged", "overturned", None, 7, acted=True),  # on appeal
)


def test_flags_that_acted_are_judged_by_those_drawn_of_them() -> None:
    drawn = (
        ReviewedGroup("flagged", "confirmed", 0.05, 18, acted=True),
        ReviewedGroup("flagged", "overturned", 0.05, 2, acted=True),
    )
    audit = SystemAudit("house", "a", "01" * 32, 1, [*ACTED, *drawn])
    precision = audit.metrics()[1]
    assert precision.value == pytest.approx((40 + 0.9 * 427) / (50 + 427))
    assert audit.number("flagged", reviewed=True) == 70


def test_without_a_sample_of_what_acted_there_is_no_estimate() -> None:
    for one in SystemAudit("house", "a", "01" * 32, 1, ACTED).metrics():
        assert "no flag that acted by itself and was drawn" in one.why_none


def test_a_flag_that_acted_is_a_measure_of_automated_means(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    items = [writer.item(batch, fully_automated=True) for _ in range(3)]
    writer.decided(items[0], "confirmed", START, chance=0.05)
    writer.decided(writer.item(batch), "confirmed", START, chance=1.0)
    with sessions.begin() as session:
        assert counted(session) == (3, 1)
        (audit,) = dsa_counts.audits(session, YEAR)
    assert sorted((g.acted, g.chance or 0, g.count) for g in audit.groups) == [
        (False, 0, 1),
        (True, 0, 2),
        (True, 0.05, 1),
    ]


def counted(session: Session) -> tuple[int, int]:
    """All measures: by automated means alone, and by people."""
    found = dsa_counts.measures(session, YEAR)[TOTAL]
    return found.solely, found.by_people


def world(sessions: Sessions) -> Writer:
    """Flags and clear items, reviewed, listed, restricted; 25 right flags and one miss."""
    writer = Writer(sessions)
    batch = writer.batch()
    for number in range(30):
        item = writer.item(batch)
        writer.decided(item, "confirmed" if number < 25 else "overturned", START, chance=1.0)
    for number in range(20):
        item = writer.item(batch, Verdict.CLEAR)
        decision = "overturned" if number == 0 else "confirmed"
        writer.decided(item, decision, START, sampled=True, chance=0.5)
    for _ in range(20):
        writer.item(batch, Verdict.CLEAR)
    writer.listed(writer.item(batch), "confirmed", START)
    writer.item(batch, judged_at=START - timedelta(days=400))  # of another year
    return writer


def test_the_file_of_a_year_counts_what_was_decided(sessions: Sessions) -> None:
    world(sessions)
    data = dsa_report(sessions, YEAR, SERVICE, ProviderKind.PLATFORM)
    assert problems(data) == []
    found = {
        (row["Indicator"], row["Scope"]): row for row in csv.DictReader(io.StringIO(data.decode()))
    }
    total = {name: found[name, "Total number"] for name in (*MEASURES, *METRICS)}
    # Listed: one; confirmed flags and the miss that the sample found: twenty-six.
    assert [total[name]["Value"] for name in MEASURES] == ["1", "26"]
    accuracy, precision, recall = (float(total[name]["Value"]) for name in METRICS)
    assert accuracy == pytest.approx((25 + 38) / 70, abs=1e-6)
    assert precision == pytest.approx(25 / 30, abs=1e-6)
    assert recall == pytest.approx(25 / 27, abs=1e-6)
    about = total[METRICS[2]]["Contextual Information"]
    assert about.startswith("System: policy house, encoder simple abababababab. ")
    assert "30 of the flagged and 20 of the clear" in about
    assert "Interval (90 %): " in about
    assert found[METRICS[0], "Own-initiative"]["Value"] == total[METRICS[0]]["Value"]
    for (name, scope), row in found.items():
        if scope.startswith("NAM"):
            assert row["Value"] == ("0" if name in NOTICES else "")
            assert ("Not applicable: " in row["Contextual Information"]) == (name in METRICS)


def test_notices_count_by_who_gave_them_and_what_answered_them(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    for source in (*["user"] * 3, "trusted_flagger", "authority", "own"):
        item = writer.item(batch, Verdict.CLEAR)
        review = writer.decided(item, "overturned", START, sampled=True)
        writer.reported(item, source, START, review)
    flag = writer.item(batch)
    writer.reported(flag, "trusted_flagger", START)  # it counted as forbidden before
    writer.reported(flag, "user", START - timedelta(days=400))  # of another year
    data = dsa_report(sessions, YEAR, SERVICE, ProviderKind.PLATFORM)
    assert problems(data) == []
    found = {
        (row["Indicator"], row["Scope"]): row["Value"]
        for row in csv.DictReader(io.StringIO(data.decode()))
    }
    assert [found[name, NOTIFIED] for name in NOTICES] == ["1", "4"]
    assert [found[name, FLAGGERS] for name in NOTICES] == ["1", "1"]
    assert [found[MEASURES[1], scope] for scope in (TOTAL, OWN)] == ["6", "1"]


def test_without_a_sample_there_is_no_recall(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    for _ in range(25):
        writer.decided(writer.item(batch), "confirmed", START, chance=1.0)
    for _ in range(5):  # of before chances were recorded
        writer.decided(writer.item(batch, Verdict.CLEAR), "confirmed", START, sampled=True)
    data = dsa_report(sessions, YEAR, SERVICE, ProviderKind.INTERMEDIARY).decode()
    recall = next(r for r in csv.DictReader(io.StringIO(data)) if r["Indicator"] == METRICS[2])
    assert recall["Value"] == ""
    assert "No value: no clear item that was drawn at random" in recall["Contextual Information"]


def test_few_forbidden_pictures_are_no_estimate() -> None:
    groups = [ReviewedGroup("flagged", "confirmed", None, 19)]
    for one in SystemAudit("house", "a", "01" * 32, 1, groups).metrics():
        assert one.value is None
        assert "found 19 forbidden pictures" in one.why_none


def test_a_very_large_platform_has_rows_for_every_language(sessions: Sessions) -> None:
    world(sessions)
    data = dsa_report(sessions, YEAR, SERVICE, ProviderKind.VLOP)
    assert problems(data) == []
    assert len(data.decode().splitlines()) == 1 + 56 + 84


def test_a_name_that_is_a_formula_is_refused(sessions: Sessions) -> None:
    with pytest.raises(InvalidRequest, match="no spreadsheet takes for a formula"):
        dsa_report(sessions, YEAR, "=1+1", ProviderKind.PLATFORM)


def test_what_is_locked_away_is_counted_nowhere(sessions: Sessions) -> None:
    writer = Writer(sessions)
    item = writer.item(writer.batch())
    writer.decided(item, "confirmed", START, chance=1.0)
    with sessions.begin() as session:
        assert counted(session) == (0, 1)
        image = session.get_one(Item, item).image_id
        until = datetime(2030, 1, 1, tzinfo=UTC)
        session.add(
            Restriction(item_id=item, image_id=image, class_name="gun", preserve_until=until)
        )
        session.flush()
        assert counted(session) == (0, 0)
        assert dsa_counts.audits(session, YEAR) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["dsa-report", "--period", "2026"], "give --period 2026 and"),
        (["dsa-report", "--period", "2026", "--service", "x", "--class", "gun"], "--class says"),
        (["dsa-report", "--provider", "shop"], "'shop' is none of"),
        (["--period", "2026"], "--period says nothing about"),
        (["reports"], "cannot be exported"),
    ],
)
def test_options_that_make_no_report_are_refused(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["export", *words], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())
