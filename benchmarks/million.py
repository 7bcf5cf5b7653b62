"""Do memory and rate stay flat over a million users, refreshed over loopback by the fastest engine?"""

from __future__ import annotations

import time

import uvloop

from benchmarks.memory import resident_mib
from benchmarks.server import canned_server
from phygitals_async import Found, PhygitalsClient

USERS = 1_000_000
LIMIT = 64
PARTS = 10
# The first lookups make the connections.
WARM = 10_000


async def refresh(url: str) -> tuple[list[float], list[float], int]:
    """Return users per second and resident MiB of each part of the run, and how many inventories came."""
    rates: list[float] = []
    memory: list[float] = []
    found = 0
    ids = (f"user_{n}" for n in range(WARM + USERS))
    async with (
        PhygitalsClient("reqwest", api_key="sandbox-bench", base_url=url) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        began = time.perf_counter()
        done = -WARM
        async for outcome in outcomes:
            found += isinstance(outcome, Found)
            done += 1
            if done == 0:
                began = time.perf_counter()
            elif done > 0 and done % (USERS // PARTS) == 0:
                now = time.perf_counter()
                rates.append(USERS / PARTS / (now - began))
                memory.append(resident_mib())
                began = now
    return rates, memory, found


def main() -> None:
    """Print how the run went, by tenths."""
    with canned_server(5) as url:
        rates, memory, found = uvloop.run(refresh(url))
    print(f"\n{USERS:,} users over loopback, reqwest on uvloop, limit {LIMIT}, 5 items")
    print(f"  lost: {WARM + USERS - found}")
    print("  users per second, by tenths: " + " ".join(f"{rate:,.0f}" for rate in rates))
    print(f"  the last tenth's rate is {rates[-1] / rates[0]:.3f} of the first's")
    print(f"  resident MiB: {memory[0]:.1f} after the first tenth, {memory[-1]:.1f} at the end")


if __name__ == "__main__":
    main()
