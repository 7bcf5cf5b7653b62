"""A transport that answers from a function in this process."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable
from itertools import chain, repeat
from typing import Any, Self

import anyio.lowlevel

from phygitals_async import ClientClosed, ConfigurationError, Request, Response

Handler = Callable[[Request], Response | Awaitable[Response]]


class MemoryTransport:
    """Answers every request with `handler(request)`; runs on asyncio and trio.

    Args:
        handler: Any function of a request, sync or async, such as a `Sandbox`. What it raises is raised; out of the
            client comes a `PhygitalsError` as it is, and anything else as a `TransportError` that names its class, for
            no transport may cost a purchase its truth. Its place is in the log, as an error.
        keep: How many of the last requests `sent` holds: all by default, none with 0.

    Attributes:
        sent: Every request, or the last `keep`, in order, its API key included in the headers.

    Raises:
        ConfigurationError: `handler` is no function, or `keep` no whole number of at least 0.
    """

    def __init__(self, handler: Handler, keep: int | None = None) -> None:
        if isinstance(handler, type) or not callable(handler):
            raise ConfigurationError(f"handler must be a function of a request, not {_instead(handler)}")
        if keep is not None and (isinstance(keep, bool) or not isinstance(keep, int) or keep < 0):
            msg = "keep must be a whole number of at least 0, or None for all"
            raise ConfigurationError(msg)
        self.sent: list[Request] = []
        self._handler = handler
        self._keep = keep
        self._closed = False

    @classmethod
    def answering(cls, *answers: Any, keep: int | None = None) -> Self:
        """Return a transport that gives these answers in turn, the last of them again and again.

        Args:
            answers: Each a `Response`; an exception, which is raised; a tuple of status and body; or the body of a
                200. A body is what `json.dumps` takes.
            keep: See the class.

        Raises:
            ConfigurationError: There is no answer.
        """
        if not answers:
            msg = "answering() needs at least one answer"
            raise ConfigurationError(msg)
        script = [_answer(each) for each in answers]
        turns = chain(script, repeat(script[-1]))

        def handler(_: Request) -> Response:
            answer = next(turns)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return cls(handler, keep)

    async def send(self, request: Request) -> Response:
        """Record the request and return the handler's answer."""
        if self._closed:
            msg = "the transport was closed"
            raise ClientClosed(msg)
        try:
            # Real engines always let other tasks run, and can be cancelled, here.
            await anyio.lowlevel.checkpoint()
        except BaseException:
            # Nothing reached the handler. From here on, what it raises tells: it plays the network.
            request.delivery.failed = True
            raise
        self.sent.append(request)
        if self._keep is not None:
            del self.sent[: max(0, len(self.sent) - self._keep)]
        answer = self._handler(request)
        return await answer if inspect.isawaitable(answer) else answer

    async def aclose(self) -> None:
        """Refuse further requests."""
        self._closed = True


def _instead(given: object) -> str:
    if isinstance(given, type):
        return f"the class {given.__name__}; make one of it: MemoryTransport({given.__name__}(...))"
    if isinstance(given, Response):
        return "a Response; give it to MemoryTransport.answering(...)"
    return f"{type(given).__name__}; a Sandbox() is one, and MemoryTransport.answering(...) takes answers"


def _answer(given: Any) -> Response | BaseException:
    if isinstance(given, Response | BaseException):
        return given
    status, body = given if isinstance(given, tuple) else (200, given)
    return Response(status, {"content-type": "application/json"}, json.dumps(body).encode())
