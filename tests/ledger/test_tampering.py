"""Whatever somebody changes who owns the database, verifying fails and names the place."""

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest

from filter_service import ledger
from filter_service.db.tables import (
    LedgerPayload,
    LedgerRow,
    SealedEntry,
    StoredCheckpoint,
    StoredExplanation,
    StoredPolicy,
    StoredSigner,
    Tile,
)
from filter_service.errors import InvalidRequest
from filter_service.ledger import Entry, Event
from filter_service.ledger.notes import SigningKey, sign, split
from filter_service.ledger.sealer import seal
from filter_service.ledger.signers import signer_of
from filter_service.ledger.verification import verify
from tests.support.sealed_ledger import CHUNK, Ledger

pytest_plugins = ["tests.support.ledger_fixtures"]

CLEAR = 5  # an item that nobody looked at
CHANGED = "is not what was sealed at position 200"
THERE = "(SELECT entry_id FROM ledger_sealed WHERE position = 200)"
COLUMNS = {  # table.column: how it is changed, and what is said of it
    "ledger.id": (
        f"ALTER TABLE ledger ALTER id DROP IDENTITY; "
        f"UPDATE ledger SET id = id + 1000000 WHERE id = {THERE}",
        "Position 200 is that of entry",
    ),
    "ledger.at": (f"UPDATE ledger SET at = at + '1 us'::interval WHERE id = {THERE}", CHANGED),
    "ledger.event": (f"UPDATE ledger SET event = 'claimed' WHERE id = {THERE}", CHANGED),
    "ledger.item_id": (f"UPDATE ledger SET item_id = 4 WHERE id = {THERE}", CHANGED),
    "ledger.batch_id": (
        f"UPDATE ledger SET batch_id = gen_random_uuid() WHERE id = {THERE}",
        CHANGED,
    ),
    "ledger.commitment": (
        f"UPDATE ledger SET commitment = sha256(commitment) WHERE id = {THERE}",
        f"{CHANGED}: its commitment was changed",
    ),
    "ledger_payloads.entry_id": (
        f"UPDATE ledger_payloads SET entry_id = entry_id + 1000000 WHERE entry_id = {THERE}",
        "at position 200 is gone, and no entry says",
    ),
    "ledger_payloads.salt": (
        f"UPDATE ledger_payloads SET salt = sha256(salt) WHERE entry_id = {THERE}",
        "at position 200 is not what it committed to",
    ),
    "ledger_payloads.actor": (
        f"UPDATE ledger_payloads SET actor = 'person eve' WHERE entry_id = {THERE}",
        "at position 200 is not what it committed to",
    ),
    "ledger_payloads.details": (
        f"UPDATE ledger_payloads SET details = '{{ }}' WHERE entry_id = {THERE}",
        "at position 200 is not what it committed to",
    ),
    "ledger_sealed.position": (
        "UPDATE ledger_sealed SET position = 1000000 WHERE position = 200",
        "Nothing is sealed at position 200",
    ),
    "ledger_sealed.entry_id": (
        "UPDATE ledger_sealed SET entry_id = 1000000 WHERE position = 200",
        "Position 200 is that of entry 1000000",
    ),
    "ledger_tiles.level": (
        "UPDATE ledger_tiles SET level = 5 WHERE level = 1",
        "Tile 0 of level 1, over the positions 0 to 511, is gone",
    ),
    "ledger_tiles.number": (
        "UPDATE ledger_tiles SET number = 77 WHERE level = 0 AND number = 0",
        "Tile 0 of level 0 has no hash for position 0",
    ),
    "ledger_tiles.hashes": (
        "UPDATE ledger_tiles SET hashes = set_byte(hashes, 200 * 32, 7) "
        "WHERE level = 0 AND number = 0",
        "Tile 0 of level 0 does not have the hash that was sealed at position 200",
    ),
    "ledger_checkpoints.size": (
        "UPDATE ledger_checkpoints SET size = 250 WHERE size = 260",
        "The checkpoint of size 250 was signed for the size 260",
    ),
    "ledger_checkpoints.root": (
        "UPDATE ledger_checkpoints SET root = sha256(root) WHERE size = 260",
        "The root in the row of the checkpoint of size 260 is not the one that was signed",
    ),
    "ledger_checkpoints.note": (
        "UPDATE ledger_checkpoints SET note = replace(note, '260', '261') WHERE size = 260",
        "The checkpoint of size 260 does not hold: The signature of",
    ),
    "ledger_signers.id": (
        "ALTER TABLE ledger_signers ALTER id DROP IDENTITY; "
        "UPDATE ledger_signers SET id = id + 1000 WHERE id = (SELECT min(id) FROM ledger_signers)",
        "The checkpoint of size 130 does not hold",
    ),
    "ledger_signers.vkey": (
        "UPDATE ledger_signers SET vkey = 'eve+00000000+AA==' WHERE id = "
        "(SELECT max(id) FROM ledger_signers)",
        "The key eve+00000000+AA== is among the signers, but no entry tells of it",
    ),
    "explanations.item_id": (
        "UPDATE explanations SET item_id = 5 WHERE item_id = 3",
        "Item 5 has an explanation for 'knife' of which no entry tells",
    ),
    "explanations.class_id": (
        "UPDATE explanations SET class_id = class_id + 1 WHERE item_id = 3",
        "Item 3 has an explanation for 'gun' of which no entry tells",
    ),
    "explanations.encoder_id": (
        "UPDATE explanations SET encoder_id = 77 WHERE item_id = 3",
        "The explanation of item 3 for 'knife', of which entry",
    ),
    "explanations.faithful": (
        "UPDATE explanations SET faithful = NOT faithful WHERE item_id = 3",
        "The explanation of item 3 for 'knife' is not the one that entry",
    ),
    "explanations.record": (
        """UPDATE explanations SET record = '{"class_name":"knives"}' WHERE item_id = 3""",
        "The explanation of item 3 for 'knife' is not the one that entry",
    ),
    "policies.digest": (
        "UPDATE policies SET digest = sha256(digest)",
        "is not there: it was deleted, or has another digest now",
    ),
    "policies.name": ("UPDATE policies SET name = 'shops'", "The policy 'shops' is not the one"),
    "policies.document": (
        "UPDATE policies SET document = jsonb_set(document, '{classes,0,threshold}', '0.9')",
        "The policy 'shop' is not the one of digest",
    ),
}
IRRELEVANT = {
    "ledger_checkpoints.at",  # what proves the time is outside; see docs/audit.md
    "ledger_checkpoints.published_at",  # what was published is looked for by itself
    "ledger_signers.added_at",
    "ledger_signers.entry_id",  # the entries themselves tell of keys
    "explanations.created_at",
    "policies.id",
    "policies.created_at",
}


