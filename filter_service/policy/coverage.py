"""Coverage: how much of an image is judged, all of it or what the model's input keeps."""

from enum import StrEnum


class Coverage(StrEnum):
    """How much of an image is looked at."""

    WHOLE = "whole"
    MODEL = "model"  # what the model's own preprocessing leaves: a square of the middle, as a rule
