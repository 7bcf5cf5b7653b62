"""A transport around a transport that asks only once for what several want to know."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import anyio
from attrs import define, evolve, field

from phygitals_async import PhygitalsError, Request, Response, Transport
from phygitals_async.transport import Affinity, Delivery, Memo, check_count, check_seconds
from phygitals_async.wrapping import Wrapper, api_key_of, operation_of

# An order is asked for to see whether it has changed, so it is not among them.
_CACHED: Final = frozenset({"get_card", "get_inventory", "list_chase_cards", "list_packs", "list_recent_pulls"})
# No call changes these. All else may differ after one, and only the answers tell whose inventory.
_LASTING: Final = frozenset({"get_card", "list_chase_cards"})


@define(eq=False)
class _Answer:
    """An answer that is kept, or that somebody has asked for; with neither response nor error, nobody does any more."""

    operation: str
    until: float
    delivery: Delivery
    came: anyio.Event = field(factory=anyio.Event)
    response: Response | None = None
    error: PhygitalsError | None = None


class CachingTransport(Wrapper):
    """Keeps the 2xx answers to reads for a while, and sends reads that are the same and made at once as one.

    Answers are told apart by URL and API key, of which a keyed hash is kept. A call that moves money or goods, or asks
    how a purchase stands, drops inventories, packs and recent pulls before it is sent and once it is over, however it
    ended; reads under way then are not kept. A kept answer is decoded once. A shared read belongs to its first caller:
    cancel it, and the next sends.

    Args:
        inner: What sends the requests; closed together with this.
        lifetime: Seconds for which an answer is used, from when it was asked for.
        most: The most answers that are kept; the oldest go first.
        clock: Returns the time in seconds; the event loop's by default.

    Raises:
        ConfigurationError: `lifetime` or `most` is not a positive number, or another event loop uses it.
    """

    def __init__(
        self, inner: Transport, lifetime: float = 5.0, most: int = 1000, *, clock: Callable[[], float] | None = None
    ) -> None:
        super().__init__(inner)
        self._lifetime = check_seconds("lifetime", lifetime)
        self._most = check_count("most", most)
        self._clock = clock
        self._affinity = Affinity("this CachingTransport")
        self._salt = os.urandom(16)
        self._answers: dict[tuple[str, bytes], _Answer] = {}

    async def send(self, request: Request) -> Response:
        """Answer from what is kept or under way, or send `request`; see `phygitals_async.Transport`."""
        operation = operation_of(request)
        if operation in _CACHED:
            return await self._read(operation, request)
        if request.method == "GET" or operation == "quote_shipping":
            return await self._inner.send(request)
        self._drop()
        try:
            return await self._inner.send(request)
        finally:
            self._drop()

    async def aclose(self) -> None:
        """Forget what is kept, and close the inner transport."""
        self._answers.clear()
        await super().aclose()

    async def _read(self, operation: str, request: Request) -> Response:
        if self._affinity.must_start_afresh():
            self._answers.clear()
        now = self._clock or self._affinity.now
        key = (request.url, blake2b(api_key_of(request).encode(), key=self._salt).digest())
        while True:
            answer = self._answers.get(key)
            if answer is None or (answer.came.is_set() and now() >= answer.until):
                return await self._ask(key, _Answer(operation, now() + self._lifetime, request.delivery), request)
            await answer.came.wait()
            if answer.response is not None:
                return answer.response
            if answer.error is not None:
                request.delivery.started, request.delivery.failed = answer.delivery.started, answer.delivery.failed
                raise copy.copy(answer.error)

    async def _ask(self, key: tuple[str, bytes], answer: _Answer, request: Request) -> Response:
        self._answers.pop(key, None)
        self._answers[key] = answer
        if len(self._answers) > self._most:
            del self._answers[next(iter(self._answers))]
        try:
            response = await self._inner.send(request)
            response = answer.response = evolve(response, memo=Memo())
        except PhygitalsError as error:
            # Each waiter raises its own: the client writes into it.
            answer.error = copy.copy(error)
            raise
        finally:
            answer.came.set()
            is_good = answer.response is not None and 200 <= answer.response.status < 300
            if not is_good and self._answers.get(key) is answer:
                del self._answers[key]
        return response

    def _drop(self) -> None:
        self._answers = {key: answer for key, answer in self._answers.items() if answer.operation in _LASTING}
