"""An event loop in a thread of its own, for threads that wait for what it does."""

from __future__ import annotations

import functools
import os
import threading
import warnings
from asyncio import AbstractEventLoop, CancelledError, get_running_loop
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Generic, ParamSpec, TypeVar, cast

import anyio
from anyio.from_thread import BlockingPortal
from attrs import define, field, frozen

from phygitals_async.errors import ClientClosed, Sent
from phygitals_async.observer import logger

P = ParamSpec("P")
T = TypeVar("T")


@frozen(eq=False)
class _Running:
    """The loop while it runs."""

    portal: BlockingPortal
    loop: AbstractEventLoop
    thread: threading.Thread
    stop: Callable[[], object]


@define(eq=False)
class _Call(Generic[T]):
    """Something awaited in the loop, for a thread that waits for `done`."""

    work: Callable[[], Awaitable[T]]
    done: threading.Event = field(factory=threading.Event)
    result: T | None = None
    error: BaseException | None = None
    _scope: anyio.CancelScope | None = None
    _is_cancelled: bool = False

    async def run(self) -> None:
        if self._is_cancelled:
            return
        with anyio.CancelScope() as self._scope:
            try:
                self.result = await self.work()
            except BaseException as error:  # Whatever it is, it belongs to the thread that waits.
                self.error = error
                if isinstance(error, anyio.get_cancelled_exc_class()):
                    raise
            finally:
                self.done.set()

    def cancel(self) -> None:
        """Cancel it, in the loop's thread: where it has not begun, it never will."""
        self._is_cancelled = True
        if self._scope is None:
            self.done.set()
        else:
            self._scope.cancel()

    def outcome(self) -> T:
        """Return the result, or raise the error."""
        error, self.error = self.error, None
        if error is None:
            return self.result  # type: ignore[return-value]
        if not isinstance(error, CancelledError):
            raise error
        ended = ClientClosed("the event loop of the client was ended while the call was under way")
        ended.sent = Sent.UNKNOWN
        _hand_on_notes(error, ended)
        raise ended


class Background:
    """Starts on the first call, ends with `close`; any number of threads may call at once.

    Each call is a task in the loop, in a copy of the calling thread's context. It belongs to one process: make another
    one after a fork.

    Args:
        name: What it belongs to, for messages.
        at_end: Is awaited in the loop when it ends.
        tell: Says of a result that an interrupt makes the caller miss what is worth telling; or an empty string.
    """

    def __init__(self, name: str, at_end: Callable[[], Awaitable[object]], tell: Callable[[object], str]) -> None:
        self._name = name
        self._at_end = at_end
        self._tell = tell
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ready: Future[_Running] | None = None
        self._is_over = False
        self._calls: set[_Call[Any]] = set()

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call in the loop, and return its result or raise its error.

        What interrupts the waiting, such as Ctrl-C, cancels the call, waits for its end, and is raised with the notes
        that the call leaves, or from the error that it ends in. A second interrupt does not wait.

        Raises:
            ClientClosed: `close` was called before.
            RuntimeError: It is called from the loop's own thread, which would wait for itself.
        """
        call = _Call(functools.partial(function, *args, **kwargs))
        running = self._start()
        try:
            with self._lock:
                self._check_open()
                self._calls.add(call)
            running.portal.start_task_soon(call.run)
            call.done.wait()
        except BaseException as interrupt:
            if call not in self._calls:
                raise
            running.loop.call_soon_threadsafe(call.cancel)
            call.done.wait()
            self._tell_of(call, interrupt)
            raise
        finally:
            self._calls.discard(call)
        return call.outcome()

    def close(self, last: Callable[[], Awaitable[object]]) -> None:
        """Await the last call, refuse further ones, and return when all calls and the loop have ended.

        Raises:
            RuntimeError: It is called from the loop's own thread.
        """
        with suppress(ClientClosed):
            self.call(last)
        with self._lock:
            self._is_over = True
            calls = tuple(self._calls)
        for call in calls:
            call.done.wait()
        running = cast("_Running", self._if_running())
        running.stop()
        running.thread.join()

    def forget(self) -> None:
        """Let the loop end by itself: for the garbage collector, which runs in any thread, and at the very end."""
        running = self._if_running()
        if self._is_over or running is None or self._process != os.getpid():
            return
        self._is_over = True
        running.stop()
        warnings.warn(f"{self._name} was never closed: use with, or close()", ResourceWarning, stacklevel=2)

    def _start(self) -> _Running:
        with self._lock:
            self._check_open()
            if self._ready is None or (self._ready.done() and self._if_running() is None):
                ready: Future[_Running] = Future()
                threading.Thread(target=self._run, args=(ready,), name="phygitals-async", daemon=True).start()
                self._ready = ready
        running = self._ready.result()
        if running.thread is threading.current_thread():
            msg = f"{self._name} was called from its own event loop, which would wait for itself"
            raise RuntimeError(msg)
        return running

    def _check_open(self) -> None:
        if self._is_over:
            msg = "the client was closed"
            raise ClientClosed(msg)

    def _run(self, ready: Future[_Running]) -> None:
        try:
            anyio.run(self._serve, ready)
        except BaseException as error:  # noqa: BLE001 - who waits for the loop is told, or it was an end of programs.
            self._note_crash(ready, error)

    def _note_crash(self, ready: Future[_Running], error: BaseException) -> None:
        if not ready.done():
            ready.set_exception(error)
            return
        # Such as `SystemExit`: whoever reads the bulk run that it came from meets it there.
        self._is_over = True
        logger.error("%s: its event loop was ended by %s", self._name, type(error).__name__)

    async def _serve(self, ready: Future[_Running]) -> None:
        stopped = anyio.Event()
        loop = get_running_loop()

        def stop() -> None:
            with suppress(RuntimeError):  # It has ended.
                loop.call_soon_threadsafe(stopped.set)

        async with BlockingPortal() as portal:
            ready.set_result(_Running(portal, loop, threading.current_thread(), stop))
            await stopped.wait()
        await self._at_end()

    def _tell_of(self, call: _Call[Any], interrupt: BaseException) -> None:
        """Let the interrupt tell what came of the call."""
        error, call.error = call.error, None
        if error is None:
            if told := self._tell(call.result):
                interrupt.add_note(f"the call had been answered by then: {told}")
        elif isinstance(error, CancelledError):
            _hand_on_notes(error, interrupt)
        else:
            interrupt.__cause__ = error

    def _if_running(self) -> _Running | None:
        ready = self._ready
        return None if ready is None or not ready.done() or ready.exception() is not None else ready.result()


def _hand_on_notes(error: BaseException, to: BaseException) -> None:
    for note in getattr(error, "__notes__", ()):
        to.add_note(note)
