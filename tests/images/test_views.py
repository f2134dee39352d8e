"""Views: what of an image is looked at, in any shape, and that it is said what was not."""

import io
import json
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from filter_service.audit.replay.evidence_rescoring import Rescorer
from filter_service.audit.replay.item_on_record import OnRecord
from filter_service.audit.replay.recomputation import subject_of
from filter_service.db.session import Sessions
from filter_service.demo import POLICY
from filter_service.demo.kinds import TRAINED_STYLES
from filter_service.demo.scenes import PlacedObject, Scene, render
from filter_service.encoder import Encoder, load_encoder
from filter_service.encoder.network import BUNDLED
from filter_service.images import Image, Limits, decode, digest
from filter_service.images.views import (
    MOST,
    MOST_OF_ALL,
    NEARLY,
    WIDEST,
    Box,
    Extent,
    ShareSeen,
    View,
    share_seen,
    windows,
)
from filter_service.pipeline import moderate
from filter_service.pipeline.served_judge import ServedJudge
from filter_service.policy import Policy, read_policy
from filter_service.policy.coverage import Coverage
from filter_service.rendering.overlay import VIEWED, map_layer, seen
from filter_service.storage import Storage
from filter_service.verdicts import KnownVectors, Outcome, Verdict

CLIP = {"size": [224, 224], "resize_mode": "shortest"}
SQUASH = {"size": 64, "resize_mode": "squash"}
LETTERBOX = {"size": [256, 256], "resize_mode": "longest"}
OBLONG = {"size": [64, 128], "resize_mode": "squash"}  # height, width
ALL = (CLIP, SQUASH, LETTERBOX, OBLONG)
LIMITS = Limits()


@pytest.mark.parametrize("preprocessing", ALL)
@pytest.mark.parametrize("ratio", [1, 4 / 3, 1.5, 16 / 9, 2, 2.2, 3, 4, 7, 10, 13])
@pytest.mark.parametrize("turned", [False, True])
def test_every_pixel_is_in_a_view(
    preprocessing: dict[str, object], ratio: float, turned: bool
) -> None:
    long = ratio / 2 if preprocessing is OBLONG else ratio  # twice as long for its input, upright
    size = (round(300 * max(1, long)), 300)
    width, height = size[::-1] if turned else size
    boxes = windows(width, height, preprocessing)
    assert share_seen(width, height, preprocessing, boxes) == 1
    inside = [b for b in boxes if b is not None]
    assert all(0 <= b.left < b.right <= width and 0 <= b.top < b.bottom <= height for b in inside)


@pytest.mark.parametrize("preprocessing", [CLIP, SQUASH, LETTERBOX])
def test_an_object_of_four_fifths_of_the_short_side_is_whole_in_some_view(
    preprocessing: dict[str, object],
) -> None:
    width, height = 2_000, 200
    boxes = [b or Box(0, 0, width, height) for b in windows(width, height, preprocessing)]
    side = WIDEST * height / 2
    for left in np.linspace(0, width - side, 300):
        assert any(b.left <= left + 1 and left + side - 1 <= b.right for b in boxes)


@pytest.mark.parametrize(
    ("ratio", "count"),
    [(1, 1), (4 / 3, 1), (1.5, 1), (16 / 9, 2), (2, 2), (2.2, 2), (4, 4), (10, 12)],
)
def test_few_views_are_enough_for_ordinary_shapes(ratio: float, count: int) -> None:
    for preprocessing in (CLIP, SQUASH, LETTERBOX):
        assert len(windows(round(600 * ratio), 600, preprocessing)) == count
        assert len(windows(600, round(600 * ratio), preprocessing)) == count


def test_a_square_is_prepared_by_the_model_itself() -> None:
    for preprocessing in (CLIP, SQUASH, LETTERBOX):
        assert windows(500, 510, preprocessing) == (None,)


def test_a_page_without_end_has_a_bounded_number_of_views_and_is_partial() -> None:
    boxes = windows(100, 100_000, CLIP)
    assert len(boxes) == MOST
    assert ShareSeen(share_seen(100, 100_000, CLIP, boxes)).partial


def test_the_views_of_many_frames_are_bounded_together() -> None:
    assert len(windows(100, 900, SQUASH, frames=32)) * 32 <= MOST_OF_ALL
    assert len(windows(100, 900, SQUASH, frames=1_000)) == 1


