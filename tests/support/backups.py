"""How docs/backup.md has Postgres's own programs called."""

from sqlalchemy import URL, make_url

RESTORE = ("--clean", "--if-exists", "--no-owner")


def plain(url: str | URL) -> str:
    """What Postgres's own programs take."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
