"""Fixtures of the console's tests: judged samples, a console over them, a browser.

A file of tests that wants them says `pytest_plugins = ["tests.support.console_fixtures"]`.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import Engine, text

from filter_service.demo import POLICY, SAMPLES
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.local import Services
from filter_service.moderation.worker import Worker
from filter_service.policy import read_policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from tests.conftest import named
from tests.support.console_world import JUDGED, World, copies, labelled, world_over

FORBIDDEN, ORDINARY, COPIES = 32, 6, 4  # samples; copies of the first forbidden one
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NO_CHROMIUM = "there is no chromium on the PATH"
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def judged(
    admin: Engine, servers: Services, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A database named JUDGED with samples that the bundled model has judged; -> its folder."""
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {JUDGED} TEMPLATE {template}"))
    folder = tmp_path_factory.mktemp("judged")
    url = named(servers.database_url, JUDGED)
    settings = Settings(data_dir=folder, database_url=url, device="cpu")
    forbidden = labelled(True)[:FORBIDDEN]
    chosen = [*forbidden, *labelled(False)[:ORDINARY]]
    files = [Submission(name, (SAMPLES / name).read_bytes()) for name in chosen]
    broken = [
        Submission("notes.jpg", b"These are notes, and no picture."),
        Submission("half.jpg", (SAMPLES / forbidden[0]).read_bytes()[:5000]),
    ]
    with closing(Worker(settings)) as worker:
        submissions.accept(
            worker.sessions,
            Storage(settings.images_at),
            lambda: None,
            [*files, *copies(forbidden[0], COPIES), *broken],
            read_policy(POLICY),
            label="demo",
        )
        worker.drain(stop=lambda: False, notify_workers=lambda: None)
    return folder


@pytest.fixture
def world(admin: Engine, servers: Services, judged: Path) -> Iterator[World]:
    with world_over(admin, servers, judged) as found:
        yield found


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real browser without a window."""
    if CHROMIUM is None:
        pytest.skip(NO_CHROMIUM)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()
