"""Verifying what nobody harmed: it is whole, whoever is at work, and says what it did not see."""

import shutil
import threading
from typing import Any

from filter_service import ledger
from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry
from filter_service.ledger import Entry, Event
from filter_service.ledger.entry_stream import between, waiting
from filter_service.ledger.verification import verify
from tests.support.ledger_entries import leaf_of_columns
from tests.support.sealed_ledger import ERASED, Ledger

pytest_plugins = ["tests.support.ledger_fixtures"]

STRANGE: list[Any] = [[], "x", {"vkey": "x"}, {"policy": []}, {"class": {}}]


def test_the_database_gives_the_same_leaves(sealed: Ledger) -> None:
    with sealed.sessions() as session:
        found = between(session, 0, 10_000)
        found += [written for some in waiting(session) for written in some]
        for written in found:
            e = session.get_one(LedgerEntry, written.entry_id)
            commitment = bytes.fromhex(e.commitment)
            same = leaf_of_columns(e.id, e.at, e.event, e.item_id, e.batch_id, commitment)
            assert written.leaf == same
    assert len(found) == 593


def test_an_untouched_ledger_is_whole(sealed: Ledger) -> None:
    report = sealed.verify()
    assert (report.faults, report.warnings, report.whole) == ((), (), True)
    assert (report.entries, report.waiting) == (590, 3)
    published = list((sealed.folder / "checkpoints").iterdir())
    assert report.checkpoints == report.published == len(published)
    assert (report.explanations, report.policies, len(report.keys)) == (2, 1, 2)


def test_an_erased_payload_leaves_its_commitment(sealed: Ledger) -> None:
    gone = sealed.ask(
        "SELECT count(*) FROM ledger WHERE item_id = :item AND event <> 'erased'", item=ERASED
    )
    assert sealed.verify().erased == gone > 0


def test_an_empty_ledger_is_whole(sessions: Sessions) -> None:
    assert verify(sessions).whole


def test_nothing_is_written(sealed: Ledger) -> None:
    before = sealed.ask("SELECT pg_current_wal_insert_lsn()::text")
    sealed.verify()
    written = "SELECT pg_current_wal_insert_lsn() - CAST(:before AS pg_lsn)"
    assert sealed.ask(written, before=before) < 100_000  # hint bits, and other tests' neighbours


def test_sealing_goes_on_meanwhile(sealed: Ledger) -> None:
    done = threading.Event()

    def work() -> None:
        while not done.is_set():
            sealed.happen(20)
            sealed.seal()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        reports = [sealed.verify() for _ in range(8)]
    finally:
        done.set()
        worker.join()
    assert [report.faults for report in reports] == [()] * 8
    assert reports[-1].entries > reports[0].entries


def test_a_sealer_that_stands_still_is_named(sealed: Ledger) -> None:
    sealed.harm(
        "UPDATE ledger SET at = at - interval '1 hour' "
        "WHERE id IN (SELECT entry_id FROM ledger_unsealed)"
    )
    (warning,) = sealed.verify().warnings
    assert "3 entries wait to be sealed" in warning


def test_what_is_not_published_is_named(sealed: Ledger) -> None:
    sealed.harm(
        "UPDATE ledger_checkpoints SET published_at = NULL, at = at - interval '1 hour' "
        "WHERE size = 260"
    )
    (warning,) = sealed.verify().warnings
    assert "1 checkpoints from size 260 on are not published" in warning


def test_records_of_before_are_told_by_their_content(sealed: Ledger) -> None:
    sealed.harm("UPDATE explanations SET record = record::jsonb::json")  # as databases wrote them
    assert sealed.verify().whole


def test_who_trusts_the_first_key_trusts_its_heirs(sealed: Ledger) -> None:
    first, second = sealed.verify().keys
    assert sealed.verify(first).whole
    assert sealed.verify(second, first).whole
    assert "none of the keys that were given" in sealed.verify(second).faults[0]


def test_a_ledger_published_elsewhere_is_told(sealed: Ledger) -> None:
    sealed.harm("UPDATE ledger_checkpoints SET published_at = NULL, at = now()")
    shutil.rmtree(sealed.folder)
    report = sealed.verify()
    assert report.whole
    (warning,) = report.warnings
    assert warning.startswith("NOTHING OUTSIDE THE DATABASE WAS COMPARED")
    assert str(sealed.folder) in warning


def test_details_that_postgres_cannot_read_stop_nobody(sealed: Ledger) -> None:
    nul, gone = {"class": "\0"}, {"parts": ["\0", "explanations"]}
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.EXPLAINED, "eve", ERASED, details=nul)])
        ledger.append(session, [Entry(Event.EXPLAINED, "eve", 3, details=nul)])
        ledger.append(session, [Entry(Event.EXPIRED, "eve", ERASED, details=gone)])
    sealed.seal()
    (fault,) = sealed.verify().faults
    assert "The explanation of item 3 for '\\x00'" in fault


def test_a_number_without_end_stops_nobody(sealed: Ledger) -> None:
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.JUDGED, "eve", 3)])
    number = f'{{"x":{"9" * 5000}}}'
    there = "entry_id = (SELECT max(id) FROM ledger)"
    sealed.harm(
        f"UPDATE ledger_payloads SET details = CAST(:told AS json) WHERE {there}",
        "UPDATE ledger SET commitment = sha256(salt || convert_to("
        f"""'{{"actor":"eve","details":' || :told || '}}', 'UTF8')) """
        f"FROM ledger_payloads WHERE entry_id = id AND {there}",
        told=number,
    )
    sealed.seal()
    assert sealed.verify().faults == ()


def test_strange_details_stop_nobody(sealed: Ledger) -> None:
    with sealed.sessions.begin() as session:
        for details in STRANGE:
            for event in (Event.JUDGED, Event.EXPLAINED):
                ledger.append(session, [Entry(event, "eve", details=details)])
    sealed.seal()
    with sealed.sessions.begin() as session:  # which no sealer would seal
        for details in STRANGE:
            ledger.append(session, [Entry(Event.SIGNER_ADDED, "eve", details=details)])
    assert not sealed.verify().whole


def test_an_erasure_excuses_nothing_that_came_after_it(sealed: Ledger) -> None:
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.CLAIMED, "eve", ERASED)])
    late = "id = (SELECT max(id) FROM ledger)"
    sealed.harm(
        f"UPDATE ledger SET at = at + interval '1 hour' WHERE {late}",
        "DELETE FROM ledger_payloads WHERE entry_id = (SELECT max(id) FROM ledger)",
    )
    (fault,) = sealed.verify().faults
    assert "which waits, is gone, and no entry says that its item was erased" in fault
