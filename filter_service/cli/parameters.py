"""The limits of command-line parameters, and their validation."""

from pathlib import Path
from typing import Annotated

import typer

LARGEST_ID = 2**63 - 1  # of a row
LARGEST_SMALL_ID = 2**31 - 1  # of a key or a rule
LARGEST_PAGE = 1_000  # rows of one answer
MOST_FOUND = 100  # images of one search
LONGEST_TEXT = 500  # characters that are searched for, or a label
LONGEST_LABEL = 200  # characters of a batch's label
URGENT = 1_000  # priorities lie between this and its negative
LONGEST_RULE = 36_500  # days of a retention rule
MOST_WORKERS = 64  # of one `up`
MOST_VECTORS = 2**31 - 1  # of one comparison

ItemId = Annotated[int, typer.Argument(min=1, max=LARGEST_ID, help="The item's number.")]


def shown(path: Path) -> str:
    """A path as text, whatever its bytes."""
    return str(path).encode(errors="surrogateescape").decode(errors="backslashreplace")


def words(value: str, longest: int = LONGEST_TEXT) -> str:
    """A text that can be asked for, without the space around it; BadParameter for any other."""
    stripped = value.strip()
    if not stripped:
        raise typer.BadParameter("There is nothing to look for: give words.")
    if len(stripped) > longest:
        raise typer.BadParameter(
            f"{stripped[:40]!r}… has {len(stripped):,} letters: give {longest} at most."
        )
    return stripped


def share_a_day(per_day: float | None, images_a_day: float | None) -> float | None:
    """What part of a stream so many pictures a day are; None for none, BadParameter for no part."""
    if per_day is None:
        if images_a_day is not None:
            raise typer.BadParameter("--images-a-day goes with --per-day.")
        return None
    if images_a_day is None:
        raise typer.BadParameter(
            "So many a day is a share of what comes in: say how many pictures that is by "
            "--images-a-day."
        )
    if not 0 < per_day < images_a_day:
        raise typer.BadParameter(
            f"{per_day:g} of {images_a_day:g} pictures a day is no part of them: give --per-day "
            "more than 0 and less than --images-a-day."
        )
    return per_day / images_a_day
