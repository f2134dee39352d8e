"""Commands about labels: kept vectors are not computed again, labels are kept, aims are checked."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from filter_service.db.policies import policy_id_of
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredEncoder, StoredLabel
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import image_vectors as vectors_module
from filter_service.policy import read_policy
from filter_service.rollout import active_policy
from filter_service.verdicts import threshold_margin
from tests.support.command_line import LABELS, Line, line, settings
from tests.support.labelled_decisions import keep_decisions
from tests.support.margin_worlds import reviewed

__all__ = ["line", "settings"]

FEW = LABELS[:12]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for row in FEW:
        folder = tmp_path / "set" / (row["classes"][0] if row["classes"] else "clear")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / row["file"], folder)
    return tmp_path / "set"


def count(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(StoredLabel)) or 0


def test_stored_pictures_are_evaluated_from_their_vectors_and_their_labels_are_kept(
    line: Line, sessions: Sessions, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = json.loads(line("evaluate", labelled, "--policy", POLICY, "--json"))
    assert count(sessions) == 0
    line("submit", *sorted(labelled.rglob("*.jpg"))[:-1], "--policy", POLICY)
    line.judge()
    looked_at: list[int] = []
    computed = vectors_module.image_vectors

    def counted(sources: Iterable[Callable[[], bytes]], *rest: object) -> Iterator[object]:
        sources = list(sources)
        looked_at.append(len(sources))
        return computed(sources, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(vectors_module, "image_vectors", counted)
    result = line.result("evaluate", labelled, "--policy", POLICY, "--json", "--keep")
    assert result.exit_code == 0, result.output
    assert looked_at == [1]  # the one that was not submitted
    assert [c["confusion"] for c in json.loads(result.stdout)] == [c["confusion"] for c in without]
    classes = len(without)
    assert f"{11 * classes} new labels are kept, 0 were known" in result.stderr
    assert "1 pictures are not stored here" in result.stderr
    assert count(sessions) == 11 * classes
    again = line.result("evaluate", labelled, "--policy", POLICY, "--keep")
    assert f"0 new labels are kept, {11 * classes} were known" in again.stderr
    rows = {row["class_name"]: row for row in line.rows("labels")}
    shown = sum("weapons" in row["classes"] for row in FEW)
    assert rows["weapons"]["present"] + rows["weapons"]["absent"] == 11
    assert shown - 1 <= rows["weapons"]["present"] <= shown
    assert rows["weapons"]["drawn"] == 0  # a folder is no draw: fits leave it out
    refusal = line.result("policy", "calibrate", "demo")
    assert "Nothing can be calibrated yet" in str(refusal.exception)


def test_a_picture_under_two_names_counts_once_and_the_operators_limits_hold(
    line: Line, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(labelled.rglob("*.jpg"))
    shutil.copy(files[0], files[0].with_name("again.jpg"))
    found = json.loads(line("evaluate", labelled, "--policy", POLICY, "--json"))
    assert found[0]["pictures"] == len(files)
    largest = max(files, key=lambda file: file.stat().st_size)
    monkeypatch.setenv("FILTER_SERVICE_MAX_BYTES", str(largest.stat().st_size - 1))
    result = line.result("evaluate", labelled, "--policy", POLICY, "--json")
    assert result.exit_code == 1
    assert f"Error: {largest}: " in result.stderr
    assert json.loads(result.stdout)[0]["pictures"] < len(files)


def meant(sessions: Sessions) -> str:
    """The digest of what the policy's name means."""
    with sessions.begin() as session:
        found = active_policy(session, "demo")
    assert found is not None
    return found.digest


def test_a_calibration_is_written_and_proposed_and_no_more(
    line: Line, sessions: Sessions, tmp_path: Path
) -> None:
    line("submit", SAMPLES / LABELS[0]["file"], "--policy", POLICY)
    line.judge()
    before = read_policy(POLICY)
    with sessions.begin() as session:
        encoder_id = session.scalars(select(StoredEncoder.id)).one()
        of = policy_id_of(session, before), "weapons"
        keep_decisions(session, of, encoder_id, reviewed(1, 200))
    out = tmp_path / "calibrated.yaml"
    said = line("policy", "calibrate", "demo", "--out", out, "--reason", "200 reviews")
    assert "calibrated on 200 reviews" in said
    assert "gambling stays uncalibrated" in said
    made = read_policy(out)
    assert f"demo {made.digest[:12]} is proposed" in said
    weapons = made.forbidden("weapons")
    assert weapons.calibration is not None
    old = threshold_margin(before.forbidden("weapons"))
    assert threshold_margin(weapons) == pytest.approx(old, abs=1e-6)
    assert made.forbidden("gambling") == before.forbidden("gambling")
    assert made.digest in line("policy", "check", out)
    assert meant(sessions) == before.digest
    aimed = line("policy", "calibrate", "demo", "--per-day", "1", "--images-a-day", "10")
    assert "flagged from" in aimed
    line("policy", "activate", "demo", made.digest)
    assert meant(sessions) == made.digest
    batch = line.rows("submit", SAMPLES / LABELS[1]["file"], "--policy", out)[0]["batch"]
    line.judge()
    (item,) = line.rows("items", "--batch", batch)
    assert item["verdict"] in ("clear", "flagged")  # the same encoder takes its calibration


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--missed", "10%", "--precision", "90%"), "one promise"),
        (("--miss-costs", "1"), "give more than 1"),
        (("--missed", "none"), "no share"),
        (("--per-day", "5"), "--images-a-day"),
        (("--per-day", "5", "--images-a-day", "4"), "no part of them"),
    ],
)
def test_an_aim_that_is_none_is_refused(words: tuple[str, ...], said: str, line: Line) -> None:
    result = line.result("policy", "calibrate", "demo", *words)
    assert result.exit_code != 0
    assert said in result.output + str(result.exception)


def test_without_labels_there_is_a_sentence(line: Line) -> None:
    assert "There is no label yet" in line.result("labels").stderr
