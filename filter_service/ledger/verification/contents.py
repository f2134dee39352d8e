"""Verifies payloads, explanations, statements and policies against ledger entries.

Something that is missing is excused by an entry that says that it was deleted.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from math import inf
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from filter_service.canonical import is_digest_of
from filter_service.ledger.entries import Event
from filter_service.ledger.entry_stream import StoredEntry, moment, query, stream
from filter_service.ledger.merkle import leaf_hash
from filter_service.ledger.verification.entry_details import at, place, read_details
from filter_service.ledger.verification.statements import Statements
from filter_service.ledger.verification.verification_report import KEPT, Faults
from filter_service.policy import Policy

# Entries of one item that are written at the same time may be sealed in either order.
OVERLAP = timedelta(minutes=5)

_STATED = frozenset({Event.STATED, Event.STATEMENT_WITHDRAWN})
_NOTED = frozenset({Event.JUDGED, Event.SIGNER_ADDED})
_EXCUSES = """
    SELECT l.item_id, timestamptz_send(l.at), l.event, p.details::text,
        EXISTS (SELECT FROM ledger_sealed s WHERE s.entry_id = l.id)
    FROM ledger l LEFT JOIN ledger_payloads p ON p.entry_id = l.id
    WHERE l.item_id = ANY(%s) AND l.event = ANY(%s)
"""
_EXPLANATIONS = """
    SELECT e.item_id, c.name, encode(n.fingerprint, 'hex'), e.faithful, e.record::text
    FROM explanations e JOIN policy_classes c ON c.id = e.class_id
    JOIN encoders n ON n.id = e.encoder_id
    WHERE e.item_id = ANY(%s)
"""
# Postgres stops at some escapes in JSON; in what the service writes of an explanation are none.
_UNTOLD = f"""
    SELECT e.item_id, c.name FROM explanations e JOIN policy_classes c ON c.id = e.class_id
    JOIN encoders n ON n.id = e.encoder_id
    WHERE NOT EXISTS (
        SELECT FROM ledger l JOIN ledger_payloads p ON p.entry_id = l.id
        WHERE l.item_id = e.item_id AND l.event = 'explained'
          AND CASE WHEN strpos(p.details::text, '\\u') = 0 THEN
              p.details ->> 'class' = c.name
              AND p.details ->> 'encoder' = encode(n.fingerprint, 'hex')
          END
    )
    ORDER BY e.item_id, c.position LIMIT {KEPT}
"""
_POLICIES = """
    SELECT p.name, encode(p.digest, 'hex'), p.document::text,
        array_agg(c.name ORDER BY c.position)
    FROM policies p LEFT JOIN policy_classes c ON c.policy_id = p.id GROUP BY p.id ORDER BY p.id
