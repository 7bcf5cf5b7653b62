"""The tasks of a bulk run: started, cancelled and waited for by the run alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import Context, ContextVar
from typing import Final

import anyio
import anyio.lowlevel

from phygitals_async._loop.loops import Loop
from phygitals_async._loop.wait_queue import WaitQueue
from phygitals_async._loop.waiting import wait_out
from phygitals_async.observer import logger

# In whose work a piece of code runs.
_within: Final[ContextVar[tuple[Tasks, ...]]] = ContextVar("within", default=())


class Tasks:
    """Tasks that are nobody's children: no scope of the task that starts or ends them reaches into them.

    Args:
        loop: The loop that runs.
        ended: Is called at the end of each task.

    Attributes:
        stopping: Whether they are to come to their end.
        crash: What ended one of them before `stop`, a cancellation included; the others are cancelled because of it.
        bugs: What they raised that is no cancellation.
    """

    def __init__(self, loop: Loop, ended: Callable[[], None]) -> None:
        self.stopping = False
        self.crash: BaseException | None = None
        self.bugs: list[BaseException] = []
        self._loop = loop
        self._ended = ended
        self._cancel: dict[object, Callable[[], object]] = {}
        self._all_ended = WaitQueue()

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._cancel)

    def start(self, work: Callable[[], Awaitable[None]], context: Context) -> None:
        """Start a task in a context."""
        token = object()

        async def guarded() -> None:
            try:
                await work()
            except BaseException as crash:  # Cancellation too ends a run, and must not pass for its end.
                self._note_crash(crash)
                if isinstance(crash, (anyio.get_cancelled_exc_class(), KeyboardInterrupt, SystemExit)):
                    raise

        def ended() -> None:
            del self._cancel[token]
            self._ended()
            if not self._cancel:
                self._all_ended.notify_all()

        self._cancel[token] = self._loop.spawn(guarded, context, ended)

    def mark(self, context: Context) -> None:
        """Mark a context as one that these tasks work in."""
        context.run(_within.set, (*_within.get(), self))

    async def stop(self) -> None:
        """Cancel them, and wait for their end, whatever is done to the task that waits, unless it is one of them."""
        self.stopping = True
        for cancel in list(self._cancel.values()):
            cancel()
        if self in _within.get():
            await anyio.lowlevel.checkpoint()
            return
        await wait_out(self._end)

    async def _end(self) -> None:
        while self._cancel:
            await self._all_ended.wait()

    def _note_crash(self, crash: BaseException) -> None:
        if not isinstance(crash, anyio.get_cancelled_exc_class()):
            self.bugs.append(crash)
            logger.error("a bulk run failed with %s, which is raised where it is read or left", type(crash).__name__)
        # Only the first ended the run: the others are the run being cancelled because of it, or being left.
        if not self.stopping:
            self.stopping, self.crash = True, crash
            for cancel in list(self._cancel.values()):
                cancel()
