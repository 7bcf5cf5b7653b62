"""The console, as far as it can be seen without a browser."""

from __future__ import annotations

import html
import re
import sys
from datetime import timedelta
from decimal import Decimal

import pytest

from phygitals_async.sandbox.served import shown
from phygitals_async.sandbox.served.routes import ROUTES
from served_support import Client

pytestmark = pytest.mark.asyncio
PAGES = ("", "/users", "/users/user_000001", "/packs", "/purchases", "/sellbacks", "/orders", "/requests", "/options")


async def busy(browser: Client) -> None:
    """Let something of every kind be there."""
    pack = next(pack for pack in browser.served.sandbox.packs if pack.purchasable and pack.max_per_mint > 2)
    _, bought = await browser.api("POST", "/vm/buy/init", {"id": pack.id, "amount": 2, "user_id": "<b>buyer</b>"})
    sold, shipped = (item["id"] for item in bought["nfts"])
    await browser.api("POST", "/vm/buyback", {"item_id": sold})
    home = {"name": "Jane", "city": "Austin", "country": "US"}
    _, quotes = await browser.api("POST", "/ship/quote", {"item_ids": [shipped], "destination": home})
    await browser.api("POST", "/ship/request", {"quote_id": quotes["quotes"][0]["id"]})
    await browser.form("add_fault", kind="latency", operation="", times="", seconds="1", status="500", after="false")
    await browser.form("take_snapshot", name="<b>kept</b>")


@pytest.mark.parametrize("path", PAGES)
async def test_every_page(browser: Client, path: str) -> None:
    """It is a whole page, loads nothing from elsewhere, runs no script of its own, and escapes what it shows."""
    await busy(browser)
    answer = await browser.send("GET", f"/_console{path}")
    assert answer.status == 200
    text = answer.body.decode()
    assert text.startswith("<!doctype html>")
    assert "<b>" not in text
    assert re.findall(r"""(?:src|href|action)="(?!/|\?|#)([^"]*)""", text) == []
    assert re.findall(r"<script(?! src=)|\son\w+=|\sstyle=", text) == []
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES)
async def test_the_part_that_is_followed(browser: Client, path: str) -> None:
    """It is what stands in the page itself, and the time."""
    await busy(browser)
    page = await browser.page(path)
    part = await browser.page(path, **{"X-Part": "live"})
    assert part.startswith('<div id="status">')
    assert "2026-04-18 19:05:14" in part
    live = part.partition('<div id="live">')[2].removesuffix("</div>").strip()
    assert live in page
    assert bool(live) == (path != "/options")


async def test_what_the_pages_show(browser: Client) -> None:
    """Users and cards with prices and time left, packs with odds, purchases, sellbacks, orders, requests, faults."""
    await busy(browser)
    (item, *_), user = browser.served.sandbox.ledger.inventory("user_000001"), await browser.page("/users/user_000001")
    assert html.escape(item.name, quote=False) in html.unescape(user) or item.name in html.unescape(user)
    assert f"${item.buyback_price:,.2f}" in user
    assert " d " in user
    assert "left" in user
    packs = "".join([await browser.page(f"/packs?start={start}") for start in range(0, 124, 24)])
    for text in ("Common <span", "80 %", "1 %", "no slug", "out of stock", ">off<", "No tiers.", "no bounds"):
        assert text in packs
    names = [pack.name for pack in browser.served.sandbox.packs]
    assert all(packs.count(f"<h2>{name}</h2>") == 1 for name in names)
    found = await browser.page(f"/packs?search={names[0].upper().replace(' ', '+')}")
    assert re.findall("<h2>(.*)</h2>", found) == [names[0]]
    assert "None." in await browser.page("/packs?search=nonsense")
    assert "fulfilled" in await browser.page("/purchases?search=buyer")
    assert "None yet" in await browser.page("/purchases?search=nobody")
    assert "Austin US" in await browser.page("/orders")
    sellbacks = await browser.page("/sellbacks")
    assert "&lt;b&gt;buyer" in sellbacks
    overview = await browser.page("")
    for text in ("any operation", "1 s late", "every time", "&lt;b&gt;kept", "1 fault armed"):
        assert text in overview
    assert "export <code>PHYGITALS_API_KEY</code>" in await browser.page("/requests")
    assert "Owns nothing" in await browser.page("/users/%3Cb%3Ebuyer%3C%2Fb%3E")


async def test_pages_of_many(browser: Client) -> None:
    """They are turned, and searched."""
    await browser.form("seed", users="120", seed="1", back="/_console/users")
    first = await browser.page("/users?search=user_0000")
    assert 'href="?start=50&amp;search=user_0000"' in first
    assert "Before" not in first
    second = await browser.page("/users?start=50&search=user_0000")
    assert 'href="?start=0&amp;search=user_0000"' in second
    assert "user_000050" in second
    assert "user_000049" not in second


# ---------------------------------------------------------------------------------------------------------
# Forms


