"""Transparency figures of a period, with definitions and confidence intervals."""

from filter_service.audit.transparency.definitions import Unit
from filter_service.audit.transparency.sums import Period
from filter_service.audit.transparency.transparency_report import (
    ClassFigures,
    Figure,
    ReportSection,
    TransparencyReport,
    report,
)

__all__ = [
    "ClassFigures",
    "Figure",
    "Period",
    "ReportSection",
    "TransparencyReport",
    "Unit",
    "report",
]
