"""The sandbox keeps the rules S1 to S23 of the API sheet, section 4."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

import anyio
import pytest
from attrs import evolve

from phygitals_async import (
    ItemExpired,
    ItemNotFound,
    MissingField,
    OrderStatus,
    OutOfStock,
    PhygitalsClient,
    PhygitalsError,
    QuoteExpired,
    RarityTier,
    Sandbox,
    TransactionFailed,
    UserNotFound,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async.sandbox import Listing
from phygitals_transports import MemoryTransport
from sandbox_support import HOME, NOW, WEEK, ask, ids_of, pack_of
from support import fixture_json

TICK: Final = timedelta(milliseconds=1)


# ---------------------------------------------------------------------------------------------------------
# The rules S1 to S23


@pytest.mark.anyio
async def test_s1_state_lasts_until_it_is_wiped(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """State lives in the sandbox, not in its clients, and a wipe forgets it, but not the packs."""
    packs = await api.list_packs()
    await api.start_purchase(packs[0].id, 2, "user")
    another = PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test")
    assert len(await ids_of(another, "user")) == 2
    assert len(await api.list_recent_pulls()) == 2
    sandbox.wipe()
    with pytest.raises(UserNotFound):
        await another.get_inventory("user")
    assert await api.list_recent_pulls() == ()
    assert await api.list_packs() == packs


@pytest.mark.anyio
async def test_s2_instances_share_no_state(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Two instances know nothing of each other, even with the same seed."""
    other = PhygitalsClient(MemoryTransport(Sandbox(clock=lambda: NOW, seed=1)), api_key="sandbox-test")
    started = await api.start_purchase(sandbox.packs[0].id, 1, "user")
    with pytest.raises(UserNotFound):
        await other.get_inventory("user")
    with pytest.raises(TransactionFailed):
        await other.get_purchase(started.session_id)
    with pytest.raises(ItemNotFound):
        await other.sell_back(started.nfts[0].id)


