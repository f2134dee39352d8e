"""Small encoders with random weights, one per kind of tower, for the tests of `explain/`."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from torch import Tensor

from filter_service.policy import Policy
from filter_service.scoring import FloatArray, Head, PolicyVectors, policy_vectors

TEXT = CLIPTextCfg(context_length=16, width=64, heads=2, layers=2)
SIGLIP = CLIPVisionCfg(
    image_size=160,
    timm_model_name="test_vit",
    timm_model_pretrained=False,
    timm_pool="map",
    timm_proj="none",
)


@dataclass(eq=False)
class TinyEncoder:
    """What `explain/` uses of an encoder, with a model of a few layers."""

    model: torch.nn.Module
    head: Head = field(default_factory=lambda: Head(scale=100.0))
    name: str = "tiny"
    fingerprint: str = "f" * 64
    screening_is_exact: bool = True

    def encode(self, pixels: Tensor) -> FloatArray:
        with torch.inference_mode():
            features: Tensor = self.model.encode_image(pixels)  # type: ignore[operator]
            return F.normalize(features, dim=-1).numpy()

    def screen(self, pixels: Tensor) -> FloatArray:
        return self.encode(pixels)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        tokens = open_clip.SimpleTokenizer(context_length=16)(list(texts))
        with torch.inference_mode():
            features: Tensor = self.model.encode_text(tokens)  # type: ignore[operator]
            return F.normalize(features, dim=-1).numpy()

    def vectors(self, policy: Policy) -> PolicyVectors:
        return policy_vectors(policy, self.encode_texts, self.head)

    def band(self, policy: Policy) -> FloatArray:
        return np.zeros(len(policy.classes), dtype=np.float32)


@cache
def tiny(kind: str = "vit") -> Any:
    """An encoder of one kind of tower; weights are random, the same in every run."""
    torch.manual_seed(0)
    model = _model(kind).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1 and "logit" not in name:
                p.add_(0.1 * torch.randn_like(p))  # no bias is zero, no gain is one
    return TinyEncoder(model)


def _model(kind: str) -> Any:
    vision: dict[str, Any] = dict(image_size=32, patch_size=8, width=64, layers=3, head_width=32)
    options: dict[str, dict[str, Any]] = {
        "vit": {},
        "oblong": {"image_size": (32, 48)},
        "layer scale": {"ls_init_value": 0.5, "no_ln_pre": True},
        "average": {"pool_type": "avg"},
        "average first": {"pool_type": "avg", "final_ln_after_pool": True},
        "norm after": {"final_ln_after_pool": True},
        "pooler": {"attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 4},
        "parallel": {"attentional_pool": "parallel", "attn_pooler_heads": 4},
        "custom": {"qk_norm": True},
    }
    if kind == "resnet":
        return CLIP(64, CLIPVisionCfg(image_size=64, layers=(1, 1, 1, 1), width=16), TEXT)
    if kind == "siglip":
        return CustomTextCLIP(64, SIGLIP, TEXT)
    if kind == "coca":
        decoder = MultimodalCfg(context_length=16, width=64, heads=2, layers=2)
        text = CLIPTextCfg(context_length=16, width=64, heads=2, layers=2, embed_cls=True)
        tower = CLIPVisionCfg(**vision, **options["pooler"], output_tokens=True)
        return CoCa(64, decoder, replace(text, output_tokens=True), tower)
    return CLIP(64, CLIPVisionCfg(**{**vision, **options[kind]}), TEXT)
