"""Replay: what the record says is found again, and what is not is told, value by value."""

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from sqlalchemy import Connection, select, text
from typer.testing import CliRunner

from filter_service import ledger
from filter_service.audit.record.stored_json import explanation_in
from filter_service.audit.replay import sampling
from filter_service.audit.replay.comparison import compare
from filter_service.audit.replay.evidence_rescoring import Rescorer
from filter_service.audit.replay.item_on_record import Apart, NotReplayed, OnRecord, on_record
from filter_service.audit.replay.recomputation import recompute
from filter_service.audit.replay.record_comparison import RecordComparison
from filter_service.audit.replay.replay import Replay, ReplayedItem, ReplayResult, Total
from filter_service.audit.replay.replay_output import lines
from filter_service.audit.replay.sampling import ReplaySample, chosen, share_of
from filter_service.audit.replay.score_comparison import compare_scores
from filter_service.audit.replay.tolerances import LOGITS
from filter_service.cli import app
from filter_service.db.session import connect
from filter_service.db.tables import Item, Restriction, StoredExplanation, StoredImage
from filter_service.demo import POLICY
from filter_service.encoder import load_encoder
from filter_service.encoder.network import BUNDLED
from filter_service.errors import AnotherEncoder, InvalidRequest, UnknownItem
from filter_service.images import Limits
from filter_service.images.views import View
from filter_service.ledger import Entry, Event
from filter_service.policy import read_policy
from filter_service.settings import Settings
from filter_service.verdicts import Score, Verdict, score, threshold_margin
from tasks.__main__ import CeleryQueue
from tests.support.console_world import World, labelled
from tests.support.precision import bundled
from tests.support.served import ROOT, environment

pytest_plugins = ["tests.support.console_fixtures"]

FORBIDDEN = labelled(True)


@pytest.fixture
def replay(world: World) -> Replay:
    return Replay(world.sessions, world.service.storage, bundled(), Limits())


def always_float32(largest: dict[str, float]) -> list[float]:
    """How far apart lies what no precision of the fast pass may move."""
    screened = ("region: ", "proof: ", "counterfactual image: ")
    sure = [v for q, v in largest.items() if not q.startswith(screened) and "screened" not in q]
    assert len(sure) > 4
    return sure


def settings_of(world: World, **settings: object) -> Settings:
    url = world.sessions.kw["bind"].url.render_as_string(hide_password=False)
    known = {"database_url": url, "data_dir": world.service.settings.data_dir, "device": "cpu"}
    return Settings(_env_file=None, **{**known, "broker_url": "redis://127.0.0.1:1", **settings})


@contextmanager
def tampering(world: World) -> Iterator[Connection]:
    """As somebody who owns the database may do."""
    engine = connect(settings_of(world).database_url or "", role=None)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def replayed(replay: Replay, item: int) -> ReplayedItem:
    done = replay.one(item)
    assert isinstance(done, ReplayedItem)
    return done


def apart(replay: Replay, item: int) -> NotReplayed:
    done = replay.one(item)
    assert isinstance(done, NotReplayed)
    return done


def flagged(world: World, **wanted: bool) -> int:
    """An item with one explanation, of which these parts are there."""
    query = (
        select(StoredExplanation.item_id, StoredExplanation.record)
        .join(Item, Item.id == StoredExplanation.item_id)
        .order_by(StoredExplanation.item_id)
    )
    with world.sessions.begin() as session:
        rows = session.execute(query).all()
    items = [item for item, _ in rows]
    return next(
        item
        for item, record in rows
        if items.count(item) == 1 and all(bool(record[k]) == v for k, v in wanted.items())
    )


def test_every_flag_is_found_again(world: World, replay: Replay) -> None:
    total = Total()
    for done in replay.many(chosen(world.sessions, ReplaySample())):
        total.add(done)
        assert isinstance(done, NotReplayed) or done.found.told()["differences"] == []
    with world.sessions.begin() as session:
        verdicts = list(session.scalars(select(Item.verdict)))
    assert total.results == {
        ReplayResult.SAME: len(verdicts) - 2,
        Apart.UNDETERMINED: 2,
    }
    assert total.screened == verdicts.count(Verdict.CLEAR)
    asked = {"map: place", "word: shapley", "region: margin", "proof: drops: marked", "boundary"}
    asked |= {"counterfactual image: margin", "counterfactual wording: margin", "ledger: flag"}
    assert asked <= total.largest.keys()
    every = bundled().screening_is_exact
    sure = total.largest.values() if every else always_float32(total.largest)
    assert max(sure) < LOGITS.size


