"""The storefront, with the fixtures that phygitals-async brings for pytest: no network, no browser, no waiting.

Each test runs the shop from its start to its shutdown. `visit.settled()` waits for what is under way.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
from starlette.applications import Starlette

from phygitals_async import DeadlineExceeded, Item, PhygitalsClient, Response, Sandbox
from phygitals_async.clock import SkippingClock
from phygitals_async.sandbox import SandboxOptions
from phygitals_transports import FaultTransport, MemoryTransport
from storefront.app import create_app
from storefront.signing import Signer, read_secret

pytestmark = pytest.mark.asyncio

ADDRESS = {"name": "Jane Doe", "line1": "1 Main St", "city": "Austin", "country": "US"}


class Visit:
    """A browser, as far as it needs no engine."""

    def __init__(self, app: Starlette) -> None:
        self.app = app
        self.browser = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://shop.test", follow_redirects=True
        )

    async def sign_in(self, user: str = "ada") -> None:
        """Sign in."""
        answer = await self.browser.post("/sign-in", data={"user": user}, follow_redirects=False)
        assert answer.status_code == 303

    async def get(self, path: str, **query: Any) -> str:
        """Return a page."""
        return (await self.browser.get(path, params=query or None)).text

    async def token(self, path: str, **query: Any) -> str:
        """Return the token of the first form of a page that has one."""
        found = re.search(r'name="token" value="([^"]+)"', await self.get(path, **query))
        assert found is not None
        return found[1]

    async def offers(self, *item_ids: str) -> list[str]:
        """Return the tokens of the offers to ship items."""
        answer = await self.browser.post("/ship/quotes", data={"item": item_ids, **ADDRESS})
        return re.findall(r'name="token" value="([^"]+)"', answer.text)

    async def settled(self, page: httpx2.Response, *until_not: str) -> str:
        """Return a deal's page as soon as it is not under way, or in none of other states."""
        while True:
            state = (await self.browser.get(f"{page.url.path}/state")).json()["state"]
            if state not in (until_not or ("under way",)):
                return await self.get(page.url.path)
            await asyncio.sleep(0.001)


Visiting = Callable[..., AbstractAsyncContextManager[Visit]]


@pytest.fixture
def visiting(tmp_path: Path, phygitals_faults: FaultTransport, request: pytest.FixtureRequest) -> Visiting:
    """Return what runs the shop; again, it is the same shop after a restart, over another sandbox where one is given.

    Its client closes the transport it is given, so each has one of its own around the fixture's.
    """
    clock = request.getfixturevalue("phygitals_clock") if "phygitals_clock" in request.fixturenames else None

    @asynccontextmanager
    async def run(
        user: str | None = "ada", look_up_every: float = 3600.0, sandbox: Sandbox | None = None
    ) -> AsyncIterator[Visit]:
        app = create_app(
            lambda journal: PhygitalsClient(
                MemoryTransport(sandbox or phygitals_faults.send), api_key="sandbox-test", journal=journal, clock=clock
            ),
            tmp_path,
            users=("ada", "bob"),
            images="https://cdn.phygitals.com",
            look_up_every=look_up_every,
        )
        async with app.router.lifespan_context(app):
            visit = Visit(app)
            async with visit.browser:
                if user is not None:
                    await visit.sign_in(user)
                yield visit

    return run


@pytest.fixture
def card(phygitals_sandbox: Sandbox) -> Item:
    """Give ada a card with an id that has to be quoted in addresses."""
    return phygitals_sandbox.add_item(
        "ada", id="v1|110586049456|0", name="Mike Trout <Base>", buyback_price=Decimal("8.50")
    )


def asked(transport: MemoryTransport, path: str) -> int:
    """Return how many requests there were."""
    return sum(request.url.endswith(path) for request in transport.sent)


