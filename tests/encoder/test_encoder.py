"""The encoder: the same scores as open_clip, one fingerprint, a fast look with a measured band."""

import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from filter_service.encoder import Encoder, load_encoder
from filter_service.encoder.network import find
from filter_service.encoder.probes import COUNT, probes
from filter_service.errors import InvalidSettings, ModelUnavailable, UnknownModel
from filter_service.images import decode
from filter_service.images.views import Box
from filter_service.policy import Policy, parse_policy

TEXTS = ["a gun", "a photo of two dogs", "", "Café №5, at night"]
WIDTH = {"width": 64, "heads": 2, "layers": 2}
TEXT = {"context_length": 16, "vocab_size": 49408, **WIDTH}
VIT = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32}
SIGLIP = {
    "timm_model_name": "test_vit",
    "timm_pool": "map",
    "timm_proj": "none",
    "image_size": 160,
}
KINDS: dict[str, dict[str, Any]] = {
    "vit": {"vision_cfg": VIT, "text_cfg": TEXT},
    "resnet": {
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8},
        "text_cfg": TEXT,
    },
    "siglip": {
        "vision_cfg": SIGLIP,
        "text_cfg": {**TEXT, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
        "custom_text": True,
        "init_logit_bias": -10,
    },
    "coca": {
        "vision_cfg": {
            **VIT,
            "attentional_pool": True,
            "attn_pooler_heads": 4,
            "attn_pooler_queries": 4,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 16, "vocab_size": 49408, **WIDTH},
        "custom_text": True,
    },
}
POLICY = parse_policy(
    """
    name: tools
    neutral: [a photo, a house, a tree]
    templates: ["{}", "a drawing of {}"]
    classes:
      - {name: gun, prompts: [a gun, a pistol], threshold: 0.5}
      - {name: knife, prompts: [a knife], threshold: 0.5}
    """
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of small models in open_clip's own format, one per kind of tower."""
    root = tmp_path_factory.mktemp("models")

    def made(kind: str) -> Path:
        if not (root / kind).exists():
            _write(root / kind, {"embed_dim": 64, **KINDS[kind]})
        return root / kind

    return made


@pytest.fixture(scope="module")
def encoder(folder: Callable[[str], Path]) -> Callable[..., Encoder]:
    """Loaded encoders, each loaded once."""
    loaded: dict[tuple[str, str], Encoder] = {}

    def load(kind: str = "vit", precision: str = "float32") -> Encoder:
        if (kind, precision) not in loaded:
            loaded[kind, precision] = load_encoder(
                f"local-dir:{folder(kind)}", device="cpu", precision=precision
            )
        return loaded[kind, precision]

    return load


def _write(
    folder: Path, config: dict[str, Any], change: Callable[[dict[str, Tensor]], None] | None = None
) -> Path:
    """Write a model with random weights; `change` edits them first."""
    folder.mkdir(parents=True)
    document = {"model_cfg": config, "preprocess_cfg": {"interpolation": "bicubic"}}
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        weights = {
            name: w + 0.1 * torch.randn_like(w) if w.ndim == 1 and w.is_floating_point() else w
            for name, w in model.state_dict().items()
        }  # no bias is zero, no gain is one
        for name in weights.keys() & {"text_decoder.text_projection"}:
            # open_clip leaves CoCa's as the memory was: it may hold anything, also NaN
            weights[name] = 0.1 * torch.randn(weights[name].shape)
    if change:
        change(weights)
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def _pixels(encoder: Encoder, n: int = 4) -> Tensor:
    rng = np.random.default_rng(0)
    size = (3, encoder.input_size, encoder.input_size)
    return torch.from_numpy(rng.standard_normal((n, *size), dtype=np.float32))


def _photo(seed: int = 0) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (90, 120, 3), np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_image_vectors_equal_those_of_open_clip(kind: str, encoder: Any, folder: Any) -> None:
    model = open_clip.create_model(f"local-dir:{folder(kind)}").eval()
    pixels = _pixels(encoder(kind))
    with torch.no_grad():
        expected = model.encode_image(pixels, normalize=True).numpy()
    np.testing.assert_allclose(encoder(kind).encode(pixels), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_text_vectors_equal_those_of_open_clip(kind: str, encoder: Any, folder: Any) -> None:
    name = f"local-dir:{folder(kind)}"
    model = open_clip.create_model(name).eval()
    with torch.no_grad():
        tokens = open_clip.get_tokenizer(name)(TEXTS)
        expected = model.encode_text(tokens, normalize=True).numpy()
    np.testing.assert_allclose(encoder(kind).encode_texts(TEXTS), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["vit", "resnet", "siglip"])
def test_logits_equal_those_of_open_clip(kind: str, encoder: Any, folder: Any) -> None:
    name, e = f"local-dir:{folder(kind)}", encoder(kind)
    model, pixels = open_clip.create_model(name).eval(), _pixels(e)
    with torch.no_grad():
        expected, _ = model.get_logits(pixels, open_clip.get_tokenizer(name)(TEXTS))
    logits = e.logit_scale.factor * e.encode(pixels) @ e.encode_texts(TEXTS).T + e.logit_scale.bias
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["vit", "resnet", "siglip"])
def test_pixels_equal_those_of_open_clip(kind: str, encoder: Any, folder: Any) -> None:
    _, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder(kind)}")
    assert torch.equal(encoder(kind).pixels(_photo()), transform(_photo()))


