"""Renders the audit of a decision as one self-contained HTML page.

A picture that was flagged is blurred and grey until somebody points at it: who checks decisions
all day chooses what to look at.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

from filter_service.explain.study.caption import CaptionWord
from filter_service.explain.study.decision_audit import ADDITIVE, Audit, MethodMap
from filter_service.explain.study.report import report_charts
from filter_service.explain.study.report.report_charts import data_uri, number, signed
from filter_service.images.views import Box
from filter_service.rendering.overlay import fit, full_colour, overlay, seen
from filter_service.rendering.templates import environment
from filter_service.verdicts.explanation import CounterfactualImage, FlipRegion, Map

HERE = Path(__file__).parent
LARGE, MIDDLE, SMALL = 560, 320, 240  # pixels of a picture's longer side
FINEST = 1 / 16  # of the common scale

Picture = PIL.Image.Image


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """A picture with what stands below it."""

    source: str  # data: URI, empty where the picture is not at hand
    title: str
    lines: tuple[str, ...] = ()
    veiled: bool = False
    drawing: str = ""  # SVG laid over it


def page(audit: Audit, picture: Picture, pictures: Mapping[str, Picture] | None = None) -> str:
    """The page of an audit of this picture; `pictures` are the counterfactual ones, by digest."""
    view = _View(audit, picture, pictures or {})
    templates = environment(HERE)
    templates.filters |= {"signed": signed, "number": number, "places": _places}
    values = dict(a=audit, r=audit.record, view=view, charts=report_charts, additive_from=ADDITIVE)
    return templates.get_template("page.html").render(values).lstrip()


@dataclass(frozen=True)
class _View:
    """What the template asks of an audit besides its fields."""

    audit: Audit
    picture: Picture
    pictures: Mapping[str, Picture]
    style: str = field(default_factory=lambda: (HERE / "style.css").read_text(encoding="utf-8"))

    @property
    def submitted(self) -> CaptionedPicture:
        return CaptionedPicture(
            data_uri(fit(self.picture, LARGE)), "as submitted", (), self.audit.flagged
        )

    @property
    def evidence(self) -> CaptionedPicture | None:
        """The default map with the region that flips, unless it failed its test."""
        found = self.audit.record.map
        if found is None or (self.audit.flagged and not self.audit.record.faithful):
            return None
        title = "evidence, with the region that decides" if self.audit.region else "evidence"
        return self._over(found, title, LARGE, self._margin, self.audit.region)

    @property
    def maps(self) -> list[CaptionedPicture | MethodMap]:
        """Each map, or the sentence that refuses it."""
        return [
            m if m.map is None else self._over(m.map, m.name, MIDDLE, self._margin)
            for m in self.audit.maps
        ]

    @property
    def words(self) -> list[CaptionedPicture]:
        """A map for each word and one for all of them, on one scale."""
        found = self.audit.word_regions
        if found is None:
            return []
        score = found.whole.total + found.whole.remainder
        rows = [(w.word, w.map) for w in found.words] + [("all words", found.whole)]
        return [self._over(m, word, SMALL, score) for word, m in rows]

    @property
    def regions(self) -> list[CaptionedPicture]:
        """The region that is necessary and the one that is enough, each outlined."""
        relevance_map, enough = self.audit.record.map, self.audit.sufficient
        if relevance_map is None:
            return []
        blank = relevance_map.model_copy(update={"grid": np.zeros_like(relevance_map.grid)})
        named = [("necessary", self.audit.region)]
        if enough is not None and enough.flips:
            named.append(("enough", enough))
        return [
            CaptionedPicture(
                data_uri(self._drawn(blank, MIDDLE, self._margin, region)),
                title,
                (),
                self.audit.flagged,
            )
            for title, region in named
            if region is not None
        ]

    @property
    def pairs(self) -> CaptionedPicture | None:
        """The strongest pairs of places as lines over the picture."""
        found = self.audit.additivity
        if found is None or not found.pairs:
            return None
        small = fit(self.picture, MIDDLE)
        lines = report_charts.pairs(found.pairs, found.grid, small.size, self._where(small.size))
        return CaptionedPicture(data_uri(small), "pairs of places", (), self.audit.flagged, lines)

    def _where(self, size: tuple[int, int]) -> Box:
        return seen(*size, self.audit.preprocessing, self.audit.record.part)

    @property
    def neighbours(self) -> list[CaptionedPicture]:
        """Stored images with the other answer."""
        return [self._neighbour(image) for image in self.audit.record.images]

    @property
    def captioned(self) -> list[CaptionedPicture]:
        """Where a caption's words looked: shares of the attention, drawn like logits."""
        if self.audit.caption is None:
            return []
        return [
            self._over(_attended(word), word.word, SMALL, 1.0, unit="of the attention")
            for word in self.audit.caption.words
        ]

    @property
    def _margin(self) -> float:
        return self.audit.record.margin

    def _neighbour(self, image: CounterfactualImage) -> CaptionedPicture:
        picture = self.pictures.get(image.digest)
        lines = [f"margin {signed(image.margin)}"]
        if image.decision:
            lines.append(f"a moderator said: {image.decision}")
        return CaptionedPicture(
            data_uri(fit(picture, MIDDLE)) if picture else "",
            f"{number(image.degrees, 1)}° away",
            (*lines, image.digest[:12]),
            veiled=not self.audit.flagged,  # then the other answer is "flagged"
        )

    def _over(
        self,
        relevance_map: Map,
        title: str,
        side: int,
        score: float,
        region: FlipRegion | None = None,
        unit: str = "logits",
    ) -> CaptionedPicture:
        times = _times(relevance_map, full_colour(relevance_map, score))
        lines = (
            f"full colour at {number(times * full_colour(relevance_map, score), 2)} {unit}",
            f"sum {signed(relevance_map.total)}",
            f"remainder {signed(relevance_map.remainder)}",
        )
        grid = (relevance_map.grid.astype(np.float32) / times).astype(np.float16)
        drawn = self._drawn(relevance_map.model_copy(update={"grid": grid}), side, score, region)
        return CaptionedPicture(data_uri(drawn), title, lines, self.audit.flagged)

    def _drawn(self, found: Map, side: int, score: float, region: FlipRegion | None) -> Picture:
        fitted = fit(self.picture, side)
        part = self.audit.record.part
        return overlay(fitted, found, score, self.audit.preprocessing, region, part)


def _times(found: Map, full: float) -> float:
    """By which power of four the scale of a map is coarser than the one of all maps.

    The same for all, unless a method's values are so small that nothing could be seen, or so large
    that most places would have the full colour.
    """
    values = np.abs(found.grid.astype(np.float32))
    if (peak := float(values.max())) < full / 4:
        return max(4.0 ** math.ceil(math.log(max(peak, 1e-9) / full, 4)), FINEST)
    return 4.0 if float(np.median(values)) > full else 1.0


def _attended(word: CaptionWord) -> Map:
    """Shares of the attention as a map, to be drawn like one."""
    return Map(
        method="cross-attention",
        grid=word.grid,
        total=1 - word.elsewhere,
        remainder=word.elsewhere,
        high_norm=0,
    )


def _places(region: FlipRegion, of: int) -> str:
    count = len(region.places)
    return f"{count} {'place' if count == 1 else 'places'} of {of}"
