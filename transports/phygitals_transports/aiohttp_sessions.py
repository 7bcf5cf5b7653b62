"""The life of a session that is made for somebody: event loops that end, forks, and being forgotten."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any, Final

import aiohttp

from phygitals_async.transport import Affinity
from phygitals_transports.aiohttp_connector import GuardedConnector

# Sessions of a parent process, kept as long as this one: closing or collecting them would take their sockets out of the
# parent's epoll.
_INHERITED: Final[list[Any]] = []


class OwnSession:
    """A session that is made on first use, and once more when its event loop is over or the process was forked.

    It is closed by `aclose()`; else together with its loop, as `asyncio.run` ends it; else when nobody holds this any
    more or the interpreter exits, and then without a word of aiohttp's: the client says that it was forgotten.

    Args:
        make: Makes a session with a `GuardedConnector`, in the running loop.
        owner: Whose it is, for the error message.

    Attributes:
        session: The session, or None where there is none, or no more.
    """

    def __init__(self, make: Callable[[], aiohttp.ClientSession], owner: str) -> None:
        self.session: aiohttp.ClientSession | None = None
        self._make = make
        self._affinity = Affinity(owner)
        self._home: tuple[asyncio.AbstractEventLoop | None, int] = (None, 0)
        self._release: Callable[[], object] = _nothing

    def get(self) -> aiohttp.ClientSession:
        """Return the session of the running loop, which is one of asyncio.

        Raises:
            ConfigurationError: It is in use by another loop.
        """
        if self._affinity.must_start_afresh() or self.session is None or self.session.closed:
            self._release()
            self.session = None
            loop, process = self._home = asyncio.get_running_loop(), os.getpid()
            self.session = self._make()
            lifetime = _close_with_the_loop(self.session)
            # From its first step on the loop knows of it.
            with suppress(StopIteration):
                lifetime.__anext__().send(None)
            self._release = weakref.finalize(self, _let_go, self.session, lifetime, loop, process)
        return self.session

    async def aclose(self) -> None:
        """Close the session, if there is one."""
        session, self.session = self.session, None
        try:
            if session is not None and self._home == (_running_loop(), os.getpid()):
                await session.close()
        finally:
            self._release()


async def _close_with_the_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None]:
    """Close the session when the loop closes its asynchronous generators: it tells nobody else that it ends."""
    try:
        yield
    finally:
        await session.close()


def _let_go(
    session: aiohttp.ClientSession, lifetime: AsyncGenerator[None], loop: asyncio.AbstractEventLoop, process: int
) -> None:
    """Close a session where nothing can be awaited."""
    if process != os.getpid():
        _INHERITED.append((session, lifetime))
    elif loop.is_running() and loop is not _running_loop():
        # The garbage collector runs in any thread.
        loop.call_soon_threadsafe(_close_at_once, session, lifetime)
    else:
        _close_at_once(session, lifetime)


def _close_at_once(session: aiohttp.ClientSession, lifetime: AsyncGenerator[None]) -> None:
    if isinstance(session.connector, GuardedConnector):
        session.connector.close_at_once()
    # With the session closed this takes one step. Where the loop is ending, it is in the middle of it already.
    with suppress(StopIteration, RuntimeError):
        lifetime.aclose().send(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _nothing() -> None:
    """Do nothing: there is no session yet."""