def test_another_process_with_more_threads_finds_it_too(world: World) -> None:
    """A quarter of the items, so that it stays quick."""
    threads = {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "audit", "replay", "--json", "--sample=25%", "--seed=3"],
        cwd=ROOT,
        env={**environment(settings_of(world)), **threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *rows, total = map(json.loads, done.stdout.splitlines())
    assert len(rows) >= 5 and any(row.get("screened") is False for row in rows)
    assert (
        total["results"][ReplayResult.SAME]
        == sum(row["result"] == ReplayResult.SAME for row in rows)
        > 4
    )
    assert total["seed"] == 3 and total["tolerances"]["logits"]["size"] == LOGITS.size


def test_a_model_with_one_other_weight_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(BUNDLED, tmp_path / "model")
    (file,) = (tmp_path / "model").glob("*.safetensors")
    weights = load_file(file)
    weights["visual.proj"].view(-1)[0] += 1e-3
    save_file(weights, file)
    name = f"local-dir:{tmp_path / 'model'}"
    other = Replay(
        world.sessions, world.service.storage, load_encoder(name, device="cpu"), Limits()
    )
    item = flagged(world)
    with pytest.raises(AnotherEncoder) as refused:
        other.one(item)
    sentence = str(refused.value)
    assert bundled().fingerprint[:12] in sentence and other.encoder.fingerprint[:12] in sentence
    assert "FILTER_SERVICE_MODEL" in sentence
    (done,) = other.many([item])
    assert isinstance(done, NotReplayed) and done.why is Apart.ANOTHER_ENCODER
    assert replays(world, item) == 0


def replays(world: World, item: int) -> int:
    with world.sessions.begin() as session:
        return sum(e.event == Event.REPLAYED for e in ledger.of_item(session, item))


def more(*path: str | int, screened: bool = False) -> Callable[[dict[str, Any]], None]:
    """Adds a tenth to one number of a record; to one of a coarse fast pass, more than its band."""

    def change(record: dict[str, Any]) -> None:
        coarse = screened and not bundled().screening_is_exact
        place: Any = record
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] += 10 if coarse else 0.1

    return change


def empty(record: dict[str, Any]) -> None:
    """Nothing is left of what cannot be computed again."""
    record.update(images=[], no_images="None was found.", texts=[], region=None)


def repaint(record: dict[str, Any]) -> None:
    """One place of the map, by as much as its float16 can tell twice over."""
    grid = record["map"]["grid"]
    values = np.frombuffer(base64.b64decode(grid["float16"]), "<f2").copy()
    values[7] += max(0.01, 4 * abs(float(values[7])) / 1024)
    grid["float16"] = base64.b64encode(values.tobytes()).decode()


CHANGES: dict[str, Callable[[dict[str, Any]], None]] = {
    "margin": more("margin"),
    "probability": more("probability"),
    "map: place 7": repaint,
    "map: remainder": more("map", "remainder"),
    "shapley": more("words", 0, "words", 0, "shapley"),
    "weight": more("words", 0, "weight"),
    "image": more("images", 0, "margin", screened=True),
    "wording": more("texts", 0, "margin"),
    "region: margin": more("region", "margin", screened=True),
    "proof: drops: marked": more("proof", "drops", "marked", 0, screened=True),
    "proof: drops: least": more("proof", "drops", "least", 0, screened=True),
    "proof: drops: random": more("proof", "drops", "random", 0, 0, screened=True),
    "proof: next_drops: marked": more("proof", "next_drops", "marked", 0, screened=True),
    "proof: next_class": lambda record: record["proof"].update(next_class="nothing"),
    "boundary": more("boundary_degrees"),
    "map: method": lambda record: record["map"].update(method="by hand"),
    "provenance: policy_digest": lambda record: record["provenance"].update(policy_digest="0"),
    "record": lambda record: record.pop("margin"),
    "digest": empty,
}


