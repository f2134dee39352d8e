"""The pictures of a decision record: links on a page, embedded images in a file."""

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from PIL.Image import Image as Picture

from filter_service.audit.record.item_history import ItemHistory
from filter_service.errors import ImageError
from filter_service.images import Limits
from filter_service.images.views import View
from filter_service.rendering import overlay, renditions
from filter_service.storage import Storage
from filter_service.verdicts.explanation import Explanation


class Pictures(Protocol):
    """Where each picture of a record comes from; empty where there is none."""

    def blurred(self, name: str | None) -> str:
        """The item's image, in the frame that stands for a class."""

    def map(self, record: Explanation) -> str:
        """The layer of evidence."""

    def region(self, record: Explanation) -> str:
        """The outline of what decides."""

    def other(self, digest: str) -> str:
        """Another image, blurred."""


@dataclass(frozen=True, slots=True)
class PagePictures:
    """For a page: the pictures of the item's own page."""

    item_id: int

    def blurred(self, name: str | None) -> str:
        return f"/pictures/{self.item_id}/blurred{_asked(name)}"

    def map(self, record: Explanation) -> str:
        return f"/pictures/{self.item_id}/map{_asked(record.class_name)}"

    def region(self, record: Explanation) -> str:
        return f"/pictures/{self.item_id}/region{_asked(record.class_name)}"

    def other(self, digest: str) -> str:
        return f"/pictures/image/{digest}/blurred"


@dataclass(frozen=True, slots=True)
class FilePictures:
    """For a file: every picture drawn into it."""

    history: ItemHistory
    storage: Storage
    limits: Limits
    others: frozenset[str]  # digests of other images that may be shown

    def blurred(self, name: str | None) -> str:
        return self._blurred(self._digest, self._view(name))

    def map(self, record: Explanation) -> str:
        grid = record.map
        if grid is None:
            return ""
        return self._layer(
            record.seen,
            lambda s: overlay.map_layer(
                s, grid.grid, record.margin, self._preprocessing, record.part
            ),
        )

    def region(self, record: Explanation) -> str:
        where, over = record.region, record.map
        if where is None or over is None:
            return ""
        return self._layer(
            record.seen,
            lambda s: overlay.region_layer(s, where, over, self._preprocessing, record.part),
        )

    def other(self, digest: str) -> str:
        return self._blurred(digest, View()) if digest in self.others else ""

    @property
    def _digest(self) -> str | None:
        return self.history.image.digest if self.history.image else None

    @property
    def _preprocessing(self) -> dict[str, object]:
        encoder = self.history.judged.encoder
        assert encoder is not None, "something was explained"
        found: dict[str, object] = encoder.details["preprocessing"]
        return found

    def _view(self, name: str | None) -> View:
        explained = ((e.class_name, e.record) for e in self.history.judged.explanations)
        views = {class_name: record.seen for class_name, record in explained if record}
        views = {m.class_name: m.view for m in self.history.judged.scores} | views
        return views.get(name or self.history.judged.class_name or "", View())

    def _blurred(self, digest: str | None, view: View) -> str:
        known = self._points(digest, view)
        return "" if known is None else _uri(renditions.blurred(known), "image/jpeg")

    def _points(self, digest: str | None, view: View) -> renditions.Points | None:
        if not digest:
            return None
        try:
            return renditions.points(self.storage, digest, view.frame, self.limits, view.reading)
        except ImageError:
            return None

    def _layer(self, view: View, draw: Callable[[renditions.Size], Picture]) -> str:
        known = self._points(self._digest, view)
        if known is None:
            return ""
        drawn = draw(renditions.fitted(known.size, renditions.SHOWN))
        return _uri(renditions.layer(drawn), "image/webp")


def _asked(name: str | None) -> str:
    return f"?{urlencode({'class': name})}" if name else ""


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
