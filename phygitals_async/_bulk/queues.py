"""What goes into a bulk run and what comes out of it: keys to look up, and outcomes to be taken. Both are bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Iterable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from phygitals_async._bulk.keys import END, SKIPPED, End, Skipped, Source
from phygitals_async._bulk.tasks import Tasks
from phygitals_async._loop.wait_queue import WaitQueue
from phygitals_async.errors import PhygitalsError

K = TypeVar("K")


class Queues(Generic[K]):
    """The two ends of a bulk run.

    Args:
        keys: The keys.
        limit: The most lookups in flight; at most twice as many keys are read and not taken as outcomes.
        distinct: Whether to leave a repeated key out.

    Attributes:
        outcomes: To be taken: a key, and what its lookup brought or failed with.
        keys: That were read from an async source, and are to be looked up.
        key_ready: Is notified of each of these.
        is_async: Whether the source is.
    """

    def __init__(self, keys: Iterable[K] | AsyncIterable[K], *, limit: int, distinct: bool) -> None:
        self.outcomes: deque[tuple[K, Any, PhygitalsError | None]] = deque()
        self.keys: deque[K] = deque()
        self.key_ready = WaitQueue()
        self._source = Source(keys, distinct=distinct)
        self.is_async = self._source.is_async
        self._limit = limit
        # As many may wait to be taken as are in flight: so a worker need not wait for its outcome to be taken.
        self._most_pending = 2 * limit
        self._pending = 0
        self._outcome_ready = WaitQueue()
        self._room = WaitQueue()

    @property
    def ended(self) -> bool:
        """Whether the source has."""
        return self._source.ended

    @property
    def is_full(self) -> bool:
        """Whether no further key may be taken until an outcome is."""
        return self._pending >= self._most_pending

    @property
    def may_read(self) -> bool:
        """Whether the next key of an async source may be read."""
        return not self.is_full and self._pending - len(self.outcomes) < self._limit

    def start(self, tasks: Tasks) -> None:
        """Read the source in a copy of the context that is current now."""
        self.context = copy_context()
        tasks.mark(self.context)

    def close(self) -> None:
        """Close a source that is a plain generator."""
        self.context.run(self._source.close)

    async def aclose(self) -> None:
        """Close a source that is an async generator, in the task that read it."""
        await self._source.aclose()

    def raise_source_failure(self) -> None:
        """Raise what reading the keys raised, once."""
        self._source.raise_failure()

    def wake_all(self) -> None:
        """Wake who waits for an outcome or a key."""
        self._outcome_ready.notify_all()
        self.key_ready.notify_all()

    def take_key(self) -> K | End | Skipped:
        """Take a key from a plain source; see `Source.take`."""
        key = self.context.run(self._source.take)
        if key is not END and key is not SKIPPED:
            self.reserve()
        return key

    async def read_key(self) -> bool:
        """Read a key from an async source, and say whether there was one."""
        key = await self._source.wait()
        if key is END:
            return False
        self.reserve()
        self.keys.append(key)
        return True

    def reserve(self) -> None:
        """Take room for an outcome."""
        self._pending += 1

    def release(self) -> None:
        """Give room for an outcome back."""
        self._pending -= 1
        self._room.notify()

    async def wait_for_room(self) -> None:
        """Wait until room is given back; who does not need it then calls `pass_room_on`."""
        await self._room.wait()

    def pass_room_on(self) -> None:
        """Wake the next who waits for room."""
        self._room.notify()

    def put(self, key: K, brought: Any, error: PhygitalsError | None) -> None:
        """Set an outcome out, in room that was reserved."""
        self.outcomes.append((key, brought, error))
        self._outcome_ready.notify_all()
        if self.is_async:
            # The next key may be read.
            self._room.notify()

    def take_outcome(self) -> tuple[K, Any, PhygitalsError | None]:
        """Take what is ready, and make room."""
        self.release()
        return self.outcomes.popleft()

    async def wait_for_outcome(self) -> None:
        """Wait until an outcome is ready, or all tasks have ended."""
        await self._outcome_ready.wait()
