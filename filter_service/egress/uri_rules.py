"""Parses URIs strictly, and checks their hosts against the operator's allow list.

What two parsers could read in two ways is refused here, so that nothing else reads it at all: what
is connected to and sent is put together from the parts found here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Self
from urllib.parse import urljoin

from filter_service.errors import InvalidSettings, UnsafeAddress

LONGEST = 8_192  # characters of a URI; signed ones have some thousand
PORTS = {"http": 80, "https": 443}

# The characters and the five parts of RFC 3986.
_CHARACTERS = re.compile(r"(?:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})*")
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(\?[^#]*)?(?:#.*)?")
_AUTHORITY = re.compile(r"([^:\[\]@]*)(?::([0-9]{1,5}))?")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{4,253}}$){_LABEL}(?:\.{_LABEL})+")
_INSIDE_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")  # such as minio
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # as the last label it makes the name an IPv4 address
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")

# Names inside a machine, a network or a cloud; those of metadata services among them.
_INSIDE = re.compile(
    r"(?:.*\.)?(?:localhost|localdomain|local|internal|intranet|lan|home|corp|home\.arpa|onion"
    r"|metadata\.goog|metadata\.tencentyun\.com|metadata\.platformequinix\.com|metadata\.packet\.net)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """The parts of a URI that may be fetched, if its host is allowed."""

    scheme: str  # http, https or s3
    host: str  # a name in lower case, or a bucket
    port: int  # 0 for a bucket
    target: str  # path and query, or a key

    def __str__(self) -> str:
        """Without the query, in which there may be secrets."""
        port = "" if self.port == PORTS.get(self.scheme, 0) else f":{self.port}"
        return shown(f"{self.scheme}://{self.host}{port}{self.target}")

    def redirected(self, location: str, *, inside: bool = False) -> "Reference":
        """Where a redirect leads. Raises UnsafeAddress."""
        _require_characters(location)  # before it is joined, which would remove some
        here = f"{self.scheme}://{self.host}:{self.port}{self.target}"
        redirect = parse(urljoin(here, location), inside=inside)
        if redirect.scheme not in ("https", self.scheme):
            raise UnsafeAddress(
                f"{self} redirects to {redirect}, and only from http to https may the scheme "
                "change; give the URI to which it leads."
            )
        return redirect


@dataclass(frozen=True, slots=True)
class AllowList:
    """The hosts from which an operator lets URIs be fetched."""

    entries: tuple["_Entry", ...]
    inside: bool = False  # names inside the operator's own networks are names, too

    @classmethod
    def of(cls, hosts: Sequence[str], *, inside: bool = False) -> Self:
        """Raises InvalidSettings for an entry that is no host."""
        return cls(tuple(_entry(host, inside) for host in hosts), inside)

    def check(self, uri: str) -> Reference:
        """Raises UnsafeAddress unless this URI may be fetched; its host's address is not asked."""
        reference = parse(uri, inside=self.inside)
        self.require(reference)
        return reference

    def require(self, reference: Reference) -> None:
        """Raises UnsafeAddress unless this host is allowed."""
        if not any(entry.allows(reference) for entry in self.entries):
            host = f"{'s3://' if reference.scheme == 's3' else ''}{reference.host}"
            if reference.port != PORTS.get(reference.scheme, 0):
                host = f"{host}:{reference.port}"
            allowed = ", ".join(e.text for e in self.entries) or "none"
            raise UnsafeAddress(
                f"{reference} is not fetched: {host} is not among the allowed hosts ({allowed}); "
                "submit the file itself, or have the operator add the host to "
                "FILTER_SERVICE_FETCH_HOSTS."
            )


def check(uri: str, hosts: Sequence[str]) -> None:
    """Raises UnsafeAddress unless this URI may be fetched, InvalidSettings for hosts that are none.

    It looks at the URI alone: the addresses of the host are checked when it is fetched.
    """
    AllowList.of(hosts).check(uri)


