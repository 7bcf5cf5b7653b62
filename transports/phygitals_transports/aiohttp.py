"""The transport over aiohttp."""

from __future__ import annotations

import asyncio
import os
import weakref
from typing import Any, Final

import aiohttp
from yarl import URL

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    Request,
    Response,
    ResponseTooLarge,
    TransportError,
)
from phygitals_async._checks import check_count, check_seconds
from phygitals_async._loop.affinity import Affinity
from phygitals_transports.aiohttp_guards import GuardedConnector, translate

_MIB: Final = 1024 * 1024

# Sessions of a parent process, which a forked child must neither close nor collect.
_inherited: Final[list[aiohttp.ClientSession]] = []
# The sessions of transports that live: from here, the garbage collector cannot come to one, and aiohttp complain of it,
# before it comes to the transport.
_watched: Final[dict[weakref.ref[Any], tuple[aiohttp.ClientSession, int]]] = {}


class AiohttpTransport:
    """Sends requests with aiohttp; runs on asyncio.

    Its session is created on first use, in the loop that uses it. Redirects are not followed, cookies not
    kept, proxies of the environment not used.

    Args:
        session: A session of your own, with its proxies, TLS and cookies; it is not closed here, and its middlewares
            are not used. Make it with `connector=GuardedConnector(limit=0)`: any other may take a stray answer for the
            answer to the next request.
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for one connection to be made, with DNS, TLS and proxy; in a session of your own,
            for the socket alone.
        trust_env: Whether to use the proxies that the environment variables name.

    Raises:
        ConfigurationError: `max_body` or `connect_timeout` is not a positive number, or `session` no session.
    """

    _own: aiohttp.ClientSession | None = None
    _process = 0

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        max_body: int = 16 * _MIB,
        connect_timeout: float = 10.0,
        trust_env: bool = False,
    ) -> None:
        if session is not None and not isinstance(session, aiohttp.ClientSession):
            msg = f"session must be an aiohttp.ClientSession, not {type(session).__name__}"
            raise ConfigurationError(msg)
        self._given = session
        self._max_body = check_count("max_body", max_body)
        seconds = check_seconds("connect_timeout", connect_timeout)
        # Without a limit on the pool nothing waits for a place, so `connect` is the making of the connection alone.
        self._timeout = (
            aiohttp.ClientTimeout(total=None, connect=seconds)
            if session is None
            else aiohttp.ClientTimeout(total=None, sock_connect=seconds)
        )
        self._trust_env = trust_env
        self._affinity = Affinity("this AiohttpTransport")
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        if self._closed or (self._given is not None and self._given.closed):
            msg = "the transport or its aiohttp session was closed"
            raise ClientClosed(msg)
        session = self._session()
        response: aiohttp.ClientResponse | None = None
        try:
            response = await session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=request.body,
                allow_redirects=False,
                raise_for_status=False,
                auto_decompress=True,
                middlewares=(),
                timeout=self._timeout,
            )
            try:
                body = await (response.read() if self._fits(response) else self._read_capped(response))
            except BaseException:
                response.close()
                raise
            return Response(response.status, response.headers, body)
        except TransportError as error:
            failure = error
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            failure = translate(error)
        # Raised outside the handlers, without the frames that hold the response: aiohttp's objects print headers.
        del response
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        """Close the session unless it was given."""
        self._closed = True
        if self._own is None:
            return
        if self._process == os.getpid():
            await self._own.close()
        self._let_go()

    @property
    def is_open(self) -> bool:
        """Whether it holds a session of its own that `aclose()` would close."""
        return self._own is not None

    def __del__(self) -> None:
        self._let_go()

    def _let_go(self) -> None:
        """Forget the session, if there is one; see `_release`."""
        session, self._own = self._own, None
        if session is not None:
            _watched.pop(self._watch, None)
            _release(session, self._process)

    def _session(self) -> aiohttp.ClientSession:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "AiohttpTransport runs on asyncio only; give the client another transport on this event loop"
            raise ConfigurationError(msg) from None
        if self._given is not None:
            # aiohttp would send the request first and fail then.
            if self._given._loop is not loop:  # noqa: SLF001 - it has no public name that does not warn.
                msg = "the aiohttp session given to this AiohttpTransport belongs to another event loop"
                raise ConfigurationError(msg)
            return self._given
        if not self._affinity.must_start_afresh() and self._own is not None:
            return self._own
        self._let_go()
        self._process = os.getpid()
        self._own = aiohttp.ClientSession(
            # The client bounds and times what is in flight: a second queue here would count as the attempt's time.
            connector=GuardedConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
        )
        self._watch = weakref.ref(self, _on_death)
        _watched[self._watch] = self._own, self._process
        # Or aiohttp sends a GET a second time, unasked, when the connection dies under it; it has no public switch.
        self._own._retry_connection = False  # noqa: SLF001 - see above.
        return self._own

    def _fits(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the body is known to be within the cap."""
        length = response.content_length
        return length is not None and length <= self._max_body and "content-encoding" not in response.headers

    async def _read_capped(self, response: aiohttp.ClientResponse) -> bytes:
        # What arrives is counted as it is decoded: 300 KB of gzip can hold 300 MiB.
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_body:
                msg = f"the body is larger than {self._max_body} bytes"
                raise ResponseTooLarge(msg)
        return bytes(body)


def _on_death(transport: weakref.ref[Any]) -> None:
    if (found := _watched.pop(transport, None)) is not None:
        _release(*found)


def _release(session: aiohttp.ClientSession, process: int) -> None:
    """Let go of a session that cannot be closed any more, without aiohttp's warnings: its client gives one."""
    if process != os.getpid():
        # Closing it here would take its sockets out of the parent's epoll. It is kept as long as the process.
        _inherited.append(session)
        return
    connector = session.connector
    if connector is not None:
        session.detach()
        # It closes at once; awaiting would only wait for the sockets. TCPConnector's own close does nothing before.
        aiohttp.BaseConnector.close(connector).__await__()