async def test_packs_show_their_odds(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """To anybody; to buy, one has to be signed in."""
    async with visiting(user=None) as visit:
        page = await visit.get("/")
        assert "Topps Chrome 2024" in page
        assert "Sold out" in page
        pack = phygitals_sandbox.packs[0]
        page = await visit.get(f"/packs/{pack.id}")
        assert "80%" in page
        assert "$60.00 to $100.00" in page
        assert "Sign in to buy" in page
        assert (await visit.browser.get("/packs/none")).status_code == 404
        plain = attrs.evolve(pack, id="plain", slug=None, ev=None, buyback_percent=None, rarity_distribution=())
        phygitals_sandbox.add_pack(plain)
        assert "Odds" not in await visit.get("/packs/plain")
        phygitals_sandbox.add_pack(attrs.evolve(plain, slug="unheard-of"))
        for failure in (404, 403, Response(200, {}, b"<html>"), DeadlineExceeded):
            phygitals_faults.fail("list_chase_cards", failure)
            answer = await visit.browser.get("/packs/plain")
            assert (answer.status_code, "bought for" in answer.text) == (200, False)
        assert (await visit.browser.post("/sign-in", data={"user": "eve"})).status_code == 403


async def test_signing_in_leads_back(visiting: Visiting, phygitals_sandbox: Sandbox) -> None:
    """To the page that asked for it, and to no other site."""
    pack = phygitals_sandbox.packs[0]
    async with visiting(user=None) as visit:
        page = await visit.get(f"/packs/{pack.id}")
        assert f'href="/sign-in?next=/packs/{pack.id}"' in page
        page = await visit.get("/ship", item=["a b", "c&d"])
        (back,) = re.findall(r'name="next" value="([^"]+)"', page)
        assert back == "/ship?item=a+b&amp;item=c%26d"
        # What a form sends cannot be opened: from there, to one's cards.
        assert (await visit.browser.post("/buy")).url == "http://shop.test/sign-in"
        for asked_for, leads_to in {
            f"/packs/{pack.id}": f"/packs/{pack.id}",
            "/ship?item=a+b&item=c%26d": "/ship?item=a+b&item=c%26d",
            "": "/items",
            "items": "/items",
            "https://evil.test/": "/items",
            "//evil.test/": "/items",
            "/\\evil.test/": "/items",
            "/\t/evil.test/": "/items",
            "javascript:alert(1)": "/items",
        }.items():
            data = {"user": "ada", "next": asked_for}
            answer = await visit.browser.post("/sign-in", data=data, follow_redirects=False)
            assert answer.headers["location"] == leads_to


async def test_buy_reveal_sell_and_ship(visiting: Visiting, phygitals_sandbox: Sandbox) -> None:
    """The whole walk."""
    async with visiting() as visit:
        assert "There are no cards yet" in await visit.get("/items")
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.settled(await visit.browser.post("/buy", data={"token": token, "pulls": "3"}))
        assert "Here are your cards." in page
        ids = re.findall(r'name="item" value="([^"]+)"', await visit.get("/items"))
        assert len(ids) == 3

        sold = await visit.browser.post("/sell", data={"token": await visit.token("/sell", item=ids[0])})
        assert re.search(r"Sold for \$\d+\.\d\d", await visit.settled(sold))

        assert "Where to?" in await visit.get("/ship", item=ids[1:])
        offers = await visit.browser.post("/ship/quotes", data={"item": ids[1:], **ADDRESS})
        assert "2 cards" in offers.text
        tokens = re.findall(r'name="token" value="([^"]+)"', offers.text)
        page = await visit.settled(await visit.browser.post("/ship", data={"token": tokens[0]}))
        (order,) = re.findall(r'href="(/orders/[^"]+)"', page)
        assert 'aria-current="step" class="reached">queued' in await visit.get(order)

        activity = await visit.get("/deals")
        assert activity.count('class="badge good"') == 3
        paid = f"${phygitals_sandbox.packs[0].mint_price * 3:,.2f}"
        assert re.search(rf"Purchase of 3 × [^·]*· {re.escape(paid)}", activity)  # noqa: RUF001 - the sign of multiplication.
        assert re.search(r"Shipment of 2 cards [^·]*· \$\d+\.\d\d", activity)
        await visit.sign_in("bob")
        assert (await visit.browser.get(order)).status_code == 404
        assert "Nothing was bought" in await visit.get("/deals")
        assert (await visit.browser.get(sold.url.path)).status_code == 404


async def test_one_form_sells_once(visiting: Visiting, card: Item, phygitals_transport: MemoryTransport) -> None:
    """A double click, and going back and clicking again, lead to the one sale."""
    async with visiting() as visit:
        token = await visit.token("/sell", item=card.id)
        pages = await asyncio.gather(*(visit.browser.post("/sell", data={"token": token}) for _ in range(2)))
        for page in pages:
            assert "Sold for $8.50" in await visit.settled(page)
        again = await visit.browser.post("/sell", data={"token": token})
        assert "Sold for $8.50" in await visit.settled(again)
        assert "sent before" in again.text
        assert pages[0].url.path == pages[1].url.path == again.url.path
    assert asked(phygitals_transport, "/vm/buyback") == 1


async def test_a_form_is_good_for_its_user_only(visiting: Visiting, card: Item, phygitals_sandbox: Sandbox) -> None:
    """Neither another user nor another site can sell a card."""
    async with visiting() as visit:
        token = await visit.token("/sell", item=card.id)
        await visit.sign_in("bob")
        assert (await visit.browser.get("/sell", params={"item": card.id})).status_code == 404
        for wrong in (token, "", "a.b", token[:-1], token.replace(".", "")):
            assert (await visit.browser.post("/sell", data={"token": wrong})).status_code == 403
        phygitals_sandbox.add_user("bob")
        assert (await visit.browser.get("/sell", params={"item": card.id})).status_code == 404
        quotes = await visit.browser.post("/ship/quotes", data={"item": card.id, **ADDRESS})
        assert (quotes.status_code, "not among yours" in quotes.text) == (403, True)


async def test_a_purchase_shows_how_it_goes(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_clock: SkippingClock
) -> None:
    """Pending polls are waited for; nobody has to keep the page open."""
    phygitals_sandbox.options = SandboxOptions(pending_polls=3)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "Here is your card." in await visit.settled(page)
        for wrong in ("", "x", "0", "-1", "1.5", "99999", "9" * 5000, "\u0663"):
            answer = await visit.browser.post("/buy", data={"token": token, "pulls": wrong})
            assert answer.status_code == 422
    assert phygitals_clock.ahead > 0


async def test_a_form_that_is_sent_again_says_that_it_buys_nothing(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_transport: MemoryTransport
) -> None:
    """Whatever was changed in it meanwhile; the way to a new one is shown."""
    pack = phygitals_sandbox.packs[0]
    async with visiting() as visit:
        token = await visit.token(f"/packs/{pack.id}")
        first = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "sent before" not in await visit.settled(first)
        again = await visit.browser.post("/buy", data={"token": token, "pulls": "3"})
        assert again.url.path == first.url.path
        assert "sent before" in again.text
        assert f'<a href="/packs/{pack.id}">open the pack again' in again.text
    assert asked(phygitals_transport, "/vm/buy/init") == 1


async def test_a_shop_that_shuts_down_finishes_first(
    visiting: Visiting, card: Item, phygitals_faults: FaultTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """The browser is gone, and the server ends: the log says what it waits for, and the sale is in the book."""
    phygitals_faults.delay("sell_back", 0.1)
    async with visiting() as visit:
        token = await visit.token("/sell", item=card.id)
        page = await visit.browser.post("/sell", data={"token": token})
        assert "under way" in (await visit.browser.get(f"{page.url.path}/state")).text
        assert caplog.text == ""
    assert f"Sale of {card.name}" in caplog.text
    async with visiting() as visit:
        assert "Sold for $8.50" in await visit.get(page.url.path)


@pytest.mark.parametrize("after_sending", [True, False])
async def test_a_lost_sale_is_unknown_and_then_looked_up(
    visiting: Visiting,
    card: Item,
    phygitals_faults: FaultTransport,
    monkeypatch: pytest.MonkeyPatch,
    *,
    after_sending: bool,
) -> None:
    """Whether it happened is found out from the inventory; until then it is not sold a second time."""
    how = None if after_sending else 502
    phygitals_faults.fail("sell_back", how, after_sending=after_sending)
    async with visiting() as visit:
        earlier = await visit.token("/sell", item=card.id)
        page = await visit.browser.post("/sell", data={"token": await visit.token("/sell", item=card.id)})
        shown = await visit.settled(page)
        assert "Not known yet." in shown
        assert "not known yet" in await visit.get("/deals")
        assert ("Sale not known yet" in await visit.get("/items")) == (not after_sending)
        if not after_sending:
            assert "/sell?item=" not in await visit.get("/items")
            assert (await visit.browser.get("/sell", params={"item": card.id})).url.path == page.url.path
            other = await visit.browser.post("/sell", data={"token": earlier})
            assert other.url.path == page.url.path
            # For a quarter of an hour it may still be under way.
            assert "Not known yet." in (await visit.browser.post(f"{page.url.path}/look")).text
            monkeypatch.setattr("phygitals_async.journal._LAG", timedelta())
        found = await visit.browser.post(f"{page.url.path}/look")
        assert ("Sold. Its answer was lost, and the amount with it." in found.text) == after_sending
        assert ("nothing was done" in found.text) == (not after_sending)


@pytest.mark.parametrize("kind", ["sell", "ship"])
async def test_a_card_of_an_open_deal_is_neither_sold_nor_shipped(
    visiting: Visiting,
    card: Item,
    phygitals_sandbox: Sandbox,
    phygitals_faults: FaultTransport,
    phygitals_transport: MemoryTransport,
    kind: str,
) -> None:
    """Whatever page or old form asks for it: all lead to the deal of which it is not known what became."""
    other = phygitals_sandbox.add_item("ada", name="Other", buyback_price=Decimal(2))
    phygitals_faults.fail({"sell": "sell_back", "ship": "request_shipping"}[kind], 502)
    async with visiting() as visit:
        # Forms that were open in other tabs.
        sale = await visit.token("/sell", item=card.id)
        alone, both, free = [(await visit.offers(*ids))[0] for ids in ((card.id,), (other.id, card.id), (other.id,))]
        path, token = ("/sell", await visit.token("/sell", item=card.id)) if kind == "sell" else ("/ship", alone)
        page = await visit.browser.post(path, data={"token": token})
        assert "Not known yet." in await visit.settled(page)
        told = page.url.path

        cards = await visit.get("/items")
        words = {"sell": "Sale not known yet", "ship": "Shipment not known yet"}[kind]
        assert re.search(rf'<a href="{told}">{words}', cards)
        assert (cards.count('name="item"'), cards.count('href="/sell?')) == (1, 1)
        for answer in (
            await visit.browser.get("/sell", params={"item": card.id}),
            await visit.browser.get("/ship", params={"item": [other.id, card.id]}),
            await visit.browser.post("/ship/quotes", data={"item": [other.id, card.id], **ADDRESS}),
            await visit.browser.post("/sell", data={"token": sale}),
            await visit.browser.post("/ship", data={"token": both}),
        ):
            assert (answer.url.path, "Nothing new was started" in answer.text) == (told, True)
        sent = asked(phygitals_transport, "/vm/buyback"), asked(phygitals_transport, "/ship/request")
        assert sent == {"sell": (0, 0), "ship": (0, 0)}[kind]

        page = await visit.browser.post("/ship", data={"token": free})
        assert "Your order is placed." in await visit.settled(page)
        visit.app.state.shop.deals.change(told.rpartition("/")[2], state="failed")
        page = await visit.browser.post(
            "/ship" if kind == "sell" else "/sell", data={"token": (alone, sale)[kind == "ship"]}
        )
        assert ("Your order is placed." if kind == "sell" else "Sold for") in await visit.settled(page)


@pytest.mark.parametrize(("kind", "words"), [("sell", "Being sold"), ("ship", "Being shipped")])
async def test_a_card_that_is_under_way_is_shown_so(
    visiting: Visiting, card: Item, tmp_path: Path, kind: str, words: str
) -> None:
    """With the way to its deal, and only to its owner."""
    async with visiting() as visit:
        deals = visit.app.state.shop.deals
        deal, _ = deals.begin("begun", "ada", kind, "subject", "Card", items=(card.id,))
        assert f'<a href="/deals/{deal.id}">{words}' in await visit.get("/items")
        assert deals.open_items("bob") == {}
        with closing(sqlite3.connect(tmp_path / "deals.db")) as book, pytest.raises(sqlite3.IntegrityError):
            book.execute("INSERT INTO deal_items (deal_id, user_id, item_id) VALUES ('x', 'ada', ?)", (card.id,))


async def test_ids_that_come_again_show_nothing_of_another_user(visiting: Visiting) -> None:
    """A sandbox that is started again gives the same ids: what ada had is not to be found in bob's."""
    first, second = Sandbox(seed=0), Sandbox(seed=0)

    async def buy_and_ship() -> tuple[str, str, str]:
        token = await visit.token(f"/packs/{first.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        await visit.settled(page)
        (item_id,) = re.findall(r'name="item" value="([^"]+)"', await visit.get("/items"))
        placed = await visit.browser.post("/ship", data={"token": (await visit.offers(item_id))[0]})
        (order,) = re.findall(r'href="(/orders/[^"]+)"', await visit.settled(placed))
        assert (await visit.browser.get(order)).status_code == 200
        return item_id, page.url.path, order

    async with visiting(sandbox=first) as visit:
        before = await buy_and_ship()
        shown = await visit.get(before[1])
    async with visiting(sandbox=second) as visit:
        assert (await visit.browser.get(before[2])).status_code == 404
        assert await visit.get(before[1]) == shown
        await visit.sign_in("bob")
        after = await buy_and_ship()
        assert (before[0], before[2]) == (after[0], after[2])
        await visit.sign_in("ada")
        assert (await visit.browser.get(before[2])).status_code == 404
        assert await visit.get(before[1]) == shown


async def test_an_order_of_other_cards_is_not_shown(
    visiting: Visiting, card: Item, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """Whoever placed it, it is not the one that the book tells of."""
    async with visiting() as visit:
        page = await visit.browser.post("/ship", data={"token": (await visit.offers(card.id))[0]})
        (order,) = re.findall(r'href="(/orders/[^"]+)"', await visit.settled(page))
        assert (await visit.browser.get(order)).status_code == 200
        deal = visit.app.state.shop.deals.get(page.url.path.rpartition("/")[2], "ada")
        phygitals_faults.fail(
            "get_shipping_order",
            Response(200, {"content-type": "application/json"}, json.dumps({
                "order_id": deal.order_id, "status": "queued", "destination": {"name": "Somebody Else"},
                "items": [{"item_id": "theirs", "name": "Their Card"}], "created_at": "2026-04-18T19:05:14.000Z",
            }).encode()),
        )  # fmt: skip
        other = await visit.browser.get(order)
        assert (other.status_code, "Somebody Else" in other.text) == (404, False)


async def test_a_purchase_of_another_user_is_not_taken_for_ones_own(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """Its session came again in a sandbox that was started again: it is still not known what became of the first."""
    phygitals_faults.fail("get_purchase", 401)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        await visit.settled(page)
        deal = visit.app.state.shop.deals.get(page.url.path.rpartition("/")[2], "ada")
    again = Sandbox(seed=0)
    async with PhygitalsClient(MemoryTransport(again), api_key="sandbox-test") as api:
        other = await api.purchase(phygitals_sandbox.packs[0].id, 1, "bob")
    assert other.session_id == deal.session_id
    async with visiting(sandbox=again) as visit:
        found = await visit.browser.post(f"{page.url.path}/look")
        assert "Not known yet." in found.text


async def test_what_is_unknown_is_looked_up_without_being_asked(
    visiting: Visiting, card: Item, phygitals_faults: FaultTransport
) -> None:
    """Again and again, also where the API cannot be reached at first."""
    phygitals_faults.fail("sell_back", after_sending=True)
    async with visiting() as visit:
        page = await visit.browser.post("/sell", data={"token": await visit.token("/sell", item=card.id)})
        assert "Not known yet." in await visit.settled(page)
    phygitals_faults.fail("get_inventory", 403)
    async with visiting(look_up_every=0.001) as visit:
        assert "Sold. Its answer was lost, and the amount with it." in await visit.settled(page, "under way", "unknown")


async def test_a_purchase_that_was_lost_after_its_start(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """Its session is known, so it is looked up by that; the cards are shown."""
    phygitals_faults.fail("get_purchase", 401, times=2)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "still under way" in await visit.settled(page)
        assert "Not known yet." in (await visit.browser.post(f"{page.url.path}/look")).text
        phygitals_sandbox.options = SandboxOptions()
        assert "Here is your card." in (await visit.browser.post(f"{page.url.path}/look")).text
        phygitals_faults.fail(None, 401)
        assert "Here is your card." in await visit.get(page.url.path)


async def test_a_purchase_of_which_nothing_is_known(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """The inventory shows the cards of the pack; there is no session to reveal them by."""
    phygitals_faults.fail("start_purchase", after_sending=True)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "2"})
        assert "Not known yet." in await visit.settled(page)
        found = await visit.browser.post(f"{page.url.path}/look")
        assert "Your cards are here." in found.text


async def test_a_lost_purchase_is_never_taken_for_another(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """It is not done because the same pack was bought before; and it does not keep the pack from its user for ever."""
    pack = f"/packs/{phygitals_sandbox.packs[0].id}"
    async with visiting() as visit:

        async def buy() -> httpx2.Response:
            return await visit.browser.post("/buy", data={"token": await visit.token(pack), "pulls": "1"})

        assert "Here is your card." in await visit.settled(await buy())
        phygitals_faults.fail("start_purchase", 502)
        lost = await buy()
        assert "you can buy the pack again" in await visit.settled(lost)
        assert "Not known yet." in (await visit.browser.post(f"{lost.url.path}/look")).text
        assert (await buy()).url.path == lost.url.path
        deal_id = lost.url.path.rpartition("/")[2]
        started = datetime.now(UTC) - timedelta(minutes=31)
        visit.app.state.shop.deals.change(deal_id, started_at=started.isoformat())
        assert "Here is your card." in await visit.settled(await buy())
        assert "Not known yet." in (await visit.browser.post(f"{lost.url.path}/look")).text
        assert len((await visit.app.state.shop.api.get_inventory("ada")).items) == 2


async def test_a_pack_that_is_sold_out_meanwhile(visiting: Visiting, phygitals_sandbox: Sandbox) -> None:
    """Nothing was bought, and nothing is for the log."""
    pack = phygitals_sandbox.packs[0]
    async with visiting() as visit:
        token = await visit.token(f"/packs/{pack.id}")
        phygitals_sandbox.add_pack(attrs.evolve(pack, in_stock=False))
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "This pack is sold out." in await visit.settled(page)
        assert "Sold out" in await visit.get(f"/packs/{pack.id}")


async def test_a_purchase_that_fails(visiting: Visiting, phygitals_sandbox: Sandbox) -> None:
    """It is said in words that quote nothing."""
    phygitals_sandbox.options = SandboxOptions(fail_purchases=True)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "could not complete this" in await visit.settled(page)


@pytest.mark.parametrize(("pending", "failed"), [(1, False), (0, True)])
async def test_a_purchase_still_pending_when_looked_up(
    visiting: Visiting, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport, pending: int, *, failed: bool
) -> None:
    """It stays unknown until the API knows."""
    phygitals_sandbox.options = SandboxOptions(pending_polls=pending, fail_purchases=failed)
    phygitals_faults.fail("get_purchase", 401)
    async with visiting() as visit:
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "Not known yet." in await visit.settled(page)
        found = await visit.browser.post(f"{page.url.path}/look")
        assert ("could not complete this" if failed else "Not known yet.") in found.text


async def test_a_sale_that_was_never_sent(
    visiting: Visiting, card: Item, phygitals_sandbox: Sandbox, phygitals_transport: MemoryTransport
) -> None:
    """It was begun, and the process died before anything was written in the journal."""
    async with visiting() as visit:
        shop = visit.app.state.shop
        deal, _ = shop.deals.begin("begun", "ada", "sell", card.id, card.name)
    async with visiting() as visit:
        found = await visit.browser.post(f"/deals/{deal.id}/look")
        assert "before anything was sent" in found.text
    assert asked(phygitals_transport, "/vm/buyback") == 0


async def test_a_bug_leaves_an_unknown_deal(
    visiting: Visiting, card: Item, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is in the log, and what became of the sale is looked up as any other."""
    async with visiting() as visit:
        monkeypatch.setattr(visit.app.state.shop.life.api, "sell_back", lambda *_, **__: 1 / 0)
        page = await visit.browser.post("/sell", data={"token": await visit.token("/sell", item=card.id)})
        assert "It was interrupted." in await visit.settled(page)
        assert "ZeroDivisionError" in caplog.text
        assert "before anything was sent" in (await visit.browser.post(f"{page.url.path}/look")).text


async def test_an_address_that_is_refused(
    visiting: Visiting, card: Item, phygitals_sandbox: Sandbox, phygitals_faults: FaultTransport
) -> None:
    """The form comes back with what was typed, or with what the vendor suggests."""
    phygitals_sandbox.options = SandboxOptions(reject_addresses=1, suggestion={"city": "Round Rock"})
    async with visiting() as visit:
        form = {"item": card.id, **ADDRESS}
        page = await visit.browser.post("/ship/quotes", data=form)
        assert (page.status_code, "Round Rock" in page.text, "suggestion" in page.text) == (400, True, True)
        page = await visit.browser.post("/ship/quotes", data=form | {"country": "USA"})
        assert (page.status_code, 'value="USA"' in page.text) == (422, True)
        page = await visit.browser.post("/ship/quotes", data=form | {"name": ""})
        assert (page.status_code, "Please fill in: Full name." in page.text) == (422, True)
        assert (await visit.browser.get("/ship")).url.path == "/items"
        assert (await visit.browser.get("/ship", params={"item": "other"})).status_code == 404
        await visit.sign_in("bob")
        assert (await visit.browser.get("/ship", params={"item": card.id})).status_code == 404


async def test_an_order_whose_answer_was_lost(visiting: Visiting, card: Item, phygitals_faults: FaultTransport) -> None:
    """The card is gone from the inventory, so it was placed."""
    phygitals_faults.fail("request_shipping", after_sending=True)
    async with visiting() as visit:
        offers = await visit.browser.post("/ship/quotes", data={"item": card.id, **ADDRESS})
        (token, *_) = re.findall(r'name="token" value="([^"]+)"', offers.text)
        page = await visit.browser.post("/ship", data={"token": token})
        assert "Not known yet." in await visit.settled(page)
        found = await visit.browser.post(f"{page.url.path}/look")
        assert "Its answer was lost, and its number with it." in found.text


async def test_nothing_that_a_browser_can_send_breaks_a_page(
    visiting: Visiting, card: Item, phygitals_transport: MemoryTransport
) -> None:
    """Too many, too long, twice, or no text at all: refused in words, or taken for what it is."""
    async with visiting() as visit:
        long, odd = "x" * 5000, ("\0", "%ff", "../..", "é" * 3000)
        for path in ("/sell", "/ship"):
            for ids in ([long], odd, [str(n) for n in range(500)]):
                answer = await visit.browser.get(path, params={"item": ids})
                assert (answer.status_code, "not among yours" in answer.text) == (404, True)
        for ids in ([long], odd):
            answer = await visit.browser.post("/ship/quotes", data={"item": ids, **ADDRESS})
            assert (answer.status_code, "not among yours" in answer.text) == (403, True)
        (token, *_) = await visit.offers(card.id, card.id)
        page = await visit.browser.post("/ship", data={"token": token})
        assert "Shipment of 1 card " in await visit.settled(page)
        answer = await visit.browser.post("/ship/quotes", data={"item": card.id, **ADDRESS, "city": "x" * 300_000})
        assert (answer.status_code, "too much" in answer.text) == (413, True)
        for body in (b"\xff\xfe", b"&&&=", b"token=%ff%fe"):
            assert (await visit.browser.post("/sell", content=body)).status_code == 403
        for path in (f"/packs/{long}", "/deals/%00", "/orders/%ff", "/static/../app.py", f"/deals/{long}/state"):
            assert (await visit.browser.get(path)).status_code == 404
        for cookie in ("x", "x.y", "."):
            visit.browser.cookies.clear()
            answer = await visit.browser.get("/items", headers={"cookie": f"user={cookie}"})
            assert answer.url.path == "/sign-in"
        for host in ("[", "a]b", "x:y"):
            assert (await visit.browser.get("/sign-in", headers={"host": host})).status_code == 200
    assert asked(phygitals_transport, "/ship/quote") == 1


async def test_refusals_are_said_in_plain_words(visiting: Visiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug, too, which is for whoever runs the shop and not for its visitors."""
    async with visiting() as visit:
        for method, path, status, words in (
            ("GET", "/nowhere", 404, "There is no such page."),
            ("GET", "/static/nothing.css", 404, "There is no such page."),
            ("GET", "/buy", 405, "This page cannot be opened like this."),
            ("POST", "/items", 405, "This page cannot be opened like this."),
        ):
            page = await visit.browser.request(method, path)
            assert (page.status_code, words in page.text) == (status, True)
        monkeypatch.setattr(visit.app.state.shop.deals, "of", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await visit.get("/deals")
        visitor = httpx2.ASGITransport(visit.app, raise_app_exceptions=False)
        settings: dict[str, Any] = {"base_url": "http://shop.test", "cookies": visit.browser.cookies}
        async with httpx2.AsyncClient(transport=visitor, **settings) as browser:
            page = await browser.get("/deals")
            assert (page.status_code, "on our side" in page.text, "ZeroDivision" in page.text) == (500, True, False)
            assert "default-src 'none'" in page.headers["content-security-policy"]
            monkeypatch.setattr(visit.app.state.shop.signer, "read", lambda *_: 1 / 0)
            page = await browser.get("/")
            assert (page.status_code, "on our side" in page.text) == (500, True)


async def test_errors_are_pages_that_quote_nothing(
    visiting: Visiting, phygitals_faults: FaultTransport, phygitals_sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has what the server said."""
    phygitals_faults.fail("list_packs", 401)
    async with visiting() as visit:
        page = await visit.browser.get("/")
        assert (page.status_code, "on our side" in page.text, "401" in page.text) == (500, True, False)
        assert "401" in caplog.text
        assert (await visit.browser.get("/nowhere")).status_code == 404
        assert "default-src 'none'" in page.headers["content-security-policy"]
        phygitals_faults.fail("start_purchase", 401)
        token = await visit.token(f"/packs/{phygitals_sandbox.packs[0].id}")
        page = await visit.browser.post("/buy", data={"token": token, "pulls": "1"})
        assert "on our side" in await visit.settled(page)


async def test_tiles_say_how_long_the_offer_stands(visiting: Visiting, phygitals_sandbox: Sandbox) -> None:
    """What can no longer be sold has no button; names are text."""
    now = phygitals_sandbox.now()
    for name, age in (("<b>New</b>", 0.0), ("Today", 6.5), ("Soon", 6.99), ("Over", 8.0)):
        phygitals_sandbox.add_item(
            "ada", name=name, buyback_price=Decimal("1234.50"), purchased_at=now - timedelta(days=age)
        )
    item = phygitals_sandbox.add_item("ada", name="Forever", buyback_price=Decimal(1))
    phygitals_sandbox.put_item("ada", attrs.evolve(item, buyback_expires_at=None))
    phygitals_sandbox.add_item("ada", name="9 Lives", buyback_price=Decimal(1), image="https://elsewhere.test/a.png")
    async with visiting() as visit:
        page = await visit.get("/items")
        for text in (
            "6 days left",
            "11 hours left",
            "less than an hour left",
            "offer ended",
            "no time limit",
            "$1,234.50",
        ):
            assert text in page
        assert "&lt;b&gt;New" in page
        assert page.count('href="/sell?') == 5
        assert "worth $3,705.50 sold back now" in page
        (over,) = [item.id for item in phygitals_sandbox.ledger.inventory("ada") if item.name == "Over"]
        ended = await visit.get("/sell", item=over)
        assert "The offer to buy this card back has ended." in ended
        assert 'name="token"' not in ended
        assert "cdn.phygitals.com" in page
        assert "elsewhere.test" not in page
        assert (await visit.browser.post("/sign-out")).status_code == 200
        assert "Sign in" in await visit.get("/")


async def test_a_signature_is_for_one_purpose_and_for_a_while() -> None:
    """So a form's token is no cookie."""
    now = [100.0]
    signer = Signer(b"secret", lambda: now[0])
    text = signer.sign("sell", "ada", "card")
    assert signer.read("sell", text, 60) == ["ada", "card"]
    assert signer.read("user", text, 60) is None
    assert Signer(b"other").read("sell", text, 60) is None
    now[0] += 61
    assert signer.read("sell", text, 60) is None


async def test_a_secret_is_never_empty(tmp_path: Path) -> None:
    """As it would be where the process was killed while it made one: anybody could sign with it."""
    path = tmp_path / "secret"
    path.touch()
    secret = read_secret(path)
    assert len(secret) == 32
    assert read_secret(path) == secret
