"""Commands that ask a model: classify, search, policy."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from filter_service.cli.place import workplace
from filter_service.cli.queueing import Json

if TYPE_CHECKING:
    from filter_service.encoder import Encoder
    from filter_service.scoring import FloatArray

policies = typer.Typer(help="Check policy files.", no_args_is_help=True)


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    labels: Annotated[str, typer.Option(help='Comma-separated: "a dog,a knife".')],
    json_: Json = False,
) -> None:
    """Zero-shot: which of these labels fits each image best? No policy, no database."""
    import numpy as np

    encoder = served_encoder()
    names = [label.strip() for label in labels.split(",") if label.strip()]
    texts = encoder.encode_texts(names)  # (labels, d)
    for path in images:
        logits = encoder.head.scale * (texts @ _vector(encoder, path))  # (labels,)
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
    from filter_service.db.embeddings import register_encoder
    from filter_service.db.vectors import StoredMemory

    encoder = served_encoder()
    z = _vector(encoder, Path(what)) if Path(what).is_file() else encoder.encode_texts([what])[0]
    with workplace(context.obj) as place:
        with place.sessions.begin() as session:
            known = register_encoder(
                session, encoder.fingerprint, encoder.name, encoder.dim, encoder.details
            )
        memory = StoredMemory(place.sessions, known, encoder.dim, encoder.head.scale)
        hits = memory.search(z, limit)
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
    from filter_service.encoder import load_encoder  # torch: only where a model is asked
    from filter_service.settings import Settings

    s = Settings.load()
    return load_encoder(s.model, s.pretrained, s.device, s.precision)


def _vector(encoder: "Encoder", path: Path) -> "FloatArray":
    """The first frame's vector: (d,)."""
    import torch

    from filter_service.images import decode, read

    pixels = encoder.pixels(decode(read(path)).frames[0])  # (3, h, w)
    vector: FloatArray = encoder.encode(torch.stack([pixels]))[0]
    return vector