def test_s3_nothing_outside_the_process_is_touched() -> None:
    """A whole life cycle opens no socket, starts no process and writes no file."""
    program = """
        import json, sys
        from phygitals_async import Request, Sandbox
        from phygitals_async.models import OrderStatus

        def ask(method, path, body=None):
            headers = {"X-API-Key": "sandbox-1", "Content-Type": "application/json"}
            content = None if body is None else json.dumps(body).encode()
            answer = sandbox(Request(method, "https://api.phygitals.com/_/api/v1" + path, headers, content))
            assert answer.status == 200, answer.body
            return json.loads(answer.body)

        touched = []
        def watch(event, args):
            if event.startswith(("socket.", "subprocess.", "os.", "shutil.", "sqlite3.", "urllib.", "http.")):
                touched.append(event)
            if event == "open" and args[1] and set(args[1]) & set("wxa+"):
                touched.append(event)

        sandbox = Sandbox(seed=1)
        sys.addaudithook(watch)
        pack = ask("GET", "/vm/available")[0]["id"]
        started = ask("POST", "/vm/buy/init", {"id": pack, "amount": 2, "user_id": "u"})
        ask("POST", "/vm/buy/status", {"session_id": started["session_id"]})
        sold, shipped = (item["id"] for item in started["nfts"])
        ask("POST", "/vm/buyback", {"item_id": sold})
        quotes = ask("POST", "/ship/quote", {"item_ids": [shipped], "destination": {"country": "US"}})["quotes"]
        order = ask("POST", "/ship/request", {"quote_id": quotes[0]["id"]})
        assert ask("GET", "/ship/order/" + order["order_id"])["tracking_url"] is None
        assert ask("GET", "/inventory/u")["items"] == []
        print(touched)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def walk_every_operation(base: str) -> list[Any]:
    """Go through every operation below `base`, and return the answers."""
    sandbox = Sandbox(clock=lambda: NOW, seed=1)
    answers: list[Any] = []
    asked: set[str] = set()

    def look(method: str, path: str, body: object = None) -> Any:
        status, answer = ask(sandbox, method, path, body, base=base)
        assert status == 200, answer
        answers.append(answer)
        for operation in OPERATIONS:
            if operation.method == method and re.fullmatch(re.sub("{.*}", "[^/]+", operation.path), path):
                asked.add(operation.name)
        return answer

    packs = look("GET", "/vm/available")
    look("GET", f"/vm/chase/{packs[0]['slug']}")
    started = look("POST", "/vm/buy/init", {"id": packs[0]["id"], "amount": 2, "user_id": "u"})
    look("POST", "/vm/buy/status", {"session_id": started["session_id"]})
    look("GET", "/vm/recent-pulls")
    look("GET", "/inventory/u")
    look("GET", f"/card/{started['nfts'][0]['id']}")
    look("POST", "/vm/buyback", {"item_id": started["nfts"][0]["id"]})
    wanted = {"item_ids": [started["nfts"][1]["id"]], "destination": {"country": "US"}}
    quotes = look("POST", "/ship/quote", wanted)
    order = look("POST", "/ship/request", {"quote_id": quotes["quotes"][0]["id"]})
    look("GET", f"/ship/order/{order['order_id']}")
    assert asked == {operation.name for operation in OPERATIONS}
    assert look("GET", "/vm/available") == packs
    return answers


def test_s4_production_routes_are_mirrored() -> None:
    """Every operation is answered alike below both prefixes, and nothing a user does changes the catalogue."""
    assert walk_every_operation("/_/api/v1") == walk_every_operation("/api/v1")


def test_s5_keys_identify_no_partner(sandbox: Sandbox) -> None:
    """What one key buys, another sees, sells and ships: user ids are shared by all partners."""
    pack = sandbox.packs[0].id
    bought = {"id": pack, "amount": 2, "user_id": "user"}
    _, started = ask(sandbox, "POST", "/vm/buy/init", bought, key="sandbox-one")
    _, seen = ask(sandbox, "GET", "/inventory/user", key="sandbox-two")
    assert [item["id"] for item in seen["items"]] == [item["id"] for item in started["nfts"]]
    status, _ = ask(sandbox, "POST", "/vm/buyback", {"item_id": started["nfts"][0]["id"]}, key="sandbox-two")
    assert status == 200
    _, left = ask(sandbox, "GET", "/inventory/user", key="sandbox-one")
    assert len(left["items"]) == 1


@pytest.mark.anyio
async def test_s6_purchases_are_fulfilled_at_once(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The start shows the items and the user owns them; no poll is ever pending, and each says the same."""
    for number in range(1, 11):
        user = f"user{number}"
        started = await api.start_purchase(sandbox.packs[number % 2].id, number, user)
        assert await ids_of(api, user) == [item.id for item in started.nfts]
        assert len({item.id for item in started.nfts}) == number
        purchase = await api.get_purchase(started.session_id)
        assert purchase is not None
        assert (purchase.session_id, purchase.user_id) == (started.session_id, user)
        assert purchase.nfts == started.nfts
        assert await api.get_purchase(started.session_id) == purchase


