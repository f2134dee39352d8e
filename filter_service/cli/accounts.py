"""Commands for user accounts, API keys and clients."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from filter_service import accounts
from filter_service.accounts import Role, passwords
from filter_service.accounts import clients as platforms
from filter_service.cli.context import workplace
from filter_service.cli.parameters import LARGEST_SMALL_ID
from filter_service.cli.plain_cells import cells

Login = Annotated[str, typer.Argument(help="The name that somebody signs in with.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
FromStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Generate = Annotated[
    bool, typer.Option("--generate", help="Make a password and print it, this once.")
]
ACTOR = "service"  # whoever can run commands on the machine is the service itself
ROWS = 500  # asked for at once


def add_user(  # noqa: PLR0913  (each is an option)
    context: typer.Context,
    login: Login,
    *,
    role: Annotated[str, typer.Option(help="admin, policy_editor, moderator, senior or auditor.")],
    name: Annotated[str, typer.Option(help="As people call them.")] = "",
    classes: Annotated[
        str, typer.Option(help="Only these classes, with commas between; empty: all.")
    ] = "",
    cap: Annotated[
        int | None,
        typer.Option(
            min=0, max=LARGEST_SMALL_ID, help="Unblurred images a day; else as the settings say."
        ),
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Who this is at the identity provider.")
    ] = None,
    password_stdin: FromStdin = False,
    generate: Generate = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Signs in at the identity provider only.")
    ] = False,
) -> None:
    """Add somebody who works here; asks for their password unless told where it comes from."""
    names = tuple(n.strip() for n in classes.split(",") if n.strip())
    profile = accounts.Profile(_role(role), name, names or None, cap, subject)
    password = None if no_password else _password(password_stdin, generate)
    with workplace(context.obj) as place:
        added = accounts.add_person(place.sessions, login, profile, password, ACTOR)
    typer.echo(f"{added.login} is {added.role}", err=generate)
    if generate:
        typer.echo(password)


def list_users(context: typer.Context, json_: Json = False) -> None:
    """List everybody, disabled people too, by log-in name."""
    rows: list[dict[str, Any]] = []
    with workplace(context.obj) as place:
        last = ""
        while found := accounts.everybody(place.sessions, last, ROWS):
            last = found[-1].login
            rows += (
                {
                    "login": p.login,
                    "name": p.name,
                    "role": p.role,
                    "classes": p.classes,
                    "cap": p.reveal_cap,
                    "subject": p.subject,
                    "created": p.created_at.isoformat(),
                    "disabled": p.disabled_at.isoformat() if p.disabled_at else None,
                }
                for p in found
            )
    print_rows(rows, json_)


def disable_user(context: typer.Context, login: Login) -> None:
    """Let somebody in no more, and end their open sessions."""
    with workplace(context.obj) as place:
        accounts.disable_person(place.sessions, login, ACTOR)
    typer.echo(f"{login} is disabled")


def enable_user(context: typer.Context, login: Login) -> None:
    """Let somebody in again who was disabled."""
    with workplace(context.obj) as place:
        accounts.enable_person(place.sessions, login, ACTOR)
    typer.echo(f"{login} is enabled")


def change_password(
    context: typer.Context,
    login: Login,
    password_stdin: FromStdin = False,
    generate: Generate = False,
) -> None:
    """Give somebody another password, and end their open sessions."""
    password = _password(password_stdin, generate)
    with workplace(context.obj) as place:
        accounts.set_password(place.sessions, login, password, ACTOR)
    typer.echo(f"{login} has a new password", err=generate)
    if generate:
        typer.echo(password)


def add_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="By which the ledger calls the platform.")],
    client: Annotated[
        str | None,
        typer.Option(help="Whose it is; else the client that is called like the key, new or not."),
    ] = None,
    all_clients: Annotated[
        bool, typer.Option("--all-clients", help="One of your own: it sees every client.")
    ] = False,
    policies: Annotated[
        bool, typer.Option("--policies", help="It proposes and activates policies, too.")
    ] = False,
) -> None:
    """Make a key and print it, this once."""
    with workplace(context.obj) as place:
        secret = accounts.add_key(
            place.sessions, name, ACTOR, client, all_clients=all_clients, policies=policies
        )
    typer.echo(secret)


def list_keys(context: typer.Context, json_: Json = False) -> None:
    """List the keys, revoked ones too, in the order in which they were made."""
    rows: list[dict[str, Any]] = []
    with workplace(context.obj) as place:
        last = 0
        while found := accounts.keys(place.sessions, last, ROWS):
            last = found[-1][0].id
            rows += (
                {
                    "id": k.id,
                    "name": k.name,
                    "client": client,
                    "sees": "every client" if k.all_clients else "its own",
                    "starts with": k.prefix,
                    "created": k.created_at.isoformat(),
                    "by": k.created_by,
                    "revoked": k.revoked_at.isoformat() if k.revoked_at else None,
                }
                for k, client in found
            )
    print_rows(rows, json_)


def revoke_key(
    context: typer.Context,
    key: Annotated[
        int, typer.Argument(min=1, max=LARGEST_SMALL_ID, help="The id that `key list` shows.")
    ],
) -> None:
    """Make a key open nothing any more."""
    with workplace(context.obj) as place:
        revoked = accounts.revoke_key(place.sessions, key, ACTOR)
    typer.echo(f"{revoked.name} ({revoked.prefix}…) is revoked")


def add_client(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="By which `key add --client` knows it.")],
) -> None:
    """Make a client that has no key yet."""
    with workplace(context.obj) as place:
        added = platforms.add_client(place.sessions, name, ACTOR)
    typer.echo(f"{added.name} is a client")


def list_clients(context: typer.Context, json_: Json = False) -> None:
    """List the clients, in the order in which they were made."""
    rows: list[dict[str, Any]] = []
    with workplace(context.obj) as place:
        last = 0
        while found := platforms.clients(place.sessions, last, ROWS):
            last = found[-1].id
            rows += (
                {
                    "id": c.id,
                    "name": c.name,
                    "created": c.created_at.isoformat(),
                    "by": c.created_by,
                }
                for c in found
            )
    print_rows(rows, json_)


def _role(name: str) -> Role:

    known = [role for role in Role if role is not Role.SERVICE]
    if name not in known:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}.")
    return Role(name)


def _password(from_stdin: bool, generate: bool) -> str:
    """From one place: typed twice without echo unless told otherwise."""
    if from_stdin and generate:
        raise typer.BadParameter("Give --password-stdin or --generate, not both.")
    if generate:
        return passwords.generate()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    typed: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return typed


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """As a table, or as one line of JSON for each row."""
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif rows:
        table = Table(*rows[0])
        for row in rows:
            table.add_row(*cells(*map(_cell, row.values())))
        Console().print(table)
    else:
        typer.echo("There is none yet: add the first.", err=True)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return ", ".join(value) if isinstance(value, list) else str(value)
