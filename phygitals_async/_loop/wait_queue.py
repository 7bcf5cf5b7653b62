"""Tasks that wait for something in the order they came."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from phygitals_async._loop.affinity import Event, event_class


class WaitQueue:
    """Wakes who waits, in the order they came; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._make: Callable[[], Event] | None = None
        # Whoever is cancelled leaves in constant time, wherever in the queue they are.
        self._waiting: OrderedDict[Event, None] = OrderedDict()

    def notify(self) -> bool:
        """Wake the first in the queue, and say whether there was one."""
        if not self._waiting:
            return False
        self._waiting.popitem(last=False)[0].set()
        return True

    def notify_all(self) -> None:
        """Wake everybody."""
        while self._waiting:
            self.notify()

    async def wait(self) -> None:
        """Wait to be woken. Where waking and cancellation meet, the next in the queue is woken instead."""
        if self._make is None:
            self._make = event_class()
        turn = self._make()
        self._waiting[turn] = None
        try:
            await turn.wait()
        except BaseException:  # Cancelled, in whatever way the event loop has: the queue must not lose a waking for it.
            if turn.is_set():
                self.notify()
            else:
                del self._waiting[turn]
            raise
