"""What else the documents say of each operation (API sheet, section 2), kept by the sandbox."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from attrs import evolve

from phygitals_async import (
    AmountOutOfRange,
    CardNotFound,
    NotFound,
    PackNotFound,
    PhygitalsClient,
    Request,
    Sandbox,
)
from sandbox_support import HOME, NOW, ask, ids_of, pack_of


@pytest.mark.parametrize("amount", [0, -1, 1.5, "1", True, None, [], -(10**30), 0.0, -2.0, 2.000001], ids=repr)
def test_amounts_that_are_none(sandbox: Sandbox, amount: object) -> None:
    """An amount below 1, or that is no whole number, has the documented refusal."""
    answer = ask(sandbox, "POST", "/vm/buy/init", {"id": sandbox.packs[0].id, "amount": amount, "user_id": "user"})
    assert answer == (400, {"error": "Amount must be greater than 0"})


@pytest.mark.parametrize("amount", ["2.0", "2", "2e0", "0.2E1", "20e-1", "2.000"])
def test_a_whole_amount_in_any_spelling(sandbox: Sandbox, amount: str) -> None:
    """JSON has one kind of number, and many languages write a whole one with a fraction."""
    body = f'{{"id": "{sandbox.packs[0].id}", "amount": {amount}, "user_id": "user"}}'.encode()
    headers = {"X-API-Key": "sandbox-test", "Content-Type": "application/json"}
    answer = sandbox(Request("POST", "https://api.phygitals.com/_/api/v1/vm/buy/init", headers, body))
    assert (answer.status, len(json.loads(answer.body)["nfts"])) == (200, 2)


@pytest.mark.anyio
async def test_amounts_up_to_the_packs_limit(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """`max_per_mint` can be bought at once, and no more; the refusal names it."""
    sandbox.add_pack(*pack_of(1, 2, 3, 4, 5, most=3))
    for amount in (4, 5):
        with pytest.raises(AmountOutOfRange) as caught:
            await api.start_purchase("pack", amount, "user")
        assert caught.value.message == "Amount must be less than or equal to 3"
    for huge in (2**63, 2**64, 10**30, 4.0, 1e300):
        answer = ask(sandbox, "POST", "/vm/buy/init", {"id": "pack", "amount": huge, "user_id": "user"})
        assert answer == (400, {"error": "Amount must be less than or equal to 3"})
    assert len((await api.start_purchase("pack", 3, "user")).nfts) == 3


@pytest.mark.parametrize("user_id", [None, "", 5, ["user"]])
def test_a_purchase_needs_a_user(sandbox: Sandbox, user_id: object) -> None:
    """A missing user is refused before anything else is looked at."""
    answer = ask(sandbox, "POST", "/vm/buy/init", {"id": "unknown", "amount": 0, "user_id": user_id})
    assert answer == (400, {"error": "user_id is required"})


@pytest.mark.anyio
async def test_packs_are_bought_by_id(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A slug, like any unknown id, is a 400 and no 404."""
    slug = sandbox.packs[0].slug
    assert slug is not None
    for pack_id in (slug, "unknown"):
        with pytest.raises(PackNotFound) as caught:
            await api.start_purchase(pack_id, 1, "user")
        assert (caught.value.status, caught.value.message) == (400, "VM not found")
    assert ask(sandbox, "POST", "/vm/buy/init", {"id": 5, "amount": 1, "user_id": "u"})[1] == {"error": "VM not found"}


@pytest.mark.parametrize("item_ids", [None, [], "item", {}, 5])
def test_a_quote_needs_items(sandbox: Sandbox, item_ids: object) -> None:
    """Missing, empty, or no list at all."""
    answer = ask(sandbox, "POST", "/ship/quote", {"item_ids": item_ids, "destination": {"country": "US"}})
    assert answer == (400, {"error": "item_ids is required"})


@pytest.mark.parametrize("item_id", [None, "", "unknown", 5, ["item"], {}])
def test_items_that_are_unknown(sandbox: Sandbox, item_id: object) -> None:
    """An item id that is missing, unknown or no text is not found, at sellback and in a quote."""
    kept = sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id
    assert ask(sandbox, "POST", "/vm/buyback", {"item_id": item_id}) == (400, {"error": "Item not found"})
    wanted = {"item_ids": [kept, item_id], "destination": {"country": "US"}}
    assert ask(sandbox, "POST", "/ship/quote", wanted) == (400, {"error": "Item not found"})