def faults(sealed: Ledger) -> Sequence[str]:
    """What verifying finds, which is something."""
    report = sealed.verify()
    assert not report.whole
    assert report.broken >= len(report.faults) > 0
    return report.faults


def test_every_column_has_its_change() -> None:
    tables = (
        LedgerRow,
        LedgerPayload,
        SealedEntry,
        Tile,
        StoredCheckpoint,
        StoredSigner,
        StoredExplanation,
        StoredPolicy,
    )
    columns = {f"{t.__tablename__}.{c.name}" for t in tables for c in t.__table__.columns}
    assert columns == COLUMNS.keys() | IRRELEVANT


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_column_is_named(sealed: Ledger, column: str) -> None:
    change, said = COLUMNS[column]
    sealed.harm(*change.split("; "))
    assert said in "\n".join(faults(sealed))


@pytest.mark.parametrize("moment", ["infinity", "0001-01-01", "294276-12-31"])
def test_a_time_beyond_reckoning_is_named(sealed: Ledger, moment: str) -> None:
    sealed.harm(f"UPDATE ledger SET at = '{moment}' WHERE id = {THERE}")
    assert CHANGED in faults(sealed)[0]


@pytest.mark.parametrize(
    ("deletion", "said"),
    [
        (f"DELETE FROM ledger WHERE id = {THERE}", "Position 200 is that of entry"),
        ("DELETE FROM ledger_sealed WHERE position = 200", "Nothing is sealed at position 200"),
        (
            f"DELETE FROM ledger_payloads WHERE entry_id = {THERE}",
            "at position 200 is gone, and no entry says",
        ),
        ("DELETE FROM ledger_tiles WHERE level = 0 AND number = 1", "Tile 1 of level 0"),
        ("DELETE FROM ledger_tiles WHERE level = 1", "Tile 0 of level 1"),
        (
            "DELETE FROM ledger_checkpoints WHERE size = 260",
            "The checkpoint of size 260 was published, but is not in the database",
        ),
        ("DELETE FROM explanations WHERE item_id = 3", "The explanation of item 3"),
        ("DELETE FROM policies", "The policy of digest"),
        (
            "DELETE FROM ledger WHERE id = (SELECT max(entry_id) FROM ledger_unsealed)",
            "waits, but was deleted",
        ),
        (
            "DELETE FROM ledger_unsealed",
            "is neither sealed nor waits to be",
        ),
    ],
)
def test_a_deleted_row_is_named(sealed: Ledger, deletion: str, said: str) -> None:
    sealed.harm(deletion)
    assert said in "\n".join(faults(sealed))


