"""The storefront in a real browser, over real HTTP to a sandbox: what a visitor does, and what goes wrong meanwhile."""

from __future__ import annotations

import asyncio
import re
import socket
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import attrs
import pytest
import uvicorn
from attrs import define, field

from browser_support import Visit, visiting
from phygitals_async import PhygitalsClient, Request, Response, Sandbox
from phygitals_async.sandbox.served import ServedSandbox
from phygitals_transports import AiohttpTransport, FaultTransport
from phygitals_transports.aiohttp_server import serve
from storefront.app import create_app

pytestmark = pytest.mark.asyncio

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 5 7"><rect width="5" height="7" fill="teal"/></svg>'
PHONE = {"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}
DESKTOP = {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"}


@define
class Shop:
    """The shop, a browser that ada is signed in with, and the sandbox behind it.

    Attributes:
        url: Of the shop.
        sandbox: What it sells from.
        sandbox_url: Where that is served.
        faults: What goes wrong between the two.
        visit: The browser.
        asked: The paths that the sandbox was asked for.
        before: Is awaited before the sandbox answers.
    """

    url: str = ""
    sandbox: Sandbox = field(factory=lambda: Sandbox(seed=1))
    sandbox_url: str = ""
    faults: FaultTransport = field(factory=lambda: FaultTransport(AiohttpTransport()))
    visit: Visit = field(init=False)
    asked: list[str] = field(factory=list)
    before: Callable[[str], Awaitable[object]] | None = None

    @property
    def page(self) -> Any:
        """The browser's page."""
        return self.visit.page

    async def answer(self, request: Request) -> Response:
        """Answer as the sandbox does, with a picture where one is asked for."""
        path = request.url.rpartition("/_")[2]
        self.asked.append(path)
        if path.startswith("cards/"):
            return Response(200, {"content-type": "image/svg+xml"}, SVG) if "good" in path else Response(404, {}, b"")
        if self.before is not None:
            await self.before(path)
        return self.sandbox(request)

    async def go(self, path: str) -> None:
        """Go to a page."""
        await self.page.goto(f"{self.url}{path}")

    async def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        from playwright.async_api import expect

        await expect(self.page.get_by_text(text).first).to_be_visible(timeout=20_000)

    async def click(self, name: str) -> None:
        """Click the first button or link whose name begins so."""
        role = re.compile(f"^{re.escape(name)}")
        await self.page.get_by_role("button", name=role).or_(self.page.get_by_role("link", name=role)).first.click()


Opening = Callable[..., AbstractAsyncContextManager[Shop]]


@pytest.fixture
def opening(browser_path: str, tmp_path: Path) -> Opening:
    """Return what opens the shop and a browser; the sandbox with its console, where it is given one."""

    @asynccontextmanager
    async def run(sandbox: ServedSandbox | None = None, **settings: Any) -> AsyncIterator[Shop]:
        shop = Shop()
        async with serve(sandbox or shop.answer) as shop.sandbox_url:
            app = create_app(
                lambda journal: PhygitalsClient(
                    shop.faults, api_key="sandbox-test", base_url=f"{shop.sandbox_url}/_", journal=journal
                ),
                tmp_path,
                users=("ada",),
                images=shop.sandbox_url,
                look_up_every=3600,
            )
            async with served(app) as shop.url, visiting(browser_path, **settings) as shop.visit:
                await shop.go("/sign-in")
                await shop.click("ada")
                yield shop

    return run


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve an application in this loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        # Connections queue up until it has started.
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listening.close()


@pytest.mark.parametrize("device", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_buy_reveal_sell_and_ship(opening: Opening, device: dict[str, Any]) -> None:
    """The whole walk, on a small screen in the dark and on a large one in the light; each page keeps axe's rules."""

    async def check() -> None:
        assert await shop.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        # What moves comes to rest first: half shown, text has less contrast.
        await shop.page.evaluate("Promise.all(document.getAnimations().map(a => a.finish()))")
        await shop.visit.check()

    async with opening(**device) as shop:
        await shop.shows("There are no cards yet.")
        await check()
        await shop.click("See the packs")
        await shop.shows("Sold out")
        await check()
        await shop.click("Topps Chrome 2024")
        await shop.page.get_by_label("How many").fill("3")
        await check()
        await shop.click("Buy")
        await shop.shows("Here are your cards.")
        await check()

        await shop.click("My cards")
        await shop.shows("3 cards")
        await check()
        await shop.click("Sell")
        await shop.shows("Sell this card?")
        await check()
        await shop.click("Sell for $")
        await shop.shows("Sold for $")
        await check()

        await shop.click("My cards")
        await shop.shows("2 cards")
        for box in await shop.page.get_by_role("checkbox").all():
            await box.check()
        await shop.click("Ship what is ticked")
        await check()
        for label, text in {"Full name": "Jane Doe", "Street": "1 Main St", "City": "Austin", "Country": "US"}.items():
            await shop.page.get_by_label(label).fill(text)
        await shop.click("See what it costs")
        await shop.shows("Ship 2 cards")
        await check()
        await shop.click("Ship for $")
        await shop.shows("Your order is placed.")
        await shop.click("See the order")
        await shop.shows("queued")
        await check()
        await shop.click("Activity")
        await shop.shows("Shipment of 2 cards")
        await check()


async def test_a_double_click_sells_once(opening: Opening) -> None:
    """Both clicks, and one after going back, lead to the one sale."""
    async with opening() as shop:
        shop.sandbox.add_item("ada", name="Mike Trout Base", buyback_price=Decimal("8.50"))
        await shop.go("/items")
        await shop.click("Sell")
        await shop.page.get_by_role("button", name="Sell for").dblclick()
        await shop.shows("Sold for $8.50")
        await shop.page.go_back()
        await shop.page.get_by_role("button", name="Sell for").click()
        await shop.shows("Sold for $8.50")
        await shop.shows("This form was sent before.")
        await shop.visit.check()
        assert shop.asked.count("/api/v1/vm/buyback") == 1


async def test_a_tab_closed_in_mid_purchase_loses_nothing(opening: Opening) -> None:
    """The purchase goes on without it, and is found under what was done lately."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def hold(path: str) -> None:
        if path.endswith("/vm/buy/init"):
            begun.set()
            await go_on.wait()

    async with opening() as shop:
        shop.before = hold
        context = shop.page.context
        await shop.go("/")
        await shop.click("Topps Chrome 2024")
        await shop.click("Buy")
        await shop.shows("Buying the pack")
        await shop.visit.check()
        await begun.wait()
        await shop.page.close()
        go_on.set()
        shop.visit.page = await context.new_page()
        await shop.go("/deals")
        await shop.click("Purchase of Topps Chrome 2024")
        await shop.shows("Here is your card.")
        await shop.click("My cards")
        await shop.shows("1 card,")


async def test_a_lost_answer_is_shown_and_looked_up(opening: Opening) -> None:
    """As what it is; then the page says what became of it."""
    async with opening(**PHONE) as shop:
        shop.sandbox.add_item("ada", name="Mike Trout Base", buyback_price=Decimal("8.50"))
        shop.faults.fail("sell_back", after_sending=True)
        await shop.go("/items")
        await shop.click("Sell")
        await shop.click("Sell for")
        await shop.shows("Not known yet.")
        await shop.visit.check()
        await shop.click("Activity")
        await shop.shows("not known yet")
        await shop.visit.check()
        await shop.click("Sale of Mike Trout Base")
        await shop.click("Look it up now")
        await shop.shows("It was looked up: it is done.")
        await shop.visit.check()
        await shop.click("My cards")
        await shop.shows("There are no cards yet.")


@pytest.mark.parametrize("how", ["another book", "signed out"])
async def test_a_page_that_cannot_be_followed_any_more_says_so(opening: Opening, tmp_path: Path, how: str) -> None:
    """The shop was started anew with another book, or its cookies are gone: the page does not wait for ever."""
    go_on = asyncio.Event()

    async def hold(path: str) -> None:
        if path.endswith("/vm/buy/init"):
            await go_on.wait()

    async with opening() as shop:
        shop.before = hold
        await shop.go("/")
        await shop.click("Topps Chrome 2024")
        await shop.click("Buy")
        await shop.shows("Buying the pack")
        if how == "signed out":
            await shop.page.context.clear_cookies()
        else:
            with closing(sqlite3.connect(tmp_path / "deals.db", isolation_level=None)) as book:
                book.execute("DELETE FROM deals")
        await shop.shows("This cannot be followed here any more")
        assert await shop.page.locator(".spinner").count() == 0
        go_on.set()
        # What the browser itself says of an answer with 404.
        assert [error for error in shop.visit.errors if "404" not in error] == []
        shop.visit.errors.clear()


async def test_long_words_widen_no_page(opening: Opening) -> None:
    """Of a name, on a phone."""
    long = "W" * 200
    async with opening(**PHONE) as shop:
        ids = [shop.sandbox.add_item("ada", name=long, buyback_price=Decimal(1)).id for _ in range(6)]
        pack = shop.sandbox.packs[0]
        tiers = tuple(attrs.evolve(tier, name=long) for tier in pack.rarity_distribution or ())
        shop.sandbox.add_pack(attrs.evolve(pack, name=long, description=long, rarity_distribution=tiers))
        shop.faults.fail("sell_back", 502)
        await shop.go(f"/sell?item={quote(ids[0])}")
        await shop.click("Sell for")
        await shop.shows("Not known yet.")
        deal = urlsplit(shop.page.url).path
        for path in ("/", f"/packs/{quote(pack.id)}", "/items", f"/ship?item={quote(ids[1])}", "/deals", deal):
            await shop.go(path)
            await shop.shows(long)
            assert await shop.page.evaluate("document.documentElement.scrollWidth") == 360, path


async def test_what_has_the_focus_is_not_behind_the_bar(opening: Opening) -> None:
    """Neither on the way down nor on the way up."""
    covered = """() => {
        const bar = document.querySelector(".bar"), focused = document.activeElement;
        return !bar.contains(focused) && focused.getBoundingClientRect().bottom > bar.getBoundingClientRect().top;
    }"""
    async with opening(viewport={"width": 360, "height": 600}) as shop:
        for number in range(12):
            shop.sandbox.add_item("ada", name=f"Card {number}", buyback_price=Decimal(1))
        await shop.go("/items")
        for key in ["Tab"] * 29 + ["Shift+Tab"] * 28:
            await shop.page.keyboard.press(key)
            assert not await shop.page.evaluate(covered)


async def test_answers_that_the_console_lets_get_lost(opening: Opening) -> None:
    """One sale that was made and one that was not, both unknown: nothing is sold twice, and no card is lost."""
    served_sandbox = ServedSandbox(seed=1)
    for name in ("Mike Trout Base", "Juan Soto Auto"):
        served_sandbox.sandbox.add_item("ada", name=name, buyback_price=Decimal("8.50"))

    async def lose_a_sale(when: str) -> None:
        await shop.page.goto(f"{shop.sandbox_url}/_console")
        await shop.page.locator("[name=operation]").select_option("sell_back")
        await shop.page.locator("[name=after]").select_option(when)
        await shop.click("Arm")
        await shop.shows("1 fault armed")

    async def sell(name: str) -> None:
        await shop.go("/items")
        await shop.click(f"Sell {name}")
        await shop.click("Sell for $8.50")
        await shop.shows("Not known yet.")

    async with opening(served_sandbox) as shop:
        await lose_a_sale("after it acted")
        await sell("Mike Trout Base")
        await shop.click("Look it up now")
        await shop.shows("It was looked up: it is done.")

        await lose_a_sale("before the sandbox acts")
        await sell("Juan Soto Auto")
        await shop.click("Look it up now")
        await shop.shows("Not known yet.")
        await shop.go("/items")
        await shop.shows("1 card,")
        # Neither Sell nor Ship: the way to the sale is all there is.
        await shop.click("Sale not known yet")
        await shop.shows("Sale of Juan Soto Auto")
        await shop.visit.check()

        (left,) = served_sandbox.sandbox.ledger.inventory("ada")
        assert left.name == "Juan Soto Auto"
        await shop.page.goto(f"{shop.sandbox_url}/_console/sellbacks")
        assert await shop.page.locator("tbody tr").count() == 1
        await shop.page.goto(f"{shop.sandbox_url}/_console/requests")
        assert await shop.page.locator("summary", has_text="buyback").count() == 2


async def test_a_card_without_its_picture_shows_its_initials(opening: Opening) -> None:
    """One that is from elsewhere is not asked for; one that cannot be loaded leaves no trace."""
    async with opening() as shop:
        for name, image in {
            "Good One": f"{shop.sandbox_url}/_cards/good.svg",
            "Broken Two": f"{shop.sandbox_url}/_cards/broken.svg",
            "Elsewhere Three": "https://cdn.phygitals.com/cards/front.png",
        }.items():
            shop.sandbox.add_item("ada", name=name, buyback_price=Decimal(1), image=image)
        await shop.go("/items")
        await shop.page.wait_for_load_state("networkidle")
        widths = await shop.page.evaluate("[...document.images].map(image => image.naturalWidth > 0)")
        assert sorted(widths) == [False, True]
        await shop.shows("BT")
        await shop.shows("ET")
        # What the browser itself says of the missing one.
        assert [error for error in shop.visit.errors if "404" not in error] == []
        shop.visit.errors.clear()
