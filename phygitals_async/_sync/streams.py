"""A bulk run for a thread that reads its outcomes."""

from __future__ import annotations

import enum
import threading
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import anyio

from phygitals_async._bulk import fan_out
from phygitals_async._bulk.keys import END, End, Skipped, Source
from phygitals_async._bulk.outcomes import Outcome
from phygitals_async._loop.background import Background
from phygitals_async.errors import ClientClosed, InvalidArgumentError
from phygitals_async.progress import Progress

K = TypeVar("K")
V = TypeVar("V")


class _Wanted(enum.Enum):
    """What a step of a run gives where a key is needed before there can be an outcome."""

    WANTED = enum.auto()


_WANTED: Final = _Wanted.WANTED


class FanOut(Generic[K, V]):
    """A bulk run: a context manager that gives an iterator of outcomes, as they complete.

    The keys are read in the thread that reads the outcomes, while it waits for the next one: so what they come from, a
    cursor or a session, need not be made for several threads, and may use the client. Outcomes wait while a key is
    long in coming.

    It belongs to the process that made it: in a fork, reading it is refused, and leaving it does nothing.

    Attributes:
        progress: Counts of the run so far, readable from any thread.

    Raises:
        InvalidArgumentError: The keys are a single string, or no plain iterable.
    """

    def __init__(
        self,
        owner: object,
        background: Background,
        start: Callable[[AsyncIterable[K]], fan_out.FanOut[K, V]],
        keys: Iterable[K],
    ) -> None:
        self._source = Source(plain(keys), distinct=False)
        # As long as there is a run, the client is not forgotten.
        self._owner = owner
        self._background = background
        self._keys = _Keys(self._source)
        self._run = start(self._keys)
        self._entered = False
        self._lock = threading.RLock()
        self.progress: Progress = self._run.progress

    def __enter__(self) -> Self:
        self._background.call(self._run.__aenter__)
        self._entered = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._leave(self._run.__aexit__, exc_type, exc, tb)

    def close(self) -> None:
        """End the run, from any thread: cancel its lookups, and wait until they have ended. Again, it does nothing."""
        self._leave(self._run.aclose)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome[K, V]:
        # Before a lock that another thread may have held at the fork, and before a key is read.
        self._background.check_process()
        if not self._entered:
            msg = "enter the bulk run first: with ... as outcomes"
            raise RuntimeError(msg)
        with self._lock:
            while True:
                keys = (self._source.take(),) if self._keys.is_wanted else ()
                outcome = self._background.call(self._step, *keys)
                if outcome is END:
                    raise StopIteration
                if outcome is not _WANTED:
                    return outcome

    async def _step(self, *keys: K | End | Skipped) -> Outcome[K, V] | End | _Wanted:
        self._keys.give(keys)
        with anyio.CancelScope() as scope:
            self._keys.stop_waiting = scope.cancel
            if self._keys.is_wanted:
                scope.cancel()
            try:
                return await anext(self._run, END)
            finally:
                self._keys.stop_waiting = None
        return _WANTED

    def _leave(self, leave: Callable[..., Any], *about: object) -> None:
        if self._background.is_inherited:
            return
        try:
            # Where the client was closed, the run has ended with its loop.
            with suppress(ClientClosed):
                self._background.call(leave, *about)
        finally:
            with self._lock:
                self._source.close()


def plain(values: Iterable[K] | AsyncIterable[K]) -> Iterable[K]:
    """Return what a thread can read of `values`; a lazy query may be made for event loops too.

    Raises:
        InvalidArgumentError: Only an event loop can read them.
    """
    if not isinstance(values, Iterable):
        msg = f"the sync client reads plain iterables, not {type(values).__name__}: give it a list, or a generator"
        raise InvalidArgumentError(msg)
    return iter(values) if isinstance(values, AsyncIterable) else values


class _Keys(Generic[K]):
    """The keys as the run sees them, in the loop: it waits for each to be given.

    Attributes:
        is_wanted: Whether the run waits for one.
        stop_waiting: Ends the wait for an outcome, where somebody waits for one.
    """

    def __init__(self, source: Source[K]) -> None:
        self.is_wanted = False
        self.stop_waiting: Callable[[], object] | None = None
        self._source = source
        self._given: deque[K | End | Skipped] = deque()
        self._arrived: anyio.Event | None = None

    def give(self, keys: Iterable[K | End | Skipped]) -> None:
        """Give the run what was read for it."""
        self._given.extend(keys)
        if self._given and self._arrived is not None:
            self.is_wanted = False
            self._arrived.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> K:
        arrived = self._arrived = anyio.Event()
        self.is_wanted = True
        if self.stop_waiting is not None:
            self.stop_waiting()
        await arrived.wait()
        key = self._given.popleft()
        if key is END:
            self._source.raise_failure()
            raise StopAsyncIteration
        return key  # type: ignore[return-value]  # No key is skipped where all are wanted.
