"""The audit of a decision: what every analysis made of it, as one record."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from filter_service.explain.study import inside
from filter_service.explain.study.caption import Caption
from filter_service.explain.study.phrases import PhraseDifference
from filter_service.explain.study.prompt_edits import PromptEdits
from filter_service.rendering.overlay import is_part
from filter_service.verdicts import proven_claims
from filter_service.verdicts.explanation import Explanation, FlipRegion, Map

if TYPE_CHECKING:
    pass

ADDITIVE = 0.8  # held-out R-squared from which a decision is explainable additively


class _Frozen(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """An immutable part of a record; unknown fields are refused."""


class MethodMap(_Frozen):
    """What one method made of the margin, or the sentence with which it refused."""

    name: str
    map: Map | None
    refusal: str | None = None


class Agreement(_Frozen):
    """Spearman's rank correlation of the maps of integrated gradients, baseline by baseline."""

    names: tuple[str, ...]
    correlations: tuple[tuple[float, ...], ...]


class Pair(_Frozen):
    """Two places that do together what neither does alone."""

    first: int  # index into the flattened grid
    second: int
    effect: float  # logits, when both are there


class Additivity(_Frozen):
    """How well sums over places account for what the model says of masked images."""

    masks: int
    grid: tuple[int, int]
    r_squared: float  # on held-out masks: places alone
    with_pairs: float  # on held-out masks: with pairs of the strongest places
    pairs: tuple[Pair, ...]  # the strongest first

    @property
    def additive(self) -> bool:
        return self.r_squared >= ADDITIVE


class WordMap(_Frozen):
    """Where one word of a prompt finds what it says."""

    word: str
    shapley: float  # logits: grid and remainder add up to it
    map: Map


class WordRegions(_Frozen):
    """Words by places: the words' maps add up to that of the whole prompt less the empty one."""

    prompt: str
    words: tuple[WordMap, ...]
    whole: Map
    gap: float  # logits: how far the sum of the words' maps lies from it, at most


class Audit(_Frozen):
    """One decision, asked in every way; a part is None where `refused` says why, or was not asked.

    For an image that is not flagged `record.region` means nothing.
    """

    digest: str
    flagged: bool  # for this class
    clause: str
    prompts: tuple[str, ...]
    neutral: tuple[str, ...]  # what is ordinary
    look_alikes: tuple[str, ...]  # of this class, contrasted with likewise
    templates: tuple[str, ...]
    threshold_margin: float  # logits
    preprocessing: dict[str, Any]
    record: Explanation
    maps: tuple[MethodMap, ...]
    agreement: Agreement | None = None
    additivity: Additivity | None = None
    word_regions: WordRegions | None = None
    sufficient: FlipRegion | None = None
    rewordings: PromptEdits | None = None
    difference: PhraseDifference | None = None
    contributions: inside.Contributions | None = None
    lens: inside.Lens | None = None
    trace: inside.Trace | None = None
    neurons: inside.Neurons | None = None
    caption: Caption | None = None
    refused: dict[str, str]  # name of a part -> why it is not there

    @property
    def region(self) -> FlipRegion | None:
        """The part of the image without which it would not be flagged, if there is one."""
        found = self.record.region
        if not self.flagged or found is None or self.record.map is None:
            return None
        return found if is_part(found, self.record.map) else None

    @property
    def necessary(self) -> str:
        """What that part does, in a sentence."""
        return proven_claims.necessary(self.record, outlined=False)

    @property
    def claim(self) -> str:
        """What the faithfulness test proves, in sentences."""
        return proven_claims.tested(self.record)
