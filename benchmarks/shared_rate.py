"""How near do several processes come to one limit of 200 requests/s, with a `Budget` and without?

python -m benchmarks.shared_rate [--store postgresql://...] [PROCESSES ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, frozen

from benchmarks.payloads import inventory
from phygitals_async import Attempt, Call, Found, Observer, PhygitalsClient
from phygitals_async.refresh import Budget, open_store

USERS = 4000
LIMIT = 64
PER_SECOND = 200.0
# The most that the server answers at once, and the seconds that a request may be under way, more or less.
BURST = 10.0
JITTER = 0.005


class _Limited(asyncio.Protocol):
    """Answers what a token bucket lets through, and 429 to the rest."""

    items = inventory(5).partition(b",")[2]
    tokens, filled = BURST, 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer a request, which comes in one piece, once it has been under way for a while."""
        user_id = data.split(b" ", 2)[1].rpartition(b"/")[2]
        asyncio.get_running_loop().call_later(random.uniform(0, JITTER), self._answer, user_id)

    def _answer(self, user_id: bytes) -> None:
        cls, now = _Limited, time.monotonic()
        cls.tokens, cls.filled = min(BURST, cls.tokens + (now - cls.filled) * PER_SECOND), now
        if cls.tokens < 1:
            self._send(b"429 Too Many Requests\r\nRetry-After: 1", b"{}")
            return
        cls.tokens -= 1
        self._send(b"200 OK", b'{"user_id":"%s",%s' % (user_id, self.items))

    def _send(self, head: bytes, body: bytes) -> None:
        lines = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        self._transport.write(lines % (head, len(body), body))


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Limited, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen([*_SELF, "serve"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


@define
class _Counter(Observer):
    refused: int = 0

    def attempted(self, call: Call, attempt: Attempt) -> None:
        self.refused += attempt.status == 429


async def _refresh(url: str, store: str, users: int) -> None:
    """Look users up when told to, and print when each was found and how many answers were 429."""
    counter = _Counter()
    async with AsyncExitStack() as stack:
        rate = Budget(await stack.enter_async_context(open_store(store)), PER_SECOND) if store else None
        api = PhygitalsClient(api_key="sandbox-bench", base_url=url, rate=rate, observer=counter)
        await stack.enter_async_context(api)
        print("ready", flush=True)
        sys.stdin.readline()
        outcomes = api.stream_inventories((f"user_{number}" for number in range(users)), limit=LIMIT)
        await stack.enter_async_context(outcomes)
        found = [time.time() async for outcome in outcomes if isinstance(outcome, Found)]
    assert len(found) == users
    print(json.dumps([found, counter.refused]), flush=True)


@frozen
class Shared:
    """What came of it.

    Attributes:
        rate: Users found per second, by all.
        refused: Share of the answers that were 429.
        least: What the slowest process had found when the first one had finished, of an equal share.
    """

    rate: float
    refused: float
    least: float


def share(processes: int, store: str) -> Shared:
    """Let processes look all users up at once, each as many."""
    users = USERS // processes
    with _server() as url:
        children = [
            subprocess.Popen(
                [*_SELF, "refresh", url, store, str(users)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(processes)
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        began = time.time()
        for child in children:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()
        told: list[Any] = [json.loads(child.communicate()[0]) for child in children]
    ended = max(found[-1] for found, _ in told)
    first = min(found[-1] for found, _ in told)
    refused = sum(count for _, count in told)
    least = min(sum(moment <= first for moment in found) for found, _ in told)
    return Shared(USERS / (ended - began), refused / (USERS + refused), least / users)


def main(arguments: list[str]) -> None:
    """Print how near to the limit they come."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("processes", type=int, nargs="*", default=[2, 4, 8])
    parser.add_argument("--store", default="", help="address of a store; by default files, a new one for each run")
    options = parser.parse_args(arguments)
    print(
        f"\n{USERS:,} users, limit {LIMIT} for each process, a server of {PER_SECOND:g} requests/s, {BURST:g} at once"
    )
    print(f"  {'':40}{'requests/s':>12}{'429s':>8}{'least share':>14}")
    runs = [(count, True) for count in options.processes] + [(options.processes[-1], False)]
    for count, is_shared in runs:
        with tempfile.TemporaryDirectory() as folder:
            place = options.store or str(Path(folder) / "store.db")
            found = share(count, place if is_shared else "")
        label = f"{count} processes, {'Budget' if is_shared else 'no Budget'}"
        print(f"  {label:40}{found.rate:12.1f}{found.refused:8.2%}{found.least:14.0%}", flush=True)


_SELF = (sys.executable, "-m", "benchmarks.shared_rate")

if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(_serve())
    elif sys.argv[1:2] == ["refresh"]:
        asyncio.run(_refresh(sys.argv[2], sys.argv[3], int(sys.argv[4])))
    else:
        main(sys.argv[1:])
