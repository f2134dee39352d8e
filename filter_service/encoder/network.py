"""Finds, loads and fingerprints an open_clip model."""

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn

from filter_service.encoder.preprocessing import Preprocessing, of_file, of_tag
from filter_service.errors import ModelUnavailable, UnknownModel
from filter_service.images import DECODER

BUNDLED = Path(__file__).parents[1] / "demo" / "model"
SCHEMAS = ("local-dir:", "hf-hub:")  # where open_clip looks for a model's own configuration
RANDOM = "random"  # as pretrained: untrained weights, always the same, to measure with


@dataclass(frozen=True, slots=True)
class Network:
    """What open_clip gives: a model in float32 on the CPU, with what belongs to it."""

    model: nn.Module
    transform: Callable[[PIL.Image.Image], Tensor]
    tokenizer: Callable[[Sequence[str]], Tensor]
    facts: dict[str, Any]  # plain JSON: architecture, weights, preprocessing, tokenizer, decoder

    @property
    def fingerprint(self) -> str:
        """The same for the same model, whichever way it was loaded and wherever it runs."""
        return _digest(self.facts)


def load_network(model: str, pretrained: str | None, preprocessing: str | None = None) -> Network:
    """Load what `load_encoder` was asked for; raises UnknownModel and ModelUnavailable."""
    source = find(model, pretrained, preprocessing)
    with _translated("/".join(part for part in (model, pretrained) if part)):
        return load(source)


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What to ask open_clip for."""

    name: str  # where the architecture is described: a name, hf-hub:… or local-dir:…
    tag: str | None = None  # of a named model's weights
    file: Path | None = None  # weights in a file of one's own
    random: bool = False
    preprocessing: Preprocessing | None = None  # of a named model's; None: CLIP's, or the folder's

    @property
    def quick_gelu(self) -> bool:
        """Some weights were trained with another activation than their architecture says."""
        return self.preprocessing is not None and self.preprocessing.quick_gelu


def find(model: str, pretrained: str | None, preprocessing: str | None = None) -> ModelSource:
    """Decide before anything is downloaded whether this can be a model at all."""
    source = _find(model, pretrained)
    if source.file is not None and not source.name.startswith(SCHEMAS):
        return replace(source, preprocessing=of_file(source.name, preprocessing))
    if preprocessing:
        raise UnknownModel(
            f"preprocessing={preprocessing!r} goes with an open_clip name whose weights come "
            "from a file; this model brings its own, so leave FILTER_SERVICE_PREPROCESSING empty."
        )
    return source


def _find(model: str, pretrained: str | None) -> ModelSource:
    if model == "bundled":
        model = f"local-dir:{BUNDLED}"
    named = model.replace("/", "-")  # as open_clip itself writes ViT-B/32
    if named in open_clip.list_models():
        return _named(named, pretrained)
    own = model.startswith(SCHEMAS) or Path(model).is_file()
    if not own:
        raise UnknownModel(
            f"open_clip knows no model called {model!r} and there is no such file; "
            f"the nearest names are {_nearest(model, open_clip.list_models())}. "
            "Give a name, hf-hub:ORG/NAME, local-dir:FOLDER or a checkpoint file."
        )
    if pretrained not in (None, RANDOM):
        raise UnknownModel(
            f"pretrained={pretrained!r} goes with a model that open_clip knows by name; "
            f"{model} brings its own weights, so leave pretrained empty."
        )
    if Path(model).is_file():
        return ModelSource(f"local-dir:{Path(model).parent}", file=Path(model))
    return ModelSource(model, random=pretrained == RANDOM)


def _named(name: str, pretrained: str | None) -> ModelSource:
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is None:
        raise UnknownModel(
            f"{name} without weights would answer at random; set pretrained to "
            f"{', '.join(tags) or 'a checkpoint file (open_clip publishes none for it)'}."
        )
    if pretrained == RANDOM:
        return ModelSource(name, random=True)
    if open_clip.is_pretrained_cfg(name, pretrained):
        return ModelSource(name, tag=pretrained, preprocessing=of_tag(name, pretrained))
    if Path(pretrained).is_file():
        return ModelSource(name, file=Path(pretrained))
    raise UnknownModel(
        f"{name} has no pretrained weights called {pretrained!r} and there is no such file; "
        f"the nearest tags are {_nearest(pretrained, tags)}."
    )


def _nearest(word: str, choices: Sequence[str]) -> str:
    known = {c.lower(): c for c in choices}
    close = difflib.get_close_matches(word.lower(), known, n=4, cutoff=0.3)
    return ", ".join(known[c] for c in close or list(known)[:4]) or "none"


def load(source: ModelSource) -> Network:
    own_weights = source.file is None and not source.random
    with torch.random.fork_rng(devices=[]):  # initial weights always the same, and no one else's
        torch.default_generator.manual_seed(0)
        model, _, transform = open_clip.create_model_and_transforms(
            source.name,
            source.tag,
            load_weights=own_weights,
            require_pretrained=own_weights,
            pretrained_text=False,
            **(source.preprocessing.arguments if source.preprocessing else {}),
        )
    if source.file:
        open_clip.load_checkpoint(model, str(source.file))
    tokenizer = open_clip.get_tokenizer(source.name)
    facts = {
        "architecture": _architecture(source),
        "weights": _weights_digest(model),
        "preprocessing": model.visual.preprocess_cfg,
        "tokenizer": _tokenizer_facts(tokenizer),
        "decoder": DECODER,
    }
    return Network(model.eval(), transform, tokenizer, json.loads(json.dumps(facts)))


def _architecture(source: ModelSource) -> dict[str, Any]:
    config: dict[str, Any] = open_clip.get_model_config(source.name)
    config["quick_gelu"] = source.quick_gelu or config.get("quick_gelu", False)
    return config


def _weights_digest(model: nn.Module) -> str:
    """SHA-256 over every name, type, shape and value, as float32 whatever the file held."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()
        if not np.isfinite(value).all():
            raise ValueError(f"the weights {name} hold values that are not finite")
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def _tokenizer_facts(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401  (one of three classes)
    inner = getattr(tokenizer, "tokenizer", None)
    vocabulary = tokenizer.encoder if inner is None else inner.get_vocab()
    return {
        "vocabulary": _digest(vocabulary),
        "context_length": tokenizer.context_length,
        "sample": tokenizer(["Two dogs, a Café №5!"]).tolist(),  # shows cleaning and special tokens
    }


def _digest(facts: object) -> str:
    """SHA-256 of canonical JSON."""
    return hashlib.sha256(
        json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()
    ).hexdigest()


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Whatever open_clip, timm, transformers and the hub raise, each their own, in a sentence."""
    try:
        yield
    except ImportError as error:
        raise UnknownModel(
            f"{name} needs the package {error.name}, which is not installed; "
            f"run pip install {error.name} and try again."
        ) from error
    except Exception as error:
        if _offline(error):
            raise ModelUnavailable(
                f"{name} is not in the local cache and could not be downloaded; check the network, "
                "or load the model from a folder with local-dir:."
            ) from error
        raise UnknownModel(
            f"{name} could not be loaded ({first_line(error)}); "
            "check that configuration, weights and tokenizer belong together."
        ) from error


def _offline(error: BaseException | None) -> bool:
    """Whether the network is to blame anywhere in the chain of causes."""
    if error is None:
        return False
    network = (LocalEntryNotFoundError, ConnectionError, TimeoutError)
    return isinstance(error, network) or _offline(error.__cause__ or error.__context__)


def first_line(error: Exception) -> str:
    """What a foreign error says, short enough to stand in a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
