"""Weights from a file are prepared for as open_clip's published ones, or the service asks."""

import os
from pathlib import Path

import open_clip
import PIL.Image
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from open_clip.transformer import QuickGELU

from filter_service.encoder.network import BUNDLED, ModelSource, find, load
from filter_service.encoder.preprocessing import Preprocessing
from filter_service.errors import UnknownModel

NAMES = open_clip.list_models()
KEPT = ("mean", "std", "interpolation", "resize_mode")  # by open_clip with a tag


def as_published(name: str, tag: str) -> tuple[object, ...]:
    """What open_clip does with a tag's weights: four values of preprocessing, and QuickGELU."""
    config = get_pretrained_cfg(name, tag)
    merged = merge_preprocess_dict(PreprocessCfg(), config)
    activation = config.get("quick_gelu") or open_clip.get_model_config(name).get("quick_gelu")
    return (*(merged[k] for k in KEPT), bool(activation))


def values(found: Preprocessing | None) -> tuple[object, ...]:
    assert found is not None
    return (*(getattr(found, k) for k in KEPT), found.quick_gelu)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "weights.bin").write_bytes(b"of my own")
    return str(tmp_path / "weights.bin")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_prepared_for_as_all_published_weights_or_the_choices_are_named(
    name: str, file: str
) -> None:
    tags = open_clip.list_pretrained_tags_by_model(name)
    published = {as_published(name, tag) for tag in tags}
    if len(published) == 1:
        assert values(find(name, file).preprocessing) == published.pop()
        return
    with pytest.raises(UnknownModel, match=r"set FILTER_SERVICE_PREPROCESSING") as refused:
        find(name, file)
    named = [tag for tag in tags if f" {tag} (" in str(refused.value)]
    assert " default (" in str(refused.value) or "QuickGELU" in str(refused.value)
    assert len({as_published(name, tag) for tag in named}) == len(named)
    for tag in tags:  # what a choice says is what is done
        assert values(find(name, file, tag).preprocessing) == as_published(name, tag)


def test_open_clip_knows_architectures_of_all_three_kinds() -> None:
    kinds = [
        len({as_published(n, t) for t in open_clip.list_pretrained_tags_by_model(n)}) for n in NAMES
    ]
    assert kinds.count(0) > 10 and kinds.count(1) > 50 and max(kinds) > 1


@pytest.mark.parametrize(
    ("name", "asked", "mean", "resize_mode", "quick_gelu"),
    [
        ("ViT-B-16-SigLIP", None, (0.5, 0.5, 0.5), "squash", False),
        ("ViT-B-32", "openai", PreprocessCfg.mean, "shortest", True),
        ("ViT-B-32", "laion2b_s34b_b79k", PreprocessCfg.mean, "shortest", False),
        ("ViT-H-14", "dfn5b", PreprocessCfg.mean, "squash", True),
        ("ViT-S-16", "default", PreprocessCfg.mean, "shortest", False),
        ("ViT-B-16-SigLIP", "default", PreprocessCfg.mean, "shortest", False),
        ("MobileCLIP-B", None, (0.0, 0.0, 0.0), "shortest", False),
    ],
)
def test_known_architectures_are_prepared_for_as_they_were_trained(
    name: str, asked: str | None, mean: object, resize_mode: str, quick_gelu: bool, file: str
) -> None:
    found = find(name, file, asked).preprocessing
    assert found is not None
    assert (found.mean, found.resize_mode, found.quick_gelu) == (mean, resize_mode, quick_gelu)


@pytest.mark.parametrize(
    ("model", "asked", "sentence"),
    [
        ("ViT-B-32", None, "published weights of ViT-B-32 disagree .* openai .*QuickGELU"),
        ("ViT-S-16", None, "open_clip publishes no weights for ViT-S-16"),
        ("ViT-B-32", "webli", "preprocessing='webli' is neither 'default' nor a tag of ViT-B-32"),
    ],
)
def test_what_is_not_known_is_asked_for(
    model: str, asked: str | None, sentence: str, file: str
) -> None:
    with pytest.raises(UnknownModel, match=sentence):
        find(model, file, asked)


@pytest.mark.parametrize(
    ("model", "pretrained"), [("ViT-B-32", "openai"), ("ViT-B-32", "random"), ("bundled", None)]
)
def test_preprocessing_goes_with_a_file_alone(model: str, pretrained: str | None) -> None:
    with pytest.raises(UnknownModel, match="leave FILTER_SERVICE_PREPROCESSING empty"):
        find(model, pretrained, "openai")


def test_a_loaded_file_is_prepared_for_with_open_clips_own_transform() -> None:
    weights = BUNDLED / "open_clip_model.safetensors"
    odd = Preprocessing((0.2, 0.3, 0.4), (0.5, 0.6, 0.7), "bilinear", "longest", quick_gelu=True)
    network = load(ModelSource(f"local-dir:{BUNDLED}", file=weights, preprocessing=odd))
    picture = PIL.Image.frombytes("RGB", (120, 90), os.urandom(120 * 90 * 3))
    arguments = {name: getattr(odd, name) for name in KEPT}
    expected = image_transform_v2(PreprocessCfg(64, **arguments), is_train=False)(picture)
    assert torch.equal(network.transform(picture), expected)
    assert any(isinstance(m, QuickGELU) for m in network.model.modules())
    assert network.facts["architecture"]["quick_gelu"]
