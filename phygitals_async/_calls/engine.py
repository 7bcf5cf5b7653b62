"""What the calls of one client share: transport, wire, admission, deadlines, and the budget of repeats."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from phygitals_async._api.wire import Wire
from phygitals_async._calls.admission import Admission
from phygitals_async._calls.allowance import SharedRate
from phygitals_async._calls.retry import RetryBudget, RetryPolicy
from phygitals_async._checks import check_count, check_rate, check_seconds
from phygitals_async._loop.affinity import Affinity
from phygitals_async._loop.clocks import Bounds, Clock
from phygitals_async.observer import Hooks
from phygitals_async.transport import Transport

T = TypeVar("T")


class Engine:
    """Makes calls over one transport with one set of settings.

    Attributes:
        admission: Of the event loop that runs, after `enter_loop`, as are the deadlines.
    """

    def __init__(
        self,
        transport: Transport,
        wire: Wire,
        *,
        deadline: float,
        attempt_timeout: float,
        max_in_flight: int,
        rate: float | SharedRate | None,
        retry: RetryPolicy,
        hooks: Hooks | None,
        clock: Clock,
    ) -> None:
        self.transport = transport
        self.wire = wire
        self.hooks = hooks
        self.closed = False
        self.deadline = check_seconds("deadline", deadline)
        self.attempt_timeout = check_seconds("attempt_timeout", attempt_timeout)
        self.max_in_flight = check_count("max_in_flight", max_in_flight)
        self.rate = rate if rate is None or isinstance(rate, SharedRate) else check_rate("rate", rate)
        self.retry = retry
        self.budget = RetryBudget()
        self.affinity = Affinity("this client")
        self.clock = clock
        self.admission = Admission(self.max_in_flight, self.rate, clock)
        self.deadlines: Bounds

    async def within(self, seconds: float, call: Callable[[], Awaitable[T]]) -> T:
        """Await something that makes calls, cancelling it after `seconds`.

        Raises:
            DeadlineExceeded: The time was up first.
            ConfigurationError: The client is in use by another event loop.
        """
        self.enter_loop()
        return await self.deadlines.within(seconds, call)

    def enter_loop(self) -> None:
        """Tie the client to the event loop that runs, or start afresh where the former one is over.

        Raises:
            ConfigurationError: The client is in use by another event loop.
        """
        if self.affinity.must_start_afresh():
            self.affinity.now = self.clock.loop().now
            self.admission = Admission(self.max_in_flight, self.rate, self.clock)
            self.deadlines = self.clock.deadlines()

    async def aclose(self, grace: float) -> None:
        """Refuse new calls, give those in flight `grace` seconds, then close the transport under the rest.

        Raises:
            ConfigurationError: The client is in use by another event loop.
        """
        self.enter_loop()
        self.closed = True
        self.admission.close()
        try:
            with anyio.move_on_after(grace):
                await self.admission.wait_until_idle()
        finally:
            with anyio.CancelScope(shield=True):
                await self.transport.aclose()
            self.deadlines.stop()
