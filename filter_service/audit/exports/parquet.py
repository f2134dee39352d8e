"""Writes the rows of an export as Parquet."""

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet as pq

from filter_service.audit.exports import arrow
from filter_service.audit.exports.export_columns import COLUMNS, ColumnType, Row

GROUP = 20_000  # rows that Parquet keeps together


def written(chunks: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    """The file, in pieces."""
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
