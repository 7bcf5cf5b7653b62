"""The life cycle of an item in the sandbox, from the purchase to the sale or the order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest

from phygitals_async import (
    BadRequest,
    CardNotFound,
    Inventory,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    OrderNotFound,
    PhygitalsClient,
    QuoteExpired,
    Sandbox,
    StatusError,
    TransactionFailed,
    UserNotFound,
)
from sandbox_support import HOME, WEEK, ids_of


@pytest.mark.anyio
async def test_life_cycle_bought_items_are_owned(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A purchase puts its items, with all that was shown of them, into the inventory, after what was there."""
    older = sandbox.add_item("user", name="Older", buyback_price=Decimal(1))
    pack = sandbox.packs[0]
    started = await api.start_purchase(pack.id, 3, "user")
    first, *bought = (await api.get_inventory("user")).items
    assert first == older
    for item, nft in zip(bought, started.nfts, strict=True):
        assert (item.claw_id, item.claw_slug) == (pack.id, pack.slug)
        assert (item.id, item.buyback_price, item.type) == (nft.id, nft.buyback_price, nft.type)
        assert (item.mint_address, item.content.metadata) == (nft.mint_address, nft.content.metadata)
        assert (await api.get_card(item.id)).metadata == item.content.metadata


@pytest.mark.anyio
async def test_life_cycle_sold_items_are_gone(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """OWNED to SOLD: gone from the inventory; selling it again and quoting it answer that it is not found."""
    sold, kept = (sandbox.add_item("user", name="Card", buyback_price=Decimal(n)).id for n in (1, 2))
    done = await api.sell_back(sold)
    assert (done.success, done.amount) == (True, Decimal(1))
    assert await ids_of(api, "user") == [kept]
    for _ in range(2):
        with pytest.raises(ItemNotFound) as caught:
            await api.sell_back(sold)
        assert (caught.value.status, caught.value.message) == (400, "Item not found")
    with pytest.raises(ItemNotFound):
        await api.quote_shipping([kept, sold], HOME)
    await api.sell_back(kept)
    assert await api.get_inventory("user") == Inventory("user", ())


@pytest.mark.anyio
async def test_life_cycle_a_quote_changes_nothing(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A quoted item stays owned, can be quoted again, and can be sold."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    first = await api.quote_shipping([item.id], HOME)
    second = await api.quote_shipping([item.id], HOME)
    assert first.session_id != second.session_id
    assert await ids_of(api, "user") == [item.id]
    assert (await api.sell_back(item.id)).amount == 1


@pytest.mark.anyio
async def test_life_cycle_shipped_items_are_locked(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """OWNED to LOCKED: gone from the inventory; no sellback finds it, and no quote ships it again."""
    item, kept = (sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id for _ in range(2))
    open_quotes = await api.quote_shipping([item, kept], HOME)
    quotes = await api.quote_shipping([item], HOME)
    done = await api.request_shipping(quotes.quotes[0].id)
    assert done.status == "success"
    assert await ids_of(api, "user") == [kept]
    with pytest.raises(ItemNotFound):
        await api.sell_back(item)
    later = await api.quote_shipping([item], HOME)
    for quote in (quotes.quotes[0], quotes.quotes[1], open_quotes.quotes[0], later.quotes[0]):
        with pytest.raises(ItemAlreadyShipped) as caught:
            await api.request_shipping(quote.id)
        assert (caught.value.status, caught.value.message) == (400, "Item already shipped")
    # The refusal of one item left the other as it was.
    assert await ids_of(api, "user") == [kept]
    assert (await api.get_card(item)).id == item


@pytest.mark.anyio
async def test_life_cycle_after_the_window(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """An item whose window has passed is still owned and in the inventory, cannot be sold, and can be shipped."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    sandbox.advance(WEEK)
    with pytest.raises(ItemExpired):
        await api.sell_back(item.id)
    assert await ids_of(api, "user") == [item.id]
    quotes = await api.quote_shipping([item.id], HOME)
    await api.request_shipping(quotes.quotes[0].id)
    assert await ids_of(api, "user") == []
    with pytest.raises(ItemNotFound):
        await api.sell_back(item.id)


@pytest.mark.anyio
async def test_life_cycle_an_open_quote_of_a_sold_item(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """What was sold after it was quoted is not shipped, and neither is what was quoted with it."""
    sold, kept = (sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id for _ in range(2))
    quotes = await api.quote_shipping([sold, kept], HOME)
    await api.sell_back(sold)
    with pytest.raises(BadRequest):
        await api.request_shipping(quotes.quotes[0].id)
    assert await ids_of(api, "user") == [kept]


@pytest.mark.anyio
async def test_life_cycle_an_item_named_twice_ships_once(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """A quote that repeats an id is a quote for one item."""
    first, second = (sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id for _ in range(2))
    quotes = await api.quote_shipping([first, second, first], HOME)
    done = await api.request_shipping(quotes.quotes[0].id)
    order = await api.get_shipping_order(done.order_id)
    assert [line.item_id for line in order.items] == [first, second]
    assert await ids_of(api, "user") == []


@pytest.mark.anyio
async def test_life_cycle_one_order_of_several_users(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Items of several users can travel together: nothing documented forbids it."""
    items = [sandbox.add_item(user, name="Card", buyback_price=Decimal(1)).id for user in ("a", "b")]
    quotes = await api.quote_shipping(items, HOME)
    await api.request_shipping(quotes.quotes[0].id)
    assert await ids_of(api, "a") == await ids_of(api, "b") == []


@pytest.mark.anyio
async def test_a_wipe_as_a_client_sees_it(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """After a wipe, each call answers what the documents say of something that existed before."""
    started = await api.start_purchase(sandbox.packs[0].id, 3, "user")
    owned, quoted, shipped = (item.id for item in started.nfts)
    open_quotes = await api.quote_shipping([quoted], HOME)
    order_id = (await api.request_shipping((await api.quote_shipping([shipped], HOME)).quotes[0].id)).order_id
    given = sandbox.add_item("user", name="Card", buyback_price=Decimal(1)).id
    sandbox.wipe()
    expected: dict[str, tuple[int, type[StatusError], Callable[[], Awaitable[object]]]] = {
        "Transaction failed": (400, TransactionFailed, lambda: api.get_purchase(started.session_id)),
        "User not found": (404, UserNotFound, lambda: api.get_inventory("user")),
        "Item not found": (400, ItemNotFound, lambda: api.sell_back(owned)),
        "Quote expired": (400, QuoteExpired, lambda: api.request_shipping(open_quotes.quotes[0].id)),
        "Order not found": (404, OrderNotFound, lambda: api.get_shipping_order(order_id)),
        "Card not found": (404, CardNotFound, lambda: api.get_card(given)),
    }
    for message, (status, error, call) in expected.items():
        with pytest.raises(error) as caught:
            await call()
        assert (caught.value.status, caught.value.message) == (status, message)
    # A listing outlives every user.
    assert (await api.get_card(owned)).id == owned
    assert await api.list_recent_pulls() == ()
