"""The verdict never depends on the fast pass: a band, a running check, an alarm."""

import copy
import io
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from filter_service import decode, load_encoder, moderate
from filter_service.db.embeddings import register_encoder
from filter_service.db.screening_checks import keep_pairs, widening_of
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredCheck
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder
from filter_service.encoder.probes import probes
from filter_service.encoder.screening_check import RECENT, ROOM, MarginPairs, ScreeningCheck
from filter_service.images import Limits
from filter_service.pipeline import AUDITED, audited
from filter_service.pipeline.served_judge import ServedJudge
from filter_service.pipeline.subject import Subject, prepare
from filter_service.policy import Policy, read_policy
from filter_service.verdicts import Verdict

FILES = sorted(SAMPLES.glob("*.jpg"))[:12]


@pytest.fixture(scope="module")
def policy() -> Policy:
    return read_policy(POLICY)


@pytest.fixture(scope="module")
def _measured(policy: Policy) -> Encoder:
    encoder = load_encoder("bundled", device="cpu", precision="bfloat16")
    encoder.band(policy)  # measured while the fast pass is sound
    return encoder


@pytest.fixture
def fast(_measured: Encoder) -> Encoder:
    """In bfloat16, with its band measured; nothing seen yet."""
    _measured.check = ScreeningCheck(_measured.name)
    return _measured


@pytest.fixture
def drifted(fast: Encoder) -> Iterator[Encoder]:
    """Since then the fast copy has changed: every vector points the other way."""
    sound, fast._screening = fast._screening, fast._converted()
    with torch.no_grad():
        fast._screening.visual.proj.neg_()  # type: ignore[operator]
    yield fast
    fast._screening = sound


@pytest.fixture(scope="module")
def verdicts(policy: Policy) -> list[Verdict]:
    """Of the exact pass alone."""
    served = load_encoder("bundled", device="cpu", precision="float32")
    subjects = [prepare(f.read_bytes(), served) for f in FILES]
    found = [o.verdict for o in moderate(subjects, policy, served)]
    assert set(found) == {Verdict.CLEAR, Verdict.FLAGGED}
    return found


def subjects_of(encoder: Encoder, audit: bool) -> list[Subject]:
    """The sample images under digests of which one, or none, is of those confirmed at random."""
    names = (f"{n:064x}" for n in range(1_000_000))
    chosen = next(n for n in names if audited(n)) if audit else ""
    others = [n for n in (f"{n:064x}" for n in range(2_000_000, 2_000_050)) if not audited(n)]
    digests = [chosen, *others] if audit else others
    return [
        Subject(d, s.views, s.load, s.pixels)
        for d, s in zip(digests, (prepare(f.read_bytes(), encoder) for f in FILES), strict=False)
    ]


def test_a_sound_fast_pass_raises_no_alarm(
    fast: Encoder, policy: Policy, verdicts: list[Verdict]
) -> None:
    outcomes = moderate(subjects_of(fast, audit=True), policy, fast)
    pairs = fast.check.take()
    assert [o.verdict for o in outcomes] == verdicts
    assert (pairs.outside, pairs.alarms) == (0, 0) and fast.check.widening == 1
    assert pairs.count >= verdicts.count(Verdict.FLAGGED) and 0 < pairs.furthest < 1