@pytest.mark.anyio
async def test_s7_one_listing_goes_to_several_users(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Nothing is locked by a purchase, and an id stands for its oldest owned holding."""
    sandbox.add_pack(*pack_of(100))
    for user in ("first", "second", "third"):
        await api.start_purchase("pack", 1, user)
    for user in ("first", "second", "third"):
        assert await ids_of(api, user) == ["pack-100"]
    await api.sell_back("pack-100")
    assert [await ids_of(api, user) for user in ("first", "second", "third")] == [[], ["pack-100"], ["pack-100"]]
    quotes = await api.quote_shipping(["pack-100"], HOME)
    await api.request_shipping(quotes.quotes[0].id)
    assert [await ids_of(api, user) for user in ("first", "second", "third")] == [[], [], ["pack-100"]]
    # Owned comes before locked, although the locked one is older.
    assert (await api.sell_back("pack-100")).amount == 85
    with pytest.raises(ItemNotFound):
        await api.sell_back("pack-100")


@pytest.mark.anyio
async def test_s7_nobody_draws_what_they_already_own(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """One user draws each listing once; after a sellback it can be drawn again."""
    sandbox.add_pack(*pack_of(10, 20, 30))
    assert len({item.id for item in (await api.start_purchase("pack", 2, "user")).nfts}) == 2
    (last,) = (await api.start_purchase("pack", 1, "user")).nfts
    assert sorted(await ids_of(api, "user")) == ["pack-10", "pack-20", "pack-30"]
    with pytest.raises(OutOfStock):
        await api.start_purchase("pack", 1, "user")
    await api.sell_back(last.id)
    assert [item.id for item in (await api.start_purchase("pack", 1, "user")).nfts] == [last.id]


@pytest.mark.anyio
async def test_s7_nobody_draws_what_they_await_or_shipped(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """What a pending purchase will bring, and what is locked in an order, is not drawn again; what failed is."""
    sandbox.add_pack(*pack_of(10, 20, 30))
    (shipped,) = (await api.start_purchase("pack", 1, "user")).nfts
    quotes = await api.quote_shipping([shipped.id], HOME)
    await api.request_shipping(quotes.quotes[0].id)
    sandbox.options.fail_purchases = True
    await api.start_purchase("pack", 2, "user")
    sandbox.options.fail_purchases = False
    sandbox.options.pending_polls = 1
    first, second = [(await api.start_purchase("pack", 1, "user")).session_id for _ in range(2)]
    for pending_polls in (0, 1):
        sandbox.options.pending_polls = pending_polls
        with pytest.raises(OutOfStock):
            await api.start_purchase("pack", 1, "user")
    sandbox.options.pending_polls = 0
    assert len((await api.start_purchase("pack", 3, "another")).nfts) == 3
    for session in (first, second):
        assert await api.get_purchase(session) is None
    owned = await ids_of(api, "user")
    assert sorted([*owned, shipped.id]) == ["pack-10", "pack-20", "pack-30"]
    with pytest.raises(OutOfStock):
        await api.start_purchase("pack", 1, "user")


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"enable": False}, (10,)),
        ({"in_stock": False}, (10,)),
        ({"enable": False, "in_stock": False}, (10,)),
        ({}, ()),
        ({"tiers": ()}, ()),
        ({"tiers": (RarityTier(id=0, name="Never", weight=Decimal(0)),)}, (10,)),
        ({"tiers": (RarityTier(id=0, name="Weightless"),)}, (10,)),
        (
            {
                "tiers": (
                    RarityTier(id=0, name="Never", weight=Decimal(0), upper=Decimal(50)),
                    RarityTier(id=1, name="Empty", weight=Decimal(1), upper=Decimal(90)),
                )
            },
            (10,),
        ),
    ],
    ids=["disabled", "no stock", "both", "no listing", "no tier", "no odds", "no weight", "only the unlikely tier"],
)
def test_s8_one_answer_for_every_pack_that_cannot_be_bought(
    sandbox: Sandbox, changes: dict[str, Any], values: tuple[int, ...]
) -> None:
    """Disabled, out of stock and without a card to draw are told apart by nothing, and nobody becomes known."""
    sandbox.add_pack(*pack_of(*values, **changes))
    answer = ask(sandbox, "POST", "/vm/buy/init", {"id": "pack", "amount": 1, "user_id": "user"})
    assert answer == (400, {"error": "Claw machine is out of stock"})
    assert ask(sandbox, "GET", "/inventory/user")[0] == 404


@pytest.mark.anyio
async def test_s8_too_few_cards_for_the_amount(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A purchase is fulfilled whole or not at all."""
    sandbox.add_pack(*pack_of(10, 20))
    with pytest.raises(OutOfStock):
        await api.start_purchase("pack", 3, "user")
    with pytest.raises(UserNotFound):
        await api.get_inventory("user")
    assert len((await api.start_purchase("pack", 2, "user")).nfts) == 2


@pytest.mark.parametrize(
    "tiers",
    [
        (("Low", 0, 50), ("Middle", 50, 200), ("High", 200, 1000)),
        (("High", 200, 1000), ("Middle", 50, 200), ("Low", 0, 50)),
        (("Middle", 50, 200), ("High", 200, 1000), ("Low", 0, 50)),
    ],
    ids=["rising", "falling", "mixed"],
)
@pytest.mark.anyio
async def test_listings_are_drawn_by_the_tier_their_value_falls_in(
    sandbox: Sandbox, api: PhygitalsClient, tiers: tuple[tuple[str, int, int], ...]
) -> None:
    """In whatever order a pack lists its tiers, a card is as likely as the tier whose band holds its value."""
    weights = {"Low": 1, "Middle": 0, "High": 0}
    distribution = tuple(
        RarityTier(id=number, name=name, lower=Decimal(lower), upper=Decimal(upper), weight=Decimal(weights[name]))
        for number, (name, lower, upper) in enumerate(tiers)
    )
    sandbox.add_pack(*pack_of(20, 100, 500, tiers=distribution))
    for number in range(20):
        (item,) = (await api.start_purchase("pack", 1, f"user{number}")).nfts
        assert item.id == "pack-20"


def test_a_listing_needs_a_tier(sandbox: Sandbox) -> None:
    """A pack without tiers takes no listings, and says so."""
    pack, listings = pack_of(10, tiers=())
    with pytest.raises(ValueError, match="the pack 'Pack' has no rarity tier to put listings in"):
        sandbox.add_pack(pack, listings)
    assert pack not in sandbox.packs


@pytest.mark.anyio
async def test_a_listing_above_every_tier_goes_to_the_highest(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A card more valuable than the bands allow can still be drawn."""
    band = RarityTier(id=7, name="Band", lower=Decimal(5), upper=Decimal(50), weight=Decimal(1))
    sandbox.add_pack(*pack_of(900, tiers=(band,)))
    (item,) = (await api.start_purchase("pack", 1, "user")).nfts
    assert item.id == "pack-900"


@pytest.mark.parametrize(
    "body", [{"session_id": "550e8400-e29b-41d4-a716-446655440000"}, {"session_id": ""}, {"session_id": 1}, {}]
)
def test_s9_an_unknown_session_failed(sandbox: Sandbox, body: object) -> None:
    """Polling a session that is unknown, missing or no text answers that the transaction failed, at once."""
    assert ask(sandbox, "POST", "/vm/buy/status", body) == (400, {"error": "Transaction failed"})


@pytest.mark.anyio
async def test_s10_transaction_hashes_are_made_up(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Each purchase has its own `sandbox_<base64url>`, and its own session and public id of the kind documented."""
    seen = Counter[str]()
    for number in range(20):
        purchase = await api.purchase(sandbox.packs[0].id, 1, f"user{number}")
        assert purchase.tx_hash is not None
        assert purchase.public_id is not None
        assert re.fullmatch(r"sandbox_[A-Za-z0-9_-]+", purchase.tx_hash)
        assert re.fullmatch(r"_[A-Z]{4}", purchase.public_id)
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", purchase.session_id)
        seen.update((purchase.tx_hash, purchase.session_id))
    assert set(seen.values()) == {1}


def test_s11_what_comes_from_ebay_has_no_mint_address(sandbox: Sandbox) -> None:
    """The null is written out in purchases and in inventory; every other source has its id as the address."""
    mints: dict[str, set[bool]] = {}
    packs = [pack.id for pack in sandbox.packs if pack.in_stock]
    for pack in packs:
        _, started = ask(sandbox, "POST", "/vm/buy/init", {"id": pack, "amount": 5, "user_id": "user"})
        _, polled = ask(sandbox, "POST", "/vm/buy/status", {"session_id": started["session_id"]})
        _, owned = ask(sandbox, "GET", "/inventory/user")
        for item in [*started["nfts"], *polled["result"]["nfts"], *owned["items"]]:
            assert item["mint_address"] in (None, item["id"])
            mints.setdefault(item["type"], set()).add(item["mint_address"] is None)
    assert mints == {"enft": {False}, "ebay": {True}}


def test_s12_links_are_filled_in_inventory_only(sandbox: Sandbox) -> None:
    """`content.links` is missing from purchases, and mirrors the metadata in inventory."""
    _, started = ask(sandbox, "POST", "/vm/buy/init", {"id": sandbox.packs[0].id, "amount": 10, "user_id": "user"})
    _, polled = ask(sandbox, "POST", "/vm/buy/status", {"session_id": started["session_id"]})
    _, owned = ask(sandbox, "GET", "/inventory/user")
    assert [list(item["content"]) for item in polled["result"]["nfts"]] == [["metadata"]] * 10
    assert [list(item["content"]) for item in started["nfts"]] == [["metadata"]] * 10
    for item, bought in zip(owned["items"], started["nfts"], strict=True):
        metadata = item["content"]["metadata"]
        assert metadata == bought["content"]["metadata"]
        assert item["content"]["links"] == {"image": metadata["image"], "back_image": metadata["back_image"]}


@pytest.mark.anyio
async def test_s13_a_sellback_pays_the_price_of_the_purchase(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The price is the card's value times the pack's fraction, is frozen, and is paid exactly."""
    sandbox.add_pack(*pack_of(10, 33, 250, percent="0.92"))
    started = await api.start_purchase("pack", 3, "user")
    prices = {item.id: item.buyback_price for item in started.nfts}
    assert prices == {"pack-10": Decimal("9.2"), "pack-33": Decimal("30.36"), "pack-250": Decimal(230)}
    sandbox.add_pack(*pack_of(10, 33, 250, percent="0.10"))
    for days in (0, 3, 3):
        sandbox.advance(timedelta(days=days))
        assert {item.id: item.buyback_price for item in (await api.get_inventory("user")).items} == prices
    for item_id, price in prices.items():
        assert (await api.sell_back(item_id)).amount == price


@pytest.mark.parametrize(
    ("value", "percent", "price"),
    [("82.5", "0.85", "70.13"), ("82.4", "0.85", "70.04"), ("0.1", "0.25", "0.03"), ("1", "0.005", "0.01")],
)
@pytest.mark.anyio
async def test_s13_half_a_cent_is_rounded_up(
    sandbox: Sandbox, api: PhygitalsClient, value: str, percent: str, price: str
) -> None:
    """The price of a purchase is in cents, as the documents' 82.5 at 0.85 is 70.13; so are live prices and values."""
    pack, _ = pack_of(percent=percent)
    sandbox.add_pack(pack, [Listing(id="card", name="Card", fmv=Decimal(value))])
    (bought,) = (await api.start_purchase("pack", 1, "user")).nfts
    assert bought.buyback_price == Decimal(price)
    given = sandbox.add_item("user", name="Card", buyback_price=Decimal(value))
    sandbox.options.price_factor = Decimal(percent)
    (live,) = [item.buyback_price for item in (await api.get_inventory("user")).items if item.id == given.id]
    assert live == (await api.sell_back(given.id)).amount == Decimal(price)
    # 0.02125 / 0.85 = 0.025
    odd = sandbox.add_item("user", name="Card", buyback_price=Decimal("0.02125"))
    assert (await api.get_card(odd.id)).fmv == Decimal("0.03")


@pytest.mark.parametrize("price", ["0.005", "8.505", "8.50", "123.4567", "0", "999999999999.99", "100000"])
@pytest.mark.anyio
async def test_s13_no_price_is_rounded(sandbox: Sandbox, api: PhygitalsClient, price: str) -> None:
    """A price of any precision is shown and paid as it was given."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(price))
    assert (await api.get_inventory("user")).items == (item,)
    assert (await api.sell_back(item.id)).amount == Decimal(price)


@pytest.mark.anyio
async def test_s14_the_sellback_window_is_seven_days(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """It ends exactly 7 days after the purchase, and is never null."""
    await api.start_purchase(sandbox.packs[0].id, 2, "user")
    sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    first, second, third = (await api.get_inventory("user")).items
    for item in (first, second, third):
        assert (item.purchased_at, item.buyback_expires_at) == (NOW, NOW + WEEK)
    sandbox.advance(WEEK - TICK)
    await api.sell_back(first.id)
    sandbox.advance(TICK)
    for item in (second, third):
        with pytest.raises(ItemExpired) as caught:
            await api.sell_back(item.id)
        assert (caught.value.status, caught.value.message) == (400, "Item has expired")


@pytest.mark.anyio
async def test_s15_one_of_many_sellbacks_wins(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Of many sellbacks of one item at a time, one is paid, and each other meets an item that is gone."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(5))
    outcomes: list[object] = []

    async def sell() -> None:
        try:
            outcomes.append((await api.sell_back(item.id)).amount)
        except PhygitalsError as error:
            outcomes.append(type(error))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(sell)
    assert Counter(outcomes) == {Decimal(5): 1, ItemNotFound: 49}


@pytest.mark.anyio
async def test_s16_a_quote_lives_fifteen_minutes(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """It ends exactly 15 minutes after it was made, all its rates at once."""
    first, second = (sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id for _ in range(2))
    before, after = await api.quote_shipping([first], HOME), await api.quote_shipping([second], HOME)
    assert before.expires_at == after.expires_at == NOW + timedelta(minutes=15)
    sandbox.advance(timedelta(minutes=15) - TICK)
    await api.request_shipping(before.quotes[0].id)
    sandbox.advance(TICK)
    for quote in after.quotes:
        with pytest.raises(QuoteExpired):
            await api.request_shipping(quote.id)
    assert await ids_of(api, "user") == [second]


@pytest.mark.parametrize(
    "body",
    [{}, {"quote_id": None}, {"quote_id": 7}, {"quote_id": ""}, {"quote_id": "quote_1"}, {"quote_id": ["_rate_"]}],
)
def test_s17_a_quote_id_holds_a_rate(sandbox: Sandbox, body: object) -> None:
    """A quote id that is missing, no text, or has no `_rate_` counts as not given."""
    assert ask(sandbox, "POST", "/ship/request", body) == (400, {"error": "quote_id is required"})


@pytest.mark.anyio
async def test_s17_a_quote_id_with_a_rate_is_looked_up(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The session alone is malformed; an unknown session and a rate that it does not have are expired."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    quotes = await api.quote_shipping([item.id], HOME)
    with pytest.raises(MissingField):
        await api.request_shipping(quotes.session_id)
    for quote_id in (f"{quotes.session_id}_rate_drone", "quote_unknown_rate_standard", "_rate_", "x_rate_"):
        with pytest.raises(QuoteExpired):
            await api.request_shipping(quote_id)
    assert re.fullmatch(r"quote_[0-9A-HJKMNP-TV-Z]{26}", quotes.session_id)
    assert [q.id for q in quotes.quotes] == [
        f"{quotes.session_id}_rate_{k}" for k in ("standard", "priority", "express")
    ]
    assert quotes.cheapest == quotes.quotes[0]


@pytest.mark.parametrize("country", ["US", "ZZ", "us", "  ", "12", "éé"])
@pytest.mark.anyio
async def test_s18_any_two_characters_are_a_country(sandbox: Sandbox, api: PhygitalsClient, country: str) -> None:
    """Nothing is checked of a country but its length."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    assert (await api.quote_shipping([item.id], evolve(HOME, country=country))).quotes


@pytest.mark.parametrize("country", ["", "U", "USA", "United States"])
def test_s18_other_lengths_are_no_country(sandbox: Sandbox, country: str) -> None:
    """Every other length is a 422. The client does not send it."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    answer = ask(sandbox, "POST", "/ship/quote", {"item_ids": [item.id], "destination": {"country": country}})
    assert answer == (422, {"error": "Country not supported"})


@pytest.mark.parametrize(
    "destination", [None, "US", [], {}, {"country": None}, {"country": 12}, {"country": ["U", "S"]}]
)
def test_s18_what_is_no_text_is_no_country(sandbox: Sandbox, destination: object) -> None:
    """Neither is a destination that is no object, nor a country that is no text."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    answer = ask(sandbox, "POST", "/ship/quote", {"item_ids": [item.id], "destination": destination})
    assert answer == (422, {"error": "Country not supported"})


@pytest.mark.anyio
async def test_s19_order_ids(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Each order has an id of its own, `order_` and 16 characters of base64url."""
    seen = set()
    for _ in range(50):
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        quotes = await api.quote_shipping([item.id], HOME)
        order_id = (await api.request_shipping(quotes.quotes[0].id)).order_id
        assert re.fullmatch(r"order_[A-Za-z0-9_-]{16}", order_id)
        seen.add(order_id)
    assert len(seen) == 50


@pytest.mark.anyio
async def test_s20_orders_stay_queued(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """An order shows what was quoted, and never moves."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1), back_image=None)
    quote = (await api.quote_shipping([item.id], HOME)).quotes[1]
    order_id = (await api.request_shipping(quote.id)).order_id
    first = await api.get_shipping_order(order_id)
    assert (first.order_id, first.status) == (order_id, OrderStatus.QUEUED)
    assert (first.carrier, first.service, first.amount, first.currency) == (
        "USPS",
        "Priority Mail",
        Decimal("9.75"),
        "USD",
    )
    assert [(line.item_id, line.name, line.image, line.back_image) for line in first.items] == [
        (item.id, "Card", item.image, None)
    ]
    assert first.created_at == NOW
    gone = (first.tracking_number, first.tracking_url, first.shipped_at, first.delivered_at, first.error_message)
    assert gone == (None, None, None, None, None)
    sandbox.advance(timedelta(days=365))
    assert await api.get_shipping_order(order_id) == first


def test_s20_the_order_of_the_documents(sandbox: Sandbox) -> None:
    """A queued order has the fields of the documented example, and no other."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    wanted = {"item_ids": [item.id], "destination": {"country": "US"}}
    _, quotes = ask(sandbox, "POST", "/ship/quote", wanted)
    _, made = ask(sandbox, "POST", "/ship/request", {"quote_id": quotes["quotes"][0]["id"]})
    _, order = ask(sandbox, "GET", f"/ship/order/{made['order_id']}")
    example = fixture_json("ship-order.sandbox-queued.json")
    assert {name: type(value) for name, value in order.items()} == {name: type(v) for name, v in example.items()}
    assert set(order["items"][0]) == set(example["items"][0])
    assert set(quotes) == set(fixture_json("ship-quote.json"))
    assert {name for quote in quotes["quotes"] for name in quote} == set(fixture_json("ship-quote.json")["quotes"][0])


def test_s21_a_shipping_request_never_answers_in_the_reserved_envelope(sandbox: Sandbox) -> None:
    """It makes an order with `success`, or says one sentence."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    wanted = {"item_ids": [item.id], "destination": {"country": "US"}}
    quote_id = ask(sandbox, "POST", "/ship/quote", wanted)[1]["quotes"][0]["id"]
    status, made = ask(sandbox, "POST", "/ship/request", {"quote_id": quote_id})
    assert (status, set(made), made["status"]) == (200, {"order_id", "status"}, "success")
    for refused in ({"quote_id": quote_id}, {"quote_id": "quote_x_rate_y"}, {"quote_id": "x"}, {}):
        status, said = ask(sandbox, "POST", "/ship/request", refused)
        assert (status, set(said)) == (400, {"error"})


def test_s22_the_destination_comes_back_verbatim(sandbox: Sandbox) -> None:
    """Unknown keys, nested values, nulls and odd spellings are all echoed, and none is added."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    destination: dict[str, Any] = {
        "zip": "78701", "country": "ZZ", "name": " Jané \u2028 Doe ", "line2": None, "": "", "floor": 3,
        "share": 0.1, "big": 12345678901234567890123, "geo": {"lat": [30.25, -97.75, {"ok": True}]}, "tags": [],
    }  # fmt: skip
    _, quotes = ask(sandbox, "POST", "/ship/quote", {"item_ids": [item.id], "destination": destination})
    _, made = ask(sandbox, "POST", "/ship/request", {"quote_id": quotes["quotes"][2]["id"]})
    _, order = ask(sandbox, "GET", f"/ship/order/{made['order_id']}")
    assert order["destination"] == destination
    assert list(order["destination"]) == list(destination)


@pytest.mark.parametrize("percent", ["0.85", "0.90", "1"])
@pytest.mark.anyio
async def test_s23_recent_pulls_show_a_computed_value(sandbox: Sandbox, api: PhygitalsClient, percent: str) -> None:
    """Whatever the pack's real fraction, the value of a pull is its price divided by 0.85, in cents."""
    sandbox.add_pack(*pack_of(100, percent=percent))
    started = await api.start_purchase("pack", 1, "user")
    (pull,) = await api.list_recent_pulls(claw_ids=["pack"])
    assert pull.buyback_price == started.nfts[0].buyback_price == 100 * Decimal(percent)
    assert pull.value == {"0.85": Decimal(100), "0.90": Decimal("105.88"), "1": Decimal("117.65")}[percent]
    assert (await api.get_card("pack-100")).fmv == 100
    given = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
    assert (await api.get_card(given.id)).fmv == 10
