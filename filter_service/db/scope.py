"""Row scope: whether a query sees one client's rows, or as the operator those of all.

Whoever reads rows says for whom; the verbs put it into their queries, so that what is another
client's is not there at all. Images are stored once for everybody and belong to nobody: a client
knows of those that its own items are of.
"""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, true
from sqlalchemy.orm import InstrumentedAttribute

DEFAULT = 1  # the client of all that names none: what was here before there were clients, too


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose rows are read or made: one client's, or all, as the operator."""

    client_id: int = DEFAULT  # what is submitted is this client's
    everyone: bool = True  # the operator's sight: of all clients

    @property
    def owner(self) -> int | None:
        """Whose a webhook or a policy's name is: the operator's, None, or this client's."""
        return None if self.everyone else self.client_id

    def has(self, column: InstrumentedAttribute[int]) -> ColumnElement[bool]:
        """The condition on a row's `client_id`."""
        return true() if self.everyone else column == self.client_id


OPERATOR = Scope()  # commands on the machine, and people who work here


def only(client_id: int) -> Scope:
    """What one client sees."""
    return Scope(client_id, everyone=False)
