"""The decision record: what it tells, what it compares with the ledger, what it proves."""

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, text
from typer.testing import CliRunner

from filter_service import ledger
from filter_service.accounts import Role
from filter_service.audit.record import read
from filter_service.audit.record.event_descriptions import (
    ERASED,
    SENTENCES,
    RecordChapter,
    chapter_of,
    fill_sentence,
    sentence,
    who,
)
from filter_service.audit.record.headline import headline
from filter_service.audit.record.record_file import proofs_in, written_down
from filter_service.audit.record.record_view import Record
from filter_service.audit.record.stored_json import explanation_in
from filter_service.canonical import canonical
from filter_service.cli import app
from filter_service.db.tables import LedgerEntry, StoredExplanation, StoredStatement
from filter_service.errors import InvalidRequest, UnknownItem
from filter_service.images import Limits
from filter_service.ledger import Event
from filter_service.ledger.proofs import check_proof
from filter_service.local import Services
from filter_service.web.http.pages import style
from tests.support import recorded_item as recorded
from tests.support.console_world import World, world_over
from tests.support.review_cases import events_of
from tests.support.web_clients import client_of, key_client

pytest_plugins = ["tests.support.console_fixtures"]


@pytest.fixture(scope="module")
def world(
    admin: Engine, servers: Services, judged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """One in which `subject` has lived."""
    place = tmp_path_factory.mktemp("log")
    settings = {"ledger_key": place / "key", "ledger_url": str(place / "log")}
    with world_over(admin, servers, judged, webhook_private=True, **settings) as found:
        yield found


@pytest.fixture(scope="module")
def subject(world: World) -> int:
    return recorded.lived(world)


@pytest.fixture(scope="module")
def owner(world: World) -> Iterator[Engine]:
    with recorded.owned(world) as found:
        yield found


@pytest.fixture
def record(world: World, subject: int) -> Record:
    return Record(recorded.life(world, subject))


def entry(event: str, actor: str | None = "person anna", **details: object) -> LedgerEntry:
    """One that nobody wrote."""
    known = details if actor is not None else None
    at = datetime(2026, 1, 31, tzinfo=UTC)
    return LedgerEntry(id=1, at=at, event=event, item_id=1, actor=actor, details=known)


@pytest.mark.parametrize("event", Event)
def test_every_event_has_a_sentence(event: Event) -> None:
    bare = sentence(entry(event.value))
    assert bare[0].isupper() and bare.endswith(".")
    assert not set("{}[]") & set(bare)
    assert ERASED in sentence(entry(event.value, None))


@pytest.mark.parametrize("event", Event)
def test_what_a_sentence_names_is_put_in(event: Event) -> None:
    names = dict.fromkeys(_names(SENTENCES[event]) - {"who"}, "a word")
    said = sentence(entry(event.value, "person anna", **names))
    assert said.lower().count("a word") >= len(names)


def test_an_event_of_a_later_release_is_told() -> None:
    assert sentence(entry("sung")) == "Sung, by anna."
    assert chapter_of("sung") is RecordChapter.AROUND


def test_details_are_never_read_as_a_pattern() -> None:
    assert fill_sentence("{who} said[: {reason}].", {"who": "anna", "reason": "{who} [x]"}) == (
        "Anna said: {who} [x]."
    )


def test_actors_are_called_as_people_would() -> None:
    assert [who("person anna"), who("key shop"), who("service")] == [
        *("anna", "the platform shop", "the service")
    ]


def test_a_whole_life_is_on_one_page(world: World, subject: int) -> None:
    client = client_of(world.app, world.sessions, Role.AUDITOR)
    page = client.get(f"/items/{subject}/record").text
    with world.sessions.begin() as session:
        query = text("SELECT id, event FROM ledger WHERE item_id = :item ORDER BY id")
        entries = session.execute(query, {"item": subject}).all()
    assert [e.event for e in entries][: len(recorded.ORDER)] == recorded.ORDER
    for e in entries:
        assert f'href="/audit/entries/{e.id}"' in page
    for said in (
        *("Flagged for alcohol", "Confirmed by sue. On appeal the flag stood."),
        *("Pictures of alcoholic drinks are not allowed.", "a cocktail", "uncalibrated"),
        *("Ben saw the picture unblurred", "Ben took the decision back", recorded.NOTE),
        *(recorded.STATEMENT, "review.decided", "appeal.closed", "delivered", "204"),
        *("No statement of reasons was issued.", "nothing of it was deleted"),
        "Agrees with the ledger",
    ):
        assert said in page, said


def test_reading_a_record_is_written_down(world: World, subject: int) -> None:
    life = read(world.sessions, subject, "person nina", "page")
    last = life.entries[-1]
    assert (last.event, last.actor, last.details) == ("record read", "person nina", {"as": "page"})


def test_nothing_is_written_for_no_item(world: World) -> None:
    with pytest.raises(UnknownItem, match="no item 999999"):
        read(world.sessions, 999_999, "person nina", "page")
    assert events_of(world.sessions, 999_999) == []


def test_an_untouched_record_agrees_with_the_ledger(record: Record) -> None:
    assert record.broken == []
    what = {check.what for check in record.checks}
    assert {"verdict", "margin", "the words of the policy", "encoder", "the image"} <= what
    assert len(what) > 12


@pytest.mark.parametrize("name", ["015.jpg", "063.jpg", "half.jpg", "notes.jpg", "027.jpg"])
def test_other_items_agree_with_the_ledger_too(world: World, name: str) -> None:
    found = Record(recorded.life(world, world.item(name)))
    assert found.broken == []
    assert headline(found.history)


SAID = "who, stage, decision, reason, note, seconds, revealed"
OF_ITEM = "WHERE item_id = :item"
HARM = {  # what somebody with the database could do, and where the record says so
    "UPDATE items SET margin = margin + 0.001 WHERE id = :item": "margin",
    "UPDATE items SET probability = 0.5 WHERE id = :item": "probability",
    "UPDATE items SET verdict = 'clear' WHERE id = :item": "verdict",
    "UPDATE items SET fully_automated = true WHERE id = :item": "the flag acted by itself",
    "UPDATE items SET class_id = class_id - 1 WHERE id = :item": "class",
    "UPDATE images SET digest = sha256('another') FROM items WHERE image_id = images.id"
    " AND items.id = :item": "the image",
    "UPDATE policies SET document = jsonb_set(document, '{classes,0,clause}', '\"Kind.\"')"
    " WHERE :item = :item": "the words of the policy",
    "UPDATE encoders SET fingerprint = sha256('another') WHERE :item = :item": "encoder",
    f"UPDATE explanations SET record = replace(record::text, '0', '1')::json {OF_ITEM}": (
        "the explanation for alcohol"
    ),
    f"DELETE FROM explanations {OF_ITEM}": "the explanation for alcohol",
    f"UPDATE explanations SET record = '[]' {OF_ITEM}": "the explanation for alcohol",
    "UPDATE policies SET document = '[]' WHERE :item = :item": "the words of the policy",
    "UPDATE items SET encoder_id = NULL WHERE id = :item": "encoder",
    "UPDATE scores SET margin = scores.margin + 1 FROM items WHERE scores.image_id = items.image_id"
    " AND items.id = :item": "what was flagged",
    "UPDATE items SET list_entry_id = 1 WHERE id = :item": "the list that decided",
    "UPDATE items SET supersedes = id - 1 WHERE id = :item": "judged anew for",
    "UPDATE items SET supersedes = :item WHERE id = :item + 1": "judged anew as",
    f"UPDATE review_outcomes SET review_id = (SELECT min(id) FROM reviews {OF_ITEM}) {OF_ITEM}": (
        "how it ended"
    ),
    f"UPDATE reviews SET decision = 'overturned' {OF_ITEM}": SAID,
    f"UPDATE reviews SET person_id = 2 {OF_ITEM} AND undone_at IS NOT NULL": (SAID),
    f"UPDATE reviews SET reason = 'bribed' {OF_ITEM}": SAID,
    f"UPDATE reviews SET note = 'all is well' {OF_ITEM}": SAID,
    f"UPDATE reviews SET seconds = 1 {OF_ITEM}": SAID,
    f"UPDATE reviews SET revealed = NOT revealed {OF_ITEM}": SAID,
    f"UPDATE reviews SET undone_at = now() {OF_ITEM}": "undone",
    f"UPDATE reviews SET settled_at = NULL {OF_ITEM}": "took effect",
    f"DELETE FROM reviews {OF_ITEM}": "decision",
    f"UPDATE review_outcomes SET decision = 'overturned' {OF_ITEM}": "how it ended",
    f"DELETE FROM review_outcomes {OF_ITEM}": "how it ended",
    f"UPDATE appeals SET upheld = false {OF_ITEM}": "appeal",
    f"DELETE FROM appeals {OF_ITEM}": "appeal",
    f"UPDATE ledger_payloads SET actor = 'person eve' FROM ledger {OF_ITEM} AND id = entry_id": (
        "the entry itself"
    ),
    f"DELETE FROM ledger_payloads USING ledger {OF_ITEM} AND id = entry_id": "the entry itself",
    f"UPDATE ledger SET at = at + interval '1 day' {OF_ITEM}": "the entry itself",
    f"UPDATE ledger SET event = 'fetched' {OF_ITEM} AND event = 'judged'": "the entry itself",
    "UPDATE ledger_tiles SET hashes = sha256('other') WHERE level = :item * 0": "the entry itself",
}


@pytest.mark.parametrize("harm", HARM)
def test_harm_is_shown_loudly(world: World, subject: int, owner: Engine, harm: str) -> None:
    broken = Record(recorded.after(owner, subject, harm)).broken
    assert any(HARM[harm] in check.what for check in broken), [c.what for c in broken]


@pytest.mark.parametrize("table", ["explanations SET record", "policies SET document"])
def test_what_cannot_be_read_is_shown_all_the_same(
    world: World, subject: int, owner: Engine, table: str
) -> None:
    life = recorded.after(owner, subject, f"UPDATE {table} = '{{}}' WHERE :item = :item")
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    assert "cannot be read" in html and "does not agree with the ledger" in html


LOOK_ALIKES = """
    UPDATE policies SET document = jsonb_set(document, '{classes}', (
        SELECT jsonb_agg(
            c || jsonb_build_object('look_alikes', jsonb_build_array('a glass of tea'))
        )
        FROM jsonb_array_elements(document -> 'classes') c
    )) WHERE :item = :item
"""


def test_look_alikes_stand_beside_what_else_a_class_is_contrasted_with(
    world: World, subject: int, owner: Engine
) -> None:
    life = recorded.after(owner, subject, LOOK_ALIKES)
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    against, theirs = html.split("<dt>Against</dt>")[1].split("<dt>Against its look-alikes</dt>")
    assert "<q>a dog</q>" in against and "<q>a glass of tea</q>" not in against
    assert theirs.startswith("<dd><q>a glass of tea</q></dd>")


FIRST_SCHEMA = """
    UPDATE explanations SET record = CAST(record AS jsonb) || jsonb_build_object(
        'schema_version', 1, 'proof', jsonb_build_object(
            'explained_error', 0, 'sum_error', 0, 'top_drop', 4, 'fifth_drop', 5,
            'random_drops', jsonb_build_array(1, 2), 'random_fifth_drops', jsonb_build_array(2, 3)
        )
    ) WHERE :item = item_id
"""


@pytest.mark.parametrize(
    ("change", "weakest"), [("SELECT :item", True), (FIRST_SCHEMA, False)], ids=["2", "1"]
)
def test_the_test_of_a_map_is_shown_in_records_of_both_schemas(
    world: World, subject: int, owner: Engine, change: str, weakest: bool
) -> None:
    life = recorded.after(owner, subject, change)
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    assert "without the top tenth" in html and "cannot be read" not in html
    assert ("without the weakest" in html) is weakest


TWO = [1.0, 1.0]
DROPS = {"marked": TWO, "least": TWO, "random": [TWO, TWO], "whole": 1.0, "served": 1.0}


@pytest.mark.parametrize(
    ("part", "changed"),
    [
        ("map", {"grid": {"shape": [1], "float16": "AAA="}}),
        ("map", {"grid": {"shape": [1]}}),
        ("proof", {"drops": {**DROPS, "random": []}}),
        ("proof", {"drops": {**DROPS, "least": [1.0]}}),
        ("images", [{"digest": "none", "degrees": 1.0, "margin": 1.0}]),
    ],
)
def test_half_an_explanation_is_none(world: World, part: str, changed: Any) -> None:
    with world.sessions.begin() as session:
        record = session.scalars(select(StoredExplanation.record)).first()
    assert record is not None and explanation_in(json.dumps(record)) is not None
    record[part] = {**record[part], **changed} if isinstance(changed, dict) else changed
    assert explanation_in(json.dumps(record)) is None


@pytest.fixture(scope="module")
def stated(world: World) -> int:
    """An item with a statement of reasons."""
    item, puid, document, notice = world.item("063.jpg"), uuid.uuid4(), {"a": 1}, "Removed."
    row = {"puid": puid, "item_id": item, "language": "en", "document": document, "notice": notice}
    said = {
        "puid": str(puid),
        "document": sha256(canonical(document).encode()).hexdigest(),
        "notice": sha256(notice.encode()).hexdigest(),
    }
    with world.sessions.begin() as session:
        session.execute(insert(StoredStatement).values(row))
        ledger.append(session, [ledger.Entry(Event.STATED, "service", item, details=said)])
    return item


@pytest.mark.parametrize(
    "harm", ["notice = 'Nothing.'", "document = '{\"a\": 2}'", "withdrawn_at = now()"]
)
def test_another_statement_than_was_issued_is_told(
    world: World, stated: int, owner: Engine, harm: str
) -> None:
    assert Record(recorded.life(world, stated)).broken == []
    changed = recorded.after(owner, stated, f"UPDATE statements SET {harm} {OF_ITEM}")
    assert [c.what[:20] for c in Record(changed).broken] == ["statement of reasons"]


def test_a_record_that_does_not_agree_says_so_on_its_page(world: World, owner: Engine) -> None:
    item = world.item("000.jpg")
    with owner.begin() as connection:
        change = text("UPDATE items SET margin = margin + 0.25 WHERE id = :item")
        connection.execute(change, {"item": item})
    page = client_of(world.app, world.sessions, Role.AUDITOR).get(f"/items/{item}/record").text
    assert "This record does not agree with the ledger." in page
    assert "Table and ledger disagree</b> about margin" in page
    assert 'class="entry wrong' in page


@pytest.mark.parametrize(
    "details",
    ["[]", '"gone"', "7", '{"flags": 7}', '{"flags": {"alcohol": "x"}}', '{"review": [1]}'],
)
def test_entries_that_say_nonsense_are_shown_all_the_same(
    world: World, subject: int, owner: Engine, details: str
) -> None:
    harm = f"UPDATE ledger_payloads SET details = '{details.replace(':', chr(92) + ':')}' "
    life = recorded.after(owner, subject, f"{harm} FROM ledger {OF_ITEM} AND id = entry_id")
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    assert "does not agree with the ledger" in html
    assert html.count("What it says is not what it committed to.") >= len(life.entries)


def test_a_payload_that_nobody_erased_is_not_called_erased(
    world: World, subject: int, owner: Engine
) -> None:
    harm = f"DELETE FROM ledger_payloads USING ledger {OF_ITEM} AND id = entry_id"
    life = recorded.after(owner, subject, harm)
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    assert html.count("payload gone, and nothing erased it") == len(life.entries)
    assert "payload erased" not in html


def test_proofs_of_the_file_convince_the_checker(
    world: World, subject: int, tmp_path: Path
) -> None:
    vkey = recorded.seal_all(world)
    life = recorded.life(world, subject)
    html = written_down(
        world.service.storage, Limits.of(world.service.settings), life, frozenset(), style()
    )
    proven = check_proof(json.loads(proofs_in(html)), [vkey])
    assert (proven.item, proven.entries, proven.waiting) == (subject, len(life.entries), 0)
    file = tmp_path / "record.html"
    file.write_text(html, encoding="utf-8")
    said = CliRunner().invoke(app, ["audit", "check", str(file), "--key", vkey])
    assert said.exit_code == 0 and f"{len(life.entries)} entries of item {subject}" in said.output
    with pytest.raises(InvalidRequest, match="no proofs"):
        proofs_in("<p>Nothing.</p>")


def test_a_file_is_sent_as_an_attachment_that_asks_for_nothing(world: World, subject: int) -> None:
    answer = client_of(world.app, world.sessions, Role.AUDITOR).get(f"/items/{subject}/record.html")
    assert answer.headers["content-disposition"] == f'attachment; filename="record-{subject}.html"'
    html = answer.text
    assert html.count('src="data:image/') == html.count('src="') == 4
    assert "url(" not in html and "<link" not in html and 'href="http' not in html
    assert "<script>" not in html


def test_an_entry_shows_its_way_to_the_root(world: World, subject: int) -> None:
    client = client_of(world.app, world.sessions, Role.AUDITOR)
    life = recorded.life(world, subject)
    first = life.entries[0].id
    page = client.get(f"/audit/entries/{first}").text
    place = life.places[first]
    assert place.inclusion is not None
    assert all(beside.hex() in page for beside in place.inclusion.proof)
    assert place.commitment in page and "sealed at position" in page
    assert client.get("/audit/entries/999999").status_code == 404


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.SENIOR, Role.POLICY_EDITOR, Role.CUSTODIAN])
def test_only_auditors_read_records(world: World, subject: int, role: Role) -> None:
    client = client_of(world.app, world.sessions, role)
    for path in ("/audit", f"/items/{subject}/record", f"/items/{subject}/record.html"):
        assert client.get(path).status_code == 403
    assert client.get("/audit/entries/1").status_code == 403


def test_platforms_read_no_records(world: World, subject: int) -> None:
    client = key_client(world.app, world.sessions, "curious")
    assert client.get(f"/items/{subject}/record").status_code == 403


def test_auditors_of_some_classes_see_no_others(world: World, subject: int) -> None:
    client = client_of(world.app, world.sessions, Role.AUDITOR, "wanda", classes=("weapons",))
    before = events_of(world.sessions, subject)
    assert client.get(f"/items/{subject}/record").status_code == 403
    assert client.get(f"/items/{subject}/record.html").status_code == 403
    first = recorded.life(world, subject).entries[0].id
    assert client.get(f"/audit/entries/{first}").status_code == 403
    assert events_of(world.sessions, subject) == before
    assert f'"/items/{subject}/record"' not in client.get("/audit").text


def _names(written: str) -> set[str]:
    return set(re.findall(r"{(\w+)}", written))
