"""How fast a client may send, learnt from the server's refusals. Nothing here waits or reads a clock.

Until the first 429 there is no pace. Then every call pauses, and afterwards requests leave evenly spaced, at a
rate that grows with each answer and is cut at each further 429. Between two 429s the server's own limit shows:
what it accepted, over the time that took, is at most its rate, and the rate asked for was too high.
"""

from __future__ import annotations

import math
from typing import Final

# How much each answer adds to the rate, in requests per second: while the limit is sought, and once it is known.
_SEEKING: Final = 0.7
_KNOWN: Final = 0.03
_BELOW: Final = 0.97
_SLOWEST: Final = 0.5
# A burst answered faster than this says nothing of a rate.
_SHORTEST_MEASURE: Final = 0.25
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0


class Pacer:
    """Spaces the requests of one client. All times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._ceiling = math.inf
        self._next = 0.0
        self.resumes = 0.0
        self._throttled_at: float | None = None
        self._measured_from: float | None = None
        self._accepted = 0
        self._streak = 0

    def due(self, now: float) -> float:
        """Return the next free moment to send, `now` or later."""
        return max(now, self._next, self.resumes)

    def take_if_free(self, now: float) -> bool:
        """Take the present moment to send, if it is free, and say whether it was."""
        free = self.due(now) <= now
        if free and self.rate is not None:
            self._next = now + 1 / self.rate
        return free

    def accepted(self, now: float) -> None:
        """Count an answer that was no 429."""
        self._accepted += 1
        self._streak = 0
        if self._measured_from is None:
            self._measured_from = now
        if self.rate is not None:
            self.rate += _SEEKING if self.rate < self._ceiling else _KNOWN

    def throttled(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Pause and slow down after a 429; return whether it is news, and not of the burst already reacted to.

        Args:
            now: When the 429 came.
            sent_at: When its request was sent.
            retry_after: Seconds the server asked for, if it did.
        """
        if self._throttled_at is not None and sent_at <= self._throttled_at:
            if retry_after is not None:
                self.resumes = max(self.resumes, now + retry_after)
            return False
        start = now if self._measured_from is None else self._measured_from
        if self.rate is None:
            new = self._accepted / max(now - start, _SHORTEST_MEASURE)
        else:
            measured = self._accepted / max(now - start, 1e-3)
            # A pause longer than it takes to fill the server's bucket makes the measure too low.
            close = measured >= 0.7 * self.rate
            new = measured if close else math.sqrt(max(measured, 0.05 * self.rate) * self.rate)
            if self._accepted:
                self._ceiling = new
        self.rate = max(new * _BELOW, _SLOWEST)
        pause = min(_FIRST_PAUSE * 2**self._streak, _LONGEST_PAUSE) if retry_after is None else retry_after
        self._streak += 1
        self.resumes = self._next = max(self.resumes, now + pause)
        self._throttled_at = self._measured_from = now
        self._accepted = 0
        return True