def test_what_was_changed_on_record_differs(world: World, replay: Replay) -> None:
    item = flagged(world, images=True, texts=True, region=True)
    query = select(StoredExplanation.record).where(StoredExplanation.item_id == item)
    with world.sessions.begin() as session:
        record = json.dumps(session.scalar(query))
    for place, change in CHANGES.items():
        changed = json.loads(record)
        change(changed)
        with tampering(world) as connection:
            connection.execute(
                text("UPDATE explanations SET record = CAST(:r AS json) WHERE item_id = :i"),
                {"r": json.dumps(changed), "i": item},
            )
        done = replayed(replay, item)
        digest, *found = [d.place for d in done.found.differences]
        assert "the text's digest" in digest
        # What is more than a coarse pass's band also turns what the proof says.
        turned = () if bundled().screening_is_exact else ("faithful", "more than")
        assert all(place in where or where.endswith(turned) for where in found), (place, found)
        assert found or place == "digest"
        assert done.result is ReplayResult.DIFFERS
        assert any(place in line for line in lines(done))


def test_two_records_are_compared_without_a_model(world: World, replay: Replay) -> None:
    item = flagged(world, images=True, texts=True, region=True)
    with world.sessions.begin() as session:
        record = on_record(session, item)
    assert isinstance(record, OnRecord)
    sources = (world.sessions, replay.storage, replay.encoder, record.encoder_id, replay.limits)
    computed = recompute(record, Rescorer(*sources))
    assert compare(record, computed).differences == []
    [(name, stored)] = record.explanations.items()
    for place in CHANGES.keys() - {"digest"}:  # which is another's question, the ledger's
        told = json.loads(stored.text)
        CHANGES[place](told)
        changed = replace(stored, explanation=explanation_in(json.dumps(told)))
        found = compare(replace(record, explanations={name: changed}), computed).differences
        assert any(place in d.place for d in found), place


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("UPDATE items SET margin = margin + 0.01 WHERE id = :i", "row: margin"),
        ("UPDATE items SET verdict = 'clear' WHERE id = :i", "verdict"),
        ("UPDATE items SET fully_automated = true WHERE id = :i", "row: fully_automated"),
        ("UPDATE explanations SET faithful = NOT faithful WHERE item_id = :i", "faithful"),
        ("DELETE FROM explanations WHERE item_id = :i", "explanation"),
        (
            "DELETE FROM ledger_payloads USING ledger WHERE id = entry_id AND item_id = :i "
            "AND event = 'explained'",
            "entry 'explained'",
        ),
        (
            "UPDATE scores SET margin = margin + 0.01 WHERE exact "
            "AND image_id = (SELECT image_id FROM items WHERE id = :i)",
            "score of",
        ),
        (
            "UPDATE policies SET document = jsonb_set(document, '{classes,0,threshold}', '0.5')",
            "policy",
        ),
    ],
)
def test_what_was_changed_in_a_row_differs(
    world: World, replay: Replay, change: str, place: str
) -> None:
    item = flagged(world)
    with tampering(world) as connection:
        connection.execute(text(change), {"i": item})
    assert any(place in d.place for d in replayed(replay, item).found.differences)


@pytest.mark.parametrize(("parts", "excused"), [("embeddings", False), ("explanations", True)])
def test_only_deleted_explanations_are_excused(
    world: World, replay: Replay, parts: str, excused: bool
) -> None:
    item = flagged(world)
    with world.sessions.begin() as session:
        expired = Entry(Event.EXPIRED, "service", item, details={"parts": [parts]})
        ledger.append(session, [expired])
    with tampering(world) as connection:
        connection.execute(text("DELETE FROM explanations WHERE item_id = :i"), {"i": item})
    found = replayed(replay, item).found
    assert bool(found.differences) is not excused
    assert any("deleted, as the ledger says" in note for note in found.notes) is excused


def judged_as(world: World, over: tuple[float, float], name: str, **flags: float) -> set[str]:
    """Where an entry that names this class differs from what is computed.

    `over` are the first two classes' logits above their thresholds.
    """
    with world.sessions.begin() as session:
        record = on_record(session, flagged(world))
    assert isinstance(record, OnRecord) and record.judged is not None
    policy = record.policy.policy
    margins = np.array([threshold_margin(c) - 5 for c in policy.classes])
    margins[:2] += 5 + np.array(over)
    told = {**record.judged, "class": name, "flags": flags}
    found = RecordComparison()
    scores = score(margins[None], [View()], [True], policy)
    compare_scores(found, replace(record, judged=told), scores, np.zeros(len(margins)))
    return {d.place for d in found.differences if "class" in d.place or "hats" in d.place}


