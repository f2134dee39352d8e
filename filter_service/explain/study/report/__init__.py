"""The audit of a decision as a self-contained HTML page, or as text for a terminal."""

from filter_service.explain.study.report.html import page
from filter_service.explain.study.report.text import tell

__all__ = ["page", "tell"]
