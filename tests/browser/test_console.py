"""The console in a real browser: every switch shows its effect there, by mouse, by keyboard, and without script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from browser_support import visiting
from phygitals_async import ConnectionLost, PhygitalsClient, RetryPolicy
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_transports.aiohttp_server import serve
from sandbox_support import HOME

pytestmark = pytest.mark.asyncio
PAGES = (
    "", "/users", "/users/user_000001", "/packs", "/purchases", "/sellbacks", "/orders", "/requests", "/requests/1",
    "/options",
)  # fmt: skip


@pytest.fixture
def served() -> ServedSandbox:
    """Return a sandbox with three users."""
    return ServedSandbox(users=3, seed=1)


@pytest_asyncio.fixture
async def url(served: ServedSandbox) -> AsyncIterator[str]:
    """Serve it, and give its address."""
    async with serve(served) as url:
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
async def test_every_page(
    browser_path: str, served: ServedSandbox, url: str, api: PhygitalsClient, width: int, scheme: str
) -> None:
    """Wide and light, narrow and dark: it fits, all pictures are there, and axe finds no serious fault."""
    pack = next(pack for pack in await api.list_packs() if pack.purchasable and pack.max_per_mint > 1)
    sold, shipped = (await api.start_purchase(pack.id, 2, "user_000001")).nfts
    await api.sell_back(sold.id)
    await api.request_shipping((await api.quote_shipping([shipped.id], HOME)).quotes[0].id)
    # Words that are too long for a line.
    served.sandbox.add_item("user_000001", name="Superfractor" * 9, buyback_price=Decimal(1), id="v1|" + "9" * 60)
    served.sandbox.add_user("u" * 120)
    settings = {"viewport": {"width": width, "height": 740}, "color_scheme": scheme}
    async with visiting(browser_path, **settings) as visit:
        for path in (*PAGES, f"/users/{'u' * 120}"):
            await visit.page.goto(f"{url}/_console{path}")
            if path == "/requests":
                await visit.page.locator("summary").first.click()
                await expect(visit.page.locator("pre").first).to_be_visible()
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
        await expect(page.get_by_role("button", name="Pause")).to_be_focused()
        await page.keyboard.press("Enter")
        await api.get_inventory("user_000000")
        # The second answer comes when what the first brought has been shown, if at all.
        for _ in range(2):
            await page.wait_for_event("response")
        await expect(page.locator(".entry")).to_have_count(1)
        await expect(page.get_by_role("button", name="Resume")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(page.locator(".entry")).to_have_count(2)
        await page.keyboard.press("Tab")
        await expect(page.get_by_role("button", name="Clear")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator("#request-2 summary")).to_be_focused()
        await page.keyboard.press("Tab")
        entry = page.locator("#request-1")
        await expect(entry.locator("summary")).to_be_focused()
        await page.keyboard.press("Enter")
        await expect(entry.locator("pre").last).to_be_visible()
        await entry.locator("pre").first.evaluate("pre => pre.scrollTo(3, 40)")
        await api.get_inventory("user_000002")
        await expect(page.locator("#request-3")).to_be_visible()
        await expect(entry.locator("pre").last).to_be_visible()
        await expect(entry.locator("summary")).to_be_focused()
        for _ in range(60):
            await api.get_inventory("user_000002")
        await expect(page.locator("#request-63")).to_be_visible()
        await expect(page.locator("#request-2")).to_have_count(0)
        await expect(entry.locator("pre").last).to_be_visible()
        await expect(entry.locator("summary")).to_be_focused()
        assert await entry.locator("pre").first.evaluate("pre => [pre.scrollLeft, pre.scrollTop]") == [3, 40]
        await page.keyboard.press("Tab")
        await expect(entry.locator("pre").first).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(entry.get_by_role("button", name="Copy")).to_be_focused()
        await api.get_inventory("user_000002")
        await expect(page.locator("#request-64")).to_be_visible()
        await expect(entry.get_by_role("button", name="Copy")).to_be_focused()
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        # Closed, it goes as soon as the keyboard has left it.
        await page.locator("main").focus()
        await expect(entry).to_have_count(0)


async def test_updates_leave_everything_in_its_place(browser_path: str, url: str, api: PhygitalsClient) -> None:
    """The focus, how far a table is scrolled, and where the buttons are: only what changed is changed."""
    pack = next(pack for pack in await api.list_packs() if pack.purchasable)
    await api.start_purchase(pack.id, 1, "user_000001")
    async with visiting(browser_path, viewport={"width": 360, "height": 740}) as visit:
        page = visit.page
        await page.goto(f"{url}/_console")
        arm = page.get_by_role("button", name="Arm")
        where = await arm.bounding_box()
        requests = page.locator(".counts strong").last
        links = ("no faults armed", "requests", "All that are kept", "cards owned")
        for count, name in enumerate(links, start=3):
            link = page.get_by_role("link", name=name).last
            await link.evaluate("link => link.focus({preventScroll: true})")
            await api.list_packs()
            await expect(requests).to_have_text(str(count))
            await expect(link).to_be_focused()
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                await session.post(f"{url}/_admin/faults", json={"kind": "lost", "operation": "sell_back"})
            remove = page.get_by_role("button", name="Remove the fault 3")
            await remove.evaluate("button => button.focus({preventScroll: true})")
            assert await arm.bounding_box() == where
            await session.delete(f"{url}/_admin/faults/1")
            await expect(page.get_by_text("2 faults armed")).to_be_visible()
            await expect(remove).to_be_focused()
            # What it was on is gone: it is not at the top of the page, but in it.
            await session.delete(f"{url}/_admin/faults/3")
            await expect(page.locator("main")).to_be_focused()

        await page.goto(f"{url}/_console/purchases")
        table = page.locator(".scroll")
        await table.evaluate("table => table.scrollTo(50, 0)")
        await api.start_purchase(pack.id, 1, "user_000002")
        await expect(page.locator("tbody tr")).to_have_count(2)
        assert await table.evaluate("table => table.scrollLeft") == 50


async def test_an_entry_that_is_answered_later(browser_path: str) -> None:
    """Opened while it is under way, it shows the answer when there is one."""
    go_on = asyncio.Event()

    async def hold(_: float) -> None:
        await go_on.wait()

    async with (
        serve(ServedSandbox(users=1, sleep=hold)) as url,
        visiting(browser_path) as visit,
        aiohttp.ClientSession() as session,
        asyncio.TaskGroup() as group,
    ):
        await session.post(f"{url}/_admin/faults", json={"kind": "latency"})
        await visit.page.goto(f"{url}/_console/requests")
        group.create_task(session.get(f"{url}/_/api/v1/inventory/nobody", headers={"X-API-Key": "sandbox-1"}))
        entry = visit.page.locator("#request-1")
        await entry.locator("summary").click()
        await expect(entry.locator("pre").first).to_have_text("nothing")
        go_on.set()
        await expect(entry.locator("pre").first).to_contain_text("User not found")


async def test_a_form_that_cannot_be_done(browser_path: str, url: str) -> None:
    """It stays filled in, with the reason above it, and the page is followed on."""
    async with visiting(browser_path) as visit:
        page = visit.page
        await page.goto(f"{url}/_console")
        await page.locator("[name=kind]").select_option("edge")
        await page.locator("[name=operation]").select_option("sell_back")
        await page.locator("[name=after]").select_option("true")
        await page.get_by_label("How often").fill("7")
        await page.get_by_role("button", name="Arm").click()
        await expect(page.get_by_role("alert")).to_contain_text("an edge answers before")
        await expect(page.get_by_label("How often")).to_have_value("7")
        await expect(page.locator("[name=operation]")).to_have_value("sell_back")
        await visit.check()
        await page.locator("[name=after]").select_option("false")
        await page.get_by_role("button", name="Arm").click()
        await expect(page.get_by_text("1 fault armed")).to_be_visible()
        await expect(page.get_by_text("The fault is armed.")).to_be_visible()
        await page.reload()
        await expect(page.get_by_text("The fault is armed.")).to_have_count(0)
        # That a form was refused is an error to the browser, too.
        visit.errors.clear()


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
