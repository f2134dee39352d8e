"""Reads the private networks that an operator lets URIs be fetched from."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from filter_service.errors import InvalidSettings

Network = IPv4Network | IPv6Network

# Where clouds tell a machine its own credentials: no network that holds one of them is allowed.
METADATA = tuple(
    ip_address(text)
    for text in ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")
)


def private_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Raises InvalidSettings for what is no network, or holds a cloud's metadata service."""
    return tuple(_network(text) for text in texts)


def _network(text: str) -> Network:
    try:
        found = ip_network(text)
    except ValueError as error:
        raise InvalidSettings(
            f"FILTER_SERVICE_FETCH_PRIVATE holds {text!r}, which is no network ({error}): write "
            'such as "10.1.0.0/16" or "10.1.2.3/32".'
        ) from error
    if inside := next((a for a in METADATA if a.version == found.version and a in found), None):
        raise InvalidSettings(
            f"FILTER_SERVICE_FETCH_PRIVATE holds {text!r}, in which {inside} lies, where a cloud "
            "tells machines their credentials: name smaller networks."
        )
    return found
