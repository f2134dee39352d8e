"""The data model of the stored explanation of one flag."""

import base64
import math
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, BeforeValidator, PlainSerializer

from filter_service.images.views import Box, View
from filter_service.verdicts.faithfulness import FirstProof, Proof


def _grid(value: Any) -> npt.NDArray[np.float16]:  # noqa: ANN401  (an array, or its JSON form)
    if isinstance(value, dict):
        data = np.frombuffer(base64.b64decode(value["float16"]), dtype="<f2")
        return data.reshape(value["shape"])
    return np.asarray(value, dtype=np.float16)


def _grid_json(grid: npt.NDArray[np.float16]) -> dict[str, Any]:
    data = np.ascontiguousarray(grid.astype("<f2")).tobytes()
    return {"shape": list(grid.shape), "float16": base64.b64encode(data).decode()}


Grid = Annotated[
    npt.NDArray[np.float16], BeforeValidator(_grid), PlainSerializer(_grid_json, return_type=dict)
]


MATTERS = 0.2  # logits: of words that say less, nobody asks for the sign
MEAN_COLOUR, BLUR = "mean colour", "blur"  # what is put in the place of a region


class _Frozen(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """An immutable part of a record; unknown fields are refused."""


class Map(_Frozen):
    """Which pixels: signed logits of each place; grid and remainder add up to the margin."""

    method: str
    grid: Grid  # (h, w) logits
    total: float  # logits: sum of the grid before rounding
    remainder: float  # logits: what no place accounts for
    high_norm: int  # places whose share went into the remainder


class Word(_Frozen):
    """What one word of a prompt adds to its logit."""

    word: str
    shapley: float  # logits, words removed by deletion
    standard_error: float  # logits, 0 when exact
    substituted: float  # logits, words replaced by a neutral one
    leave_one_out: float  # logits
    grid: Grid | None = None  # (h, w) logits: its Shapley value by place, less a remainder

    @property
    def doubtful(self) -> bool:
        """The two ways of removing the word disagree on its sign."""
        return self.shapley * self.substituted < 0

    @property
    def unsure(self) -> bool:
        """Doubtful, and says enough that somebody asks for its sign."""
        return self.doubtful and abs(self.shapley) >= MATTERS


class PromptWords(_Frozen):
    """Which words: exact Shapley values of a prompt that carries the margin."""

    prompt: str
    weight: float  # share of the class's evidence that this prompt carries
    logit: float  # of the whole prompt
    empty: float  # logit of the empty prompt; the words add up to logit - empty
    words: tuple[Word, ...]


class CounterfactualImage(_Frozen):
    """A stored image that gets the other answer, its margin computed again."""

    digest: str
    degrees: float  # angle between the two embeddings
    margin: float
    decision: str | None = None


class CounterfactualText(_Frozen):
    """A wording that, in place of the carrying prompt, gives this image the other answer."""

    text: str
    replaces: str
    degrees: float  # angle between the two wordings
    margin: float


class FlipRegion(_Frozen):
    """The smallest set of places, in map order, without which the image would not be flagged."""

    places: tuple[int, ...]  # indices into the flattened grid; all of them when it never flips
    flips: bool  # filled with the image's mean colour
    margin: float  # likewise
    blurred_margin: float  # with the region blurred instead, as a second opinion
    blurred_flips: bool | None = None  # None: in records of schema 1, which did not ask


class Provenance(_Frozen):
    """What is needed to compute the record again."""

    encoder: str
    fingerprint: str
    policy: str
    policy_digest: str
    code: str
    seed: int


class Explanation(_Frozen):
    """Why one image was flagged for one class."""

    schema_version: Literal[1, 2] = 2
    class_name: str
    frame: int
    view: str = ""  # which look at the frame; empty: as the model takes it
    size: tuple[int, int] | None = None  # of the frame, pixels; None: of before there were views
    margin: float  # logits
    probability: float
    threshold: float  # probability
    calibrated: bool
    boundary_degrees: float | None  # angle to the nearest embedding with the other answer
    map: Map | None
    no_map: str | None  # why there is none
    words: tuple[PromptWords, ...]
    images: tuple[CounterfactualImage, ...]
    no_images: str | None  # the sentence that says none was found
    texts: tuple[CounterfactualText, ...]
    no_texts: str | None = None  # the sentence that says none was found
    region: FlipRegion | None
    proof: Proof | FirstProof  # the second in records of schema 1
    provenance: Provenance

    @property
    def seen(self) -> View:
        """The view that is explained."""
        return View.parse(self.frame, self.view)

    @property
    def part(self) -> Box | None:
        """The part of the frame that was seen, in shares of it; None: as the model takes it."""
        box = self.seen.box
        if box is None or self.size is None:
            return None
        width, height = self.size
        return box.scaled(1 / width, 1 / height)

    @property
    def faithful(self) -> bool:
        """The marked places matter: the map passed the faithfulness test."""
        return self.map is not None and self.proof.faithful

    @property
    def specific(self) -> bool | None:
        """They matter for this class more than for the next one; None: not asked."""
        return self.proof.specific

    @property
    def fills(self) -> tuple[str, ...]:
        """The fills with which taking the region away clears the image."""
        if self.region is None:
            return ()
        both = (self.region.flips, MEAN_COLOUR), (self._blurred_flips(self.region), BLUR)
        return tuple(fill for flips, fill in both if flips)

    def _blurred_flips(self, region: FlipRegion) -> bool:
        """Records of schema 1 do not say; they hold the margin, and the threshold at least where
        nothing is calibrated."""
        if region.blurred_flips is not None:
            return region.blurred_flips
        if self.calibrated:
            return region.flips and region.blurred_margin <= region.margin
        return region.blurred_margin < math.log(self.threshold / (1 - self.threshold))
