"""Who may send now: at most so many requests in flight, at the pace the server bears."""

from __future__ import annotations

import anyio

from phygitals_async._calls.pacer import Pacer
from phygitals_async._loop.wait_queue import Line


class Admission:
    """Admits the requests of one client, in the order they came.

    Args:
        limit: The most requests in flight.

    Attributes:
        in_flight: How many there are.
        pacer: How fast they may leave.
        asked_too_long: Whether the server has asked for a longer pause than anybody waits for.
    """

    def __init__(self, limit: int) -> None:
        self.in_flight = 0
        self.asked_too_long = False
        self.pacer = Pacer()
        self._limit = limit
        self._line = Line()
        self._idle = Line()
        self._turn = anyio.Lock()
        self._closing = anyio.Event()

    def close(self) -> None:
        """Let everybody who waits in at once, to find the client closed and `leave`."""
        self._closing.set()
        while self._line.notify():
            self.in_flight += 1

    async def rest(self, seconds: float) -> None:
        """Wait for some time, but no longer than until `close`."""
        with anyio.move_on_after(seconds):
            await self._closing.wait()

    def enter_at_once(self, now: float) -> bool:
        """Enter if that takes no waiting, and say whether it did. Whoever entered must `leave`."""
        if self.in_flight >= self._limit or (self.pacer.rate is not None and not self._take_slot(now)):
            return False
        self.in_flight += 1
        return True

    async def enter(self) -> None:
        """Wait for a place and for the moment to send. Whoever entered must `leave`."""
        if self.in_flight >= self._limit:
            # A place that is handed over to a call which is cancelled meanwhile goes to the next.
            await self._line.wait(give_back=self.leave)
        else:
            self.in_flight += 1
        if self.pacer.rate is not None:
            try:
                await self._wait_for_slot()
            except BaseException:  # Cancelled, in whatever way the event loop has: the place must not go with the call.
                self.leave()
                raise

    def leave(self) -> None:
        """Give the place to the next in line."""
        # It is handed over without becoming free: nobody can slip in between.
        if self._line.notify():
            return
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.notify_all()

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in flight."""
        if self.in_flight:
            await self._idle.wait()

    def _take_slot(self, now: float) -> bool:
        """Take the present moment to send, unless others wait for it."""
        return not self._turn.locked() and self.pacer.take_if_free(now)

    async def _wait_for_slot(self) -> None:
        # One at a time waits for the next moment: whoever else comes, and any new pause, stays behind it.
        async with self._turn:
            now = anyio.current_time()
            while not self._closing.is_set() and not self.pacer.take_if_free(now):
                await self.rest(self.pacer.due(now) - now)
                now = anyio.current_time()
