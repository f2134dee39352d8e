"""Limits how many pixels are decoded at the same time in one process."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from filter_service.errors import ImageError
from filter_service.images.decoding import pixels_in
from filter_service.images.limits import STANDARD, Limits


class PixelBudget:
    """Pixels shared by the threads of a process; whoever asks for more than are free waits.

    Turns are taken in order, so that many small images never keep a large one waiting for ever.
    """

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._queue = Lock()
        self._changed = Condition()

    @contextmanager
    def reserved(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels; an image larger than all of them has all of them to itself."""
        share = min(pixels, self._all)
        with self._queue, self._changed:
            self._changed.wait_for(lambda: self._free >= share)
            self._free -= share
        try:
            yield
        finally:
            with self._changed:
                self._free += share
                self._changed.notify_all()


_shared = PixelBudget(STANDARD.max_pixels)


@contextmanager
def reserved(data: bytes, limits: Limits = STANDARD) -> Iterator[None]:
    """To be held while the decoded pixels of a file are: they count against the process's budget.

    Of a file whose header cannot be read nothing is held: decoding it will say why.
    """
    try:
        pixels = pixels_in(data, limits)
    except ImageError:
        pixels = 0
    with _shared.reserved(pixels):
        yield
