"""Calls in an event loop, as the threads that wait for them see them."""

from __future__ import annotations

import functools
import threading
from asyncio import AbstractEventLoop, CancelledError, get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

import anyio
from attrs import define, field

from phygitals_async.errors import ClientClosed, Sent

T = TypeVar("T")

# Seconds.
_LOOK_UP: Final = 0.1


def _held_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@define(eq=False)
class WaitedCall(Generic[T]):
    """Something awaited in the loop, for the one thread that waits for it.

    Attributes:
        work: What is awaited.
        context: What it is awaited in.
        result: What came of it.
        error: What it ended in instead.
    """

    work: Callable[[], Awaitable[T]]
    context: Context
    result: T | None = None
    error: BaseException | None = None
    _is_done: bool = False
    # Released once it is done.
    _wakes: threading.Lock = field(factory=_held_lock)
    # Taken by whoever begins it, or sees to it that nobody does.
    _beginning: threading.Lock = field(factory=threading.Lock)
    _stop: Callable[[], object] = lambda: None

    async def run(self) -> None:
        """Await it, in the loop, unless it was cancelled or refused."""
        scope = anyio.CancelScope()
        self._stop = functools.partial(soon, get_running_loop(), scope.cancel)
        if not self._claim():
            return
        with scope:
            try:
                self.result = await self.work()
            except BaseException as error:  # Whatever it is, it belongs to the thread that waits.
                self.error = error
                if isinstance(error, anyio.get_cancelled_exc_class()):
                    raise
            finally:
                self._end()

    def wait(self) -> None:
        """Wait for its end. An interrupt of that can be followed by another wait."""
        # A signal does not end a wait that is just about to begin, nor any on Windows: it is seen in between.
        while not self._is_done:
            self._wakes.acquire(timeout=_LOOK_UP)

    def cancel(self) -> None:
        """Cancel it, from the thread that waits: where it has not begun, it never will."""
        if self._claim():
            self._end()
        else:
            self._stop()

    def refuse(self, error: BaseException) -> None:
        """Let it end in an error, from any thread, unless it has begun."""
        if self._claim():
            self.error = error
            self._end()

    def abandon(self) -> None:
        """End it, once the loop has ended that was to do so."""
        self.refuse(closed())
        if not self._is_done:
            self.error = _ended_under_way()
            self._end()

    def outcome(self) -> T:
        """Return the result, or raise the error."""
        error, self.error = self.error, None
        if error is None:
            return self.result  # type: ignore[return-value]  # Without an error there is one.
        if not isinstance(error, CancelledError):
            raise error
        ended = _ended_under_way()
        hand_on_notes(error, ended)
        raise ended

    def _claim(self) -> bool:
        return self._beginning.acquire(blocking=False)

    def _end(self) -> None:
        self._is_done = True
        with suppress(RuntimeError):  # It was ended before.
            self._wakes.release()


def soon(loop: AbstractEventLoop, function: Callable[..., object], *args: Any) -> bool:
    """Have it called in the loop's thread, from any; return whether the loop was still open."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        if loop.is_closed():
            return False
        raise
    return True


def closed() -> ClientClosed:
    """Return the error of a call that was not begun."""
    return ClientClosed("the client was closed")


def _ended_under_way() -> ClientClosed:
    ended = ClientClosed("the event loop of the client was ended while the call was under way")
    ended.sent = Sent.UNKNOWN
    return ended


def hand_on_notes(error: BaseException, to: BaseException) -> None:
    """Give an exception the notes of another one."""
    for note in getattr(error, "__notes__", ()):
        to.add_note(note)
