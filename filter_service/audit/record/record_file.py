"""Writes a decision record as one self-contained HTML file, with all pictures and proofs."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from filter_service.audit.record.item_history import ItemHistory
from filter_service.audit.record.record_pictures import FilePictures
from filter_service.audit.record.record_view import Record
from filter_service.db.tables import Item, StoredImage
from filter_service.errors import InvalidRequest
from filter_service.images import Limits
from filter_service.ledger.proofs import proof_document
from filter_service.rendering.templates import environment
from filter_service.storage import Storage

TEMPLATES = Path(__file__).parent / "templates"

_PROOFS = re.compile(
    r'<script type="application/json" id="proofs">\s*(?P<json>.*?)\s*</script>', re.DOTALL
)


def written_down(
    storage: Storage, limits: Limits, history: ItemHistory, others: frozenset[str], style: str
) -> str:
    """One page of HTML that can be kept, printed, and checked where no network is.

    `others` are the digests of those other images that may be shown, blurred; `style` is the sheet
    of the console's pages.
    """
    return (
        _templates()
        .get_template("record/file.html")
        .render(
            r=Record(history),
            pics=FilePictures(history, storage, limits, others),
            ref=lambda number: f"#entry-{number}",
            style=Markup(style),
            proofs=Markup(_inside_script(proofs_of(history))),
        )
    )


@cache
def _templates() -> Environment:
    return environment(TEMPLATES)


def shown_beside(
    session: Session, history: ItemHistory, seen: ColumnElement[bool]
) -> frozenset[str]:
    """The other images that explanations name, as far as they came with an item that is seen."""
    readable = (e.record for e in history.judged.explanations if e.record is not None)
    named = {image.digest for record in readable for image in record.images}
    query = (
        select(StoredImage.digest)
        .join(Item, Item.image_id == StoredImage.id)
        .where(StoredImage.digest.in_(named), StoredImage.bytes_gone_at.is_(None), seen)
        .distinct()
    )
    return frozenset(digest for digest in session.scalars(query) if digest is not None)


def proofs_of(history: ItemHistory) -> dict[str, Any]:
    """The same document as `audit prove` makes, of the entries that the record tells."""
    placed = [history.places[entry.id] for entry in history.entries]
    told = [(place.document, place.inclusion) for place in placed]
    return proof_document(history.item.id, history.checkpoint, told)


def proofs_in(html: str) -> str:
    """The proofs of a record's file, as `audit check` reads them; InvalidRequest without any."""
    found = _PROOFS.search(html)
    if found is None:
        raise InvalidRequest(
            "There are no proofs in this file: give a record as `audit record` writes it."
        )
    return found["json"]


def _inside_script(value: dict[str, Any]) -> str:
    """JSON in which nothing can end the element that it stands in."""
    return json.dumps(value, ensure_ascii=False, indent=1).replace("<", "\\u003c")
