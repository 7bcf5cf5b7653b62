"""A transport around a transport that goes wrong on purpose."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import anyio
from attrs import define

from phygitals_async import Request, Response, Transport
from phygitals_async.errors import ConfigurationError, ConnectError, ConnectionLost, TransportError
from phygitals_async.wrapping import METHODS, Wrapper, before_sending, operation_of


@define(eq=False)
class Fault:
    """Which requests something happens to: see `FaultTransport.fail`. `hits` counts how often it has."""

    operation: str | None
    times: int | None
    chance: float
    after_sending: bool
    hits: int = 0

    def __attrs_post_init__(self) -> None:
        if self.operation is not None and self.operation not in METHODS:
            msg = f"{self.operation!r} is not one of the operations {', '.join(METHODS)}"
            raise ConfigurationError(msg)

    def hit(self, operation: str | None, rng: random.Random) -> bool:
        """Whether it hits a request of an operation."""
        is_aimed = self.operation in (None, operation) and (self.times is None or self.hits < self.times)
        is_hit = is_aimed and rng.random() < self.chance
        self.hits += is_hit
        return is_hit


class FaultTransport(Wrapper):
    """Loses, refuses and delays requests as it is told; without faults it passes everything on.

    The delays that hit a request add up; the first failure that hits it is how it fails. `Request.delivery` tells the
    truth. With the same seed, the same requests in the same order meet the same chances and delays.

    Args:
        inner: What sends the requests; closed together with this.
        seed: Of the random numbers.
        sleep: Waits for some seconds; a test that moves time gives that of its clock.
    """

    def __init__(
        self, inner: Transport, seed: int = 0, *, sleep: Callable[[float], Awaitable[object]] = anyio.sleep
    ) -> None:
        super().__init__(inner)
        self._rng = random.Random(seed)  # noqa: S311 - it must be repeatable, not unguessable.
        self._sleep = sleep
        self._failures: list[tuple[Fault, type[TransportError] | Response]] = []
        self._delays: list[tuple[Fault, tuple[float, float]]] = []

    def fail(
        self, operation: str | None = None, how: type[TransportError] | Response | int | None = None, *,
        times: int | None = 1, chance: float = 1.0, after_sending: bool = False,
    ) -> Fault:  # fmt: skip
        """Let requests fail from now on.

        Args:
            operation: The client method whose requests are meant, such as `sell_back`; None for all requests.
            how: The error, or the answer or status that a proxy gives. By default `ConnectError`, never sent; after
                sending, `ConnectionLost`.
            times: How many fail; None for no end.
            chance: How likely each is to fail, a fraction.
            after_sending: Whether the server acts first, and its answer is lost. Else the request does not reach it.

        Raises:
            ConfigurationError: The operation is none, or a `ConnectError` was to come after sending.
        """
        fault = Fault(operation, times, chance, after_sending)
        if after_sending and _says_never_sent(how):
            msg = "a ConnectError says that nothing was sent, so it cannot come after sending"
            raise ConfigurationError(msg)
        default = ConnectionLost if after_sending else ConnectError
        self._failures.append((fault, Response(how, {}, b"") if isinstance(how, int) else how or default))
        return fault

    def delay(
        self, operation: str | None, seconds: float | tuple[float, float], *, times: int | None = None,
        chance: float = 1.0, after_sending: bool = False,
    ) -> Fault:  # fmt: skip
        """Let requests, or their answers, take `seconds` more, or a random time between two; else as `fail`."""
        fault = Fault(operation, times, chance, after_sending)
        self._delays.append((fault, seconds if isinstance(seconds, tuple) else (seconds, seconds)))
        return fault

    async def send(self, request: Request) -> Response:
        """Send `request` as far as it gets; see `phygitals_async.Transport`."""
        operation, pauses = operation_of(request), [0.0, 0.0]
        for delay, span in self._delays:
            if delay.hit(operation, self._rng):
                pauses[delay.after_sending] += self._rng.uniform(*span)
        failure = next((each for each in self._failures if each[0].hit(operation, self._rng)), None)
        with before_sending(request):
            await self._sleep(pauses[0])
        if failure is None or failure[0].after_sending:
            response = await self._inner.send(request)
            if pauses[1]:
                await self._sleep(pauses[1])
            if failure is None:
                return response
        request.delivery.failed = _says_never_sent(failure[1])
        request.delivery.started = not request.delivery.failed
        if isinstance(failure[1], Response):
            return failure[1]
        raise failure[1]("a fault on purpose")


def _says_never_sent(how: object) -> bool:
    return isinstance(how, type) and issubclass(how, ConnectError)
