"""Tasks that wait in line for something."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from phygitals_async._loop.affinity import Event, event_class


class Line:
    """Wakes who waits, in the order they came; costs nothing while nobody does."""

    def __init__(self) -> None:
        self._make: Callable[[], Event] | None = None
        self._waiting: deque[Event] = deque()

    def notify(self) -> bool:
        """Wake the first in line, and say whether there was one."""
        if not self._waiting:
            return False
        self._waiting.popleft().set()
        return True

    def notify_all(self) -> None:
        """Wake everybody."""
        while self._waiting:
            self.notify()

    async def wait(self, give_back: Callable[[], object] | None = None) -> None:
        """Wait to be woken.

        Args:
            give_back: Is called where waking and cancellation met, and nothing will come of the waking; by default
                the next in line is woken instead.
        """
        if self._make is None:
            self._make = event_class()
        turn = self._make()
        self._waiting.append(turn)
        try:
            await turn.wait()
        except BaseException:  # Cancelled, in whatever way the event loop has: the line must not lose a waking for it.
            if turn.is_set():
                (give_back or self.notify)()
            else:
                self._waiting.remove(turn)
            raise
