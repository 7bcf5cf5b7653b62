"""How fast one operation's requests may leave, learnt from the server's 429s. Nothing here waits or reads a clock.

Until the first 429 there is no pace, only a window of bulk requests in flight that grows with each answer. The first
429 shows how many requests the server takes at once (its bucket), but not how many a second (its rate). So after the
pause the pacer seeks: it starts slow and speeds up quickly until the next 429. The requests accepted until then fit
only one rate: the one at which the first burst and the ramp need the same bucket. This is exact for token buckets,
however much of the time the bucket was full.

From then on the rate is known. It starts a little below what was measured, stays there, and then grows ever faster,
like TCP CUBIC: probes are gentle and rare, and a limit that rose is found within a minute. Each further 429 measures
again. One that contradicts what is known (a stray one, or a limit that dropped) slows down only a little, until a
second one confirms it. What a 429 says is worked out when its pause is over, when all answers of its burst are in.
"""

from __future__ import annotations

import enum
import math
from typing import Final

from phygitals_async._calls.ledger import Ledger

# Bulk requests in flight at the start: few enough for any server, and doubled with each round trip.
_FIRST_WINDOW: Final = 4
# Pauses if the server names none, in seconds: even a slow bucket has a token after the second or third.
_FIRST_PAUSE: Final = 0.2
_PAUSE_FACTOR: Final = 4.0
_LONGEST_PAUSE: Final = 5.0
# Requests a second while nothing at all is known, and the least there are until a limit of, say, 10 a minute is known.
_FIRST_RATE: Final = 1.0
_SLOWEST: Final = 0.5
_SLOWEST_MEASURED: Final = 0.1
# Whoever wakes up late catches up this much, in seconds, less one interval: slow servers have small buckets.
_SLACK: Final = 0.05
# A burst shorter than this (seconds) says nothing of a rate; one that took longer than a second does.
_SHORT: Final = 0.25
_LONG: Final = 1.0
# The ramp begins with so many buckets a second, as most buckets hold a second's requests or less. Time constants in
# seconds, and the most that one answer adds: steep enough to cost little, flat enough to measure at its end.
_SEEK_BUCKETS: Final = 3.0
_SEEK_TIME: Final = 0.2
_SEEK_STEP: Final = 1.5
# A rate in doubt grows slowly, and by a thousandth per answer, which outgrows the cuts that 1 % stray 429s cause.
_PROBE_TIME: Final = 5.0
_PROBE_STEP: Final = 1.1
_PROBE_ANSWER: Final = 1.001
# A known rate starts at this share, doubles after so many seconds (fewer, if the measure is old or rough), and no
# sooner than so many requests: each probe costs a 429. Past `_RISEN` the limit has evidently risen.
_PLATEAU: Final = 0.99
_DOUBLES_AFTER: Final = 100.0
_ROUGH_DOUBLES_AFTER: Final = 30.0
_DOUBLES_AFTER_REQUESTS: Final = 300.0
_RISEN: Final = 1.1
# Seconds after which a bucket counts as full again, and after which the limit may be another one.
_IDLE: Final = 1.0
_LONG_IDLE: Final = 60.0
# Fewer accepted requests than this measure nothing well.
_ENOUGH: Final = 8
# A 429 in doubt costs its share of the answers, but at most so much; a measure this close to the rate raises no doubt.
_MOST_CUT: Final = 0.3
_NO_DOUBT: Final = 0.97
# Two measures agree if they differ by no more than this, which is what counting a few dozen requests can make them.
_SAME: Final = 0.06


class _Phase(enum.Enum):
    SEEKING = enum.auto()
    PROBING = enum.auto()
    KNOWN = enum.auto()


