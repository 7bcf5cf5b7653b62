"""What does keeping what a bulk refresh finds cost, beside looking it up, and does memory stay flat?"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.memory import client, resident_mib
from benchmarks.payloads import varied_inventories
from benchmarks.server import canned_server
from phygitals_async import PhygitalsClient, Request, Response
from phygitals_async.refresh import RefreshReport, SqliteStore, refresh
from phygitals_transports import MemoryTransport

LIMIT = 64
ITEMS = 30
# So many inventories, of which no two items are alike, are those of all users.
VARIED = 200


async def look_up(url: str, users: int) -> None:
    """Look the users up over loopback HTTP, and keep nothing."""
    ids = (f"user_{n}" for n in range(users))
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        assert sum([1 async for _ in outcomes]) == users


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
        self._rests = [body.partition(b",")[2] for body in varied_inventories(ITEMS, VARIED)]

    def __call__(self, request: Request) -> Response:
        """Answer with the inventory of the user asked for."""
        user_id = request.url.rpartition("/")[2].encode()
        number = int(user_id.rpartition(b"_")[2])
        rest = self._rests[number % VARIED]
        if self.day and number % self._share == 0:
            rest = rest.replace(b'"buyback_price":', b'"buyback_price":%d' % self.day, 1)
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
    rounds_of = [_one_round(users, folder / f"{number}.db") for number in range(rounds)]
    over_http, bare, first, second, seconds, again, size = map(statistics.median, zip(*rounds_of, strict=True))
    print(f"{users:,} users of {ITEMS} items  (median of {rounds} rounds)")
    print(f"  {'':40}{'us of CPU per user':>20}")
    for name, cpu, note in (
        ("lookup over loopback HTTP", over_http, ""),
        ("lookup from memory", bare, ""),
        ("first run from memory", first, f"keeping: {(first - bare) / over_http:.2f} x the lookup over HTTP"),
        ("second, 1 % of the users changed", second, f"{second / bare:.2f} x the lookup: what was kept is not decoded"),
    ):
        print(f"  {name:40}{cpu / users * 1e6:20.1f}  {note}")
    print(f"  from memory: {seconds:.1f} s first, {again:.1f} s second; the file has {size:.0f} MiB")


def _one_round(users: int, path: Path) -> tuple[float, ...]:
    market = Market(100)
    with canned_server(ITEMS, VARIED) as url:
        over_http, _ = measure(lambda: asyncio.run(look_up(url, users)))
    before, _ = measure(lambda: asyncio.run(from_memory(market, users, None)))
    first, seconds = measure(lambda: asyncio.run(from_memory(market, users, path)))
    market.day = 1
    second, again = measure(lambda: asyncio.run(from_memory(market, users, path)))
    after, _ = measure(lambda: asyncio.run(from_memory(market, users, None)))
    # The machine's speed drifts.
    bare = (before + after) / 2
    return over_http, bare, first, second, seconds, again, path.stat().st_size / 2**20


def cost_of_growing(users: int, path: Path) -> None:
    """Print what two runs cost, lookups from memory included: a first one, and one with 1 % of the users changed."""
    market = Market(100)
    for day in (0, 1):
        market.day = day
        cpu, seconds = measure(lambda: asyncio.run(from_memory(market, users, path)))
        name, size = "1 % changed" if day else "first run", path.stat().st_size / 2**20
        print(
            f"  {users:>10,} users, {name:11}  {cpu / users * 1e6:6.0f} us of CPU per user  {seconds:8.1f} s"
            f"  file {size:8,.0f} MiB  memory {resident_mib():4.0f} MiB"
        )


async def growth(users: int, path: Path) -> None:
    """Print the memory that a run takes as it goes on."""
    start = resident_mib()
    print(f"{users:,} users of 1 item, from memory: {start:.0f} MiB at the start")

    began, next_one = time.perf_counter(), 1000

    def shown(report: RefreshReport) -> None:
        nonlocal next_one
        if report.run.done >= next_one:
            print(
                f"  {report.run.done:>12,} users  {resident_mib():7.1f} MiB  {report.run.done / _since(began):,.0f}/s"
            )
            next_one = min(next_one * 10, next_one + users // 4)

    ids = (f"user_{n:09d}" for n in range(users))
    async with client() as api, SqliteStore(path) as store:
        await refresh(api, ids, store, limit=LIMIT, on_commit=shown)


def _since(began: float) -> float:
    return time.perf_counter() - began


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=1_000_000, help="users of the run whose memory is shown, or 0")
    parser.add_argument("--sizes", type=int, nargs="*", default=[], help="rather show what runs of so many users cost")
    options = parser.parse_args()
    if options.sizes:
        for users in options.sizes:
            with tempfile.TemporaryDirectory() as folder:
                cost_of_growing(users, Path(folder) / "store.db")
        return
    with tempfile.TemporaryDirectory() as folder:
        cost_of_keeping(options.users, Path(folder), options.rounds)
        if options.many:
            path = Path(folder) / "many.db"
            asyncio.run(growth(options.many, path))
            print(f"  the file has {path.stat().st_size / 2**20:,.0f} MiB")


if __name__ == "__main__":
    main()
