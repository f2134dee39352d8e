"""Finds, ends and awaits the processes of embedded servers."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil


def at_work(name: str, folder: Path) -> list[psutil.Process]:
    """Processes of this name whose working folder this is (servers stay in their data folder)."""
    return [
        p
        for p in psutil.process_iter(["name", "cwd", "status"])
        if p.info["name"] == name
        and p.info["cwd"] == str(folder)
        and p.info["status"] != psutil.STATUS_ZOMBIE
    ]


def is_at_work(pid: int, name: str, folder: Path) -> bool:
    """Whether this process is there, has this name and works in this folder."""
    with suppress(psutil.Error):
        found = psutil.Process(pid)
        ended = found.status() == psutil.STATUS_ZOMBIE
        return not ended and (found.name(), found.cwd()) == (name, str(folder))
    return False


def brokers_at_work(folder: Path) -> list[psutil.Process]:
    """Embedded brokers of this folder, those of versions before among them."""
    return [p for name in ("valkey-server", "redis-server") for p in at_work(name, folder)]


def end(processes: list[psutil.Process], how: signal.Signals, patience: float = 60.0) -> None:
    """Ask processes to end, wait for them, and kill those that do not."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)
    if not until(lambda: not any(map(_alive, processes)), patience):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _alive(process: psutil.Process) -> bool:
    """Not so once it has ended, even if nobody has asked for its exit status yet."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def until(answers: Callable[[], bool], seconds: float) -> bool:
    """Ask again and again; False when the time is over."""
    deadline = time.monotonic() + seconds
    while not answers():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
