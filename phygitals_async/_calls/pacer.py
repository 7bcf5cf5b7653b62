from __future__ import annotations

import math
from collections import deque

SLOWEST = 0.5
DOUBLING = 0.1
ANSWERS = 5
PLATEAU = 0.99
HORIZON = 100.0
FIRST_PAUSE = 0.1
LONGEST = 5.0
SLACK = 0.03
ENOUGH = 4
STALE = 60.0
REMEMBERED = 2048
PER_BUCKET = 10.0
GENTLE = 1.0


class Pacer:
    def __init__(self):
        self.window = 4.0
        self._base = None
        self._known = False
        self._burst = 0
        self._burst_seconds = 0.0
        self._first = 0.0
        self._bursting = True
        self._next = -math.inf
        self.resumes = -math.inf
        self._streak = 0
        self._reacted = None
        self._paused = 0.0
        self._answers = 0
        self._last = -math.inf
        self._busy = 0.0
        self._doubling = DOUBLING
        self._left = deque(maxlen=REMEMBERED)
        self.is_measured = False

    @property
    def is_limited(self):
        return self._base is not None

    @property
    def rate(self):
        base = self._base
        if base is None:
            return None
        if self._known:
            return base * (PLATEAU + (self._busy / min(HORIZON, 30 + 4 * base)) ** 3)
        doublings = min(self._busy / self._doubling, self._answers / ANSWERS, 60)
        knee = max(0.0, math.log2(max(self._burst * PER_BUCKET, 1e-9) / base))
        if doublings > knee:
            # past the rate whose bucket this would be: gently
            reached = knee * self._doubling
            doublings = min(doublings, knee + (self._busy - reached) / GENTLE)
        return base * 2**doublings

    def due(self, now):
        return max(now, self._next, self.resumes) if self._base is not None else now

    def spacing_due(self, now):
        return max(now, self._next)

    def take(self, now):
        if self._base is None:
            if now - self._last > 1.0:
                self._first = now
                self._burst = 0
            self._last = now
            return
        self._bursting = False
        interval = 1 / self.rate
        idle = now - max(self._last, self.resumes)
        if idle > max(1.0, 5 * interval):
            self._left.clear()
            self._paused = math.inf
            if idle > STALE and self._known:
                self._known = False
                self._busy = 0
                self._answers = 0
                self._doubling = 2.0
        else:
            self._busy += max(0.0, idle)
        self._last = now
        self._left.append(now)
        self._next = max(self._next, now - min(SLACK, interval)) + interval

    def accepted(self, sent_at):
        self._streak = 0
        if self._base is None:
            self.window += 1
            self._burst += 1
        elif sent_at >= self.resumes:
            self._answers += 1
        elif self._bursting:
            self._burst += 1
            self._burst_seconds = max(self._burst_seconds, sent_at - self._first)

    def throttled(self, now, sent_at, retry_after):
        if self._reacted is not None and sent_at <= self._reacted:
            if retry_after is not None:
                self._pause_until(now + retry_after)
            return False
        self._learn(sent_at)
        self.window = math.inf
        pause = min(FIRST_PAUSE * 2**self._streak, LONGEST) if retry_after is None else retry_after
        self._streak += 1
        self._busy = 0.0
        self._answers = 0
        self._reacted = now
        self._left.clear()
        self._next = -math.inf
        self._pause_until(now + max(pause, 1 / self.rate))
        return True

    def _pause_until(self, resumes):
        self.resumes = max(self.resumes, resumes)
        self._next = max(self._next, self.resumes)
        self._paused = self.resumes - self._reacted

    def _learn(self, sent_at):
        if self._base is None:
            self._burst_seconds = sent_at - self._first
            self._base = max(self._burst / max(self._burst_seconds, 1.0), 2 * SLOWEST)
            return
        rate = self.rate
        measured = self._measure(sent_at)
        if measured is not None and measured >= rate / 8:
            self._base = max(measured, SLOWEST)
            self._known = self.is_measured = True
        else:
            self._base = max(measured or 0.0, rate / 2, SLOWEST)
            self._known = False
            self._doubling *= 2

    def _measure(self, sent_at):
        left = [t for t in self._left if t < sent_at]
        n = len(left)
        if n < ENOUGH:
            return None
        best = n / (sent_at - self.resumes + self._paused)
        for i, t in enumerate(left):
            seconds = sent_at - t - self._burst_seconds
            if seconds < 0.1:
                break
            best = max(best, (n - i - self._burst + 0.5) / seconds)
        return min(best, self.rate)
