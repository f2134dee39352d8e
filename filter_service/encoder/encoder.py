"""An open_clip model in service, with a fast screening pass and an exact float32 pass."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import open_clip
import PIL.Image
import torch
import torch.nn.functional as F
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from filter_service.encoder.bands import ProbeVectors, probe
from filter_service.encoder.network import Network, first_line, load_network
from filter_service.encoder.pixel_transform import PixelTransform
from filter_service.encoder.screening_check import ScreeningCheck
from filter_service.encoder.screening_tower import ScreeningTower
from filter_service.errors import AnotherEncoder, InvalidSettings
from filter_service.images.views import Box
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, LogitScale, PolicyVectors, policy_vectors
from filter_service.settings import Settings

TEXTS_KEPT = 16_384  # vectors; at 512 dimensions 32 MB
CHUNK = 64  # texts in one forward pass
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder:
    """An open_clip model, frozen: images and texts in, unit vectors out, the same in every thread.

    `model` is the float32 network, for the explanations to read; nobody changes it. A lower
    screening precision works on a copy of its image tower.
    """

    def __init__(self, network: Network, name: str, device: torch.device, precision: str) -> None:
        self.name = name
        self.device = device
        self.precision = precision
        self.fingerprint = network.fingerprint
        self.details: dict[str, Any] = {
            **network.facts,
            "open_clip": open_clip.__version__,
            "torch": torch.__version__,
            "device": str(device),
            "precision": precision,
        }
        self.model: nn.Module = network.model.to(device)
        self.dim = int(network.facts["architecture"]["embed_dim"])
        self.logit_scale = _logit_scale(self.model)
        self.input_size = int(np.max(network.facts["preprocessing"]["size"]))
        self._transform = PixelTransform(network.transform)
        self._whole = _whole(network)
        self.tokenizer = network.tokenizer
        self._screening = None if self.screening_is_exact else self._converted()
        self._texts = _Remembered(self._encode_texts, TEXTS_KEPT)
        self._policies = lru_cache(64)(
            lambda policy: policy_vectors(policy, self.encode_texts, self.logit_scale)
        )
        self.check = ScreeningCheck(self.name)
        self._bands = lru_cache(64)(self._measured)
        self._probed: ProbeVectors | None = None
        self._probing = threading.Lock()
        self._in_precision = lru_cache(len(DTYPES))(lambda p: Encoder(network, name, device, p))

    @property
    def screening_is_exact(self) -> bool:
        return self.precision == "float32"

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """open_clip's own: size, resize mode, interpolation, mean and deviation."""
        found: Mapping[str, Any] = self.details["preprocessing"]
        return found

    def pixels(self, frame: PIL.Image.Image, box: Box | None = None) -> Tensor:
        """open_clip's own preprocessing of one frame, in any thread: (3, h, w) float32.

        A box, in the frame's pixels, is seen as a whole: where the model would cut its margins off,
        it is squashed to the input's shape instead.
        """
        if box is None:
            return self._transform(frame)
        left, top, right, bottom = (
            round(side) for side in (box.left, box.top, box.right, box.bottom)
        )
        every = (left, top, right, bottom) == (0, 0, *frame.size)
        return self._whole(frame if every else frame.crop((left, top, right, bottom)))

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> FloatArray:
        """The served vectors, in float32: (n, 3, h, w) -> (n, d) unit."""
        z: Tensor = self.model.encode_image(pixels.to(self.device), normalize=True)  # type: ignore[operator]
        return z.cpu().numpy()

    @torch.inference_mode()
    def screen(self, pixels: Tensor) -> FloatArray:
        """Vectors in the screening precision, for a first look: (n, 3, h, w) -> (n, d) unit."""
        if self._screening is None:
            return self.encode(pixels)
        features = self._screening(pixels.to(self.device))
        z: FloatArray = F.normalize(features, dim=-1).cpu().numpy()  # (n, d)
        overflown = ~np.isfinite(z).all(axis=1)
        if overflown.any():  # float16 ends at 65504
            z[overflown] = self.encode(pixels[torch.from_numpy(overflown)])
        return z

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Float32 vectors, each text encoded once and remembered: (n, d) unit."""
        return self._texts(texts).reshape(len(texts), self.dim)

    def vectors(self, policy: Policy) -> PolicyVectors:
        """A policy in this encoder's space, computed once.

        Raises AnotherEncoder where a class learnt something from another encoder's vectors.
        """
        self.require_own(policy)
        return self._policies(policy)

    def require_own(self, policy: Policy) -> None:
        """AnotherEncoder where a class's head or calibration was fitted on another encoder."""
        for c in policy.classes:
            learnt = (("head", c.head), ("calibration", c.calibration and c.calibration.origin))
            for name, origin in learnt:
                if origin and origin.encoder != self.fingerprint:
                    raise AnotherEncoder(
                        f"The {name} of {c.name} was fitted on encoder {origin.encoder[:12]}, and "
                        f"this is {self.fingerprint[:12]}: fit it again for policy {policy.name}, "
                        "or leave it out."
                    )

    def band(self, policy: Policy) -> npt.NDArray[np.float64]:
        """How far a screened margin may lie from the served one, in logits: (classes,).

        As measured on the probe images (`encoder.bands`), and wider once served images were seen
        outside of it.
        """
        return self.check.widening * self.measured_band(policy)

    def screening_in(self, precision: str) -> "Encoder":
        """The same model with another screening precision, for whoever compares with its looks."""
        return self if precision == self.precision else self._in_precision(precision)

    def measured_band(self, policy: Policy) -> npt.NDArray[np.float64]:
        """The same before any widening: what deviations are counted in."""
        return self._bands(policy)

    def _measured(self, policy: Policy) -> npt.NDArray[np.float64]:
        with self._probing:
            self._probed = self._probed or probe(self)
        return self._probed.band(self.vectors(policy))

    def _converted(self) -> ScreeningTower:
        """The image tower alone in the screening precision."""
        assert isinstance(self.model.visual, nn.Module)
        return ScreeningTower(self.model.visual, DTYPES[self.precision])

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str]) -> FloatArray:
        encode = self.model.encode_text
        rows = [
            encode(self.tokenizer(chunk).to(self.device), normalize=True).cpu().numpy()  # type: ignore[operator]
            for chunk in (texts[i : i + CHUNK] for i in range(0, len(texts), CHUNK))
        ]
        return np.concatenate(rows)  # (n, d)


