"""Verifies the whole ledger in one pass, in the tree's order and in constant memory."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

from filter_service.db.session import Sessions
from filter_service.ledger.entry_stream import CHUNK, between, moment, query, waiting
from filter_service.ledger.verification.checks import IN_DATABASES, given
from filter_service.ledger.verification.contents import Contents, EntryContents
from filter_service.ledger.verification.keys import Keys
from filter_service.ledger.verification.published_log import PublishedLog
from filter_service.ledger.verification.signed_checkpoints import CheckpointVerifier
from filter_service.ledger.verification.stored_tiles import Tiles
from filter_service.ledger.verification.trusted_checkpoints import TrustedCheckpoints
from filter_service.ledger.verification.verification_report import (
    KEPT,
    Faults,
    VerificationReport,
    unproven,
)

LATE = timedelta(minutes=10)  # an entry that waits longer is not going to be sealed

# A place far beyond all others would have us look at nothing for years: it is named at the end.
_EXTENT = """
    SELECT coalesce(max(position) + 1, 0) FROM ledger_sealed
    WHERE position < 2 * (SELECT count(*) FROM ledger_sealed)
"""
_ASTRAY = f"""
    SELECT position, entry_id FROM ledger_sealed WHERE position < 0 OR position >= %s
    ORDER BY position LIMIT {KEPT}
"""
_UNKNOWN = f"""
    SELECT id, event, item_id FROM ledger
    WHERE NOT EXISTS (SELECT FROM ledger_sealed s WHERE s.entry_id = ledger.id)
      AND NOT EXISTS (SELECT FROM ledger_unsealed u WHERE u.entry_id = ledger.id)
    ORDER BY id LIMIT {KEPT}
"""
_TWICE = f"""
    SELECT entry_id, position FROM ledger_unsealed JOIN ledger_sealed USING (entry_id)
    ORDER BY position LIMIT {KEPT}
"""
_UNPUBLISHED = """
    SELECT count(*), min(size) FROM ledger_checkpoints
    WHERE published_at IS NULL AND at < now() - %s
