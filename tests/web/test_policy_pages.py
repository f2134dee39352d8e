"""The pages of policies, and the commands: proposed, looked at, activated by somebody else."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine, select
from typer.testing import CliRunner

from filter_service import rollout
from filter_service.accounts import Role
from filter_service.cli import app
from filter_service.db.session import Sessions
from filter_service.db.tables import Activation, StoredPolicy
from filter_service.demo import POLICY
from filter_service.local import Services
from filter_service.policy import Policy, Preservation, read_policy
from filter_service.rollout import Flags
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.console import policy_effects
from tests.support.accessibility import COLOURS, WIDTHS, beyond, violations
from tests.support.console_world import World, world_over
from tests.support.policy_versions import MILD, STRICT
from tests.support.web_clients import client_of, key_client, web_service

pytest_plugins = ["tests.support.console_fixtures"]

EDITOR, ADMIN, AUDITOR, MODERATOR = (
    Role.POLICY_EDITOR,
    Role.ADMIN,
    Role.AUDITOR,
    Role.MODERATOR,
)


def text_of(policy: Policy) -> str:
    return yaml.safe_dump(policy.model_dump(mode="json", exclude_none=True))


@pytest.fixture
def four_eyed(sessions: Sessions, storage: Storage) -> Iterator[dict[Role, TestClient]]:
    app = create_app(web_service(sessions, storage, four_eyes=True))
    roles = (EDITOR, ADMIN, AUDITOR, MODERATOR)
    yield {role: client_of(app, sessions, role) for role in roles}


def proposal(policy: Policy, **fields: str) -> dict[str, str]:
    return {"text": text_of(policy), "flags": "keep", "reason": "as we said", **fields}


def test_a_proposal_waits_for_somebody_else(four_eyed: dict[Role, TestClient]) -> None:
    editor, admin = four_eyed[EDITOR], four_eyed[ADMIN]
    asked = editor.post("/policies/propose", data=proposal(STRICT))
    assert "somebody else has to activate it" in asked.text
    assert ">Activate<" not in asked.text
    seen = waiting(admin)
    refused = editor.post("/policies/shop/activate", data=seen)
    assert (refused.status_code, "somebody else" in refused.text) == (403, True)
    assert "waits" in admin.get("/policies").text
    assert ">Activate<" in admin.get("/policies/shop").text
    assert "The version is active." in admin.post("/policies/shop/activate", data=seen).text
    told = four_eyed[AUDITOR].get("/policies/shop").text
    assert "by person policy_editor" in told
    assert "by person admin" in told
    assert "as we said" in told


def waiting(client: TestClient) -> dict[str, str]:
    """What the page of the proposal sends back."""
    found = re.findall(r'name="activation" value="(\d+)"', client.get("/policies/shop").text)
    assert found
    return {"activation": found[0]}


def test_what_was_proposed_meanwhile_is_not_activated(four_eyed: dict[Role, TestClient]) -> None:
    editor, admin = four_eyed[EDITOR], four_eyed[ADMIN]
    editor.post("/policies/propose", data=proposal(STRICT))
    seen = waiting(admin)
    editor.post("/policies/shop/withdraw", data=seen)
    editor.post("/policies/propose", data=proposal(MILD))
    for what in ("activate", "withdraw"):
        assert admin.post(f"/policies/shop/{what}", data=seen).status_code == 409
        assert admin.post(f"/policies/shop/{what}").status_code == 422
    assert waiting(admin) != seen


@pytest.mark.parametrize("role", [AUDITOR, MODERATOR])
def test_who_may_only_read_changes_nothing(four_eyed: dict[Role, TestClient], role: Role) -> None:
    assert four_eyed[EDITOR].post("/policies/propose", data=proposal(STRICT)).status_code == 200
    reader = four_eyed[role]
    assert "<form" not in reader.get("/policies").text.partition("<main")[2]
    for path in ("preview", "propose", "shop/activate", "shop/withdraw"):
        assert reader.post(f"/policies/{path}", data=proposal(MILD)).status_code == 403


def test_a_faulty_policy_is_told_line_and_field(four_eyed: dict[Role, TestClient]) -> None:
    gun = "- name: gun\n  prompts: [a gun]\n  threshold: 2\n"
    bad = f"name: shop\nneutral: [a photo]\nclasses:\n{gun}"
    for sent in ({"data": {"text": bad}}, {"files": {"file": ("mine.yaml", bad)}}):
        answer = four_eyed[EDITOR].post("/policies/preview", **sent)
        assert answer.status_code == 422
        assert re.search(r"(policy|mine.yaml):6: classes\[0\].threshold: ", answer.text)
    aliases = "a: &a [x]\nname: *a\n"
    answer = four_eyed[EDITOR].post("/policies/preview", data={"text": aliases})
    assert "YAML references" in answer.text


@pytest.mark.parametrize("fields", [{"flags": ""}, {"flags": "burn"}, {"reason": " "}])
def test_what_is_missing_is_said_beside_the_form(
    four_eyed: dict[Role, TestClient], fields: dict[str, str]
) -> None:
    answer = four_eyed[EDITOR].post("/policies/propose", data=proposal(STRICT, **fields))
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert four_eyed[EDITOR].get("/policies/shop").status_code == 404


def test_a_version_has_a_permanent_address(
    four_eyed: dict[Role, TestClient], sessions: Sessions
) -> None:
    four_eyed[EDITOR].post("/policies/propose", data=proposal(STRICT))
    told = four_eyed[MODERATOR].get(f"/policies/version/{STRICT.digest}").text
    assert "a knife" in told
    assert "0.1" in told
    assert four_eyed[MODERATOR].get(f"/policies/version/{'0' * 64}").status_code == 404


def test_no_model_is_no_reason_to_say_nothing(four_eyed: dict[Role, TestClient]) -> None:
    for policy in (STRICT, MILD):
        four_eyed[EDITOR].post("/policies/propose", data=proposal(policy))
        four_eyed[ADMIN].post("/policies/shop/activate", data=waiting(four_eyed[ADMIN]))
    query = f"old={STRICT.digest}&new={MILD.digest}"
    assert "<del>0.1</del>" in four_eyed[AUDITOR].get(f"/policies/shop/compare?{query}").text
    counted = four_eyed[AUDITOR].get(f"/policies/shop/compare?{query}&count=true")
    assert (counted.status_code, "No encoder" in counted.text) == (503, True)


def test_a_comparison_is_for_people_and_one_at_a_time(
    four_eyed: dict[Role, TestClient], sessions: Sessions, storage: Storage
) -> None:
    four_eyed[EDITOR].post("/policies/propose", data=proposal(STRICT))
    path = f"/policies/shop/compare?old={STRICT.digest}&count=true"
    platform = key_client(create_app(web_service(sessions, storage)), sessions)
    assert platform.get(path).status_code == 403
    began = time.monotonic()
    with policy_effects._one_at_a_time:
        assert four_eyed[AUDITOR].get(path).status_code == 409
    assert time.monotonic() - began < 10


@pytest.fixture(scope="module")
def furnished(admin: Engine, servers: Services, judged: Path) -> Iterator[tuple[World, str]]:
    """The demo's policy active, a stricter one proposed for it."""
    with world_over(admin, servers, judged, four_eyes=True) as world, world.served() as address:
        old = read_policy(POLICY)
        made = propose(world, old, Flags.KEEP, "person ada")
        rollout.activate(world.sessions, old.name, "person bert", made.id, four_eyes=True)
        propose(world, stricter(old), Flags.REEVALUATE, "person ada")
        yield world, address