INSERTED = """
    INSERT INTO ledger (id, at, event, item_id, batch_id, commitment) OVERRIDING SYSTEM VALUE
    SELECT 1000000, at, event, 77, batch_id, commitment FROM ledger WHERE id = 200
"""
PAYLOAD = """
    INSERT INTO ledger_payloads (entry_id, salt, actor, details)
    SELECT 1000000, salt, actor, details FROM ledger_payloads WHERE entry_id = 200
"""


def test_an_inserted_row_is_named(sealed: Ledger) -> None:
    sealed.harm(INSERTED, PAYLOAD)
    assert faults(sealed)[0].startswith("Entry 1000000 (revealed, item 77) is neither sealed nor")


def test_a_row_inserted_in_the_middle_is_named(sealed: Ledger) -> None:
    renumbered = (
        "UPDATE ledger_sealed SET position = position + 1000000 WHERE position >= 200",
        "UPDATE ledger_sealed SET position = position - 999999 WHERE position >= 200",
    )
    placed = "INSERT INTO ledger_sealed VALUES (200, 1000000)"
    sealed.harm(INSERTED, PAYLOAD, *renumbered, placed)
    first, second, *_ = faults(sealed)
    assert first.startswith(f"Entry 1000000 (revealed, item 77) {CHANGED}")
    assert "is not what was sealed at position 201: it was sealed at position 200" in second


def test_a_row_inserted_at_the_end_is_named(sealed: Ledger) -> None:
    end = sealed.ask("SELECT max(position) + 1 FROM ledger_sealed")
    sealed.harm(INSERTED, PAYLOAD, f"INSERT INTO ledger_sealed VALUES ({end}, 1000000)")
    first, second = faults(sealed)
    assert f"no hash for position {end}, of entry 1000000 (revealed, item 77)" in first
    assert f"The entries at the positions {end} to {end} are in no checkpoint" in second


def test_two_swapped_rows_are_named(sealed: Ledger) -> None:
    other = THERE.replace("200", "210")
    swap = f"""
        UPDATE ledger_sealed SET entry_id = CASE position WHEN 200 THEN {other} ELSE {THERE} END
        WHERE position IN (200, 210)
    """
    sealed.harm("ALTER TABLE ledger_sealed DROP CONSTRAINT ledger_sealed_entry_id_key", swap)
    first, second = faults(sealed)
    assert f"{CHANGED}: it was sealed at position 210" in first
    assert "at position 210: it was sealed at position 200" in second


