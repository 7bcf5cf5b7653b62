"""A sandbox goes back to what it held."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from phygitals_async import PhygitalsClient, Sandbox
from phygitals_async.sandbox import RateLimit, SandboxOptions
from sandbox_support import HOME, ids_of, pack_of


@pytest.mark.asyncio
async def test_all_of_it_comes_back(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """Users, items, quotes, orders, packs, options, time and chance are as they were, as often as it is asked for."""
    limit = RateLimit(per_second=1000)
    sandbox.options = SandboxOptions(unshippable={"x"}, lock_sellbacks=1, rate_limit=limit)
    pack = sandbox.packs[0].id
    bought = await api.start_purchase(pack, 3, "user")
    kept, sold, shipped = [item.id for item in bought.nfts]
    quote = (await api.quote_shipping([shipped], HOME)).quotes[0].id
    before, then = sandbox.snapshot(), sandbox.now()

    drawn = []
    for _ in range(2):
        order = await api.request_shipping(quote)
        sandbox.options.lock_sellbacks = 0
        sandbox.options.unshippable.add(kept)
        await api.sell_back(sold)
        drawn.append((await api.start_purchase(pack, 2, "another")).nfts)
        sandbox.advance(timedelta(days=9))
        sandbox.add_pack(*pack_of(20))
        assert await ids_of(api, "user") == [kept]
        sandbox.wipe()
        sandbox.restore(before)
        assert await ids_of(api, "user") == [kept, sold, shipped]
        assert list(sandbox.ledger.users) == ["user"]
        assert sandbox.ledger.orders == {}
        assert order.order_id is not None
        assert (sandbox.now(), len(sandbox.packs)) == (then, 3)
        assert sandbox.options == SandboxOptions(unshippable={"x"}, lock_sellbacks=1, rate_limit=limit)
    assert drawn[0] == drawn[1]


@pytest.mark.asyncio
async def test_no_id_is_given_out_again(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """What was made up before a snapshot is gone back to never comes to stand for something else."""
    sandbox.add_pack(*pack_of(20, 30))
    given: list[object] = []
    start = sandbox.snapshot()
    for _ in range(3):
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        bought = await api.purchase("pack", 1, "user")
        quotes = await api.quote_shipping([item.id], HOME)
        order = await api.request_shipping(quotes.quotes[0].id)
        given += [item.id, bought.session_id, bought.tx_hash, quotes.session_id, order.order_id]
        sandbox.restore(start)
    assert len(set(given)) == len(given) == 15


@pytest.mark.asyncio
async def test_one_item_stays_one(sandbox: Sandbox, api: PhygitalsClient) -> None:
    """An item that an open quote and its owner both have is the same one afterwards."""
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    quote = (await api.quote_shipping([item.id], HOME)).quotes[0].id
    sandbox.restore(sandbox.snapshot())
    await api.request_shipping(quote)
    assert await ids_of(api, "user") == []
    (order,) = sandbox.ledger.orders.values()
    assert order.holdings[0] is sandbox.ledger.find(item.id)


def test_what_happens_later_does_not_change_it(sandbox: Sandbox) -> None:
    """It is a copy, and says little."""
    before = sandbox.snapshot()
    text = repr(before)
    sandbox.add_user("user")
    assert repr(before) == text
    sandbox.restore(before)
    assert sandbox.ledger.users == {}