@pytest.mark.anyio
async def test_cards_are_listings_or_items(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A card is found by a listing's id before anybody pulls it, and by the id of an item that somebody holds."""
    sandbox.add_pack(*pack_of(40))
    card = await api.get_card("pack-40")
    assert (card.id, card.name, card.fmv, card.image) == ("pack-40", "Card 40", Decimal(40), card.metadata.image)
    given = sandbox.add_item("user", name="Given", buyback_price=Decimal("0.85"), id="v1|1|0", back_image=None)
    card = await api.get_card(given.id)
    assert (card.name, card.fmv, card.back_image, card.metadata) == ("Given", Decimal(1), None, given.content.metadata)
    with pytest.raises(CardNotFound) as caught:
        await api.get_card("unknown")
    assert (caught.value.status, caught.value.message) == (404, "Card not found")


@pytest.mark.anyio
async def test_cards_outlive_their_sale_and_their_shipping(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The details of an item that no pack lists stay those it had, whatever became of it; an owned one comes first."""
    sold = sandbox.add_item("user", name="Sold", buyback_price=Decimal("0.85"))
    shipped = sandbox.add_item("user", name="Shipped", buyback_price=Decimal("1.70"))
    sandbox.put_item("user", put := evolve(sold, id="put", buyback_price=Decimal("2.55")))
    before = [await api.get_card(item.id) for item in (sold, shipped, put)]
    quotes = await api.quote_shipping([shipped.id], HOME)
    await api.request_shipping(quotes.quotes[0].id)
    for item in (sold, put):
        await api.sell_back(item.id)
    assert await ids_of(api, "user") == []
    assert [await api.get_card(item.id) for item in (sold, shipped, put)] == before
    assert [(card.name, card.fmv) for card in before] == [
        ("Sold", Decimal(1)),
        ("Shipped", Decimal(2)),
        ("Sold", Decimal(3)),
    ]
    sandbox.add_item("another", name="Anew", buyback_price=Decimal("8.50"), id=sold.id)
    card = await api.get_card(sold.id)
    assert (card.name, card.fmv) == ("Anew", Decimal(10))


@pytest.mark.parametrize("kind", ["object", "array"])
def test_a_destination_that_can_be_read_back(sandbox: Sandbox, kind: str) -> None:
    """However deep a destination is nested, it is refused or can be read: there is no order that nobody can read."""
    outcomes = set()
    for depth in (1, 10, 60, 100, 300, 500, 900, 1000, 3000):
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        opening, closing = ('{"a":', "}") if kind == "object" else ("[", "]")
        destination = f'{{"country": "US", "deep": {opening * depth}1{closing * depth}}}'
        body = f'{{"item_ids": ["{item.id}"], "destination": {destination}}}'.encode()
        headers = {"X-API-Key": "sandbox-test", "Content-Type": "application/json"}
        answer = sandbox(Request("POST", "https://api.phygitals.com/_/api/v1/ship/quote", headers, body))
        outcomes.add((answer.status, depth > 60))
        if answer.status != 200:
            assert (answer.status, json.loads(answer.body)) == (400, {"error": "Invalid JSON"})
            continue
        quote_id = json.loads(answer.body)["quotes"][0]["id"]
        _, made = ask(sandbox, "POST", "/ship/request", {"quote_id": quote_id})
        status, order = ask(sandbox, "GET", f"/ship/order/{made['order_id']}")
        assert (status, order["destination"]) == (200, json.loads(destination))
    assert outcomes == {(200, False), (400, True)}


@pytest.mark.anyio
async def test_chase_cards_are_the_best_of_a_pack(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The most valuable first, by slug; an id is no slug, and an unknown pack is a 404."""
    sandbox.add_pack(*pack_of(5, 70, 3, 900, 20, 40, 60, slug="slug"))
    cards = await api.list_chase_cards("slug")
    assert [(card.id, card.fmv) for card in cards] == [(f"pack-{v}", Decimal(v)) for v in (900, 70, 60, 40, 20)]
    assert [(card.name, card.image) for card in cards[:1]] == [("Card 900", (await api.get_card("pack-900")).image)]
    for slug in ("pack", "unknown"):
        with pytest.raises(NotFound):
            await api.list_chase_cards(slug)


@pytest.mark.anyio
async def test_packs_of_a_platform(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """First-party packs by default, and those of another platform on request."""
    usual = sandbox.packs
    elsewhere, _ = pack_of(id="elsewhere")
    elsewhere = evolve(elsewhere, platform="partner")
    everywhere = evolve(elsewhere, id="everywhere", platform=None)
    sandbox.add_pack(elsewhere)
    sandbox.add_pack(everywhere)
    assert sandbox.packs == (*usual, elsewhere, everywhere)
    assert await api.list_packs() == await api.list_packs(platform="mainnet") == (*usual, everywhere)
    assert await api.list_packs(platform="partner", include_repacks=True) == (elsewhere, everywhere)


@pytest.mark.anyio
async def test_a_pack_replaces_one_with_its_id(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The new one takes the old one's place, listings and all."""
    sandbox.add_pack(*pack_of(10))
    sandbox.add_pack(*pack_of(20))
    assert [pack.id for pack in sandbox.packs].count("pack") == 1
    assert [item.id for item in (await api.start_purchase("pack", 1, "user")).nfts] == ["pack-20"]


@pytest.mark.anyio
async def test_a_pack_without_a_fraction_pays_the_value(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Where a pack does not say what a sellback pays, it pays the card's value."""
    pack, listings = pack_of(40)
    sandbox.add_pack(evolve(pack, buyback_percent=None), listings)
    assert (await api.start_purchase("pack", 1, "user")).nfts[0].buyback_price == 40


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", 20),
        ("?limit=", 20),
        ("?limit=ten", 20),
        ("?limit=5", 5),
        ("?limit=1", 1),
        ("?limit=0", 1),
        ("?limit=-5", 1),
        ("?limit=100", 100),
        ("?limit=101", 100),
        ("?limit=1000000000", 100),
        ("?limit=99999999999999999999", 100),
        ("?limit=-99999999999999999999", 1),
        ("?limit=" + "9" * 5000, 100),
    ],
    ids=lambda value: str(value)[:24],
)
def test_the_number_of_recent_pulls(sandbox: Sandbox, query: str, shown: int) -> None:
    """The limit is 20 by default and for what is no number, and is clamped to 1 to 100."""
    for number in range(120):
        sandbox.add_item("user", name=f"Card {number}", buyback_price=Decimal(1), id=f"item-{number}")
    status, pulls = ask(sandbox, "GET", f"/vm/recent-pulls{query}")
    assert status == 200
    assert [pull["id"] for pull in pulls] == [f"item-{number}" for number in range(119, 119 - shown, -1)]


@pytest.mark.anyio
async def test_recent_pulls_are_newest_first(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """By the time of the pull, also where a test adds an older pull later; what is sold or shipped stays."""
    for days in (3, 1, 6, 0, 5):
        pulled = NOW - timedelta(days=days)
        sandbox.add_item("user", name="Card", buyback_price=Decimal(1), id=f"{days} days", purchased_at=pulled)
    await api.sell_back("1 days")
    pulls = await api.list_recent_pulls()
    assert [pull.id for pull in pulls] == ["0 days", "1 days", "3 days", "5 days", "6 days"]
    assert [pull.created_at for pull in pulls] == sorted((pull.created_at for pull in pulls), reverse=True)
    assert [pull.id for pull in await api.list_recent_pulls(limit=2)] == ["0 days", "1 days"]


@pytest.mark.anyio
async def test_recent_pulls_of_some_packs(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """The packs are asked for by id; unknown ones are no error."""
    for pack, slug in (("a", "slug"), ("b", None), ("a", "slug"), ("c", "slug")):
        sandbox.add_item("user", name="Card", buyback_price=Decimal(1), claw_id=pack, claw_slug=slug)
    assert [pull.claw_id for pull in await api.list_recent_pulls(claw_ids=["a", "b"])] == ["a", "b", "a"]
    assert [pull.claw_slug for pull in await api.list_recent_pulls(claw_ids=["b", "unknown"])] == [None]
    assert await api.list_recent_pulls(claw_ids=["unknown"]) == ()
    assert ask(sandbox, "GET", "/vm/recent-pulls?claw_ids=") == (200, [])
    assert ask(sandbox, "GET", "/vm/recent-pulls?claw_ids=a,b") == (200, [])


def test_recent_pulls_keep_memory_bounded(sandbox: Sandbox) -> None:
    """The feed of a sandbox that runs for long forgets old pulls, the items of which are still owned."""
    for number in range(1200):
        sandbox.add_item("user", name="Card", buyback_price=Decimal(1), claw_id="old" if number < 150 else "new")
    assert ask(sandbox, "GET", "/vm/recent-pulls?claw_ids=old") == (200, [])
    assert len(ask(sandbox, "GET", "/inventory/user")[1]["items"]) == 1200
