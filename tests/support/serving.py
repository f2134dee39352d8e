"""Runs the web process on a real port."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filter_service.settings import Settings
from tests.support.served import ROOT, environment


@contextmanager
def serving(settings: Settings, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A real server process, and its address."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks", "serve", "--port", "0"],
            cwd=ROOT,
            env={**environment(settings), "PYTHONUNBUFFERED": "1"},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    before = log.stat().st_size
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://\S+:\d+", log.read_text()[before:])):
            assert time.monotonic() < deadline and process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
