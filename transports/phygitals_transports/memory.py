"""A transport that answers from a function in this process."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import anyio.lowlevel

from phygitals_async import ClientClosed, Request, Response

Handler = Callable[[Request], Response | Awaitable[Response]]


class MemoryTransport:
    """Answers every request with `handler(request)`; runs on asyncio and trio.

    Args:
        handler: Any function of a request, sync or async, such as a `Sandbox`. What it raises is raised.

    Attributes:
        sent: Every request, in order, its API key included in the headers.
    """

    def __init__(self, handler: Handler) -> None:
        self.sent: list[Request] = []
        self._handler = handler
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Record the request and return the handler's answer."""
        if self._closed:
            msg = "the transport was closed"
            raise ClientClosed(msg)
        # Real engines always let other tasks run, and can be cancelled, here.
        await anyio.lowlevel.checkpoint()
        self.sent.append(request)
        answer = self._handler(request)
        return await answer if inspect.isawaitable(answer) else answer

    async def aclose(self) -> None:
        """Refuse further requests."""
        self._closed = True
