"""Who may send now: at most so many requests in flight, at the pace the server bears."""

from __future__ import annotations

from collections import deque

import anyio

from phygitals_async.pacing import Pacer


class Admission:
    """Admits the requests of one client, in the order they came.

    Args:
        limit: The most requests in flight.
    """

    def __init__(self, limit: int) -> None:
        self.in_flight = 0
        self.pacer = Pacer()
        self._limit = limit
        self._waiting: deque[anyio.Event] = deque()
        self._idle: anyio.Event | None = None
        self._turn = anyio.Lock()

    def enter_at_once(self, now: float) -> bool:
        """Enter if that takes no waiting, and say whether it did. Whoever entered must `leave`."""
        if self.in_flight >= self._limit or (self.pacer.rate is not None and not self._take_slot(now)):
            return False
        self.in_flight += 1
        return True

    async def enter(self) -> None:
        """Wait for a place and for the moment to send. Whoever entered must `leave`."""
        if self.in_flight >= self._limit:
            await self._queue()
        else:
            self.in_flight += 1
        if self.pacer.rate is not None:
            try:
                await self._wait_for_slot()
            except BaseException:  # Cancellation above all: the place must not be lost with the call.
                self.leave()
                raise

    def leave(self) -> None:
        """Give the place to the next in line."""
        if self._waiting:
            # The place is handed over without becoming free: nobody can slip in between.
            self._waiting.popleft().set()
            return
        self.in_flight -= 1
        if not self.in_flight and self._idle is not None:
            self._idle.set()
            self._idle = None

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in flight."""
        if self.in_flight:
            self._idle = self._idle or anyio.Event()
            await self._idle.wait()

    async def _queue(self) -> None:
        turn = anyio.Event()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:  # Cancelled in line: a place handed over meanwhile goes to the next.
            if turn.is_set():
                self.leave()
            else:
                self._waiting.remove(turn)
            raise

    def _take_slot(self, now: float) -> bool:
        """Take the present moment to send, unless others wait for it."""
        return not self._turn.locked() and self.pacer.take_if_free(now)

    async def _wait_for_slot(self) -> None:
        # One at a time waits for the next moment: whoever else comes, and any new pause, stays behind it.
        async with self._turn:
            now = anyio.current_time()
            while not self.pacer.take_if_free(now):
                await anyio.sleep(self.pacer.due(now) - now)
                now = anyio.current_time()