def test_the_class_on_record_is_the_worst_one(world: World) -> None:
    first, second, *_ = (c.name for c in read_policy(POLICY).classes)
    assert judged_as(world, (3, 0), first) == judged_as(world, (0, 3), second) == set()
    assert judged_as(world, (3, 0), second) == judged_as(world, (0, 3), first) == {"ledger: class"}
    assert judged_as(world, (0, 0), first) == judged_as(world, (0, 0), second) == set()  # they tie
    unknown = judged_as(world, (2, 1), "hats", hats=1.0)
    assert unknown == {"ledger: class", "ledger: flag for hats"}


@pytest.mark.parametrize(
    ("probability", "recorded", "same"),
    [
        (0.97, ["gun"], True),
        (0.97, [], False),
        (0.93, ["gun"], False),
        (0.93, [], True),
        (0.9499999, ["gun"], True),  # too near to tell
    ],
)
def test_whether_a_flag_could_act_is_found_again(
    world: World, probability: float, recorded: list[str], same: bool
) -> None:
    with world.sessions.begin() as session:
        record = on_record(session, flagged(world))
    assert isinstance(record, OnRecord) and record.judged is not None
    name = record.policy.policy.classes[0].name
    told = {**record.judged, "class": name, "certain": [name] if recorded else []}
    one = Score(name, 3.0, probability, 0.5, View(), exact=True, certain=0.95)
    found = RecordComparison()
    compare_scores(found, replace(record, judged=told), (one,), np.zeros(1))
    wrong = {d.place for d in found.differences}
    assert (f"ledger: {name} acts by itself" not in wrong) is same
    assert "ledger: class" not in wrong


def test_bytes_that_the_store_has_lost_are_a_difference(world: World, replay: Replay) -> None:
    item = flagged(world)
    with world.sessions.begin() as session:
        digest = session.scalars(select(StoredImage.digest).join(Item).where(Item.id == item)).one()
    assert digest is not None
    data = replay.storage.get(digest)
    replay.storage.delete(digest)
    try:
        (difference,) = replayed(replay, item).found.differences
    finally:
        replay.storage.put(digest, data)
    assert difference.recorded == digest and "not in the store" in str(difference.computed)


def test_what_cannot_be_computed_again_is_counted_apart(world: World, replay: Replay) -> None:
    item, broken = flagged(world), world.item("notes.jpg")
    assert apart(replay, broken).why is Apart.UNDETERMINED
    of_item = "WHERE id = (SELECT image_id FROM items WHERE id = :i)"
    with tampering(world) as connection:
        connection.execute(text(f"UPDATE images SET bytes_gone_at = now() {of_item}"), {"i": item})
    assert "expired" in apart(replay, item).sentence
    with tampering(world) as connection:
        connection.execute(text(f"UPDATE images SET digest = NULL {of_item}"), {"i": item})
    assert "erased" in apart(replay, item).sentence
    assert replays(world, item) == 0
    with pytest.raises(UnknownItem):
        replay.one(10**9)


def test_the_decision_of_a_list_is_not_the_models(world: World, replay: Replay) -> None:
    item = flagged(world)
    with tampering(world) as connection:
        connection.execute(
            text("""
                WITH listed AS (
                    INSERT INTO list_entries (kind, class_name, match, reason, created_by)
                    VALUES ('block', 'weapons', 'digest', 'known', 'person a') RETURNING id
                ) UPDATE items SET list_entry_id = listed.id FROM listed WHERE items.id = :i
            """),
            {"i": item},
        )
    assert apart(replay, item).why is Apart.LISTED


def test_a_counterfactual_image_that_is_gone_is_said_to_be(world: World, replay: Replay) -> None:
    item = flagged(world, images=True)
    query = select(StoredExplanation.record).where(StoredExplanation.item_id == item)
    with world.sessions.begin() as session:
        record = session.scalars(query).one()
        digest = record["images"][0]["digest"]
        image = session.scalars(select(StoredImage).where(StoredImage.digest == digest)).one()
        other = session.scalars(select(Item.id).where(Item.image_id == image.id)).first()
        session.add(
            Restriction(
                item_id=other,
                image_id=image.id,
                class_name="x",
                preserve_until=datetime.now(UTC) + timedelta(days=1),
            )
        )
    assert "locked away meanwhile" in notes(replay, item)
    assert other is not None and apart(replay, other).why is Apart.SEALED
    gone = "UPDATE images SET bytes_gone_at = now() WHERE id = :i"
    with tampering(world) as connection:
        connection.execute(text("DELETE FROM sealed_items"))
        connection.execute(text(gone), {"i": image.id})
    assert notes(replay, item) == ""  # its embedding is still there
    with tampering(world) as connection:
        connection.execute(text("DELETE FROM embeddings WHERE image_id = :i"), {"i": image.id})
    assert "expired meanwhile" in notes(replay, item)
    with tampering(world) as connection:
        connection.execute(text("UPDATE images SET digest = NULL WHERE id = :i"), {"i": image.id})
    assert "erased meanwhile" in notes(replay, item)


