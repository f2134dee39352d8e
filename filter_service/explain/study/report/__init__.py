"""An audit for people: one page that needs nothing beside it, or a text for a terminal."""

from filter_service.explain.study.report.html import page
from filter_service.explain.study.report.text import tell

__all__ = ["page", "tell"]
