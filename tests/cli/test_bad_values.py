"""Every command with bad values for each of its parameters: refused in a sentence, no traceback."""

import io
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.models import ArgumentInfo

from filter_service.cli import run
from filter_service.db import query_encoder
from filter_service.db.session import Sessions
from filter_service.db.tables import Batch
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder, load_encoder
from filter_service.ledger.notes import SigningKey
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from tasks.__main__ import CeleryQueue
from tests.support.commands import Command, Parameter, registered
from tests.support.explained_items import Pictured, coloured, stored
from tests.support.served import environment, write_model

HUGE = "1" + "0" * 22  # 23 digits
NO_NUMBERS = ("-1", HUGE, "one")
ODD_TEXTS = ("", "\udcff", "x" * 2_000, "é\u202e[/x]%s{}")
CLOSED = {"verdict", "role", "form", "by", "decision", "flags", "outcome", "part", "method"}


KEY = SigningKey.new("log.example").vkey
COMMANDS = [c for c in registered() if c.parameters]


@dataclass(frozen=True)
class World:
    """A folder with files of all sorts, and a service with three items."""

    folder: Path
    batch: uuid.UUID

    def sound(self, parameter: Parameter) -> str:
        """A value of a required parameter that is fine."""
        known = {
            "flags": "keep",
            "role": "auditor",
            "days": "30",
            "item": "1",
            "out": str(self.folder / "out"),
            "images": str(SAMPLES / "000.jpg"),
            "paths": str(SAMPLES / "000.jpg"),
        }
        kinds = {
            int: "1",
            uuid.UUID: str(self.batch),
            Path: str(self.folder / "policy.yaml"),
            str: "x",
        }
        return known.get(parameter.name) or kinds[parameter.kind]

    def bad_paths(self) -> list[str]:
        names = ("none/there", ".", "binary", "deep", "\udcff", "x" * 300)
        return [*(str(self.folder / name) for name in names)]

    def bad(self, command: Command, parameter: Parameter) -> Iterator[str]:
        kind = str(parameter.kind)
        if parameter.info.min is not None or "int" in kind:
            yield from NO_NUMBERS
        elif "Path" in kind:
            yield from self.bad_paths()
        elif command.path == ("serve",):
            yield from ("", "no such host", "x" * 300, "\udcff")
        else:
            yield from ODD_TEXTS
            if parameter.name in {"what", "item"}:
                yield from (*NO_NUMBERS, *self.bad_paths())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def encoder(model: str) -> Encoder:
    return load_encoder(model, device="cpu", precision="float32")


@pytest.fixture
def world(
    model: str,
    encoder: Encoder,
    database_url: str,
    broker_url: str,
    sessions: Sessions,
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> World:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        broker_url=broker_url,
        storage_url=(tmp_path / "images").as_uri(),
        device="cpu",
        model=model,
    )
    monkeypatch.chdir(tmp_path)  # what is written goes nowhere else
    for name, value in environment(settings).items():
        if name.startswith("FILTER_SERVICE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(query_encoder, "load", lambda settings: encoder)  # once is enough
    stored(
        sessions,
        storage,
        Pictured(coloured()),
        Pictured(coloured((1, 2, 3)), verdict=Verdict.CLEAR),
        Pictured(None, verdict=Verdict.UNDETERMINED, reason="gone"),
    )
    (tmp_path / "policy.yaml").write_bytes(POLICY.read_bytes())
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "deep").write_text("[" * 100_000)
    with sessions.begin() as session:
        batch = session.scalars(select(Batch.id)).one()
    return World(tmp_path, batch)


BESIDE: dict[tuple[str, ...], list[str]] = {  # what a command needs to come as far as the value
    ("user", "add"): ["--generate"],
    ("user", "password"): ["--generate"],
    ("audit", "check"): [f"--key={KEY}"],
}


@dataclass(frozen=True)
class Answer:
    """How a command ended: its exit code, all that it printed, and a foreign error if one rose."""

    code: int
    printed: str
    error: Exception | None = None

    def fault(self, refuse: bool) -> str | None:
        """What is wrong with it, if anything is."""
        if self.error is not None:
            return f"a traceback ends in {type(self.error).__name__}: {str(self.error)[:200]}"
        if self.code and not self.printed.strip():
            return "it says nothing"
        return f"it is not refused but {self.printed[:200]}" if refuse and self.code != 2 else None


def line(world: World, command: Command, bad: Parameter, value: str) -> list[str]:
    """The command with one bad value, and sound ones for whatever else it needs."""
    options = list(BESIDE.get(command.path, []))
    arguments: list[str] = []
    if command.path == ("audit", "replay") and bad.name not in {"item", "sample"}:
        options.append("--all")
    for parameter in command.parameters:
        if parameter is bad or parameter.required:
            given = value if parameter is bad else world.sound(parameter)
            words = parameter.words(given)
            (arguments if isinstance(parameter.info, ArgumentInfo) else options).extend(words)
    return ["filter-service", *command.path, *options, "--", *arguments]


def must_be_refused(parameter: Parameter, value: str) -> bool:
    """What can be right for nobody, as far as the type tells."""
    kind = str(parameter.kind)
    if parameter.kind is str or parameter.kind == str | None:
        return parameter.name in CLOSED and bool(value.strip())
    if "Path" in kind or "str" in kind:
        return False
    return not (parameter.name == "priority" and value == "-1")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: " ".join(c.path))
def test_no_bad_value_ends_in_a_traceback(
    command: Command,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer(words: list[str]) -> Answer:
        monkeypatch.setattr("sys.argv", words)
        monkeypatch.setattr("sys.stdin", io.StringIO())
        try:
            run(CeleryQueue())
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
            return Answer(code, "".join(capsys.readouterr()))
        except Exception as error:
            return Answer(1, "".join(capsys.readouterr()), error)
        return Answer(0, "".join(capsys.readouterr()))

    faults = {}
    for parameter in (p for p in command.parameters if p.kind is not bool):
        for value in world.bad(command, parameter):
            got = answer(line(world, command, parameter, value))
            if wrong := got.fault(must_be_refused(parameter, value)):
                faults[f"{parameter.name}={value[:40]!r}"] = wrong
    assert not faults, "\n".join(f"{name}: {wrong}" for name, wrong in faults.items())