def notes(replay: Replay, item: int) -> str:
    done = replayed(replay, item)
    assert done.result is ReplayResult.SAME
    return "\n".join(done.found.notes)


def test_a_replay_is_written_down(world: World, replay: Replay) -> None:
    item = flagged(world)
    replay.one(item)
    with world.sessions.begin() as session:
        entry = ledger.of_item(session, item)[-1]
    assert entry.event == Event.REPLAYED and entry.actor == "service"
    assert entry.details == {"result": "within tolerance", "differences": 0, "tolerances": 1}


def test_another_screening_precision_is_said(world: World) -> None:
    here, other = bundled().precision, {"float32": "bfloat16"}.get(bundled().precision, "float32")
    another = load_encoder(device="cpu", precision=other)
    replay = Replay(world.sessions, world.service.storage, another, Limits())
    done = replayed(replay, flagged(world, region=True, images=True))
    assert done.found.told()["differences"] == []
    assert f"screened in {here}, here in {other}" in done.found.notes[0]
    assert "FILTER_SERVICE_PRECISION" in done.found.notes[0]
    assert max(always_float32(done.found.largest)) < LOGITS.size


def test_a_clear_item_is_found_again_in_another_screening_precision(world: World) -> None:
    other = {"float32": "bfloat16"}.get(bundled().precision, "float32")
    another = load_encoder(device="cpu", precision=other)
    replay = Replay(world.sessions, world.service.storage, another, Limits())
    with world.sessions.begin() as session:
        clear = select(Item.id).where(Item.verdict == Verdict.CLEAR).order_by(Item.id)
        items = session.scalars(clear.limit(4)).all()
    assert [replayed(replay, i).found.told()["differences"] for i in items] == [[]] * 4


def test_a_sample_can_be_drawn_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = list(chosen(world.sessions, ReplaySample()))
    assert everything == sorted(everything) and len(everything) == 44
    some = list(chosen(world.sessions, ReplaySample(0.5, seed=1)))
    monkeypatch.setattr(sampling, "PAGE", 3)
    assert list(chosen(world.sessions, ReplaySample(0.5, seed=1))) == some
    assert list(chosen(world.sessions, ReplaySample(0.5, seed=2))) != some
    assert 10 < len(some) < 34 and set(some) < set(everything)
    assert set(chosen(world.sessions, ReplaySample(0.1, seed=1))) < set(some)


@pytest.mark.parametrize(("words", "share"), [("1%", 0.01), ("0.5", 0.5), ("100%", 1.0)])
def test_a_share_is_read(words: str, share: float) -> None:
    assert share_of(words) == share


@pytest.mark.parametrize("words", ["0%", "101%", "some", "nan", "-1"])
def test_what_is_no_share_is_refused(words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        share_of(words)


def test_the_command_ends_with_one_where_something_differs(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(settings_of(world)).items():
        if name.startswith("FILTER_SERVICE_"):
            monkeypatch.setenv(name, value)
    item, out = flagged(world), tmp_path / "replay.jsonl"

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ["audit", "replay", *words], obj=CeleryQueue())

    well = run(str(item))
    assert well.exit_code == 0 and f"item {item}: within tolerance" in well.stdout
    assert "Tolerances (version 1):" in well.stdout
    with tampering(world) as connection:
        connection.execute(text("UPDATE items SET margin = 1 WHERE id = :i"), {"i": item})
    ill = run(str(item), "--out", str(out))
    assert ill.exit_code == 1 and "row: margin: recorded" in ill.stdout
    first, last = map(json.loads, out.read_text().splitlines())
    assert first["differences"][0]["place"] == "row: margin"
    assert last["results"] == {"differs": 1}
    for words in ((), (str(item), "--all"), ("--sample", "1%", "--all")):
        assert run(*words).exit_code == 2
