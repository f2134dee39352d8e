"""`policy start`: a folder or a batch becomes a policy file, and nothing else happens."""

import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import insert, select
from typer.testing import CliRunner

from filter_service.cli import app
from filter_service.db import query_encoder
from filter_service.db.batch_vectors import batch_vectors
from filter_service.db.embeddings import register_encoder
from filter_service.db.policies import store_policy
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, Batch, Embedding, Item, StoredImage
from filter_service.demo import POLICY, SAMPLES
from filter_service.encoder import Encoder, load_encoder
from filter_service.errors import UnknownBatch
from filter_service.local import Services
from filter_service.policy import read_policy

PICTURES = 210
SIX = sorted(SAMPLES.glob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    return load_encoder(device="cpu", precision="float32")


@pytest.fixture
def model(bundled: Encoder, monkeypatch: pytest.MonkeyPatch) -> Encoder:
    monkeypatch.setattr(query_encoder, "load", lambda settings: bundled)
    return bundled


def started(*words: str | Path | uuid.UUID) -> tuple[int, str, str]:
    """Exit code, what is printed, and what is said beside it."""
    done = CliRunner().invoke(app, ["policy", "start", *map(str, words)])
    told = done.stderr + (str(done.exception) if done.exception else "")
    return done.exit_code, done.stdout, " ".join(told.replace("│", " ").split())


def test_a_folder_of_pictures_becomes_a_policy_file(model: Encoder, tmp_path: Path) -> None:
    phrases = tmp_path / "phrases.txt"
    phrases.write_text("a lizard\n\na gun\na lizard\n")
    out = tmp_path / "mine.yaml"
    options = ("--policy", POLICY, "--share", "2%", "--phrases", phrases, "--out", out)
    code, printed, said = started(SAMPLES, *options)
    assert code == 0, said
    assert printed == f"{out}: 4 thresholds from 240 pictures\n"
    assert "labels.jsonl: The file begins with" in said  # named, not silently left out
    before, after = read_policy(POLICY), read_policy(out)
    assert [c.name for c in after.classes] == [c.name for c in before.classes]
    assert all(
        a.threshold != b.threshold for a, b in zip(after.classes, before.classes, strict=True)
    )
    assert not any("a gun" in (c.look_alikes or ()) for c in after.classes)
    text = out.read_text()
    assert model.fingerprint in text.replace("\n# ", "") and "2 % of the stream" in text


def test_the_same_picture_under_many_names_is_one(model: Encoder, tmp_path: Path) -> None:
    for number in range(250):
        shutil.copy(SIX[number % 6], tmp_path / f"{number}.jpg")
    code, printed, said = started(tmp_path, "--policy", POLICY)
    assert (code, printed) == (1, "")
    assert "6 different pictures are too few" in said and "give 200 or more" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Give a folder of pictures or a --batch"),
        ((SAMPLES, "--batch", uuid.uuid4()), "Give a folder of pictures or a --batch"),
        (("/no/such",), "There is no folder '/no/such'"),
        ((SAMPLES, "--share", "many"), "'many' is no share: give 1% or 0.01"),
        ((SAMPLES, "--share", "80%"), "A share of 0.8 of the stream is no queue"),
        ((SAMPLES, "--share", "nan"), "'nan' is no share: give 1% or 0.01"),
        ((SAMPLES, "--share", "1%", "--per-day", "5"), "Give --share or --per-day"),
        ((SAMPLES, "--per-day", "5"), "by --images-a-day"),
        ((SAMPLES, "--images-a-day", "5"), "--images-a-day goes with --per-day"),
        ((SAMPLES, "--per-day", "50", "--images-a-day", "5"), "50 of 5 pictures a day is no part"),
        ((SAMPLES, "--per-day", "1", "--images-a-day", "1000000000"), "is no queue"),
        ((SAMPLES, "--out", POLICY), "already: give a new name"),
    ],
)
def test_what_cannot_be_is_refused_before_a_picture_is_looked_at(
    words: tuple[str | Path | uuid.UUID, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delattr(query_encoder, "load")
    code, printed, said = started(*words, "--policy", POLICY)
    assert code != 0 and printed == ""
    assert sentence in said


def test_phrases_that_a_policy_cannot_hold_are_named(tmp_path: Path) -> None:
    file = tmp_path / "phrases.txt"
    file.write_text(f"a pen\n{'x' * 301}\n")
    code, _, said = started(SAMPLES, "--policy", POLICY, "--phrases", file)
    assert code == 2 and "phrases.txt:2:" in said.replace(" ", "")


def kept(sessions: Sessions, encoder: Encoder, count: int) -> uuid.UUID:
    """A batch of so many images, one of them twice, and one more that nobody has looked at."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((count, encoder.dim)).astype(np.float32)
    vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    batch = uuid.uuid4()
    with sessions.begin() as session:
        about = encoder.fingerprint, encoder.name, encoder.dim, encoder.details
        encoder_id = register_encoder(session, *about)
        digests = [{"digest": f"{i:064x}", "bytes": 1} for i in range(count + 1)]
        ids = session.scalars(insert(StoredImage).returning(StoredImage.id), digests).all()
        session.add(
            Batch(
                id=batch, policy_id=store_policy(session, read_policy(POLICY)), label="", priority=0
            )
        )
        session.flush()
        session.add_all(Item(batch_id=batch, image_id=i, source="x") for i in [*ids, ids[0]])
        session.execute(
            insert(Embedding),
            [
                {"encoder_id": encoder_id, "image_id": i, "frame": 0, "vector": v}
                for i, v in zip(ids, vectors, strict=False)
            ],
        )
    return batch


def test_a_batch_is_read_from_its_kept_vectors(
    model: Encoder,
    servers: Services,
    database_url: str,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", database_url)
    monkeypatch.setenv("FILTER_SERVICE_BROKER_URL", servers.broker_url)
    monkeypatch.setenv("FILTER_SERVICE_DATA_DIR", str(tmp_path))
    batch = kept(sessions, model, PICTURES)
    options = ("--policy", POLICY, "--per-day", "10", "--images-a-day", "500", "--look-alikes", "0")
    code, printed, said = started("--batch", batch, *options)
    assert code == 0, said
    assert f"from {PICTURES} different pictures of batch" in printed.replace("\n# ", " ")
    assert "2 % of the stream" in printed.replace("\n# ", " ")
    assert "1 of 211 pictures of the batch are left out" in said
    with sessions.begin() as session:
        assert session.scalars(select(Activation)).all() == []
        encoder_id = register_encoder(session, model.fingerprint, "", 0, {})
        some = batch_vectors(session, encoder_id, batch, most=40)
        assert (some.images, some.asked) == (PICTURES + 1, 40) and len(some.vectors) >= 39
        again = batch_vectors(session, encoder_id, batch, most=40).vectors
        assert all(np.array_equal(a, b) for a, b in zip(some.vectors, again, strict=True))
        with pytest.raises(UnknownBatch, match="There is no batch"):
            batch_vectors(session, encoder_id, uuid.uuid4(), most=40)


def test_few_neutral_prompts_are_told_with_their_cost(model: Encoder, tmp_path: Path) -> None:
    (tmp_path / "six").mkdir()
    for file in SIX:
        shutil.copy(file, tmp_path / "six")
    thin = tmp_path / "thin.yaml"
    gun = "{name: weapons, prompts: [a gun], threshold: 0.5}"
    thin.write_text(f"name: thin\nneutral: [a dog, a cat]\nclasses: [{gun}]\n")
    _, _, said = started(tmp_path / "six", "--policy", thin)
    assert "2 neutral prompts hardly stand for" in said
    assert "three times the false flags of 32" in said
