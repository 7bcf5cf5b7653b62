"""What the client of a command sends with, and what it tells meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from phygitals_async.cli._endings import say
from phygitals_async.observer import logger
from phygitals_async.transport import Request, Response, Transport
from phygitals_async.wrapping import Wrapper

if TYPE_CHECKING:
    from phygitals_async.refresh import Store


def transport() -> Transport:
    """Return a transport that uses the proxies of the environment, as programs of the command line do."""
    from phygitals_transports import AiohttpTransport

    return AiohttpTransport(trust_env=True)


def recorded(inner: Transport, place: str) -> tuple[Transport, Store]:
    """Return a transport that closes a journal along with itself, and the journal."""
    from phygitals_async.refresh import open_store

    journal = open_store(place)
    return _ClosingToo(inner, journal), journal


@contextmanager
def logged(*, verbose: bool) -> Iterator[None]:
    """Let the library's log lines go to stderr while the block runs: errors, or all of them."""
    handler = _Saying(logging.DEBUG if verbose else logging.ERROR)
    level = logger.level
    logger.addHandler(handler)
    if verbose:
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Say it in one line, without a traceback."""
        say(record.getMessage())


class Remembering(Wrapper):
    """Remembers the last answer: a status that is an error brings a header along too.

    Attributes:
        last: The last answer, or None.
    """

    last: Response | None = None

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        self.last = await self._inner.send(request)
        return self.last


class _ClosingToo(Wrapper):
    """Closes a store with the transport, in the event loop that both belong to."""

    def __init__(self, inner: Transport, store: Store) -> None:
        super().__init__(inner)
        self._store = store

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        return await self._inner.send(request)

    async def aclose(self) -> None:
        """Close both."""
        try:
            await super().aclose()
        finally:
            await self._store.aclose()
