"""The console in a real browser: every switch shows its effect there, by mouse, by keyboard, and without script."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from browser_support import visiting
from phygitals_async import ConnectionLost, PhygitalsClient, RetryPolicy
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_transports.aiohttp_server import serve
from sandbox_support import HOME

pytestmark = pytest.mark.asyncio
PAGES = ("", "/users", "/users/user_000001", "/packs", "/purchases", "/sellbacks", "/orders", "/requests", "/options")


@pytest_asyncio.fixture
async def url() -> AsyncIterator[str]:
    """Serve a sandbox with three users, and give its address."""
    async with serve(ServedSandbox(users=3, seed=1)) as url:
        yield url


@pytest_asyncio.fixture
async def api(url: str) -> AsyncIterator[PhygitalsClient]:
    """Give a client of it that repeats nothing."""
    once = RetryPolicy(retries=0)
    async with PhygitalsClient(api_key="sandbox-secret", base_url=f"{url}/_", retry=once) as api:
        yield api


def expect(what: Any) -> Any:
    """Wait for something to be as is said next."""
    from playwright.async_api import expect as expecting

    return expecting(what)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
async def test_every_page(browser_path: str, url: str, api: PhygitalsClient, width: int, scheme: str) -> None:
    """Wide and light, narrow and dark: it fits, all pictures are there, and axe finds no serious fault."""
    pack = next(pack for pack in await api.list_packs() if pack.purchasable and pack.max_per_mint > 1)
    sold, shipped = (await api.start_purchase(pack.id, 2, "user_000001")).nfts
    await api.sell_back(sold.id)
    await api.request_shipping((await api.quote_shipping([shipped.id], HOME)).quotes[0].id)
    settings = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    async with visiting(browser_path, **settings) as visit:
        for path in PAGES:
            await visit.page.goto(f"{url}/_console{path}")
            if path == "/requests":
                await visit.page.locator("summary").first.click()
            assert await visit.page.evaluate("document.documentElement.scrollWidth") == width, path
            await visit.check()
        await visit.page.goto(f"{url}/_console/users/user_000001")
        pictures = visit.page.locator(".tile img")
        await pictures.last.scroll_into_view_if_needed()
        await expect(pictures.last).to_have_js_property("complete", value=True)
        assert await pictures.last.evaluate("image => image.naturalWidth") == 240


async def test_switches_show_their_effect(browser_path: str, url: str, api: PhygitalsClient) -> None:
    """Fault, clock, options, snapshot, wipe and reset: what a client meets next is seen without a reload."""
    async with visiting(browser_path, permissions=["clipboard-read", "clipboard-write"]) as visit:
        page = visit.page
        page.on("dialog", lambda dialog: dialog.accept())
        await page.goto(f"{url}/_console")
        await page.locator("[name=operation]").select_option("list_packs")
        await page.locator("[name=after]").select_option("after it acted")
        await page.get_by_role("button", name="Arm").click()
        await expect(page.get_by_text("1 fault armed")).to_be_visible()
        with pytest.raises(ConnectionLost):
            await api.list_packs()
        await expect(page.locator(".outcome").first).to_have_text("lost")
        await expect(page.get_by_text("1 fault armed")).to_be_hidden()

        await page.get_by_role("button", name="Freeze").click()
        await expect(page.locator("#status")).to_contain_text("frozen")
        before = await page.locator("#status time").text_content()
        await page.get_by_role("button", name="+ 7 days").click()
        await expect(page.locator("#status time")).not_to_have_text(before or "")
        await page.goto(f"{url}/_console/users/user_000001")
        await expect(page.locator(".tile:not(.over)", has_text="left")).to_have_count(0)

        await page.goto(f"{url}/_console/options")
        await page.get_by_label("429: another call holds the item").fill("1")
        await page.get_by_label("401 without /_").check()
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_label("429: another call holds the item")).to_have_value("1")
        await expect(page.get_by_label("401 without /_")).to_be_checked()

        await page.goto(f"{url}/_console")
        await page.get_by_label("Name").fill("before the wipe")
        await page.get_by_role("button", name="Take").click()
        await page.get_by_role("button", name="Wipe", exact=True).click()
        users = page.locator(".counts strong").first
        await expect(users).to_have_text("0")
        await page.get_by_role("button", name="Restore before the wipe").click()
        await expect(users).to_have_text("3")
        await page.get_by_role("button", name="Restore start").click()
        await expect(page.locator("#status")).not_to_contain_text("frozen")

        await api.get_inventory("user_000001")
        await page.goto(f"{url}/_console/requests")
        await page.locator("summary", has_text="user_000001").click()
        await page.get_by_role("button", name="Copy").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied == f'curl -H "X-API-Key: $PHYGITALS_API_KEY" {url}/_/api/v1/inventory/user_000001'


async def test_by_keyboard(browser_path: str, url: str, api: PhygitalsClient) -> None:
    """The first Tab offers to skip; an entry that was opened stays open and focused while others come in."""
    await api.get_inventory("user_000001")
    async with visiting(browser_path) as visit:
        page = visit.page
        await page.goto(f"{url}/_console/requests")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Clear")).to_be_focused()
        await page.keyboard.press("Tab")
        entry = page.locator("#request-1")
        await expect(entry.locator("summary")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(entry.locator("pre").last).to_be_visible()
        await api.get_inventory("user_000002")
        await expect(page.locator("#request-2")).to_be_visible()
        await expect(entry.locator("pre").last).to_be_visible()
        await expect(entry.locator("summary")).to_be_focused()


async def test_without_script(browser_path: str) -> None:
    """The token, the pages and the forms need none."""
    served = ServedSandbox(users=1, token="the-token")
    async with serve(served) as url, visiting(browser_path, java_script_enabled=False) as visit:
        page = visit.page
        visit.errors.clear()
        await page.goto(f"{url}/_console?token=the-token")
        await expect(page).to_have_url(f"{url}/_console")
        await page.get_by_role("button", name="+ 1 day").click()
        await expect(page.get_by_text("The clock was changed.")).to_be_visible()
        await page.goto(f"{url}/_console/users")
        await page.get_by_label("User id", exact=True).last.fill("new/user")
        await page.get_by_role("button", name="Add").first.click()
        await page.get_by_role("link", name="new/user").click()
        await page.get_by_label("Name").fill("2024 Own Card")
        await page.get_by_role("button", name="Add").click()
        await expect(page.get_by_role("heading", name="2024 Own Card")).to_be_visible()
        assert [item.name for item in served.sandbox.ledger.inventory("new/user")] == ["2024 Own Card"]
