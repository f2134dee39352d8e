"""Commands that verify, prove, export and seal the ledger, and manage its keys."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import select

from filter_service.audit.record.record_file import proofs_in
from filter_service.cli.batches import Json
from filter_service.cli.context import workplace
from filter_service.cli.parameters import ItemId
from filter_service.cli.verification_output import progress, show
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredSigner
from filter_service.errors import InvalidRequest
from filter_service.ledger import proofs, publication, signers
from filter_service.ledger.checkpoints import Checkpoint
from filter_service.ledger.export import write_export
from filter_service.ledger.notes import VerifyingKey
from filter_service.ledger.proofs import opened_with
from filter_service.ledger.verification import verify, verify_export
from filter_service.storage.durable import written

Keys = Annotated[
    list[str],
    typer.Option("--key", help="A key of the log that you know from elsewhere; may be repeated."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="A file with such keys, one a line.")
]


def verify_(
    context: typer.Context,
    export: Annotated[
        Path | None, typer.Option(help="Check this file instead, with no database.")
    ] = None,
    key: Keys = [],  # noqa: B006  (typer reads it)
    key_file: KeyFile = None,
    witness: Annotated[
        list[str], typer.Option(help="The key of a witness that should have co-signed.")
    ] = [],  # noqa: B006
    checkpoint: Annotated[
        list[Path],
        typer.Option(help="A file with a checkpoint that you kept; may be repeated."),
    ] = [],  # noqa: B006
    json_: Json = False,
) -> None:
    """Is everything as it was sealed? Looks at all of it and writes nothing; exits 1 if not."""
    known = _keys(key, key_file)
    with progress("Verifying", quiet=json_) as tell:
        if export is not None:
            report = verify_export(export, known, witness, tell, checkpoint)
        else:
            with workplace(context.obj) as place:
                report = verify(
                    place.sessions, place.settings.ledger_at, known, witness, tell, checkpoint
                )
    if json_:
        typer.echo(json.dumps({**asdict(report), "whole": report.whole}))
    else:
        show(report)
    if not report.whole:
        raise typer.Exit(1)


def prove(
    context: typer.Context,
    item: ItemId,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead.")] = None,
) -> None:
    """Print everything that happened to an item, with the proofs that it was sealed."""
    with workplace(context.obj) as place:
        document = proofs.prove(place.sessions, item)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if out is None:
        typer.echo(text)
    else:
        out.write_text(f"{text}\n", encoding="utf-8")
        typer.echo(f"{len(document['entries'])} entries of item {item} are proven in {out}")
    if waiting := document["waiting"]:
        typer.echo(
            f"{len(waiting)} more are not sealed yet, and not proven: ask again in a minute, or "
            "run `filter-service audit seal`.",
            err=True,
        )


def check(
    file: Annotated[Path, typer.Argument(help="What `audit prove` or `audit record` wrote.")],
    key: Keys = [],  # noqa: B006  (typer reads it)
    key_file: KeyFile = None,
) -> None:
    """Check the proofs in a file, with a key and no database; exits 1 if one does not hold."""
    known = _keys(key, key_file)
    if not known:
        raise InvalidRequest(
            "A proof is worth as much as the key: give --key or --key-file; whoever runs the log "
            "prints it with `filter-service audit key`."
        )
    try:
        text = file.read_text(encoding="utf-8")
        document = json.loads(proofs_in(text) if text.startswith("<") else text)
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{file} cannot be read ({error}): give what `filter-service audit prove` wrote."
        ) from error
    found = proofs.check_proof(document, known)
    typer.echo(
        f"{found.entries} entries of item {found.item} are in the tree of {found.checkpoint.size:,}"
        f" entries that {', '.join(found.signers)} signed."
    )
    if found.hidden:
        typer.echo(
            f"{found.hidden} are without payload, which was erased or left out of this file."
        )
    if found.waiting:
        typer.echo(f"{found.waiting} more were not sealed when this was made: nothing proves them.")
    typer.echo(
        "Not proven: that these are all its entries, and what a record shows beside its proofs; "
        "`filter-service audit verify` and a record made anew tell."
    )


def consistency(
    context: typer.Context,
    old: Annotated[str, typer.Argument(help="A size, or a file with a checkpoint that you kept.")],
    new: Annotated[str, typer.Argument(help="Likewise, the newer one.")],
    key: Keys = [],  # noqa: B006  (typer reads it)
    key_file: KeyFile = None,
) -> None:
    """Prove that the newer tree only added to the older one: nothing before was rewritten."""
    known = _keys(key, key_file)
    with workplace(context.obj) as place:
        if not known:
            known = _named_keys(place.sessions)
            typer.echo(
                "The key is the one that the database names; give yours with --key.", err=True
            )
        older, newer = (_checkpoint(given, known) for given in (old, new))
        found = proofs.consistency(place.sessions, older, newer, known)
    typer.echo(
        f"The tree of {found.new.size:,} entries only added to the one of {found.old.size:,}."
    )
    for side in (found.old, found.new):
        typer.echo(f"root {side.size} {b64encode(side.root).decode()}")
    for hashed in found.proof:
        typer.echo(f"proof {b64encode(hashed).decode()}")


def export_(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="To write to.")]
) -> None:
    """Write the whole ledger to a file that `audit verify --export` checks anywhere."""
    with workplace(context.obj) as place, progress("Exporting") as tell, written(file) as out:
        count = write_export(place.sessions, out, tell)
    typer.echo(f"{count:,} entries are in {file}; `filter-service audit verify --export` checks it")


def seal(context: typer.Context) -> None:
    """Seal and publish what waits, now."""
    sealed = 0
    with workplace(context.obj) as place:
        published = publication.publish(place.sessions, place.settings.ledger_at)
        while publication.seal_next(place.sessions, place.settings):
            sealed += 1
            published += publication.publish(place.sessions, place.settings.ledger_at)
    typer.echo(
        f"{sealed} checkpoints were signed, {published} published at {place.settings.ledger_at}"
    )


def key(context: typer.Context) -> None:
    """Print the keys that auditors need, the newest last."""
    with workplace(context.obj) as place:
        signers.signer_of(place.sessions, place.settings)
        for vkey in _named_keys(place.sessions):
            typer.echo(vkey)


def rotate(context: typer.Context) -> None:
    """Let a new key sign from now on; the old one signs that it may."""
    with workplace(context.obj) as place:
        signer = signers.rotate(place.sessions, place.settings)
    typer.echo(f"{signer.vkey} signs from the next checkpoint on; tell your auditors.")


def _keys(given: Sequence[str], file: Path | None) -> list[str]:
    """Keys from the command line and from a file; each is looked at before anything is done."""
    keys = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{file} cannot be read ({error}): give a key a line.") from error
        keys += [line.strip() for line in lines if line.strip()]
    return [VerifyingKey.of(vkey).vkey for vkey in keys]


def _named_keys(sessions: Sessions) -> list[str]:
    """The keys that the database names."""
    with sessions() as session:
        return list(session.scalars(select(StoredSigner.vkey).order_by(StoredSigner.id)))


def _checkpoint(given: str, keys: Sequence[str]) -> int | Checkpoint:
    """A size, or the checkpoint in a file, which one of the keys signed."""
    if given.isdecimal() and len(given) < 19:  # no tree has more leaves than a bigint counts
        return int(given)
    try:
        note = Path(given).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f"{given!r} is neither a size nor a file with a checkpoint ({error})."
        ) from error
    return opened_with(keys, note)[0]
