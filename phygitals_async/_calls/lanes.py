"""Who waits to send, and for what: the calls of each operation, by priority."""

from __future__ import annotations

import enum
import math
from collections import OrderedDict

from attrs import define, field

from phygitals_async._calls.pacer import Pacer
from phygitals_async._loop.affinity import Event


class Priority(enum.IntEnum):
    """Who goes first where several wait."""

    MONEY = 0
    SINGLE = 1
    BULK = 2


@define(eq=False)
class Waiter:
    """A call that waits for a place and for its moment.

    Attributes:
        lane: That of its operation.
        priority: Its own.
        arrived: When it came, in seconds of the loop's clock.
        number: Counts those who came.
        woken: Is set when it is admitted, or is to reserve moments for all.
        admitted_at: When it was admitted; endless until then.
    """

    lane: Lane
    priority: Priority
    arrived: float
    number: int
    woken: Event
    admitted_at: float = math.inf


@define(eq=False)
class Lane:
    """The calls of one operation.

    Attributes:
        pacer: How fast they may leave.
        answered: Whether the server has ever accepted one.
        last_used: When one left last, in seconds of the loop's clock.
        bulk_in_flight: How many there are that bulk runs made.
        waiting: Who waits, by priority.
    """

    pacer: Pacer
    answered: bool = False
    last_used: float = -math.inf
    bulk_in_flight: int = 0
    waiting: tuple[OrderedDict[Waiter, None], ...] = field(factory=lambda: tuple(OrderedDict() for _ in Priority))

    def ready(self, now: float, by: float) -> int:
        """Return how many of them may leave by some time, for all that is known of their pace."""
        if self.pacer.due(now) > by:
            return 0
        money, single, bulk = map(len, self.waiting)
        return money + single + int(min(bulk, max(self.pacer.window - self.bulk_in_flight, 0)))
