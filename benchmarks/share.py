"""What does the library itself take of a bulk refresh: all but the engine and the decoder?"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Coroutine
from typing import Any

from benchmarks.payloads import inventory
from phygitals_async import Inventory, PhygitalsClient, Request, Response, build_converter

ROUNDS = 15
USERS = 10_000
LIMIT = 64
ITEMS = inventory(5).partition(b",")[2]


def _body(user_id: str) -> bytes:
    return b'{"user_id":"%s",%s' % (user_id.encode(), ITEMS)


class _Nothing:
    """A transport that takes no time, but lets others go on as one that waits for a network does."""

    async def send(self, request: Request) -> Response:
        """Answer at the next turn of the event loop."""
        request.delivery.started = True
        await asyncio.sleep(0)
        return Response(200, {}, _body(request.url.rpartition("/")[2]))

    async def aclose(self) -> None:
        """Have nothing to close."""


async def _ours(users: int) -> None:
    ids = (f"user_{n}" for n in range(users))
    async with (
        PhygitalsClient(_Nothing(), api_key="sandbox-bench") as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        async for _ in outcomes:
            pass
    assert outcomes.progress.found == users


async def _floor(users: int) -> None:
    """Do what engine and decoder do there, and nothing else."""
    decode = build_converter().loads
    ids = iter(range(users))

    async def work() -> None:
        for n in ids:
            await asyncio.sleep(0)
            decode(Response(200, {}, _body(f"user_{n}")).body, Inventory)

    async with asyncio.TaskGroup() as group:
        for _ in range(LIMIT):
            group.create_task(work())


def _cpu(run: Callable[[int], Coroutine[Any, Any, None]]) -> float:
    gc.collect()
    start = time.process_time()
    asyncio.run(run(USERS))
    return (time.process_time() - start) / USERS * 1e6


def main() -> None:
    """Print what remains of a user's CPU time when the floor's is taken away."""
    ours: list[float] = []
    floor: list[float] = []
    for turn in range(ROUNDS):
        for run, times in ((_ours, ours), (_floor, floor)) if turn % 2 else ((_floor, floor), (_ours, ours)):
            times.append(_cpu(run))
    own = statistics.median(a - b for a, b in zip(ours, floor, strict=True))
    print(f"\nThe library's own share of a bulk refresh, limit {LIMIT}, 5 items  (median CPU of {ROUNDS} rounds)")
    print(
        f"  in all {statistics.median(ours):.1f} µs per user, floor {statistics.median(floor):.1f} µs, own {own:.1f} µs"
    )


if __name__ == "__main__":
    main()
