"""How the model came to it: accounts that sum, runs that are real, and a model left as it was."""

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP, CLIPVisionCfg
from torch import Tensor

from filter_service.demo import POLICY
from filter_service.demo.kinds import CLASS_OF
from filter_service.demo.samples import SIDE, moderation_scene
from filter_service.demo.scenes import DEV_SEEDS, mask, render, sample_scene, without
from filter_service.errors import NotExplainable
from filter_service.explain.regions import Suspect
from filter_service.explain.study.inside import (
    Neurons,
    Patch,
    Trace,
    Tracing,
    contributions,
    lens,
    neurons,
    removed,
    trace,
)
from filter_service.explain.study.inside.causal_tracing import TracedPatch, _rank_correlation
from filter_service.explain.study.inside.residual_stream import (
    Pass,
    check,
    hidden,
    replaced,
    states,
)
from filter_service.policy import read_policy
from filter_service.scoring import ClassVectors, FloatArray, LogitScale
from tests.support.precision import bundled
from tests.support.tiny_encoders import TEXT, TinyEncoder, tiny
from tests.support.tiny_inputs import pixels, state

KINDS = ["vit", "oblong", "layer scale", "norm after", "shallow"]
REFUSED = {
    "average": "VisionTransformer of ResidualAttentionBlock with pool_type='avg'",
    "custom": "VisionTransformer of CustomResidualAttentionBlock",
    "pooler": "VisionTransformer with AttentionalPooler",
    "coca": "VisionTransformer with AttentionalPooler",
    "siglip": "TimmModel around VisionTransformer",
    "resnet": "ModifiedResNet",
}


def opened(kind: str) -> Any:
    """A small encoder of one kind of tower."""
    return shallow() if kind == "shallow" else tiny(kind)


@cache
def shallow() -> TinyEncoder:
    """One layer of four heads, with another activation than the rest."""
    torch.manual_seed(3)
    tower = CLIPVisionCfg(image_size=32, patch_size=8, width=64, layers=1, head_width=16)
    return TinyEncoder(CLIP(64, tower, TEXT, quick_gelu=True).eval())