def test_an_inserted_tile_is_named(sealed: Ledger) -> None:
    sealed.harm("INSERT INTO ledger_tiles SELECT 0, 77, hashes FROM ledger_tiles WHERE level = 1")
    assert "Level 0 of the tree has 4 tiles, but 3 belong there" in faults(sealed)[0]


@pytest.mark.parametrize("position", [-1, 10**15])
def test_a_place_that_the_tree_has_not_is_named(sealed: Ledger, position: int) -> None:
    sealed.harm(
        "ALTER TABLE ledger_sealed DROP CONSTRAINT ledger_sealed_position_check",
        f"UPDATE ledger_sealed SET position = {position} WHERE position = 200",
    )
    first, *_, last = faults(sealed)
    assert "Nothing is sealed at position 200" in first
    assert f"is sealed at position {position}, which the tree has not" in last


def test_a_changed_payload_that_waits_is_named(sealed: Ledger) -> None:
    there = "(SELECT max(entry_id) FROM ledger_unsealed)"
    sealed.harm(f"UPDATE ledger_payloads SET actor = 'eve' WHERE entry_id = {there}")
    assert "which waits, is not what it committed to" in faults(sealed)[0]


def test_an_added_explanation_is_named(sealed: Ledger) -> None:
    added = "SELECT 5, class_id, encoder_id, faithful, record, created_at"
    sealed.harm(f"INSERT INTO explanations {added} FROM explanations WHERE item_id = 3")
    assert "Item 5 has an explanation for 'knife' of which no entry tells" in faults(sealed)[0]


def cut(size: int) -> list[str]:
    """What brings the tree back to an earlier checkpoint, all but the entries themselves."""
    full, rest = divmod(size, 256)
    return [
        f"DELETE FROM ledger_sealed WHERE position >= {size}",
        f"DELETE FROM ledger_checkpoints WHERE size > {size}",
        f"DELETE FROM ledger_tiles WHERE number > {full} OR number = {full} AND {rest} = 0",
        f"UPDATE ledger_tiles SET hashes = substr(hashes, 1, {rest} * 32) "
        f"WHERE level = 0 AND number = {full}",
        f"DELETE FROM ledger_tiles WHERE level = 1 AND {full} = 0",
        f"UPDATE ledger_tiles SET hashes = substr(hashes, 1, {full} * 32) WHERE level = 1",
    ]


GONE = "NOT EXISTS (SELECT FROM ledger_sealed s WHERE s.entry_id = {})"
WAITS = f"INSERT INTO ledger_unsealed SELECT id FROM ledger WHERE {GONE.format('id')}"


def sizes(sealed: Ledger) -> list[int]:
    found = sealed.ask("SELECT array_agg(size ORDER BY size) FROM ledger_checkpoints")
    return list(found)


def rewrite(sealed: Ledger, size: int) -> int:
    """Change an entry with its payload, and seal everything from a size on again; -> its place."""
    commitment = """sha256(salt || convert_to('{"actor":"person eve","details":{}}', 'UTF8'))"""
    entry = sealed.ask(
        "SELECT min(id) FROM ledger JOIN ledger_sealed ON id = entry_id "
        f"WHERE event = 'revealed' AND position > {size}"
    )
    ends = [end for end in sizes(sealed) if end > size]
    sealed.harm(
        *cut(size),
        "DELETE FROM ledger_unsealed",
        WAITS,
        f"UPDATE ledger SET commitment = {commitment} FROM ledger_payloads "
        f"WHERE entry_id = id AND id = {entry}",
        f"""UPDATE ledger_payloads SET actor = 'person eve' WHERE entry_id = {entry}""",
    )
    signer = signer_of(sealed.sessions, sealed.settings)
    for before, end in pairwise([size, *ends]):
        seal(sealed.sessions, signer, end - before)
    return int(sealed.ask(f"SELECT position FROM ledger_sealed WHERE entry_id = {entry}"))


