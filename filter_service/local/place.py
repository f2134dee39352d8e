"""The data folder of embedded servers: its locks, and the account that owns what runs there."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from filter_service.errors import InvalidSettings
from filter_service.settings import Settings

if sys.platform != "win32":  # the module can be imported there, to say that it does not run
    import fcntl
    import pwd

_ACCOUNT = "filter-service"  # of the machine, used where root starts the servers


@dataclass(frozen=True, slots=True)
class Users:
    """The shared lock that everyone who uses the servers holds."""

    file: IO[bytes]

    def join(self) -> None:
        fcntl.flock(self.file, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Let go of the lock; True when nobody else holds it."""
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            fcntl.flock(self.file, fcntl.LOCK_UN)  # else a forked child keeps it with its copy
        return True


@dataclass(frozen=True, slots=True)
class Place:
    """The data folder, and the account under which servers run in it."""

    folder: Path  # absolute

    @classmethod
    def of(cls, settings: Settings) -> "Place":
        """The settings' data folder, made when missing; InvalidSettings where that cannot be."""
        if sys.platform not in ("linux", "darwin"):
            raise InvalidSettings(
                f"Embedded services run on Linux and macOS, not on {sys.platform}: set "
                "FILTER_SERVICE_DATABASE_URL and FILTER_SERVICE_BROKER_URL to servers of your own."
            )
        place = cls(settings.data_dir.expanduser().resolve())
        try:
            place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place.own(place.run)
            with place.users():
                pass
        except OSError as error:
            raise InvalidSettings(
                f"The data folder {place.folder} cannot be written ({error.strerror}): set "
                "FILTER_SERVICE_DATA_DIR to a folder of yours."
            ) from error
        return place

    @property
    def run(self) -> Path:
        """Sockets and addresses of what runs; its owner is the servers' account."""
        return self.folder / "run"

    @contextmanager
    def users(self) -> Iterator[Users]:
        """Those who use the servers; the lock is let go with the file."""
        with (self.folder / "users.lock").open("ab") as file:
            yield Users(file)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock under which servers start and stop."""
        with (self.folder / "start.lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def own(self, folder: Path) -> Path:
        """Make a folder that only the servers' account (and root) may enter."""
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            uid, gid = self.account()
            os.chown(folder, uid, gid)
            _let_through(folder)
        return folder

    def account(self) -> tuple[int, int]:
        """User and group of the servers: nothing runs as root, and Postgres would refuse to.

        It is whoever owns `run`, except that root's folder passes to an account made for it.
        """
        owner = self.run.stat()
        if owner.st_uid == 0:
            return _unprivileged()
        return owner.st_uid, owner.st_gid

    def execute(
        self, program: Path, *arguments: str, cwd: Path, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the servers to its end, under their account."""
        account: dict[str, Any] = {}
        if os.geteuid() == 0:
            _let_through(program)
            uid, gid = self.account()
            account = {"user": uid, "group": gid, "extra_groups": []}
        return subprocess.run(
            [str(program), *arguments],
            cwd=cwd,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            **account,
        )


def _unprivileged() -> tuple[int, int]:
    """User and group of the servers' own account, made when missing (by root only)."""
    for _ in range(20):
        try:
            entry = pwd.getpwnam(_ACCOUNT)
            return entry.pw_uid, entry.pw_gid
        except KeyError:
            _add_account()
    raise InvalidSettings(
        f"Postgres does not run as root, and the account {_ACCOUNT} could not be made: run "
        f"`useradd --system {_ACCOUNT}`, or start as another user, or set "
        "FILTER_SERVICE_DATABASE_URL and FILTER_SERVICE_BROKER_URL."
    )


def _add_account() -> None:
    command = ["useradd", "--system", "--user-group", "--shell", "/usr/sbin/nologin", _ACCOUNT]
    try:
        done = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        return
    if done.returncode:
        time.sleep(0.1)  # another process may be changing the same files


def _let_through(path: Path) -> None:
    """Let other accounts pass (not read) the folders above a path, as root's home may not."""
    for folder in path.parents:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
