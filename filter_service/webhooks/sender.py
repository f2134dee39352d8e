"""Signs one webhook message and sends it, within a time limit."""

import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from urllib.parse import urlsplit

import httpcore
from standardwebhooks import Webhook

from filter_service.egress.client import Deadline, Internet, PinnedBackend
from filter_service.egress.uri_rules import PORTS
from filter_service.errors import AddressUnavailable, UnsafeAddress
from filter_service.settings import VERSION, Settings

ANYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
GONE = 410


@dataclass(frozen=True, slots=True)
class Letter:
    """A webhook message with its address and the secret that signs it."""

    url: str
    secret: str
    message_id: str
    type: str
    at: datetime
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """The response to a message; no status: there was none."""

    status: int | None
    problem: str | None
    seconds: float

    @property
    def accepted(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """The receiver wants no more of this."""
        return self.status == GONE


def signed(letter: Letter, now: datetime) -> tuple[dict[str, str], bytes]:
    """Headers and body as the Standard Webhooks specification has them."""
    at = letter.at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    text = json.dumps({"type": letter.type, "timestamp": at, "data": letter.data})
    body = text.encode()
    headers = {
        "connection": "close",
        "content-length": str(len(body)),
        "content-type": "application/json",
        "user-agent": f"filter-service/{VERSION}",
        "webhook-id": letter.message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(letter.secret).sign(letter.message_id, now, text),
    }
    return headers, body


def send(letter: Letter, settings: Settings) -> Answer:
    """Send a letter, to an address that was checked; what goes wrong is the answer's problem."""
    started = time.monotonic()
    status = problem = None
    try:
        status = _post(letter, settings)
    except httpcore.TimeoutException:
        problem = f"it did not answer within {settings.webhook_seconds:g} seconds"
    except (AddressUnavailable, UnsafeAddress) as error:
        problem = str(error)
    except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
    if status is not None and not 200 <= status < 300:
        problem = f"it answered {status}, not 2xx"
    return Answer(status, problem, time.monotonic() - started)


def _post(letter: Letter, settings: Settings) -> int:
    """-> the status; redirects are not followed, and the rest of the answer is left."""
    parts = urlsplit(letter.url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    internet = Internet(also=ANYWHERE if settings.webhook_private else ())
    deadline = Deadline(settings.webhook_seconds)
    headers, body = signed(letter, datetime.now(UTC))
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = httpcore.HTTPConnection(
        httpcore.Origin(parts.scheme.encode(), host.encode(), port),
        ssl_context=internet.trusted(),
        network_backend=PinnedBackend(internet.addresses(host, port), deadline),
    )
    url = httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)
    try:
        with connection.stream("POST", url, headers=[*headers.items()], content=body) as response:
            return response.status
    finally:
        connection.close()
