"""The command that says how right a policy is, on pictures whose truth is known."""

import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from filter_service.calibration.evaluation import ClassEvaluation, CountedShare, compare
from filter_service.calibration.evaluation import evaluate as evaluated
from filter_service.calibration.evaluation_report import EvaluatedPictures, page, tell
from filter_service.calibration.labelled_margins import Bools, Floats
from filter_service.calibration.labels import upload
from filter_service.cli.batches import Json
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.parameters import shown
from filter_service.db import query_encoder
from filter_service.db.embeddings import known_of_digests, register_encoder
from filter_service.errors import ImageError, InvalidRequest
from filter_service.images import Limits, decode, digest, read
from filter_service.intake.labelled_files import (
    LabelledFile,
    read_labelled,
    require_agreement,
)
from filter_service.policy import Policy, read_policy
from filter_service.policy.coverage import Coverage
from filter_service.settings import Settings

if TYPE_CHECKING:
    from filter_service.encoder import Encoder
    from filter_service.scoring import FloatArray

ACTOR = "service"  # whoever can run commands on the machine is the service itself
THUMBNAIL = 220  # pixels of a picture's longer side


@dataclass(frozen=True, slots=True)
class _Looks:
    """The pictures that could be looked at, with an encoder's vectors of each."""

    files: list[LabelledFile]
    vectors: "list[FloatArray]"  # (views, d) each
    unreadable: list[str]

    def margins(self, policy: Policy, encoder: "Encoder") -> Floats:
        """Of the worst view of each picture: (n, classes), logits."""
        views = np.concatenate(self.vectors)  # (views of all, d)
        starts = np.cumsum([0, *(len(v) for v in self.vectors[:-1])])
        return np.maximum.reduceat(encoder.vectors(policy).margins(views), starts, axis=0)

    def truths(self, policy: Policy) -> Bools:
        """(n, classes)"""
        return np.array([[c.name in f.classes for c in policy.classes] for f in self.files])


def evaluate(
    context: typer.Context,
    *,
    place: Annotated[
        Path,
        typer.Argument(help='A folder with one for each class and "clear", or JSON Lines.'),
    ],
    policy: Annotated[Path, typer.Option(help="The policy to be evaluated (YAML).")],
    against: Annotated[
        Path | None, typer.Option(help="Another policy, compared on the same pictures.")
    ] = None,
    against_model: Annotated[
        str | None, typer.Option(help="Another model, as FILTER_SERVICE_MODEL names it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write a page to this HTML file.")] = None,
    keep: Annotated[
        bool,
        typer.Option(help="Use vectors that the database has, and keep these labels there."),
    ] = False,
    json_: Json = False,
) -> None:
    """How right is a policy? Precision, recall, calibration, thresholds; no database is needed.

    JSON Lines are {"source": "a.jpg", "classes": ["weapons"]}, an empty list for a clear picture. A
    picture of one class's folder counts as not showing the others. Pictures that cannot be read are
    named and left out, and the exit code is 1.
    """
    asked = read_policy(policy)
    other = read_policy(against) if against else asked
    files = read_labelled(place, [c.name for c in asked.classes])
    settings = Settings.load()
    limits = Limits.of(settings)
    encoder = query_encoder.load(settings)
    digests = _digests(files, limits)
    files = _each_once(files, digests)
    with workplace(context.obj) if keep else contextlib.nullcontext() as here:
        coverage = asked.coverage or settings.coverage
        stored = _Stored.of(here, encoder, digests, coverage) if here else _Stored({}, {})
        looks = _look(files, encoder, asked, settings, stored.vectors)
        if here:
            typer.echo(_keep(here, asked, stored.images, looks), err=True)
    found = evaluated(asked, looks.margins(asked, encoder), looks.truths(asked))
    comparisons = []
    if against or against_model:
        second = _against(looks, other, encoder, settings, against_model)
        comparisons = compare(found, second)
    for said in looks.unreadable:
        typer.echo(f"Error: {said}", err=True)
    if json_:
        typer.echo(json.dumps([_document(e) for e in found]))
    else:
        typer.echo("\n".join(tell(found, comparisons)))
    if out is not None:
        title = f"{asked.name} {asked.digest[:12]} with {encoder.name}"
        names = [shown(f.path) for f in looks.files]
        pictures = EvaluatedPictures(
            title, names, _thumbnails(looks.files, limits), looks.unreadable
        )
        out.write_text(page(pictures, found, comparisons), encoding="utf-8")
    if looks.unreadable:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Stored:
    """Which of the pictures the database has, by path, and an encoder's vectors of them."""

    images: dict[Path, int]
    vectors: "dict[Path, FloatArray]"  # (views, d) each

    @classmethod
    def of(
        cls, here: Workplace, encoder: "Encoder", digests: Mapping[Path, str], coverage: Coverage
    ) -> "_Stored":
        """Vectors of those pictures of which every view that this coverage asks for is known."""
        from filter_service.pipeline.subject import asked_vectors  # torch

        e = encoder
        with here.sessions.begin() as session:
            encoder_id = register_encoder(session, e.fingerprint, e.name, e.dim, e.details)
            ids, known = known_of_digests(session, encoder_id, sorted(set(digests.values())))
        looked = {name: asked_vectors(found, e, coverage) for name, found in known.items()}
        vectors = {path: looked.get(name) for path, name in digests.items()}
        return cls(
            {path: ids[name] for path, name in digests.items() if name in ids},
            {path: views.vectors for path, views in vectors.items() if views is not None},
        )