def parse(uri: str, *, inside: bool = False) -> Reference:
    """Read a URI strictly. Raises UnsafeAddress for what is never fetched, whoever allows it.

    `inside` takes names that only a network of the operator's own knows.
    """
    if len(uri) > LONGEST:
        raise UnsafeAddress(
            f"The URI {shown(uri)!r} has {len(uri):,} characters, the limit is {LONGEST:,}; submit "
            "the file itself."
        )
    if uri.startswith("s3://"):
        return _bucket(uri)
    _require_characters(uri)
    parts = _PARTS.fullmatch(uri)
    scheme, authority, path, query = parts.groups() if parts else ("", "", "", "")
    scheme = (scheme or "").lower()
    if scheme not in PORTS or authority is None:
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: a URI begins with https://, http:// or s3://."
        )
    host, port = _authority(uri, authority, inside)
    return Reference(scheme, host, port or PORTS[scheme], f"{path or '/'}{query or ''}")


def shown(uri: str) -> str:
    """A URI as it may stand in a message: no credentials, no query, nothing unprintable, short."""
    bare = re.sub(r"(?<=//)[^/?#]*@", "", re.split(r"[?#]", uri, maxsplit=1)[0])
    text = "".join(c if c.isprintable() else "?" for c in bare)
    return text if len(text) <= 200 else f"{text[:200]}…"


@dataclass(frozen=True, slots=True)
class _Entry:
    """One allowed host, or all the names under one."""

    text: str
    scheme: str  # "" for http and https
    host: str
    port: int | None  # None: the scheme's own
    under: bool  # the names under the host, not itself

    def allows(self, reference: Reference) -> bool:
        if self.scheme != ("s3" if reference.scheme == "s3" else ""):
            return False
        if self.scheme == "" and reference.port != (self.port or PORTS[reference.scheme]):
            return False
        return (
            reference.host.endswith(f".{self.host}")
            if self.under
            else (reference.host == self.host)
        )


@cache
def _entry(text: str, inside: bool) -> _Entry:
    if text.startswith("s3://") and _BUCKET.fullmatch(bucket := text.removeprefix("s3://")):
        return _Entry(text, "s3", bucket, None, under=False)
    name = text.lower().removeprefix("*.")
    match = _AUTHORITY.fullmatch(name)
    if match is None or _problem_of_host(match[1], inside) or not _is_port(match[2]):
        raise InvalidSettings(
            f"FILTER_SERVICE_FETCH_HOSTS holds {text!r}, which is no host: write a name such as "
            '"images.example.org", "*.example.org" for all names under one, with ":8443" for a '
            'port of its own, or "s3://bucket".'
        )
    port = int(match[2]) if match[2] else None
    return _Entry(text, "", match[1], port, under=text.startswith("*."))


def _authority(uri: str, authority: str, inside: bool) -> tuple[str, int | None]:
    """Host and port. Raises UnsafeAddress."""
    if "@" in authority:
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: it carries credentials before an @; leave them out."
        )
    if "[" in authority:
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: its host is an IP address; give the host's name."
        )
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not _is_port(match[2]):
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: {authority!r} is not a host with or without a port "
            "from 1 to 65535."
        )
    host = match[1].lower()
    if problem := _problem_of_host(host, inside):
        raise UnsafeAddress(f"{shown(uri)!r} is not fetched: its host {host!r} {problem}.")
    return host, int(match[2]) if match[2] else None


def _problem_of_host(host: str, inside: bool) -> str | None:
    """What keeps a host from being a name of the public Internet, as the end of a sentence."""
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        return "is an IP address; give the host's name"
    if inside and _INSIDE_NAME.fullmatch(host):
        return None
    if _INSIDE.fullmatch(host):
        return "is a name inside some network; give one of the public Internet"
    if not _NAME.fullmatch(host):
        return (
            "is not a full name of letters, digits and hyphens between dots, such as "
            "images.example.org"
        )
    return None


def _is_port(digits: str | None) -> bool:
    return digits is None or 1 <= int(digits) <= 65_535


def _bucket(uri: str) -> Reference:
    """An object in a bucket, as manifests of AWS refer to it. Its key may hold almost anything."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket) or not key or not key.isprintable():
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: write s3://bucket/key, with a key that is printable."
        )
    return Reference("s3", bucket, 0, f"/{key}")


def _require_characters(uri: str) -> None:
    if not _CHARACTERS.fullmatch(uri):
        raise UnsafeAddress(
            f"{shown(uri)!r} is not fetched: it holds characters that a URI has not; "
            "percent-encode them in the path, and write an international host name in its xn-- "
            "form."
        )
