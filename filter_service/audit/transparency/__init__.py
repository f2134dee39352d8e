"""Transparency figures: how a period went, each figure with what it means and how sure it is."""

from filter_service.audit.transparency.definitions import Unit
from filter_service.audit.transparency.sums import Period
from filter_service.audit.transparency.transparency_report import (
    ClassRow,
    Figure,
    Report,
    Section,
    report,
)

__all__ = ["ClassRow", "Figure", "Period", "Report", "Section", "Unit", "report"]
