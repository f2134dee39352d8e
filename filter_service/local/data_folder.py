"""The data folder of embedded servers: its locks, and the account that owns their files.

Servers never run as root. Where root starts them, an account made for it owns their files, and it
may be shut out of the data folder, say by a home folder that is closed to others. Nobody's folder
is opened for it: then the servers' files lie under /var/lib and a link in the data folder names
their place, and programs that it cannot reach are copied there.
"""

import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from filter_service.errors import InvalidSettings
from filter_service.local.processes import at_work, brokers_at_work, end
from filter_service.settings import Settings

if sys.platform != "win32":  # the module can be imported there, to say that it does not run
    import fcntl
    import pwd

_ACCOUNT = "filter-service"  # of the machine, used where root starts the servers
_STATE = Path("/var/lib/filter-service")  # where that account reaches what it owns
_LINK = "servers"  # in the data folder, to the servers' files if they lie elsewhere
_OURS = 0o710  # mode of a data folder that root made here: its group may pass, others may not
_OWNER = "data-folder"  # there, the path of the data folder


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
class DataFolder:
    """The data folder, and the account under which servers run in it."""

    folder: Path  # absolute

    @classmethod
    def of(cls, settings: Settings) -> "DataFolder":
        """The settings' data folder, made when missing; InvalidSettings where that cannot be."""
        if sys.platform not in ("linux", "darwin"):
            raise InvalidSettings(
                f"Embedded services run on Linux and macOS, not on {sys.platform}: set "
                "FILTER_SERVICE_DATABASE_URL and FILTER_SERVICE_BROKER_URL to servers of your own."
            )
        place = cls(settings.data_dir.expanduser().resolve())
        try:
            place._make()
            with place.users(), place.alone():
                place._settle()
        except OSError as error:
            raise InvalidSettings(
                f"The data folder {place.folder} cannot be written ({error.strerror}): set "
                "FILTER_SERVICE_DATA_DIR to a folder of yours."
            ) from error
        return place

    @property
    def run(self) -> Path:
        """Sockets and addresses of what runs; its owner is the servers' account."""
        return self.home / "run"

    @property
    def home(self) -> Path:
        """Where the servers' files lie: the data folder, or the place that a link in it names."""
        link = self.folder / _LINK
        return link.resolve() if link.is_symlink() else self.folder

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
            os.chown(folder, *self.account())
        return folder

    def account(self) -> tuple[int, int]:
        """User and group of the servers: nothing runs as root, and Postgres would refuse to.

        It is whoever owns `run`, except that root's folder passes to an account made for it.
        """
        with suppress(FileNotFoundError):
            owner = self.run.stat()
            if owner.st_uid != 0:
                return owner.st_uid, owner.st_gid
        return _unprivileged()

    def package(self, name: str) -> Path | None:
        """The folder of an installed package, where the servers' account can run its programs."""
        # Found and not imported: these packages read the environment when they are.
        found = find_spec(name)
        if found is None or found.origin is None:
            return None
        folder = Path(found.origin).parent
        if os.geteuid() != 0 or _reaches(self.account(), folder):
            return folder
        return _copied(folder)

    def execute(
        self, program: Path, *arguments: str, cwd: Path, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the servers to its end, under their account."""
        account: dict[str, Any] = {}
        if os.geteuid() == 0:
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

    def _make(self) -> None:
        """Make the data folder if need be, closed to others."""
        mode = 0o700 if os.geteuid() != 0 else _OURS
        self.folder.mkdir(mode=mode, parents=True, exist_ok=True)

    def _settle(self) -> None:
        """Decide once where the servers' files lie."""
        if os.geteuid() == 0:
            if stat.S_IMODE(self.folder.stat().st_mode) == _OURS:
                os.chown(self.folder, 0, self.account()[1])  # the group is the servers' account
            self._find_home()
        self.own(self.run)

    def _find_home(self) -> None:
        if not self.home.exists():
            raise InvalidSettings(
                f"The database of {self.folder} lay in {self.home}, which is gone: bring it back, "
                f"or delete {self.folder / _LINK} to begin with an empty one."
            )
        if not _reaches(self.account(), self.home):
            if self.run.exists():
                raise InvalidSettings(
                    f"The account {_ACCOUNT}, which runs the embedded servers for root, can no "
                    f"longer reach {self.home}: let others pass the folders above it (chmod o+x), "
                    "or set FILTER_SERVICE_DATA_DIR to a new folder."
                )
            self._move_out()

    def _move_out(self) -> None:
        """Let the servers' files lie in a new folder under /var/lib."""
        _STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        for other in _STATE.glob(f"*/{_OWNER}"):  # of a data folder that was deleted and made anew
            if other.read_text() == str(self.folder):
                end(at_work("postgres", other.parent / "postgres"), signal.SIGKILL)
                end(brokers_at_work(other.parent / "redis"), signal.SIGKILL)
        home = self.own(_STATE / secrets.token_hex(4))
        (home / _OWNER).write_text(str(self.folder))
        (self.folder / _LINK).symlink_to(home)


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


def _reaches(account: tuple[int, int], folder: Path) -> bool:
    """Whether an account may pass a folder and all those above it."""
    uid, gid = account
    for each in (folder, *folder.parents):
        status = each.stat()
        owned = status.st_uid == uid and status.st_mode & stat.S_IXUSR
        shared = status.st_gid == gid and status.st_mode & stat.S_IXGRP
        if not (owned or shared or status.st_mode & stat.S_IXOTH):
            return False
    return True


def _copied(package: Path) -> Path:
    """A copy of a package, with the libraries beside it, that every account can run."""
    libraries = package.with_name(f"{package.name}.libs")  # where wheels put them
    made = f"{package} {package.stat().st_mtime_ns}"  # installed anew: copied anew
    copies = _STATE / f"programs-{hashlib.sha256(made.encode()).hexdigest()[:16]}"
    if not copies.exists():
        _STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(dir=_STATE))
        for source in (s for s in (package, libraries) if s.exists()):
            shutil.copytree(source, new / source.name, symlinks=True)
        for file in (new, *(f for f in new.rglob("*") if not f.is_symlink())):
            mode = file.stat().st_mode
            file.chmod(0o755 if mode & stat.S_IXUSR else 0o644)
        try:
            new.rename(copies)
        except OSError:  # another process was quicker
            shutil.rmtree(new)
    return copies / package.name