async def test_every_form_is_a_route(browser: Client) -> None:
    """Each names one, and the page says that it was done."""
    await busy(browser)
    pages = [await browser.page(path) for path in PAGES]
    named = {name for page in pages for name in re.findall(r'action="/_console/do/(\w+)"', page)}
    assert named <= {route.name for route in ROUTES}
    assert named == {
        "add_fault", "remove_fault", "set_clock", "set_options", "reset_options", "take_snapshot", "restore_snapshot",
        "remove_snapshot", "wipe", "seed", "add_user", "add_item", "clear_requests", "remove_faults",
    }  # fmt: skip
    assert named == set(shown.DONE)


async def test_a_form_is_done_and_said(browser: Client) -> None:
    """The browser goes back to the page it was on, which says what was done."""
    answer = await browser.form("set_clock", advance="3600", back="/_console/users?search=x&start=0")
    assert (answer.status, answer.headers["location"]) == (303, "/_console/users?search=x&start=0&done=set_clock")
    page = await browser.page("/users?search=x&start=0&done=set_clock")
    assert "The clock was changed." in page
    assert "2026-04-18 20:05:14" in page
    user = await browser.page("/users/user_000001?done=add_item")
    assert 'name="back" value="/_console/users/user_000001"' in user
    assert "The card was added." in user
    assert 'class="done"' not in await browser.page("?done=nonsense")


@pytest.mark.parametrize("back", ["", "http://evil.example/", "//evil.example/_console", "/elsewhere", "javascript:1"])
async def test_no_form_leads_elsewhere(browser: Client, back: str) -> None:
    """Wherever it says it was, the browser stays in the console."""
    answer = await browser.form("wipe", back=back)
    assert answer.headers["location"] == "/_console?done=wipe"


async def test_fields_of_every_kind(browser: Client) -> None:
    """Numbers, switches, lists, parts of an option, and none at all."""
    fields = {"pending_polls": "2", "fail_purchases": "true", "price_factor": "0.9", "order_stage": "60"}
    limits = {"countries[]": "US, CA", "rate_limit.per_second": "5", "rate_limit.burst": "7"}
    assert (await browser.form("set_options", **fields, **limits)).status == 303
    options = browser.served.sandbox.options
    assert (options.pending_polls, options.fail_purchases, options.price_factor) == (2, True, Decimal("0.9"))
    assert options.countries == frozenset({"US", "CA"})
    assert options.rate_limit is not None
    assert options.rate_limit.burst == 7
    page = await browser.page("/options")
    for text in ('value="CA US"', 'value="60.0"', 'value="7.0"', "checked"):
        assert text in page
    none = {"order_stage": "", "countries[]": " ", "rate_limit.per_second": "", "rate_limit.burst": "3"}
    await browser.form("set_options", **none)
    options = browser.served.sandbox.options
    assert (options.order_stage, options.countries, options.rate_limit) == (None, None, None)


async def test_a_card_is_added(browser: Client) -> None:
    """To the user whose page it is."""
    await browser.form("add_item", user_id="user_000001", name="2024 New", buyback_price="8.50")
    assert browser.served.sandbox.ledger.inventory("user_000001")[-1].name == "2024 New"


@pytest.mark.parametrize(
    ("name", "fields", "status", "error"),
    [
        ("nonsense", {}, 404, "There is no form nonsense"),
        ("set_clock", {"advance": "x"}, 400, "float"),
        ("set_options", {"rate_limit.per_second": "0"}, 400, "above 0"),
        ("restore_snapshot", {"name": "none"}, 404, "No such snapshot"),
        ("add_user", {"user_id": ""}, 400, "str"),
    ],
)
async def test_forms_that_cannot_be_done(
    browser: Client, name: str, fields: dict[str, str], status: int, error: str
) -> None:
    """The page says why, and leads back."""
    answer = await browser.form(name, **fields, back="/_console/options")
    assert answer.status == status
    assert error in answer.body.decode()
    assert b'href="/_console/options"' in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/packs/more", 404), ("GET", "/users/nobody", 404), ("PUT", "", 404),
        ("GET", "/users?start=x", 400), ("POST", "/users", 404), ("GET", "/do/wipe", 404), ("GET", "/static/x.js", 404),
        ("GET", "/static/../console.py", 404),
    ],
)  # fmt: skip
async def test_pages_that_are_not_there(browser: Client, method: str, path: str, status: int) -> None:
    """They are a page that leads back."""
    answer = await browser.send(method, f"/_console{path}", headers={"Origin": "http://127.0.0.1:8765"})
    assert answer.status == status
    assert b"That did not work" in answer.body


@pytest.mark.parametrize(
    ("minutes", "text"), [(0, "0 min"), (59, "59 min"), (60, "1 h 0 min"), (1500, "1 d 1 h"), (10080, "7 d 0 h")]
)
async def test_how_time_is_written(minutes: int, text: str) -> None:
    """By the two largest units."""
    assert shown.lasting(timedelta(minutes=minutes)) == text


async def test_without_the_library(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The console says in one line what to install, and the rest goes on."""
    monkeypatch.setitem(sys.modules, "jinja2", None)
    answer = await browser.send("GET", "/_console")
    assert (answer.status, answer.headers["content-type"]) == (503, "text/plain; charset=utf-8")
    assert answer.body == b"this needs jinja2: pip install 'phygitals-async[console]'\n"
    assert (await browser.admin("GET", "/state"))[0] == 200
