"""The policy editor in a browser: from a class and its slider to a proposal and an active version.

Pictures of it are kept for the documentation; see `tests.support.screenshots`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect
from sqlalchemy import Engine

from filter_service import rollout
from filter_service.accounts import Role
from filter_service.calibration import standing_estimates
from filter_service.demo import POLICY
from filter_service.local import Services
from filter_service.policy import read_policy
from filter_service.rollout import Flags
from filter_service.web.console.model_warmup import Warm
from tests.support import console_history as life
from tests.support.accessibility import COLOURS, WIDTHS, beyond, violations
from tests.support.console_world import World, world_over
from tests.support.kept_pictures import VIEW, keep
from tests.support.poured_stream import pour

pytest_plugins = ["tests.support.console_fixtures"]

NAME = read_policy(POLICY).name
FORM = f"/policies/editor/form?from={read_policy(POLICY).digest}"


@pytest.fixture(scope="module")
def house(admin: Engine, servers: Services, judged: Path) -> Iterator[World]:
    """The demo's policy active, with a month of traffic and a stream of weapons' margins."""
    with world_over(admin, servers, judged, four_eyes=True) as world:
        policy = read_policy(POLICY)
        made = rollout.propose(
            world.sessions, policy, Flags.KEEP, "The first one.", "person ada", four_eyes=True
        )
        rollout.activate(world.sessions, policy.name, "person bert", made.id, four_eyes=True)
        life.furnish(world)
        life.month(world)
        pour(world.sessions, policy, "weapons")
        standing_estimates.refresh(world.sessions, lambda: False)
        world.app.state.warm = Warm(world.service.seeker)
        assert world.app.state.warm.ready(60)
        yield world


@pytest.fixture
def context(house: World, browser: Browser) -> Iterator[BrowserContext]:
    with house.served() as address:
        opened = browser.new_context(base_url=address, viewport=VIEW, reduced_motion="reduce")
        house.sign_in(opened, address, Role.POLICY_EDITOR)
        yield opened
        opened.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    window = context.new_page()
    window.goto(FORM)
    return window


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS_AT", tmp_path))


def usable(page: Page) -> None:
    """By everybody, at every width, by day and by night."""
    for pixels in WIDTHS.values():
        page.set_viewport_size({"width": pixels, "height": 900})
        assert violations(page) == []
        assert beyond(page) <= 0
        page.emulate_media(color_scheme="dark")
        assert violations(page, COLOURS) == []
        page.emulate_media(color_scheme="light")
    page.set_viewport_size(VIEW)


def weapons(page: Page) -> Locator:
    return page.get_by_role("region", name="weapons")


def figure(page: Page, name: str) -> str:
    return weapons(page).locator("dl.figures > div", has_text=name).locator("dd").inner_text()


def test_what_is_typed_is_checked_by_the_model_and_by_axe(page: Page) -> None:
    expect(weapons(page).locator(".figures")).to_be_visible()
    usable(page)
    threshold = weapons(page).get_by_label("Threshold: probability")
    threshold.fill("most")
    expect(weapons(page).get_by_text("Input should be a valid number")).to_be_visible()
    expect(threshold).to_have_attribute("aria-invalid", "true")
    usable(page)
    threshold.fill("0.9")
    weapons(page).get_by_label("Prompts: what").press("Control+End")
    weapons(page).get_by_label("Prompts: what").press_sequentially("\na bow and arrow")
    expect(weapons(page).get_by_text("says already")).to_be_visible()
    expect(weapons(page).get_by_text("Input should be")).to_have_count(0)
    expect(weapons(page).get_by_text("computed for these words")).to_be_visible()


def test_an_editor_moves_the_slider_and_proposes_and_another_one_activates(
    house: World, context: BrowserContext, page: Page, folder: Path
) -> None:
    slider = weapons(page).get_by_role("slider", name="Threshold of weapons")
    expect(slider).to_be_visible()
    before = figure(page, "Flags a day")
    assert figure(page, "Confirmed flags lost") == "0"
    slider.focus()
    slider.press("PageUp")
    lost = weapons(page).locator("dl.figures > div", has_text="flags lost").locator("b")
    expect(lost).not_to_have_text("0")
    assert figure(page, "Flags a day") != before
    assert re.search(r"\d %.* to ", figure(page, "Precision"), re.DOTALL)
    assert "margin" in (slider.get_attribute("aria-valuetext") or "")
    pictures = weapons(page).locator(".crossing img")
    expect(pictures.first).to_be_visible()
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("e => e.decode().then(() => e.naturalWidth)") > 0
    usable(page)
    weapons(page).locator("figure").evaluate(
        "e => scrollTo(0, e.getBoundingClientRect().top + scrollY - 60)"
    )
    keep(page, folder / "policy-editor.webp")

    typed = weapons(page).get_by_label("Threshold: probability").input_value()
    page.get_by_role("button", name="Compare and propose").click()
    expect(page.get_by_role("heading", name="What would change")).to_be_visible()
    usable(page)
    page.get_by_label("Keep them").check()
    page.get_by_label("Why?").fill("Fewer toys among the flags.")
    page.get_by_role("button", name="Propose", exact=True).click()
    expect(page.get_by_text("somebody else has to activate it")).to_be_visible()
    expect(page.get_by_role("button", name="Activate")).to_have_count(0)

    waiting = rollout.waiting_of(house.sessions, NAME)
    assert waiting is not None
    assert waiting[1].policy.forbidden("weapons").threshold == float(typed)
    address = page.url.split("/policies")[0]
    house.sign_in(context, address, Role.ADMIN)
    page.goto(f"/policies/{NAME}")
    expect(page.get_by_role("heading", name="Version 2")).to_be_visible()
    keep(page, folder / "policy-proposal.webp")
    page.get_by_role("button", name="Activate").click()
    expect(page.get_by_text("The version is active.")).to_be_visible()
    page.goto("/overview")
    row = page.get_by_role("row", name=re.compile("weapons.* demo"))
    expect(row.locator("[data-name='flags that are right']")).to_contain_text(" to ")


def test_without_scripts_a_button_gives_the_same_figures(house: World, browser: Browser) -> None:
    with house.served() as address:
        plain = browser.new_context(base_url=address, java_script_enabled=False)
        house.sign_in(plain, address, Role.POLICY_EDITOR)
        page = plain.new_page()
        page.goto(FORM)
        weapons(page).get_by_label("Threshold: probability").fill("0.97")
        page.get_by_role("button", name="Check and preview").click()
        without = [figure(page, name) for name in ("Flags a day", "Precision", "flags lost")]
        plain.close()
        scripted = browser.new_context(base_url=address)
        house.sign_in(scripted, address, Role.POLICY_EDITOR)
        page = scripted.new_page()
        page.goto(FORM)
        expect(weapons(page).locator(".figures")).to_be_visible()
        with page.expect_response(re.compile("part=figures")):
            weapons(page).get_by_label("Threshold: probability").fill("0.97")
        expect(weapons(page).locator("dl.figures > div", has_text="flags lost")).to_contain_text(
            without[2].split()[0]
        )
        names = ("Flags a day", "Precision", "flags lost")
        assert [figure(page, name) for name in names] == without
        scripted.close()
