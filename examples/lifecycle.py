"""From a pack to a queued order: buy, reveal, sell one card back, ship the others.

In memory, without key or network, when no PHYGITALS_API_KEY is set. Over HTTP against a local sandbox server with
PHYGITALS_API_KEY=sandbox-local and PHYGITALS_BASE_URL=http://127.0.0.1:8765/_ and against the vendor's with its key.
"""

import asyncio
import os
import uuid

from phygitals_async import Destination, PhygitalsClient, Sandbox
from phygitals_transports import MemoryTransport

HOME = Destination(name="Jane Doe", line1="123 Main St", city="Austin", state="TX", postal_code="78701", country="US")


def connect() -> PhygitalsClient:
    """Return a client of whatever the environment names, else of a sandbox in memory."""
    if "PHYGITALS_API_KEY" in os.environ:
        return PhygitalsClient()
    return PhygitalsClient(MemoryTransport(Sandbox()), api_key="sandbox-test")


async def main() -> None:
    """Walk through the life cycle once, as a user nobody else is."""
    user_id = f"user_{uuid.uuid4()}"
    async with connect() as api:
        pack = next(pack for pack in await api.list_packs() if pack.purchasable)
        print(f"buying 3 pulls of {pack.name} at USD {pack.mint_price:.2f}")

        purchase = await api.purchase(pack.id, 3, user_id)  # moves money: sent at most once
        for item in purchase.nfts:
            print(f"  pulled {item.name}, sells back for USD {item.buyback_price:.2f}")

        inventory = await api.get_inventory(user_id)
        cheapest = min(inventory.items, key=lambda item: item.buyback_price)
        card = await api.get_card(cheapest.id)
        sale = await api.sell_back(cheapest.id)  # moves money: sent at most once
        print(f"sold {card.name}, worth USD {card.fmv or 0:.2f}, for USD {sale.amount:.2f}")

        kept = [item.id for item in (await api.get_inventory(user_id)).items]
        quotes = await api.quote_shipping(kept, HOME)
        if quotes.cheapest is None:
            raise SystemExit("nobody ships there")
        request = await api.request_shipping(quotes.cheapest.id)  # moves goods: sent at most once
        order = await api.get_shipping_order(request.order_id)
        print(f"order of {len(order.items)} cards with {order.carrier}: {order.status}")


asyncio.run(main())
