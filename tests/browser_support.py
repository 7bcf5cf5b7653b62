"""A real browser for tests: Chromium, driven by Playwright."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import define, field

# Without the last ones it looks for hosts of its maker at every start.
_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_IMPACTS: Final = ("serious", "critical")


def chromium() -> str | None:
    """Return the browser's path, if it and what drives it are installed."""
    if importlib.util.find_spec("playwright") is None:
        return None
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@define
class Visit:
    """A visit to one server, and what went wrong in it.

    Attributes:
        page: Playwright's page.
        errors: What the page wrote to the console as errors, or raised.
        strays: Requests to any host but the loopback.
    """

    page: Any
    errors: list[str] = field(factory=list)
    strays: list[str] = field(factory=list)

    async def check(self) -> None:
        """Hold what is to be seen now against the rules of axe-core."""
        import axe_core_python  # type: ignore[import-untyped]  # It comes without types.

        script = (Path(axe_core_python.__file__).parent / "axe.min.js").read_text()
        # As a script of the page it would be subject to the page's own rules on scripts.
        await self.page.evaluate(f"() => {{ {script} }}")
        found = await self.page.evaluate("() => axe.run()")
        bad = [f"{v['id']}: {v['nodes'][0]['html']}" for v in found["violations"] if v["impact"] in _IMPACTS]
        assert bad == [], bad


@asynccontextmanager
async def visiting(path: str, **settings: Any) -> AsyncIterator[Visit]:
    """Open a browser with one page, and see at the end that nothing went wrong in it.

    Args:
        path: Of the browser.
        settings: Of Playwright's context, such as `viewport={"width": 360, "height": 740}` or `color_scheme="dark"`.
    """
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            context = await browser.new_context(**settings)
            context.set_default_timeout(20_000)
            visit = Visit(await context.new_page())
            visit.page.on("console", lambda m: visit.errors.append(m.text) if m.type == "error" else None)
            visit.page.on("pageerror", lambda error: visit.errors.append(str(error)))
            visit.page.on("request", lambda request: _note(visit, request.url))
            yield visit
        finally:
            await browser.close()
    assert visit.errors == []
    assert visit.strays == []


def _note(visit: Visit, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("data", "blob", "about") and parts.hostname != "127.0.0.1":
        visit.strays.append(url)
