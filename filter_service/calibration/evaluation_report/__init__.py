"""An evaluation as one self-contained HTML page, and as text for a terminal."""

from filter_service.calibration.evaluation_report.evaluation_html import EvaluatedPictures, page
from filter_service.calibration.evaluation_report.evaluation_text import tell

__all__ = ["EvaluatedPictures", "page", "tell"]
