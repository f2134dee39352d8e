"""Exports: one row for every item, streamed without a cap in constant memory."""

from filter_service.audit.exports.columns import COLUMNS, Column, Kind, Row
from filter_service.audit.exports.export import Export, begin
from filter_service.audit.exports.export_filter import By, Wanted, moment
from filter_service.audit.exports.writers import MEDIA, Format, written

__all__ = [
    "COLUMNS",
    "MEDIA",
    "By",
    "Column",
    "Export",
    "Format",
    "Kind",
    "Row",
    "Wanted",
    "begin",
    "moment",
    "written",
]
