"""A transport that answers from a cassette, without a network."""

from __future__ import annotations

from collections import OrderedDict, deque
from os import PathLike
from pathlib import Path
from typing import Literal

import anyio.lowlevel

from phygitals_async import ClientClosed, ConfigurationError, Request, Response, Sent
from phygitals_async.wrapping import before_sending
from phygitals_transports import cassettes


class ReplayTransport:
    """Answers each request as it was answered when `RecordingTransport` wrote the cassette; on asyncio and trio.

    Requests are the same if method, path, query and body are; server and API key may differ. Each recorded answer or
    error is given once.

    Args:
        path: The cassette, read whole.
        order: `strict` wants the requests in the order in which they were sent then. `any`, for bulk runs and whatever
            else is asked at once, takes them in any, and gives those that are the same their answers in turn.

    Raises:
        ConfigurationError: The cassette cannot be read, or `order` is neither; or, by `send`, it does not hold the
            request, or not next. Nothing repeats that.
    """

    def __init__(self, path: str | PathLike[str], order: Literal["strict", "any"] = "strict") -> None:
        if order not in ("strict", "any"):
            msg = "order must be 'strict' or 'any'"
            raise ConfigurationError(msg)
        self._path = Path(path)
        self._is_strict = order == "strict"
        self._closed = False
        # Sorting leaves lines of the same number, those of several recordings, in their order.
        exchanges = sorted(cassettes.read(self._path), key=lambda exchange: exchange.number)
        self._left = OrderedDict(enumerate(exchanges))
        self._places: dict[cassettes.Asked, deque[int]] = {}
        for place, exchange in self._left.items():
            self._places.setdefault(exchange.asked, deque()).append(place)

    @property
    def unused(self) -> tuple[str, ...]:
        """Method and path of each recorded request that has not been made yet."""
        return tuple(_shown(exchange.asked) for exchange in self._left.values())

    async def send(self, request: Request) -> Response:
        """Answer `request` from the cassette; see `phygitals_async.Transport`."""
        if self._closed:
            msg = "the transport was closed"
            raise ClientClosed(msg)
        with before_sending(request):
            await anyio.lowlevel.checkpoint_if_cancelled()
            exchange = self._take(cassettes.key_of(cassettes.asked(request)))
        # Other tasks run here, and not before: the order of the calls is what counts.
        await anyio.lowlevel.cancel_shielded_checkpoint()
        if isinstance(exchange.reply, Response):
            return exchange.reply
        cls, text, sent = exchange.reply
        error = cls(text)
        error.sent = sent
        request.delivery.failed, request.delivery.started = sent is Sent.NEVER, sent is not Sent.NEVER
        raise error

    async def aclose(self) -> None:
        """Refuse further requests."""
        self._closed = True

    def _take(self, asked: cassettes.Asked) -> cassettes.Exchange:
        places = self._places.get(asked)
        if not places:
            why = "was not recorded" if places is None else "was recorded, but not as often as it is made"
        elif self._is_strict and places[0] != (following := next(iter(self._left))):
            why = f"was recorded, but not next (that is {_shown(self._left[following].asked)}); order='any' takes it"
        else:
            return self._left.pop(places.popleft())
        msg = f"{_shown(asked)} {why}, in the cassette {self._path}"
        raise ConfigurationError(msg)


def _shown(asked: cassettes.Asked) -> str:
    method, target, body = asked
    return f"{method} {target}" if body == "null" else f"{method} {target} with a body of {len(body)} characters"
