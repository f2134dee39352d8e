"""Answers with a picture: what is drawn, a sentence in its place, or word that nothing changed."""

from fastapi import Request, Response

from filter_service.images import Limits
from filter_service.images.views import View
from filter_service.rendering import renditions
from filter_service.web.http.service import Service

VERSION = "1"  # of how pictures are drawn; another one makes browsers ask again
ASK_AGAIN = "private, max-age=0, must-revalidate"  # it may have been erased meanwhile


def points_of(here: Service, digest: str, view: View) -> renditions.Points:
    """Of a stored image, so few that nothing can be recognised; raises ImageError."""
    limits = Limits.of(here.settings)
    return renditions.points(here.storage, digest, view.frame, limits, view.reading)


def original_of(here: Service, digest: str, view: View) -> bytes:
    """A stored image, encoded anew; raises ImageError."""
    limits = Limits.of(here.settings)
    return renditions.original(here.storage, digest, view.frame, limits, view.reading)


def sentence(text: str, longest: int = renditions.SHOWN, status: int = 200) -> Response:
    """In place of a picture; asked for again next time, since it may come back."""
    return Response(
        renditions.sentence(text, longest),
        status,
        media_type="image/jpeg",
        headers={"Cache-Control": "no-store"},
    )


def kept(picture: bytes, kind: str, tag: str) -> Response:
    """What browsers may keep under a tag, and ask about the next time."""
    return Response(picture, media_type=kind, headers=_caching(tag))


def unchanged(request: Request, tag: str) -> Response | None:
    """The answer to a browser that has this very picture."""
    known = request.headers.get("if-none-match", "")
    return Response(status_code=304, headers=_caching(tag)) if _etag(tag) in known else None


def _caching(tag: str) -> dict[str, str]:
    return {"Cache-Control": ASK_AGAIN, "ETag": _etag(tag)}


def _etag(tag: str) -> str:
    return f'"{tag}-{VERSION}"'
