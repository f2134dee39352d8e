"""A service in real processes: a worker, the schedule, and a small model of random weights."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import numpy as np
import open_clip
import PIL.Image
import PIL.ImageDraw
import psutil
import torch
from safetensors.torch import save_file

from filter_service.encoder import load_encoder
from filter_service.images import decode
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings

ROOT = Path(__file__).parents[2]
WIDTH = {"width": 32, "heads": 2, "layers": 2}
MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, **WIDTH},
}


def write_model(folder: Path) -> str:
    """A model in open_clip's own format; -> what to load it by."""
    folder.mkdir()
    config = {"model_cfg": MODEL, "preprocess_cfg": {"size": 32}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def picture(seed: int) -> bytes:
    """A small picture unlike any other, as JPEG or PNG."""
    rng = np.random.default_rng(seed)
    image = PIL.Image.new("RGB", (48, 40), tuple(rng.integers(256, size=3).tolist()))
    draw = PIL.ImageDraw.Draw(image)
    for _ in range(4):
        (x, y), size = rng.integers(40, size=2).tolist(), int(rng.integers(5, 25))
        colour = tuple(rng.integers(256, size=3).tolist())
        draw.ellipse((x, y, x + size, y + size), fill=colour)
    file = BytesIO()
    image.save(file, "PNG" if seed % 2 else "JPEG")
    return file.getvalue()


def policy_that_flags(share: float, model: str, files: list[bytes]) -> Policy:
    """A policy whose threshold this share of the files passes, as this model sees them."""
    policy = Policy(
        name="drawn",
        neutral=("a wall", "some grass"),
        classes=(ForbiddenClass(name="circle", prompts=("a circle",), threshold=0.5),),
    )
    encoder = load_encoder(model, device="cpu", precision="float32")
    pixels = torch.stack([encoder.pixels(decode(f).frames[0].picture) for f in files])
    margins = encoder.vectors(policy).margins(encoder.encode(pixels))[:, 0]
    threshold = 1 / (1 + np.exp(-np.quantile(margins, 1 - share)))
    circle = policy.classes[0].model_copy(update={"threshold": float(threshold)})
    return Policy(name=policy.name, neutral=policy.neutral, classes=(circle,))


@dataclass(frozen=True)
class Service:
    """Starts the processes of one service with its settings."""

    settings: Settings
    logs: Path

    @contextmanager
    def worker(self) -> Iterator[psutil.Popen]:
        arguments = ("worker", "--without-mingle", "--without-gossip", f"-n{uuid4()}")
        with self._celery("worker", *arguments) as process:
            yield process

    @contextmanager
    def schedule(self) -> Iterator[psutil.Popen]:
        with self._celery("schedule", "beat", "--pidfile=") as process:
            yield process

    @contextmanager
    def _celery(self, name: str, *arguments: str) -> Iterator[psutil.Popen]:
        with (self.logs / f"{name}.log").open("ab") as log:
            process = psutil.Popen(
                [sys.executable, "-m", "celery", "-A", "tasks", *arguments, "--loglevel=INFO"],
                cwd=ROOT,
                env=environment(self.settings),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                yield process
            finally:
                kill(process)


def kill(process: psutil.Popen) -> None:
    """SIGKILL to a process and, since not every system passes it on, to its children."""
    with suppress(psutil.NoSuchProcess):
        family = [process, *process.children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family)


def environment(settings: Settings) -> dict[str, str]:
    """The environment that makes a process read these settings."""
    given = settings.model_dump(mode="json", exclude_none=True)
    return {
        **os.environ,
        **{f"FILTER_SERVICE_{name.upper()}": str(value) for name, value in given.items()},
        "OMP_NUM_THREADS": "1",
    }