def test_a_planted_drift_raises_the_alarm_and_no_verdict_depends_on_it(
    drifted: Encoder, policy: Policy, verdicts: list[Verdict], caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = moderate(subjects_of(drifted, audit=True), policy, drifted)
    pairs = drifted.check.take()
    assert pairs.outside > 0 and pairs.alarms > 0 and pairs.furthest > 1
    assert drifted.check.widening >= ROOM * pairs.furthest
    assert [o.verdict for o in outcomes] == verdicts
    (said, *_) = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert drifted.name in said and "outside the band" in said


def test_the_sample_is_what_finds_a_margin_that_is_far_too_low(
    drifted: Encoder, policy: Policy, verdicts: list[Verdict]
) -> None:
    lowest = policy.model_copy(
        update={
            "classes": tuple(c.model_copy(update={"threshold": 1 - 1e-9}) for c in policy.classes)
        }
    )  # out of reach, so that nothing is near
    drifted.band(lowest)
    moderate(subjects_of(drifted, audit=False), lowest, drifted)
    assert drifted.check.take() == MarginPairs()
    moderate(subjects_of(drifted, audit=True), lowest, drifted)
    assert drifted.check.take().alarms > 0


def test_one_image_in_five_hundred_is_confirmed_at_random() -> None:
    share = np.mean([audited(f"{n:064x}") for n in range(100_000)])
    assert share == pytest.approx(1 / AUDITED, rel=0.2)


def test_where_the_fast_pass_is_the_exact_one_there_is_no_band(policy: Policy) -> None:
    exact = load_encoder("bundled", device="cpu", precision="float32")
    assert (exact.band(policy) == 0).all()


def test_sums_in_float32_leave_a_smaller_error(fast: Encoder, policy: Policy) -> None:
    pixels = torch.stack(
        [fast.pixels(decode(f).frames[0].picture) for f in probes(fast.input_size)]
    )
    whole = copy.deepcopy(fast.model).to(torch.bfloat16).visual
    assert isinstance(whole, torch.nn.Module)
    with torch.inference_mode():
        rough = F.normalize(whole(pixels.bfloat16()).float(), dim=-1).numpy()  # (p, d)
    margins = fast.vectors(policy).margins
    served = margins(fast.encode(pixels))  # (p, classes)
    errors = [((margins(z) - served) ** 2).mean() for z in (fast.screen(pixels), rough)]
    assert 0 < errors[0] < 0.75 * errors[1]


def test_a_widened_band_is_as_many_times_as_wide(fast: Encoder, policy: Policy) -> None:
    before = fast.band(policy)
    fast.check.widen(3)
    fast.check.widen(2)  # another worker has seen less
    np.testing.assert_allclose(fast.band(policy), 3 * before)
    np.testing.assert_array_equal(fast.measured_band(policy), before)


def test_fine_print_is_judged_as_decoded_in_full(policy: Policy) -> None:
    rng = np.random.default_rng(1)
    exact = load_encoder("bundled", device="cpu", precision="float32")
    y, x = np.mgrid[0:1024, 0:1024]
    dots = (np.cos(x / 0.6) * np.cos(y / 0.61) > 0) * 255
    file = io.BytesIO()
    grain = rng.integers(0, 20, dots.shape)
    PIL.Image.fromarray((dots * 0.9 + grain).astype(np.uint8)).save(file, "JPEG", quality=90)
    subject = prepare(file.getvalue(), exact)
    picture = decode(file.getvalue()).frames[0].picture
    assert subject.pixels is not None
    assert torch.equal(subject.pixels, exact.pixels(picture)[None])
    assert exact.screening_is_exact and all(moderate([subject], policy, exact)[0].exact)


@pytest.fixture
def check() -> ScreeningCheck:
    return ScreeningCheck("model")


def test_deviations_as_those_of_the_probes_are_sound(check: ScreeningCheck) -> None:
    rng = np.random.default_rng(0)
    sound = np.abs(rng.standard_normal((50, 40))) / 20  # a band is twenty times their spread
    assert not any(check.observe(some.tolist()) for some in sound)
    assert check.take().count == 2000 and check.take() == MarginPairs()


def test_one_margin_outside_the_band_is_enough(check: ScreeningCheck) -> None:
    assert check.observe([0.1, 1.5, 0.2])
    assert check.widening == 3.0
    assert not check.observe([1.5])
    assert check.take() == MarginPairs(count=4, outside=1, furthest=1.5, total=3.3, alarms=1)


def test_many_margins_that_drift_within_the_band_are_enough(check: ScreeningCheck) -> None:
    assert not check.observe([0.4] * (RECENT - 1))
    assert check.observe([0.4])
    assert check.widening == ROOM
    assert not check.observe([0.4] * RECENT)  # they lie well within what is allowed now


@pytest.mark.parametrize("deviation", [np.inf, 1e12])
def test_a_fast_pass_of_no_use_leaves_everything_to_the_exact_one(
    check: ScreeningCheck, deviation: float
) -> None:
    check.observe([deviation])
    assert check.widening == 1e6


@pytest.fixture
def encoder_id(sessions: Sessions, fast: Encoder) -> int:
    with sessions.begin() as session:
        return register_encoder(session, fast.fingerprint, fast.name, fast.dim, fast.details)


def test_what_one_worker_sees_widens_the_band_of_all(
    sessions: Sessions, encoder_id: int, drifted: Encoder, policy: Policy
) -> None:
    report = partial(keep_pairs, sessions, encoder_id)
    judge = ServedJudge(drifted, Limits(), report=report)
    with sessions.begin() as session:
        assert widening_of(session, encoder_id) == 1
    judge.moderate(subjects_of(drifted, audit=True), policy)
    with sessions.begin() as session:
        assert widening_of(session, encoder_id) == pytest.approx(drifted.check.widening)
    drifted.check = ScreeningCheck("another worker")
    drifted.check.observe([0.1])
    judge.moderate([], policy)
    assert drifted.check.widening > ROOM


def test_an_alarm_is_forgotten_after_a_week(sessions: Sessions, encoder_id: int) -> None:
    keep_pairs(sessions, encoder_id, MarginPairs(3, 1, 5.0, 6.0, 1), 10.0)
    with sessions.begin() as session:
        session.get_one(StoredCheck, encoder_id).alarmed_at = datetime.now(UTC) - timedelta(days=8)
    assert keep_pairs(sessions, encoder_id, MarginPairs(1, 0, 0.2, 0.2, 0), 1.0) == 1
    with sessions.begin() as session:
        kept = session.get_one(StoredCheck, encoder_id)
        assert (kept.pairs, kept.outside, kept.furthest, kept.alarms) == (4, 1, 5.0, 1)
    assert keep_pairs(sessions, encoder_id, MarginPairs(1, 1, 2.0, 2.0, 1), 4.0) == 4
