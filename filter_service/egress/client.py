"""Outgoing connections to public addresses only, resolved once and pinned (against SSRF)."""

import socket
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address

import httpcore

from filter_service.errors import AddressUnavailable, UnsafeAddress

Resolver = Callable[[str, int], Sequence[str]]  # name, port -> its IP addresses
Network = IPv4Network | IPv6Network

# What the registry of IANA sets apart from the public Internet (RFC 6890 and its successors),
# multicast, and the one metadata service that has a public address, Azure's.
_APART = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
)
# Of IPv6, what is handed out for the public Internet is one block. All else is refused, and so are
# the parts of it in which there may be an IPv4 address in disguise.
_UNICAST = IPv6Network("2000::/3")
_APART_OF_UNICAST = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo among others
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)


def is_public(address: str) -> bool:
    """Whether anybody on the Internet may have this IP address."""
    ip = ip_address(address)
    if isinstance(ip, IPv4Address):
        return not any(ip in network for network in _APART)
    return (
        ip in _UNICAST
        and ip.scope_id is None
        and not any(ip in network for network in _APART_OF_UNICAST)
    )


def _resolve(host: str, port: int) -> Sequence[str]:
    """Ask the system, which has its own limit of time for it."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@cache
def _trusted() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


@dataclass(frozen=True, slots=True)
class Internet:
    """How names are resolved, which addresses are allowed, and whose certificates are trusted.

    As it is by default it reaches public addresses only. Tests bring their own.
    """

    resolve: Resolver = _resolve
    also: tuple[Network, ...] = ()  # what may be connected to although it is not public
    trusted: Callable[[], ssl.SSLContext] = _trusted

    def addresses(self, host: str, port: int) -> list[str]:
        """A host's addresses. Raises UnsafeAddress if any may not be connected to."""
        try:
            resolved = list(self.resolve(host, port))
        except (OSError, UnicodeError) as error:
            raise AddressUnavailable(
                f"The host {host} has no address just now ({error}); check its name."
            ) from error
        refused = [address for address in resolved if not self._may(address)]
        if refused:
            raise UnsafeAddress(
                f"Nothing is fetched from the host {host}: its address {refused[0]} is not one of "
                "the public Internet; give a host that has none but public addresses, or have the "
                "operator allow its network."
            )
        if not resolved:
            raise AddressUnavailable(f"The host {host} has no address just now; check its name.")
        return resolved

    def _may(self, address: str) -> bool:
        ip = ip_address(address)
        return is_public(address) or any(
            ip.version == network.version and ip in network for network in self.also
        )


class Deadline:
    """A moment by which everything must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then. Raises httpcore's ReadTimeout when there are none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("out of time")
        return left


class PinnedBackend(httpcore.NetworkBackend):
    """Connects to the addresses that were checked, whatever the name may mean by then.

    The name is still what the server is asked for, and what its certificate must be made out to.
    """

    def __init__(self, addresses: Sequence[str], deadline: Deadline) -> None:
        self._addresses = addresses
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """The first address that answers; each has an equal share of the time that is left."""
        for waiting in range(len(self._addresses), 0, -1):
            address = self._addresses[-waiting]
            try:
                stream = httpcore.SyncBackend().connect_tcp(
                    address, port, self._deadline.left() / waiting, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if waiting == 1:
                    raise
            else:
                return _Timed(stream, self._deadline)
        raise httpcore.ConnectError(f"{host} has no address")


@dataclass(frozen=True)
class _Timed(httpcore.NetworkStream):
    """A connection on which no single wait lasts beyond the time for everything."""

    stream: httpcore.NetworkStream
    deadline: Deadline = field(repr=False)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, self.deadline.left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, self.deadline.left())

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        stream = self.stream.start_tls(ssl_context, server_hostname, self.deadline.left())
        return _Timed(stream, self.deadline)

    def get_extra_info(self, info: str) -> object:
        return self.stream.get_extra_info(info)
