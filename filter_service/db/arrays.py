"""Sends many values to the database at once, as arrays: one parameter, however many there are."""

from collections.abc import Iterable, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from psycopg import Connection
from psycopg.abc import AdaptContext, DumperKey, PyFormat
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.types.array import ListBinaryDumper
from sqlalchemy import ARRAY, ColumnElement, any_, literal
from sqlalchemy.orm import InstrumentedAttribute

# A column of Python's numbers -> numpy's type, that of one number in Postgres' binary form, its oid
# there and that of an array of it.
_KINDS: dict[type, tuple[type[np.generic], str, int, int]] = {
    int: (np.int64, ">i8", 20, 1016),
    float: (np.float64, ">f8", 701, 1022),
    bool: (np.bool_, "?", 16, 1000),
}


def one_of(column: InstrumentedAttribute[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    """The condition that a column has one of these values.

    `in_` writes a statement anew for every number of values, which takes longer than it runs.
    """
    return column == any_(literal(list(values), ARRAY(column.type)))


def columns(names: str, rows: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Rows as an array for each column, by its name, as `unnest` takes them."""
    known = names.split()
    values = list(zip(*rows, strict=True)) or [() for _ in known]
    return {name: column(v) for name, v in zip(known, values, strict=True)}


def column(values: Sequence[Any]) -> list[Any] | npt.NDArray[Any]:
    """As numpy holds numbers: these are written in one go, other values one by one."""
    kinds = set(map(type, values))
    if len(kinds) == 1 and (kind := _KINDS.get(kinds.pop())):
        return np.array(values, kind[0])
    return list(values)


def register(connection: Connection[Any]) -> None:
    """Let arrays travel in binary: as text one of 64 digests takes a hundred times as long."""
    connection.adapters.register_dumper(list, ListBinaryDumper)
    connection.adapters.register_dumper(np.ndarray, _NumbersDumper)


class _NumbersDumper(Dumper):
    """A numpy array of one axis as an array of Postgres."""

    format = Format.BINARY

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self._kind = _KINDS[int]

    def get_key(self, obj: npt.NDArray[Any], format: PyFormat) -> DumperKey:
        return (self.cls, (obj.dtype.type,))

    def upgrade(self, obj: npt.NDArray[Any], format: PyFormat) -> Self:
        dumper = type(self)(self.cls)
        dumper._kind = next(k for k in _KINDS.values() if k[0] is obj.dtype.type)
        dumper.oid = dumper._kind[3]
        return dumper

    def dump(self, obj: npt.NDArray[Any]) -> bytes:
        _, wire, element, _ = self._kind
        sized = np.empty(len(obj), [("size", ">i4"), ("value", wire)])
        sized["size"], sized["value"] = sized["value"].itemsize, obj
        # Axes, whether there are nulls, type; then length and first index of the one axis.
        header = np.array([1, 0, element, len(obj), 1], ">i4")
        return header.tobytes() + sized.tobytes()
