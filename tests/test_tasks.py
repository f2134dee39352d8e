"""The Celery side: what a message is, what the schedule does, who does what, how a worker goes."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sqlalchemy import func, select, text

from filter_service import webhooks
from filter_service.cli.supervision import ended
from filter_service.db.session import Sessions
from filter_service.db.tables import Item
from filter_service.errors import InvalidSettings
from filter_service.intake import submissions
from filter_service.intake.submissions import Submission
from filter_service.policy import ForbiddenClass, Policy
from filter_service.settings import Settings
from filter_service.storage import Storage
from tasks.__main__ import CeleryQueue
from tasks.celery import configuration
from tests.support.served import ROOT, Service, environment, picture, write_model

ITEMS = 400
POLICY = Policy(
    name="drawn",
    neutral=("a wall",),
    classes=(ForbiddenClass(name="circle", prompts=("a circle",), threshold=0.99),),
)


def run(code: str, settings: Settings) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_notifying_in_vain_fails_nobody() -> None:
    settings = Settings(broker_url="redis://127.0.0.1:9/0")
    assert run("from tasks import notify_workers; print(notify_workers())", settings) == "None"


def test_who_only_notifies_loads_no_model() -> None:
    code = "import sys, tasks; print('torch' in sys.modules, 'open_clip' in sys.modules)"
    assert run(code, Settings()) == "False False"


def test_a_worker_without_a_broker_says_what_to_set() -> None:
    with pytest.raises(InvalidSettings, match="FILTER_SERVICE_BROKER_URL"):
        configuration(Settings(broker_url=None))


def test_a_message_outlives_the_longest_task() -> None:
    found = configuration(Settings(broker_url="redis://localhost", drain_seconds=5_000))
    visible = found["broker_transport_options"]["visibility_timeout"]
    assert visible > found["task_time_limit"] > 5_000


def test_whatever_is_scheduled_exists() -> None:
    code = """
from tasks import app
scheduled = {entry["task"] for entry in app.conf.beat_schedule.values()}
app.loader.import_default_modules()
print(scheduled - app.tasks.keys())
"""
    assert run(code, Settings(broker_url="redis://127.0.0.1:9/0")) == "set()"


def test_who_judges_does_no_chores_and_who_does_chores_never_judges() -> None:
    code = """
from tasks import app
from tasks.celery import CHORES_WORKER
app.loader.import_default_modules()
print(*app.amqp.queues.consume_from)
app.amqp.queues.select(CHORES_WORKER[1])
print(*app.amqp.queues.consume_from)
queues = {e["task"]: e["options"].get("queue") for e in app.conf.beat_schedule.values()}
print(queues)
"""
    judging, chores, scheduled = run(code, Settings(broker_url="redis://127.0.0.1:9/0")).split("\n")
    assert (judging, chores) == ("filter_service", "chores")
    assert ast.literal_eval(scheduled) == {
        "tasks.drain": None,
        "tasks.index": None,
        "tasks.chore": "chores",
    }


def test_who_does_chores_loads_no_model() -> None:
    code = "import sys, tasks.chores; print('torch' in sys.modules, 'open_clip' in sys.modules)"
    assert run(code, Settings(broker_url="redis://127.0.0.1:9/0")) == "False False"


def test_chores_are_done_by_a_process_of_their_own(
    database_url: str, broker_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path, database_url=database_url, broker_url=broker_url, webhook_private=True
    )
    endpoint, _ = webhooks.add_endpoint(
        sessions, settings, "http://127.0.0.1:9/", None, "person ada"
    )
    webhooks.ping(sessions, endpoint.id, "person ada")
    queue, log = CeleryQueue(), tmp_path / "log"
    with ended([queue.chores(settings, log), queue.schedule(settings, log)]):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not tried(sessions, endpoint.id):
            time.sleep(0.1)
        judging = queue.workers(broker_url)
    assert tried(sessions, endpoint.id), log.read_text()
    assert judging == 0


def tried(sessions: Sessions, endpoint: int) -> bool:
    return bool(webhooks.deliveries(sessions, endpoint).deliveries[0].attempts)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of the death")
def test_what_a_killed_command_line_started_goes_too(broker_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, broker_url=broker_url)
    code = (
        "import time\nfrom filter_service.settings import Settings\n"
        "from tasks.__main__ import CeleryQueue\n"
        "print(CeleryQueue().schedule(Settings.load()).pid, flush=True)\ntime.sleep(600)"
    )
    command = [sys.executable, "-c", code]
    with psutil.Popen(
        command, cwd=ROOT, env=environment(settings), stdout=subprocess.PIPE, text=True
    ) as parent:
        started = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    started.wait(60)


def test_a_worker_that_is_told_to_go_gives_back_what_it_holds(
    database_url: str, broker_url: str, sessions: Sessions, tmp_path: Path
) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url=broker_url,
        model=write_model(tmp_path / "model"),
        device="cpu",
        batch_size=4,
        sweep_seconds=1,
    )
    files = [Submission(f"{i}", picture(i)) for i in range(ITEMS)]
    storage = Storage((tmp_path / "images").as_uri())
    submissions.accept(sessions, storage, lambda: None, files, POLICY)
    service = Service(settings, tmp_path)
    with service.schedule(), service.worker() as worker:
        until_judging(sessions)
        worker.terminate()
        worker.wait(60)
    with sessions.begin() as session:
        free = session.scalar(
            text("SELECT count(*) FROM queue WHERE leased_until <= now() AND attempts = 0")
        )
        done = session.scalar(select(func.count(Item.verdict)))
    assert free
    assert (free or 0) + (done or 0) == ITEMS


def until_judging(sessions: Sessions) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with sessions.begin() as session:
            if session.scalar(select(func.count(Item.verdict))):
                return
        time.sleep(0.02)
    raise AssertionError("the worker judged nothing in two minutes")
