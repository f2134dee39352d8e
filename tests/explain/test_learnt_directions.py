"""A class with a head is judged, screened and explained by the margin that it has with it."""

from collections.abc import Iterator

import numpy as np
import pytest

from filter_service import decode, load_encoder, moderate
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder
from filter_service.errors import AnotherEncoder, InvalidPolicy
from filter_service.explain.study.methods import METHODS
from filter_service.policy import Policy, read_policy
from filter_service.rollout import soundness
from filter_service.verdicts import Outcome, threshold_margin
from filter_service.verdicts.explanation import Explanation
from tests.support.learnt_heads import head_for, with_head
from tests.support.tiny_encoders import tiny
from tests.support.tiny_inputs import pixels

FILES = sorted(SAMPLES.glob("*.jpg"))[:40]
NAME = "weapons"


def taught(encoder: Encoder, prompts: Policy) -> Policy:
    """Weapons learnt of hammers, which no prompt of the class names, and guns count for less."""
    hammer, gun = encoder.encode_texts(["a hammer", "a gun"])
    weights = 6 * hammer - 2 * gun
    return with_head(prompts, NAME, head_for(prompts, NAME, encoder.fingerprint, weights, 0.4))


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("bundled", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def prompts() -> Policy:
    return read_policy(POLICY)


@pytest.fixture(scope="module")
def policy(encoder: Encoder, prompts: Policy) -> Policy:
    return taught(encoder, prompts)


@pytest.fixture(scope="module")
def outcomes(encoder: Encoder, policy: Policy) -> list[Outcome]:
    return moderate([decode(f.read_bytes()) for f in FILES], policy, encoder)


def explained(outcomes: list[Outcome]) -> Iterator[tuple[Outcome, Explanation]]:
    for outcome in outcomes:
        yield from ((outcome, e) for e in outcome.explanations if e.class_name == NAME)


def test_a_judged_image_has_the_margin_of_its_prompts_and_of_its_head(
    outcomes: list[Outcome], encoder: Encoder, policy: Policy, prompts: Policy
) -> None:
    head = policy.forbidden(NAME).head
    assert head is not None
    for outcome in outcomes:
        assert outcome.vectors is not None
        (margin,) = [s.margin for s in outcome.scores if s.class_name == NAME]
        alone = encoder.vectors(prompts).classes[0].margins(outcome.vectors)
        assert margin == pytest.approx((alone + outcome.vectors @ head.weights + 0.4).max())


def test_map_and_remainder_add_up_to_the_margin_with_the_head(outcomes: list[Outcome]) -> None:
    found = list(explained(outcomes))
    assert len(found) >= 3
    for _, e in found:
        assert e.map is not None and abs(e.map.total + e.map.remainder - e.margin) < 1e-4


def test_the_proof_of_a_heads_map_is_of_the_served_margin(
    outcomes: list[Outcome], policy: Policy
) -> None:
    for outcome, e in explained(outcomes):
        (margin,) = [s.margin for s in outcome.scores if s.class_name == NAME]
        assert e.proof.explained_error is not None and e.proof.explained_error < 1e-4
        assert e.proof.drops.served == pytest.approx(margin, abs=1e-4)  # type: ignore[union-attr]
    clearly = threshold_margin(policy.forbidden(NAME)) + 1  # nearer there is little to lose
    assert [e.faithful for _, e in explained(outcomes) if e.margin > clearly] == [True] * 5


def test_a_region_clears_by_the_margin_with_the_head(
    outcomes: list[Outcome], policy: Policy
) -> None:
    regions = [e.region for _, e in explained(outcomes) if e.region and e.region.flips]
    assert regions
    assert all(r.margin < threshold_margin(policy.forbidden(NAME)) for r in regions)


def test_counterfactual_images_are_clear_with_the_head(
    outcomes: list[Outcome], policy: Policy
) -> None:
    margins = {o.digest: s.margin for o in outcomes for s in o.scores if s.class_name == NAME}
    images = [image for _, e in explained(outcomes) for image in e.images]
    assert images
    for image in images:
        assert image.margin == pytest.approx(margins[image.digest], abs=1e-5)
        assert image.margin < threshold_margin(policy.forbidden(NAME))


def test_the_band_covers_what_a_head_adds(prompts: Policy) -> None:
    fast = load_encoder("bundled", device="cpu", precision="bfloat16")
    far = 200 * fast.encode_texts(["an empty background"])[0]
    wide = with_head(prompts, NAME, head_for(prompts, NAME, fast.fingerprint, far))
    assert fast.band(wide)[0] > 2 * fast.band(prompts)[0]
    assert fast.band(wide)[1:] == pytest.approx(fast.band(prompts)[1:])


def test_another_encoder_refuses_a_head(encoder: Encoder, prompts: Policy) -> None:
    strange = with_head(prompts, NAME, head_for(prompts, NAME, "ab" * 32, np.ones(8)))
    with pytest.raises(AnotherEncoder, match=r"head of weapons was fitted on encoder abababababab"):
        encoder.vectors(strange)


def test_a_head_of_another_size_is_refused_with_a_sentence(
    encoder: Encoder, prompts: Policy
) -> None:
    small = with_head(prompts, NAME, head_for(prompts, NAME, encoder.fingerprint, np.ones(8)))
    with pytest.raises(InvalidPolicy, match="has 8 numbers, and this model's vectors have"):
        encoder.vectors(small)


def test_a_threshold_that_only_the_head_reaches_is_no_fault(
    encoder: Encoder, prompts: Policy
) -> None:
    def faults(policy: Policy) -> list[str]:
        found = soundness.model_remarks(policy, encoder.vectors(policy))
        return [remark.sentence for remark in found if remark.fatal]

    high = prompts.model_copy(
        update={"classes": (prompts.classes[0].model_copy(update={"threshold": 1 - 1e-16}),)}
    )
    far = 40 * encoder.encode_texts(["a gun"])[0]
    assert any("no image can be flagged" in sentence for sentence in faults(high))
    assert not faults(with_head(high, NAME, head_for(high, NAME, encoder.fingerprint, far)))


@pytest.mark.parametrize("kind", ["vit", "resnet", "siglip", "coca"])
@pytest.mark.parametrize("name", ["decomposition", "ig-black"])
def test_a_heads_map_keeps_the_contract_of_maps(name: str, kind: str) -> None:
    encoder, x = tiny(kind), pixels(kind, 1)
    asked = Policy.model_validate(
        {
            "name": "t",
            "neutral": ["a cat"],
            "classes": [{"name": "a", "prompts": ["a dog"], "threshold": 0.5}],
        }
    )
    dim = encoder.encode(x).shape[1]
    weights = 9 * np.cos(np.arange(dim))
    own = with_head(asked, "a", head_for(asked, "a", encoder.fingerprint, weights))
    (z,), (vectors,) = encoder.encode(x), encoder.vectors(own).classes
    u = vectors.direction(z)  # (d,)
    (found,) = METHODS[name](encoder, x, u[None, None])
    assert abs(found.explained[0] - u @ z) < 1e-4
    assert abs(found.grid.sum() + found.remainder[0] - u @ z) < 1e-4
    assert abs(u @ z - encoder.vectors(asked).classes[0].direction(z) @ z - weights @ z) < 1e-4
