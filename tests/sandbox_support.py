"""What the tests of the sandbox's rules share."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from phygitals_async import (
    Destination,
    Pack,
    PhygitalsClient,
    RarityTier,
    Request,
    Sandbox,
)
from phygitals_async.sandbox import Listing

NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
HOME: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")


def ask(
    sandbox: Sandbox, method: str, path: str, body: object = None, *, key: str = "sandbox-test", base: str = "/_/api/v1"
) -> tuple[int, Any]:
    """Make a request without the client, and return the status and the JSON of the answer."""
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    response = sandbox(Request(method, f"https://api.phygitals.com{base}{path}", headers, content))
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.status, json.loads(response.body)


def pack_of(*values: int, percent: str = "0.85", most: int = 10, **more: Any) -> tuple[Pack, list[Listing]]:
    """Return a pack with one tier, and a listing in it for each value in USD."""
    tier = RarityTier(id=0, name="Only", weight=Decimal(1))
    pack = Pack(
        id=more.pop("id", "pack"), name="Pack", enable=more.pop("enable", True), in_stock=more.pop("in_stock", True),
        mint_price=Decimal(10), max_per_mint=most, platform="mainnet", buyback_percent=Decimal(percent),
        rarity_distribution=more.pop("tiers", (tier,)), **more,
    )  # fmt: skip
    return pack, [Listing(id=f"{pack.id}-{value}", name=f"Card {value}", fmv=Decimal(value)) for value in values]


async def ids_of(api: PhygitalsClient, user_id: str) -> list[str]:
    """Return the ids of what a user owns."""
    return [item.id for item in (await api.get_inventory(user_id)).items]
