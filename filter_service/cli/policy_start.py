"""The command that finds a policy's first thresholds from one's own pictures, without labels."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.progress import track

from filter_service.audit.replay.sampling import share_of
from filter_service.calibration.picture_stream import PictureStream
from filter_service.calibration.starting_document import StartingConditions, starting_document
from filter_service.calibration.starting_policy import LOOK_ALIKES, StartingPolicy, starting_policy
from filter_service.calibration.starting_thresholds import fewest_pictures
from filter_service.cli.batches import below
from filter_service.cli.context import Workplace, workplace
from filter_service.cli.parameters import share_a_day, shown
from filter_service.db import query_encoder
from filter_service.db.batch_vectors import batch_vectors
from filter_service.db.embeddings import register_encoder
from filter_service.errors import ImageError
from filter_service.images import Limits, digest, read
from filter_service.policy import Policy, read_policy
from filter_service.policy.strict import Text
from filter_service.rollout.soundness import few_neutral
from filter_service.settings import Settings

if TYPE_CHECKING:
    from filter_service.encoder import Encoder
    from filter_service.scoring import FloatArray

MOST = 20_000  # pictures of a batch
MOST_LOOK_ALIKES = 20
_PHRASE: TypeAdapter[str] = TypeAdapter(Text)


def start(  # noqa: PLR0913, PLR0917  (an option is a parameter)
    context: typer.Context,
    policy: Annotated[Path, typer.Option(help="Policy file (YAML) to start from.")],
    folder: Annotated[Path | None, typer.Argument(help="A folder of your own pictures.")] = None,
    batch: Annotated[
        uuid.UUID | None, typer.Option(help="Instead: a judged batch, from its kept vectors.")
    ] = None,
    share: Annotated[
        str | None, typer.Option(help="Of the stream, above each class's threshold; 1% if unsaid.")
    ] = None,
    per_day: Annotated[
        float | None, typer.Option(help="Instead: so many pictures a day above each threshold.")
    ] = None,
    images_a_day: Annotated[
        float | None, typer.Option(help="With --per-day: how many pictures come in a day.")
    ] = None,
    look_alikes: Annotated[
        int, typer.Option(min=0, max=MOST_LOOK_ALIKES, help="Proposed for a class, at most.")
    ] = LOOK_ALIKES,
    phrases: Annotated[
        Path | None, typer.Option(help="Harmless phrases, one a line, instead of the bank's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the policy to this new file.")] = None,
) -> None:
    """First thresholds without labels: each where 1% of your own pictures lies above it.

    Prints a policy file; nothing is stored or activated. Such a threshold is a queue, not a
    probability. Look-alikes are proposed for what your highest-scoring pictures fit better than
    the class's prompts: read them before you use them. From 200 different pictures on.
    """
    wanted = _share(share, per_day, images_a_day)
    fewest_pictures(wanted)
    if (folder is None) == (batch is None):
        raise typer.BadParameter("Give a folder of pictures or a --batch, one of the two.")
    if out is not None and out.exists():
        raise typer.BadParameter(f"There is a file {shown(out)!r} already: give a new name.")
    asked, bank = read_policy(policy), _bank(phrases)
    for said in dict.fromkeys(r for i in range(len(asked.classes)) for r in few_neutral(asked, i)):
        _warn(f"{shown(policy)}: {said.sentence}")
    if folder is not None:
        encoder, seen = _of_folder(folder, asked)
    else:
        assert batch is not None
        with workplace(context.obj) as place:
            encoder, seen = _of_batch(place, batch)
    if bank is None:
        from filter_service.encoder import phrases as bank_phrases  # torch

        bank = bank_phrases()
    encoder.require_own(asked)
    found = starting_policy(
        asked,
        PictureStream.of(seen.vectors),
        wanted,
        encoder.logit_scale,
        encoder.encode_texts,
        bank,
        look_alikes,
    )
    _explain(asked, found, look_alikes)
    conditions = StartingConditions(
        seen.source, encoder.name, encoder.fingerprint, datetime.now(UTC).date()
    )
    text = starting_document(found, conditions)
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
        typer.echo(f"{shown(out)}: {len(found.classes)} thresholds from {found.pictures} pictures")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Where pictures came from, and an encoder's vectors of each."""

    source: str
    vectors: "list[FloatArray]"  # (views, d) each


