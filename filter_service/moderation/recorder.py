"""Records one batch in a thread of its own, while the next is judged."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Recorder:
    """Writes in the order in which it is asked to, never more than one behind."""

    thread: ThreadPoolExecutor
    recorded: int = 0  # items so far
    _last: Future[int] | None = None

    def add(self, write: Callable[[], int]) -> None:
        """Let this be written once what came before is; raises whatever came of that."""
        self.wait()
        self._last = self.thread.submit(write)

    def wait(self) -> None:
        """Until all is written; raises whatever came of it."""
        last, self._last = self._last, None
        if last is not None:
            self.recorded += last.result()


@contextmanager
def recorder() -> Iterator[Recorder]:
    """When the block ends, nothing is being written any more, whatever happened in it."""
    with ThreadPoolExecutor(1, thread_name_prefix="record") as thread:
        yield Recorder(thread)
