"""Verifies statements of reasons against their ledger entries."""

from collections.abc import Sequence
from math import inf

from sqlalchemy.orm import Session

from filter_service.canonical import is_digest_of
from filter_service.ledger.entries import Event
from filter_service.ledger.entry_stream import StoredEntry, query, stream
from filter_service.ledger.verification.entry_details import at, place, read_details
from filter_service.ledger.verification.verification_report import KEPT, Faults

_STATEMENTS = """
    SELECT item_id, puid::text, document::text, notice, review_id, withdrawn_at IS NOT NULL
    FROM statements WHERE item_id = ANY(%s)
"""
# An erased entry no longer says of which statement it tells. Postgres stops at some escapes in
# JSON; in what the service writes of a statement are none.
_UNTOLD = f"""
    SELECT s.item_id, s.puid::text, e.event FROM statements s
    JOIN (VALUES ('{Event.STATED}'), ('{Event.STATEMENT_WITHDRAWN}')) AS e (event)
        ON e.event = '{Event.STATED}' OR s.withdrawn_at IS NOT NULL
    WHERE NOT EXISTS (
        SELECT FROM ledger l LEFT JOIN ledger_payloads p ON p.entry_id = l.id
        WHERE l.item_id = s.item_id AND l.event = e.event AND (
            p.entry_id IS NULL
            OR CASE WHEN strpos(p.details::text, '\\u') = 0 THEN
                p.details ->> 'puid' = s.puid::text
            END
        )
    )
    ORDER BY s.item_id, s.puid, e.event LIMIT {KEPT}
"""


class Statements:
    """Compares statements with their entries, some thousand at once."""

    def __init__(self, session: Session, faults: Faults) -> None:
        self.intact = 0  # what they say is what was committed to
        self._session = session
        self._faults = faults

    def check(self, entries: Sequence[StoredEntry]) -> None:
        """Entries that say that a statement was issued or withdrawn."""
        items = list({written.item_id for written in entries})
        rows = stream(self._session, _STATEMENTS, items) if items else ()
        found = {(item, puid): rest for item, puid, *rest in rows}
        for written in entries:
            said = read_details(written.details)
            puid = str(said.get("puid"))
            row = found.get((written.item_id, puid))
            what = f"The statement of reasons {puid} of item {written.item_id}"
            where = f"{written}{at(written)}"
            if row is None:
                self._faults.add(
                    13,
                    place(written),
                    f"{what}, of which {where} tells, is gone: somebody deleted it.",
                )
                continue
            document, notice, review, withdrawn = row
            if written.event == Event.STATEMENT_WITHDRAWN:
                if not withdrawn:
                    self._faults.add(
                        13,
                        place(written),
                        f"{what} was withdrawn, as {where} tells, but stands: its row was changed.",
                    )
            elif (
                is_digest_of(said.get("document"), document)
                and is_digest_of(said.get("notice"), notice)
                and said.get("review") == review
            ):
                self.intact += 1
            else:
                self._faults.add(
                    13,
                    place(written),
                    f"{what} is not the one that {where} tells of: its document, its notice or "
                    "the decision that it is of was changed.",
                )

    def finish(self) -> None:
        """Name statements that no entry leads to."""
        for item, puid, event in query(self._session, _UNTOLD):
            done = "issued" if event == Event.STATED else "withdrawn"
            self._faults.add(
                13,
                inf,
                f"The statement of reasons {puid} of item {item} was {done}, and no entry tells "
                "of that: somebody did it by hand.",
            )
