"""What does the console cost the sandbox that it shows: a page of 60 cards, and following 200 requests per second?"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import aiohttp

from phygitals_async import Request
from phygitals_async.sandbox.served import ServedSandbox

PAGES = 100
ITEMS = 60
PER_SECOND = 200
SECONDS = 8
ROUNDS = 3
KEY = {"X-API-Key": "sandbox-bench"}
FOLLOWED = ("/_console/requests", "/_console")


async def _cpu_of_pages() -> dict[str, float]:
    """Return the median CPU of each page, in ms, as the server has it: all but the bytes' way through a socket."""
    served = ServedSandbox(users=100)
    for _ in range(ITEMS):
        served.sandbox.add_item("user", name="2024 Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    medians = {}
    for page in ("/_console/users/user", "/_console/users", "/_console/packs", *FOLLOWED):
        times = []
        for _ in range(PAGES):
            for number in range(10):
                await served(Request("GET", f"http://127.0.0.1/_/api/v1/inventory/user_{number:06d}", KEY))
            start = time.process_time()
            answer = await served(Request("GET", f"http://127.0.0.1{page}", {"Host": "127.0.0.1"}))
            times.append((time.process_time() - start) * 1000)
            assert answer.status == 200
        medians[page] = statistics.median(times)
    return medians


@asynccontextmanager
async def _sandbox() -> AsyncIterator[tuple[str, int]]:
    """Run a sandbox in a process of its own, giving its address and its process id."""
    command = [sys.executable, "-m", "phygitals_async.sandbox", "--port", "0", "--users", "100", "--json"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline())
        yield told["base_url"].removesuffix("/_"), process.pid
    finally:
        process.terminate()
        await process.wait()


def _cpu_of(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / 100


async def _fetch(session: aiohttp.ClientSession, url: str) -> None:
    """Do once what the console's script does in two open tabs."""
    for page in FOLLOWED:
        async with session.get(url + page, headers={"X-Part": "live"}) as answer:
            await answer.read()


async def _follow(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        await _fetch(session, url)
        await asyncio.sleep(1)


async def _under_load(*, is_followed: bool) -> tuple[float, float]:
    """Return the server's CPU per API request, and the median time of one, both in ms."""
    async with _sandbox() as (url, pid), aiohttp.ClientSession() as session:
        # The first page of all loads the templates, which takes as long as a minute of following.
        await _fetch(session, url)
        follower = asyncio.create_task(_follow(session, url)) if is_followed else None
        latencies = []

        async def ask(number: int) -> None:
            start = time.perf_counter()
            async with session.get(f"{url}/_/api/v1/inventory/user_{number % 100:06d}", headers=KEY) as answer:
                await answer.read()
            latencies.append(time.perf_counter() - start)

        cpu, begin = _cpu_of(pid), asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(PER_SECOND * SECONDS):
                await asyncio.sleep(max(0.0, begin + number / PER_SECOND - asyncio.get_running_loop().time()))
                group.create_task(ask(number))
        cpu = _cpu_of(pid) - cpu
        if follower is not None:
            follower.cancel()
        return cpu / len(latencies) * 1000, statistics.median(latencies) * 1000


async def main() -> None:
    """Print both tables."""
    print(f"\nCPU of the server for a page of the console  (median of {PAGES})")
    for page, milliseconds in (await _cpu_of_pages()).items():
        print(f"  {page:30}{milliseconds:8.2f} ms")
    print(f"\nThe API at {PER_SECOND} requests/s for {SECONDS} s, without and with two tabs of the console that follow")
    ratios = []
    for _ in range(ROUNDS):
        (alone, wait), (followed, wait_then) = [await _under_load(is_followed=each) for each in (False, True)]
        ratios.append((followed / alone, wait_then / wait))
        print(
            f"  server CPU per request {alone:.3f} -> {followed:.3f} ms, median time {wait:.2f} -> {wait_then:.2f} ms"
        )
    cpu, waited = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"  median ratio: CPU {cpu:.3f}, time {waited:.3f}")


if __name__ == "__main__":
    asyncio.run(main())
