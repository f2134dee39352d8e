"""Chooses how many items are claimed together: more where a batch takes next to no time."""

from dataclasses import dataclass

QUICK = 0.4  # seconds a batch; below, what each batch costs besides its items is felt
SLOW = 1.6
GROWTH = 4  # times as many as asked for, at most: pixels of two batches are held in memory


@dataclass
class BatchSize:
    """Starts at what is asked for, doubles while the model is quick, and goes back when it is not.

    An item whose worker dies waits for its lease, so that a batch is not to take long, either.
    """

    least: int
    now: int = 0  # 0: the least

    def __post_init__(self) -> None:
        self.now = self.now or self.least

    def took(self, items: int, seconds: float) -> None:
        """A batch of so many items was judged in this time."""
        if items >= self.now and seconds < QUICK:
            self.now = min(self.now * 2, self.least * GROWTH)
        elif seconds > SLOW:
            self.now = max(self.now // 2, self.least)
