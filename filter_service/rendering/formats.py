"""Formats numbers, times and durations for people."""

from datetime import UTC, datetime

from markupsafe import Markup, escape


def ago(at: datetime) -> str:
    """How long ago something was, in its two largest units at most."""
    return span((datetime.now(UTC) - at).total_seconds())


def span(seconds: float) -> str:
    """A length of time in words short enough for a table."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} days"


def clock(at: datetime) -> str:
    """A moment as people read it, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def coded(text: str) -> Markup:
    """A docstring's text, in which `backticks` stand around code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def signed(value: float, digits: int = 1) -> str:
    """With its sign, never "-0.0"."""
    rounded = round(value, digits) or 0.0
    return f"{rounded:+.{digits}f}".replace("-", "−")


def number(value: float, digits: int = 1) -> str:
    return f"{round(value, digits) or 0.0:.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """A probability, with as many digits as tell it from certainty."""
    for digits in (0, 1, 2, 3):
        rounded = round(100 * share, digits)
        if 1 <= rounded <= 99 or (0 < rounded < 100 and digits):
            return f"{rounded:.{digits}f} %"
    return "over 99.999 %" if share > 0.5 else "under 0.001 %"
