"""Starts, watches, restarts and ends the processes of a command."""

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from subprocess import Popen

import typer

from filter_service.cli.context import Queue
from filter_service.cli.interruption import hurried
from filter_service.errors import ProcessFailed
from filter_service.settings import Settings

TIMES, WITHIN = 3, 60.0  # a process that ends so often in so many seconds will not stay
POLL = 0.1  # seconds

Start = Callable[[], "Popen[bytes]"]


@dataclass
class SupervisedProcess:
    """One process that is to run as long as the command does."""

    name: str  # as in "the worker process"
    start: Start
    process: "Popen[bytes]"
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=TIMES))

    def look(self, log: Path | None) -> None:
        """Start it again if it ended; ProcessFailed where it ends again and again."""
        if self.process.poll() is None:
            return
        _sweep(self.process)
        how = _how(self.process.returncode)
        self.ends.append(time.monotonic())
        if len(self.ends) == TIMES and self.ends[-1] - self.ends[0] < WITHIN:
            where = "what it printed says why" if log is None else f"{log} says why"
            raise ProcessFailed(
                f"The {self.name} process ended {TIMES} times within a minute, at last with {how}: "
                f"{where}. Everything is stopped; mend it and start again."
            )
        typer.echo(f"The {self.name} process ended with {how}: it is started again.", err=True)
        self.process = self.start()


@dataclass(frozen=True)
class Parts:
    """All processes of a command."""

    log: Path | None  # where they write; None: to our own output
    running: list[SupervisedProcess] = field(default_factory=list)

    def look(self) -> None:
        """Start again whatever has ended; ProcessFailed names what will not stay."""
        for part in self.running:
            part.look(self.log)

    def stay(self) -> None:
        """Look after them until somebody interrupts."""
        while True:
            self.look()
            time.sleep(POLL)


@contextmanager
def supervised(starts: Mapping[str, Start], log: Path | None = None) -> Iterator[Parts]:
    """Processes by name, started here and ended gracefully, however the block is left."""
    parts = Parts(log)
    try:
        for name, start in starts.items():
            parts.running.append(SupervisedProcess(name, start, start()))
        yield parts
    finally:
        _end([part.process for part in parts.running])


@contextmanager
def ended(processes: Sequence["Popen[bytes]"]) -> Iterator[None]:
    """Processes that are ended gracefully, however the block is left."""
    try:
        yield
    finally:
        _end(processes)


def _end(processes: Sequence["Popen[bytes]"]) -> None:
    """Ask them to end, wait for what they have at hand, and kill them if somebody hurries us."""
    for process in processes:
        process.terminate()
    while any(process.poll() is None for process in processes):
        if hurried.wait(POLL):
            for process in processes:
                process.kill()
    for process in processes:
        _sweep(process)


def _sweep(process: "Popen[bytes]") -> None:
    """Kill what an ended process left behind: each was started as the leader of its own group."""
    with suppress(OSError):  # nobody is left
        os.killpg(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def everything(
    queue: Queue, settings: Settings, workers: int = 1, log: Path | None = None
) -> dict[str, Start]:
    """How to start each process of a whole service, by name."""
    numbered = ["worker"] if workers == 1 else [f"worker {i}" for i in range(1, workers + 1)]
    rest = {"chores": queue.chores, "schedule": queue.schedule, "web page": queue.web}
    starts = dict.fromkeys(numbered, queue.worker) | rest
    return {name: partial(start, settings, log) for name, start in starts.items()}
