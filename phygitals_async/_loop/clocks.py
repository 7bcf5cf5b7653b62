"""Where the time of a client comes from: the event loop, unless a test moves it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Final, ParamSpec, Protocol, TypeVar

import anyio

from phygitals_async._loop.deadlines import Deadlines
from phygitals_async._loop.loops import Loop, running_loop

P = ParamSpec("P")
T = TypeVar("T")


class Bounds(Protocol):
    """What bounds awaits: see `Deadlines`."""

    async def within(self, seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call, cancelling it after `seconds`."""
        ...

    def stop(self) -> None:
        """Stop the timer, unless something is still awaited."""
        ...


class Clock(Protocol):
    """All ways to ask for the time and to wait for it."""

    def now(self) -> float:
        """Return the time, in seconds."""
        ...

    def loop(self) -> Loop:
        """Return the event loop that runs, with this clock's time."""
        ...

    def deadlines(self) -> Bounds:
        """Return what bounds awaits in the event loop that runs."""
        ...

    def pausing(self, seconds: float, /) -> AbstractContextManager[object]:
        """Return a context that is left after `seconds`, in which a pause is waited for."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Pause."""
        ...


class RealClock:
    """The clock of the event loop."""

    now = staticmethod(anyio.current_time)
    loop = staticmethod(running_loop)
    deadlines = Deadlines
    pausing = staticmethod(anyio.move_on_after)
    sleep = staticmethod(anyio.sleep)


REAL_CLOCK: Final[Clock] = RealClock()
