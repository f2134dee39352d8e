"""Drains the queue: judges one batch while threads fetch and decode the next."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from filter_service.db.embeddings import known_vectors
from filter_service.moderation.classification import Ready, WorkerContext, judge
from filter_service.moderation.leases import Leases

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
    done = 0
    with _at_work(desk) as (leases, pool):
        ready = _claim(desk, leases, pool)
        if len(ready) == desk.batch_size:
            notify_workers()
        while ready and not stop():
            over = time.monotonic() > end
            ahead = [] if over else _claim(desk, leases, pool)
            done += judge(desk, leases, ready)
            if over:
                notify_workers()
            ready = ahead
    return done


@contextmanager
def _at_work(desk: WorkerContext[S]) -> Iterator[tuple[Leases, ThreadPoolExecutor]]:
    """Leases that are kept alive, and threads that decode; what is still held goes back."""
    leases = Leases(desk.sessions, desk.lease_seconds)
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


def _claim(desk: WorkerContext[S], leases: Leases, pool: ThreadPoolExecutor) -> list[Ready[S]]:
    """Claim a batch and set the threads to work on it, once for each image."""
    claimed = leases.claim(desk.batch_size)
    if not claimed:
        return []
    with desk.sessions.begin() as session:
        known = known_vectors(session, desk.encoder_id, {c.image_id for c in claimed})
    # Items of one image share it, unless their policies look at different parts of it.
    looks = [(c.digest, desk.policy(c.policy_id).policy.coverage) for c in claimed]
    subjects = {
        (digest, coverage): pool.submit(desk.prepare, digest, known.get(digest), coverage)
        for digest, coverage in dict.fromkeys(looks)
    }
    return [Ready(c, subjects[look]) for c, look in zip(claimed, looks, strict=True)]
