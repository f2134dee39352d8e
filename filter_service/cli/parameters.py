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
