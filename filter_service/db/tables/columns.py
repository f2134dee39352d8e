"""Column types, and the base class of every table.

The migrations are what makes these tables; a test keeps the two equal. Comments stand where a name
is not enough.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from pgvector import HalfVector, Vector
from sqlalchemy import (
    BigInteger,
    Dialect,
    Enum,
    ForeignKey,
    Identity,
    LargeBinary,
    SmallInteger,
    TypeDecorator,
    func,
)
from sqlalchemy.dialects.postgresql import DOUBLE_PRECISION, JSON, JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import UserDefinedType

from filter_service.verdicts import FloatArray, Verdict


class Digest(TypeDecorator[str]):
    """A SHA-256: hexadecimal in Python, 32 bytes in the database."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> bytes | None:
        return None if value is None else bytes.fromhex(value)

    def process_result_value(self, value: bytes | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex()


class _Floats(UserDefinedType[FloatArray]):
    """A vector of any dimension that travels in binary: as text, 512 numbers take 1.3 ms."""

    name: str
    wire: str  # numpy type of one number in Postgres' binary form, after a header of 4 bytes
    wrap: Callable[[FloatArray], HalfVector | Vector]

    def get_col_spec(self, **_: object) -> str:
        return self.name

    def bind_processor(self, dialect: Dialect) -> Callable[[FloatArray | None], Any]:
        return lambda value: None if value is None else type(self).wrap(value)

    def column_expression(self, column: ColumnElement[Any]) -> ColumnElement[Any]:
        return getattr(func, f"{self.name}_send")(column, type_=self)  # type: ignore[no-any-return]

    def result_processor(
        self, dialect: Dialect, coltype: object
    ) -> Callable[[bytes | None], FloatArray | None]:
        return lambda value: None if value is None else self.parse(value)

    @classmethod
    def parse(cls, data: bytes) -> FloatArray:
        """What `vector_send` or `halfvec_send` gave: -> (d,) float32."""
        return np.frombuffer(data, cls.wire, offset=4).astype(np.float32)


class Float16s(_Floats):
    cache_ok = True
    name, wire, wrap = "halfvec", ">f2", HalfVector


class Float32s(_Floats):
    cache_ok = True
    name, wire, wrap = "vector", ">f4", Vector


ischema_names.update(halfvec=Float16s, vector=Float32s)  # alembic compares what it can read back


class Table(DeclarativeBase):
    """The parent of every table."""

    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it as a class attribute)
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB,
        Verdict: Enum(Verdict, name="verdict", values_callable=lambda e: [v.value for v in e]),
        float: DOUBLE_PRECISION,
    }


big_id = Annotated[int, mapped_column(BigInteger, Identity(always=True), primary_key=True)]
small_id = Annotated[int, mapped_column(Identity(always=True), primary_key=True)]
sha256 = Annotated[str, mapped_column(Digest, unique=True)]
now = Annotated[datetime, mapped_column(server_default=func.now())]
short = Annotated[int, mapped_column(SmallInteger)]
of_client = Annotated[int, mapped_column(ForeignKey("clients.id"), server_default="1")]
exact_json = Annotated[dict[str, Any], mapped_column(JSON, comment="Text, as it was committed to.")]
