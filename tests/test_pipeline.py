"""moderate() from end to end with the bundled model, on scenes that are known pixel by pixel."""

import io

import numpy as np
import pytest

from filter_service import Outcome, Verdict, decode, load_encoder, moderate
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder
from filter_service.explain.question import Question, boundary, degrees
from filter_service.explain.relevance import capture
from filter_service.explain.relevance_rules import EXACT
from filter_service.explain.words import Words
from filter_service.pipeline.subject import Subject, prepare
from filter_service.policy import Policy, read_policy
from filter_service.verdicts import KnownVectors, threshold_margin
from filter_service.verdicts.explanation import Explanation

FILES = sorted(SAMPLES.glob("*.jpg"))[:40]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("bundled", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return read_policy(POLICY)


@pytest.fixture(scope="module")
def outcomes(encoder: Encoder, policy: Policy) -> list[Outcome]:
    return moderate([decode(f.read_bytes()) for f in FILES], policy, encoder)


@pytest.fixture(scope="module")
def explanations(outcomes: list[Outcome]) -> list[Explanation]:
    return [e for o in outcomes for e in o.explanations]


def test_every_flagged_class_has_one_explanation(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        flagged = sorted(s.class_name for s in outcome.scores if s.flagged)
        assert sorted(e.class_name for e in outcome.explanations) == flagged


def test_some_are_flagged_and_some_are_clear(outcomes: list[Outcome]) -> None:
    assert {o.verdict for o in outcomes} == {Verdict.CLEAR, Verdict.FLAGGED}


def test_map_and_remainder_equal_the_margin(explanations: list[Explanation]) -> None:
    for e in explanations:
        assert e.map is not None
        assert abs(e.map.total + e.map.remainder - e.margin) < 1e-4


def test_words_add_up_to_the_logit_of_their_prompt(explanations: list[Explanation]) -> None:
    for prompt in (p for e in explanations for p in e.words):
        total = sum(w.shapley for w in prompt.words)
        assert abs(total - (prompt.logit - prompt.empty)) < 1e-3


def test_the_words_maps_add_up_to_that_of_the_prompt_less_the_empty_one(
    outcomes: list[Outcome], encoder: Encoder, policy: Policy
) -> None:
    pixels = {
        o.digest: prepare(f.read_bytes(), encoder) for f, o in zip(FILES, outcomes, strict=True)
    }
    for outcome in [o for o in outcomes if o.explanations][:4]:
        seen = capture(encoder, pixels[outcome.digest].load())
        for e in outcome.explanations:
            templates = policy.templates_of(policy.forbidden(e.class_name))
            for prompt in e.words:
                folded = Words(encoder.encode_texts).vectors(prompt.prompt, templates)
                whole = encoder.logit_scale.factor * (folded.full - folded.empty)  # (d,)
                (found,) = seen.maps([0], whole[None, None], EXACT)
                summed = sum(w.grid.astype(np.float64) for w in prompt.words if w.grid is not None)
                assert np.abs(summed - found.grid[0]).max() < 0.02  # what float16 leaves
                assert np.abs(found.grid[0]).max() > 0.2


def test_counterfactual_images_are_clear_when_judged_by_themselves(
    outcomes: list[Outcome], explanations: list[Explanation]
) -> None:
    by_digest = {o.digest: {s.class_name: s for s in o.scores} for o in outcomes}
    shown = [(e, c) for e in explanations for c in e.images]
    assert shown
    for e, counterfactual in shown:
        score = by_digest[counterfactual.digest][e.class_name]
        assert not score.flagged
        assert abs(score.margin - counterfactual.margin) < 1e-4


def test_the_nearest_counterfactual_is_the_nearest_clear_image(
    outcomes: list[Outcome], encoder: Encoder
) -> None:
    vectors = {o.digest: o.vectors[0] for o in outcomes if o.vectors is not None}
    for outcome in outcomes:
        for e in outcome.explanations:
            z = vectors[outcome.digest]
            clear = [
                degrees(z, vectors[o.digest])
                for o in outcomes
                for s in o.scores
                if s.class_name == e.class_name and not s.flagged
            ]
            assert e.images[0].degrees == pytest.approx(min(clear), abs=1e-4)


def test_a_flip_region_really_flips(explanations: list[Explanation], policy: Policy) -> None:
    regions = [(e, e.region) for e in explanations if e.region is not None and e.region.flips]
    assert regions
    for e, region in regions:
        assert region.margin < threshold_margin(policy.forbidden(e.class_name))


def test_most_maps_are_faithful(explanations: list[Explanation]) -> None:
    assert np.mean([e.faithful for e in explanations]) >= 0.9


def test_the_boundary_point_lies_on_the_threshold(
    outcomes: list[Outcome], encoder: Encoder, policy: Policy
) -> None:
    for outcome in outcomes:
        assert outcome.vectors is not None
        for vectors in encoder.vectors(policy).classes:
            question = Question(outcome.digest, outcome.vectors[0], policy, vectors)
            edge = boundary(question)
            if edge is not None:
                margin = float(vectors.margins(edge[None])[0])
                assert abs(margin - question.threshold) < 1e-3
                assert np.linalg.norm(edge) == pytest.approx(1, abs=1e-5)


def test_a_record_survives_its_journey_through_json(explanations: list[Explanation]) -> None:
    first = explanations[0]
    again = Explanation.model_validate_json(first.model_dump_json())
    assert again.model_dump_json() == first.model_dump_json()


def test_known_vectors_give_the_same_verdicts_without_a_screening_pass(
    outcomes: list[Outcome], encoder: Encoder, policy: Policy
) -> None:
    def load() -> object:
        raise AssertionError("a clear image whose vector is known needs no pixels")

    clear = [o for o in outcomes if o.verdict is Verdict.CLEAR and o.vectors is not None]
    known = [
        Subject(
            o.digest,
            o.views,
            load,  # type: ignore[arg-type]
            known=KnownVectors(o.vectors, o.views, o.exact),
        )
        for o in clear
        if o.vectors is not None
    ]
    again = moderate(known, policy, encoder)
    assert [o.scores for o in again] == [o.scores for o in clear]


def test_an_animation_is_judged_by_its_worst_frame(encoder: Encoder, policy: Policy) -> None:
    stills = [decode(f.read_bytes()).frames[0].picture.resize((128, 128)) for f in FILES[:4]]
    file = io.BytesIO()
    stills[0].save(file, "GIF", save_all=True, append_images=stills[1:])
    outcome = moderate([prepare(file.getvalue(), encoder)], policy, encoder)[0]
    frames = [moderate([decode(file.getvalue())], policy, encoder)[0]]
    assert outcome.scores == frames[0].scores
    assert len(outcome.views) == 4
