"""Exports: one row for every item, streamed without a cap in constant memory."""

from filter_service.audit.exports.export_columns import COLUMNS, ColumnType
from filter_service.audit.exports.export_filter import ExportFilter, PeriodBasis, moment
from filter_service.audit.exports.export_run import Export, begin
from filter_service.audit.exports.writers import MEDIA, Format

__all__ = [
    "COLUMNS",
    "MEDIA",
    "ColumnType",
    "Export",
    "ExportFilter",
    "Format",
    "PeriodBasis",
    "begin",
    "moment",
]
