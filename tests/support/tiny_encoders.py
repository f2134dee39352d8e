"""Small encoders with random weights, one per kind of tower, for the tests of `explain/`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa, MultimodalCfg
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP
from timm.layers.diff_attention import DiffAttention
from timm.layers.norm import RmsNorm
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.fastvit import FastVit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor

from filter_service.images.views import Box
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, LogitScale, PolicyVectors, policy_vectors

TEXT = CLIPTextCfg(context_length=16, width=64, heads=2, layers=2)
SIGLIP = CLIPVisionCfg(
    image_size=160,
    timm_model_name="test_vit",
    timm_model_pretrained=False,
    timm_pool="map",
    timm_proj="none",
)

SMALL: dict[str, Any] = dict(
    img_size=32, patch_size=8, embed_dim=64, depth=3, num_heads=2, num_classes=64
)
STAGES: dict[str, Any] = dict(
    embed_dims=(16, 32), mlp_ratios=(2, 2), downsamples=(False, True), num_classes=64
)
TOKEN = partial(VisionTransformer, **SMALL)
EVA = partial(Eva, **SMALL, rope_temperature=10.0)
RELATIVE = partial(VisionTransformerRelPos, **SMALL, class_token=True, global_pool="token")
CONVNEXT = partial(ConvNeXt, depths=(1,) * 4, dims=(8, 16, 16, 32), output_stride=8, num_classes=64)
TRUNKS: dict[str, Callable[[], Any]] = {
    "timm": TOKEN,
    "timm oblong": partial(TOKEN, img_size=(16, 48)),
    "timm of any size": partial(TOKEN, dynamic_img_size=True),
    "timm scaled": partial(TOKEN, init_values=0.5, reg_tokens=2, qkv_bias=False),
    "timm normed": partial(TOKEN, qk_norm=True, scale_attn_norm=True),
    "timm norm after": partial(TOKEN, block_fn=ResPostBlock),
    "timm average": partial(TOKEN, global_pool="avg", reg_tokens=1),
    "timm average first": partial(TOKEN, global_pool="avg", fc_norm=False),
    "timm average of any size": partial(TOKEN, global_pool="avg", dynamic_img_size=True),
    "timm average of all": partial(TOKEN, global_pool="avg", pool_include_prefix=True),
    "timm latent": partial(TOKEN, global_pool="map", class_token=False, reg_tokens=1),
    "eva": partial(EVA, global_pool="token"),
    "eva turned": partial(
        EVA, global_pool="token", use_rot_pos_emb=True, qkv_fused=False, scale_attn_inner=True
    ),
    "eva turned in halves": partial(
        EVA, global_pool="token", use_rot_pos_emb=True, rope_rotate_half=True, init_values=0.5
    ),
    "eva of any size": partial(
        EVA, global_pool="token", use_rot_pos_emb=True, dynamic_img_size=True
    ),
    "eva norm after": partial(EVA, global_pool="token", use_post_norm=True),
    "eva norm inside and after": partial(
        EVA, global_pool="token", use_post_norm=True, scale_attn_inner=True, use_rot_pos_emb=True
    ),
    "eva latent": partial(EVA, global_pool="map", use_rot_pos_emb=True, attn_type="rope"),
    "relative": RELATIVE,
    "relative by table": partial(RELATIVE, rel_pos_type="bias", shared_rel_pos=True),
    "relative average": partial(RELATIVE, class_token=False, global_pool="avg"),
    "convnext": CONVNEXT,
    "convnext hidden": partial(CONVNEXT, head_hidden_size=48),
    "fastvit": partial(FastVit, layers=(1, 1), token_mixers=("repmixer", "attention"), **STAGES),
    "swin": partial(
        SwinTransformer,
        img_size=32,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        num_classes=64,
    ),
    # No exact account is known of these.
    "differential": partial(TOKEN, attn_layer=DiffAttention),
    "root mean square": partial(TOKEN, norm_layer=RmsNorm),
    "largest": partial(TOKEN, global_pool="max"),
}


@dataclass(eq=False)
class TinyEncoder:
    """What `explain/` uses of an encoder, with a model of a few layers."""

    model: torch.nn.Module
    logit_scale: LogitScale = field(default_factory=lambda: LogitScale(factor=100.0))
    name: str = "tiny"
    fingerprint: str = "f" * 64
    screening_is_exact: bool = True
    device: str = "cpu"
    input_size: int = 32
    preprocessing: dict[str, Any] = field(
        default_factory=lambda: {"size": 32, "resize_mode": "squash"}
    )

    def pixels(self, frame: PIL.Image.Image, box: Box | None = None) -> Tensor:
        """(3, 1, 1): a picture of one colour, for towers of every size."""
        colour = np.asarray(frame, dtype=np.float32).mean(axis=(0, 1)) / 127.5 - 1  # (3,)
        return torch.from_numpy(colour)[:, None, None]

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
        return policy_vectors(policy, self.encode_texts, self.logit_scale)

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
            elif kind in TRUNKS and name.startswith("visual") and "weight" in name:
                p.normal_(0.0, p[0].numel() ** -0.5)  # timm's are so small that attention is flat
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
    if kind in TRUNKS:
        model = CustomTextCLIP(64, SIGLIP, TEXT)
        model.visual.trunk = TRUNKS[kind]()
        return model
    if kind == "coca":
        decoder = MultimodalCfg(context_length=16, width=64, heads=2, layers=2)
        text = CLIPTextCfg(context_length=16, width=64, heads=2, layers=2, embed_cls=True)
        tower = CLIPVisionCfg(**vision, **options["pooler"], output_tokens=True)
        return CoCa(64, decoder, replace(text, output_tokens=True), tower)
    return CLIP(64, CLIPVisionCfg(**{**vision, **options[kind]}), TEXT)
