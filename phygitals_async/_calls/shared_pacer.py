"""The pace of an operation where a rate that clients share spaces its requests already."""

from __future__ import annotations

from typing import Final

from phygitals_async._calls.ledger import Ledger
from phygitals_async._calls.pacer import Pacer

# So many 429s in a row are strays, with no more than so many accepted requests from one to the next.
_MOST_STRAYS: Final = 3
_IN_A_ROW: Final = 20


class SharedPacer(Pacer):
    """Learns no pace from a few stray 429s, and only pauses.

    Requests that are a little late meet those of other clients, and what the server refuses then says nothing of this
    client's share. Where it goes on refusing, the shared rate is too fast, and the pace is learnt as usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self._strays = 0
        self._since = 0

    def due(self, now: float) -> float:
        """Return when the next request may leave."""
        return max(super().due(now), self.resumes)

    def accepted(self, now: float, sent_at: float) -> None:
        """Count an answer that was no 429."""
        super().accepted(now, sent_at)
        self._since += 1
        if self._since >= _IN_A_ROW:
            self._strays = 0

    def throttled(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Pause after a 429, and return whether it is news."""
        if self.rate is not None or sent_at <= self._reacted_at or self._strays >= _MOST_STRAYS:
            return super().throttled(now, sent_at, retry_after)
        self._strays += 1
        self._since = 0
        self._ledger = Ledger()
        self._pause(now, retry_after)
        return True
