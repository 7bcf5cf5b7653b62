"""What the pacer remembers of the requests that the server accepted."""

from __future__ import annotations

import math


class Ledger:
    """When the accepted requests of one stretch were sent: each of them or, if they are many, each second or fourth."""

    _MOST = 128  # A measure is then good to 1 %, and takes a fraction of a millisecond.

    def __init__(self) -> None:
        self.count = 0
        self.marks: list[float] = []
        self._stride = 1

    def add(self, sent_at: float) -> None:
        if self.count % self._stride == 0:
            self.marks.append(sent_at)
            if len(self.marks) > self._MOST:
                del self.marks[1::2]
                self._stride *= 2
        self.count += 1

    def since(self, moment: float) -> int:
        """Return how many of the requests were sent after a moment, roughly."""
        return sum(sent_at > moment for sent_at in self.marks) * self._stride

    def bucket(self, rate: float) -> tuple[float, int]:
        """Return the smallest bucket that would have let these requests in at this rate, and how many emptied it."""
        most, emptied_by, low, full_at = 1.0, 1, math.inf, 0
        for number, sent_at in enumerate(sorted(self.marks)):
            level = number * self._stride - rate * sent_at
            if level < low:
                low, full_at = level, number
            if level - low + 1 > most:
                most, emptied_by = level - low + 1, (number - full_at) * self._stride + 1
        return most, emptied_by
