"""An audit for people: one page that needs nothing beside it, or a text for a terminal."""

from filter_service.explain.report.page import page
from filter_service.explain.report.text import tell

__all__ = ["page", "tell"]
