"""Drains the queue: judges a batch while threads decode the next and record the one before."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from filter_service.db.embeddings import known_vectors
from filter_service.moderation.classification import (
    Answer,
    Look,
    Ready,
    WorkerContext,
    judge,
    prepare_all,
)
from filter_service.moderation.leases import Leases
from filter_service.moderation.recorder import recorder

TOGETHER = 4  # images that a thread is given at once: handing over takes longer than a small one

S = TypeVar("S")


def drain(
    desk: WorkerContext[S],
    stop: Callable[[], bool] = lambda: False,
    seconds: float = float("inf"),
    notify_workers: Callable[[], object] = lambda: None,
) -> int:
    """Judge queued items until none is left, the time is over or somebody says stop; how many.

    `stop` is asked between batches; the batch that was claimed ahead is then given back.
    `notify_workers` wakes another worker: when there is more than one batch, and when the
    time is over.
    """
    end = time.monotonic() + seconds
    with _at_work(desk) as (leases, pool), recorder() as records:
        ready = _claim(desk, leases, pool, desk.size.now)
        if len(ready) == desk.size.now:
            notify_workers()
        while ready and not stop():
            began = time.monotonic()
            ahead = [] if began > end else _claim(desk, leases, pool, desk.size.now)
            judge(desk, leases, ready, records)
            if began > end:
                notify_workers()
            desk.size.took(len(ready), time.monotonic() - began)
            ready = ahead
        records.wait()
    return records.recorded


@contextmanager
def _at_work(desk: WorkerContext[S]) -> Iterator[tuple[Leases, ThreadPoolExecutor]]:
    """Leases that are kept alive, and threads that decode; what is still held goes back."""
    leases = Leases(desk.sessions, desk.lease_seconds, desk.place)
    pool = ThreadPoolExecutor(desk.decode_threads, thread_name_prefix="decode")
    with leases.beating():
        try:
            yield leases, pool
            leases.release(counted=False)
        except BaseException:
            leases.release(counted=True)  # what is held may be to blame
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _claim(
    desk: WorkerContext[S], leases: Leases, pool: ThreadPoolExecutor, most: int
) -> list[Ready[S]]:
    """Claim a batch and set the threads to work on it, once for each image."""
    claimed = leases.claim(most)
    if not claimed:
        return []
    with desk.sessions.begin() as session:
        known = known_vectors(session, desk.encoder_id, {c.image_id for c in claimed})
    # Items of one image share it, unless their policies look at different parts of it.
    looks = [(c.digest, desk.policy(c.policy_id).policy.coverage) for c in claimed]
    places: dict[Look, tuple[Future[list[S | Answer]], int]] = {}
    different = list(dict.fromkeys(looks))
    for first in range(0, len(different), TOGETHER):
        some = different[first : first + TOGETHER]
        future = pool.submit(prepare_all, desk, some, known)
        places |= {look: (future, place) for place, look in enumerate(some)}
    return [Ready(c, *places[look]) for c, look in zip(claimed, looks, strict=True)]
