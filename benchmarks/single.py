"""What does one get_inventory over loopback cost, one call at a time, against bare aiohttp?"""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec

from benchmarks.bulk import HEADERS
from benchmarks.harness import Side, compare
from benchmarks.server import canned_server
from phygitals_async import Inventory, PhygitalsClient

CALLS = 1000


async def ours(url: str) -> None:
    """Call `get_inventory` one call after the other."""
    async with PhygitalsClient(api_key="sandbox-bench", base_url=url) as api:
        for _ in range(CALLS):
            await api.get_inventory("user_abc123")


async def bare(url: str) -> None:
    """Do the same with aiohttp's get and read, and a bare decoder."""
    decode = msgspec.json.Decoder(Inventory).decode
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        for _ in range(CALLS):
            async with session.get(f"{url}/api/v1/inventory/user_abc123") as response:
                decode(await response.read())


def main() -> None:
    """Print the table for 5 items."""
    with canned_server(5) as url:
        compare(
            "One call at a time over loopback, 5 items",
            [
                Side("get_inventory", lambda: asyncio.run(ours(url))),
                Side("aiohttp get + read + bare msgspec", lambda: asyncio.run(bare(url)), limit=True),
            ],
            units=CALLS,
            unit="call",
            rounds=21,
        )


if __name__ == "__main__":
    main()
