"""The command that serves the console and the HTTP interface."""

import socket
from contextlib import suppress
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from filter_service.cli.context import Workplace, lasting
from filter_service.db.query_encoder import LazyQueryEncoder
from filter_service.errors import InvalidRequest
from filter_service.web.app import create_app
from filter_service.web.http.service import Service

GRACE = 20  # seconds for requests at hand when it is asked to stop


def serve(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Where to listen; FILTER_SERVICE_WEB_HOST unless told.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Likewise; 0 is any that is free."),
    ] = None,
) -> None:
    """The moderators' console and the platform's HTTP interface, until it is interrupted."""
    with suppress(KeyboardInterrupt), lasting(context.obj) as place:
        config = uvicorn.Config(
            web_app(place),
            host=_of_this_machine(place.settings.web_host if host is None else host),
            port=place.settings.web_port if port is None else port,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=GRACE,
        )
        listening = config.bind_socket()
        address, number = listening.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        typer.echo(f"Serving http://{shown}:{number}/; Ctrl-C stops it.")
        uvicorn.Server(config).run(sockets=[listening])  # repeats the signal that stopped it
    typer.echo("Stopped.")


def _of_this_machine(host: str) -> str:
    """The host, if one can listen there; InvalidRequest otherwise."""
    try:
        if not host.strip():
            raise OSError("it is empty")
        socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidRequest(
            f"{host[:80]!r} is no address of this machine ({error}): give one such as 127.0.0.1, "
            "or 0.0.0.0 for all."
        ) from error
    return host


def web_app(place: Workplace) -> FastAPI:
    """The pages and the interface over an open database and image store."""
    seeker = LazyQueryEncoder(place.settings, place.sessions)
    service = Service(place.settings, place.sessions, place.storage, place.notify_workers, seeker)
    return create_app(service)
