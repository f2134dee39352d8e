"""Middleware: security headers on every answer, and a limit on the size of bodies."""

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from filter_service.web.http.service import Service

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # forms without a referrer have no origin, either
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
ONE_YEAR = "max-age=31536000"  # seconds that a browser remembers to come by https only
PUBLIC = "/static/"  # everything else is somebody's own
LARGEST_FORM = 2**20  # bytes; forms are read before anybody knows whose they are
IMAGES = ("/v1/batches", "/v1/search", "/search")  # they count for themselves


def add_to(app: FastAPI) -> None:
    """Put the headers on every answer, and an end to every body."""
    service: Service = app.state.service
    secure = (service.settings.public_url or "").startswith("https://")
    app.add_middleware(_Measured)
    app.add_middleware(_Shield, secure=secure)


class _Shield:
    """Outside of everything else, so that answers to errors have the headers, too."""

    def __init__(self, app: ASGIApp, secure: bool) -> None:
        self._app = app
        self._headers = HEADERS | ({"Strict-Transport-Security": ONE_YEAR} if secure else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                # A room that knows better says so itself, such as for a picture that is blurred.
                public = scope["path"].startswith(PUBLIC)
                headers.setdefault("Cache-Control", "no-cache" if public else "no-store")
            await send(message)

        await self._app(scope, receive, shielded if scope["type"] == "http" else send)


class _Measured:
    """Refuses what is too long while it still arrives, also where no length was told."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        got = 0

        async def measured() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > LARGEST_FORM:
                raise HTTPException(
                    413, f"The request has more than {LARGEST_FORM:,} bytes: send a shorter one."
                )
            return message

        counted = scope["type"] == "http" and scope["path"] not in IMAGES
        await self._app(scope, measured if counted else receive, send)
