"""Writes the rows of an export as JSON Lines, CSV or Parquet, as a stream of bytes.

In CSV a text that a spreadsheet would take for a formula gets one apostrophe in front, which makes
it a text there; so does a text that begins with an apostrophe, so that taking one away always
gives back what was stored. Numbers and dates are left alone.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Any

from filter_service.audit.exports.export_columns import COLUMNS, ColumnType, Row
from filter_service.canonical import stamp

FORMULA = "=+-@\t\r\n＝＋－＠"  # a spreadsheet may compute what begins like this
_GUARDED = tuple("'" + FORMULA)

Chunks = Iterable[Sequence[Row]]


class Format(StrEnum):
    """What an export can be written as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


MEDIA = {
    Format.JSONL: "application/jsonl",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.PARQUET: "application/vnd.apache.parquet",
}


def written(chunks: Chunks, form: Format) -> Iterator[bytes]:
    """The file, in pieces."""
    return _WRITERS[form](chunks)


def _jsonl(chunks: Chunks) -> Iterator[bytes]:
    names = [c.name for c in COLUMNS]
    encode = json.JSONEncoder(
        separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_text
    ).encode
    for rows in chunks:
        if rows:
            lines = [encode(dict(zip(names, row, strict=True))) for row in rows]
            yield ("\n".join(lines) + "\n").encode()


def _csv(chunks: Chunks) -> Iterator[bytes]:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")  # RFC 4180
    cells = [_CELLS.get(c.kind, _same) for c in COLUMNS]
    writer.writerow([c.name for c in COLUMNS])
    for rows in chunks:
        writer.writerows(
            ["" if value is None else cell(value) for cell, value in zip(cells, row, strict=True)]
            for row in rows
        )
        if file.tell():
            yield file.getvalue().encode()
            file.seek(0)
            file.truncate()
    if file.tell():  # no chunk at all
        yield file.getvalue().encode()


def _parquet(chunks: Chunks) -> Iterator[bytes]:
    from filter_service.audit.exports import parquet  # pyarrow: 57 MB, for this format alone

    return parquet.written(chunks)


def _text(value: object) -> str:
    """A moment or a day."""
    if isinstance(value, datetime):
        return stamp(value)
    assert isinstance(value, date), value
    return value.isoformat()


def _guarded(text: str) -> str:
    return f"'{text}" if text.startswith(_GUARDED) else text


def _same(value: object) -> object:
    return value


_CELLS: dict[ColumnType, Callable[[Any], object]] = {
    ColumnType.TEXT: _guarded,
    ColumnType.NAME: _guarded,
    ColumnType.YES_NO: lambda value: "true" if value else "false",
    ColumnType.MOMENT: _text,
    ColumnType.DAY: _text,
}
_WRITERS: dict[Format, Callable[[Chunks], Iterator[bytes]]] = {
    Format.JSONL: _jsonl,
    Format.CSV: _csv,
    Format.PARQUET: _parquet,
}
