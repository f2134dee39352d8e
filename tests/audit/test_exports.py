"""Exports: what a row is, what narrows them, three formats that agree, and what the ledger says."""

import csv
import io
import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from fastapi import FastAPI
from pyarrow import parquet as pq
from sqlalchemy import insert, select, update
from typer.testing import CliRunner

from filter_service.accounts import Role
from filter_service.audit import exports
from filter_service.audit.exports import (
    COLUMNS,
    ColumnType,
    ExportFilter,
    Format,
    moment,
    parquet,
    rows,
)
from filter_service.audit.transparency.dsa_report_rules import problems
from filter_service.cli import app as commands
from filter_service.db.session import Sessions
from filter_service.db.tables import Item, LedgerEntry, Restriction, StoredImage
from filter_service.errors import InvalidRequest, UnknownBatch, UnknownPolicy
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.console import export_files
from tests.support.decided_world import START, Writer, random_world
from tests.support.review_cases import POLICY
from tests.support.web_clients import app_of, client_of, key_client, web_service

DAY = timedelta(days=1)


@pytest.fixture
def writer(sessions: Sessions) -> Writer:
    return Writer(sessions)


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return app_of(web_service(sessions, storage), export_files)


def exported(sessions: Sessions, form: Format = Format.JSONL, /, **narrowed: str) -> bytes:
    export = exports.begin(sessions, ExportFilter.parse(**narrowed), form, "service")
    data = b"".join(export)
    export.close()
    return data


def lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def ids(sessions: Sessions, **narrowed: str) -> list[int]:
    return [line["item"] for line in lines(exported(sessions, **narrowed))]


def told(sessions: Sessions) -> list[dict[str, Any]]:
    """What the ledger says of exports."""
    query = select(LedgerEntry).where(LedgerEntry.event == "exported").order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return [{"actor": e.actor, **e.details} for e in session.scalars(query)]


def whole_item(writer: Writer) -> tuple[int, str]:
    """An item to which everything has happened; -> it and its statement."""
    first = writer.item(writer.batch())
    batch = writer.batch("spring", START, total=1)
    item = writer.item(
        batch,
        source="=1+1.jpg",
        judged_at=START + timedelta(seconds=3),
        content_date=date(2026, 2, 27),
        supersedes=first,
    )
    writer.decided(item, "overturned", START + DAY, seconds=4.5)
    writer.appealed(item, START + 2 * DAY, START + 3 * DAY, False)
    return item, str(writer.stated(item))


def test_a_row_says_everything_about_its_item(sessions: Sessions, writer: Writer) -> None:
    item, puid = whole_item(writer)
    row = lines(exported(sessions))[1]
    assert list(row) == [c.name for c in COLUMNS]
    assert len(row.pop("digest")) == 64
    del row["batch"]
    assert row == {
        "item": item,
        "label": "spring",
        "source": "=1+1.jpg",
        "bytes": 123,
        "submitted_at": "2026-03-01T00:00:00.000000Z",
        "content_date": "2026-02-27",
        "policy": "house",
        "policy_digest": POLICY.digest,
        "encoder": "simple",
        "encoder_fingerprint": "ab" * 32,
        "verdict": "flagged",
        "reason": None,
        "class": "gun",
        "margin": 0.1,
        "probability": 0.525,
        "threshold": 0.5,
        "judged_at": "2026-03-01T00:00:03.000000Z",
        "list_entry": None,
        "list_decision": None,
        "sampled": False,
        "review_decision": "overturned",
        "decided_at": "2026-03-02T00:00:00.000000Z",
        "stages": "first",
        "seconds_to_decide": 4.5,
        "standing": "clear",
        "appeal_opened_at": "2026-03-03T00:00:00.000000Z",
        "appeal_closed_at": "2026-03-04T00:00:00.000000Z",
        "appeal_upheld": False,
        "statement": puid,
        "supersedes": item - 1,
        "bytes_gone_at": None,
        "erased": False,
        "fully_automated": False,
        "reports": 0,
        "reported_as": None,
    }


def test_a_list_decides_and_an_erasure_shows(sessions: Sessions, writer: Writer) -> None:
    item = writer.item(writer.batch())
    writer.listed(item, "overturned", START)
    with sessions.begin() as session:
        session.execute(update(StoredImage).values(digest=None, bytes_gone_at=START))
    (row,) = lines(exported(sessions))
    assert (row["list_decision"], row["review_decision"], row["standing"]) == (
        "overturned",
        None,
        "clear",
    )
    assert (row["digest"], row["erased"]) == (None, True)


