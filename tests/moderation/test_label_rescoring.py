"""Labels outlive an encoder: scored again, once, as far as bytes are left."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import func, insert, select

from filter_service.calibration import labels
from filter_service.calibration.labels import ClassLabel, LabelSource
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Embedding, Restriction, StoredImage, StoredScore
from filter_service.errors import InvalidRequest, UnreadableImage
from filter_service.images.views import View
from filter_service.moderation import label_rescoring
from filter_service.moderation.label_rescoring import (
    LabelScorer,
    RescoringCounts,
    class_ids,
    own_words,
    rescore,
    unscored,
)
from filter_service.policy import Calibration, CalibrationOrigin, Policy, Preservation
from filter_service.scoring import FloatArray, LogitScale, policy_vectors
from filter_service.verdicts import KnownVectors
from tests.support.learnt_heads import head_for, with_head
from tests.support.review_cases import POLICY, one_case
from tests.support.simple_classifier import vector

DIM = 4
FINGERPRINT = "ef" * 32
SCALE = LogitScale(10.0)


def encode(texts: object) -> FloatArray:
    """Some unit vector of each text: (n, d)."""
    return np.stack([vector(str(text)) for text in texts])  # type: ignore[attr-defined]


@dataclass
class Looks:
    """Images as they are looked at, and which were."""

    unreadable: set[str] = field(default_factory=set)
    looked: list[str] = field(default_factory=list)

    def __call__(self, digest: str, known: KnownVectors | None) -> KnownVectors:
        if known is not None:
            return known
        if digest in self.unreadable:
            raise UnreadableImage(f"Image {digest} is not in the store; submit it again.")
        self.looked.append(digest)
        return KnownVectors(vector(digest)[None], (View(),), (True,))


def labelled(sessions: Sessions, count: int, name: str = "gun") -> list[str]:
    """Stored images with a label each, and no score; -> their digests."""
    digests = [f"{number:064x}" for number in range(count)]
    with sessions.begin() as session:
        rows = [{"digest": d, "bytes": 1} for d in digests]
        added = insert(StoredImage).returning(StoredImage.id, sort_by_parameter_order=True)
        ids = session.scalars(added, rows).all()
        said = [ClassLabel(i, name, i % 2 == 0, LabelSource.FLAG, 1.0) for i in ids]
        labels.keep(session, said)
    return digests


def scorer_of(
    sessions: Sessions, policy: Policy, look: Looks, stored: bool = True
) -> tuple[LabelScorer, list[str]]:
    words, learnt = own_words(policy, FINGERPRINT)
    with sessions.begin() as session:
        if stored:
            store_policy(session, policy)
        encoder = register_encoder(session, FINGERPRINT, "new", DIM, {})
        ids = class_ids(session, words, learnt)
    return LabelScorer(encoder, policy_vectors(words, encode, SCALE), ids, look), learnt


def run(sessions: Sessions, scorer: LabelScorer, learnt: list[str]) -> RescoringCounts:
    with sessions.begin() as session:
        images, known = unscored(session, scorer, learnt)
    counts = list(rescore(sessions, scorer, images))[-1] if images else RescoringCounts()
    counts.known = known
    return counts


def count(sessions: Sessions, table: type[StoredScore | Embedding]) -> int:
    with sessions.begin() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_labels_count_again_under_another_encoder(sessions: Sessions) -> None:
    digests = labelled(sessions, 6)
    look = Looks()
    scorer, learnt = scorer_of(sessions, POLICY, look)
    with sessions.begin() as session:
        policy_id = store_policy(session, POLICY)
        before = labels.of_class(session, policy_id, "gun", scorer.encoder_id)
    counts = run(sessions, scorer, learnt)
    assert (len(before), counts.scored, counts.known, look.looked) == (0, 6, 0, digests)
    with sessions.begin() as session:
        found = labels.of_class(session, policy_id, "gun", scorer.encoder_id)
    expected = scorer.vectors.margins(np.stack([vector(d) for d in digests]))[:, 0]
    assert np.sort(found.labelled.margins) == pytest.approx(np.sort(expected), abs=1e-5)


def test_a_second_time_does_nothing(sessions: Sessions) -> None:
    labelled(sessions, 3)
    look = Looks()
    for scored, known in ((3, 0), (0, 3)):
        counts = run(sessions, *scorer_of(sessions, POLICY, look))
        assert (counts.scored, counts.known) == (scored, known)
    assert len(look.looked) == 3


def test_what_was_interrupted_goes_on(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_rescoring, "TOGETHER", 2)
    digests = labelled(sessions, 5)
    look = Looks()
    scorer, learnt = scorer_of(sessions, POLICY, look)
    with sessions.begin() as session:
        images, _ = unscored(session, scorer, learnt)
    next(rescore(sessions, scorer, images))
    assert run(sessions, scorer, learnt).known == 2
    assert look.looked == digests


def test_other_words_are_scored_from_the_vectors_that_are_kept(sessions: Sessions) -> None:
    labelled(sessions, 3)
    look = Looks()
    run(sessions, *scorer_of(sessions, POLICY, look))
    gun, knife = POLICY.classes
    reworded = gun.model_copy(update={"prompts": ("a pistol",)})
    policy = POLICY.model_copy(update={"classes": (reworded, knife)})
    counts = run(sessions, *scorer_of(sessions, policy, look))
    assert (counts.scored, len(look.looked)) == (3, 3)


def test_pictures_without_bytes_are_counted(sessions: Sessions) -> None:
    gone, lost, *_ = labelled(sessions, 4)
    with sessions.begin() as session:
        session.scalars(
            select(StoredImage).where(StoredImage.digest == gone)
        ).one().bytes_gone_at = datetime.now(UTC)
    look = Looks(unreadable={gone, lost})
    counts = run(sessions, *scorer_of(sessions, POLICY, look))
    assert (counts.scored, counts.gone) == (2, 1)
    (said,) = counts.unreadable
    assert "is not in the store; submit it again" in said


def test_what_is_locked_away_leaves_nothing(sessions: Sessions) -> None:
    item = one_case(sessions)
    look = Looks()
    scorer, learnt = scorer_of(sessions, POLICY, look)
    with sessions.begin() as session:
        image = session.scalars(select(StoredImage.id)).one()
        labels.keep(session, [ClassLabel(image, "gun", True, LabelSource.FLAG, 1.0)])
        images, _ = unscored(session, scorer, learnt)
        sealed = Restriction(item_id=item, image_id=image, class_name="gun")
        sealed.preserve_until = datetime(2030, 1, 1, tzinfo=UTC)
        session.add(sealed)
    (counts,) = rescore(sessions, scorer, images)  # locked away since
    assert (counts.scored, counts.left_out) == (0, 1)
    assert (count(sessions, StoredScore), count(sessions, Embedding)) == (0, 0)


def test_what_may_show_a_restricted_class_leaves_nothing(sessions: Sessions) -> None:
    gun, knife = POLICY.classes
    sealing = knife.model_copy(update={"threshold": 1e-9, "sealed": Preservation(days=9)})
    policy = POLICY.model_copy(update={"classes": (gun, sealing)})
    labelled(sessions, 2)
    counts = run(sessions, *scorer_of(sessions, policy, Looks()))
    assert (counts.scored, counts.left_out) == (0, 2)
    assert (count(sessions, StoredScore), count(sessions, Embedding)) == (0, 0)


def test_words_that_no_version_has_are_refused(sessions: Sessions) -> None:
    with pytest.raises(
        InvalidRequest, match="No stored version of 'house' asks for 'gun' in these"
    ):
        scorer_of(sessions, POLICY, Looks(), stored=False)


def test_another_encoders_calibration_is_left_out(sessions: Sessions) -> None:
    gun, knife = POLICY.classes
    origin = CalibrationOrigin(
        encoder="ab" * 32,
        wording=POLICY.wording(gun),
        reviews=60,
        until=datetime.now(UTC).date(),
        covariance=(0.1, 0.0, 0.1),
    )
    calibrated = gun.model_copy(update={"calibration": Calibration(a=1, b=-3, origin=origin)})
    labelled(sessions, 2)
    policy = POLICY.model_copy(update={"classes": (calibrated, knife)})
    scorer, learnt = scorer_of(sessions, policy, Looks())
    assert all(c.calibration is None for c in scorer.vectors.policy.classes)
    assert run(sessions, scorer, learnt).scored == 2


def test_a_class_with_another_encoders_head_keeps_vectors_only(sessions: Sessions) -> None:
    labelled(sessions, 2)
    policy = with_head(POLICY, "gun", head_for(POLICY, "gun", "ab" * 32, np.ones(DIM)))
    scorer, learnt = scorer_of(sessions, policy, Looks())
    assert (learnt, list(scorer.class_ids)) == (["gun"], ["knife"])
    assert run(sessions, scorer, learnt).scored == 2
    with sessions.begin() as session:
        classes = set(session.scalars(select(StoredScore.class_id)))
    assert classes == {scorer.class_ids["knife"]}
    assert count(sessions, Embedding) == 2
    assert run(sessions, scorer, learnt).known == 2
