"""The site of documents in a browser: readable by everybody, narrow and wide, light and dark, searched offline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from browser_support import visiting

# One of each kind: a start, code, a wide table, a reference. The longest ones take axe many seconds.
PAGES = ("index.html", "guide/ship.html", "conformance.html", "reference/journal.html")


@asynccontextmanager
async def serving(site: Path) -> AsyncIterator[str]:
    """Give the address at which the files of a folder are served."""
    app = web.Application()
    app.router.add_static("/", site)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


@pytest.mark.asyncio
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light")])
async def test_pages_can_be_read_by_everybody(browser_path: str, site: Path, width: int, scheme: str) -> None:
    """No serious fault of accessibility, in the colours that the system has, and nothing to scroll sideways for."""
    async with (
        serving(site) as address,
        visiting(browser_path, viewport={"width": width, "height": 740}, color_scheme=scheme) as visit,
    ):
        for page in PAGES:
            await visit.page.goto(f"{address}/{page}")
            await visit.check()
            assert await visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), page
        shade = await visit.page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(shade[:3]) < 200) == (scheme == "dark")


@pytest.mark.asyncio
@pytest.mark.parametrize(("width", "longest"), [(1280, 103), (1440, 120)])
async def test_code_is_not_cut(browser_path: str, site: Path, width: int, longest: int) -> None:
    """The first program, the tree of errors, and lines as long as they may be: none is scrolled sideways."""
    async with serving(site) as address, visiting(browser_path, viewport={"width": width, "height": 900}) as visit:
        for page in ("index.html", "errors.html", "sandbox.html"):
            await visit.page.goto(f"{address}/{page}")
            cut = await visit.page.evaluate(
                "[...document.querySelectorAll('pre > code')].filter(code => code.scrollWidth > code.clientWidth)"
                ".map(code => Math.max(...code.textContent.split('\\n').map(line => line.length)))"
            )
            assert [length for length in cut if length <= longest] == [], page


@pytest.mark.asyncio
async def test_the_search_finds_what_to_do_about_an_error(browser_path: str, site: Path) -> None:
    """With nothing but the site's own files: what it finds first is the error's own section."""
    from playwright.async_api import expect

    async with serving(site) as address, visiting(browser_path) as visit:
        page = visit.page
        await page.goto(f"{address}/index.html")
        await page.get_by_role("button", name="Search").first.click()
        await page.get_by_role("combobox", name="Search").fill("QuoteExpired")
        await expect(page.get_by_role("option").first).to_contain_text("quote again, show the price")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="QuoteExpired")).to_be_in_viewport()