def vectors(sigmoid: bool = False) -> ClassVectors:
    """A class of two prompts against three neutral ones, all random."""
    rows = np.random.default_rng(4).normal(size=(5, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return ClassVectors(
        "any", rows[:2], rows[2:], LogitScale(factor=20.0, bias=-1.0, sigmoid=sigmoid)
    )


def served(encoder: Any, image: Tensor) -> float:
    return float(vectors().margins(encoder.encode(image[None]))[0])


def finish(tower: Any, x: Tensor, layer: int) -> float:
    """The margin of a stream (1, j, e) that enters a layer, block by block."""
    with torch.inference_mode():
        for block in tower.transformer.resblocks[layer:]:
            x = block(x)
        z = torch.nn.functional.normalize(tower.ln_post(x[:, 0]) @ tower.proj, dim=-1)
    return float(vectors().margins(z.numpy())[0])


def tracing(kind: str) -> Tracing:
    clean, corrupted, _ = pixels(kind)
    return Tracing.of(opened(kind), vectors(), clean, corrupted)


@pytest.mark.parametrize("kind", KINDS)
class TestContributions:
    def test_they_add_up_to_the_margin_served(self, kind: str) -> None:
        image = pixels(kind)[0]
        found = contributions(opened(kind), vectors(), image)
        assert found.total == pytest.approx(served(opened(kind), image), abs=1e-4)
        assert found.margin == pytest.approx(served(opened(kind), image), abs=1e-6)

    def test_there_is_one_for_every_layer_and_head(self, kind: str) -> None:
        found = contributions(opened(kind), vectors(), pixels(kind)[0])
        blocks = opened(kind).model.visual.transformer.resblocks
        assert [len(row) for row in found.heads] == [b.attn.num_heads for b in blocks]
        assert len(found.mlps) == len(found.biases) == len(blocks)

    def test_a_head_adds_what_it_wrote(self, kind: str) -> None:
        encoder, image = opened(kind), pixels(kind)[0]
        found, seen = contributions(encoder, vectors(), image), Pass.of(encoder, vectors(), image)
        block = encoder.model.visual.transformer.resblocks[-1]
        attention, heads = block.attn, block.attn.num_heads
        x = seen.sites[-1].tokens  # (1, j, e)
        with torch.inference_mode():
            _, look = attention(x, x, x, average_attn_weights=False)  # (1, h, j, j)
            value = (x @ attention.in_proj_weight.chunk(3)[2].T).unflatten(-1, (heads, -1))
            mixed = torch.einsum("hj,jhk->hk", look[0, :, 0], value[0])  # (h, k)
            out = attention.out_proj.weight.unflatten(1, (heads, -1))  # (e, h, k)
            written = torch.einsum("ehk,hk->he", out, mixed) * seen.sites[-1].gain  # (h, e)
            expected = written @ seen.gradient[0, 0]  # (h,)
        assert np.allclose(found.heads[-1], expected.numpy(), atol=1e-4)

    def test_what_does_not_see_the_image_is_the_same_for_all(self, kind: str) -> None:
        encoder, u = opened(kind), torch.randn(1, 1, 64)
        passes = [Pass.of(encoder, vectors(), image) for image in pixels(kind)]
        assert torch.equal(passes[0].start, passes[1].start)
        assert passes[0].sites[0].bias(u) == passes[1].sites[0].bias(u)


@pytest.mark.parametrize("kind", KINDS)
class TestLens:
    def test_the_last_margin_is_the_one_served(self, kind: str) -> None:
        found = lens(opened(kind), vectors(), pixels(kind)[0])
        assert found.margins[-1] == pytest.approx(served(opened(kind), pixels(kind)[0]), abs=1e-4)

    def test_every_margin_is_that_of_a_model_that_ends_there(self, kind: str) -> None:
        encoder, image = opened(kind), pixels(kind)[0]
        found = lens(encoder, vectors(), image)
        for layers, margin in enumerate(found.margins):
            shorter = copy.deepcopy(encoder)
            blocks = shorter.model.visual.transformer
            blocks.resblocks = blocks.resblocks[:layers]
            assert margin == pytest.approx(served(shorter, image), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
class TestTracing:
    def test_all_tokens_of_any_layer_restore_the_clean_margin(self, kind: str) -> None:
        case = tracing(kind)
        layers, tokens = case.states.shape[1:3]
        found = case.restored([Patch(n, tuple(range(tokens))) for n in range(layers)])
        assert found == pytest.approx([case.margins[0] - case.margins[1]] * layers, abs=1e-4)

    def test_no_token_restores_nothing(self, kind: str) -> None:
        assert tracing(kind).restored([Patch(0, ())]) == pytest.approx([0.0], abs=1e-4)

    def test_a_patch_is_what_the_blocks_make_of_it(self, kind: str) -> None:
        case, tower = tracing(kind), opened(kind).model.visual
        patches = [Patch(n, (0, 3)) for n in range(case.states.shape[1])]
        for patch, restored in zip(patches, case.restored(patches), strict=True):
            x = case.states[1:, patch.layer].clone()  # (1, j, e)
            x[0, list(patch.tokens)] = case.states[0, patch.layer, list(patch.tokens)]
            by_hand = finish(tower, x, patch.layer) - case.margins[1]
            assert restored == pytest.approx(by_hand, abs=1e-4)

    def test_an_estimate_is_right_for_a_small_difference(self, kind: str) -> None:
        clean, noise, _ = pixels(kind)
        case = Tracing.of(opened(kind), vectors(), clean, clean + 0.003 * noise)
        estimated = case.estimated()  # (layers, j)
        pairs = [(n, t) for n in range(len(estimated)) for t in range(estimated.shape[1])]
        exact = case.restored([Patch(n, (t,)) for n, t in pairs])
        assert np.corrcoef(estimated.ravel(), exact)[0, 1] > 0.99
        assert np.abs(estimated.ravel() - exact).max() < 0.05 * np.abs(exact).max()

    def test_the_largest_estimates_are_verified(self, kind: str) -> None:
        clean, corrupted, _ = pixels(kind)
        found, case = trace(opened(kind), vectors(), clean, corrupted), tracing(kind)
        sizes = [abs(t.estimated) for t in found.verified]
        count = min(20, len(found.class_token) * (1 + len(found.places[0])))
        assert len(sizes) == count and sizes == sorted(sizes, reverse=True)
        assert sizes[0] == pytest.approx(np.abs(case.estimated()).max())
        again = case.restored([patch_of(t.layer, t.place) for t in found.verified])
        assert [t.restored for t in found.verified] == pytest.approx(again, abs=1e-4)
        assert found.rank_correlation is not None and -1 <= found.rank_correlation <= 1


def patch_of(layer: int, place: int | None) -> Patch:
    return Patch(layer, (0 if place is None else 1 + place,))


def test_every_patch_is_verified_if_asked() -> None:
    found = trace(tiny(), vectors(), pixels("vit")[0], pixels("vit")[1], verify=None)
    assert {(t.layer, t.place) for t in found.verified} == {
        (n, p) for n in range(3) for p in (None, *range(16))
    }
    for t in found.verified:
        row = found.class_token[t.layer] if t.place is None else found.places[t.layer][t.place]
        assert t.estimated == row


def test_the_changed_places_are_those_whose_pixels_differ() -> None:
    clean = pixels("vit")[0]
    corrupted = clean.clone()
    corrupted[:, 8:16, 16:32] = 0  # places 6 and 7 of a 4 x 4 grid
    found = trace(tiny(), vectors(), clean, corrupted)
    assert found.changed == (6, 7) and found.grid == (4, 4)
    assert found.together[0] == pytest.approx(found.clean - found.corrupted, abs=1e-4)


def test_two_equal_images_have_nothing_to_trace() -> None:
    found = trace(tiny(), vectors(), pixels("vit")[0], pixels("vit")[0])
    assert found.changed == () and found.rank_correlation is None
    assert found.together == pytest.approx([0.0] * 3, abs=1e-4)


def test_equal_values_share_their_rank() -> None:
    estimated, ranks = (3.0, 1.0, 3.0, 2.0), (3.5, 1.0, 3.5, 2.0)
    pairs = zip(estimated, ranks, strict=True)
    traced = [TracedPatch(layer=0, place=None, estimated=e, restored=r) for e, r in pairs]
    assert _rank_correlation(traced) == pytest.approx(1.0)
    falling = [t.model_copy(update={"restored": -t.restored}) for t in traced]
    assert _rank_correlation(falling) == pytest.approx(-1.0)


def test_a_region_is_removed_as_flip_regions_are() -> None:
    image = torch.rand(3, 32, 32)
    suspect = Suspect(image, np.zeros((4, 4), dtype=np.float32), vectors(), 0.0)
    assert torch.equal(removed(suspect, (5, 6)), suspect.without(np.array([5, 6])))
    assert torch.equal(removed(suspect, (5,), "blur"), suspect.blurred(np.array([5])))
    assert torch.equal(removed(suspect, ()), image)


@cache
def every_neuron(kind: str) -> Neurons:
    return neurons(opened(kind), vectors(), pixels(kind)[0], count=10_000)


@pytest.mark.parametrize("kind", KINDS)
class TestNeurons:
    def test_a_layers_neurons_write_what_its_mlp_adds(self, kind: str) -> None:
        encoder, image = opened(kind), pixels(kind)[0]
        found = every_neuron(kind)
        sums = np.zeros(len(encoder.model.visual.transformer.resblocks))
        for n in found.neurons:
            sums[n.layer] += n.written
        assert sums == pytest.approx(contributions(encoder, vectors(), image).mlps, abs=1e-4)

    def test_the_largest_direct_effects_come_first(self, kind: str) -> None:
        few, all_ = neurons(opened(kind), vectors(), pixels(kind)[0], count=5), every_neuron(kind)
        sizes = [abs(n.direct) for n in all_.neurons]
        assert sizes == sorted(sizes, reverse=True)
        assert [(n.layer, n.unit) for n in few.neurons] == [
            (n.layer, n.unit) for n in all_.neurons[:5]
        ]

    def test_an_ablation_is_what_the_blocks_make_of_it(self, kind: str) -> None:
        encoder, image = opened(kind), pixels(kind)[0]
        case = Tracing.of(encoder, vectors(), image, image)
        for n in neurons(encoder, vectors(), image, pixels(kind)[1:], count=4).neurons:
            block = encoder.model.visual.transformer.resblocks[n.layer]
            with torch.inference_mode():
                x = case.states[:1, n.layer]
                x = x + block.ls_1(block.attention(block.ln_1(x)))
                units = block.mlp[1](block.mlp[0](block.ln_2(x)))  # (1, j, m)
                assert float(units[0, 0, n.unit]) == pytest.approx(n.activation, abs=1e-4)
                units[0, 0, n.unit] = n.mean
                x = x + block.ls_2(block.mlp[2](units))
            margin = finish(encoder.model.visual, x, n.layer + 1)
            assert n.ablated == pytest.approx(served(encoder, image) - margin, abs=1e-4)

    def test_a_mean_that_is_the_image_itself_changes_nothing(self, kind: str) -> None:
        found = neurons(opened(kind), vectors(), pixels(kind)[0], pixels(kind)[:1])
        assert found.mean_of == "reference images"
        assert all(abs(n.direct) < 1e-4 and abs(n.ablated) < 1e-4 for n in found.neurons)


def test_the_mean_is_that_of_the_reference_images() -> None:
    image, *others = pixels("vit")
    means = [
        {(n.layer, n.unit): n.mean for n in neurons(tiny(), vectors(), image, r, 100).neurons}
        for r in (torch.stack(others), others[0][None], others[1][None])
    ]
    both, one, two = means
    shared = both.keys() & one.keys() & two.keys()
    assert len(shared) > 10
    assert all(both[k] == pytest.approx((one[k] + two[k]) / 2, abs=1e-5) for k in shared)


def test_without_references_the_mean_is_that_of_the_own_tokens() -> None:
    image = pixels("vit")[0]
    kept: list[Tensor] = []
    tower = tiny().model.visual
    with replaced({m: lambda out: kept.append(out) or out for m in hidden(tower)}):  # type: ignore[func-returns-value]
        tiny().encode(image[None])
    found = neurons(tiny(), vectors(), image)
    assert found.mean_of == "own tokens"
    for n in found.neurons:
        assert n.mean == pytest.approx(float(kept[n.layer][0, :, n.unit].mean()), abs=1e-5)


def test_a_sigmoid_models_margin_is_explained_too() -> None:
    image, other, _ = pixels("vit")
    case = vectors(sigmoid=True)
    margin = float(case.margins(tiny().encode(image[None]))[0])
    assert contributions(tiny(), case, image).total == pytest.approx(margin, abs=1e-4)
    assert trace(tiny(), case, image, other).clean == pytest.approx(margin, abs=1e-4)


Question = Callable[[Any, ClassVectors, Tensor], object]
QUESTIONS: dict[str, Question] = {
    "contributions": contributions,
    "lens": lens,
    "trace": lambda encoder, v, image: trace(encoder, v, image, image.flip(-1)),
    "neurons": neurons,
}


@pytest.mark.parametrize("name", QUESTIONS)
class TestABorrowedModel:
    def test_is_left_as_it_was(self, name: str) -> None:
        before = state(tiny().model)
        QUESTIONS[name](tiny(), vectors(), pixels("vit")[0])
        assert state(tiny().model) == before

    def test_is_left_as_it_was_when_the_forward_raises(self, name: str) -> None:
        before = state(tiny().model)
        with pytest.raises(RuntimeError):
            QUESTIONS[name](tiny(), vectors(), torch.zeros(7, 32, 32))
        assert state(tiny().model) == before

    @pytest.mark.parametrize("kind", REFUSED)
    def test_is_refused_by_name_if_it_cannot_be_read(self, name: str, kind: str) -> None:
        with pytest.raises(NotExplainable, match=REFUSED[kind]):
            QUESTIONS[name](tiny(kind), vectors(), pixels(kind)[0])

    def test_must_be_the_one_that_serves(self, name: str) -> None:
        with pytest.raises(NotExplainable, match="logits away from the one served"):
            QUESTIONS[name](Other(tiny().model), vectors(), pixels("vit")[0])


class Other(TinyEncoder):
    """Serves something else than its model computes."""

    def encode(self, pixels: Tensor) -> FloatArray:
        z = super().encode(pixels)
        z = z + np.float32(0.01) * np.eye(len(z), z.shape[1], dtype=np.float32)
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True), dtype=np.float32)


def test_a_patch_that_raises_leaves_no_hook() -> None:
    before, case = state(tiny().model), tracing("vit")
    with pytest.raises(IndexError):
        case.restored([Patch(1, (99,))])
    assert state(tiny().model) == before


def test_other_threads_are_served_the_model_as_it_is() -> None:
    encoder, image = tiny(), pixels("vit")[0]
    seen: list[float] = []
    with replaced({states(encoder.model.visual)[0]: torch.zeros_like}):
        other = threading.Thread(target=lambda: seen.append(served(encoder, image)))
        other.start()
        other.join()
        assert abs(served(encoder, image) - seen[0]) > 0.1
    assert seen == [served(encoder, image)]


@pytest.mark.parametrize("value", [1.001, float("nan")])
def test_an_account_of_something_else_is_refused(value: float) -> None:
    with pytest.raises(NotExplainable, match="The margin is"):
        check("margin", value, 1.0)
    check("margin", 1.00005, 1.0)


@dataclass(frozen=True)
class Guilty:
    """A scene with a forbidden object, with it and without, on the bundled model."""

    vectors: ClassVectors
    clean: Tensor
    corrupted: Tensor
    covered: tuple[int, ...]  # places that the object covers by a quarter at least
    free: tuple[int, ...]  # as many places that it does not touch


@cache
def guilty(count: int = 6) -> list[Guilty]:
    """The first scenes whose margin falls by two logits or more when the object goes."""
    found: list[Guilty] = []
    seed = DEV_SEEDS + 30_000_000
    while len(found) < count:
        scene, seed = moderation_scene(seed, True).scene, seed + 1
        index = next(i for i, o in enumerate(scene.objects) if o.kind in CLASS_OF)
        named = {c.name: c for c in bundled().vectors(read_policy(POLICY)).classes}
        case = named[CLASS_OF[scene.objects[index].kind]]
        clean, corrupted = (
            bundled().pixels(render(s, SIDE)) for s in (scene, without(scene, index))
        )
        shown = mask(scene, index, 64).reshape(8, 8, 8, 8).mean(axis=(1, 3)).ravel()  # (64,)
        covered, untouched = np.flatnonzero(shown > 0.25), np.flatnonzero(shown == 0)
        free = np.random.default_rng(seed).permutation(untouched)[: len(covered)]
        margins = case.margins(bundled().encode(torch.stack([clean, corrupted])))
        if margins[0] - margins[1] >= 2 and 0 < len(covered) == len(free):
            found.append(
                Guilty(case, clean, corrupted, tuple(covered.tolist()), tuple(free.tolist()))
            )
    return found


@cache
def traces() -> list[Trace]:
    return [trace(bundled(), g.vectors, g.clean, g.corrupted) for g in guilty()]


@cache
def spoken() -> list[Neurons]:
    scenes = [sample_scene(DEV_SEEDS + 31_000_000 + i, 2) for i in range(32)]
    references = torch.stack([bundled().pixels(render(s, SIDE)) for s in scenes])
    return [neurons(bundled(), g.vectors, g.clean, references) for g in guilty()]


def test_the_bundled_models_accounts_are_of_the_margin_served() -> None:
    for g in guilty():
        margin = float(g.vectors.margins(bundled().encode(g.clean[None]))[0])
        account = contributions(bundled(), g.vectors, g.clean)
        assert account.total == pytest.approx(margin, abs=1e-4)
        assert lens(bundled(), g.vectors, g.clean).margins[-1] == pytest.approx(margin, abs=1e-4)


def test_the_objects_places_restore_more_than_as_many_others() -> None:
    for g in guilty():
        case = Tracing.of(bundled(), g.vectors, g.clean, g.corrupted)
        for layer in range(4):
            both = [Patch(layer, tuple(1 + p for p in places)) for places in (g.covered, g.free)]
            covered, free = case.restored(both)
            assert covered > 0.5 * (case.margins[0] - case.margins[1])
            assert covered > 2 * abs(free)


def test_the_changed_pixels_alone_restore_everything() -> None:
    for found in traces():
        assert 0 < len(found.changed) < 64
        assert found.together[0] == pytest.approx(found.clean - found.corrupted, abs=1e-4)


def test_the_answer_has_moved_to_the_class_token_in_the_end() -> None:
    for g in guilty():
        case = Tracing.of(bundled(), g.vectors, g.clean, g.corrupted)
        first, last = case.restored([Patch(0, (0,)), Patch(5, (0,))])
        assert first == pytest.approx(0.0, abs=1e-4)  # it has not looked at the image yet
        assert last != pytest.approx(0.0, abs=0.01)


def test_estimates_rank_patches_better_than_chance() -> None:
    correlations = [
        trace(bundled(), g.vectors, g.clean, g.corrupted, verify=None).rank_correlation
        for g in guilty()[:3]
    ]
    assert np.mean([c for c in correlations if c is not None]) > 0.3


def test_most_neurons_do_what_was_predicted() -> None:
    assert all(n.mean_of == "reference images" and len(n.neurons) == 20 for n in spoken())
    assert np.mean([n.confirmed for n in spoken()]) > 0.8


def test_the_records_are_plain_numbers() -> None:
    for record in (traces()[0], spoken()[0]):
        assert type(record).model_validate_json(record.model_dump_json()) == record