def test_undetermined_and_queued_items_are_rows_too(sessions: Sessions, writer: Writer) -> None:
    batch = writer.batch()
    writer.item(batch, Verdict.UNDETERMINED, reason="broken", image_id=None)
    writer.item(batch, None, judged_at=None)
    first, second = lines(exported(sessions))
    assert (first["verdict"], first["reason"], first["erased"]) == ("undetermined", "broken", None)
    assert (second["verdict"], second["standing"], second["policy"]) == (None, None, "house")


def test_what_is_locked_away_is_left_out(sessions: Sessions, writer: Writer) -> None:
    batch = writer.batch()
    kept, locked = writer.item(batch), writer.item(batch)
    with sessions.begin() as session:
        image = session.get_one(Item, locked).image_id
        session.execute(
            insert(Restriction).values(
                item_id=locked, image_id=image, class_name="gun", preserve_until=START
            )
        )
    assert ids(sessions) == [kept]


def test_filters_leave_the_others_out(sessions: Sessions, writer: Writer) -> None:
    old, new = writer.batch(submitted_at=START), writer.batch(submitted_at=START + DAY)
    a = writer.item(old, judged_at=START + 2 * DAY)
    b = writer.item(new, Verdict.CLEAR, class_id=writer.classes["knife"])
    c = writer.item(new, Verdict.UNDETERMINED, reason="broken")
    writer.decided(a, "confirmed", START)
    assert ids(sessions, since="2026-03-02") == [b, c]
    assert ids(sessions, until="2026-03-01") == [a]
    assert ids(sessions, since="2026-03-03", by="judged") == [a]
    assert ids(sessions, class_name="knife") == [b]
    assert ids(sessions, verdict="undetermined") == [c]
    assert ids(sessions, decision="confirmed") == [a]
    assert ids(sessions, batch=str(new), verdict="clear") == [b]
    assert ids(sessions, policy="house") == ids(sessions, policy=POLICY.digest) == [a, b, c]


