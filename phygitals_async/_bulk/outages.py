"""Telling an outage from keys that fail by themselves. Nothing here waits, reads a clock or looks anything up.

A lookup that fails in a way that may pass is set aside as a suspect until something shows whose fault it was. An answer
to a lookup that started later shows that the server was up: then the key failed by itself, unless several failed in a
row, which get another try. Very many failures in a row are an outage: the run pauses, and all are tried again after it.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Final, Generic, TypeVar

from attrs import define

from phygitals_async._api.operation import Effect
from phygitals_async._calls.verdicts import judge
from phygitals_async.errors import OutcomeUnknown, PhygitalsError, Sent

K = TypeVar("K")

# So many failures in a row, with no answer in between, are an outage.
_OUTAGE: Final = 10
# So many may have been a short one.
_HICCUP: Final = 3
_MOST_TRIES: Final = 2
# Seconds between two probes: at first, and at most; in between, a share of how long the outage has lasted.
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_SHARE: Final = 0.3


@define(eq=False)
class Suspect(Generic[K]):
    """A key whose lookup failed, nobody knows yet by whose fault.

    Attributes:
        key: The key.
        tries: How often it failed, other than by a limit, since the last outage that was one.
        since: When it first failed, in seconds; None for a key that never did.
        error: How it failed last.
        seen: The number of the last lookup that had started by then.
    """

    key: K
    tries: int = 0
    since: float | None = None
    error: PhygitalsError | None = None
    seen: int = 0


class Outages(Generic[K]):
    """Keeps the suspects of one run, and says when there is an outage.

    Args:
        patience: The most seconds that one outage may last, and that one key is tried again.

    Attributes:
        suspects: At most so many as lookups in flight, and some.
        ongoing: Whether there is an outage.
    """

    def __init__(self, patience: float) -> None:
        self.suspects: deque[Suspect[K]] = deque()
        self.ongoing = False
        self._patience = patience
        self._in_a_row = 0
        self._began = 0.0
        self._not_before = 0.0
        self._in_vain = False

    @property
    def may_be_hiccup(self) -> bool:
        """Whether so many failed in a row that it is worth finding out whether the server is up."""
        return self._in_a_row >= _HICCUP

    def is_hopeless(self, suspect: Suspect[K], now: float) -> bool:
        """Whether a key has failed for longer than patience lasts."""
        return suspect.since is not None and now - suspect.since >= self._patience

    def failed(self, suspect: Suspect[K], now: float, asked: float | None, *, is_limit: bool) -> None:
        """Set a key aside.

        Args:
            suspect: The key, and how it failed.
            now: The time, in seconds.
            asked: Seconds that the server wants to be left alone, if it said so.
            is_limit: Whether it failed by a limit that asked for a longer pause than a call makes.
        """
        self.suspects.append(suspect)
        suspect.since = now if suspect.since is None else suspect.since
        if asked is not None:
            self._not_before = max(self._not_before, now + asked)
        if is_limit:
            self.begin(now)
            return
        suspect.tries += 1
        self._in_a_row += 1
        if self._in_a_row >= _OUTAGE:
            self.begin(now)

    def begin(self, now: float) -> None:
        """Take what happens for an outage, if it was not before."""
        if not self.ongoing:
            self.ongoing, self._began, self._in_vain = True, now, False

    def probed_in_vain(self) -> None:
        """Note that the outage is real: a lookup that was to show whether it is over failed too."""
        self._in_vain = True

    def pause(self, now: float) -> float | None:
        """Return the seconds until the next probe, or None where patience is at its end."""
        left = self._began + self._patience - now
        asked = self._not_before - now
        if left <= 0 or asked > left:
            return None
        if not self._in_vain and asked <= 0:
            # Keys that fail by themselves may come in a row too: it costs one lookup to find out.
            return 0.0
        grown = min(max(_FIRST_PAUSE, _SHARE * (now - self._began)), _LONGEST_PAUSE)
        jittered = grown * random.uniform(0.8, 1.2)  # noqa: S311 - no secret.
        return max(asked, min(jittered, left))

    def answered(self, number: int) -> tuple[list[Suspect[K]], list[Suspect[K]]]:
        """Take an answer to the lookup of this number, and return who is to be tried again, and who failed."""
        older = [suspect for suspect in self.suspects if suspect.seen < number]
        if self.suspects and not older:
            # It started before they failed, and shows nothing.
            return [], []
        if self.ongoing and self._in_vain:
            # It was the server's fault, of those too who have to wait for a later answer.
            for suspect in self.suspects:
                suspect.tries = 0
        self.suspects = deque(suspect for suspect in self.suspects if suspect.seen >= number)
        again_at_most = _MOST_TRIES if self.ongoing or self.may_be_hiccup else 1
        self.ongoing, self._in_a_row = False, 0
        # What the server asked for was for that key alone, or is over.
        self._not_before = 0.0
        again: list[Suspect[K]] = []
        failed: list[Suspect[K]] = []
        for suspect in older:
            (again if suspect.tries < again_at_most else failed).append(suspect)
        return again, failed

    def take_all(self) -> list[Suspect[K]]:
        """Return every suspect, and keep none. That shows nothing of the server: what is in a row goes on."""
        suspects, self.suspects = list(self.suspects), deque()
        self.ongoing = False
        return suspects


def shows_it_is_up(error: PhygitalsError | None) -> bool:
    """Whether a lookup that ended so shows that the server is up."""
    if error is None:
        return True
    if error.sent is not Sent.YES or isinstance(error, OutcomeUnknown):
        return False
    return not judge(error, Effect.READS).may_pass
