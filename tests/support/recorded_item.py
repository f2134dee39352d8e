"""Takes an item through its whole history: judged, decided, appealed, announced, sealed."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from filter_service import accounts, webhooks
from filter_service.accounts import Role
from filter_service.audit.record.item_history import ItemHistory, history_of
from filter_service.db.session import connect
from filter_service.db.tables import Item, Person
from filter_service.ledger.publication import publish
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import signer_of
from filter_service.reviews import case_claims
from filter_service.reviews.appeals import open_appeal
from filter_service.reviews.decisions import decide, undo
from filter_service.reviews.settlement import Decision, settle
from filter_service.webhooks.delivery import deliver_due
from tests.support.console_world import World
from tests.support.web_clients import somebody

LEASE = 3600.0
STATEMENT = "This is a poster for a museum of the history of brewing, and nobody drinks in it."
NOTE = "A bottle with a label stands in the middle."
SUBJECT = "003.jpg"  # a sample that shows alcohol
ORDER = [  # what happens to it, as the ledger calls it
    *("submitted", "judged", "explained", "opened"),
    *("claimed", "revealed", "decided", "undone", "decided", "settled"),
    *("opened", "appealed", "claimed", "decided", "appeal closed", "settled"),
]


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def listening() -> Iterator[str]:
    """A platform that takes everything that it is told; -> its address."""
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/moderation"
    finally:
        server.shutdown()
        server.server_close()


def lived(world: World, sealed: bool = True) -> int:
    """Let everything happen to SUBJECT that happens to an item of an ordinary class; -> it."""
    item, sessions, settings = world.item(SUBJECT), world.sessions, world.service.settings
    ben = somebody(sessions, Role.MODERATOR, "ben")
    sue = somebody(sessions, Role.SENIOR, "sue")
    with listening() as url:
        webhooks.add_endpoint(sessions, settings, url, None, "key shop")
        case_claims.claim(sessions, ben, item, LEASE)
        accounts.reveal(sessions, ben, item, "alcohol", None)
        slip = decide(sessions, ben, item, Decision.OVERTURNED, undo_seconds=60)
        undo(sessions, ben, [d.review_id for d in slip])
        _say(world, ben, item, NOTE)
        open_appeal(sessions, item, STATEMENT, "key shop")
        case_claims.claim(sessions, sue, item, LEASE)
        _say(world, sue, item, "")
        deliver_due(sessions, settings)
    if sealed:
        seal_all(world)
    return item


def seal_all(world: World) -> str:
    """Everything that waits gets its place, and is published; -> the key to check it with."""
    signer = signer_of(world.sessions, world.service.settings)
    while seal(world.sessions, signer):
        pass
    publish(world.sessions, world.service.settings.ledger_at)
    return signer.vkey


def life(world: World, item: int) -> ItemHistory:
    """The record of an item, without anybody having read it."""
    with world.sessions.begin() as session:
        return history_of(session, session.get_one(Item, item))


@contextmanager
def owned(world: World) -> Iterator[Engine]:
    """The world's database as its owner has it, who can do anything."""
    with world.sessions() as session:
        url = session.get_bind().engine.url.render_as_string(hide_password=False)
    engine = connect(url, role=None)
    yield engine
    engine.dispose()


def after(owner: Engine, item: int, harm: str) -> ItemHistory:
    """The record as it would be after some harm, past every trigger, which is then undone."""
    with Session(owner) as session:
        session.execute(text("SET LOCAL session_replication_role = replica"))
        session.execute(text(harm), {"item": item})
        found = history_of(session, session.get_one(Item, item))
        session.expunge_all()  # so that what was read outlives it
        session.rollback()
        return found


def _say(world: World, person: Person, item: int, note: str) -> None:
    decide(world.sessions, person, item, Decision.CONFIRMED, note=note, undo_seconds=0)
    settle(world.sessions)