"""


class EntryContents(NamedTuple):
    """An entry that was read."""

    written: StoredEntry
    leaf: bytes | None  # its hash; None: there is no such row
    fits: bool  # its payload is what it committed to, or is not there


class Excuse(NamedTuple):
    """An entry that says that something of an item was deleted."""

    at: datetime
    sealed: bool  # or anybody can have put it there


class Contents:
    """Verifies what entries refer to, some thousand at once."""

    def __init__(self, session: Session, faults: Faults) -> None:
        self.erased = self.explanations = self.policies = 0
        self.unproven = 0  # what is gone, and no entry that is sealed says why
        self.signers: list[tuple[str, int | None]] = []  # keys, and the positions of their entries
        self._session = session
        self._faults = faults
        self._statements = Statements(session, faults)
        self._judged_by: dict[str, StoredEntry] = {}  # policies' digests: the first entry of each

    def read(self, entries: Iterable[StoredEntry]) -> list[EntryContents]:
        """Hash entries, and check what they commit to and speak of."""
        seen, missing, explained, stated = [], [], [], []
        for written in entries:
            event, payload = written.event, written.payload
            if event is None:
                seen.append(EntryContents(written, None, True))
                continue
            fits = payload is None or payload.opens(written.commitment.hex())
            if payload is None:
                missing.append(written)
            elif fits and event == Event.EXPLAINED:
                explained.append(written)
            elif fits and event in _STATED:
                stated.append(written)
            elif fits and event in _NOTED:
                self._note(written)
            seen.append(EntryContents(written, leaf_hash(written.leaf), fits))
        self._check_missing(missing)
        self._check_explained(explained)
        self._statements.check(stated)
        return seen

    def finish(self) -> None:
        """Look at what no entry leads to: stored explanations and policies."""
        for item, name in query(self._session, _UNTOLD):
            self._faults.add(
                12,
                inf,
                f"Item {item} has an explanation for {name!r} of which no entry tells: it was put "
                "there by hand, or should have been deleted.",
            )
        self._statements.finish()
        self._check_policies()

    @property
    def statements(self) -> int:
        """How many are as they were issued."""
        return self._statements.intact

    def _note(self, written: StoredEntry) -> None:
        told = read_details(written.details)
        if written.event == Event.SIGNER_ADDED:
            self.signers.append((str(told.get("vkey")), written.position))
        elif "policy" in told:
            self._judged_by.setdefault(str(told["policy"]), written)

    def _check_missing(self, missing: Sequence[StoredEntry]) -> None:
        """A payload is gone: its item must have been erased, and that entry has to say by whom."""
        excuses = self._excuses(missing, [Event.ERASED])
        for written in missing:
            why = "no entry says that its item was erased"
            if written.event == Event.ERASED:
                why = "no erasure takes what says who erased"
            elif excused := self._excuse(written, excuses):
                self.erased += excused.sealed
                continue
            self._faults.add(
                3,
                place(written),
                f"The payload of {written}{at(written)} is gone, and {why}: somebody deleted it.",
            )

    def _check_explained(self, explained: Sequence[StoredEntry]) -> None:
        """The stored explanation has the digest that its entry names."""
        waiting: dict[tuple[object, ...], list[tuple[StoredEntry, Any]]] = defaultdict(list)
        for written in explained:
            told = read_details(written.details)
            key = written.item_id, str(told.get("class")), str(told.get("encoder"))
            waiting[key].append((written, told))
        if not waiting:
            return
        items = list({item for item, *_ in waiting})
        for item, name, encoder, faithful, record in stream(self._session, _EXPLANATIONS, items):
            found = waiting.pop((item, name, encoder), ())  # none: another chunk's, or nobody's
            self.explanations += bool(found)
            for written, told in found:
                same = told.get("faithful") == faithful
                if not same or not is_digest_of(told.get("record"), record):
                    self._faults.add(
                        12,
                        place(written),
                        f"The explanation of item {item} for {name!r} is not the one that {written}"
                        f"{at(written)} tells of: its text was changed.",
                    )
        self._check_gone([written for some in waiting.values() for written, _ in some])

    def _check_gone(self, gone: Sequence[StoredEntry]) -> None:
        """An explanation is gone: it was deleted together with an entry that says so."""
        excuses = self._excuses(gone, [Event.ERASED, Event.EXPIRED, Event.LOCKED_AWAY])
        for written in gone:
            if not self._excuse(written, excuses):
                name = str(read_details(written.details).get("class"))
                self._faults.add(
                    3,
                    place(written),
                    f"The explanation of item {written.item_id} for {name!r}, of which {written}"
                    f"{at(written)} tells, is gone, and no entry says why: somebody deleted it.",
                )

    def _excuses(
        self, gone: Sequence[StoredEntry], events: Sequence[Event]
    ) -> dict[int | None, list[Excuse]]:
        """When something of these items was deleted with an entry that says so."""
        items = {written.item_id for written in gone if written.item_id is not None}
        excuses: dict[int | None, list[Excuse]] = defaultdict(list)
        if items:
            names = [str(event) for event in events]
            for item, at, event, details, sealed in query(
                self._session, _EXCUSES, list(items), names
            ):
                if event != Event.EXPIRED or details is None or _has_explanations(details):
                    excuses[item].append(Excuse(moment(at), sealed))
        return excuses

    def _excuse(
        self, written: StoredEntry, excuses: Mapping[int | None, Sequence[Excuse]]
    ) -> Excuse | None:
        """The entry that says why something of this one is gone, one that is sealed if any is."""
        at = moment(written.at)
        found = [one for one in excuses.get(written.item_id, ()) if at - one.at <= OVERLAP]
        best = max(found, key=lambda one: one.sealed, default=None)
        if best and not best.sealed:
            self.unproven += 1
        return best

    def _check_policies(self) -> None:
        """Their documents have the digests by which entries call them."""
        known = defaultdict(list)
        for name, digest, document, classes in query(self._session, _POLICIES):
            known[digest].append(name)
            self.policies += 1
            if not _is_policy(name, digest, document, classes):
                self._faults.add(
                    14,
                    inf,
                    f"The policy {name!r} is not the one of digest {digest}: its name, document or "
                    "classes were changed.",
                )
        for digest, written in self._judged_by.items():
            if digest not in known:
                self._faults.add(
                    14,
                    place(written),
                    f"The policy of digest {digest}, by which {written}{at(written)} was judged, "
                    "is not there: it was deleted, or has another digest now.",
                )


def _has_explanations(details: str) -> bool:
    """Whether these were among what expired."""
    parts = read_details(details).get("parts")
    return isinstance(parts, list) and "explanations" in parts


def _is_policy(name: str, digest: str, document: str, classes: Sequence[str]) -> bool:
    try:
        policy = Policy.model_validate(json.loads(document))
    except (OverflowError, RecursionError, ValueError):  # no policy, or nothing that can be read
        return False
    return (
        policy.digest == digest
        and policy.name == name
        and [c.name for c in policy.classes] == list(classes)
    )
