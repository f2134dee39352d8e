"""Commands that stay: how they end, what they do when something of theirs ends, what is left."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil
import pytest

from filter_service.cli.interruption import hurried, interruptible
from filter_service.cli.supervision import supervised
from filter_service.errors import ProcessFailed
from filter_service.local import services, stop
from filter_service.local.data_folder import DataFolder
from filter_service.local.processes import at_work, brokers_at_work, until
from filter_service.settings import Settings
from tests.support.served import ROOT, environment

PATIENCE = 120.0  # seconds, on a busy machine
PARTS = {"worker": "-n", "chores": "chores@", "schedule": "beat", "web page": "serve"}


@dataclass(frozen=True)
class Running:
    """A command in a process of its own, with embedded servers."""

    process: psutil.Popen
    settings: Settings
    log: Path

    def said(self, pattern: str) -> re.Match[str] | None:
        found = list(re.finditer(pattern, self.log.read_text()))
        return found[-1] if found else None

    def part(self, name: str) -> psutil.Process | None:
        """The process that a name in messages stands for."""
        mark = PARTS[name]
        for child in self.process.children():
            words: list[str] = []
            with suppress(psutil.Error):  # it has just ended
                words = child.cmdline()
            if any(w.startswith(mark) or w.startswith(f"-n{mark}") for w in words):
                return child
        return None

    def parts(self) -> list[psutil.Process]:
        """Everything that it started and that is no server."""
        return self.process.children(recursive=True)

    def ask(self, how: signal.Signals) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(how)
        return self.process.wait(PATIENCE)


def servers(settings: Settings) -> list[psutil.Process]:
    home = DataFolder.of(settings).home
    return at_work("postgres", home / "postgres") + brokers_at_work(home / "redis")


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended: what is killed may be there a moment longer."""
    return not psutil.wait_procs(processes, timeout=10)[1]


def await_(true: Callable[[], object], log: Path) -> None:
    assert until(lambda: bool(true()), PATIENCE), log.read_text()


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """Settings of a data folder in which the servers have run before."""
    with TemporaryDirectory(prefix="filter-service-") as name:
        Path(name).chmod(0o711)  # where root runs the tests, the servers' own account must pass
        found = Settings(
            _env_file=None,
            data_dir=Path(name) / "data",
            database_url=None,
            broker_url=None,
            web_port=0,
            sweep_seconds=3600,
        )
        with services(found):
            pass
        yield found
        stop(found)


def heeding_hangups() -> None:
    """Also where the tests were started by something that ignores them, such as nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@contextmanager
def running(settings: Settings, *words: str) -> Iterator[Running]:
    log = settings.data_dir / f"{words[0]}-{time.monotonic_ns()}.out"
    with log.open("wb") as out:
        process = psutil.Popen(
            [sys.executable, "-m", "tasks", *words],
            cwd=settings.data_dir,
            env={**environment(settings), "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=heeding_hangups,
        )
    try:
        yield Running(process, settings, log)
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()
        process.wait(PATIENCE)


@pytest.fixture(scope="module")
def up(settings: Settings) -> Iterator[Running]:
    with running(settings, "up") as found:
        await_(lambda: found.said("Serving http"), found.log)
        await_(lambda: all(map(found.part, PARTS)), found.log)
        yield found


def answers(up: Running, page: str) -> bool:
    """Whether the web process, wherever it listens now, has the servers behind it."""
    address = up.said(r"Serving (http://\S+/)")
    with suppress(httpx.TransportError):
        return address is not None and httpx.get(f"{address[1]}{page}").is_success
    return False


@pytest.mark.parametrize("name", ["chores", "web page"])
def test_a_process_that_dies_is_named_and_started_again(up: Running, name: str) -> None:
    before = up.part(name)
    assert before is not None
    before.kill()
    await_(lambda: up.said(f"The {name} process ended with SIGKILL: it is started again"), up.log)
    await_(lambda: (now := up.part(name)) and now != before, up.log)


def test_servers_that_die_are_started_again(up: Running) -> None:
    before = servers(up.settings)
    for process in before:
        process.kill()
    for name in ("Postgres", "Redis"):
        await_(partial(up.said, f"embedded {name} .* started again"), up.log)
    assert not set(before) & set(servers(up.settings))
    await_(lambda: answers(up, "ready"), up.log)


def test_a_signal_to_end_leaves_nothing_behind(up: Running) -> None:
    """The last of those that share it."""
    started = up.parts()
    assert up.ask(signal.SIGTERM) == 0, up.log.read_text()
    assert gone(started)
    assert servers(up.settings) == []


@pytest.mark.parametrize(
    ("words", "last", "how", "code"),
    [
        ("worker", "worker", signal.SIGTERM, 0),
        ("chores", "chores", signal.SIGHUP, 0),
        ("console", "web page", signal.SIGTERM, 0),
        ("demo", "schedule", signal.SIGTERM, 130),
        ("serve", None, signal.SIGHUP, 0),
    ],
)
def test_every_command_that_stays_ends_so(
    settings: Settings, words: str, last: str | None, how: signal.Signals, code: int
) -> None:
    with running(settings, words) as found:
        await_(lambda: found.part(last) if last else found.said("Serving"), found.log)
        started = found.parts()
        assert found.ask(how) == code, found.log.read_text()
    assert gone(started)
    assert servers(settings) == []


def test_what_nohup_ignores_stays_ignored() -> None:
    code = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from filter_service.cli.interruption import interruptible\n"
        "with interruptible(): signal.raise_signal(signal.SIGHUP); print('still here')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"still here\n"


def process(code: str, out: Path) -> Callable[[], "subprocess.Popen[bytes]"]:
    """How to start a small process that is the first of its group, as ours are."""

    def start() -> "subprocess.Popen[bytes]":
        with out.open("ab") as file:
            command = [sys.executable, "-c", code]
            return subprocess.Popen(command, stdout=file, start_new_session=True)

    return start


def first_word(out: Path) -> int:
    """The number that the process has printed."""
    await_(lambda: out.read_text().endswith("\n"), out)
    return int(out.read_text().split()[0])


def test_a_process_that_ends_again_and_again_ends_all_and_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    starts = {
        "worker": process("import time; time.sleep(600)", out),
        "web page": process("exit(3)", out),
    }
    with (
        pytest.raises(ProcessFailed, match=r"web page process ended 3 times.*exit code 3"),
        supervised(starts) as parts,
    ):
        first = parts.running[0].process
        parts.stay()
    assert first.returncode == -signal.SIGTERM


def test_what_a_dead_process_left_behind_goes_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    with supervised({"worker": process(code, out)}) as parts:
        first = parts.running[0].process
        orphan = psutil.Process(first_word(out))
        first.kill()
        first.wait()
        parts.look()
        assert until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, 10)


def test_asked_twice_it_waits_for_nobody(tmp_path: Path) -> None:
    out = tmp_path / "out"
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    begun = time.monotonic()
    again = f"import os, time; time.sleep(1); os.kill({os.getpid()}, 15)"
    with (
        interruptible(),
        pytest.raises(KeyboardInterrupt),
        supervised({"worker": process(f"{deaf}time.sleep(600)", out)}) as parts,
    ):
        stubborn = parts.running[0].process
        first_word(out)
        asking = subprocess.Popen([sys.executable, "-c", again])
        signal.raise_signal(signal.SIGTERM)
    asking.wait()
    assert hurried.is_set()
    assert stubborn.returncode == -signal.SIGKILL
    assert time.monotonic() - begun < 60
