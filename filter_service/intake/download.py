"""Downloads one URI, with limits on host, redirects, bytes, encoding and time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import fsspec
import httpcore

from filter_service.egress.client import Deadline, Internet, PinnedBackend
from filter_service.egress.uri_rules import AllowList, Reference
from filter_service.errors import (
    AddressUnavailable,
    FilterServiceError,
    ImageTooLarge,
    UnreadableImage,
    UnsafeAddress,
)
from filter_service.settings import VERSION

REDIRECTS = 3
BLOCK = 2**20  # bytes read of a bucket's object between two looks at the clock

_REDIRECTED = {301, 302, 303, 307, 308}
_TRY_AGAIN = {408, 425, 429, *range(500, 600)}
_HEADERS = [
    ("User-Agent", f"filter-service/{VERSION}"),
    ("Accept", "image/*, */*;q=0.1"),
    ("Accept-Encoding", "identity"),
    ("Connection", "close"),
]


def get(
    uri: str,
    hosts: Sequence[str],
    seconds: float,
    max_bytes: int,
    internet: Internet = Internet(),  # noqa: B008  (frozen)
    *,
    inside: bool = False,
) -> bytes:
    """The bytes that a URI refers to; `inside` takes names of the operator's own networks.

    Raises UnsafeAddress, ImageTooLarge or UnreadableImage for what will fail again, and
    AddressUnavailable for what may not.
    """
    allowed = AllowList.of(hosts, inside=inside)
    deadline = Deadline(seconds)
    found = reference = allowed.check(uri)
    if reference.scheme == "s3":
        return _from_bucket(reference, deadline, max_bytes)
    for _ in range(REDIRECTS + 1):
        answer = _ask(found, internet, deadline, max_bytes)
        if isinstance(answer, bytes):
            return answer
        found = found.redirected(answer, inside=inside)
        allowed.require(found)
    raise UnsafeAddress(
        f"{reference} is redirected more than {REDIRECTS} times; give the URI to which it leads."
    )


def _ask(
    reference: Reference, internet: Internet, deadline: Deadline, max_bytes: int
) -> bytes | str:
    """Send one request, to an address that was checked: the bytes, or where they are instead."""
    origin = (reference.scheme.encode(), reference.host.encode(), reference.port)
    with _translated(reference, deadline):
        addresses = internet.addresses(reference.host, reference.port)
        connection = httpcore.HTTPConnection(
            httpcore.Origin(*origin),
            ssl_context=internet.trusted(),
            network_backend=PinnedBackend(addresses, deadline),
        )
        url = httpcore.URL(
            scheme=origin[0], host=origin[1], port=origin[2], target=reference.target.encode()
        )
        try:
            with connection.stream("GET", url, headers=_HEADERS) as response:
                return _read(reference, response, max_bytes)
        finally:
            connection.close()


def _read(reference: Reference, response: httpcore.Response, max_bytes: int) -> bytes | str:
    headers = {name.lower(): value.decode("latin-1") for name, value in response.headers}
    if response.status in _REDIRECTED and b"location" in headers:
        return headers[b"location"]
    _require_ok(reference, response.status)
    encoding = headers.get(b"content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnreadableImage(
            f"{reference} came in the encoding {encoding[:40]!r} although it was asked for without "
            "any; have its server send the file as it is."
        )
    length = headers.get(b"content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(reference, max_bytes)
    return _joined(reference, response.iter_stream(), max_bytes)


def _require_ok(reference: Reference, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if status in _TRY_AGAIN:
        raise AddressUnavailable(
            f"{reference} answered with the status {status}; check its server."
        )
    raise UnreadableImage(
        f"{reference} answered with the status {status} instead of 200; check that it is there for "
        "everybody who has the URI."
    )


def _joined(reference: Reference, blocks: Iterable[bytes], max_bytes: int) -> bytes:
    """What came, as long as it is not too much."""
    data = bytearray()
    for block in blocks:
        data += block
        if len(data) > max_bytes:
            raise _too_large(reference, max_bytes)
    if not data:
        raise UnreadableImage(f"{reference} is empty (0 bytes); submit a whole, readable image.")
    return bytes(data)


def _too_large(reference: Reference, max_bytes: int) -> ImageTooLarge:
    return ImageTooLarge(
        f"{reference} has more than {max_bytes:,} bytes; submit a smaller image or raise "
        "FILTER_SERVICE_MAX_BYTES."
    )


def _from_bucket(reference: Reference, deadline: Deadline, max_bytes: int) -> bytes:
    """Read an object with the operator's own credentials, as fsspec finds them."""
    with _translated(reference, deadline):
        # Not by its URI, in which fsspec would look for options and for chains of file systems.
        files = fsspec.filesystem(reference.scheme)
        with files.open(f"{reference.host}{reference.target}", "rb") as file:
            return _joined(reference, _blocks(file, deadline), max_bytes)


def _blocks(file: Any, deadline: Deadline) -> Iterator[bytes]:  # noqa: ANN401  (fsspec has no types)
    while block := file.read(BLOCK):
        deadline.left()
        yield block


@contextmanager
def _translated(reference: Reference, deadline: Deadline) -> Iterator[None]:
    """The one door through which foreign errors come; each leaves as a sentence."""
    try:
        yield
    except FilterServiceError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImage(f"{reference} is not there; check the bucket and the key.") from error
    except ImportError as error:
        raise UnsafeAddress(
            f"{reference} is not fetched: this service lacks the package for it ({error}); have "
            "the operator install it."
        ) from error
    except httpcore.TimeoutException as error:
        raise AddressUnavailable(
            f"{reference} did not come within {deadline.seconds:g} seconds; check its server, or "
            "raise FILTER_SERVICE_FETCH_SECONDS."
        ) from error
    except Exception as error:  # each kind of store has its own tree of errors
        said = f"{type(error).__name__}: {error}".rstrip(".: ")[:200]
        raise AddressUnavailable(
            f"{reference} could not be fetched ({said}); check its server."
        ) from error
