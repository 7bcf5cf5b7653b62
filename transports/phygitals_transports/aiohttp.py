"""The transport over aiohttp."""

from __future__ import annotations

import asyncio
from typing import Final, cast

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
from phygitals_async.runtime import Affinity
from phygitals_transports.aiohttp_guards import Connector, translate

_MIB: Final = 1024 * 1024

# Sessions of a parent process, which a forked child must neither close nor collect.
_inherited: Final[list[aiohttp.ClientSession]] = []


class AiohttpTransport:
    """Sends requests with aiohttp; runs on asyncio.

    Its session is created on first use, in the loop that uses it. Redirects are not followed, cookies not
    kept, proxies of the environment not used.

    Args:
        session: A session of your own, with its proxies, TLS and cookies; it is not closed here. Give it a connector
            without a limit, or one above the client's `max_in_flight`.
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for one connection to be made.
        trust_env: Whether to use the proxies that the environment variables name.
    """

    _own: aiohttp.ClientSession | None = None

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        max_body: int = 16 * _MIB,
        connect_timeout: float = 10.0,
        trust_env: bool = False,
    ) -> None:
        self._given = session
        self._max_body = max_body
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout)
        self._trust_env = trust_env
        self._affinity = Affinity("this AiohttpTransport")
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        if self._closed or (self._given is not None and self._given.closed):
            msg = "the transport or its aiohttp session was closed"
            raise ClientClosed(msg)
        session = self._session()
        try:
            return await self._exchange(session, request)
        except TransportError as error:
            failure = error
        except (aiohttp.ClientError, OSError) as error:
            failure = translate(error)
        # Raised outside the handlers, without the frames that hold the response: aiohttp's objects print headers.
        raise failure.with_traceback(None)

    async def _exchange(self, session: aiohttp.ClientSession, request: Request) -> Response:
        async with session.request(
            request.method,
            URL(request.url, encoded=True),
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            raise_for_status=False,
            timeout=self._timeout,
        ) as response:
            body = await self._read(response)
            return Response(response.status, response.headers, body)

    async def aclose(self) -> None:
        """Close the session unless it was given."""
        self._closed = True
        if self._affinity.is_inherited:
            self._let_go()
        elif self._own is not None:
            await self._own.close()

    @property
    def is_open(self) -> bool:
        """Whether it holds a session of its own that `aclose()` would close."""
        return self._own is not None and not self._own.closed

    def __del__(self) -> None:
        if self.is_open:
            self._let_go()

    def _let_go(self) -> None:
        """Forget a session that cannot be closed any more, without aiohttp's warnings: its client gives one."""
        session, self._own = self._own, None
        if session is None:
            return
        if self._affinity.is_inherited:
            # Closing it here would take its sockets out of the parent's epoll. It is kept as long as the process.
            _inherited.append(session)
            return
        connector = session.connector
        session.detach()
        # It closes at once; awaiting would only wait for the sockets. TCPConnector's own close does nothing before.
        aiohttp.BaseConnector.close(cast(aiohttp.BaseConnector, connector)).__await__()

    def _session(self) -> aiohttp.ClientSession:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            msg = "AiohttpTransport runs on asyncio only; give the client another transport on this event loop"
            raise ConfigurationError(msg) from None
        if self._given is not None:
            return self._given
        if self._affinity.is_inherited:
            self._let_go()
        if self._affinity.is_over:
            self._let_go()
        self._affinity.must_start_afresh()
        if self._own is not None:
            return self._own
        self._own = aiohttp.ClientSession(
            # The client bounds and times what is in flight: a second queue here would count as the attempt's time.
            connector=Connector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=self._trust_env,
        )
        # Or aiohttp sends a GET a second time, unasked, when the connection dies under it; it has no public switch.
        self._own._retry_connection = False  # noqa: SLF001 - see above.
        return self._own

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        length = response.content_length
        if length is not None and length <= self._max_body and "content-encoding" not in response.headers:
            return await response.read()
        # What arrives is counted as it is decoded: 300 KB of gzip can hold 300 MiB.
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > self._max_body:
                msg = f"the body is larger than {self._max_body} bytes"
                raise ResponseTooLarge(msg)
        return bytes(body)
