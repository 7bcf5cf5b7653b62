"""Who may send now: at most so many requests in flight, each operation at the pace the server bears, money first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import anyio

from phygitals_async._calls.allowance import Allowance, SharedRate
from phygitals_async._calls.lanes import Lane, Priority, Waiter
from phygitals_async._calls.pacer import Pacer
from phygitals_async._calls.shared_pacer import SharedPacer
from phygitals_async._loop.affinity import Event, event_class
from phygitals_async._loop.clocks import REAL_CLOCK, Clock
from phygitals_async._loop.loops import Loop
from phygitals_async._loop.wait_queue import WaitQueue

# The longest that a call gives way, in seconds, to an operation whose limit it may share.
_COURTESY: Final = 5.0
# Seconds that a server needs to have something left for one more call, however fast it was asked before.
_SOUGHT: Final = 0.2
# Seconds that whoever was woken late catches up, where moments are closer together than that.
_SLACK: Final = 0.05


class Admission:
    """Admits the requests of one client, in one event loop.

    Each operation has a pace of its own, so a sick one holds up no other. An operation that knows no limit gives way to
    one that does, in case the server has one limit for both: it takes a moment to send out of the other's pace, ahead
    of what waits there, but waits for it no longer than `_COURTESY`, and not for a pause that the other was asked for.

    Args:
        limit: The most requests in flight.
        rate: The most requests per second, a rate shared with other clients, or None for no such cap.
        clock: Where the time comes from.

    Attributes:
        in_flight: How many there are.
    """

    def __init__(self, limit: int, rate: float | SharedRate | None, clock: Clock = REAL_CLOCK) -> None:
        self.in_flight = 0
        self._limit = limit
        self._clock = clock
        self._allowance = Allowance(rate) if isinstance(rate, SharedRate) else None
        self._interval = 0.0 if rate is None or isinstance(rate, SharedRate) else 1 / rate
        self._next = -math.inf
        self._lanes: dict[str, Lane] = {}
        self._host: Lane | None = None
        self._loop: Loop
        self._event: Callable[[], Event] | None = None
        self._arrivals = 0
        self._waiting = 0
        self._stop_timer: Callable[[], object] | None = None
        self._rings = math.inf
        self._closing = anyio.Event()
        self._idle = WaitQueue()

    def lane(self, operation: str) -> Lane:
        """Return the lane of an operation."""
        lane = self._lanes.get(operation)
        if lane is None:
            pacer = Pacer() if self._allowance is None else SharedPacer()
            lane = self._lanes[operation] = Lane(pacer)
        return lane

    def close(self) -> None:
        """Let everybody who waits in at once, to find the client closed and `leave`."""
        self._closing.set()
        for lane in self._lanes.values():
            for queue in lane.waiting:
                for waiter in list(queue):
                    self._admit(waiter)
        self._set_timer(math.inf)

    async def rest(self, seconds: float) -> None:
        """Wait for some time, but no longer than until `close`."""
        with self._clock.pausing(seconds):
            await self._closing.wait()

    def due(self, lane: Lane, now: float) -> float:
        """Return when the lane lets the next request leave, were there nobody else, for all that is known."""
        reserved = -math.inf if self._allowance is None else self._allowance.first(now, default=-math.inf)
        return max(lane.pacer.due(now), self._next, reserved)

    def enter_at_once(self, lane: Lane, priority: Priority, now: float) -> bool:
        """Enter if that takes no waiting, and say whether it did. Whoever entered must `leave`."""
        if self._waiting or self.in_flight >= self._limit or self._due(lane, priority, now, now) > now:
            return False
        if self._allowance is not None and self._allowance.first(now) > now:
            return False
        self._count_in(lane, priority, now)
        return True

    async def enter(self, lane: Lane, priority: Priority) -> float:
        """Wait for a place and for the moment to send, and return that moment. Whoever entered must `leave`.

        A 429 that came in between, before the request has left, knows it by that moment as one of its own burst.
        """
        if self._event is None:
            self._loop, self._event = self._clock.loop(), event_class()
        self._arrivals += 1
        waiter = Waiter(lane, priority, self._loop.now(), self._arrivals, self._event())
        lane.waiting[priority][waiter] = None
        self._waiting += 1
        self._dispatch()
        try:
            await waiter.woken.wait()
            while waiter.admitted_at == math.inf and self._allowance is not None:
                waiter.woken = self._event()
                await self._allowance.reserve(self._loop.now)
                self._dispatch()
                await waiter.woken.wait()
        except BaseException:  # Cancelled, in whatever way the event loop has: the place must not go with the call.
            if waiter.admitted_at < math.inf:
                self.leave(lane, priority)
            else:
                del lane.waiting[priority][waiter]
                self._waiting -= 1
            raise
        finally:
            if self._allowance is not None and self._allowance.is_left_by(waiter):
                self._dispatch()
        return waiter.admitted_at

    def leave(self, lane: Lane, priority: Priority) -> None:
        """Give the place to whoever is next."""
        self.in_flight -= 1
        lane.bulk_in_flight -= priority is Priority.BULK
        if self._waiting:
            self._dispatch()
        if not self.in_flight:
            self._idle.notify_all()

    async def wait_until_idle(self) -> None:
        """Wait until nothing is in flight."""
        if self.in_flight:
            await self._idle.wait()

    def throttled(self, lane: Lane, now: float, sent_at: float, retry_after: float | None, *, is_shared: bool) -> bool:
        """Slow an operation down, and return whether that is news; see `Pacer.throttled`.

        Args:
            lane: The operation's.
            now: The time.
            sent_at: When the request was sent.
            retry_after: Seconds that the server asked for, if it did.
            is_shared: Whether the limit may be that of all operations.
        """
        # One that the server never accepted a request of is sick, and not limited.
        if is_shared and lane.answered:
            self._host = lane
        return lane.pacer.throttled(now, sent_at, retry_after)

    def _dispatch(self, at_least: float = -math.inf) -> None:
        """Admit everybody who may leave now, and set the timer for the next moment."""
        now = max(self._loop.now(), at_least)
        moment = math.inf
        while self._waiting and self.in_flight < self._limit:
            moment, waiter = self._first(now)
            if waiter is None or (self._allowance is not None and self._allowance.first(now) > now):
                break
            self._admit(waiter, now)
            moment = math.inf
        if self._allowance is not None:
            moment = self._allowance.look_ahead(moment, now, self._lanes.values())
        self._set_timer(moment)

    def _first(self, now: float) -> tuple[float, Waiter | None]:
        """Return who may leave now and goes first, or None and the moment when somebody may."""
        moment = math.inf
        kept: Lane | None = None
        for priority in Priority:
            first: Waiter | None = None
            for lane in self._lanes.values():
                if not (queue := lane.waiting[priority]) or lane is kept:
                    continue
                waiter = next(iter(queue))
                due = self._due(lane, priority, waiter.arrived, now)
                if due > now:
                    moment = min(moment, due)
                elif first is None or waiter.number < first.number:
                    first = waiter
            if first is not None:
                return now, first
            # A moment that somebody more urgent waits for is not given away.
            if kept is None and any(
                lane.waiting[priority] and self._visited(lane, now) for lane in self._lanes.values()
            ):
                kept = self._host
        return moment, None

    def _due(self, lane: Lane, priority: Priority, arrived: float, now: float) -> float:
        pacer = lane.pacer
        if priority is Priority.BULK and lane.bulk_in_flight >= pacer.window:
            return math.inf
        due = max(pacer.due(now), self._next)
        if self._host is not None and (host := self._visited(lane, now)) is not None:
            free = host.pacer.spacing_due(now)
            if priority is Priority.MONEY and host.pacer.rate is not None and not host.pacer.is_measured:
                # It is not repeated after a 429, and the pace that is being sought may be too fast.
                free += max(1 / host.pacer.rate, _SOUGHT)
            due = max(due, min(arrived + _COURTESY, free))
        return due

    def _visited(self, lane: Lane, now: float) -> Lane | None:
        """Return the operation to give way to, if there is one that is in use."""
        host = self._host
        if host is None or host is lane or lane.pacer.rate is not None or now - host.last_used > _COURTESY:
            return None
        return host

    def _admit(self, waiter: Waiter, now: float | None = None) -> None:
        del waiter.lane.waiting[waiter.priority][waiter]
        self._waiting -= 1
        waiter.admitted_at = self._loop.now() if now is None else now
        self._count_in(waiter.lane, waiter.priority, waiter.admitted_at)
        waiter.woken.set()

    def _count_in(self, lane: Lane, priority: Priority, now: float) -> None:
        self.in_flight += 1
        lane.bulk_in_flight += priority is Priority.BULK
        lane.pacer.take(now)
        if self._interval:
            self._next = max(self._next, now - max(_SLACK - self._interval, 0.0)) + self._interval
        elif self._allowance is not None:
            self._allowance.take(now)
        if self._host is not None and (host := self._visited(lane, now)) is not None:
            host.pacer.take(now)
        lane.last_used = now

    def _set_timer(self, rings: float) -> None:
        if rings == self._rings:
            return
        if self._stop_timer is not None:
            self._stop_timer()
            self._stop_timer = None
        self._rings = rings
        if rings < math.inf:
            self._stop_timer = self._loop.call_at(rings, self._ring)

    def _ring(self) -> None:
        # A timer may ring a little early.
        rung, self._stop_timer, self._rings = self._rings, None, math.inf
        self._dispatch(rung)