def take_over(sealed: Ledger) -> None:
    """Make it a ledger of somebody else's key, as if there had never been another."""
    sealed.harm(
        "DELETE FROM ledger_payloads USING ledger l "
        "WHERE l.id = entry_id AND l.event = 'signer added'",
        "DELETE FROM ledger_sealed USING ledger l WHERE l.id = entry_id AND event = 'signer added'",
        "DELETE FROM ledger WHERE event = 'signer added'",
        "DELETE FROM ledger_signers",
    )
    sealed.settings.ledger_key_at.unlink()


def test_a_truncated_tail_is_named(sealed: Ledger) -> None:
    *_, size, end = sizes(sealed)
    sealed.harm(
        *cut(size),
        "DELETE FROM ledger_unsealed",
        f"DELETE FROM ledger_payloads WHERE {GONE.format('ledger_payloads.entry_id')}",
        f"DELETE FROM ledger WHERE {GONE.format('id')}",
    )
    assert sealed.verify(published=False).whole  # only what was published tells
    assert faults(sealed)[0] == (
        f"A checkpoint of size {end} was published, but {size} entries are sealed: the end of the "
        "ledger was cut off."
    )


def test_a_tree_rewritten_with_the_same_key_is_named(sealed: Ledger) -> None:
    size = sizes(sealed)[-2]
    position = rewrite(sealed, size)
    assert sealed.verify(published=False).whole  # only what was published tells
    said = faults(sealed)
    assert f"is not what was published at position {position}" in said[0]
    assert "has another root than the one that was published" in "\n".join(said)


def test_a_tree_rewritten_with_a_new_key_is_named(sealed: Ledger) -> None:
    known = sealed.verify().keys
    take_over(sealed)
    rewrite(sealed, 0)
    assert sealed.verify(published=False).whole  # of itself it is all right
    said = "\n".join(faults(sealed))
    assert f"The published checkpoint of size {CHUNK} does not hold: No known key signed" in said
    report = sealed.verify(*known, published=False)
    assert "which is none of the keys that were given" in report.faults[0]
    assert f"The checkpoint of size {CHUNK} does not hold" in report.faults[0]


def test_a_new_key_that_nobody_claims_is_named(sealed: Ledger) -> None:
    rows = sealed.ask("SELECT json_agg(s) FROM ledger_signers s")
    take_over(sealed)
    rewrite(sealed, 0)
    sealed.harm(
        "DELETE FROM ledger_signers",
        "INSERT INTO ledger_signers OVERRIDING SYSTEM VALUE "
        "SELECT * FROM json_populate_recordset(NULL::ledger_signers, :rows)",
        rows=json.dumps(rows),
    )
    report = sealed.verify(published=False)
    assert f"The checkpoint of size {CHUNK} does not hold: No known key signed" in report.faults[0]


def test_a_key_that_nobody_handed_over_to_is_named(sealed: Ledger) -> None:
    *_, size, _ = sizes(sealed)
    eve = SigningKey.new("log.example/test")
    signer = signer_of(sealed.sessions, sealed.settings)
    with sealed.sessions.begin() as session:
        told = {"vkey": eve.vkey, "before": signer.vkey}
        ledger.append(session, [Entry(Event.SIGNER_ADDED, "service", details=told)])
    row = "INSERT INTO ledger_signers (vkey, entry_id) SELECT :vkey, max(id) FROM ledger"
    sealed.harm(row, vkey=eve.vkey)
    sealed.harm(*cut(size), "DELETE FROM ledger_unsealed", WAITS)
    both = replace(signer, before=(eve,))  # without her key at hand nothing would be signed
    assert seal(sealed.sessions, both, 1000) is not None
    note = sealed.ask("SELECT note FROM ledger_checkpoints ORDER BY size DESC LIMIT 1")
    forged = sign(split(note)[0], [eve])
    sealed.harm(
        "UPDATE ledger_checkpoints SET note = :note WHERE size > :size", note=forged, size=size
    )
    report = sealed.verify(published=False)
    assert f"the key {signer.vkey} had to sign it and did not" in "\n".join(report.faults)


