"""Fifty people at the real pages, whose server is killed: no decision is lost or made twice."""

import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy import func, select

from filter_service.accounts import Role
from filter_service.accounts.logins import open_session
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry, Review, ReviewCase, ReviewOutcome
from filter_service.ledger import Event
from filter_service.reviews.settlement import settle
from filter_service.settings import Settings
from filter_service.web.http.access import cookie_name, csrf_token
from tests.support.review_cases import Wanted, cases_of
from tests.support.serving import serving
from tests.support.web_clients import somebody

PEOPLE, CASES = 50, 160
KILLS = (30, 90)  # decisions after which the server dies
PATIENCE = 120.0  # seconds


@dataclass
class Floor:
    """Where the server is just now, and what it has answered."""

    settings: Settings
    address: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    answered: list[tuple[int, str]] = field(default_factory=list)  # item and who decided it
    strange: list[str] = field(default_factory=list)
    interrupted: int = 0

    def work(self, login: str, token: str) -> None:
        """Claim, look and decide until it is over, as a browser does by key."""
        headers = {"X-CSRF-Token": csrf_token(token), "Accept": "application/json"}
        cookies = {cookie_name(self.settings): token}
        with httpx.Client(headers=headers, cookies=cookies, timeout=60) as browser:
            while not self.over.is_set():
                try:
                    self._one(browser, login)
                except httpx.TransportError:
                    self.interrupted += 1
                    time.sleep(0.1)

    def _one(self, browser: httpx.Client, login: str) -> None:
        if not self.address:
            time.sleep(0.1)  # the first server is still starting
            return
        to = browser.post(f"{self.address}/queue/next").headers.get("location", "")
        if (found := re.search(r"/items/(\d+)", to)) is None:
            time.sleep(0.2)  # nothing waits
            return
        page = f"{self.address}/items/{found[1]}"
        self._expect(browser.get(page, headers={"Accept": "text/html"}), 200)
        self._expect(browser.post(f"{page}/beat"), 204, 409)
        said = "overturned" if int(found[1]) % 3 else "confirmed"
        answer = browser.post(f"{page}/decision", data={"decision": said})
        self._expect(answer, 200, 409)  # decided just before the server died, and asked again
        if answer.status_code == httpx.codes.OK:
            self.answered.append((int(found[1]), login))

    def _expect(self, answer: httpx.Response, *statuses: int) -> None:
        if answer.status_code not in statuses:
            self.strange.append(f"{answer.url}: {answer.status_code} {answer.text[:300]}")


def count(sessions: Sessions, table: type[Review] | type[ReviewOutcome]) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_killed_server_loses_no_decision(
    database_url: str, broker_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        storage_url=(tmp_path / "images").as_uri(),
        undo_seconds=0.5,
        review_lease_seconds=5,
    )
    items = cases_of(sessions, [Wanted(margin=float(i)) for i in range(CASES)])
    people = [somebody(sessions, Role.MODERATOR, f"person-{i}") for i in range(PEOPLE)]
    with sessions.begin() as session:
        tokens = [open_session(session, p, "127.0.0.1", "test", hours=1) for p in people]
    logins = {p.id: p.login for p in people}
    floor = Floor(settings)
    deadline = time.monotonic() + PATIENCE
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(PEOPLE))
        stack.callback(floor.over.set)
        at_work = [
            pool.submit(floor.work, *who) for who in zip(logins.values(), tokens, strict=True)
        ]
        for kill in (*KILLS, None):
            with serving(settings, tmp_path / "serve.log") as (process, floor.address):
                while count(sessions, ReviewOutcome) < CASES:
                    settle(sessions)
                    assert time.monotonic() < deadline, floor.strange
                    if kill is not None and count(sessions, Review) >= kill:
                        break
                    time.sleep(0.05)
                process.send_signal(signal.SIGKILL if kill is not None else signal.SIGTERM)
                process.wait()
    for done in at_work:
        done.result()
    assert not floor.strange
    assert floor.interrupted
    with sessions.begin() as session:
        made = session.execute(select(Review.item_id, Review.person_id)).all()
        entries = select(LedgerEntry.event, func.count()).group_by(LedgerEntry.event)
        told = dict(session.execute(entries).all())
        assert session.scalar(select(func.count()).select_from(ReviewCase)) == 0
    decided = {(item, logins[person]) for item, person in made}
    assert sorted(item for item, _ in made) == sorted(items)  # each exactly once
    assert set(floor.answered) <= decided  # what was answered stands
    assert told[Event.DECIDED] == told[Event.SETTLED] == CASES
