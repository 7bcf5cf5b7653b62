"""A sandbox for refreshes on workers that live in the test's own process, and the cluster of those."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import distributed

from phygitals_async import PhygitalsClient, Request, Response, Sandbox
from phygitals_async.refresh import Budget
from phygitals_transports import MemoryTransport
from support import ONCE, last_segment


class World:
    """A sandbox, and what its workers did.

    Attributes:
        sandbox: Who owns what.
        faults: What answers in its place, by user.
        asked: Whom the workers asked about.
        clients: Those that the workers made.
        waiting: How many lookups the gate has stopped.
        gate: Answers wait for it; open at first.
    """

    def __init__(self, users: int = 0) -> None:
        self.sandbox = Sandbox(seed=1)
        self.faults: dict[str, Response] = {}
        self.asked: list[str] = []
        self.clients: list[PhygitalsClient] = []
        self.waiting = 0
        self.gate = asyncio.Event()
        self.gate.set()
        for number in range(users):
            self.give(f"user_{number}")

    def give(self, user_id: str) -> None:
        """Give a user a card."""
        self.sandbox.add_item(user_id, name="Pikachu", buyback_price=Decimal("8.50"))

    async def answer(self, request: Request) -> Response:
        """Answer as the sandbox does, but for the users who are told to fail."""
        user_id = last_segment(request)
        self.asked.append(user_id)
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        return self.faults.get(user_id) or self.sandbox(request)

    async def until_waiting(self, lookups: int) -> None:
        """Wait until the gate has stopped so many lookups."""
        while self.waiting < lookups:  # noqa: ASYNC110 - it changes on the loop that waits here.
            await asyncio.sleep(0)


_worlds: list[World] = []


def new_world(users: int = 0) -> World:
    """Return a world that `client` makes clients of from now on."""
    _worlds[:] = [World(users)]
    return _worlds[0]


def client(rate: Budget | None = None) -> PhygitalsClient:
    """Return a client of the world, as workers make them."""
    transport = MemoryTransport(_worlds[0].answer, keep=0)
    made = PhygitalsClient(transport, api_key="sandbox-test", retry=ONCE, rate=rate)
    _worlds[0].clients.append(made)
    return made


def no_client() -> PhygitalsClient:
    """Fail, as a function with a bug does."""
    msg = "a bug of the caller's"
    raise KeyError(msg)


@asynccontextmanager
async def cluster(workers: int = 2, threads: int = 1) -> AsyncIterator[Any]:
    """Give a cluster whose workers live on this event loop, and see that a refresh left nothing on them."""
    dask: Any = distributed
    async with dask.LocalCluster(
        processes=False, asynchronous=True, n_workers=workers, threads_per_worker=threads, dashboard_address=":0"
    ) as started:
        yield started
        for worker in started.workers.values():
            assert not [name for name in worker.plugins if name.startswith("phygitals")]
            assert not worker.state.executing_count
