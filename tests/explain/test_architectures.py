"""Every image tower of open_clip: explained, or refused by name; and the page that says so."""

import re
from collections.abc import Iterator

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from benchmarks.architectures import PAGE, TITLES, fill, hold, laid_out, rows, shorten
from filter_service.errors import NotExplainable
from filter_service.explain.activations import ActivationTape
from filter_service.explain.relevance import TOLERANCE, capture, find_explainer
from filter_service.explain.towers import EXPLAINERS, missing
from tests.support.tiny_encoders import TRUNKS, TinyEncoder, tiny
from tests.support.tiny_inputs import directions, state

REFUSED = {
    "differential": "DiffAttention",
    "root mean square": "RmsNorm",
    "largest": "'max'",
    "parallel": "'parallel'",
    "custom": "CustomResidualAttentionBlock",
}
EXPLAINED = [kind for kind in TRUNKS if kind not in REFUSED]
STREAMS = ["timm", "timm scaled", "timm normed", "timm norm after", "eva", "eva turned"]
STREAMS += ["eva turned in halves", "eva norm after", "relative", "relative by table"]
REPRESENTATIVES = [  # one of each kind of tower and way to pool
    "ViT-S-32",
    "ViT-L-14-CLIPA",
    "coca_ViT-B-32",
    "RN50",
    "ViT-B-32-SigLIP2-256",
    "PE-Core-T-16-384",
    "MobileCLIP-B",
    "EVA02-B-16",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
    "ViTamin-S",
    "convnext_tiny",
    "MobileCLIP2-S0",
    "swin_base_patch4_window7_224",
]
MUST = r"ViT|vit_|coca|RN|convnext|EVA|MobileCLIP|PE-Core|swin|nllb|roberta|mt5"


def pixels(kind: str, n: int = 3) -> Tensor:
    size = (16, 48) if "oblong" in kind or "any size" in kind else (32, 32)
    return torch.randn(n, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def structures() -> dict[str, tuple[bool, tuple[str, ...]]]:
    """What is found of every configuration without weights: explained, and the table's cells."""
    return {row[0]: (done, row) for done, row in rows(open_clip.list_models(), limit=None)}


def table() -> Iterator[tuple[str, ...]]:
    """The rows of the page."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if (
            line.startswith("|")
            and len(cells) == len(TITLES)
            and cells[0] not in (TITLES[0], "---")
        ):
            yield cells


def test_every_configuration_is_explained_or_refused_by_name(
    structures: dict[str, tuple[bool, tuple[str, ...]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(structures) == set(open_clip.list_models())
    explained = [name for name, (done, _) in structures.items() if done]
    with capsys.disabled():
        print(f"\n{len(explained)} of {len(structures)} configurations are explained")
    assert [name for name in structures if re.match(MUST, name) and name not in explained] == []
    for done, (_, tower, _, _, account, *_) in structures.values():
        assert done or tower in account


def test_the_page_says_what_the_code_does(
    structures: dict[str, tuple[bool, tuple[str, ...]]],
) -> None:
    assert [row[:5] for row in table()] == [
        structures[name][1][:5] for name in sorted(structures, key=str.lower)
    ]


def test_every_error_on_the_page_is_allowed() -> None:
    errors = [float(row[-1]) for row in table() if row[-1]]
    assert errors and max(errors) < TOLERANCE


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_a_real_configuration_keeps_the_contract_with_random_weights(name: str) -> None:
    tower = laid_out(name)
    shorten(tower)
    fill(tower)
    encoder = TinyEncoder(torch.nn.Module())
    encoder.model.visual = tower
    encoder.model.encode_image = lambda x: _first(tower(x))  # type: ignore[assignment]
    size = tower.image_size
    noise = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
    maps, error = hold(encoder, noise)
    assert error < TOLERANCE
    assert all(np.ptp(m.grid) > 1e-3 for m in maps)


def _first(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("kind", EXPLAINED)
class TestTrunks:
    """The contract on small trunks, with every part that timm's blocks may have."""

    def test_maps_keep_the_contract(self, kind: str) -> None:
        maps, error = hold(tiny(kind), pixels(kind))
        assert error < TOLERANCE
        assert all(np.ptp(m.grid) > 1e-3 for m in maps)
        h, w = pixels(kind).shape[2:]
        assert maps[0].grid.shape[1:] == (h // 8, w // 8)

    def test_the_model_is_left_as_it_was(self, kind: str) -> None:
        before = state(tiny(kind).model)
        hold(tiny(kind), pixels(kind))
        with pytest.raises(Exception):  # noqa: B017  (each tower has its own error)
            capture(tiny(kind), torch.zeros(1, 7, 32, 32))
        assert state(tiny(kind).model) == before

    def test_one_explainer_alone_is_meant(self, kind: str) -> None:
        assert sum(e.supports(tiny(kind).model.visual) for e in EXPLAINERS) == 1


@pytest.mark.parametrize("kind", STREAMS)
def test_every_layer_has_a_site_that_tells_what_it_added(kind: str) -> None:
    """Up to constants, the sites' totals are what the stream gained at the class token."""
    blocks = tiny(kind).model.visual.trunk.blocks
    after = [b.mlp if "after" in kind else b.norm2 for b in blocks]
    with ActivationTape({m: lambda given, _: given[0][:, 0] for m in (*blocks, *after)}) as tape:
        reading = capture(tiny(kind), pixels(kind)).reading
    assert reading is not None and len(reading.sites) == len(blocks)
    g = torch.randn(1, 2, 64, generator=torch.Generator().manual_seed(3)).expand(3, -1, -1)
    for site, block, then in zip(reading.sites, blocks, after, strict=True):
        gained = torch.einsum("nce,ne->nc", g, tape.activations()[then] - tape.activations()[block])
        assert np.ptp((gained - site.total(g)).numpy(), axis=0).max() < 1e-4
        assert np.ptp(gained.numpy(), axis=0).max() > 1e-2


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_what_is_missing(kind: str) -> None:
    tower = tiny(kind).model.visual
    assert find_explainer(tower) is None
    assert REFUSED[kind] in missing(tower)


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "parallel"])
def test_a_refused_tower_still_encodes(kind: str) -> None:
    seen = capture(tiny(kind), pixels(kind))
    with pytest.raises(NotExplainable):
        seen.maps(range(3), directions("vit"))
    assert np.array_equal(seen.z, tiny(kind).encode(pixels(kind)))