@pytest.mark.parametrize(
    ("narrowed", "error"),
    [
        ({"since": "soon"}, InvalidRequest),
        ({"since": "2026-03-02", "until": "2026-03-01"}, InvalidRequest),
        ({"verdict": "guilty"}, InvalidRequest),
        ({"decision": "skipped"}, InvalidRequest),
        ({"batch": "7"}, InvalidRequest),
        ({"class_name": "unheard-of"}, InvalidRequest),
        ({"policy": "unheard-of"}, UnknownPolicy),
        ({"batch": "00000000-0000-0000-0000-000000000000"}, UnknownBatch),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(
    sessions: Sessions, writer: Writer, narrowed: dict[str, str], error: type[Exception]
) -> None:
    with pytest.raises(error):
        exported(sessions, **narrowed)
    assert told(sessions) == []


def test_a_day_as_an_end_is_in_the_period() -> None:
    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("2026-01-31", end=True) == datetime(2026, 2, 1, tzinfo=UTC)
    assert moment("20260131", end=True) == datetime(2026, 2, 1, tzinfo=UTC)
    assert moment("2026-01-31T12:00", end=True) == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment("2026-01-31T12:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize("narrowed", [{}, {"verdict": "flagged"}, {"class_name": "knife"}])
def test_chunks_leave_nothing_out_and_give_nothing_twice(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, narrowed: dict[str, str]
) -> None:
    random_world(sessions, 60)
    at_once = ids(sessions, **narrowed)
    monkeypatch.setattr(rows, "CHUNK", 7)
    assert ids(sessions, **narrowed) == at_once == sorted(set(at_once))
    assert len(at_once) > 7


def test_items_that_come_later_are_not_in_it(sessions: Sessions, writer: Writer) -> None:
    batch = writer.batch()
    first = writer.item(batch)
    export = exports.begin(sessions, ExportFilter(), Format.JSONL, "service")
    writer.item(batch)
    assert [line["item"] for line in lines(b"".join(export))] == [first]


def test_no_transaction_stays_open_between_chunks(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_world(sessions, 20)
    monkeypatch.setattr(rows, "CHUNK", 5)
    export = exports.begin(sessions, ExportFilter(), Format.JSONL, "service")
    pool = sessions.kw["bind"].pool
    assert [pool.checkedout() for _ in export] == [0] * 4


def typed(text: str, kind: ColumnType) -> Any:
    """A cell of CSV, read back."""
    if text == "":
        return None
    if kind in (ColumnType.TEXT, ColumnType.NAME):
        return text.removeprefix("'")
    return text if kind in (ColumnType.MOMENT, ColumnType.DAY) else json.loads(text)


def test_the_three_formats_hold_the_same(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_world(sessions, 50)
    monkeypatch.setattr(rows, "CHUNK", 8)
    monkeypatch.setattr(parquet, "GROUP", 20)
    expected = lines(exported(sessions))
    cells = csv.reader(io.StringIO(exported(sessions, Format.CSV).decode(), newline=""))
    assert next(cells) == [c.name for c in COLUMNS]
    from_csv = [
        {c.name: typed(cell, c.kind) for c, cell in zip(COLUMNS, row, strict=True)} for row in cells
    ]
    assert from_csv == [{k: None if v == "" else v for k, v in r.items()} for r in expected]
    table = pq.read_table(io.BytesIO(exported(sessions, Format.PARQUET)))
    assert [_as_json(row) for row in table.to_pylist()] == expected


def _as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        if isinstance(v, datetime)
        else str(v)
        if isinstance(v, date)
        else v
        for k, v in row.items()
    }


def test_parquet_is_typed_and_opens_in_pandas(
    sessions: Sessions, writer: Writer, tmp_path: Path
) -> None:
    item, _ = whole_item(writer)
    file = tmp_path / "items.parquet"
    file.write_bytes(exported(sessions, Format.PARQUET))
    schema = pq.read_schema(file)
    assert schema.field("judged_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("class").type == pa.dictionary(pa.int32(), pa.string())
    assert schema.field("content_date").type == pa.date32()
    assert not schema.field("item").nullable
    assert pq.ParquetFile(file).metadata.row_group(0).column(0).compression == "ZSTD"
    frame = pd.read_parquet(file)
    assert list(frame.columns) == [c.name for c in COLUMNS]
    row = frame.iloc[1]
    assert (row["item"], row["class"], row["source"]) == (item, "gun", "=1+1.jpg")
    assert row["appeal_closed_at"] == pd.Timestamp(START + 3 * DAY)
    assert frame["appeal_upheld"].tolist() == [None, False]


@pytest.mark.parametrize("form", list(Format))
def test_an_export_of_nothing_is_a_whole_file(sessions: Sessions, form: Format) -> None:
    data = exported(sessions, form)
    if form is Format.PARQUET:
        assert pq.read_table(io.BytesIO(data)).num_rows == 0
    else:
        assert data.decode().count("\r\n") == (form is Format.CSV)


@pytest.mark.parametrize(
    "source",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'quoted", "＝1+1", 'a "b",\r\nc', "ä ☂", ""],
)
def test_no_text_is_a_formula_and_each_can_be_restored(
    sessions: Sessions, writer: Writer, source: str
) -> None:
    writer.item(writer.batch(), source=source, margin=-1.5)
    data = exported(sessions, Format.CSV)
    (row,) = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert not row["source"].startswith(tuple("=+-@\t\r\n＝"))
    assert source in (row["source"], row["source"][1:])
    assert row["margin"] == "-1.5"


def test_an_export_is_told_when_it_begins_and_when_it_ends(
    sessions: Sessions, writer: Writer
) -> None:
    writer.item(writer.batch())
    export = exports.begin(
        sessions, ExportFilter.parse(since="2026-01-01"), Format.CSV, "person ada"
    )
    (begun,) = told(sessions)
    assert begun["state"] == "begun"
    assert begun["filters"] == {"since": "2026-01-01T00:00:00+00:00", "by": "submitted"}
    list(export)
    export.close()
    export.close()
    _, ended = told(sessions)
    assert (ended["state"], ended["rows"], ended["actor"]) == ("whole", 1, "person ada")
    assert ended["export"] == begun["export"]


def test_an_export_that_breaks_off_is_told_too(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_world(sessions, 12)
    monkeypatch.setattr(rows, "CHUNK", 5)
    export = exports.begin(sessions, ExportFilter(), Format.JSONL, "service")
    next(iter(export))
    export.close()
    assert (told(sessions)[1]["state"], told(sessions)[1]["rows"]) == ("broken off", 5)


@pytest.mark.parametrize("form", list(Format))
def test_an_auditor_downloads_every_format(
    app: FastAPI, sessions: Sessions, writer: Writer, form: Format
) -> None:
    item = writer.item(writer.batch())
    answer = client_of(app, sessions, Role.AUDITOR).get(f"/exports/items.{form}?verdict=flagged")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].endswith(f'.{form}"')
    assert "content-length" not in answer.headers
    if form is Format.JSONL:
        assert lines(answer.content)[0]["item"] == item
    assert [t["state"] for t in told(sessions)] == ["begun", "whole"]
    assert told(sessions)[0]["actor"] == "person auditor"


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.SENIOR, Role.POLICY_EDITOR])
def test_who_may_not_export_gets_nothing(app: FastAPI, sessions: Sessions, role: Role) -> None:
    assert client_of(app, sessions, role).get("/exports/items.csv").status_code == 403
    assert key_client(app, sessions).get("/exports/items.csv").status_code == 403
    assert told(sessions) == []


def test_what_somebody_may_not_see_is_not_in_their_export(
    app: FastAPI, sessions: Sessions, writer: Writer
) -> None:
    batch = writer.batch()
    gun = writer.item(batch)
    knife = writer.item(batch, class_id=writer.classes["knife"])
    client = client_of(app, sessions, Role.AUDITOR, classes=("knife",))
    assert [line["item"] for line in lines(client.get("/exports/items.jsonl").content)] == [knife]
    assert ids(sessions) == [gun, knife]


def test_a_bad_filter_is_answered_before_anything_is_sent(app: FastAPI, sessions: Sessions) -> None:
    client = client_of(app, sessions, Role.AUDITOR)
    assert client.get("/exports/items.csv?from=soon").status_code == 422
    assert client.get("/exports/items.xls").status_code == 422
    assert told(sessions) == []


@pytest.fixture
def command(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", database_url)
    monkeypatch.setenv("FILTER_SERVICE_BROKER_URL", "redis://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    return CliRunner()


def test_the_command_writes_a_file_that_is_whole(
    command: CliRunner, sessions: Sessions, writer: Writer, tmp_path: Path
) -> None:
    writer.item(writer.batch())
    out = tmp_path / "items.parquet"
    done = command.invoke(commands, ["export", "--format", "parquet", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert pq.read_table(out).num_rows == 1
    assert [p.name for p in tmp_path.iterdir() if "parquet" in p.name] == ["items.parquet"]
    assert told(sessions)[1] | {"export": ""} == {
        "actor": "service",
        "export": "",
        "format": "parquet",
        "rows": 1,
        "state": "whole",
        "upto": told(sessions)[1]["upto"],
    }


def test_the_commissions_report_is_written_to_a_file(
    command: CliRunner, writer: Writer, tmp_path: Path
) -> None:
    writer.item(writer.batch())
    out = tmp_path / "section-1.6.csv"
    words = ["--period", "2026", "--service", "Marketplace", "--provider", "hosting"]
    done = command.invoke(commands, ["export", "dsa-report", *words, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert problems(out.read_bytes()) == []
    assert len(out.read_text().splitlines()) == 1 + 6 + 9


def test_a_command_that_fails_leaves_no_file(
    command: CliRunner, sessions: Sessions, writer: Writer, tmp_path: Path
) -> None:
    writer.item(writer.batch())
    out = tmp_path / "items.csv"
    failed = command.invoke(
        commands, ["export", "--format", "csv", "--out", str(out), "--class", "unheard-of"]
    )
    assert failed.exit_code == 1
    assert not [p for p in tmp_path.iterdir() if "items" in p.name]


def test_a_file_that_was_not_kept_is_no_whole_export(
    command: CliRunner, sessions: Sessions, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    failed = command.invoke(commands, ["export", "--out", "items.jsonl"])
    assert failed.exit_code == 1
    assert told(sessions)[-1]["state"] == "broken off"


def test_standard_output_takes_text_formats_only(
    command: CliRunner, sessions: Sessions, writer: Writer
) -> None:
    item = writer.item(writer.batch())
    done = command.invoke(commands, ["export"])
    assert json.loads(done.stdout)["item"] == item
    assert command.invoke(commands, ["export", "--format", "parquet"]).exit_code == 2
