"""Time for tests, which moves the sandbox and the client alike."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from phygitals_async._loop.skipping import Skipping
from phygitals_async.errors import ConfigurationError
from phygitals_async.transport import Request, Response, Transport
from phygitals_async.wrapping import Wrapper

__all__ = ["SkippingClock"]


class SkippingClock(Skipping):
    """A clock on which a client's pauses take no time: `PhygitalsClient(..., clock=clock)`.

    It goes as the event loop's does. But when no request of its clients is under way, and they wait for the end of a
    pause, between two polls or repeats, after a 429 or in an outage, the time skips to that end. While a request is
    under way nothing is skipped. Deadlines, in seconds of this clock, pass with what is skipped or advanced.

    Only what uses the clock is moved: its clients, `Sandbox(clock=clock.utc_now)`,
    `FaultTransport(..., sleep=clock.sleep)`, `CachingTransport(..., clock=clock.now)`, `MemoryStore(clock=clock.now)`
    for a `Budget`. The event loop, and what the application sleeps itself, stay as they are. It serves one event loop
    at a time.

    Attributes:
        ahead: Seconds that were skipped or advanced so far.
    """

    def utc_now(self) -> datetime:
        """Return the date and the time, UTC."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def advance(self, by: timedelta) -> None:
        """Move the time, with everything that waits for it, also for requests that are under way.

        Raises:
            ConfigurationError: The time is to go back.
        """
        if by < timedelta(0):
            msg = "time goes forward only"
            raise ConfigurationError(msg)
        self.skip(by.total_seconds())

    def watching(self, transport: Transport) -> Transport:
        """Return a transport that keeps the clock from skipping while a request is under way; a client does this."""
        return _Watched(transport, self)


class _Watched(Wrapper):
    def __init__(self, inner: Transport, clock: Skipping) -> None:
        super().__init__(inner)
        self._clock = clock

    async def send(self, request: Request) -> Response:
        with self._clock.under_way():
            return await self._inner.send(request)
