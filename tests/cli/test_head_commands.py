"""From labels to a judged picture: a class learns, somebody activates it, an audit agrees."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from filter_service import load_encoder
from filter_service.calibration import labels
from filter_service.db.embeddings import known_of_digests
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Item,
    StoredEncoder,
    StoredExplanation,
    StoredImage,
    TrainingLabel,
)
from filter_service.demo import POLICY, SAMPLES
from filter_service.policy import Policy, read_policy
from filter_service.rollout import active_policy
from filter_service.rollout.edited_version import policy_document
from filter_service.verdicts.explanation import Explanation
from tests.support.command_line import LABELS, Line, line, settings

__all__ = ["line", "settings"]

SHOWN = [row["file"] for row in LABELS if "weapons" in row["classes"]]
OTHERS = [row["file"] for row in LABELS if "weapons" not in row["classes"]][:58]
HELD_OUT, LEARNT_FROM = SHOWN[:4], [*SHOWN[4:], *OTHERS]


@pytest.fixture
def one_word(tmp_path: Path) -> Path:
    """Weapons, of which the prompts name a single one, and badly; hardly anything is flagged."""
    policy = read_policy(POLICY)
    weapons = policy.forbidden("weapons").model_copy(
        update={"prompts": ("a gun",), "threshold": 0.3}
    )
    file = tmp_path / "one-word.yaml"
    file.write_text(policy_document(policy.model_copy(update={"classes": (weapons,)})))
    return file


def reviewed(sessions: Sessions, policy: Policy, files: Sequence[str]) -> None:
    """People say of these files whether they show a weapon."""
    with sessions.begin() as session:
        rows = session.execute(select(Item.source, Item.image_id)).all()
        images = {Path(source).name: image for source, image in rows if image is not None}
        truths = {(images[f], "weapons"): f in SHOWN for f in files}
        labels.upload(session, policy, truths, "service")


def test_what_a_class_learnt_is_proposed_activated_judged_explained_and_replayed(
    line: Line, sessions: Sessions, one_word: Path, tmp_path: Path
) -> None:
    before, out = read_policy(one_word), tmp_path / "taught.yaml"
    line("submit", *(SAMPLES / f for f in LEARNT_FROM), "--policy", one_word)
    line.judge()
    reviewed(sessions, before, LEARNT_FROM)
    without = line("head", "fit", "weapons")
    assert "Nothing is kept" in without and "what it learnt: " in without
    said = line("head", "fit", "weapons", "--out", out, "--reason", "76 labels")
    made = read_policy(out)
    head = made.forbidden("weapons").head
    assert head is not None and head.labels == 76 and head.gain.low > 0
    assert f"demo {made.digest[:12]} is proposed" in said
    with sessions.begin() as session:
        assert active_policy(session, "demo") == before
        fits = session.scalars(select(TrainingLabel.fit).distinct()).all()
    assert fits == [head.digest]
    line("policy", "activate", "demo", made.digest)
    batch = line.rows("submit", *(SAMPLES / f for f in HELD_OUT), "--policy", out)[0]["batch"]
    line.judge()
    items = line.rows("items", "--batch", batch)
    item = next(i for i in items if i["verdict"] == "flagged")
    with sessions.begin() as session:
        encoder_id = session.scalars(select(StoredEncoder.id)).one()
        digest = session.scalars(
            select(StoredImage.digest).join(Item).where(Item.id == item["item"])
        ).one()
        known = known_of_digests(session, encoder_id, [digest or ""])[1][digest or ""]
        record = session.scalars(
            select(StoredExplanation.record).where(StoredExplanation.item_id == item["item"])
        ).one()
    z = known.vectors
    encoder = load_encoder("bundled", device="cpu")
    alone = encoder.vectors(before).classes[0].margins(z)
    explanation = Explanation.model_validate(record)
    assert explanation.margin == pytest.approx((alone + z @ head.weights + head.offset).max())
    assert abs(explanation.margin - float(np.max(alone))) > 0.5
    assert explanation.faithful
    replayed = line.result("audit", "replay", str(item["item"]))
    assert replayed.exit_code == 0, replayed.output
    verified = line.result("audit", "verify")
    assert verified.exit_code == 0, verified.output


def test_without_a_policy_there_is_a_sentence(line: Line) -> None:
    refusal = line.result("head", "fit", "weapons")
    assert refusal.exit_code == 1 and "There is no policy yet" in str(refusal.exception)
