"""A worker as its process builds it: encoder, phrase bank and storage from the settings alone."""

import io
from contextlib import closing
from pathlib import Path

import PIL.Image
import pytest
from sqlalchemy import func, select

from filter_service.audit.record.event_descriptions import sentence
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, LedgerEntry, StoredExplanation, StoredPhrase
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import phrases
from filter_service.errors import InvalidSettings
from filter_service.images import decode
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import Event
from filter_service.moderation.worker import Worker
from filter_service.policy import read_policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.verdicts import Verdict, threshold_margin
from filter_service.verdicts.explanation import Explanation
from tests.support.precision import bundled

FILES = sorted(SAMPLES.glob("*.jpg"))[:24]


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    folder = tmp_path / "Bilder ü 100%"  # what a URL would have to escape
    return Settings(data_dir=folder, database_url=database_url, device="cpu")


def explained(settings: Settings, sessions: Sessions) -> list[tuple[str, Explanation]]:
    """What a worker recorded of some samples, with their file names."""
    files = [Submission(f.name, f.read_bytes()) for f in FILES]
    storage = Storage(settings.images_at)
    assert settings.images_at.endswith("Bilder ü 100%/images")
    submissions.accept(sessions, storage, lambda: None, files, read_policy(POLICY))
    with closing(Worker(settings)) as worker:
        assert worker.drain(stop=lambda: False, notify_workers=lambda: None) == len(FILES)
    with sessions.begin() as session:
        query = select(Item.source, StoredExplanation.record).join(Item)
        records = session.execute(query).all()
        judged = session.scalar(select(func.count()).where(Item.verdict == Verdict.FLAGGED))
    assert records and len(records) >= (judged or 0)
    return [(source, Explanation.model_validate(record)) for source, record in records]


def test_the_phrase_bank_is_filled_once(settings: Settings, sessions: Sessions) -> None:
    for _ in range(2):
        with closing(Worker(settings)) as worker:
            assert worker.desk.encoder_id
        with sessions.begin() as session:
            kept = session.scalar(select(func.count()).select_from(StoredPhrase))
        assert kept == len(phrases()) == len(set(phrases()))


def test_wordings_of_the_bank_would_have_cleared_the_image(
    settings: Settings, sessions: Sessions
) -> None:
    """Each is nearest first, and its margin lies under the threshold that the record states."""
    worded = [(name, e) for name, e in explained(settings, sessions) if e.texts]
    assert worded
    encoder, policy = bundled(), read_policy(POLICY)
    for name, e in worded:
        pixels = encoder.pixels(decode((SAMPLES / name).read_bytes()).frames[0].picture)
        z = encoder.encode(pixels[None])  # (1, d)
        assert all(t.text in phrases() for t in e.texts)
        assert [t.degrees for t in e.texts] == sorted(t.degrees for t in e.texts)
        # The policy, worded so, judges the image itself.
        old = policy.forbidden(e.class_name)
        for t in e.texts:
            prompts = tuple(t.text if p == t.replaces else p for p in old.prompts)
            new = old.model_copy(update={"prompts": prompts})
            reworded = policy.model_copy(update={"classes": (new,)})
            margin = float(encoder.vectors(reworded).margins(z)[0, 0])
            assert margin == pytest.approx(t.margin, abs=1e-3)
            assert margin < threshold_margin(new)


def test_the_record_says_what_of_a_file_could_not_be_obeyed(
    settings: Settings, sessions: Sessions
) -> None:
    file = io.BytesIO()
    PIL.Image.open(SAMPLES / "000.jpg").save(file, "PNG", icc_profile=b"no profile" * 20)
    with closing(Worker(settings)) as worker:
        submissions.accept(
            sessions,
            Storage(settings.images_at),
            lambda: None,
            [Submission("odd.png", file.getvalue()), Submission("000.jpg", FILES[0].read_bytes())],
            read_policy(POLICY),
        )
        worker.drain(stop=lambda: False, notify_workers=lambda: None)
    judged = select(LedgerEntry).where(LedgerEntry.event == Event.JUDGED).order_by(LedgerEntry.id)
    with sessions.begin() as session:
        told = [sentence(entry) for entry in session.scalars(judged)]
    assert [" if there were no ICC profile: " in said for said in told] == [True, False]
    assert all(said.endswith(".") and not said.endswith("..") for said in told)


def test_a_worker_without_a_database_says_what_to_set() -> None:
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_DATABASE_URL"):
        Worker(Settings(database_url=None))