def _keep(here: Workplace, policy: Policy, images: dict[Path, int], looks: _Looks) -> str:
    """Keep the labels of what is stored; what became of them, in a sentence."""
    truths = {
        (images[f.path], c.name): c.name in f.classes
        for f in looks.files
        if f.path in images
        for c in policy.classes
        if c.sealed is None
    }
    with here.sessions.begin() as session:
        receipt = upload(session, policy, truths, ACTOR)
    strange = sum(f.path not in images for f in looks.files)
    said = f"{receipt.new} new labels are kept, {receipt.unchanged} were known"
    if receipt.contradicted:
        said += f"; decisions say otherwise of {len(receipt.contradicted)} pictures, and stand"
    if strange:
        said += f"; {strange} pictures are not stored here: submit them to keep their labels"
    return f"{said}."


def _look(
    files: Sequence[LabelledFile],
    encoder: "Encoder",
    policy: Policy,
    settings: Settings,
    known: "Mapping[Path, FloatArray]",
) -> _Looks:
    """Every picture once, in the order of the files; from known vectors where there are some."""
    from filter_service.encoder.image_vectors import image_vectors

    new = [file for file in files if file.path not in known]
    limits = Limits.of(settings)
    sources = [partial(read, file.path, limits) for file in new]
    coverage = policy.coverage or settings.coverage
    computed = image_vectors(sources, encoder, limits, coverage)
    looks = _Looks([], [], [])
    progress = track(
        ((file, known[file.path] if file.path in known else next(computed)) for file in files),
        "Looking at the pictures",
        total=len(files),
        console=Console(stderr=True),
        transient=True,
    )
    for file, vectors in progress:
        if isinstance(vectors, ImageError):
            looks.unreadable.append(f"{shown(file.path)}: {vectors}")
        else:
            looks.files.append(file)
            looks.vectors.append(vectors)
    if not looks.files:
        raise InvalidRequest("None of the pictures can be read:\n" + "\n".join(looks.unreadable))
    return looks


def _digests(files: Sequence[LabelledFile], limits: Limits) -> dict[Path, str]:
    """Of those that can be read; the others are named later. None may stand under two labels."""
    named = []
    for file in files:
        with contextlib.suppress(ImageError):
            named.append((digest(read(file.path, limits)), file))
    require_agreement(named)
    return {file.path: name for name, file in named}


def _each_once(files: Sequence[LabelledFile], digests: Mapping[Path, str]) -> list[LabelledFile]:
    """Each picture once, whatever its names: twice it would make every interval too narrow."""
    first = {digests.get(file.path, str(file.path)): file for file in reversed(files)}
    return [file for file in files if first[digests.get(file.path, str(file.path))] is file]


def _against(
    looks: _Looks, policy: Policy, encoder: "Encoder", settings: Settings, model: str | None
) -> list[ClassEvaluation]:
    """The same pictures under another policy, by another model, or both."""
    if model is not None:
        settings = settings.model_copy(update={"model": model})
        encoder = query_encoder.load(settings)
        again = _look(looks.files, encoder, policy, settings, {})
        looks = _Looks(looks.files, again.vectors, [])
    return evaluated(policy, looks.margins(policy, encoder), looks.truths(policy))


def _thumbnails(files: Sequence[LabelledFile], limits: Limits) -> Callable[[int], bytes | None]:
    """Row -> a small JPEG, or None where none can be made."""

    def thumbnail(row: int) -> bytes | None:
        try:
            picture = decode(read(files[row].path, limits), limits).frames[0].picture.convert("RGB")
        except ImageError:
            return None
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=80)
        return file.getvalue()

    return thumbnail


def _document(e: ClassEvaluation) -> dict[str, Any]:
    """One class as data; NaN has no place in JSON."""
    c, k = e.confusion, e.calibrator
    return {
        "class": e.name,
        "threshold": e.threshold,
        "pictures": len(e.truths),
        "confusion": asdict(c),
        "precision": _share(c.precision),
        "recall": _share(c.recall),
        "average_precision": e.average_precision and asdict(e.average_precision),
        "calibration_error": e.agreement.flagged_error and asdict(e.agreement.flagged_error),
        "brier": asdict(e.agreement.brier),
        "log_loss": asdict(e.agreement.log_loss),
        "calibration": k and {"a": k.a, "b": k.b, "labels": k.labels},
        "uncalibrated": e.uncalibrated,
        "suggestions": [
            {"aim": s.aim, "threshold": s.threshold, "refusal": s.refusal} for s in e.suggestions
        ],
    }


def _share(found: CountedShare) -> dict[str, float] | None:
    low, high = found.interval
    return {"value": found.value, "low": low, "high": high} if found.of else None
