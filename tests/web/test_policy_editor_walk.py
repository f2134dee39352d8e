"""The policy editor in a browser: typing is checked, everybody can use it."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from filter_service import rollout
from filter_service.accounts import Role
from filter_service.demo import POLICY
from filter_service.local import Services
from filter_service.policy import read_policy
from filter_service.rollout import Flags
from filter_service.web.console.model_warmup import Warm
from tests.support.accessibility import COLOURS, WIDTHS, beyond, violations
from tests.support.console_world import World, world_over

pytest_plugins = ["tests.support.console_fixtures"]


@pytest.fixture(scope="module")
def house(admin: Engine, servers: Services, judged: object, browser: Browser) -> Iterator[World]:
    with world_over(admin, servers, judged, four_eyes=True) as world:  # type: ignore[arg-type]
        policy = read_policy(POLICY)
        made = rollout.propose(
            world.sessions, policy, Flags.KEEP, "The first one.", "person ada", four_eyes=True
        )
        rollout.activate(world.sessions, policy.name, "person bert", made.id, four_eyes=True)
        world.app.state.warm = Warm(world.service.seeker)
        assert world.app.state.warm.ready(60)
        yield world


@pytest.fixture
def page(house: World, browser: Browser) -> Iterator[Page]:
    with house.served() as address:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        house.sign_in(context, address, Role.POLICY_EDITOR)
        window = context.new_page()
        window.goto(f"/policies/editor/form?from={read_policy(POLICY).digest}")
        yield window
        context.close()


def usable(page: Page) -> None:
    """By everybody, at every width, by day and by night."""
    for pixels in WIDTHS.values():
        page.set_viewport_size({"width": pixels, "height": 900})
        assert violations(page) == []
        assert beyond(page) <= 0
        page.emulate_media(color_scheme="dark")
        assert violations(page, COLOURS) == []
        page.emulate_media(color_scheme="light")


def test_what_is_typed_is_checked_by_the_model_and_by_axe(page: Page) -> None:
    usable(page)
    weapons = page.get_by_role("region", name="weapons")
    weapons.get_by_label("Threshold").fill("most")
    expect(weapons.get_by_text("Input should be a valid number")).to_be_visible()
    expect(weapons.get_by_label("Threshold")).to_have_attribute("aria-invalid", "true")
    usable(page)
    weapons.get_by_label("Threshold").fill("0.9")
    weapons.get_by_label("Prompts: what").press("Control+End")
    weapons.get_by_label("Prompts: what").press_sequentially("\na bow and arrow\na bow & arrow")
    expect(weapons.get_by_text("says already")).to_be_visible()
    expect(weapons.get_by_text("Input should be")).to_have_count(0)
