"""Handles Ctrl-C, SIGTERM and SIGHUP alike; a second signal hurries the shutdown."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

hurried = threading.Event()  # somebody asked a second time


@contextmanager
def interruptible() -> Iterator[None]:
    """In the block the first request to end is a KeyboardInterrupt, so that all is put away.

    Later ones break into nothing: they set `hurried`. What whoever started us had ignored, as
    `nohup` does with SIGHUP, stays ignored.
    """
    before = {s: signal.getsignal(s) for s in ASKED}
    heard = [s for s in ASKED if before[s] is not signal.SIG_IGN]
    hurried.clear()
    for number in heard:
        signal.signal(number, _hang_up if number == signal.SIGHUP else _interrupt)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _interrupt(_: int, frame: FrameType | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hurry)
    raise KeyboardInterrupt


def _hurry(_: int, frame: FrameType | None) -> None:
    hurried.set()


def _hang_up(_: int, frame: FrameType | None) -> None:
    """Whoever has put a handler of its own on SIGTERM, as a web server does, hears of it, too."""
    signal.raise_signal(signal.SIGTERM)
