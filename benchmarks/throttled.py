"""How long does a refresh take against a server that answers 200 requests a second, and how many 429s does it meet?"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from attrs import define

from phygitals_async import Attempt, Call, Found, Observer, PhygitalsClient

USERS = 4000
LIMIT = 64
PER_SECOND = 200


@define
class Counter(Observer):
    """Counts answers."""

    answers: int = 0
    refused: int = 0

    def attempted(self, call: Call, attempt: Attempt) -> None:
        """Count it."""
        self.answers += 1
        self.refused += attempt.status == 429


@contextmanager
def limited_server(*, retry_after: bool) -> Iterator[str]:
    """Run the sandbox with a token bucket in front, giving its base URL."""
    command = [sys.executable, "-m", "phygitals_async.sandbox", "--port", "0", "--users", str(USERS)]
    command += ["--rate-limit", str(PER_SECOND), *([] if retry_after else ["--no-retry-after"])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout or ())
            url = next(lines).split()[-1]
            while not next(lines).startswith("ready"):
                pass
            yield url
        finally:
            process.terminate()


async def refresh(url: str) -> tuple[float, Counter]:
    """Refresh all users; return the seconds it took, and what was answered."""
    counter = Counter()
    ids = (f"user_{number:06d}" for number in range(USERS))
    start = time.perf_counter()
    async with (
        PhygitalsClient(api_key="sandbox-bench", base_url=url, observer=counter) as api,
        api.stream_inventories(ids, limit=LIMIT) as outcomes,
    ):
        found = sum([isinstance(outcome, Found) async for outcome in outcomes])
    assert found == USERS, f"only {found} of {USERS} users were answered"
    return time.perf_counter() - start, counter


async def usual(url: str) -> tuple[float, Counter]:
    """Refresh them the usual way: workers that each sleep after a 429, a second unless told."""
    counter = Counter()
    ids = iter(range(USERS))
    start = time.perf_counter()

    async def work(session: aiohttp.ClientSession) -> None:
        for n in ids:
            while True:
                async with session.get(f"{url}/api/v1/inventory/user_{n:06d}") as response:
                    await response.read()
                counter.answers += 1
                if response.status != 429:
                    break
                counter.refused += 1
                await asyncio.sleep(float(response.headers.get("Retry-After", "1")))

    async with (
        aiohttp.ClientSession(headers={"X-API-Key": "sandbox-bench"}) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(LIMIT):
            group.create_task(work(session))
    return time.perf_counter() - start, counter


def main() -> None:
    """Print how far from ideal each way is, with and without Retry-After."""
    # The bucket is full at the start: one second's worth is answered at once.
    ideal = (USERS - PER_SECOND) / PER_SECOND
    print(f"\n{USERS:,} users, limit {LIMIT}, a server of {PER_SECOND} requests/s")
    print(f"  {'':56}{'s':>7}{'it / ideal':>12}{'429s':>8}")
    print(f"  {'the rate itself':56}{ideal:7.1f}{1:12.2f}{0:8.1%}  <- the limit")
    for retry_after in (True, False):
        for name, run in (("stream_inventories", refresh), ("workers that sleep after a 429", usual)):
            with limited_server(retry_after=retry_after) as url:
                seconds, counter = asyncio.run(run(url))
            label = f"{name}, {'with' if retry_after else 'without'} Retry-After"
            refused = counter.refused / counter.answers
            print(f"  {label:56}{seconds:7.1f}{seconds / ideal:12.2f}{refused:8.1%}", flush=True)


if __name__ == "__main__":
    main()
