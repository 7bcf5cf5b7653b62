"""Pauses that take no time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Final, ParamSpec, Self, TypeVar

import anyio
import anyio.lowlevel
from attrs import define

from phygitals_async._loop.affinity import Affinity
from phygitals_async._loop.loops import Loop, running_loop
from phygitals_async.errors import DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")

# Seconds in which other tasks may begin something before a pause is skipped.
_QUIET: Final = 0.001


@define(eq=False)
class _Timer:
    when: float
    callback: Callable[[], None]
    cancel: Callable[[], object]


class Skipping:
    """The event loop's clock, ahead of it by what was skipped: a `Clock`, and its `Loop` and `Bounds`.

    A pause is skipped when nothing is under way that the time may be needed for. Deadlines are no reason to skip, but
    one that comes before the end of the pause passes first.
    """

    def __init__(self) -> None:
        self.ahead = 0.0
        self._affinity = Affinity("this clock")
        self._loop: Loop
        self._scopes: set[anyio.CancelScope] = set()
        self._timers: set[_Timer] = set()
        self._pauses: set[object] = set()
        self._under_way: set[int] = set()
        self._stop_looking: Callable[[], object] | None = None

    def now(self) -> float:
        """Return the time, in seconds."""
        self.loop()
        return self._affinity.now() + self.ahead

    def loop(self) -> Self:
        """Tie this to the event loop that runs.

        Raises:
            ConfigurationError: It is in use by another event loop.
        """
        if self._affinity.must_start_afresh():
            # What is left of the former loop will never come.
            self._loop, self._stop_looking = running_loop(), None
            for left in (self._scopes, self._timers, self._pauses, self._under_way):
                left.clear()
        return self

    deadlines = loop

    def skip(self, seconds: float) -> None:
        """Move the time ahead, with whatever waits for it."""
        self.ahead += seconds
        for scope in self._scopes:
            scope.deadline -= seconds
        for timer in self._timers:
            timer.cancel()
            self._arm(timer)

    def call_at(self, when: float, callback: Callable[[], None]) -> Callable[[], object]:
        """Call a function at some time, which is waited for as a pause, and return what cancels that."""
        timer = _Timer(when, callback, _nothing)

        def end() -> None:
            timer.cancel()
            self._timers.discard(timer)
            self._resume(timer)

        def ring() -> None:
            end()
            callback()

        timer.callback = ring
        self._timers.add(timer)
        self._arm(timer)
        self._pause(timer)
        return end

    def spawn(
        self, work: Callable[[], Awaitable[None]], context: Context, ended: Callable[[], None]
    ) -> Callable[[], object]:
        """Start a task: see `Loop`."""
        return self._loop.spawn(work, context, ended)

    async def within(self, seconds: float, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call, cancelling it after `seconds`.

        Raises:
            DeadlineExceeded: The time was up first.
        """
        with self._scope(seconds):
            return await call(*args, **kwargs)
        raise DeadlineExceeded.after(seconds)

    def stop(self) -> None:
        """Do nothing: each await stops its own timer."""

    @contextmanager
    def pausing(self, seconds: float) -> Iterator[None]:
        """Wait for a pause in this block; it is left after `seconds`, or once they are skipped."""
        self.loop()
        with self._scope(seconds) as scope:
            self._pause(scope)
            try:
                yield
            finally:
                self._resume(scope)

    async def sleep(self, seconds: float) -> None:
        """Pause, also within a request that is under way, such as in the handler of a `MemoryTransport`."""
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        with self._noted(under_way=False), self.pausing(seconds):
            await anyio.sleep_forever()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Skip nothing while this task is in this block."""
        with self._noted(under_way=True):
            yield

    @contextmanager
    def _noted(self, *, under_way: bool) -> Iterator[None]:
        self.loop()
        task = anyio.get_current_task().id
        before = task in self._under_way
        self._note(task, under_way=under_way)
        try:
            yield
        finally:
            self._note(task, under_way=before)

    def _note(self, task: int, *, under_way: bool) -> None:
        (self._under_way.add if under_way else self._under_way.discard)(task)
        self._look_soon()

    @contextmanager
    def _scope(self, seconds: float) -> Iterator[anyio.CancelScope]:
        with anyio.move_on_after(seconds) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)
                self._look_soon()

    def _arm(self, timer: _Timer) -> None:
        timer.cancel = self._loop.call_at(timer.when - self.ahead, timer.callback)

    def _pause(self, who: object) -> None:
        self._pauses.add(who)
        self._look_soon()

    def _resume(self, who: object) -> None:
        self._pauses.discard(who)
        self._look_soon()

    def _look_soon(self) -> None:
        """Skip in a moment, or no more where there is no pause."""
        if self._stop_looking is not None:
            self._stop_looking()
            self._stop_looking = None
        if self._pauses and not self._under_way:
            self._stop_looking = self._loop.call_at(self._affinity.now() + _QUIET, self._look)

    def _look(self) -> None:
        """Skip to whatever comes first, the end of a pause or a deadline."""
        self._stop_looking = None
        ends = [scope.deadline for scope in self._scopes] + [timer.when - self.ahead for timer in self._timers]
        self.skip(max(0.0, min(ends) - self._affinity.now()))


def _nothing() -> None:
    """Cancel a timer that is not set yet."""
