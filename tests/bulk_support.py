"""What the tests of bulk runs share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import anyio
import anyio.lowlevel

from phygitals_async import (
    FanOut,
    Outcome,
    PhygitalsClient,
    Progress,
    Sandbox,
)
from phygitals_transports import MemoryTransport


class Lookups:
    """A lookup for tests: it counts, waits at a gate while that is closed, and fails as told.

    `errors` maps a key to what its lookup raises; a key's lookup takes `steps` checkpoints.
    """

    def __init__(self, errors: dict[int, BaseException] | None = None, *, steps: int = 1) -> None:
        self.errors = errors or {}
        self.steps = steps
        self.started: list[int] = []
        self.ended: list[int] = []
        self.cancelled: list[int] = []
        self.finished: list[int] = []
        self.most = 0
        self.gates: dict[int, anyio.Event] = {}

    @property
    def running(self) -> int:
        """How many lookups are running now."""
        return len(self.started) - len(self.ended)

    def hold(self, *keys: int) -> None:
        """Let the lookups of `keys` wait until they are let go."""
        self.gates.update({key: anyio.Event() for key in keys})

    def let_go(self, key: int) -> None:
        """Let the lookup of `key` go on."""
        self.gates[key].set()

    async def __call__(self, key: int) -> str:
        """Look `key` up."""
        self.started.append(key)
        self.most = max(self.most, self.running)
        try:
            for _ in range(self.steps):
                await anyio.lowlevel.checkpoint()
            if key in self.gates:
                await self.gates[key].wait()
            if key in self.errors:
                raise self.errors[key]
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(key)
            raise
        finally:
            self.ended.append(key)
        self.finished.append(key)
        return f"value {key}"


class Keys:
    """Whole numbers from 0 on, counted as they are read; endless unless told where to end or to fail."""

    def __init__(self, stop: int | None = None, error: BaseException | None = None) -> None:
        self.read = 0
        self.reads_after_end = 0
        self._stop = stop
        self._error = error
        self._over = False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._over:
            self.reads_after_end += 1
        if self.read == 10_000:
            msg = "the source is read on and on"
            raise OverflowError(msg)
        if self.read == self._stop:
            self._over = True
            if self._error is not None:
                raise self._error
            raise StopIteration
        self.read += 1
        return self.read - 1


class AsyncKeys:
    """`Keys` behind a checkpoint; it refuses to be read twice at once, as an async generator does."""

    def __init__(self, stop: int | None = None, error: BaseException | None = None) -> None:
        self.keys = Keys(stop, error)
        self._reading = False

    @property
    def read(self) -> int:
        """How many keys were read."""
        return self.keys.read

    @property
    def reads_after_end(self) -> int:
        """How often it was read again after it had ended."""
        return self.keys.reads_after_end

    def __aiter__(self) -> AsyncIterator[int]:
        return self

    async def __anext__(self) -> int:
        assert not self._reading
        self._reading = True
        try:
            await anyio.lowlevel.checkpoint()
            for key in self.keys:
                return key
            raise StopAsyncIteration
        finally:
            self._reading = False


async def drain(run: FanOut[Any, Any]) -> list[Outcome[Any, Any]]:
    """Enter a run and return all its outcomes."""
    async with run as outcomes:
        return [outcome async for outcome in outcomes]


def counts(progress: Progress) -> tuple[int, int, int]:
    """Return what is found, failed and in flight."""
    return progress.found, progress.failed, progress.in_flight


def world(*user_ids: str) -> tuple[PhygitalsClient, MemoryTransport]:
    """Return a client of a sandbox where these users own a card each, and its transport."""
    sandbox = Sandbox(seed=1)
    for user_id in user_ids:
        sandbox.add_item(user_id, name=f"card of {user_id}", buyback_price=Decimal("8.50"))
    transport = MemoryTransport(sandbox)
    return PhygitalsClient(transport, api_key="sandbox-test"), transport
