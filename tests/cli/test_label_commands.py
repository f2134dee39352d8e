"""Labels outlive an encoder, from the command line: scored anew, and told to the ledger."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select

from filter_service.db.session import Sessions
from filter_service.db.tables import LedgerEntry, StoredScore
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import image_vectors as vectors_module
from filter_service.policy import read_policy
from tests.support.command_line import LABELS, Line, line, settings

__all__ = ["line", "settings"]


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    for row in LABELS[:3]:
        folder = tmp_path / "set" / (row["classes"][0] if row["classes"] else "clear")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / row["file"], folder)
    return tmp_path / "set"


def test_uploaded_labels_are_in_the_ledger_and_are_scored_on_demand(
    line: Line, sessions: Sessions, labelled: Path
) -> None:
    line("submit", *sorted(labelled.rglob("*.jpg")), "--policy", POLICY)
    line("evaluate", labelled, "--policy", POLICY, "--keep")  # nothing has been judged
    classes = len(read_policy(POLICY).classes)
    with sessions.begin() as session:
        entry = session.scalars(select(LedgerEntry).where(LedgerEntry.event == "labelled")).one()
    assert (entry.details["images"], entry.details["new"]) == (3, 3 * classes)
    assert len(entry.details["truths"]) == 64
    said = line("policy", "rescore", "demo")
    assert "3 labelled pictures are scored by" in said and said.endswith(" 0 were.\n")
    again = json.loads(line("policy", "rescore", "demo", "--json"))
    assert (again["scored"], again["known"], again["gone"]) == (0, 3, 0)
    with sessions.begin() as session:
        assert len(session.scalars(select(StoredScore)).all()) == 3 * classes


def test_only_the_views_that_the_policy_asks_for_are_taken(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a wide picture's windows show was computed for another coverage."""
    folder = tmp_path / "set" / "clear"
    folder.mkdir(parents=True)
    wide = Image.new("RGB", (600, 200), "white")
    wide.paste(Image.open(SAMPLES / LABELS[0]["file"]).resize((200, 200)), (0, 0))
    wide.save(folder / "wide.png")
    shutil.copy(SAMPLES / LABELS[0]["file"], folder)
    line("submit", *sorted(folder.iterdir()), "--policy", POLICY)
    line.judge()
    narrow = tmp_path / "narrow.yaml"
    narrow.write_text(POLICY.read_text() + "\ncoverage: model\n")
    looked_at: list[int] = []
    computed = vectors_module.image_vectors

    def counted(sources: Iterable[Callable[[], bytes]], *rest: object) -> Iterator[object]:
        sources = list(sources)
        looked_at.append(len(sources))
        return computed(sources, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(vectors_module, "image_vectors", counted)
    found = json.loads(line("evaluate", folder.parent, "--policy", narrow, "--keep", "--json"))
    again = json.loads(line("evaluate", folder.parent, "--policy", narrow, "--json"))
    assert looked_at == [1, 2]
    assert found == again
