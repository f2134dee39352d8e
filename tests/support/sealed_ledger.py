"""A sealed and published ledger with everything in it, for tests to copy and damage.

The fixtures are in `tests.support.ledger_fixtures`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from filter_service import ledger
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Entry, Event
from filter_service.ledger.publication import publish
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import rotate, signer_of
from filter_service.ledger.verification import VerificationReport, verify
from filter_service.moderation import drain
from filter_service.settings import Settings
from filter_service.storage import Storage
from tests.support.simple_classifier import POLICY, SimpleJudge, desk_of

SEALED = "sealed_ledger"
NAME = "log.example/test"
IMAGES = ("1 flagged", "2 flagged", "3 flagged", "4 flagged", "-1 clear", "-2 clear")
ERASED, EXPIRED = 1, 2  # items
CHUNK = 130  # entries of one checkpoint: tiles and checkpoints end at different places


@dataclass(frozen=True)
class Ledger:
    """A ledger of which everything can be changed."""

    sessions: Sessions
    owner: Engine
    settings: Settings

    @property
    def folder(self) -> Path:
        """Where it is published."""
        return Path(self.settings.ledger_at)

    def happen(self, count: int, item_id: int = 3) -> None:
        """So many things."""
        views = (Entry(Event.REVEALED, f"person {n}", item_id) for n in range(count))
        with self.sessions.begin() as session:
            ledger.append(session, views)

    def seal(self) -> None:
        """Everything that waits, in small checkpoints; and publish them."""
        signer = signer_of(self.sessions, self.settings)
        while seal(self.sessions, signer, CHUNK):
            pass
        publish(self.sessions, self.settings.ledger_at)

    def rotate(self) -> None:
        """Let another key take over."""
        rotate(self.sessions, self.settings)

    def harm(self, *statements: str, **parameters: Any) -> None:
        """Do what only the owner of the database can, every trigger and constraint switched off."""
        with self.owner.begin() as connection:
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            for statement in statements:
                connection.execute(text(statement), parameters)

    def ask(self, query: str, **parameters: Any) -> Any:
        """One value."""
        with self.owner.begin() as connection:
            return connection.execute(text(query), parameters).scalar()

    def verify(self, *vkeys: str, published: bool = True) -> VerificationReport:
        return verify(self.sessions, self.settings.ledger_at if published else None, vkeys)


@contextmanager
def opened(url: str, folder: Path) -> Iterator[Ledger]:
    """The ledger in a database, its key and what is published in a folder."""
    service, owner = connect(url), connect(url, role=None)
    settings = Settings(data_dir=folder, database_url=url, ledger_name=NAME)
    try:
        yield Ledger(sessions_of(service), owner, settings)
    finally:
        service.dispose()
        owner.dispose()


def live(made: Ledger) -> None:
    """Items judged and explained, one erased and one expired, two keys, some things that wait."""
    storage = Storage(str(made.settings.data_dir / "images"))
    for image in IMAGES:
        files = [Submission(image, image.encode())]
        submissions.accept(made.sessions, storage, lambda: None, files, POLICY)
    drain(desk_of(made.sessions, storage, SimpleJudge()))
    made.happen(300)
    with made.sessions.begin() as session:
        for event, item in ((Event.ERASED, ERASED), (Event.EXPIRED, EXPIRED)):
            details = {"parts": ["explanations"]}
            ledger.append(session, [Entry(event, "person ada", item, None, details)])
            session.execute(
                text("SELECT forget_image(image_id, '{explanations}') FROM items WHERE id = :item"),
                {"item": item},
            )
        session.execute(text("SELECT erase_payloads(:item)"), {"item": ERASED})
    made.seal()
    made.rotate()
    made.happen(200, item_id=4)
    made.seal()
    made.happen(60)
    made.seal()
    made.happen(3)