def propose(world: World, policy: Policy, flags: Flags, actor: str) -> Activation:
    reason = "Too much was missed in the sample of October."
    return rollout.propose(world.sessions, policy, flags, reason, actor, four_eyes=True)


def stricter(policy: Policy) -> Policy:
    first, second, *rest = policy.classes
    first = first.model_copy(
        update={"threshold": 0.02, "prompts": (*first.prompts[1:], "a loaded gun")}
    )
    second = second.model_copy(update={"name": "renamed", "sealed": Preservation(days=90)})
    return policy.model_copy(update={"classes": (first, *rest, second)})


@pytest.fixture
def window(furnished: tuple[World, str], browser: Browser) -> Iterator[Page]:
    world, address = furnished
    context = browser.new_context(base_url=address, reduced_motion="reduce")
    world.sign_in(context, address, ADMIN)
    yield context.new_page()
    context.close()


def shown(page: Page, name: str) -> None:
    """Everybody can use it at every width, by day and by night; kept as a picture if asked for."""
    for width, pixels in WIDTHS.items():
        page.set_viewport_size({"width": pixels, "height": 900})
        assert violations(page) == []
        assert beyond(page) <= 0
        page.emulate_media(color_scheme="dark")
        assert violations(page, COLOURS) == []
        page.emulate_media(color_scheme="light")
        if folder := os.environ.get("SCREENSHOTS_AT"):
            page.screenshot(path=f"{folder}/policies-{name}-{width}.png", full_page=True)
    page.set_viewport_size({"width": WIDTHS["wide"], "height": 900})