def test_a_checkpoint_that_was_unpublished_is_named(sealed: Ledger) -> None:
    (sealed.folder / "checkpoints" / "260").unlink()
    assert "The checkpoint of size 260 was published at" in faults(sealed)[0]


def test_another_published_checkpoint_is_named(sealed: Ledger) -> None:
    kept = sealed.folder / "checkpoints" / "260"
    kept.write_text(kept.read_text().replace("\n260\n", "\n261\n"))
    assert "The published checkpoint of size 260 does not hold" in faults(sealed)[0]


def test_a_kept_checkpoint_outlives_all_others(sealed: Ledger) -> None:
    size = sizes(sealed)[-2]
    kept = [sealed.folder / "checkpoints" / str(size), sealed.folder / "checkpoint"]
    report = verify(sealed.sessions, None, kept=kept)
    assert (report.faults, report.kept) == ((), 2)
    rewrite(sealed, size)
    report = verify(sealed.sessions, None, kept=kept)
    assert report.kept == 1
    assert (
        f"The tree of 590 entries has another root than the checkpoint in {kept[1]}"
        in (report.faults[0])
    )


def test_a_kept_checkpoint_tells_of_what_was_cut_off(sealed: Ledger) -> None:
    sealed.harm(*cut(260), "DELETE FROM ledger_unsealed", WAITS)
    kept = sealed.folder / "checkpoint"
    (fault,) = verify(sealed.sessions, None, kept=[kept]).faults
    assert f"The checkpoint in {kept} is of size 590, but 260 entries are sealed here" in fault


def test_only_a_checkpoint_can_have_been_kept(sealed: Ledger, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x\n")
    for name in ("key", "nothing"):
        with pytest.raises(InvalidRequest, match="is not a checkpoint"):
            verify(sealed.sessions, None, kept=[tmp_path / name])


def test_a_hash_shortened_with_its_entry_deleted_is_named(sealed: Ledger) -> None:
    place = "(SELECT entry_id FROM ledger_sealed WHERE position = 580)"
    sealed.harm(
        "ALTER TABLE ledger_tiles DROP CONSTRAINT ledger_tiles_hashes_check",
        "UPDATE ledger_tiles SET hashes = substr(hashes, 1, 68 * 32) || '-'::bytea || "
        "substr(hashes, 69 * 32 + 1) WHERE level = 0 AND number = 2",
        f"DELETE FROM ledger_payloads WHERE entry_id = {place}",
        f"DELETE FROM ledger WHERE id = {place}",
        "DELETE FROM ledger_sealed WHERE position = 580",
    )
    assert "Nothing is sealed at position 580 any more" in faults(sealed)[0]


@pytest.mark.parametrize("late", [False, True])
def test_an_erasure_that_waits_proves_nothing(sealed: Ledger, late: bool) -> None:
    erased = sealed.verify().erased
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.ERASED, "eve", CLEAR)])
    gone = f"SELECT id FROM ledger WHERE item_id = {CLEAR} AND event <> 'erased'"
    sealed.harm(f"DELETE FROM ledger_payloads WHERE entry_id IN ({gone})")
    if late:
        waits = "event <> 'erased' AND id IN (SELECT entry_id FROM ledger_unsealed)"
        sealed.harm(f"UPDATE ledger SET at = at - interval '11 minutes' WHERE {waits}")
    report = sealed.verify()
    assert (report.whole, report.erased) == (not late, erased)
    assert report.unproven == sealed.ask(gone.replace("id", "count(*)", 1)) > 0
    (said,) = report.faults if late else report.warnings
    assert said.startswith(f"NOT PROVEN: {report.unproven} payloads")
    sealed.seal()
    report = sealed.verify()
    assert (report.whole, report.unproven, report.warnings) == (True, 0, ())
    assert report.erased > erased


def test_who_erased_is_never_erased(sealed: Ledger) -> None:
    erased = "SELECT id FROM ledger WHERE event = 'erased'"
    sealed.harm(f"DELETE FROM ledger_payloads WHERE entry_id IN ({erased})")
    (fault,) = faults(sealed)
    assert "is gone, and no erasure takes what says who erased: somebody deleted it" in fault