def test_a_part_of_a_picture_is_seen_as_if_it_were_alone(encoder: Any) -> None:
    photo, part = _photo(), (1, 2, 31, 32)
    alone = photo.crop(part)
    whole = Box(0, 0, *alone.size)
    assert torch.equal(encoder().pixels(photo, Box(*part)), encoder().pixels(alone, whole))


def test_pixels_are_the_same_in_every_thread(encoder: Any) -> None:
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(encoder().pixels, [_photo()] * 16))
    assert all(torch.equal(p, encoder().pixels(_photo())) for p in made)


def test_a_learnt_bias_marks_a_sigmoid_model(encoder: Any) -> None:
    assert not encoder("vit").logit_scale.sigmoid
    assert encoder("vit").logit_scale.factor == pytest.approx(1 / 0.07, rel=1e-5)
    assert encoder("siglip").logit_scale.sigmoid
    assert encoder("siglip").logit_scale.bias == -10


@pytest.mark.parametrize("kind", KINDS)
def test_a_vector_does_not_depend_on_its_batch(kind: str, encoder: Any) -> None:
    e, pixels = encoder(kind), _pixels(encoder(kind), 5)
    alone = np.concatenate([e.encode(p[None]) for p in pixels])
    np.testing.assert_allclose(e.encode(pixels), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_screening_in_bfloat16_is_near_and_unit(kind: str, encoder: Any) -> None:
    fast, pixels = encoder(kind, "bfloat16"), _pixels(encoder(kind))
    screened, exact = fast.screen(pixels), fast.encode(pixels)
    assert np.linalg.norm(screened, axis=1) == pytest.approx(1, abs=1e-5)
    assert 0 < np.abs(screened - exact).max() < 0.05


def test_screening_in_float32_is_exact(encoder: Any) -> None:
    pixels = _pixels(encoder())
    assert np.array_equal(encoder().screen(pixels), encoder().encode(pixels))
    assert encoder().screening_is_exact
    assert not encoder("vit", "bfloat16").screening_is_exact


def test_an_overflow_in_float16_is_screened_in_float32(tmp_path: Path) -> None:
    def swell(weights: dict[str, Tensor]) -> None:
        weights["visual.conv1.weight"] *= 1e5

    name = f"local-dir:{_write(tmp_path / 'm', {'embed_dim': 64, **KINDS['vit']}, swell)}"
    e = load_encoder(name, device="cpu", precision="float16")
    assert np.isfinite(e.screen(_pixels(e))).all()


def test_encoding_leaves_the_model_as_it_was(encoder: Any) -> None:
    model = encoder("vit", "bfloat16").model
    before = {n: (p.clone(), p.dtype, p.requires_grad) for n, p in model.named_parameters()}
    encoder("vit", "bfloat16").screen(_pixels(encoder()))
    encoder("vit", "bfloat16").encode(_pixels(encoder()))
    for name, p in model.named_parameters():
        old, dtype, requires_grad = before[name]
        assert torch.equal(p, old), name
        assert (p.dtype, p.requires_grad) == (dtype, requires_grad), name
    assert not any(m._forward_hooks for m in model.modules())


@pytest.fixture
def forwards(encoder: Any) -> Iterator[list[int]]:
    """Collects the batch size of every text forward pass."""
    sizes: list[int] = []
    layer = encoder().model.token_embedding
    hook = layer.register_forward_hook(lambda _m, args, _out: sizes.append(len(args[0])))
    yield sizes
    hook.remove()


def test_a_text_is_encoded_once(encoder: Any, forwards: list[int]) -> None:
    first = encoder().encode_texts(["a red axe", "a blue axe", "a red axe"])
    again = encoder().encode_texts(["a blue axe", "a red axe"])
    assert forwards == [2]
    assert np.array_equal(first[:2], again[::-1])


def test_more_texts_than_are_kept_are_still_encoded(folder: Any) -> None:
    e = load_encoder(f"local-dir:{folder('vit')}", device="cpu")
    texts = [f"number {i}" for i in range(70)]
    expected = e.encode_texts(texts)
    e._texts._limit = 10
    np.testing.assert_allclose(e.encode_texts(texts), expected, rtol=0, atol=1e-6)
    assert len(e._texts._known) == 10


def test_no_texts_give_no_vectors(encoder: Any) -> None:
    assert encoder().encode_texts([]).shape == (0, 64)


def test_a_policy_is_encoded_once(encoder: Any, forwards: list[int]) -> None:
    policy = POLICY.model_copy(update={"name": "again", "templates": ("once {}",)})
    assert encoder().vectors(policy) is encoder().vectors(policy)
    assert len(forwards) == 3  # prompts of two classes, neutral prompts


def test_the_band_covers_images_it_was_not_measured_on(encoder: Any) -> None:
    e = encoder("vit", "bfloat16")
    vectors, band = e.vectors(POLICY), e.band(POLICY)
    for data in _unseen(e.input_size):
        pixels = e.pixels(decode(data).frames[0].picture)[None]
        fast, exact = e.screen(pixels), e.encode(pixels)
        assert (np.abs(vectors.margins(fast) - vectors.margins(exact))[0] <= band).all()


def test_only_a_lower_precision_has_a_band(encoder: Any) -> None:
    assert (encoder("vit").band(POLICY) == 0).all()
    assert (encoder("vit", "bfloat16").band(POLICY) > 0).all()


def test_the_band_is_the_same_for_a_policy_that_reads_the_same(encoder: Any) -> None:
    same = Policy.model_validate(POLICY.model_dump())
    assert np.array_equal(encoder().band(POLICY), encoder().band(same))


def test_probe_images_are_always_the_same() -> None:
    assert list(probes(16)) == list(probes(16))
    assert len(set(probes(16))) == COUNT


def _unseen(input_size: int) -> Iterator[bytes]:
    for seed in range(20):
        rng = np.random.default_rng(1000 + seed)
        coarse = rng.integers(0, 256, (6 + seed, 9 + seed, 3), np.uint8)
        file = io.BytesIO()
        size = (7 * input_size, 5 * input_size)
        PIL.Image.fromarray(coarse).resize(size).save(file, "JPEG", quality=85)
        yield file.getvalue()


def test_the_fingerprint_is_the_same_for_the_same_model(encoder: Any, folder: Any) -> None:
    again = load_encoder(f"local-dir:{folder('vit')}", device="cpu", precision="bfloat16")
    assert again.fingerprint == encoder("vit").fingerprint
    assert again.details["precision"] == "bfloat16"


def test_the_fingerprint_is_that_of_the_half_precision_file_too(tmp_path: Path) -> None:
    def halve(weights: dict[str, Tensor]) -> None:
        weights.update({n: w.half() for n, w in weights.items()})

    def round_(weights: dict[str, Tensor]) -> None:
        weights.update({n: w.half().float() for n, w in weights.items()})

    config = {"embed_dim": 64, **KINDS["vit"]}
    a = load_encoder(f"local-dir:{_write(tmp_path / 'a', config, halve)}", device="cpu")
    b = load_encoder(f"local-dir:{_write(tmp_path / 'b', config, round_)}", device="cpu")
    assert a.fingerprint == b.fingerprint


def _one_weight(document: dict[str, Any], folder: Path) -> None:
    file = folder / "open_clip_model.safetensors"
    weights = load_file(file)
    weights["visual.ln_post.bias"][3] += 1e-6
    save_file(weights, file)


def _activation(document: dict[str, Any], folder: Path) -> None:
    document["model_cfg"]["quick_gelu"] = True


def _mean_colour(document: dict[str, Any], folder: Path) -> None:
    document["preprocess_cfg"]["mean"] = [0.5, 0.5, 0.5]


def _cleaning(document: dict[str, Any], folder: Path) -> None:
    document["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "whitespace"}


@pytest.mark.parametrize("change", [_one_weight, _activation, _mean_colour, _cleaning])
def test_the_fingerprint_differs_after_any_change(
    change: Callable[[dict[str, Any], Path], None], encoder: Any, folder: Any, tmp_path: Path
) -> None:
    for file in folder("vit").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = tmp_path / "open_clip_config.json"
    document = json.loads(config.read_text())
    change(document, tmp_path)
    config.write_text(json.dumps(document))
    changed = load_encoder(f"local-dir:{tmp_path}", device="cpu")
    assert changed.fingerprint != encoder("vit").fingerprint


def test_details_are_plain_json(encoder: Any) -> None:
    assert json.loads(json.dumps(encoder().details)) == encoder().details


def test_a_checkpoint_file_beside_its_configuration_is_loaded(encoder: Any, folder: Any) -> None:
    file = folder("vit") / "open_clip_model.safetensors"
    assert load_encoder(str(file), device="cpu").fingerprint == encoder("vit").fingerprint


def test_weights_are_run_with_the_activation_they_were_trained_with() -> None:
    assert find("ViT-B-32", "openai").quick_gelu
    assert not find("ViT-B-32", "laion2b_s34b_b79k").quick_gelu


def test_random_weights_are_always_the_same(folder: Any) -> None:
    a = load_encoder(f"local-dir:{folder('vit')}", "random", device="cpu")
    torch.rand(3)
    b = load_encoder(f"local-dir:{folder('vit')}", "random", device="cpu")
    assert a.fingerprint == b.fingerprint


def test_loading_draws_no_random_number_of_others(folder: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        before = torch.random.get_rng_state()
        load_encoder(f"local-dir:{folder('vit')}", "random", device="cpu")
        assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("model", "pretrained", "sentence"),
    [
        ("ViT-B-33", "openai", "the nearest names are ViT-B-32"),
        ("vit-b-32", "openai", "the nearest names are ViT-B-32"),
        ("ViT-B-32", None, "set pretrained to openai, .*laion2b_s34b_b79k"),
        ("ViT-B-32", "laion2b", "the nearest tags are laion2b_"),
        ("local-dir:/nowhere", None, "not found: /nowhere"),
        ("local-dir:/nowhere", "openai", "leave pretrained empty"),
        ("hf-hub:", None, "Empty identifier"),
    ],
)
def test_what_cannot_be_a_model_is_refused(
    model: str, pretrained: str | None, sentence: str
) -> None:
    with pytest.raises(UnknownModel, match=sentence):
        load_encoder(model, pretrained, device="cpu")


def test_a_folder_without_weights_is_refused(folder: Any, tmp_path: Path) -> None:
    config = folder("vit") / "open_clip_config.json"
    (tmp_path / config.name).write_bytes(config.read_bytes())
    with pytest.raises(UnknownModel, match="could not be loaded"):
        load_encoder(f"local-dir:{tmp_path}", device="cpu")


def test_weights_of_another_architecture_are_refused(folder: Any, tmp_path: Path) -> None:
    config = folder("vit") / "open_clip_config.json"
    (tmp_path / config.name).write_bytes(config.read_bytes())
    save_file({"logit_scale": torch.ones([])}, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UnknownModel, match="belong together"):
        load_encoder(f"local-dir:{tmp_path}", device="cpu")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    def spoil(weights: dict[str, Tensor]) -> None:
        weights["visual.proj"][0, 0] = float("nan")

    _write(tmp_path / "m", {"embed_dim": 64, **KINDS["vit"]}, spoil)
    with pytest.raises(UnknownModel, match=r"visual\.proj hold values that are not finite"):
        load_encoder(f"local-dir:{tmp_path / 'm'}", device="cpu")


def test_a_download_that_fails_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelUnavailable, match="check the network"):
        load_encoder("hf-hub:nobody/nothing", device="cpu")


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "meta"}, {"precision": "int8"}])
def test_a_wrong_device_or_precision_is_refused(wrong: dict[str, str], folder: Any) -> None:
    with pytest.raises(InvalidSettings, match=next(iter(wrong.values()))):
        load_encoder(f"local-dir:{folder('vit')}", **wrong)
