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

from filter_service.audit.exports import arrow
from filter_service.audit.exports.export_columns import COLUMNS, ColumnType, Row
from filter_service.canonical import stamp

GROUP = 20_000  # rows that Parquet keeps together
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
    import pyarrow as pa  # 40 MB, which the other formats can do without
    from pyarrow import parquet as pq

    schema, sink = arrow.schema(), _Sink()
    names = [c.name for c in COLUMNS if c.kind is ColumnType.NAME]
    waiting: list[Any] = []
    with pq.ParquetWriter(sink, schema, compression="zstd", use_dictionary=names) as writer:
        for rows in chunks:
            if rows:
                columns = zip(zip(*rows, strict=True), COLUMNS, schema, strict=True)
                made = [arrow.array(values, c.kind, field.type) for values, c, field in columns]
                waiting.append(pa.RecordBatch.from_arrays(made, schema=schema))
            if sum(batch.num_rows for batch in waiting) >= GROUP:
                writer.write_table(pa.Table.from_batches(waiting), GROUP)
                waiting.clear()
                yield sink.taken()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), GROUP)
    yield sink.taken()


class _Sink(io.RawIOBase):
    """Takes what is written until it is fetched; nobody can go back in it."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401  (whatever has bytes)
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def taken(self) -> bytes:
        found = b"".join(self._parts)
        self._parts.clear()
        return found


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
