"""Table cells for the terminal that show untrusted text without interpreting it."""

from rich.text import Text

from filter_service.rendering.plain_names import plain


def cells(*texts: str) -> list[Text]:
    """Texts as rich shows them letter by letter: no markup, no control or direction characters."""
    return [Text(plain(text)) for text in texts]
