"""What does a bulk refresh over loopback HTTP cost per user, against a hand-written loop and a gather?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from benchmarks.harness import Side, compare
from benchmarks.payloads import PydanticInventory
from benchmarks.server import canned_server
from phygitals_async import Inventory, PhygitalsClient

LIMIT = 64
HEADERS = {"X-API-Key": "sandbox-bench", "Accept": "application/json"}


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(headers=HEADERS, cookie_jar=aiohttp.DummyCookieJar())


async def ours(url: str, users: int) -> None:
    """Refresh `users` inventories with this library."""
    ids = (f"user_{n}" for n in range(users))
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        count = sum([1 async for _ in outcomes])
    assert count == users
    assert outcomes.progress.found == users


async def hand_written(url: str, users: int) -> None:
    """Refresh them with the tightest loop aiohttp allows: fixed workers, encoded URLs, a bare decoder."""
    decode = msgspec.json.Decoder(Inventory).decode
    ids = iter(range(users))
    count = 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal count
        for n in ids:
            target = URL(f"{url}/api/v1/inventory/user_{n}", encoded=True)
            async with session.get(target, allow_redirects=False) as response:
                decode(await response.read())
                count += 1

    async with _session() as session, asyncio.TaskGroup() as group:
        for _ in range(LIMIT):
            group.create_task(work(session))
    assert count == users


async def usual(url: str, users: int) -> None:
    """Refresh them the usual way: gather, a semaphore, pydantic, every result kept."""
    admission = asyncio.Semaphore(LIMIT)

    async def fetch(session: aiohttp.ClientSession, n: int) -> PydanticInventory:
        async with admission, session.get(f"{url}/api/v1/inventory/user_{n}") as response:
            return PydanticInventory.model_validate_json(await response.read())

    async with aiohttp.ClientSession(headers=HEADERS) as session:
        results = await asyncio.gather(*(fetch(session, n) for n in range(users)))
    assert len(results) == users


def _run(run: Callable[[str, int], Coroutine[Any, Any, None]], url: str, users: int) -> None:
    asyncio.run(run(url, users))


def main() -> None:
    """Print the table for 5 and 50 items a user."""
    for items, users in ((5, 3000), (50, 1500)):
        with canned_server(items) as url:
            compare(
                f"Bulk refresh, limit {LIMIT}, {items} items a user",
                [
                    Side("stream_inventories", partial(_run, ours, url, users)),
                    Side(
                        "hand-written aiohttp workers, bare msgspec",
                        partial(_run, hand_written, url, users),
                        limit=True,
                    ),
                    Side("gather + semaphore + pydantic, results kept", partial(_run, usual, url, users)),
                ],
                units=users,
                unit="user",
                rounds=7,
            )


if __name__ == "__main__":
    main()
