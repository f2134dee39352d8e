"""Slices: shares as counted by hand, planted differences found, and none claimed where none is."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from sqlalchemy import insert

from filter_service.audit import slices
from filter_service.audit.slices.slice_report import MOST_SLICES
from filter_service.audit.slices.slice_shares import SliceCount, slice_rows
from filter_service.audit.transparency import Period
from filter_service.calibration.intervals import wilson
from filter_service.db.query_encoder import QueryVector
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, Item, ItemAttribute, Restriction
from filter_service.errors import InvalidRequest
from filter_service.scoring import FloatArray
from filter_service.verdicts import Verdict
from tests.support.decided_world import START, Writer

DAY = timedelta(days=1)
PERIOD = Period(START - DAY, START + DAY)


@dataclass(frozen=True)
class Seen:
    """An item as it was written."""

    region: str
    flagged: bool
    class_name: str
    decision: str | None


def world(sessions: Sessions) -> list[Seen]:
    """Items of regions, flagged and decided at random, with what does not count between."""
    rng = random.Random(3)
    writer = Writer(sessions)
    batch = writer.batch()
    told = []
    for _ in range(120):
        seen = Seen(
            rng.choice(["north", "south", "east"]),
            rng.random() < 0.5,
            rng.choice(["gun", "knife"]),
            rng.choice(["confirmed", "overturned", None]),
        )
        item = said(writer, batch, seen)
        if seen.flagged and seen.decision:
            writer.decided(item, seen.decision, START, chance=1.0)
        told.append(seen)
    north = Seen("north", True, "gun", None)
    late = said(writer, batch, north, judged_at=START + 2 * DAY)
    acted = said(writer, batch, north, fully_automated=True)  # flagged, and never decided here
    writer.decided(acted, "overturned", START, chance=0.05)
    old = said(writer, batch, north)
    said(writer, batch, north, supersedes=old)  # judged anew: counts once
    sealed = said(writer, batch, north)
    with sessions.begin() as session:
        image = session.get_one(Item, sealed).image_id
        session.add(
            Restriction(
                item_id=sealed, image_id=image, class_name="gun", preserve_until=START + 900 * DAY
            )
        )
    assert late
    return [*told, north, north]


def said(writer: Writer, batch: object, seen: Seen, **more: object) -> int:
    verdict = Verdict.FLAGGED if seen.flagged else Verdict.CLEAR
    columns = {"class_id": writer.classes[seen.class_name]} | more
    item = writer.item(batch, verdict, **columns)  # type: ignore[arg-type]
    row = {"item_id": item, "name": "region", "value": seen.region}
    with writer.sessions.begin() as session:
        session.execute(insert(ItemAttribute), [row])
    return item


def by_hand(told: Sequence[Seen], classes: set[str]) -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for region in {t.region for t in told}:
        mine = [t for t in told if t.region == region]
        flags = [t for t in mine if t.flagged and t.class_name in classes]
        decided = [t for t in flags if t.decision]
        overturned = sum(t.decision == "overturned" for t in decided)
        found[region] = (len(mine), len(flags), len(decided), overturned)
    return found


@pytest.mark.parametrize("classes", [None, {"gun"}])
def test_slices_are_as_counted_by_hand(sessions: Sessions, classes: set[str] | None) -> None:
    told = world(sessions)
    report = slices.by_attribute(sessions, PERIOD, "region", classes=classes)
    found = {
        r.value: (r.flagged.of, r.flagged.hits, r.overturned.of, r.overturned.hits)
        for r in report.rows
    }
    assert found == by_hand(told, classes or {"gun", "knife"})
    assert slices.attribute_names(sessions) == ["region"]
    again = json.loads(json.dumps(report.document()))
    assert {s["value"] for s in again["slices"]} == set(found)


def test_an_attribute_that_nothing_has_is_refused(sessions: Sessions) -> None:
    with pytest.raises(InvalidRequest, match="'colour': no item has any"):
        slices.by_attribute(sessions, PERIOD, "colour")
    world(sessions)
    with pytest.raises(InvalidRequest, match="'colour': items have region"):
        slices.by_attribute(sessions, PERIOD, "colour")
    with pytest.raises(InvalidRequest, match="items have region"):
        slices.by_attribute(sessions, PERIOD, "region", policy="another")


def test_only_so_many_slices_are_looked_at(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    for number in range(MOST_SLICES + 3):
        said(writer, batch, Seen(f"r{number:03d}", True, "gun", None))
    report = slices.by_attribute(sessions, PERIOD, "region")
    assert (len(report.rows), report.left_out) == (MOST_SLICES, 3)


def draws(rng: np.random.Generator, shares: Sequence[float], size: int) -> list[SliceCount]:
    counts = []
    for number, share in enumerate(shares):
        flagged = int(rng.binomial(size, share))
        overturned = int(rng.binomial(flagged, 0.2))
        counts.append(SliceCount(str(number), size, flagged, flagged, overturned))
    return counts


@pytest.mark.parametrize("slices_", [2, 8, 30])
def test_no_difference_is_claimed_where_there_is_none(slices_: int) -> None:
    rng = np.random.default_rng(slices_)
    claimed = 0
    for _ in range(400):
        rows = slice_rows(draws(rng, [0.05] * slices_, 800))
        claimed += any(r.flagged.differs or r.overturned.differs for r in rows)
    assert claimed / 400 <= 0.07  # one in twenty, and two deviations


@pytest.mark.parametrize("slices_", [2, 8, 30])
def test_a_planted_difference_is_found(slices_: int) -> None:
    rng = np.random.default_rng(slices_)
    shares = [0.05] * (slices_ - 1) + [0.12]
    found = [slice_rows(draws(rng, shares, 800))[-1].flagged.differs for _ in range(100)]
    assert sum(found) >= 90


def test_intervals_are_wider_the_more_slices_there_are() -> None:
    one = SliceCount("a", 200, 20, 20, 5)
    widths = []
    for others in (1, 20):
        rows = slice_rows([one] + [SliceCount(str(i), 200, 20, 20, 5) for i in range(others)])
        interval = rows[0].flagged.interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    plain = wilson(20, 200)
    assert plain is not None
    assert plain.high - plain.low < widths[0] < widths[1]


def test_an_only_slice_is_compared_with_nothing() -> None:
    (row,) = slice_rows([SliceCount("a", 10, 3, 0, 0)])
    assert row.flagged.apart is None and not row.flagged.differs
    assert row.overturned.interval is None


@dataclass
class Axes:
    """Each prompt is an axis."""

    encoder_id: int

    def text(self, text: str) -> QueryVector:
        return QueryVector(self.encoder_id, axis({"a drawing": 0, "a photograph": 1}[text]), 1.0)


def axis(number: int, tilt: float = 0.0) -> FloatArray:
    z = np.zeros(4, np.float32)
    z[number], z[3] = np.cos(tilt), np.sin(tilt)
    return z


def test_a_picture_stands_with_the_prompt_that_it_fits_best(sessions: Sessions) -> None:
    writer = Writer(sessions)
    batch = writer.batch()
    drawings = [writer.item(batch, Verdict.FLAGGED) for _ in range(3)]
    photographs = [writer.item(batch, Verdict.CLEAR) for _ in range(2)]
    with sessions.begin() as session:
        for items, number in ((drawings, 0), (photographs, 1)):
            for item in items:
                image = session.get_one(Item, item).image_id
                # A second view that fits neither changes nothing.
                for frame, vector in enumerate((axis(number, 0.3), axis(2))):
                    row = {"encoder_id": writer.encoder_id, "image_id": image, "frame": frame}
                    session.execute(insert(Embedding).values(**row, view="", vector=vector))
    seeker = Axes(writer.encoder_id)
    report = slices.by_prompts(sessions, seeker, PERIOD, ["a drawing", "a photograph"])
    found = {r.value: (r.flagged.of, r.flagged.hits) for r in report.rows}
    assert found == {"a drawing": (3, 3), "a photograph": (2, 0)}
    assert "by what the model sees, not by what the pictures show" in report.caveats[0]


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (["a drawing"], "1 different prompts make no slices"),
        (["a drawing", " a drawing "], "1 different prompts"),
        ([f"p{i}" for i in range(11)], "11 different prompts"),
        (["a", "b" * 301], "give at most 300 plain letters"),
    ],
)
def test_prompts_that_make_no_slices_are_refused(
    sessions: Sessions, prompts: list[str], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        slices.by_prompts(sessions, Axes(1), PERIOD, prompts)


def test_without_vectors_there_are_no_slices(sessions: Sessions) -> None:
    writer = Writer(sessions)
    asked = (sessions, Axes(writer.encoder_id), PERIOD, ["a drawing", "a photograph"])
    with pytest.raises(InvalidRequest, match="No vector of what was judged in the period is kept"):
        slices.by_prompts(*asked)
