"""Runs one export, and records its beginning and its end in the ledger."""

import uuid
from collections.abc import Iterator

from sqlalchemy import ColumnElement

from filter_service import ledger
from filter_service.audit.exports.export_columns import Row
from filter_service.audit.exports.export_filter import ExportFilter
from filter_service.audit.exports.rows import Rows
from filter_service.audit.exports.writers import Format, written
from filter_service.db.session import Sessions
from filter_service.ledger import Entry, Event


class Export:
    """One file on its way; whoever iterates it closes it, so that its end is written down."""

    def __init__(self, sessions: Sessions, rows: Rows, form: Format, actor: str) -> None:
        self.id = uuid.uuid4()
        self.rows = rows
        self.count = 0  # rows so far
        self._sessions = sessions
        self._form = form
        self._actor = actor
        self._whole = False
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        """The file, in pieces."""
        yield from written(self._counted(), self._form)
        self._whole = True

    def close(self, kept: bool = True) -> None:
        """Write down how it ended, and whether the file was kept; again changes nothing."""
        if self._closed:
            return
        self._closed = True
        state = "whole" if self._whole and kept else "broken off"
        self.note(state, {"rows": self.count, "upto": self.rows.reached})

    def note(self, state: str, details: dict[str, object]) -> None:
        about = {"export": str(self.id), "state": state, "format": self._form, **details}
        with self._sessions.begin() as session:
            ledger.append(session, [Entry(Event.EXPORTED, self._actor, details=about)])

    def _counted(self) -> Iterator[list[Row]]:
        for rows in self.rows.chunks():
            self.count += len(rows)
            yield rows


def begin(
    sessions: Sessions,
    wanted: ExportFilter,
    form: Format,
    actor: str,
    seen: ColumnElement[bool] | None = None,
) -> Export:
    """An export that is in the ledger before its first byte; raises for what never was.

    `seen` is a condition on items that leaves out what whoever asks may not see.
    """
    export = Export(sessions, Rows(sessions, wanted, seen), form, actor)
    export.note("begun", {"filters": wanted.details})
    return export
