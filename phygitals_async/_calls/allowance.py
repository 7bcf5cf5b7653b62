"""The moments at which requests may leave where several clients share a rate: a few at a time, reserved ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from typing import Final, Protocol, runtime_checkable

from phygitals_async._calls.lanes import Lane, Waiter
from phygitals_async.errors import StoreError

# Seconds before the last moment in hand at which more are reserved.
_AHEAD: Final = 0.1
# Seconds after which a moment that nobody could use is lost: used later, it would be one of a burst.
_STALE: Final = 0.5
# Late ones are used at twice the rate, but for so many seconds' worth at once.
_SLACK: Final = 0.01
# How many are reserved at a time, in seconds' worth: at least, and at most where a reservation takes long.
_LEAST: Final = 0.02
_MOST: Final = 0.1
# Seconds until the next try where the store fails.
_AFTER_FAILURE: Final = 0.25


@runtime_checkable
class SharedRate(Protocol):
    """A rate that clients share; a `Budget` of `phygitals_async.refresh` is one."""

    @property
    def interval(self) -> float:
        """The seconds from one request to the next."""
        ...

    async def reserve(self, count: int) -> float:
        """Reserve so many moments, `interval` apart, and return in how many seconds from now the first is.

        Raises:
            StoreError: What keeps them failed.
        """
        ...


class Allowance:
    """The moments that one client has in hand.

    It has no task of its own. One of those who wait, the last in line, is appointed to reserve the next for all; where
    it is cancelled or the store fails it, another is.

    Args:
        rate: Where they are reserved.
    """

    def __init__(self, rate: SharedRate) -> None:
        self._rate = rate
        self._moments: deque[float] = deque()
        self._appointed: Waiter | None = None
        self._wanted = 0
        # Seconds that the last reservation took, and until the first moment that the others had left, both from its
        # beginning.
        self._took = self._lead = 0.0
        self._not_before = self._spaced = -math.inf

    def first(self, now: float, default: float = math.inf) -> float:
        """Return when the first moment in hand may be used, by the loop's clock; `default` where there is none."""
        moments = self._moments
        while moments and moments[0] < now - _STALE:
            moments.popleft()
        return max(moments[0], self._spaced) if moments else default

    def take(self, now: float) -> None:
        """Use the first moment up. There may be none where a client is closed."""
        if self._moments:
            self._moments.popleft()
            self._spaced = max(self._spaced, now - _SLACK) + self._rate.interval / 2

    def look_ahead(self, moment: float, now: float, lanes: Collection[Lane]) -> float:
        """Have moments reserved if it is time for that, and return when to look again.

        Args:
            moment: When somebody could leave, were there moments enough; endless where nobody could.
            now: The time.
            lanes: Who waits.
        """
        if moment == math.inf:
            return math.inf
        first = self.first(now)
        wanted = sum(lane.ready(now, moment + _AHEAD) for lane in lanes) - len(self._moments)
        if self._appointed is None and wanted > 0:
            last = self._moments[-1] if self._moments else -math.inf
            reserves_at = max(moment - self._lead, last - _AHEAD, self._not_before)
            if reserves_at > now:
                return min(max(moment, first), reserves_at)
            self._wanted = wanted
            self._appointed = _last_in_line(lanes)
            self._appointed.woken.set()
        return max(moment, first)

    def is_left_by(self, waiter: Waiter) -> bool:
        """Whether it was for this one to reserve; then that is for another now."""
        if self._appointed is not waiter:
            return False
        self._appointed = None
        return True

    async def reserve(self, now: Callable[[], float]) -> None:
        """Reserve some of the moments that are wanted, so many that the next ones come before they are used up.

        Args:
            now: Reads the loop's clock.

        Raises:
            StoreError: The store failed.
        """
        interval, began = self._rate.interval, now()
        count = max(1, min(self._wanted, round(min(max(self._took, _LEAST), _MOST) / interval)))
        try:
            wait = await self._rate.reserve(count)
        except StoreError:
            self._not_before = now() + _AFTER_FAILURE
            raise
        answered = now()
        first, mine = answered + wait, self._moments[-1] + interval if self._moments else answered
        self._took = answered - began
        self._lead = min(self._took + max(first - max(mine, answered), 0.0), _AHEAD)
        self._moments.extend(first + nth * interval for nth in range(count))
        self._appointed = None


def _last_in_line(lanes: Collection[Lane]) -> Waiter:
    """Return who waits behind all others."""
    last = (next(reversed(queue)) for lane in lanes for queue in lane.waiting if queue)
    return max(last, key=lambda waiter: (waiter.priority, waiter.number))
