"""The console, as far as it can be seen without a browser."""

from __future__ import annotations

import html
import re
import sys
from datetime import timedelta
from decimal import Decimal

import pytest

from phygitals_async.sandbox import RateLimit, SandboxOptions
from phygitals_async.sandbox.served import shown
from phygitals_async.sandbox.served.routes import ROUTES
from served_support import Client, client

pytestmark = pytest.mark.asyncio
PAGES = (
    "", "/users", "/users/user_000001", "/packs", "/purchases", "/sellbacks", "/orders", "/requests", "/requests/1",
    "/options",
)  # fmt: skip


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
    parts = part.removesuffix("</div>").split('</div><div id="')
    expected = {"": ["live", "latest"], "/options": []}.get(path, ["live"])
    assert [name.partition('"')[0] for name in parts[1:]] == expected
    lives = [text.partition(">")[2].strip() for text in parts[1:]]
    assert all(live in page for live in lives)
    assert all(lives)


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
    assert (answer.status, answer.headers["location"]) == (303, "/_console/users?search=x&start=0")
    note = answer.headers["set-cookie"].partition(";")[0]
    # The script that follows the page it was on takes nothing away from the next.
    assert "changed" not in await browser.page("/users", **{"X-Part": "live", "Cookie": note})
    there = await browser.send("GET", "/_console/users?search=x&start=0", headers={"Cookie": f"other=1; {note}"})
    page = there.body.decode()
    assert "The clock was changed." in page
    assert "2026-04-18 20:05:14" in page
    # A reload does not say it again.
    assert there.headers["set-cookie"].startswith("phygitals_done=; Path=/_console; Max-Age=0")
    assert "changed" not in await browser.page("/users", Cookie="phygitals_done=")
    user = await browser.page("/users/user_000001", Cookie="phygitals_done=add_item")
    assert 'name="back" value="/_console/users/user_000001"' in user
    assert "The card was added." in user
    assert 'class="done"' not in await browser.page("", Cookie="phygitals_done=nonsense")


@pytest.mark.parametrize("back", ["", "http://evil.example/", "//evil.example/_console", "/elsewhere", "javascript:1"])
async def test_no_form_leads_elsewhere(browser: Client, back: str) -> None:
    """Wherever it says it was, the browser stays in the console."""
    answer = await browser.form("wipe", back=back)
    assert answer.headers["location"] == "/_console"


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
    await browser.form("set_options", **{"rate_limit.per_second": "5", "rate_limit.burst": ""})
    assert browser.served.sandbox.options.rate_limit == RateLimit(5)


def fields_of(page: str) -> dict[str, str]:
    """Return what a browser sends of a page's only form, left as it is."""
    inputs = re.findall(r"<input [^>]*>", page)
    kept = [each for each in inputs if 'type="checkbox"' not in each or each.endswith(" checked>")]
    return {
        html.unescape(found[1]): html.unescape(value[1] if (value := re.search(r'value="([^"]*)"', each)) else "")
        for each in kept
        if (found := re.search(r'name="([^"]*)"', each))
    }


async def test_saving_options_changes_no_others(browser: Client) -> None:
    """What was used up, or set elsewhere, since the page was shown stays so; a limit is saved with all its parts."""
    before = SandboxOptions(
        lock_sellbacks=1, rate_limit=RateLimit(50, retry_after=False), strict=True, countries=frozenset({"US", "CA"}),
        order_stage=timedelta(seconds=60), price_factor=Decimal("0.9"),
    )  # fmt: skip
    browser.served.sandbox.options = before
    fields = fields_of(await browser.page("/options"))
    before.lock_sellbacks = 0
    await browser.form("set_options", **fields)
    assert browser.served.sandbox.options == before
    await browser.form("set_options", **{**fields, "pending_polls": "3", "rate_limit.per_second": "70"})
    before.pending_polls, before.rate_limit = 3, RateLimit(70, 50, retry_after=False)
    assert browser.served.sandbox.options == before
    fields = fields_of(await browser.page("/options"))
    await browser.form("set_options", **{**fields, "rate_limit.retry_after": "true"})
    assert browser.served.sandbox.options.rate_limit == RateLimit(70, 50)


async def test_options_as_at_the_start() -> None:
    """What the command line said holds again."""
    browser = client(options=SandboxOptions(strict=True, unshippable={"x"}))
    browser.served.sandbox.options.unshippable.add("y")
    for _ in range(2):
        await browser.form("set_options", strict="false", pending_polls="2")
        assert (await browser.form("reset_options")).status == 303
        assert browser.served.sandbox.options == SandboxOptions(strict=True, unshippable={"x"})
        browser.served.sandbox.options.unshippable.add("z")


