"""Servers that answer 429, and a client that sends at a `Pacer`'s pace, in virtual time: exact, and over at once."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define, field, frozen

from phygitals_async._calls.pacer import Pacer


class Limit(Protocol):
    """What a server bears."""

    def refuses_for(self, now: float) -> float | None:
        """Let a request in and return None, or return the seconds until there is room again."""
        ...


@define
class Bucket:
    """A token bucket: `burst` requests at once, refilled with `per_second`."""

    per_second: float
    burst: float
    tokens: float = field(init=False)
    at: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.tokens = self.burst

    def refuses_for(self, now: float) -> float | None:
        """Take a token, if there is one."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self.per_second


@define
class FixedWindow:
    """So many requests in each `seconds`, counted from the first one."""

    requests: int
    seconds: float
    start: float = 0.0
    used: int = 0

    def refuses_for(self, now: float) -> float | None:
        """Count the request, if there is room in the window."""
        if now >= self.start + self.seconds:
            self.start, self.used = now, 0
        if self.used < self.requests:
            self.used += 1
            return None
        return self.start + self.seconds - now


@define
class Unlimited:
    """Refuses nothing, but the requests that come at the moments in `strays`."""

    strays: list[float] = field(factory=list)

    def refuses_for(self, now: float) -> float | None:
        """Refuse one request after each of the moments."""
        if self.strays and now >= self.strays[0]:
            del self.strays[0]
            return 0.5
        return None


@frozen
class Server:
    """What a simulated server is like.

    Attributes:
        limit: What it bears.
        latency: Seconds for a request to arrive and be answered, half of them each way.
        jitter: How much each way may take longer, as a share of itself.
        noise: The share of requests that is refused for no reason.
        retry_after: What the header says, from the seconds until there is room; None leaves it out.
    """

    limit: Limit
    latency: float = 0.002
    jitter: float = 0.2
    noise: float = 0.0
    retry_after: Callable[[float], float] | None = None


@define
class Run:
    """A bulk run as the admission queue makes it: only the pacer is real.

    Attributes:
        server: Whom it asks.
        pacer: At whose pace.
        in_flight: The most requests in flight.
        late: Seconds that every timer is late.
        now: The time, which starts wherever the last run ended.
        accepted: When the answers came that were no 429.
        refused: When the others came.
        reactions: When the pacer reacted to them.
        sent: When the requests left.
        seed: Makes the jitter and the noise.
    """

    server: Server
    pacer: Pacer = field(factory=Pacer)
    in_flight: int = 64
    late: float = 0.001
    now: float = 0.0
    accepted: list[float] = field(factory=list)
    refused: list[float] = field(factory=list)
    reactions: list[float] = field(factory=list)
    sent: list[float] = field(factory=list)
    seed: int = 7
    _random: random.Random = field(init=False)
    _events: list[tuple[float, int, str, float]] = field(factory=list)
    _order: Iterator[int] = field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def lookups(self, number: int, *, until: float = float("inf"), every: float = 0.0) -> float:
        """Make so many lookups, or as many as there is time for, and return the seconds that took.

        Args:
            number: How many.
            until: Stops at this moment.
            every: Seconds between two of them that the client takes its time for.
        """
        begin, queued, flying, timer = self.now, number, 0, -1.0
        pace_of_client = begin
        self._events.clear()
        while True:
            while queued and self._may_send(flying) and self.now >= pace_of_client:
                queued, flying = queued - 1, flying + 1
                pace_of_client += every
                self._send()
            due = max(self.pacer.due(self.now), pace_of_client) + self.late
            if queued and flying < min(self.in_flight, self.pacer.window) and timer < self.now:
                timer = due
                self._plan(due, "timer", 0.0)
            if not self._events or self._events[0][0] > until:
                break
            self.now, _, what, sent_at = heapq.heappop(self._events)
            if what == "timer":
                timer = -1.0
            elif what == "arrive":
                self._answer(sent_at)
            else:
                flying -= 1
                queued += not self._hear(what, sent_at)
        self.now = max(self.now, until if until < float("inf") else 0.0)
        return self.now - begin

    @property
    def share_refused(self) -> float:
        """How many of the answers were 429."""
        return len(self.refused) / (len(self.refused) + len(self.accepted))

    def throughput(self, begin: float, end: float) -> float:
        """Return the answers a second, without the 429s, between two moments."""
        return sum(begin <= moment < end for moment in self.accepted) / (end - begin)

    def _may_send(self, flying: int) -> bool:
        return flying < min(self.in_flight, self.pacer.window) and self.pacer.due(self.now) <= self.now

    def _send(self) -> None:
        self.pacer.take(self.now)
        self.sent.append(self.now)
        self._plan(self.now + self._half(), "arrive", self.now)

    def _half(self) -> float:
        return self.server.latency / 2 * (1 + self.server.jitter * self._random.random())

    def _answer(self, sent_at: float) -> None:
        wait = self.server.limit.refuses_for(self.now)
        if wait is None and self._random.random() < self.server.noise:
            wait = 0.0
        if wait is None:
            self._plan(self.now + self._half(), "200", sent_at)
        else:
            asked = self.server.retry_after(wait) if self.server.retry_after else None
            self._plan(self.now + self._half(), f"429 {'' if asked is None else asked}", sent_at)

    def _hear(self, what: str, sent_at: float) -> bool:
        if what == "200":
            self.accepted.append(self.now)
            self.pacer.accepted(self.now, sent_at)
            return True
        self.refused.append(self.now)
        asked = float(what[4:]) if what[4:] else None
        if self.pacer.throttled(self.now, sent_at, asked):
            self.reactions.append(self.now)
        return False

    def _plan(self, at: float, what: str, sent_at: float) -> None:
        heapq.heappush(self._events, (at, next(self._order), what, sent_at))
