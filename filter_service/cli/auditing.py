"""Commands of the auditor: check the ledger, prove, replay."""

import typer

audits = typer.Typer(help="Check the record of what was decided.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(audits, name="audit")
