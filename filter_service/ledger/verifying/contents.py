"""What entries speak of: payloads, explanations and policies are what was committed to.

Something that is missing is excused by an entry that says that it was deleted.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from math import inf
from typing import Any, NamedTuple

from pydantic import ValidationError
from sqlalchemy.orm import Session

from filter_service.canonical import canonical
from filter_service.ledger.entries import Event
from filter_service.ledger.reading import (
    Written,
    leaf_of,
    moment,
    payload_of,
    query,
    stream,
)
from filter_service.ledger.verifying.report import KEPT, Faults
from filter_service.policy import Policy

# Entries of one item that are written at the same time may be sealed in either order.
OVERLAP = timedelta(minutes=5)

_NOTED = frozenset({Event.JUDGED, Event.SIGNER_ADDED})
_EXCUSES = """
    SELECT l.item_id, timestamptz_send(max(l.at))
    FROM ledger l LEFT JOIN ledger_payloads p ON p.entry_id = l.id
    WHERE l.item_id = ANY(%s) AND l.event = ANY(%s) AND (
        l.event <> 'expired' OR p.entry_id IS NULL
        OR (p.details -> 'parts')::jsonb @> '["explanations"]'
    )
    GROUP BY l.item_id
"""
_EXPLANATIONS = """
    SELECT e.item_id, c.name, encode(n.fingerprint, 'hex'), e.faithful, e.record::text
    FROM explanations e JOIN policy_classes c ON c.id = e.class_id
    JOIN encoders n ON n.id = e.encoder_id
    WHERE e.item_id = ANY(%s)
"""
_UNTOLD = f"""
    SELECT e.item_id, c.name FROM explanations e JOIN policy_classes c ON c.id = e.class_id
    JOIN encoders n ON n.id = e.encoder_id
    WHERE NOT EXISTS (
        SELECT FROM ledger l JOIN ledger_payloads p ON p.entry_id = l.id
        WHERE l.item_id = e.item_id AND l.event = 'explained'
          AND p.details ->> 'class' = c.name
          AND p.details ->> 'encoder' = encode(n.fingerprint, 'hex')
    )
    ORDER BY e.item_id, c.position LIMIT {KEPT}
"""
_POLICIES = """
    SELECT p.name, encode(p.digest, 'hex'), p.document, array_agg(c.name ORDER BY c.position)
    FROM policies p LEFT JOIN policy_classes c ON c.policy_id = p.id GROUP BY p.id ORDER BY p.id
