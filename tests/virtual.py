"""Event loops in virtual time: where nothing is ready, time jumps to the next timer, so hours take no time at all.

No test that runs in one depends on the speed of the machine. A test file takes its loops from here by a fixture of its
own: `anyio_backend = virtual_backend`.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

T = TypeVar("T")


class Stuck(Exception):
    """Everything waits, and there is no timer that would ever end it."""


class _Jumping(selectors.SelectSelector):
    """Waits for no file: it lets the time jump instead."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready, or jump."""
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "every task waits, and no timer is set"
            raise Stuck(msg)
        if not ready and timeout is not None and timeout > 0:
            self.time += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop of asyncio in virtual time.

    Attributes:
        timers: How many were set.
    """

    # Seconds that timers ring before their time.
    _early = 0.0

    def __init__(self) -> None:
        self._jumping = _Jumping()
        self.timers = 0
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the virtual time."""
        return self._jumping.time

    def pass_time(self, seconds: float) -> None:
        """Let time pass in the middle of something, as it does on a busy machine."""
        self._jumping.time += seconds

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Set a timer."""
        self.timers += 1
        # Set again and again until its time has come, it would never come.
        early = self._early if self.timers < 100 else 0.0
        return super().call_at(when - early, callback, *args, context=context)


class EarlyLoop(VirtualLoop):
    """One whose timers ring a millisecond early, as they do where the clock is coarse."""

    _early = 0.001


def backend_options(name: str) -> Mapping[str, Any]:
    """Return what to run anyio's backend of this name with."""
    if name == "asyncio":
        return {"loop_factory": VirtualLoop}
    return {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture(params=["asyncio", "trio"])
def virtual_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    """Run each anyio test of a file on both event loops, in virtual time."""
    return request.param, backend_options(request.param)


def run_virtually(main: Callable[[], Awaitable[T]], backend: str = "asyncio", *, seed: int = 0) -> T:
    """Run `main` in virtual time, with the random numbers of a seed."""
    random.seed(seed)
    return anyio.run(main, backend=backend, backend_options=dict(backend_options(backend)))


async def settle() -> None:
    """Let all other tasks go on until each waits for something that will not come by itself."""
    for _ in range(100):
        await anyio.lowlevel.checkpoint()


@contextmanager
def no_task_left() -> Iterator[None]:
    """Check that no task outlives the block."""
    before = {task.id for task in anyio.get_running_tasks()}
    yield
    assert {task.id for task in anyio.get_running_tasks()} == before
