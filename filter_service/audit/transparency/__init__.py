"""Transparency figures of a period, with definitions and confidence intervals."""

from filter_service.audit.transparency.definitions import Unit
from filter_service.audit.transparency.period_counts import Period
from filter_service.audit.transparency.transparency_report import Figure, TransparencyReport, report

__all__ = [
    "Figure",
    "Period",
    "TransparencyReport",
    "Unit",
    "report",
]