"""


class Seen(NamedTuple):
    """An entry that was read."""

    written: Written
    leaf: bytes | None  # its hash; None: there is no such row
    fits: bool  # its payload is what it committed to, or is not there


class Contents:
    """Looks at what entries speak of, some thousand at once."""

    def __init__(self, session: Session, faults: Faults) -> None:
        self.erased = self.explanations = self.policies = 0
        self.signers: list[tuple[str, int | None]] = []  # keys, and the positions of their entries
        self._session = session
        self._faults = faults
        self._judged_by: dict[str, Written] = {}  # policies' digests: the first entry of each

    def read(self, entries: Iterable[Written]) -> list[Seen]:
        """Hash entries, and check what they commit to and speak of."""
        seen, missing, explained = [], [], []
        for written in entries:
            _, entry_id, at, event, item_id, batch, commitment, salt, actor, details = written
            if event is None:
                seen.append(Seen(written, None, True))
                continue
            leaf = leaf_of(entry_id, at, event, item_id, batch, commitment)
            fits = True
            if salt is None:
                missing.append(written)
            elif sha256(salt + payload_of(actor, details)).digest() != commitment:
                fits = False
            elif event == Event.EXPLAINED:
                explained.append(written)
            elif event in _NOTED:
                self._note(written)
            seen.append(Seen(written, sha256(b"\0" + leaf).digest(), fits))
        self._check_missing(missing)
        self._check_explained(explained)
        return seen

    def finish(self) -> None:
        """Look at what no entry leads to: stored explanations and policies."""
        for item, name in query(self._session, _UNTOLD):
            self._faults.add(
                inf,
                f"Item {item} has an explanation for {name!r} of which no entry tells: it was put "
                "there by hand, or should have been deleted.",
            )
        self._check_policies()

    def _note(self, written: Written) -> None:
        told = _details(written)
        if written.event == Event.SIGNER_ADDED:
            self.signers.append((str(told.get("vkey")), written.position))
        elif "policy" in told:
            self._judged_by.setdefault(str(told["policy"]), written)

    def _check_missing(self, missing: Sequence[Written]) -> None:
        """A payload is gone: its item must have been erased."""
        excuses = self._excuses(missing, [Event.ERASED])
        for written in missing:
            if _excused(written, excuses):
                self.erased += 1
                continue
            self._faults.add(
                _place(written),
                f"The payload of {written}{_at(written)} is gone, and no entry says that its item "
                "was erased: somebody deleted it.",
            )

    def _check_explained(self, explained: Sequence[Written]) -> None:
        """The stored explanation has the digest that its entry names."""
        waiting: dict[tuple[object, ...], tuple[Written, Any]] = {}
        for written in explained:
            told = _details(written)
            key = written.item_id, str(told.get("class")), str(told.get("encoder"))
            waiting[key] = written, told
        if not waiting:
            return
        items = list({item for item, *_ in waiting})
        for item, name, encoder, faithful, record in stream(self._session, _EXPLANATIONS, items):
            found = waiting.pop((item, name, encoder), None)
            if found is None:
                continue  # another chunk's, or nobody's: then it is found in the end
            written, told = found
            self.explanations += 1
            if told.get("faithful") != faithful or not _is_digest_of(told.get("record"), record):
                self._faults.add(
                    _place(written),
                    f"The explanation of item {item} for {name!r} is not the one that {written}"
                    f"{_at(written)} tells of: its text was changed.",
                )
        gone = [written for written, _ in waiting.values()]
        deleted = [Event.ERASED, Event.EXPIRED, Event.LOCKED_AWAY]
        excuses = self._excuses(gone, deleted)
        for (item, name, _), (written, _) in waiting.items():
            if not _excused(written, excuses):
                self._faults.add(
                    _place(written),
                    f"The explanation of item {item} for {name!r}, of which {written}"
                    f"{_at(written)} tells, is gone, and no entry says why: somebody deleted it.",
                )

    def _excuses(self, gone: Sequence[Written], events: Sequence[Event]) -> dict[int, datetime]:
        """When something of these items was last deleted with an entry that says so."""
        items = {written.item_id for written in gone if written.item_id is not None}
        if not items:
            return {}
        found = query(self._session, _EXCUSES, list(items), [str(event) for event in events])
        return {item: moment(at) for item, at in found}

    def _check_policies(self) -> None:
        """Their documents have the digests by which entries call them."""
        known = defaultdict(list)
        for name, digest, document, classes in query(self._session, _POLICIES):
            known[digest].append(name)
            self.policies += 1
            if not _is_policy(name, digest, document, classes):
                self._faults.add(
                    inf,
                    f"The policy {name!r} is not the one of digest {digest}: its name, document or "
                    "classes were changed.",
                )
        for digest, written in self._judged_by.items():
            if digest not in known:
                self._faults.add(
                    _place(written),
                    f"The policy of digest {digest}, by which {written}{_at(written)} was judged, "
                    "is not there: it was deleted, or has another digest now.",
                )


def _details(written: Written) -> dict[str, Any]:
    """Whatever somebody wrote down; anything that the service never writes says nothing."""
    try:
        told = json.loads(written.details)
    except RecursionError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_digest_of(digest: object, record: str) -> bool:
    """Whether it is of this text, or of the same content as it was before the text was kept."""
    if digest == sha256(record.encode()).hexdigest():
        return True
    try:
        content = canonical(json.loads(record)).encode()
    except (RecursionError, ValueError):  # nothing that the service wrote
        return False
    return digest == sha256(content).hexdigest()


def _is_policy(name: str, digest: str, document: object, classes: Sequence[str]) -> bool:
    try:
        policy = Policy.model_validate(document)
    except ValidationError:
        return False
    return (
        policy.digest == digest
        and policy.name == name
        and [c.name for c in policy.classes] == list(classes)
    )


def _excused(written: Written, excuses: dict[int, datetime]) -> bool:
    at = excuses.get(written.item_id) if written.item_id is not None else None
    return at is not None and moment(written.at) <= at + OVERLAP


def _place(written: Written) -> float:
    return inf if written.position is None else written.position


def _at(written: Written) -> str:
    return ", which waits," if written.position is None else f" at position {written.position}"
