"""How much sooner does a cached `get_inventory` return than one that a server on loopback answers?

The server is the sandbox, with its checks and its JSON, in a process of its own.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from phygitals_async import PhygitalsClient, Sandbox
from phygitals_transports import AiohttpTransport, CachingTransport

ROUNDS = 15
ASKED = 300
CACHED = 3000
USER = "user_abc123"


@contextmanager
def sandbox_server(items: int) -> Iterator[str]:
    """Serve a sandbox with one user while the block runs, giving its base URL."""
    command = [sys.executable, "-m", "benchmarks.cached", str(items)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def _serve(items: int) -> None:
    from phygitals_transports.aiohttp_server import serve

    sandbox = Sandbox(seed=1)
    for n in range(items):
        sandbox.add_item(USER, name=f"Juan Soto RC Auto /25, {n}", buyback_price=Decimal("8.50"))
    async with serve(sandbox) as url:
        print(f"{url}/_", flush=True)
        await asyncio.Event().wait()


async def _seconds(api: PhygitalsClient, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        await api.get_inventory(USER)
    return (time.perf_counter() - start) / calls


async def measure(url: str) -> tuple[float, float, float]:
    """Return the seconds of a call that is sent and of a cached one, and how often the second goes into the first."""
    cache = CachingTransport(AiohttpTransport(), lifetime=3600)
    asked: list[float] = []
    cached: list[float] = []
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url) as api,
        PhygitalsClient(cache, api_key="sandbox-bench", base_url=url) as caching,
    ):
        for _ in range(ROUNDS):
            asked.append(await _seconds(api, ASKED))
            cached.append(await _seconds(caching, CACHED))
    ratio = statistics.median(a / b for a, b in zip(asked, cached, strict=True))
    return statistics.median(asked), statistics.median(cached), ratio


def main() -> None:
    """Print the table for 5 and 50 items."""
    print(f"\nA cached get_inventory against one over loopback  (median wall time of {ROUNDS} rounds)")
    for items in (5, 50):
        with sandbox_server(items) as url:
            asked, cached, ratio = asyncio.run(measure(url))
        print(f"  {items:3} items: sent {asked * 1e6:.0f} µs, cached {cached * 1e6:.1f} µs, {ratio:.1f} times as fast")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(_serve(int(sys.argv[1])))
    else:
        main()
