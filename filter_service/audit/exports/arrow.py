"""Builds Arrow schemas and arrays from the columns of an export, without pandas.

`pyarrow.array` would do, but loads pandas wherever it is installed, which takes 50 MB.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from filter_service.audit.exports.export_columns import COLUMNS, ColumnType

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def schema() -> Any:  # noqa: ANN401  (pyarrow has no types)
    """The types of a file's columns, with what each means."""
    kinds = {
        ColumnType.TEXT: pa.string(),
        ColumnType.NAME: pa.dictionary(pa.int32(), pa.string()),
        ColumnType.NUMBER: pa.int64(),
        ColumnType.REAL: pa.float64(),
        ColumnType.YES_NO: pa.bool_(),
        ColumnType.MOMENT: pa.timestamp("us", tz="UTC"),
        ColumnType.DAY: pa.date32(),
    }
    return pa.schema(
        [pa.field(c.name, kinds[c.kind], c.name != "item", {"told": c.meaning}) for c in COLUMNS]
    )


def array(values: Sequence[Any], kind: ColumnType, type: Any) -> Any:  # noqa: ANN401
    """One column, of a type of the schema; None is null."""
    if kind is ColumnType.NAME:
        names = sorted({v for v in values if v is not None})
        places = {name: n for n, name in enumerate(names)}
        indices = array([places.get(v) for v in values], ColumnType.NUMBER, pa.int32())
        return pa.DictionaryArray.from_arrays(
            indices, array(names, ColumnType.TEXT, type.value_type)
        )
    data = _text(values) if kind is ColumnType.TEXT else [_plain(values, kind, type)]
    buffers = [pa.py_buffer(part) for part in (_bits(v is not None for v in values), *data)]
    return pa.Array.from_buffers(type, len(values), buffers)


def _text(values: Sequence[str | None]) -> list[Any]:
    """Where each one begins, and all of them in a row."""
    parts = [b"" if v is None else v.encode() for v in values]
    return [np.cumsum([0, *map(len, parts)], dtype=np.int32), b"".join(parts)]


def _plain(values: Sequence[Any], kind: ColumnType, type: Any) -> npt.NDArray[Any]:  # noqa: ANN401
    if kind is ColumnType.YES_NO:
        return _bits(values)
    if kind is ColumnType.MOMENT:
        values = [None if v is None else (v - EPOCH) // MICROSECOND for v in values]
    if kind is ColumnType.DAY:
        values = [None if v is None else (v - date(1970, 1, 1)).days for v in values]
    size = np.dtype(np.float64 if kind is ColumnType.REAL else f"i{type.bit_width // 8}")
    return np.fromiter((0 if v is None else v for v in values), size, len(values))


def _bits(values: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401
    return np.packbits(np.array([bool(v) for v in values], np.bool_), bitorder="little")