def test_the_models_own_square_of_a_wide_picture_is_partial() -> None:
    share = share_seen(1600, 900, CLIP, windows(1600, 900, CLIP, Coverage.MODEL))
    assert share == pytest.approx(9 / 16)
    assert share_seen(1600, 900, SQUASH, (None,)) == 1


def test_gaps_between_windows_are_not_seen() -> None:
    assert share_seen(100, 10, CLIP, (Box(0, 0, 16, 10), Box(50, 0, 66, 10))) == 0.32


@pytest.mark.parametrize(
    "view",
    [
        View(),
        View(7),
        View(0, "over dark"),
        View(3, "", Box(0, 12, 500, 524)),
        View(3, "over dark", Box(-4, 0, 5, 9)),
        View(0, "12"),
    ],
)
def test_a_view_is_found_by_its_name(view: View) -> None:
    assert View.parse(view.frame, view.name) == view


def test_a_view_of_a_whole_frame_has_no_name() -> None:
    assert View(5).name == ""


def test_a_map_lies_where_its_view_is() -> None:
    layer = map_layer((100, 400), np.ones((4, 4)), 8.0, SQUASH, Box(0, 0.5, 1, 0.9))
    strength, dark = np.asarray(layer)[..., 3], np.asarray(layer)[..., :3].sum(axis=2) == 0
    assert dark[20].all() and dark[390].all() and not dark[220:340, 20:80].any()
    assert len(np.unique(strength[240:320, 30:70])) == 1
    assert (np.asarray(layer)[..., :3] == VIEWED).all(axis=2)[195:365].any()


def test_a_letterboxed_part_lies_between_its_fillings() -> None:
    assert seen(400, 100, LETTERBOX, Box(0, 0, 0.5, 1)) == Box(0, -50, 200, 150)


@pytest.mark.parametrize(
    ("coverage", "partial", "taken"),
    [
        (Coverage.WHOLE, None, False),
        (Coverage.WHOLE, "clear", True),
        (Coverage.MODEL, None, True),
        (Coverage.MODEL, "undetermined", False),
    ],
)
def test_a_part_is_enough_only_where_somebody_chose_so(
    coverage: Coverage, partial: str | None, taken: bool
) -> None:
    assert demo().model_copy(update={"partial": partial}).takes_partial(coverage) is taken


def test_the_digest_of_a_policy_that_says_nothing_of_views_stays() -> None:
    assert "coverage" not in demo().model_dump() and "partial" not in demo().model_dump()
    assert demo().model_copy(update={"coverage": Coverage.WHOLE}).digest != demo().digest


def test_known_vectors_are_those_of_the_views_that_are_asked_for() -> None:
    views = (View(0), View(0, "", Box(0, 0, 9, 9)), View(1))
    known = KnownVectors(np.eye(3, dtype=np.float32), views, (True, False, True), Extent(9, 9))
    found = known.of(views[1:])
    assert found is not None
    assert found.views == views[1:] and found.exact == (False, True)
    assert np.array_equal(found.vectors, np.eye(3)[1:])
    assert known.of([View(2)]) is None


@cache
def demo() -> Policy:
    return read_policy(POLICY)


@cache
def bundled() -> Encoder:
    return load_encoder(precision="float32")


