"""Commands that ask a model: classify, search, policy."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from filter_service.cli.place import workplace
from filter_service.cli.queueing import Json

if TYPE_CHECKING:
    from filter_service.encoder import Encoder

policies = typer.Typer(help="Policies and their versions.", no_args_is_help=True)


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Annotated[str, typer.Option(help='Comma-separated: "a dog,a knife".')],
    json_: Json = False,
) -> None:
    """Zero-shot: which of these labels fits each image best? No policy, no database."""
    import numpy as np

    from filter_service.images import Limits, read
    from filter_service.seeking import vector_of

    encoder = served_encoder()
    names = [label.strip() for label in labels.split(",") if label.strip()]
    texts = encoder.encode_texts(names)  # (labels, d)
    for path in images:
        logits = encoder.head.scale * (
            texts @ vector_of(encoder, read(path), Limits())
        )  # (labels,)
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        ranked = sorted(zip(names, shares.tolist(), strict=True), key=lambda pair: -pair[1])
        if json_:
            typer.echo(json.dumps({"file": str(path), "labels": dict(ranked)}))
        else:
            typer.echo(f"{path}: " + ", ".join(f"{name} {p:.1%}" for name, p in ranked))


def search(
    context: typer.Context,
    what: Annotated[str, typer.Argument(help="Words, or an image file.")],
    limit: Annotated[int, typer.Option(help="At most so many.")] = 10,
    json_: Json = False,
) -> None:
    """The stored images nearest to a text or to an image."""
    from filter_service.db.vectors import StoredMemory
    from filter_service.images import read
    from filter_service.seeking import EncoderSeeker

    file = Path(what)
    with workplace(context.obj) as place:
        seeker = EncoderSeeker(place.settings, place.sessions)
        sought = seeker.image(read(file)) if file.is_file() else seeker.text(what)
        dim = len(sought.vector)
        memory = StoredMemory(place.sessions, sought.encoder_id, dim, sought.scale)
        hits = memory.search(sought.vector, limit)
    for hit in hits:
        row: dict[str, Any] = {"digest": hit.digest, "similarity": hit.similarity}
        typer.echo(json.dumps(row) if json_ else f"{hit.similarity:.3f}  {hit.digest}")


@policies.command()
def check(file: Annotated[Path, typer.Argument(help="Policy file (YAML).")]) -> None:
    """Say whether a policy file is sound, or name file, line and field of every fault."""
    from filter_service.policy import read_policy

    policy = read_policy(file)
    typer.echo(f"{policy.name}: {len(policy.classes)} classes, digest {policy.digest}")


@policies.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors."""
    from filter_service.policy import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


def add_to(app: typer.Typer) -> None:
    for command in (classify, search):
        app.command()(command)
    app.add_typer(policies, name="policy")


def served_encoder() -> "Encoder":
    """The encoder that the settings name."""
    from filter_service.seeking import load
    from filter_service.settings import Settings

    return load(Settings.load())
