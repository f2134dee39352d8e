"""Loads the bundled model with open_clip alone, independently of the service's encoder."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from filter_service.demo.samples import as_submitted
from filter_service.demo.scenes import Scene
from filter_service.policy import Policy
from filter_service.scoring import FloatArray, LogitScale, PolicyVectors, policy_vectors

FOLDER = Path(__file__).parent / "model"
BATCH = 64  # images in one forward pass


@dataclass(frozen=True, eq=False)
class BundledModel:
    """The model, its preprocessing and its tokenizer, in float32 on the CPU."""

    model: Any
    preprocess: Any
    tokenizer: Any

    @property
    def logit_scale(self) -> LogitScale:
        return LogitScale(factor=self.model.logit_scale.exp().item())

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """(n, d) unit vectors."""
        vectors: FloatArray = self.model.encode_text(
            self.tokenizer(list(texts)), normalize=True
        ).numpy()
        return vectors

    @torch.inference_mode()
    def encode_scenes(self, scenes: Iterable[Scene]) -> FloatArray:
        """Scenes as JPEG files of the size submitted: (n, d) unit vectors."""
        remaining, rows = iter(scenes), []
        while chunk := list(islice(remaining, BATCH)):
            pixels = torch.stack([self.preprocess(as_submitted(s)) for s in chunk])  # (b, 3, h, w)
            rows.append(self.model.encode_image(pixels, normalize=True).numpy())  # (b, d)
        return np.concatenate(rows)

    def vectors(self, policy: Policy) -> PolicyVectors:
        return policy_vectors(policy, self.encode_texts, self.logit_scale)


def load(folder: Path = FOLDER) -> BundledModel:
    """Load the folder exactly as a user of open_clip would."""
    name = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    return BundledModel(model.eval(), preprocess, open_clip.get_tokenizer(name))


def training_facts(folder: Path = FOLDER) -> dict[str, Any]:
    """How the weights came to be, noted beside them after training."""
    facts: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return facts