def _share(share: str | None, per_day: float | None, images_a_day: float | None) -> float:
    """What part of the stream is to lie above; BadParameter for what is none, or said twice."""
    if share is not None and per_day is not None:
        raise typer.BadParameter("Give --share or --per-day, one of the two.")
    daily = share_a_day(per_day, images_a_day)
    return share_of("1%" if share is None else share) if daily is None else daily


def _bank(file: Path | None) -> list[str] | None:
    """Somebody's own phrases, each once; None where the bank's are meant."""
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"{shown(file)!r} is no UTF-8 text ({error.reason}).") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(_PHRASE.validate_python(line))
        except ValidationError as error:
            said = error.errors()[0]["msg"]
            raise typer.BadParameter(f"{shown(file)}:{number}: {said}.") from error
    return list(dict.fromkeys(found))


def _of_folder(folder: Path, policy: Policy) -> "tuple[Encoder, _Seen]":
    """Every picture of a folder, each once; those that cannot be read are named."""
    from filter_service.encoder.image_vectors import image_vectors  # torch

    if not folder.is_dir():
        raise typer.BadParameter(f"There is no folder {shown(folder)!r}.")
    settings = Settings.load()
    limits = Limits.of(settings)
    files = list(_different(below(folder), limits))
    encoder = query_encoder.load(settings)
    looked = image_vectors(
        [partial(read, file, limits) for file in files],
        encoder,
        limits,
        policy.coverage or settings.coverage,
    )
    vectors = []
    progress = track(
        zip(files, looked, strict=True),
        "Looking at the pictures",
        total=len(files),
        console=Console(stderr=True),
        transient=True,
    )
    for file, found in progress:
        if isinstance(found, ImageError):
            _warn(f"{shown(file)}: {found}")
        else:
            vectors.append(found)
    return encoder, _Seen(f"the folder {shown(folder)}", vectors)


def _different(files: Sequence[Path], limits: Limits) -> Iterator[Path]:
    """Each picture once, whatever its names; of what cannot be read every file."""
    known = set()
    for file in files:
        try:
            name = digest(read(file, limits))
        except ImageError:
            name = shown(file)
        if name not in known:
            known.add(name)
            yield file


def _of_batch(place: Workplace, batch: uuid.UUID) -> "tuple[Encoder, _Seen]":
    """The images of a batch by the vectors that this encoder left of them."""
    encoder = query_encoder.load(place.settings)
    with place.sessions.begin() as session:
        about = encoder.fingerprint, encoder.name, encoder.dim, encoder.details
        found = batch_vectors(session, register_encoder(session, *about), batch, MOST)
    source = f"batch {batch}"
    if found.asked < found.images:
        source += f", drawn at random from {found.images}"
    if missing := found.asked - len(found.vectors):
        _warn(
            f"{missing} of {found.asked} pictures of the batch are left out: {encoder.name} has "
            "not seen them, or must keep nothing of them"
        )
    return encoder, _Seen(source, found.vectors)


def _explain(asked: Policy, found: StartingPolicy, most: int) -> None:
    """What the file does not do, and why."""
    for c, started in zip(asked.classes, found.classes, strict=True):
        for name in started.dropped:
            _warn(f"{c.name}: its {name} was for margins without these look-alikes; left out")
        if c.sealed is not None and most:
            _warn(f"{c.name} is restricted: no look-alikes are sought among its pictures")


def _warn(sentence: str) -> None:
    typer.echo(f"Warning: {sentence.removesuffix('.')}.", err=True)
