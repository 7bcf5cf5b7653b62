"""How much memory does a bulk run over a million ids take, and does it grow?"""

from __future__ import annotations

import asyncio
import gc
import resource
from pathlib import Path

from benchmarks.payloads import inventory
from phygitals_async import PhygitalsClient, Request, Response
from phygitals_transports import MemoryTransport

IDS = 1_000_000
SAMPLES = 20


def resident_mib() -> float:
    """Return this process's resident memory, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


class _Forgetful(list[Request]):
    """A `sent` that keeps nothing: a million recorded requests are the memory of the test, not of the run."""

    def append(self, _: Request) -> None:
        """Forget it."""


async def run() -> None:
    """Stream a million ids from a generator and print the memory as the run goes."""
    answer = Response(200, {}, inventory(1))
    transport = MemoryTransport(lambda _: answer)
    transport.sent = _Forgetful()
    async with PhygitalsClient(transport, api_key="sandbox-bench") as api:
        await api.get_inventories([f"user_{n}" for n in range(1000)])
        gc.collect()
        start = resident_mib()
        async with api.stream_inventories(f"user_{n}" for n in range(IDS)) as outcomes:
            samples = [resident_mib() - start async for _ in outcomes if outcomes.progress.done % (IDS // SAMPLES) == 0]
    print(f"\n{IDS:,} ids through stream_inventories on MemoryTransport, above the start at {start:.0f} MiB:")
    print("  MiB at each twentieth: " + " ".join(f"{sample:.1f}" for sample in samples))
    half = SAMPLES // 2
    print(f"  most {max(samples):.1f} MiB; growth over the second half {samples[-1] - samples[half]:+.1f} MiB")


if __name__ == "__main__":
    asyncio.run(run())