def load_encoder(
    model: str = "bundled",
    pretrained: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    preprocessing: str | None = None,
) -> Encoder:
    """Load an open_clip model.

    `model` is "bundled", an open_clip name (then `pretrained` is one of its tags, a checkpoint file
    or "random"), hf-hub:ORG/NAME, local-dir:FOLDER, or a checkpoint file that lies beside its
    open_clip_config.json. `precision` is of the screening pass; served scores are always float32.
    `preprocessing` says how images are prepared for a named model's checkpoint file, where its
    published weights disagree: like one of its tags, or "default".
    Raises UnknownModel, ModelUnavailable (the download failed) and InvalidSettings.
    """
    place = _device(device)
    dtype = _precision(precision, place)
    network = load_network(model, pretrained or None, preprocessing or None)
    return Encoder(network, f"{model}/{pretrained}" if pretrained else model, place, dtype)


def encoder_of(settings: Settings) -> Encoder:
    """The encoder that the settings name; raises as `load_encoder`."""
    s = settings
    return load_encoder(s.model, s.pretrained, s.device, s.precision, s.preprocessing)


def _whole(network: Network) -> PixelTransform:
    """The model's own transform, or where that cuts margins off, one that squashes instead."""
    config: dict[str, Any] = network.facts["preprocessing"]
    if config.get("resize_mode", "shortest") != "shortest":
        return PixelTransform(network.transform)
    whole = PreprocessCfg(**{**config, "resize_mode": "squash"})
    return PixelTransform(image_transform_v2(whole, is_train=False))


def _logit_scale(model: nn.Module) -> LogitScale:
    """A learnt bias marks a model that was trained with a sigmoid per pair (SigLIP)."""
    state = model.state_dict()
    scale = float(state["logit_scale"].exp())
    bias = state.get("logit_bias")
    return LogitScale(scale) if bias is None else LogitScale(scale, bias=float(bias), sigmoid=True)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "mps" if torch.backends.mps.is_available() else "cpu"
        name = "cuda" if torch.cuda.is_available() else name
    try:
        device = torch.device(name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise InvalidSettings(
            f"device={name!r} cannot be used here ({first_line(error)}); "
            "set it to auto, cpu, cuda, cuda:N or mps."
        ) from error
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # served scores are float32, convolutions too
    return device


def _precision(name: str, device: torch.device) -> str:
    """Auto: the fastest that the hardware computes natively; converted bfloat16 is slow on AVX2."""
    if name in DTYPES:
        return name
    if name != "auto":
        raise InvalidSettings(f"precision={name!r} is none of auto, {', '.join(DTYPES)}; set one.")
    if device.type != "cpu":
        return "float16"
    able = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return "bfloat16" if any(getattr(torch.cpu, a, bool)() for a in able) else "float32"


class _Remembered:
    """A function of texts that computes each text once; the least recently used are forgotten."""

    def __init__(self, compute: Callable[[Sequence[str]], FloatArray], limit: int) -> None:
        self._compute = compute
        self._limit = limit
        self._known: OrderedDict[str, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> FloatArray:
        with self._lock:
            if missing := [t for t in dict.fromkeys(texts) if t not in self._known]:
                self._known.update(zip(missing, map(np.copy, self._compute(missing)), strict=True))
            for text in texts:
                self._known.move_to_end(text)
            rows = np.array([self._known[t] for t in texts], dtype=np.float32)  # (n, d)
            while len(self._known) > self._limit:
                self._known.popitem(last=False)
            return rows
