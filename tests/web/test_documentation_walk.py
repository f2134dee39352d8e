"""The page of the interface in a browser: a call is tried, and the page's policy stays strict."""

from playwright.sync_api import Browser, expect

from filter_service import accounts
from tests.support.console_world import World

pytest_plugins = ["tests.support.console_fixtures"]


def test_a_call_is_tried_on_the_page_of_the_interface(world: World, browser: Browser) -> None:
    key = accounts.add_key(world.sessions, "shop", "service", "default")
    with world.served() as address:
        opened = browser.new_context(base_url=address)
        page = opened.new_page()
        refused: list[str] = []
        page.on("console", lambda told: refused.append(told.text))
        page.goto("/docs")
        one = page.locator("section", has=page.get_by_role("heading", name="One item", exact=True))
        one.get_by_text("Try it").click()
        one.get_by_label("item").fill("1")
        one.get_by_role("button", name="Send").click()
        expect(one.locator("output")).to_contain_text("401")
        page.get_by_label("API key").fill(key)
        one.get_by_role("button", name="Send").click()
        expect(one.locator("output")).to_contain_text('"id": 1')

        report = page.locator(
            "section", has=page.get_by_role("heading", name="Report a picture", exact=True)
        )
        report.get_by_text("Try it").click()
        report.get_by_label("item").fill("1")
        assert '"source": "user"' in report.get_by_label("Body").input_value()
        report.get_by_label("Body").fill('{"source": "user", "reason": "Look at it."}')
        report.get_by_role("button", name="Send").click()
        expect(report.locator("output")).to_contain_text("201")
        opened.close()
    assert [said for said in refused if "Security Policy" in said] == []
