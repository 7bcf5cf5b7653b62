"""An event loop in a thread of its own, for threads that wait for what it does.

An interrupt, such as Ctrl-C, may come between any two bytecodes of a thread that waits. So that thread takes no lock
that others need, and waits in C code only: `threading.Event`, `Future`, `Thread.start` and anyio's `BlockingPortal` are
Python code, and an interrupt can leave their locks held for ever.
"""

from __future__ import annotations

import _thread
import functools
import os
import threading
import warnings
from asyncio import AbstractEventLoop, CancelledError, TaskGroup, get_running_loop
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, ParamSpec, TypeVar, cast

import anyio
from attrs import frozen

from phygitals_async._loop.waited_calls import WaitedCall, closed, hand_on_notes, soon
from phygitals_async.errors import ClientClosed
from phygitals_async.observer import logger

P = ParamSpec("P")
T = TypeVar("T")


@frozen(eq=False)
class _Running:
    """The loop while it runs.

    Attributes:
        context: What the loop has set in its context.
        begin: Begins a call, in the loop's thread.
        stop: Lets the loop end once its calls have; from any thread.
    """

    loop: AbstractEventLoop
    thread: threading.Thread
    context: Context
    begin: Callable[[WaitedCall[Any]], object]
    stop: Callable[[], object]


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
        # For threads that no interrupt reaches.
        self._starting = threading.Lock()
        self._running: _Running | None = None
        self._is_over = False
        self._calls: set[WaitedCall[Any]] = set()

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one it belongs to, without its thread."""
        return self._process != os.getpid()

    def check_process(self) -> None:
        """Refuse to be used in a fork.

        Raises:
            RuntimeError: It belongs to another process.
        """
        if self.is_inherited:
            msg = f"what {self._name} began belongs to the process that made it, and this one is a fork of that"
            raise RuntimeError(msg)

    def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await a call in the loop, and return its result or raise its error.

        What interrupts the waiting, such as Ctrl-C, cancels the call, waits for its end, and is raised with the notes
        that the call leaves, or from the error that it ends in. A second interrupt does not wait. One that comes when
        the waiting is over, as the result is returned, knows nothing of it.

        Raises:
            ClientClosed: `close` was called before, or the loop was ended.
            RuntimeError: It is called from the loop's own thread, which would wait for itself, or in a fork.
        """
        self.check_process()
        self._check_thread()
        call = WaitedCall(functools.partial(function, *args, **kwargs), copy_context())
        try:
            self._calls.add(call)
            self._submit(call)
            call.wait()
        except BaseException as interrupt:  # Whatever interrupts this thread, the call must not go on unseen.
            call.cancel()
            call.wait()
            self._tell_of(call, interrupt)
            raise
        finally:
            self._calls.discard(call)
        return call.outcome()

    def close(self, last: Callable[[], Awaitable[object]]) -> None:
        """Await the last call, refuse further ones, and return when all calls and the loop have ended.

        Raises:
            RuntimeError: It is called from the loop's own thread, or in a fork.
        """
        with suppress(ClientClosed):
            self.call(last)
        self._is_over = True
        running = cast("_Running", self._running)
        running.stop()
        running.thread.join()

    def forget(self) -> None:
        """Let the loop end by itself: for the garbage collector, which runs in any thread, and at the very end."""
        if self._is_over or self.is_inherited:
            return
        # A loop that is only starting sees it.
        self._is_over = True
        if self._running is not None:
            self._running.stop()
            warnings.warn(f"{self._name} was never closed: use with, or close()", ResourceWarning, stacklevel=2)

    def _check_thread(self) -> None:
        if self._running is not None and self._running.thread is threading.current_thread():
            msg = f"{self._name} was called from its own event loop, which would wait for itself"
            raise RuntimeError(msg)

    def _submit(self, call: WaitedCall[Any]) -> None:
        if self._is_over:
            call.refuse(closed())
        elif self._running is None:
            _thread.start_new_thread(self._start, (call,))
        else:
            self._begin(self._running, call)

    def _start(self, call: WaitedCall[Any]) -> None:
        """Start the loop, unless another call has, and begin the call: in a thread that no interrupt reaches."""
        try:
            with self._starting:
                running = self._running or self._launch()
        except BaseException as error:  # noqa: BLE001 - it belongs to the thread that waits.
            call.refuse(error)
        else:
            self._begin(running, call)

    def _launch(self) -> _Running:
        ready: Future[_Running] = Future()
        thread = threading.Thread(target=self._run, args=(ready,), name="phygitals-async", daemon=True)
        try:
            thread.start()
        except BaseException:  # Whatever it raises: where the thread has started, the next call finds its loop.
            if thread.ident is not None:
                ready.result()
            raise
        return ready.result()

    def _begin(self, running: _Running, call: WaitedCall[Any]) -> None:
        # Such as which async library runs: a caller within trio has set that too.
        for variable, value in running.context.items():
            call.context.run(variable.set, value)
        if not soon(running.loop, running.begin, call):
            call.refuse(closed())

    def _run(self, ready: Future[_Running]) -> None:
        try:
            Context().run(anyio.run, self._serve, ready)
        except BaseException as error:  # noqa: BLE001 - who waits for the loop is told, or it was an end of programs.
            if not ready.done():
                ready.set_exception(error)
                return
            # Such as `SystemExit`: whoever reads the bulk run that it came from meets it there.
            logger.error("%s: its event loop was ended by %s", self._name, type(error).__name__)
        # Nothing else would: the loop has dropped what came too late, or was ended in the middle of its work.
        for call in tuple(self._calls):
            call.abandon()

    async def _serve(self, ready: Future[_Running]) -> None:
        stopped = anyio.Event()
        loop = get_running_loop()
        async with TaskGroup() as group:

            def begin(call: WaitedCall[Any]) -> None:
                if self._is_over:
                    call.refuse(closed())
                else:
                    group.create_task(call.run(), context=call.context)

            stop = functools.partial(soon, loop, stopped.set)
            self._running = _Running(loop, threading.current_thread(), copy_context(), begin, stop)
            ready.set_result(self._running)
            try:
                if not self._is_over:
                    await stopped.wait()
            finally:
                self._is_over = True
        await self._at_end()

    def _tell_of(self, call: WaitedCall[Any], interrupt: BaseException) -> None:
        """Let the interrupt tell what came of the call."""
        error, call.error = call.error, None
        if error is None:
            if told := self._tell(call.result):
                interrupt.add_note(f"the call had been answered by then: {told}")
        elif isinstance(error, CancelledError):
            hand_on_notes(error, interrupt)
        else:
            interrupt.__cause__ = error
