"""`filter-service doctor`: diagnoses the installation, and says how to mend it."""

import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import text

from filter_service.cli.batches import Json
from filter_service.cli.context import Queue
from filter_service.db.schema import require_current, upgrade
from filter_service.db.session import connect, sessions_of
from filter_service.errors import FilterServiceError
from filter_service.images import digest
from filter_service.local import Services, services
from filter_service.rollout.drift_alarms import watches
from filter_service.settings import Settings
from filter_service.storage import Storage

ROOM = 2.0  # GB that a data folder should have left
PACKAGES = ("torch", "open_clip_torch", "sqlalchemy", "psycopg", "pgvector", "celery", "pillow")


class CheckState(StrEnum):
    """How it stands with one part."""

    OK = "ok"
    DOUBTFUL = "doubtful"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One part of the set-up: what was found, or what is wrong and how to mend it."""

    part: str
    state: CheckState
    said: str


@dataclass(frozen=True)
class Patient:
    """What checks share: the job queue, and what earlier checks have found."""

    queue: Queue
    settings: Settings
    found: Services


def doctor(context: typer.Context, json_: Json = False) -> None:
    """Check every part of the set-up; exit code 1 when something is wrong."""
    findings = list(examine(context.obj))
    if json_:
        typer.echo(json.dumps([asdict(f) for f in findings]))
    else:
        _print(findings)
    if any(f.state is CheckState.WRONG for f in findings):
        raise typer.Exit(1)


def examine(queue: Queue) -> Iterator[Finding]:
    """One finding after the other; a part that fails does not keep the others from being checked.

    Embedded services are started for as long as it takes, if nobody runs them.
    """
    yield _attempt("packages", _packages)
    try:
        settings = Settings.load()
    except FilterServiceError as error:
        yield Finding("settings", CheckState.WRONG, str(error))
        return
    yield Finding("settings", CheckState.OK, "every FILTER_SERVICE_ variable can be read")
    yield _attempt("data folder", lambda: _data_folder(settings))
    yield _attempt("images", lambda: _images(settings))
    yield _attempt("model", lambda: _model(settings))
    with ExitStack() as stack:
        try:
            found = stack.enter_context(services(settings))
        except FilterServiceError as error:
            yield Finding("services", CheckState.WRONG, str(error))
            return
        patient = Patient(queue, settings, found)
        database = _attempt("database", lambda: _database(patient))
        yield database
        if database.state is CheckState.OK:
            yield _attempt("drift", lambda: _drift(patient))
        yield _attempt("broker", lambda: _broker(patient))


def _attempt(part: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding under its name; whatever it raises is a finding, too."""
    try:
        return replace(check(), part=part)
    except FilterServiceError as error:
        return Finding(part, CheckState.WRONG, str(error))
    except Exception as error:  # a check that crashes is the worst answer of all
        return Finding(part, CheckState.WRONG, f"{type(error).__name__}: {error}")


def _fine(said: str) -> Finding:
    return Finding("", CheckState.OK, said)


def _packages() -> Finding:
    versions = [f"{p} {importlib.metadata.version(p)}" for p in PACKAGES]
    return _fine(f"Python {platform.python_version()}, {', '.join(versions)}")


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data_dir.expanduser().absolute()
    above = next(p for p in (folder, *folder.parents) if p.exists())
    if not os.access(above, os.W_OK):
        said = f"{above} cannot be written: set FILTER_SERVICE_DATA_DIR to a folder of yours"
        return Finding("", CheckState.WRONG, said)
    free = shutil.disk_usage(above).free / 1e9
    if free < ROOM:
        said = f"only {free:.1f} GB are free at {above}: make room, or move the data folder"
        return Finding("", CheckState.DOUBTFUL, said)
    return _fine(f"{folder}, {free:.0f} GB free")


def _images(settings: Settings) -> Finding:

    data = os.urandom(64)
    storage, name = Storage(settings.images_at), digest(data)
    storage.put(name, data)
    same = storage.get(name) == data
    storage.delete(name)
    if not same:
        said = f"{settings.images_at} gives other bytes back than it was given: use another store"
        return Finding("", CheckState.WRONG, said)
    return _fine(f"{settings.images_at} keeps, returns and deletes bytes")


def _model(settings: Settings) -> Finding:
    from filter_service.encoder import encoder_of  # torch: only where a model is asked
    from filter_service.explain.relevance import explainer_of

    encoder = encoder_of(settings)
    prepared = encoder.details["preprocessing"]
    said = (
        f"{encoder.name} on {encoder.device}, screening in {encoder.precision}, "
        f"fingerprint {encoder.fingerprint[:12]}, images prepared by {prepared['resize_mode']} and "
        f"{prepared['interpolation']}"
    )
    explainer = explainer_of(encoder)
    if settings.model == "bundled":
        said += "; it knows pictograms, for photographs set FILTER_SERVICE_MODEL"
    return _fine(f"{said}; maps by {explainer.method}")


def _database(patient: Patient) -> Finding:

    if patient.settings.database_url is None:
        upgrade(patient.found.database_url)  # the embedded one is looked after by every command
    engine = connect(patient.found.database_url, role=None)
    try:
        with engine.connect() as connection:
            version = connection.execute(text("SHOW server_version")).scalar_one()
            query = text("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
            vector = connection.execute(query).scalar()
        require_current(engine)
    finally:
        engine.dispose()
    where = "embedded" if patient.settings.database_url is None else "named in the settings"
    return _fine(f"{where}, Postgres {version} with pgvector {vector}, tables at this version")


def _drift(patient: Patient) -> Finding:
    engine = connect(patient.found.database_url)
    try:
        found = watches(sessions_of(engine))
    finally:
        engine.dispose()
    if drifted := [w.alarm.sentence for w in found if w.alarm is not None]:
        said = " ".join([*drifted, "The page Accuracy says what to do."])
        return Finding("", CheckState.DOUBTFUL, said)
    if not found:
        return _fine("nothing is watched yet: it takes 1,000 judged images to compare with")
    return _fine(f"{len(found)} classes are watched, and none has drifted")


def _broker(patient: Patient) -> Finding:
    workers = patient.queue.workers(patient.found.broker_url)
    where = "embedded" if patient.settings.broker_url is None else "named in the settings"
    if not workers:
        said = (
            f"{where}, it answers, but no worker does: what is submitted waits until "
            "`filter-service up` or `filter-service worker` runs"
        )
        return Finding("", CheckState.DOUBTFUL, said)
    return _fine(f"{where}, {workers} worker{'s' * (workers > 1)} at work")


def _print(findings: list[Finding]) -> None:

    colours = {CheckState.OK: "green", CheckState.DOUBTFUL: "yellow", CheckState.WRONG: "bold red"}
    table = Table(show_header=False, box=None, pad_edge=False)
    for f in findings:
        table.add_row(f.part, Text(f.state, style=colours[f.state]), Text(f.said))
    Console().print(table)
