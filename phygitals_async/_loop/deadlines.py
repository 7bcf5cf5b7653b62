"""One bound in seconds on everything a call does."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import anyio
import anyio.lowlevel
from attrs import define

from phygitals_async._loop.affinity import current_task
from phygitals_async.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")


@define(eq=False, repr=False)
class _Watch:
    """An await with an end."""

    task: asyncio.Task[Any]
    ends: float
    expired: bool = False


class Deadlines:
    """Bounds awaits in the event loop it is made in.

    On asyncio, one timer serves all of them. What `asyncio.timeout` does for each would be a tenth of what a call
    costs, and a bulk run would pay it for every key.
    """

    def __init__(self) -> None:
        self._watches: set[_Watch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings = math.inf

    async def within(self, seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call, cancelling it after `seconds`.

        Raises:
            DeadlineExceeded: The time was up first.
        """
        task = current_task()
        if task is None:
            with anyio.move_on_after(seconds):
                return await call(*args, **kwargs)
            raise DeadlineExceeded.after(seconds)
        cancelled_before = task.cancelling()
        loop = task.get_loop()
        watch = _Watch(task, loop.time() + seconds)
        self._watches.add(watch)
        if watch.ends < self._rings:
            self._set_timer(loop, watch.ends)
        try:
            return await call(*args, **kwargs)
        except asyncio.CancelledError:
            if not watch.expired:
                raise
            if task.cancelling() - 1 > cancelled_before:
                # An anyio scope around the call ended in the same turn, and this cancellation overwrote its message:
                # let anyio cancel again, or it would take the cancellation for somebody else's.
                await anyio.lowlevel.checkpoint_if_cancelled()
                raise
        finally:
            self._forget(watch)
        raise DeadlineExceeded.after(seconds)

    def stop(self) -> None:
        """Stop the timer, unless something is still awaited."""
        if self._timer is not None and not self._watches:
            self._timer.cancel()
            self._timer, self._rings = None, math.inf

    def _forget(self, watch: _Watch) -> None:
        self._watches.discard(watch)
        if watch.expired:
            watch.task.uncancel()

    def _set_timer(self, loop: asyncio.AbstractEventLoop, rings: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings = loop.call_at(rings, self._ring, loop), rings

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        # A timer may ring a little early.
        now = max(loop.time(), self._rings)
        self._timer, self._rings = None, math.inf
        for watch in self._watches:
            if watch.expired:
                continue
            if watch.ends <= now:
                watch.expired = True
                watch.task.cancel()
            elif watch.ends < self._rings:
                self._rings = watch.ends
        if self._rings < math.inf:
            self._set_timer(loop, self._rings)
