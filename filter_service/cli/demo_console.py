"""The demo of the console: judges the samples, starts all processes, makes log-ins."""

import contextlib
import socket
import time
import urllib.error
import urllib.request

import typer
from sqlalchemy import select

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.accounts.passwords import generate
from filter_service.cli.batches import watched
from filter_service.cli.context import Queue, Workplace, lasting
from filter_service.cli.supervision import Parts, everything, supervised
from filter_service.db.tables import Batch
from filter_service.demo import POLICY, SAMPLES
from filter_service.errors import InvalidSettings, UnknownPerson
from filter_service.images import read
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.policy import read_policy
from filter_service.settings import Settings

LABEL = "demo"
PEOPLE = (("demo", Role.ADMIN), ("moderator", Role.MODERATOR))
PATIENCE = 60.0  # seconds for the web page to answer


def console(context: typer.Context) -> None:
    """The demo's flagged samples in the moderators' console, with everything that it needs."""
    queue: Queue = context.obj
    if Settings.load().database_url is not None:
        raise InvalidSettings(  # people whose passwords are printed are added
            "FILTER_SERVICE_DATABASE_URL is set, and the demo would add people to that database: "
            "unset it, or use `filter-service up` and `filter-service user add`."
        )
    with contextlib.suppress(KeyboardInterrupt), lasting(queue) as place:
        settings = _with_port(place.settings)
        log = settings.data_dir / "console.log"
        with supervised(everything(queue, settings, log=log), log) as parts:
            _judge_samples(place, parts)
            passwords = _people(place)
            address = f"http://{settings.web_host}:{settings.web_port}/"
            _wait_for(address, parts)
            typer.echo(f"\nThe console: {address}")
            for login, password in passwords.items():
                typer.echo(f"  sign in as {login!r} with the password {password!r}")
            typer.echo(f"Ctrl-C stops it; what happens is written to {log}.")
            parts.stay()


def _judge_samples(place: Workplace, parts: Parts) -> None:
    """Submit the samples unless they are there, and wait until they are judged."""
    known = select(Batch.id).where(
        Batch.label == LABEL, Batch.total.is_not(None), Batch.cancelled_at.is_(None)
    )
    with place.sessions.begin() as session:
        batch = session.scalar(known.order_by(Batch.submitted_at.desc()).limit(1))
    if batch is None:
        files = sorted(SAMPLES.glob("*.jpg"))
        batch = submissions.accept(
            place.sessions,
            place.storage,
            place.notify_workers,
            (Submission(f.name, read(f)) for f in files),
            read_policy(POLICY),
            label=LABEL,
        )
    watched(place, batch, parts.look)


def _people(place: Workplace) -> dict[str, str]:
    """Somebody of each role that the demo shows, each time with a new password."""
    passwords = {}
    for login, role in PEOPLE:
        password = generate()
        try:
            accounts.person_named(place.sessions, login)
            accounts.set_password(place.sessions, login, password, "service")
        except UnknownPerson:
            profile = Profile(role, f"Demo {role.value}")
            accounts.add_person(place.sessions, login, profile, password, "service")
        passwords[login] = password
    return passwords


def _with_port(settings: Settings) -> Settings:
    """The settings with a port that is free: the one they name, if it is."""
    for port in (settings.web_port, 0):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind((settings.web_host, port))
                found = trial.getsockname()[1]
                return settings.model_copy(update={"web_port": found})
    return settings


def _wait_for(address: str, parts: Parts) -> None:
    """Until the web page answers, or for a while."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{address}live", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            parts.look()
            time.sleep(0.2)