class Pacer:
    """Spaces the requests of one operation. All times are seconds of one monotonic clock.

    Attributes:
        window: How many bulk requests may be in flight.
        resumes: When the last pause ends or ended.
        is_measured: Whether the rate rests on requests that the server accepted between two 429s.
    """

    def __init__(self) -> None:
        self.window: float = _FIRST_WINDOW
        self.resumes = 0.0
        self.is_measured = False
        self._phase = _Phase.SEEKING
        self._rate = math.inf
        self._base = 0.0  # The rate when the last pause was over.
        self._doubles_after = _ROUGH_DOUBLES_AFTER
        self._busy = 0.0
        self._bucket = 0.0  # Unknown.
        self._credit = 0  # Requests that may leave at once, as the bucket filled up meanwhile.
        self._next = 0.0
        self._last_take = self._last_accepted = -math.inf
        self._is_held_back = True  # Whether the pace is what limits the client.
        self._reacted_at = -math.inf
        self._own_pause = _FIRST_PAUSE
        self._ledger = Ledger()
        self._first_burst = self._ended = Ledger()  # The stretches before the first 429, and before the last.
        self._is_burst_open = False  # Whether there was a 429 that nothing has been learnt from yet.
        self._emptied_at: float | None = None
        self._refused_at = 0.0
        self._last_measure = 0.0

    @property
    def rate(self) -> float | None:
        """How many requests a second may leave now, or None while no limit is known."""
        return None if self._rate == math.inf else self._rate

    def due(self, now: float) -> float:
        """Return when the next request may leave; that is `now` or earlier if it may at once."""
        if self._rate == math.inf:
            return now
        return max(self.spacing_due(now), self.resumes)

    def spacing_due(self, now: float) -> float:
        """Return the same, but as if there was no pause."""
        self._learn(now)
        return now if self._credit else self._next

    def take(self, now: float) -> None:
        """Note that a request leaves."""
        if self._rate == math.inf:
            if now - self._last_take > _IDLE:
                self._ledger = Ledger()
            self._last_take = now
            return
        self._learn(now)
        interval = 1 / self._rate
        idle = now - max(self._last_take, self.resumes)
        if idle > max(_IDLE, 4 * interval):
            self._start_afresh(now, idle)
        self._last_take = now
        if self._credit:
            self._credit -= 1
        else:
            slack = max(_SLACK - interval, 0.0)
            self._is_held_back = now - self._next < 0.8 * max(slack, interval)
            self._next = max(self._next, now - slack) + interval

    def accepted(self, now: float, sent_at: float) -> None:
        """Count an answer, which came at `now`, that was no 429."""
        self._own_pause = _FIRST_PAUSE
        if sent_at <= self._reacted_at:
            if self._is_burst_open:
                self._ended.add(sent_at)
            return
        self._ledger.add(sent_at)
        if self._rate == math.inf:
            self.window += 1
            return
        passed = max(sent_at - self._last_accepted, 0.0)
        self._last_accepted = sent_at
        if self._is_held_back:
            self._rate = self._grown(self._rate, passed)

    def throttled(self, now: float, sent_at: float, retry_after: float | None) -> bool:
        """Pause after a 429; return whether it is news, and not of the burst already reacted to.

        Args:
            now: When the 429 came.
            sent_at: When its request was sent.
            retry_after: Seconds the server asked for, if it did.
        """
        if sent_at <= self._reacted_at:
            if retry_after is not None:
                self.resumes = max(self.resumes, now + retry_after)
            return False
        self._learn(math.inf)
        if self._rate == math.inf:
            self._rate, self.window = _FIRST_RATE, math.inf
            self._first_burst = self._ledger
        self._pause(now, retry_after)
        self._credit = 0
        self._ended, self._ledger = self._ledger, Ledger()
        self._refused_at, self._is_burst_open = sent_at, True
        return True

    def _pause(self, now: float, retry_after: float | None) -> None:
        pause = self._own_pause if retry_after is None else max(retry_after, _FIRST_PAUSE)
        self.resumes = max(self.resumes, now + pause)
        self._own_pause = min(self._own_pause * _PAUSE_FACTOR, _LONGEST_PAUSE)
        self._reacted_at = now

    def _start_afresh(self, now: float, idle: float) -> None:
        """Begin a new stretch after a time in which nothing was sent: the bucket is full again."""
        self._ledger = Ledger()
        self._emptied_at = None
        self._next = now
        self._credit = self._spare(self._bucket)
        if idle > _LONG_IDLE:
            self._doubles_after, self._busy = _ROUGH_DOUBLES_AFTER, 0.0

    def _spare(self, tokens: float) -> int:
        # Half of what the bucket should hold, less one, may leave at once: it may hold less.
        return max(int(tokens / 2 - 1), 0)

    def _grown(self, rate: float, passed: float) -> float:
        """Return the rate after one more accepted answer, to a request sent `passed` seconds after the one before."""
        if self._phase is _Phase.SEEKING:
            return rate * min(math.exp(min(passed / _SEEK_TIME, 1.0)), _SEEK_STEP)
        if self._phase is _Phase.PROBING:
            return rate * min(math.exp(min(passed / _PROBE_TIME, 1.0)) * _PROBE_ANSWER, _PROBE_STEP)
        self._busy += min(passed, 2 / rate)
        if rate > _RISEN * self._base:
            self._phase = _Phase.PROBING
        return self._base * (_PLATEAU + (self._busy / self._doubles_after) ** 3)

    def _learn(self, now: float) -> None:
        """Learn from the last 429, once its pause is over."""
        if not self._is_burst_open or now < self.resumes:
            return
        self._is_burst_open = False
        if self._ended is self._first_burst:
            self._begin(self._ended)
        elif self._ended.count:
            self._measure(self._ended)
        else:
            self._rate = max(self._rate / 2, _SLOWEST)
            self._phase, self.is_measured = _Phase.SEEKING, False
        self._emptied_at = self._refused_at
        # The first answer after a pause counts as a long time, and adds the most that one may.
        self._base, self._busy, self._last_accepted = self._rate, 0.0, -math.inf
        self._next = max(self.resumes, self._reacted_at + 1 / self._rate)

    def _begin(self, burst: Ledger) -> None:
        """Learn from the first 429."""
        if not burst.count:
            return
        took = max(self._refused_at - min(burst.marks), 0.0)
        if took >= _LONG and burst.since(self._refused_at - _LONG) <= 1.5 * burst.count / took:
            # A steady stream, faster than it could have been without a limit near its rate.
            self._rate, self._phase = max(burst.count / took, _SLOWEST), _Phase.KNOWN
        else:
            self._rate = max(_SEEK_BUCKETS * burst.bucket(burst.count / (took + _SHORT))[0], _FIRST_RATE)

    def _measure(self, stretch: Ledger) -> None:
        """Learn from what was accepted between two 429s."""
        count = stretch.count
        # Whatever the bucket, it was empty at both 429s: so many came in meanwhile, or more if it was full in between.
        least = 0.0 if self._emptied_at is None else count / (self._refused_at - self._emptied_at)
        measured = max(self._fit(stretch, least, max(self._rate, least)), _SLOWEST_MEASURED)
        if self._emptied_at is None and count <= self._bucket:
            # The bucket was full and let them all in, which says nothing of the rate.
            self._rate, self._phase = max(self._rate / 2, _SLOWEST), _Phase.PROBING
            return
        # How many requests the measure rests on: all, if they cannot have found the bucket full.
        rests_on = count if count <= self._bucket else stretch.bucket(measured)[1] - self._bucket
        is_same = abs(measured - self._last_measure) <= measured * _SAME
        self._last_measure = measured
        in_doubt = self._rate_in_doubt(count)
        if measured < _NO_DOUBT * in_doubt and not is_same:
            self._rate, self._phase = in_doubt, _Phase.PROBING
        elif rests_on >= _ENOUGH or is_same:
            self._rate, self._phase, self.is_measured = measured, _Phase.KNOWN, True
            self._doubles_after = max(_DOUBLES_AFTER, _DOUBLES_AFTER_REQUESTS / measured)
        else:
            self._rate, self._phase = max(measured * (1 - 0.5 / (rests_on + 1)), _SLOWEST), _Phase.PROBING
        self._credit = self._spare(min(self._bucket, self._rate * (self.resumes - self._refused_at)))

    def _fit(self, stretch: Ledger, low: float, high: float) -> float:
        """Return the lowest rate at which the known bucket, or the one of the first burst, suffices for a stretch."""
        for _ in range(16):  # Halvings: far finer than any measure.
            middle = (low + high) / 2
            bucket = self._bucket or self._first_burst.bucket(middle)[0]
            low, high = (middle, high) if stretch.bucket(middle)[0] > bucket else (low, middle)
        self._bucket = self._bucket or self._first_burst.bucket(low)[0]
        return low

    def _rate_in_doubt(self, count: int) -> float:
        """Return what to go down to if the last 429 contradicts what is known."""
        if self._phase is _Phase.SEEKING:
            # Every measure is better than none, unless all that was accepted may have been in the bucket.
            return 0.0 if self._emptied_at is not None else self._rate / 2
        return min(self._rate, _RISEN * self._base) * (1 - min(1 / count, _MOST_CUT))