"""
_SIGNERS = "SELECT vkey FROM ledger_signers ORDER BY id"


def verify(
    sessions: Sessions,
    ledger_url: str | None = None,
    vkeys: Sequence[str] = (),
    witnesses: Sequence[str] = (),
    tell: Callable[[int, int], object] = lambda done, all_: None,
    kept: Sequence[Path] = (),
) -> VerificationReport:
    """Look at everything; nothing is written.

    `vkeys` are the keys of the log as whoever checks knows them; without any, those are believed
    that the database names. `kept` are files with checkpoints that they kept. `tell` hears how
    many entries of how many are done.
    """
    published = PublishedLog(ledger_url) if ledger_url else None
    with sessions() as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
        return _Look(session, published, vkeys, witnesses, TrustedCheckpoints(kept)).report(tell)


class _Look:
    def __init__(
        self,
        session: Session,
        published: PublishedLog | None,
        vkeys: Sequence[str],
        witnesses: Sequence[str],
        kept: TrustedCheckpoints,
    ) -> None:
        self._session = session
        self._kept = kept
        self._given = bool(vkeys)
        self._faults = Faults()
        self._warnings: list[str] = []
        (self._end,) = query(session, _EXTENT)[0]
        self._named = [vkey for (vkey,) in query(session, _SIGNERS)]
        self._keys = Keys(next(iter(self._named), None), vkeys, witnesses)
        self._contents = Contents(session, self._faults)
        self._tiles = Tiles(session, self._faults, published, self._end)
        self._signed = CheckpointVerifier(
            session, self._faults, self._keys, published, kept, self._end
        )
        if published and self._signed.stored and not self._signed.published:
            self._warnings.append(
                f"NOTHING OUTSIDE THE DATABASE WAS COMPARED: {published.url} has no checkpoint. "
                "Set FILTER_SERVICE_LEDGER_URL to where the service publishes."
            )

    def report(self, tell: Callable[[int, int], object]) -> VerificationReport:
        for start in range(0, self._end, CHUNK):
            stop = min(start + CHUNK, self._end)
            self._look(start, stop)
            tell(stop, self._end)
        self._tiles.finish()
        self._signed.finish()
        waits = self._look_at_what_waits()
        self._contents.finish()
        self._name_what_is_astray()
        self._name_signers()
        for sentence in self._keys.absent:
            self._faults.add(10, inf, sentence)
        return VerificationReport(
            entries=self._end,
            waiting=waits,
            erased=self._contents.erased,
            explanations=self._contents.explanations,
            statements=self._contents.statements,
            policies=self._contents.policies,
            unproven=self._contents.unproven,
            kept=self._kept.agreeing,
            checkpoints=self._signed.stored,
            published=self._signed.published,
            keys=tuple(key.vkey for key in self._keys.chain),
            keys_given=self._given,
            witnesses=self._keys.seen,
            faults=self._faults.first,
            broken=self._faults.count,
            checks=self._faults.results(self._made()),
            warnings=tuple(self._warnings),
        )

    def _made(self) -> set[int]:
        """The checks that could be made."""
        return given(
            IN_DATABASES,
            published=bool(self._signed.published),
            kept=self._kept.given,
            witnesses=bool(self._keys.seen),
        )

    def _look(self, start: int, stop: int) -> None:
        entries: list[EntryContents | None] = [None] * (stop - start)
        for seen in self._contents.read(between(self._session, start, stop)):
            assert seen.written.position is not None
            entries[seen.written.position - start] = seen
        leaves = self._tiles.settle(start, entries)
        while self._contents.signers:
            vkey, position = self._contents.signers.pop(0)
            assert position is not None
            self._keys.learn(vkey, position)
        self._signed.follow(leaves)

    def _look_at_what_waits(self) -> int:
        """Entries without a place: nothing proves them yet, but their payloads can be checked."""
        count, oldest = 0, None
        for some in waiting(self._session):
            for seen in self._contents.read(some):
                if seen.leaf is None:
                    self._faults.add(11, inf, f"E{str(seen.written)[1:]} waits, but was deleted.")
                    continue
                if not seen.fits:
                    self._faults.add(
                        2,
                        inf,
                        f"The payload of {seen.written}, which waits, is not what it committed to: "
                        "it or the commitment was changed.",
                    )
                oldest = oldest or seen.written
                count += 1
        late = False
        if oldest and moment(oldest.at) < datetime.now(UTC) - LATE:
            late = True
            self._warnings.append(
                f"{count:,} entries wait to be sealed, {oldest} since "
                f"{moment(oldest.at):%Y-%m-%d %H:%M} UTC: the sealer stands still. Start the "
                "chores, or run `filter-service audit seal`."
            )
        if gone := self._contents.unproven:
            if late:
                self._faults.add(3, inf, unproven(gone))
            else:
                self._warnings.append(unproven(gone))
        return count

    def _name_what_is_astray(self) -> None:
        for position, entry_id in query(self._session, _ASTRAY, self._end):
            self._faults.add(
                11,
                inf,
                f"Entry {entry_id} is sealed at position {position}, which the tree has not.",
            )
        for entry_id, event, item_id in query(self._session, _UNKNOWN):
            about = event if item_id is None else f"{event}, item {item_id}"
            self._faults.add(
                11,
                inf,
                f"Entry {entry_id} ({about}) is neither sealed nor waits to be: it was put there "
                "behind the sealer's back, or its place was deleted.",
            )
        for entry_id, position in query(self._session, _TWICE):
            self._faults.add(
                11,
                position,
                f"Entry {entry_id} waits to be sealed, and is sealed at position {position} "
                "already: somebody put it there again, and nothing more can be sealed.",
            )
        count, first = query(self._session, _UNPUBLISHED, LATE)[0]
        if count:
            self._warnings.append(
                f"{count:,} checkpoints from size {first} on are not published yet: see what the "
                "chores say, or run `filter-service audit seal`."
            )

    def _name_signers(self) -> None:
        """Keys that the database names, and no entry tells of."""
        told = {key.vkey for key in self._keys.chain}
        told.update(vkey for vkey, _ in self._contents.signers)
        for vkey in self._named:
            if vkey not in told:
                self._faults.add(
                    6, inf, f"The key {vkey} is among the signers, but no entry tells of it."
                )
