"""Timers and tasks of their own, on asyncio and trio alike."""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, Protocol

import anyio

from phygitals_async._loop.affinity import current_task


class Loop(Protocol):
    """The event loop that runs."""

    def now(self) -> float:
        """Return the loop's time, in seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], object]:
        """Call a function at some time of the loop's, and return what cancels that."""
        ...

    def spawn(
        self, work: Callable[[], Awaitable[None]], context: Context, ended: Callable[[], None]
    ) -> Callable[[], object]:
        """Start a task that is nobody's child, and return what cancels it; call `ended` once it is over.

        No scope of the task that runs now reaches into it. Whoever starts it owns it, and sees to its end; it must
        raise nothing but its cancellation, and what is to end the program once it has told its owner.
        """
        ...


def running_loop() -> Loop:
    """Return the loop that runs now."""
    task = current_task()
    return _Trio() if task is None else _Asyncio(task.get_loop())


class _Asyncio:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time
        self._loop = loop

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], object]:
        return self._loop.call_at(when, callback).cancel

    def spawn(
        self, work: Callable[[], Awaitable[None]], context: Context, ended: Callable[[], None]
    ) -> Callable[[], object]:
        # A scope, for cancelling the task itself would break into what a lookup shields.
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await work()

        task = self._loop.create_task(run(), context=context)

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                # Who spawned it knows of it: asyncio need not say that nobody asked for it.
                task.exception()
            ended()

        # A loop that ends cancels tasks also before their first step: none of their own code runs then.
        task.add_done_callback(done)
        # The loop alone does not keep a task alive.
        return functools.partial(_cancel, scope, task)


def _cancel(scope: anyio.CancelScope, _: object) -> None:
    scope.cancel()


class _Trio:
    def __init__(self) -> None:
        # Imported already: it is what runs.
        self._trio: Any = sys.modules["trio"]
        self.now = self._trio.current_time

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], object]:
        async def wait() -> None:
            await self._trio.sleep_until(when)
            callback()

        return self.spawn(wait, Context(), lambda: None)

    def spawn(
        self, work: Callable[[], Awaitable[None]], context: Context, ended: Callable[[], None]
    ) -> Callable[[], object]:
        scope = anyio.CancelScope()

        async def run() -> None:
            try:
                with scope:
                    await work()
            except (KeyboardInterrupt, SystemExit):
                # Trio would take it for an error of its own, and say nothing else. The owner was told.
                pass
            finally:
                ended()

        self._trio.lowlevel.spawn_system_task(run, context=context)
        return scope.cancel
