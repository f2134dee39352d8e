"""Image preprocessing settings for a named architecture with weights from a file.

open_clip keeps mean, deviation, interpolation, resize mode and QuickGELU with the tag of published
weights, not with the architecture; weights from a file have no tag, and would silently get CLIP's.
"""

from dataclasses import dataclass
from typing import Any

import open_clip
from open_clip.transform import PreprocessCfg

from filter_service.errors import UnknownModel

DEFAULT = "default"  # instead of a tag: what open_clip trains with unless it is told otherwise
_FIELDS = ("mean", "std", "interpolation", "resize_mode")  # and quick_gelu, an activation
_CLIP = PreprocessCfg()


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What open_clip keeps with a tag; the size is the architecture's."""

    mean: tuple[float, ...] = _CLIP.mean
    std: tuple[float, ...] = _CLIP.std
    interpolation: str = _CLIP.interpolation
    resize_mode: str = _CLIP.resize_mode
    quick_gelu: bool = False  # by the tag or by the architecture

    @property
    def arguments(self) -> dict[str, Any]:
        """The same for `open_clip.create_model_and_transforms`."""
        return {
            "image_mean": self.mean,
            "image_std": self.std,
            "image_interpolation": self.interpolation,
            "image_resize_mode": self.resize_mode,
            "force_quick_gelu": self.quick_gelu,
        }

    def __str__(self) -> str:
        mean = "/".join(f"{m:.2g}" for m in self.mean)
        gelu = ", QuickGELU" if self.quick_gelu else ""
        return f"mean {mean}, {self.interpolation}, {self.resize_mode}{gelu}"


def of_tag(name: str, tag: str) -> Preprocessing:
    """That of published weights."""
    return _of(name, open_clip.get_pretrained_cfg(name, tag))


def of_file(name: str, asked: str | None) -> Preprocessing:
    """That of weights in a file: what was asked for, else what all published weights agree on.

    `asked` is a tag of the architecture, or "default". Raises UnknownModel with the choices.
    """
    if asked == DEFAULT:
        return _of(name, {})
    if asked and open_clip.is_pretrained_cfg(name, asked):
        return of_tag(name, asked)
    different = _different(name)
    if asked:
        problem = f"preprocessing={asked!r} is neither {DEFAULT!r} nor a tag of {name}"
    elif not different:
        problem = f"open_clip publishes no weights for {name} that say how its images are prepared"
    elif len(different) > 1:
        problem = f"the published weights of {name} disagree on how images are prepared"
    else:
        return next(iter(different))
    raise UnknownModel(f"{problem}; {_choices(name, different)}")


def _of(name: str, config: dict[str, Any]) -> Preprocessing:
    known = {k: config[k] for k in _FIELDS if config.get(k) is not None}
    architecture: dict[str, Any] = open_clip.get_model_config(name)
    gelu = bool(config.get("quick_gelu") or architecture.get("quick_gelu"))
    return Preprocessing(**known, quick_gelu=gelu)


def _different(name: str) -> dict[Preprocessing, str]:
    """Every preprocessing of the published weights once, with the first tag that has it."""
    found: dict[Preprocessing, str] = {}
    for tag in open_clip.list_pretrained_tags_by_model(name):
        found.setdefault(of_tag(name, tag), tag)
    return found


def _choices(name: str, different: dict[Preprocessing, str]) -> str:
    choices = {_of(name, {}): DEFAULT, **different}
    listed = "; ".join(f"{tag} ({what})" for what, tag in choices.items())
    return (
        "set FILTER_SERVICE_PREPROCESSING to the tag that your file was trained like, "
        f"or to {DEFAULT!r}. They differ so: {listed}. For anything else put the file into a "
        "folder with an open_clip_config.json and set FILTER_SERVICE_MODEL=local-dir:FOLDER."
    )