@pytest.mark.parametrize("field", ["rate_limit=5&rate_limit.burst=6", "rate_limit.burst=6&rate_limit=5", "a.b.c=1"])
async def test_fields_that_do_not_fit_together(browser: Client, field: str) -> None:
    """They are no field of an option."""
    answer = await browser.send("POST", "/_console/do/set_options", field.encode())
    assert answer.status == 400


async def test_a_form_that_cannot_be_done_keeps_what_was_filled_in(browser: Client) -> None:
    """The page it was on says why, with all its fields as they were, and its navigation."""
    sent = {"kind": "edge", "operation": "sell_back", "after": "true", "times": "7", "seconds": "2", "status": "418"}
    answer = await browser.form("add_fault", **sent, back="/_console")
    page = answer.body.decode()
    assert answer.status == 400
    assert "an edge answers before" in page
    assert 'aria-label="Pages"' in page
    assert 'data-follow="/_console"' in page
    assert re.findall(r'<option value="(\w+)" selected>', page) == ["edge", "sell_back", "true"]
    for name in ("times", "seconds", "status"):
        assert re.search(rf'name="{name}" type="number" value="{sent[name]}"', page)
    answer = await browser.form("set_options", back="/_console/options", price_factor="2000", fail_orders="true")
    page = answer.body.decode()
    assert 'value="2000"' in page
    assert page.count(" checked>") == 2
    fields = {"user_id": "user_000001", "name": "Own", "buyback_price": "x", "back": "/_console/users/user_000001"}
    page = (await browser.form("add_item", **fields)).body.decode()
    assert 'value="Own"' in page
    assert "user_000001" in page


async def test_a_card_is_added(browser: Client) -> None:
    """To the user whose page it is."""
    await browser.form("add_item", user_id="user_000001", name="2024 New", buyback_price="8.50")
    assert browser.served.sandbox.ledger.inventory("user_000001")[-1].name == "2024 New"


@pytest.mark.parametrize(
    ("name", "fields", "status", "error"),
    [
        ("nonsense", {}, 404, "There is no form nonsense"),
        ("set_clock", {"advance": "x"}, 400, "float"),
        ("set_options", {"rate_limit.per_second": "0"}, 400, ">= 0.001"),
        ("set_options", {"rate_limit.per_second": "nan"}, 400, ">= 0.001"),
        ("set_options", {"rate_limit.per_second": "5", "rate_limit.burst": "inf"}, 400, "<= 1000000000"),
        ("set_options", {"order_stage": "nan"}, 400, "> 0"),
        ("set_options", {"price_factor": "sNaN"}, 400, "price_factor must be"),
        ("set_clock", {"advance": "nan"}, 400, ">= 0"),
        ("add_fault", {"kind": "latency", "seconds": "nan"}, 400, ">= 0"),
        ("add_item", {"user_id": "u", "name": "x", "buyback_price": "sNaN"}, 400, "buyback_price must be"),
        ("seed", {"users": "nan"}, 400, "int"),
        ("take_snapshot", {"name": "start"}, 409, "take another name"),
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
    assert error in html.unescape(answer.body.decode())
    assert b'href="/_console/options"' in answer.body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404), ("GET", "/packs/more", 404), ("GET", "/users/nobody", 404), ("PUT", "", 405),
        ("GET", "/users?start=x", 400),
        ("GET", "/users?start=99999999999999999999", 400),
        ("GET", "/packs?start=99999999999999999999", 400),
        ("POST", "/users", 405), ("GET", "/do/wipe", 405), ("GET", "/static/x.js", 404),
        ("GET", "/static/../console.py", 404), ("GET", "/requests/1", 404), ("GET", "/login", 405),
    ],
)  # fmt: skip
async def test_pages_that_are_not_there(browser: Client, method: str, path: str, status: int) -> None:
    """They are a page that leads back."""
    answer = await browser.send(method, f"/_console{path}", headers={"Origin": "http://127.0.0.1:8765"})
    assert answer.status == status
    assert b"That did not work" in answer.body
    assert b'aria-label="Pages"' in answer.body
    allowed = "POST" if method == "GET" else "GET, HEAD"
    assert answer.headers.get("allow") == (allowed if status == 405 else None)


@pytest.mark.parametrize("path", ["/_console", "/_console/users", "/_console/static/console.js"])
async def test_head(browser: Client, path: str) -> None:
    """It is answered as GET is; whoever serves it leaves the body out."""
    answer = await browser.send("HEAD", path)
    assert (answer.status, answer.headers) == (200, (await browser.send("GET", path)).headers)


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