@pytest.fixture(scope="module")
def cropping(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The bundled model with the preprocessing of ViT-B-32: shortest side, then the centre."""
    folder = tmp_path_factory.mktemp("cropping") / "model"
    shutil.copytree(BUNDLED, folder)
    described = folder / "open_clip_config.json"
    config = json.loads(described.read_text())
    config["preprocess_cfg"]["resize_mode"] = "shortest"
    described.write_text(json.dumps(config))
    return load_encoder(f"local-dir:{folder}", precision="float32")


@pytest.fixture(params=["bundled", "cropping"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    if request.param == "bundled":
        return bundled()
    found: Encoder = request.getfixturevalue("cropping")
    return found


def phone(kind: str = "knife", y: float = 0.3) -> Image:
    """One thing at the top of a picture of a phone's shape, and another at its bottom."""
    things = (
        PlacedObject(kind, TRAINED_STYLES[0], 0.5, y, 0.5),
        PlacedObject("dog", TRAINED_STYLES[0], 0.5, 1.75, 0.5),
    )
    return picture(Scene(things, "green", "plain", 1), (1.0, 2.2))


def picture(scene: Scene, shape: tuple[float, float]) -> Image:
    file = io.BytesIO()
    render(scene, 160, shape).save(file, "PNG")
    return decode(file.getvalue())


def judged(image: Image, encoder: Encoder, **policy: object) -> Outcome:
    return moderate([image], demo().model_copy(update=policy), encoder)[0]


def test_a_knife_at_the_top_of_a_phones_picture_is_flagged(encoder: Encoder) -> None:
    outcome = judged(phone(), encoder)
    assert outcome.verdict is Verdict.FLAGGED
    flag = next(s for s in outcome.scores if s.class_name == "weapons")
    assert flag.flagged and flag.view.box is not None and flag.view.box.top == 0
    record = next(e for e in outcome.explanations if e.class_name == "weapons")
    assert record.seen == flag.view and record.size == (160, 352)
    assert record.part is not None and record.part.bottom == pytest.approx(256 / 352)
    assert outcome.seen == ShareSeen(1.0) and outcome.extent == Extent(160, 352)


def test_coverage_of_the_model_is_what_it_was(cropping: Encoder) -> None:
    image = phone()
    outcome = judged(image, cropping, coverage=Coverage.MODEL)
    assert outcome.views == (View(),)
    alone = cropping.encode(cropping.pixels(image.frames[0].picture)[None])
    assert outcome.vectors is not None and np.array_equal(outcome.vectors, alone)
    assert outcome.seen is not None and outcome.seen.partial


def test_what_was_not_seen_whole_is_not_clear_unless_somebody_says_so(cropping: Encoder) -> None:
    image = phone("cat", 1.1)
    assert judged(image, cropping, coverage=Coverage.MODEL).verdict is Verdict.CLEAR
    strict = judged(image, cropping, coverage=Coverage.MODEL, partial="undetermined")
    assert strict.verdict is Verdict.UNDETERMINED
    assert strict.reason is not None and "45 % of its pixels" in strict.reason


def test_vectors_of_before_there_were_views_are_computed_again(cropping: Encoder) -> None:
    data = as_png(phone())
    judge = ServedJudge(cropping, LIMITS)
    before = judge.prepare("d", lambda: data, None, Coverage.MODEL)
    z = cropping.encode(before.load())
    old = KnownVectors(z, before.views, (True,))
    assert len(judge.prepare("d", lambda: data, old).views) == 2
    assert judge.prepare("d", lambda: data, old).known is None


def test_known_views_spare_the_pixels(cropping: Encoder) -> None:
    data = as_png(phone())
    judge = ServedJudge(cropping, LIMITS)
    (outcome,) = judge.moderate([judge.prepare("d", lambda: data, None)], demo())
    assert outcome.vectors is not None
    known = KnownVectors(outcome.vectors, outcome.views, outcome.exact, outcome.extent)
    again = judge.prepare("d", unasked, known)
    assert again.pixels is None and again.views == outcome.views and again.seen == outcome.seen
    assert judge.prepare("d", lambda: data, known, Coverage.MODEL).views == (View(),)


@pytest.mark.parametrize(
    ("stored", "names"),
    [
        ([View()], [""]),
        ([], ["0,0,160,256", "0,96,160,352"]),
        ([View(0, "", Box(0, 0, 160, 256)), View(0, "", Box(0, 96, 160, 352))], None),
        ([View(0, "", Box(0, 0, 160, 200))], None),
    ],
)
def test_a_replay_looks_as_the_record_did(
    cropping: Encoder, tmp_path: Path, stored: list[View], names: list[str] | None
) -> None:
    names = names or ["0,0,160,256", "0,96,160,352"]
    data, storage = as_png(phone()), Storage(str(tmp_path))
    storage.put(digest(data), data)
    rescorer = Rescorer(cast(Sessions, None), storage, cropping, 0, LIMITS)
    record = SimpleNamespace(
        digest=digest(data), policy=SimpleNamespace(policy=demo()), views=frozenset(stored)
    )
    subject, same_views = subject_of(cast(OnRecord, record), rescorer)
    assert [view.name for view in subject.views] == names
    assert same_views != (len(stored) == 1 and stored[0].box is not None)


def test_nearly_all_is_not_called_all() -> None:
    assert str(ShareSeen(0.999, 1)) == "99 % of its pixels and 100 % of its time"
    assert not ShareSeen(NEARLY).partial and ShareSeen(1, NEARLY - 0.01).partial


def as_png(image: Image) -> bytes:
    file = io.BytesIO()
    image.frames[0].picture.save(file, "PNG")
    return file.getvalue()


def unasked() -> bytes:
    raise AssertionError("the bytes were asked for")