def test_a_second_entry_excuses_no_other_explanation(sealed: Ledger) -> None:
    told = sealed.ask(
        "SELECT details::text FROM ledger JOIN ledger_payloads ON entry_id = id "
        "WHERE event = 'explained' AND item_id = 3"
    )
    forged = """{"class_name":"knives"}"""
    details = {**json.loads(told), "record": sha256(forged.encode()).hexdigest()}
    with sealed.sessions.begin() as session:
        ledger.append(session, [Entry(Event.EXPLAINED, "eve", 3, details=details)])
    sealed.seal()
    sealed.harm("UPDATE explanations SET record = :forged WHERE item_id = 3", forged=forged)
    (fault,) = faults(sealed)
    assert "The explanation of item 3 for 'knife' is not the one that entry" in fault


@pytest.mark.parametrize("moment", ["infinity", "9999-12-31 23:59:59+00", "0001-01-01 00:00:00+00"])
def test_an_erasure_beyond_reckoning_is_named(sealed: Ledger, moment: str) -> None:
    sealed.harm(f"UPDATE ledger SET at = '{moment}' WHERE event = 'erased'")
    assert "is not what was sealed" in "\n".join(faults(sealed))


@pytest.mark.parametrize(
    "document",
    [
        "jsonb_build_object('x', repeat('9', 5000)::numeric)",
        "(repeat('[', 2000) || repeat(']', 2000))::jsonb",
    ],
)
def test_a_policy_beyond_reading_is_named(sealed: Ledger, document: str) -> None:
    sealed.harm(f"UPDATE policies SET document = {document}")
    assert "The policy 'shop' is not the one of digest" in faults(sealed)[0]


def test_a_published_size_beyond_reckoning_is_named(sealed: Ledger) -> None:
    newest = sealed.folder / "checkpoint"
    newest.write_text(newest.read_text().replace("\n590\n", f"\n{2**63}\n"))
    assert "The newest published checkpoint cannot be read" in faults(sealed)[0]


def test_salt_of_another_length_is_named(sealed: Ledger) -> None:
    there = "entry_id = (SELECT max(entry_id) FROM ledger_unsealed)"
    sealed.harm(
        "ALTER TABLE ledger_payloads DROP CONSTRAINT ledger_payloads_salt_check",
        f"UPDATE ledger_payloads SET salt = salt || 'x'::bytea WHERE {there}",
        'UPDATE ledger SET commitment = sha256(salt || convert_to(\'{"actor":"\' || actor || '
        "'\",\"details\":' || details::text || '}', 'UTF8')) FROM ledger_payloads "
        f"WHERE entry_id = id AND {there}",
    )
    (fault,) = faults(sealed)
    assert "which waits, is not what it committed to" in fault


def test_a_sealed_entry_that_waits_again_is_named(sealed: Ledger) -> None:
    sealed.harm(f"INSERT INTO ledger_unsealed SELECT {THERE}")
    assert "is sealed at position 200 already" in faults(sealed)[0]


def test_a_thousand_lesser_evils_do_not_hide_the_first(sealed: Ledger) -> None:
    sealed.harm(
        "INSERT INTO ledger_checkpoints (size, root, note) SELECT size + n, root, note "
        "FROM ledger_checkpoints, generate_series(1, 1500) AS n WHERE size = 590",
        f"UPDATE ledger SET item_id = 5 WHERE id = {THERE}",
    )
    assert CHANGED in faults(sealed)[0]


def test_a_lesser_evil_does_not_hide_another(sealed: Ledger) -> None:
    for position in range(100, 160):
        there = THERE.replace("200", str(position))
        sealed.harm(f"UPDATE ledger SET item_id = 5 WHERE id = {there}")
    report = sealed.verify()
    assert report.broken == 60
    assert len(report.faults) == 20
    assert "at position 100:" in report.faults[0]
