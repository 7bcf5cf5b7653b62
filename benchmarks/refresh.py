"""What does keeping what a bulk refresh finds cost, beside looking it up, and does memory stay flat?"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.payloads import inventory
from benchmarks.server import canned_server
from phygitals_async import PhygitalsClient, Request, Response
from phygitals_async.refresh import RefreshReport, SqliteStore, refresh
from phygitals_transports import MemoryTransport

LIMIT = 64
ITEMS = 30


async def look_up(url: str, users: int) -> None:
    """Look the users up over loopback HTTP, and keep nothing."""
    ids = (f"user_{n}" for n in range(users))
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        assert sum([1 async for _ in outcomes]) == users


async def keep(url: str, users: int, path: Path) -> RefreshReport:
    """Look them up, and keep them in a file."""
    ids = (f"user_{n}" for n in range(users))
    async with PhygitalsClient(api_key="sandbox-bench", base_url=url) as api, SqliteStore(path) as store:
        return await refresh(api, ids, store, limit=LIMIT)


def measure(run: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of CPU and of the clock that a run takes."""
    gc.collect()
    cpu, clock = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - clock


class Market:
    """Answers from memory with `ITEMS` cards for each user; for every `share`-th of them one price moves each day."""

    def __init__(self, share: int) -> None:
        self.day = 0
        self._share = share
        self._rest = inventory(ITEMS).partition(b",")[2]

    def __call__(self, request: Request) -> Response:
        """Answer with the inventory of the user asked for."""
        user_id = request.url.rpartition("/")[2].encode()
        rest = self._rest
        if self.day and int(user_id.rpartition(b"_")[2]) % self._share == 0:
            rest = rest.replace(b'"buyback_price":8.5', b'"buyback_price":%d.25' % self.day, 1)
        return Response(200, {}, b'{"user_id":"%s",%s' % (user_id, rest))


async def from_memory(market: Market, users: int, path: Path | None) -> None:
    """Look the users up with no HTTP, and keep them in a file if one is given."""
    ids = (f"user_{n}" for n in range(users))
    async with PhygitalsClient(MemoryTransport(market, keep=0), api_key="sandbox-bench") as api:
        if path is None:
            async with api.stream_inventories(ids, limit=LIMIT) as outcomes:
                async for _ in outcomes:
                    pass
            return
        async with SqliteStore(path) as store:
            await refresh(api, ids, store, limit=LIMIT)


def cost_of_keeping(users: int, folder: Path, rounds: int) -> None:
    """Print what the store takes of the CPU: a first run, and one in which 1 % of the users changed."""
    rows = []
    for number in range(rounds):
        path = folder / f"{number}.db"
        market = Market(100)
        with canned_server(ITEMS) as url:
            over_http, _ = measure(lambda url=url: asyncio.run(look_up(url, users)))
        bare, _ = measure(lambda: asyncio.run(from_memory(market, users, None)))
        first, seconds = measure(lambda: asyncio.run(from_memory(market, users, path)))
        market.day = 1
        second, again = measure(lambda: asyncio.run(from_memory(market, users, path)))
        size = path.stat().st_size / 2**20
        rows.append((over_http, bare, first - bare, second - bare, seconds, again, size))
    over_http, bare, first, second, seconds, again, size = (sorted(column)[rounds // 2] for column in zip(*rows))
    each = 1e6 / users
    print(f"{users:,} users of {ITEMS} items, medians of {rounds} rounds")
    print(f"  lookup over loopback HTTP           {over_http * each:8.1f} us of CPU per user")
    print(f"  lookup from memory                  {bare * each:8.1f}")
    print(f"  the store's own, first run          {first * each:8.1f}   {first / over_http:.2f} x the lookup's")
    print(f"  the store's own, 1 % changed        {second * each:8.1f}   {first / second:.1f} x cheaper than the first")
    print(f"  whole runs                          {seconds:8.1f} s first, {again:.1f} s second; file {size:.0f} MiB")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cost_of_keeping(options.users, Path(folder), options.rounds)


if __name__ == "__main__":
    main()
