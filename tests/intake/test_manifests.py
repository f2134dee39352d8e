"""Manifests: lines in, results out, in the form of AWS's bulk image analysis."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from filter_service import moderation
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, ItemAttribute
from filter_service.intake import item_lists, manifests, submissions
from filter_service.intake.manifests import LONGEST_LINE, Label, ManifestLine, ManifestResult
from filter_service.intake.submissions import Submission
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from tests.support.simple_classifier import POLICY, SimpleJudge, desk_of
from tests.support.web_clients import key_client, web_service

FLAGGED = ManifestResult(
    item=7,
    source="s3://bucket/1.jpg",
    digest="ab" * 32,
    verdict=Verdict.FLAGGED,
    unjudged=None,
    reason=None,
    labels=[Label("knife", 0.987654321)],
    encoder="ViT-B-32",
    policy="shop",
    policy_digest="cd" * 32,
    judged_at=datetime(2026, 1, 2, tzinfo=UTC),
    review="confirmed",
)


def written(result: ManifestResult) -> dict[str, Any]:
    (line,) = manifests.write([result])
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_each_line_names_an_address() -> None:
    lines = [
        b'{"source-ref": "s3://b/1.jpg"}\n',
        b"\n",
        b'{"source-ref":"https://h", "error": 1}',
    ]
    assert list(manifests.read(lines)) == [ManifestLine("s3://b/1.jpg"), ManifestLine("https://h")]


def test_a_manifest_of_results_can_be_sent_again() -> None:
    (line,) = manifests.write([FLAGGED])
    assert list(manifests.read([line])) == [ManifestLine(FLAGGED.source)]


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (
            b'{"source_ref": "s3://b/1.jpg"}',
            "no field here; the nearest is 'source-ref'",
        ),
        (b'{"source-ref": "s3://b/1.jpg", "priority": 5}', "'priority' is no field here"),
        (b'{"source-ref": "s3://b/1", "source-ref": "s3://b/2"}', "'source-ref' stands there more"),
    ],
)
def test_a_line_with_a_field_that_nobody_knows_says_which(raw: bytes, sentence: str) -> None:
    (line,) = manifests.read([raw])
    assert line.error is not None and sentence in line.error


@pytest.mark.parametrize(
    "raw",
    [
        b"s3://b/1.jpg",
        b"[]",
        b"{}",
        b'{"source-ref": ""}',
        b'{"source-ref": 1}',
        b'{"source-ref": "a\\u0000b"}',
        b'{"source-ref": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 10_000,
        b'{"source-ref": "' + b"x" * LONGEST_LINE + b'"}',
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_a_broken_line_says_so_and_spoils_no_other(raw: bytes) -> None:
    good = b'{"source-ref": "s3://b/1.jpg"}\n'
    first, broken, last = manifests.read([good, raw + b"\n", good])
    assert first == last == ManifestLine("s3://b/1.jpg")
    assert broken.source == "line 2"
    assert broken.error is not None and broken.error.isprintable()


def test_metadata_comes_with_a_line() -> None:
    said = b'{"source-ref": "s3://b/1.jpg", "metadata": {"region": "north", "age_group": "18-25"}}'
    (line,) = manifests.read([said])
    assert line == ManifestLine(
        "s3://b/1.jpg", attributes={"region": "north", "age_group": "18-25"}
    )


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ([], "no flat map of at most 16 names"),
        ({f"n{i}": "x" for i in range(17)}, "no flat map of at most 16 names"),
        ({"Region": "north"}, "the name 'Region': use lower case"),
        ({"region": 5}, "gives region 5: give a text in quotes"),
        ({"region": {"of": "north"}}, "give a text in quotes"),
        ({"region": " "}, "give a text in quotes"),
        ({"region": "a\u0000b"}, "give a text in quotes"),
        ({"region": "x" * 101}, "101 letters: give 100 at most"),
    ],
)
def test_metadata_that_cannot_be_kept_says_why(metadata: object, sentence: str) -> None:
    raw = json.dumps({"source-ref": "s3://b/1.jpg", "metadata": metadata}).encode()
    (line,) = manifests.read([raw])
    assert line.source == "s3://b/1.jpg"
    assert line.error is not None and sentence in line.error


def test_metadata_is_kept_with_its_item(sessions: Sessions, storage: Storage) -> None:
    files = [
        Submission("a", uri="https://a.example/1.jpg", attributes={"region": "north"}),
        Submission("b", b"3 x"),
    ]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    with sessions.begin() as session:
        kept = session.execute(
            select(Item.source, ItemAttribute.name, ItemAttribute.value).join(
                ItemAttribute, ItemAttribute.item_id == Item.id
            )
        ).all()
    assert [tuple(row) for row in kept] == [("a", "region", "north")]


def test_a_result_has_the_labels_where_aws_has_them() -> None:
    line = written(FLAGGED)
    assert line["source-ref"] == FLAGGED.source
    assert line["detect-moderation-labels"] == {
        "ModerationLabels": [
            {"Name": "knife", "ParentName": "", "Confidence": 98.7654, "TaxonomyLevel": 1}
        ],
        "ModerationModelVersion": "ViT-B-32",
        "ContentTypes": [],
    }
    assert line["detect-moderation-labels-metadata"]["review"] == "confirmed"


def test_what_was_not_judged_is_a_line_with_an_error() -> None:
    failed = ManifestResult(
        8, "x", None, Verdict.UNDETERMINED, None, "broken", [], None, "p", "", None, None
    )
    line = written(failed)
    assert "detect-moderation-labels" not in line
    assert line["error"] == {"code": "Undetermined", "message": "broken"}


def test_a_batch_has_a_result_manifest(sessions: Sessions, storage: Storage) -> None:
    files = [
        Submission("flagged", b"3 x"),
        Submission("clear", b"-3 y"),
        Submission("gone", error="no such file"),
        *(Submission(f"{i}", b"-1 z") for i in range(item_lists.CHUNK)),
    ]
    batch = submissions.accept(sessions, storage, lambda: None, files, POLICY)
    moderation.drain(desk_of(sessions, storage, SimpleJudge()), lambda: False, 60.0, lambda: None)
    client = key_client(create_app(web_service(sessions, storage)), sessions)
    answer = client.get(f"/v1/batches/{batch}/manifest")
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/jsonl"
    assert [line["source-ref"] for line in found] == [f.source for f in files]
    labels = [line.get("detect-moderation-labels", {}).get("ModerationLabels") for line in found]
    assert [x and [label["Name"] for label in x] for x in labels[:3]] == [["knife"], [], None]
    assert found[2]["error"]["message"] == "no such file"


def test_there_is_no_manifest_of_no_batch(sessions: Sessions, storage: Storage) -> None:
    client: TestClient = key_client(create_app(web_service(sessions, storage)), sessions)
    answer = client.get("/v1/batches/00000000-0000-0000-0000-000000000000/manifest")
    assert answer.status_code == 404
