"""Benchmarks the ledger: sealing beside a writer, and sealing and verifying many entries.

    python -m benchmarks.ledger                                # 1,000,000 entries: some minutes
    python -m benchmarks.ledger --entries 20000 --seconds 6

First a process writes entries at a given rate, in transactions as a worker's, while this one seals
and publishes as the chores do: what waits must stay bounded. Then as many entries as are wanted are
written, sealed and published as quickly as they can be.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from sqlalchemy import func, select

from benchmarks.folders import temporary_folder
from filter_service import ledger
from filter_service.db.policies import store_policy
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.db.tables import SealedEntry, UnsealedEntry
from filter_service.ledger import Entry, Event
from filter_service.ledger.publication import publish, seal_and_publish
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import signer_of
from filter_service.ledger.verification import verify
from filter_service.local import services
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings

TOGETHER = 100  # entries of one transaction
TURN = 2.0  # seconds between two turns of the chore
DIGEST = "ab" * 32
POLICY = Policy(
    name="benchmark",
    neutral=("a wall",),
    classes=(ForbiddenClass(name="weapons", prompts=("a gun",), threshold=0.5),),
)


@dataclass(frozen=True)
class World:
    """The settings and the database of a ledger of its own."""

    settings: Settings
    sessions: Sessions


@contextmanager
def world() -> Iterator[World]:
    with temporary_folder() as folder:
        given = Settings(data_dir=folder, database_url=None, broker_url=None)
        with services(given) as found:
            upgrade(found.database_url)
            engine = connect(found.database_url)
            settings = given.model_copy(update={"database_url": found.database_url})
            sessions = sessions_of(engine)
            with sessions.begin() as session:
                store_policy(session, POLICY)
            yield World(settings, sessions)
            engine.dispose()


def entries(first: int, number: int) -> list[Entry]:
    """What a worker writes down of images that it judged."""
    details = {
        "verdict": "clear",
        "digest": DIGEST,
        "policy": POLICY.digest,
        "encoder": DIGEST,
        "class": "weapons",
        "margin": -3.25,
        "probability": 0.0374,
        "flags": {},
    }
    return [
        Entry(Event.JUDGED, "worker 0d9f6a3e-3b8e-4a54-9d5b-0d6c1b3b8f10", item, details=details)
        for item in range(first, first + number)
    ]


def append(sessions: Sessions, number: int) -> None:
    for first in range(0, number, TOGETHER):
        with sessions.begin() as session:
            ledger.append(session, entries(first, min(TOGETHER, number - first)))


def write_at(database_url: str, rate: float, seconds: float) -> None:
    """Write entries as evenly as the clock allows; a process of its own."""
    engine = connect(database_url)
    sessions, began, written = sessions_of(engine), time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        if written > now * rate:
            time.sleep((written - now * rate) / rate)
        append(sessions, TOGETHER)
        written += TOGETHER
    engine.dispose()


def count(sessions: Sessions, what: type[SealedEntry] | type[UnsealedEntry]) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(what)) or 0


def kept_up(world: World, rate: float, seconds: float) -> None:
    """Seal and publish beside a writer, and print what waits before and after each turn."""
    url = world.settings.database_url
    writer = get_context("spawn").Process(target=write_at, args=(url, rate, seconds))
    writer.start()
    began, waiting, busy = time.monotonic(), [], 0.0
    while writer.is_alive():
        turn = time.monotonic()
        waiting.append(count(world.sessions, UnsealedEntry))
        seal_and_publish(world.sessions, world.settings)
        busy += time.monotonic() - turn
        time.sleep(max(0.0, turn + TURN - time.monotonic()))
    took = time.monotonic() - began
    left, sealed = count(world.sessions, UnsealedEntry), count(world.sessions, SealedEntry)
    early, late = (sorted(part)[len(part) // 2] for part in halves(waiting))
    print(
        f"writing {rate:,.0f} entries/s for {seconds:.0f} s: {sealed + left:,} written, "
        f"{left:,} wait at the end; before a turn at most {max(waiting):,} waited, in the middle "
        f"{early:,} in the first half and {late:,} in the second; sealing and publishing worked "
        f"{busy / took:.0%} of the time"
    )


def halves(values: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
    middle = len(values) // 2
    return values[:middle] or values, values[middle:]


def timed(what: str, number: int, do: Callable[[], object]) -> None:
    """Do it, and print how quickly."""
    began = time.perf_counter()
    do()
    took = time.perf_counter() - began
    print(f"{what}: {number:,} in {took:.1f} s, {number / took:,.0f} entries/s")


def seal_all(world: World) -> None:
    signer = signer_of(world.sessions, world.settings)
    while seal(world.sessions, signer):
        pass


def verified(world: World) -> None:
    """Verify everything in a process of its own, and what memory that took."""
    with get_context("spawn").Pool(1) as pool:
        entries, whole, took, peak = pool.apply(verify_once, (world.settings,))
    print(
        f"verify: {entries:,} in {took:.1f} s, {entries / took:,.0f} entries/s, "
        f"{'whole' if whole else 'BROKEN'}, at most {peak:,.0f} MB"
    )


def verify_once(settings: Settings) -> tuple[int, bool, float, float]:
    """-> entries, whether they are as they were sealed, seconds, MB of this process at most."""
    assert settings.database_url
    engine = connect(settings.database_url)
    began = time.perf_counter()
    report = verify(sessions_of(engine), settings.ledger_at)
    took = time.perf_counter() - began
    engine.dispose()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return report.entries, report.whole, took, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=2_000, help="entries a second")
    parser.add_argument("--seconds", type=float, default=120, help="of writing at that rate")
    args = parser.parse_args()
    with world() as found:
        kept_up(found, args.rate, args.seconds)
        seal_all(found)
        publish(found.sessions, found.settings.ledger_at)
        number = args.entries
        timed("append", number, lambda: append(found.sessions, number))
        timed("seal", number, lambda: seal_all(found))
        timed("publish", number, lambda: publish(found.sessions, found.settings.ledger_at))
        verified(found)


if __name__ == "__main__":
    main()
