"""docker-compose.yml and Dockerfile, as far as they can be checked without an engine."""

import importlib
import itertools
import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery

from filter_service.settings import Settings
from tasks.celery import CHORES_WORKER
from tests.support.commands import registered

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: s for name, s in SERVICES.items() if "build" in s}
VARIABLE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?::([-?])([^}]*))?\}")
OPTIONS: dict[tuple[str, ...], set[str]] = {(): {"--help"}} | {
    c.path: {option for p in c.parameters for option in p.options} for c in registered()
}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def command(service: dict[str, Any]) -> list[str]:
    return [*service.get("entrypoint", []), *service.get("command", [])]


def test_every_variable_is_documented_and_no_other() -> None:
    used = {name for name, _, _ in VARIABLE.findall(TEXT)}
    assert used == set(example())


def test_every_variable_has_a_default_or_says_that_it_must_be_set() -> None:
    for name, kind, rest in VARIABLE.findall(TEXT):
        assert kind == "-" or (kind == "?" and rest), name


def test_no_secret_has_a_default() -> None:
    secrets = {name: kind for name, kind, _ in VARIABLE.findall(TEXT) if "PASSWORD" in name}
    assert secrets and set(secrets.values()) == {"?"}
    assert {v for k, v in example().items() if "PASSWORD" in k} == {""}


def test_our_variables_are_settings() -> None:
    known = {f"FILTER_SERVICE_{name.upper()}" for name in Settings.model_fields}
    for name, service in OURS.items():
        ours = {v for v in service["environment"] if v.startswith("FILTER_SERVICE_")}
        assert ours <= known, name
    assert {v for v in example() if v.startswith("FILTER_SERVICE_")} <= known


def test_every_setting_in_the_file_of_variables_reaches_the_service() -> None:
    for name, service in OURS.items():
        assert [e["path"] for e in service["env_file"]] == [".env"], name


def test_the_settings_read_what_compose_hands_over(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {**example(), "POSTGRES_PASSWORD": "pw1", "REDIS_PASSWORD": "pw2"}
    for name, value in SERVICES["worker"]["environment"].items():
        resolved = VARIABLE.sub(lambda m: given[m[1]] or (m[3] if m[2] == "-" else ""), value)
        monkeypatch.setenv(name, resolved)
    found = Settings.load(_env_file=None)
    assert found.database_url == "postgresql://filter_service:pw1@postgres:5432/filter_service"
    assert found.broker_url == "redis://:pw2@redis:6379/0"
    assert found.images_at == "/data/images"
    assert found.model == "bundled" and found.pretrained is None


def test_addresses_name_services_and_their_database() -> None:
    for service in OURS.values():
        hosts = re.findall(r"@(\w+):\d+", " ".join(service["environment"].values()))
        assert set(hosts) == {"postgres", "redis"} <= set(SERVICES)
    assert SERVICES["postgres"]["environment"]["POSTGRES_DB"] == "filter_service"
    assert SERVICES["postgres"]["environment"]["POSTGRES_USER"] == "filter_service"


@pytest.mark.parametrize("name", OURS)
def test_every_command_exists(name: str) -> None:
    program, *arguments = command(OURS[name])
    if program == "celery":
        assert arguments[0] == "-A"
        found = importlib.import_module(arguments[1]).app
        assert isinstance(found, Celery)
        assert arguments[2] in ("worker", "beat")
    else:
        scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
        assert program in scripts
        words = itertools.takewhile(lambda word: not word.startswith("-"), arguments)
        options = OPTIONS[tuple(words)]
        assert {word for word in arguments if word.startswith("--")} <= options


def test_who_waits_for_health_waits_for_somebody_who_is_checked() -> None:
    for name, service in SERVICES.items():
        for other, how in service.get("depends_on", {}).items():
            target = SERVICES[other]
            if how["condition"] == "service_healthy":
                assert "healthcheck" in target, f"{name} waits for {other}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert "unless-stopped" not in target.get("restart", "")


def test_what_keeps_running_is_checked_and_started_again() -> None:
    lasting = [s for n, s in SERVICES.items() if n not in ("migrate", "cli")]
    assert all(s["restart"] == "unless-stopped" and s["healthcheck"] for s in lasting)


@pytest.mark.parametrize(("name", "node"), [("worker", "celery"), ("chores", "chores")])
def test_the_workers_check_asks_the_worker_itself(name: str, node: str) -> None:
    check = SERVICES[name]["healthcheck"]["test"][1].replace("$$", "$")
    words = shlex.split(check)
    assert words[:5] == ["celery", "-A", "tasks", "inspect", "ping"]
    assert f"{node}@$HOSTNAME" in words
    assert node == "celery" or f"{node}@%h" in command(SERVICES[name])


def test_chores_are_done_as_the_command_line_does_them() -> None:
    words = command(SERVICES["chores"])
    first = words.index("-Q")
    assert [w for w in CHORES_WORKER if w in words[first:]] == list(CHORES_WORKER)
    assert "-Q" not in command(SERVICES["worker"])  # the default queue only


def test_the_page_is_published_to_this_machine_only() -> None:
    [port] = SERVICES["web"]["ports"]
    assert port.startswith("127.0.0.1:") and port.endswith(f":{Settings().web_port}")
    assert [name for name, s in SERVICES.items() if "ports" in s] == ["web"]
    assert "/ready" in SERVICES["web"]["healthcheck"]["test"][-1]


def test_named_volumes_are_declared() -> None:
    used = {v.split(":")[0] for s in SERVICES.values() for v in s.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def copied() -> list[str]:
    """What the Dockerfile copies out of the working copy."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ")]
    return [path for line in lines if not line[0].startswith("--from") for path in line]


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    allowed = (ROOT / ".dockerignore").read_text().split()
    assert allowed[0] == "*"
    for path in copied():
        assert (ROOT / path).exists(), path
        assert any(fnmatch(path.removeprefix("./"), rule[1:]) for rule in allowed[1:]), path


def test_the_image_has_what_the_wheel_is_built_from() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    sources = {*wheel["packages"], *wheel["force-include"], project["project"]["readme"]}
    assert sources | {"LICENSE", "pyproject.toml", "requirements.lock"} == set(copied())


def test_the_image_does_not_run_as_root() -> None:
    users = re.findall(r"^USER (\w+)", DOCKERFILE, re.MULTILINE)
    assert users and users[-1] not in ("root", "0")
    assert f"--owner {users[-1]}" in DOCKERFILE  # who also owns the volume's folder
