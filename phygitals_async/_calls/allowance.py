"""The moments at which requests may leave where several clients share a rate: a few at a time, reserved ahead."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from phygitals_async.errors import StoreError

# Seconds before the last moment in hand, or before somebody could leave, at which more are reserved.
AHEAD: Final = 0.1
# Seconds after which a moment that nobody could use is lost: used later, it would be one of a burst.
_STALE: Final = 0.5
# How many are reserved at a time, in seconds' worth: at least, and at most where a reservation takes long.
_LEAST: Final = 0.02
_MOST: Final = 0.1
# Seconds until the next try where the store fails.
_AFTER_FAILURE: Final = 0.25


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
    """The moments that one client has in hand. It has no task of its own: who waits for a moment reserves.

    Args:
        rate: Where they are reserved.

    Attributes:
        count: How many there are; those that are stale go when `due` is asked for.
    """

    def __init__(self, rate: SharedRate) -> None:
        self._rate = rate
        self._moments: deque[float] = deque()
        self._took = 0.0
        self._not_before = -math.inf

    @property
    def count(self) -> int:
        """How many there are; those that are lost go when `due` is asked for."""
        return len(self._moments)

    def due(self, now: float) -> float:
        """Return the first moment, in seconds of the loop's clock; endless where there is none."""
        moments = self._moments
        while moments and moments[0] < now - _STALE:
            moments.popleft()
        return moments[0] if moments else math.inf

    def take(self) -> None:
        """Use the first moment up, if there is one."""
        if self._moments:
            self._moments.popleft()

    def reserves_at(self, wanted: float) -> float:
        """Return when to reserve more, for somebody who could leave at the time `wanted` behind those in hand."""
        last = self._moments[-1] if self._moments else -math.inf
        return max(max(wanted, last) - AHEAD, self._not_before)

    async def reserve(self, most: int, now: Callable[[], float]) -> None:
        """Reserve some moments, `most` or fewer: so many that the next reservation ends before they are used up.

        Args:
            most: For so many there is a use.
            now: Reads the loop's clock.

        Raises:
            StoreError: There are none to be had for the moment.
        """
        interval, began = self._rate.interval, now()
        count = max(1, min(most, round(min(max(self._took, _LEAST), _MOST) / interval)))
        try:
            wait = await self._rate.reserve(count)
        except StoreError:
            self._not_before = now() + _AFTER_FAILURE
            raise
        answered = now()
        self._took = answered - began
        self._moments.extend(answered + wait + nth * interval for nth in range(count))
