"""How much memory does a bulk run over a million ids take, does it grow, and what do other ways take?"""

from __future__ import annotations

import asyncio
import gc
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from benchmarks.payloads import inventory
from phygitals_async import Inventory, PhygitalsClient, Request, Response
from phygitals_transports import MemoryTransport

IDS = 1_000_000
# Few enough for the machine: what keeps its results takes so much for each id.
IDS_KEPT = 50_000
LIMIT = 64
SAMPLES = 20
ITEMS = inventory(1).partition(b",")[2]


def answer(request: Request) -> Response:
    """Answer with an inventory of the user asked for."""
    return Response(200, {}, b'{"user_id":"%s",%s' % (request.url.rpartition("/")[2].encode(), ITEMS))


def resident_mib() -> float:
    """Return this process's resident memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def client() -> PhygitalsClient:
    """Return a client whose transport answers from memory, and records nothing."""
    return PhygitalsClient(MemoryTransport(answer, keep=0), api_key="sandbox-bench")


async def stream(ids: int) -> AsyncIterator[int]:
    """Stream the inventories with this library; yield how many have come."""
    async with client() as api, api.stream_inventories((f"user_{n}" for n in range(ids)), limit=LIMIT) as outcomes:
        async for _ in outcomes:
            yield outcomes.progress.done


async def loop(ids: int) -> AsyncIterator[int]:
    """Do the least that can be done for each id, and keep nothing: the floor."""
    decode = msgspec.json.Decoder(Inventory).decode
    for n in range(ids):
        await asyncio.sleep(0)
        decode(b'{"user_id":"user_%d",%s' % (n, ITEMS))
        yield n + 1


async def gather(ids: int) -> AsyncIterator[int]:
    """Gather a task for each id under a semaphore, keeping every result."""
    admission = asyncio.Semaphore(LIMIT)
    async with client() as api:

        async def fetch(user_id: str) -> Inventory:
            async with admission:
                return await api.get_inventory(user_id)

        results = await asyncio.gather(*(fetch(f"user_{n}") for n in range(ids)))
        yield len(results)


async def grown(run: Callable[[int], AsyncIterator[int]], ids: int) -> list[float]:
    """Return how far the memory has grown, in MiB, at each twentieth of a run."""
    async for _ in run(1000):
        pass
    gc.collect()
    start = resident_mib()
    return [resident_mib() - start async for done in run(ids) if done % (ids // SAMPLES) == 0]


async def compare() -> None:
    """Print the table; what frees its memory last comes last."""
    ours = await grown(stream, IDS)
    floor = await grown(loop, IDS)
    kept = await grown(gather, IDS_KEPT)
    print(f"\nMemory above the start, ids from a generator, on MemoryTransport with recording off, limit {LIMIT}")
    print(f"  {'':44}{'most MiB':>10}{'bytes/id':>10}{'2nd half':>10}")
    rows = (
        ("stream_inventories", ours, IDS, ""),
        ("a loop that keeps nothing", floor, IDS, "  <- the limit"),
        ("gather + semaphore, results kept", kept, IDS_KEPT, ""),
    )
    for name, samples, ids, note in rows:
        second_half = samples[-1] - samples[len(samples) // 2]
        print(f"  {name:44}{max(samples):10.1f}{max(samples) / ids * 2**20:10.1f}{second_half:+10.1f}{note}")


if __name__ == "__main__":
    asyncio.run(compare())