def test_an_editor_walks_from_a_text_to_a_proposal(
    furnished: tuple[World, str], window: Page
) -> None:
    world, _ = furnished
    name = read_policy(POLICY).name
    window.goto("/policies")
    shown(window, "names")
    window.get_by_role("link", name=name, exact=True).click()
    shown(window, "history")
    window.get_by_role("link", name="What would change").click()
    counts = window.locator("table.counts")
    assert int(counts.locator("tr.total td").nth(2).locator("b").inner_text()) > 0
    assert window.locator(".sightings img").count() > 0
    assert window.locator("ins", has_text="a loaded gun").count() == 1
    for picture in window.locator(".sightings img").all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
    shown(window, "comparison")
    window.goto("/policies")
    own = POLICY.read_text().replace(f"name: {name}", "name: mine")
    window.get_by_label("or its text").fill(own)
    window.get_by_role("button", name="Check and compare").click()
    shown(window, "draft")
    window.get_by_label("Keep them").check()
    window.get_by_label("Why?").fill("A policy of our own.")
    window.get_by_role("button", name="Propose").click()
    window.get_by_text("The version is proposed").wait_for()
    assert rollout.waiting_of(world.sessions, "mine") is not None
    window.get_by_role("button", name="Withdraw").click()
    window.get_by_text("The proposal is withdrawn.").wait_for()
    window.goto(f"/policies/version/{read_policy(POLICY).digest}")
    shown(window, "version")


def test_the_command_line_does_the_same(
    servers: Services,
    database_url: str,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", database_url)
    monkeypatch.setenv("FILTER_SERVICE_BROKER_URL", servers.broker_url)
    monkeypatch.setenv("FILTER_SERVICE_DATA_DIR", str(tmp_path))
    run = CliRunner().invoke
    for number, policy in enumerate((STRICT, MILD)):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text_of(policy))
        options = ["--flags", "keep", "--reason", "as we said"]
        done = run(app, ["policy", "propose", str(file), *options])
        assert "is active" in done.output
    told = run(app, ["policy", "history", "shop"]).output
    assert told.index(MILD.digest[:12]) < told.index(STRICT.digest[:12])
    assert "proposed by service" in told
    with sessions.begin() as session:
        assert len(session.scalars(select(StoredPolicy)).all()) == 2
    for command in ("activate", "withdraw"):
        assert run(app, ["policy", command, "shop", MILD.digest]).exit_code == 1
    rollout.propose(sessions, STRICT, Flags.KEEP, "as we said", "person ada", four_eyes=True)
    for command in ("activate", "withdraw"):  # not what is proposed
        assert run(app, ["policy", command, "shop", MILD.digest]).exit_code == 1
    done = run(app, ["policy", "activate", "shop", STRICT.digest[:12]])
    assert "the proposed version is active" in done.output
