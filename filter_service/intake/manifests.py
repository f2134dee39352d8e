"""Reads and writes manifests in the format of AWS's bulk image analysis (JSON Lines).

What comes in is `{"source-ref": ADDRESS}`, with a `report` where somebody reported the image, and
perhaps with `metadata`, a flat map of what the platform knows of it, by which figures can be
sliced. What goes out has the same `source-ref`, the labels under `detect-moderation-labels`, and
what AWS has no place for under its `…-metadata`. A line that cannot be used, or an image that could
not be judged, is a line with an `error`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from filter_service.db.unjudged import SENTENCES, UnjudgedReason
from filter_service.intake.item_metadata import fault_of
from filter_service.policy.spelling import unknown
from filter_service.policy.strict import each_once
from filter_service.reviews.report_input import ReportInput
from filter_service.verdicts import Verdict

MEDIA_TYPE = "application/jsonl"
LONGEST_LINE = 16_384  # bytes
SHOWN = 80  # letters of a faulty line in its message
LABELS = "detect-moderation-labels"
METADATA = f"{LABELS}-metadata"
KNOWN = (
    "source-ref",
    "report",
    "metadata",
    LABELS,
    METADATA,
    "error",
)  # a manifest of results may be sent again


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One line of a manifest: an address, or the sentence that says why there is none."""

    source: str  # the address, or the line's number
    error: str | None = None
    report: ReportInput | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Label:
    """A forbidden class that an image was flagged for."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class ManifestResult:
    """What became of one item."""

    item: int
    source: str
    digest: str | None
    verdict: Verdict | None
    unjudged: UnjudgedReason | None  # why there is none
    reason: str | None
    labels: Sequence[Label]
    encoder: str | None
    policy: str
    policy_digest: str
    judged_at: datetime | None
    review: str | None  # what moderators decided
    fully_automated: bool = False  # its flag acts by itself


def read(lines: Iterable[bytes]) -> Iterator[ManifestLine]:
    """The lines of a manifest, empty ones apart; one that is broken spoils no other."""
    for number, raw in enumerate(lines, start=1):
        if stripped := raw.strip():
            yield _line(number, stripped, len(raw) > LONGEST_LINE)


def write(results: Iterable[ManifestResult]) -> Iterator[bytes]:
    """A result manifest, line by line."""
    for result in results:
        yield json.dumps(_written(result), ensure_ascii=False).encode() + b"\n"


def _line(number: int, raw: bytes, too_long: bool) -> ManifestLine:
    where = f"line {number}"
    if too_long:
        said = f"The line has more than {LONGEST_LINE:,} bytes; give the address alone."
        return ManifestLine(where, said)
    try:
        document = json.loads(raw, object_pairs_hook=each_once)
    except (ValueError, RecursionError) as error:
        return ManifestLine(where, f"{_shown(raw)} is not JSON ({error}); {_EXPECTED}")
    fields = document if isinstance(document, dict) else {}
    if other := next((name for name in fields if name not in KNOWN), None):
        return ManifestLine(where, f"{unknown(other, KNOWN)}; {_EXPECTED}")
    source = fields.get("source-ref")
    if not isinstance(source, str) or not source:
        return ManifestLine(where, f"{_shown(raw)} names no source-ref; {_EXPECTED}")
    if not source.isprintable():
        return ManifestLine(
            where, f"The source-ref {source[:SHOWN]!r} holds a letter that no address has."
        )
    return _told(source, fields.get("report"), fields.get("metadata", {}))


def _told(source: str, said: object, metadata: Any) -> ManifestLine:  # noqa: ANN401  (any JSON)
    """An address, with what was reported of its image, if anything was, and its metadata."""
    if (fault := fault_of(metadata)) is not None:
        return ManifestLine(source, fault)
    if said is None:
        return ManifestLine(source, attributes=metadata)
    try:
        report = ReportInput.model_validate(said)
        return ManifestLine(source, report=report, attributes=metadata)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, ("report", *wrong["loc"])))
        return ManifestLine(source, f"{place}: {wrong['msg']}. Mend it and submit it again.")


_EXPECTED = 'write {"source-ref": "https://host/image.jpg"} on one line.'


def _shown(raw: bytes) -> str:
    text = raw[:SHOWN].decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else "?" for c in text)


def _written(result: ManifestResult) -> dict[str, Any]:
    line: dict[str, Any] = {"source-ref": result.source}
    if result.verdict in (Verdict.CLEAR, Verdict.FLAGGED):
        line[LABELS] = {
            "ModerationLabels": [_label(label) for label in result.labels],
            "ModerationModelVersion": result.encoder,
            "ContentTypes": [],
        }
    else:
        line["error"] = _error(result)
    line[METADATA] = {
        "item": result.item,
        "verdict": result.verdict or result.unjudged,
        "digest": result.digest,
        "policy": result.policy,
        "policy-digest": result.policy_digest,
        "judged-at": result.judged_at and result.judged_at.isoformat(),
        "review": result.review,
        "fully-automated": result.fully_automated,
    }
    return line


def _label(label: Label) -> dict[str, Any]:
    """Confidence in per cent, as AWS gives it; classes of a policy have no parents."""
    confidence = round(100 * label.probability, 4)
    return {"Name": label.name, "ParentName": "", "Confidence": confidence, "TaxonomyLevel": 1}


def _error(result: ManifestResult) -> dict[str, str]:
    if result.unjudged is not None:
        return {"code": "NotJudged", "message": SENTENCES[result.unjudged]}
    return {"code": "Undetermined", "message": result.reason or "No reason was given."}
