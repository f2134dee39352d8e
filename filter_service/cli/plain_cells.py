"""Table cells for the terminal that show untrusted text without interpreting it."""

from typing import TYPE_CHECKING

from filter_service.rendering.plain_names import plain

if TYPE_CHECKING:
    from rich.text import Text


def cells(*texts: str) -> list["Text"]:
    """Texts as rich shows them letter by letter: no markup, no control or direction characters."""
    from rich.text import Text

    return [Text(plain(text)) for text in texts]
