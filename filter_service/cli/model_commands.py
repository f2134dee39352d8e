"""Commands that classify images, search stored ones, and check policy files."""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from filter_service.cli.batches import Json
from filter_service.cli.context import workplace
from filter_service.cli.parameters import MOST_FOUND, shown, words
from filter_service.db import query_encoder
from filter_service.db.query_encoder import LazyQueryEncoder, vector_of
from filter_service.db.scope import OPERATOR
from filter_service.db.vectors import StoredMemory, VectorHit
from filter_service.errors import ImageError, InvalidPolicy, ModelUnavailable, UnknownModel
from filter_service.images import Limits, read
from filter_service.policy import Policy, json_schema, place_of, read_policy
from filter_service.reviews.sightings import newest_items_of
from filter_service.rollout import soundness
from filter_service.rollout.soundness import Remark
from filter_service.scoring import FloatArray
from filter_service.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from filter_service.encoder import Encoder

# A path, or one word that ends as files do: "photo.jpg", not "a red car. No people".
_LIKE_A_FILE = re.compile(
    r"^\.{0,2}/|^~/|^\S+\.[A-Za-z][A-Za-z0-9]{1,4}$|\.(jpe?g|png|gif|webp)$", re.I
)


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Annotated[str, typer.Option(help='Comma-separated: "a dog,a knife".')],
    json_: Json = False,
) -> None:
    """Zero-shot: which of these labels fits each image best? No policy, no database.

    A file that cannot be read is named, the others are classified, and the exit code is 1.
    """
    names = _labels(labels)
    encoder = served_encoder()
    texts = encoder.encode_texts(names)  # (labels, d)
    failed = False
    for path in images:
        try:
            shares = _shares(encoder, texts, path)
        except ImageError as error:
            typer.echo(f"Error: {shown(path)}: {error}", err=True)
            failed = True
            continue
        ranked = sorted(zip(names, shares, strict=True), key=lambda pair: -pair[1])
        if json_:
            typer.echo(json.dumps({"file": shown(path), "labels": dict(ranked)}))
        else:
            typer.echo(f"{shown(path)}: " + ", ".join(f"{name} {p:.1%}" for name, p in ranked))
    if failed:
        raise typer.Exit(1)


def search(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="Words, or an image file.")],
    limit: Annotated[int, typer.Option(min=1, max=MOST_FOUND, help="At most so many images.")] = 10,
    json_: Json = False,
) -> None:
    """The stored images nearest to a text or to an image, with the items that hold them."""
    file = _file(what)
    with workplace(context.obj) as place:
        seeker = LazyQueryEncoder(place.settings, place.sessions)
        sought = seeker.text(words(what)) if file is None else seeker.image(read(file))
        dim = len(sought.vector)
        memory = StoredMemory(place.sessions, sought.encoder_id, dim, sought.scale)
        hits = memory.search(sought.vector, limit)
        with place.sessions.begin() as session:
            found = newest_items_of(session, OPERATOR, [hit.digest for hit in hits])
    items = {hit.digest: [item.id for item in found[hit.digest]] for hit in hits}
    for hit in hits:
        row = {
            "digest": hit.digest,
            "frame": hit.view.frame,
            "view": hit.view.name,
            "similarity": hit.similarity,
            "items": items[hit.digest],
        }
        typer.echo(json.dumps(row) if json_ else _told(hit, items[hit.digest]))
    if not hits and not json_:
        typer.echo("No stored image has been seen by this model yet.", err=True)


def check(file: Annotated[Path, typer.Argument(help="Policy file (YAML).")]) -> None:
    """Say whether a policy file is sound, or name file, line and field of every fault.

    Its words are compared as the model sees them: a class that nothing tells from what is ordinary,
    or whose threshold nothing reaches, is a fault. What is said twice, or is too long for the
    model, is a warning.
    """
    policy = read_policy(file)
    text = file.read_text(encoding="utf-8")
    faults = []
    for remark in _remarks(policy):
        said = f"{shown(file)}:{place_of(text, remark.place)}: {remark.sentence}."
        if remark.fatal:
            faults.append(said)
        else:
            typer.echo(f"Warning: {said}", err=True)
    if faults:
        raise InvalidPolicy("\n".join(faults))
    typer.echo(f"{policy.name}: {len(policy.classes)} classes, digest {policy.digest}")


def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    typer.echo(json.dumps(json_schema(), indent=2))


def _remarks(policy: Policy) -> "Iterator[Remark]":
    """What a policy's author should know, as far as there is a model to ask."""
    try:
        encoder = served_encoder()
    except (ModelUnavailable, UnknownModel) as error:
        typer.echo(f"Warning: no model compared the words, only their letters: {error}", err=True)
        yield from soundness.by_letters(policy)
        return
    yield from soundness.by_words(policy, encoder.vectors(policy), encoder.tokenizer)


def _labels(given: str) -> list[str]:
    """The labels between the commas, each once; BadParameter for none."""
    names = [words(label) for label in given.split(",") if label.strip()]
    if not names:
        raise typer.BadParameter('There is no label: give some, such as --labels "a dog,a knife".')
    return list(dict.fromkeys(names))


def _shares(encoder: "Encoder", texts: FloatArray, path: Path) -> list[float]:
    """How well each label, (labels, d), fits a file, together 1; raises ImageError."""
    logits = encoder.logit_scale.factor * (
        texts @ vector_of(encoder, read(path), Limits())
    )  # (labels,)
    shares = np.exp(logits - logits.max())
    found: list[float] = (shares / shares.sum()).tolist()
    return found


def _file(what: str) -> Path | None:
    """The image file that is meant; None for words, BadParameter for a file that is none."""
    path = Path(what)
    if os.path.isfile(path):  # noqa: PTH113  (False, too, for what can name no file)
        return path
    if _LIKE_A_FILE.search(what):
        raise typer.BadParameter(
            f"{shown(path)!r} looks like a file, and there is none of this name: give words, or "
            "an image file that is there."
        )
    return None


def _told(hit: VectorHit, items: list[int]) -> str:
    frame = f", frame {hit.view.frame}" if hit.view.frame else ""
    numbers = ", ".join(map(str, items)) or "none any more"
    return f"{hit.similarity:.3f}  {hit.digest}{frame}  items {numbers}"


def served_encoder() -> "Encoder":
    """The encoder that the settings name."""
    return query_encoder.load(Settings.load())
