"""The transport over httpx2."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import anyio

from phygitals_async import ClientClosed, ConnectionLost, Request, Response
from phygitals_async.transport import Affinity, check_count, check_seconds
from phygitals_transports.extras import is_installed, require

if TYPE_CHECKING or is_installed("httpx2"):
    import httpcore2
    import httpx2

    from phygitals_transports.httpx2_exchanges import for_engine, lifetime, read_answer, translate


class Httpx2Transport:
    """Sends requests with httpx2, over its connection pool; runs on asyncio and trio.

    It speaks HTTP/2 where the server offers it. Redirects are not followed, cookies not kept, and proxies of the
    environment not used.

    Args:
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for TCP and for TLS, each.
        http2: Whether to offer HTTP/2.
        tls: TLS settings of your own, for this transport alone.

    Raises:
        ConfigurationError: httpx2 is not installed, or `max_body` or `connect_timeout` is not a positive number.
    """

    def __init__(
        self,
        *,
        max_body: int = 16 * 2**20,
        connect_timeout: float = 10.0,
        http2: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        require("httpx2", "httpx2", "h2")
        self._max_body = check_count("max_body", max_body)
        self._connect_timeout = check_seconds("connect_timeout", connect_timeout)
        self._http2 = http2
        self._tls = tls
        self._affinity = Affinity("this Httpx2Transport")
        self._kept: httpcore2.AsyncConnectionPool | None = None
        self._under_way: set[anyio.CancelScope] = set()
        self._closed = False

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        if self._closed:
            msg = "the transport was closed"
            raise ClientClosed(msg)
        if self._affinity.must_start_afresh() or self._kept is None:
            self._lifetime = lifetime(self._pool())
            self._kept = await anext(self._lifetime)
        failure: Exception = ConnectionLost("the transport was closed before the answer came")
        self._under_way.add(scope := anyio.CancelScope())
        try:
            with scope:
                if not request.fresh_connection:
                    return await self._exchange(self._kept, request)
                async with self._pool() as fresh:
                    return await self._exchange(fresh, request)
        except Exception as error:  # noqa: BLE001 - what it is, and whether the request was sent, is told apart below.
            failure = error
        finally:
            self._under_way.discard(scope)
        # Raised outside the handler, without the frames that hold the request's headers.
        raise translate(failure, request.delivery).with_traceback(None)

    async def aclose(self) -> None:
        """End what is under way, and close all connections."""
        self._closed = True
        kept, self._kept = self._kept, None
        if kept is not None and not self._affinity.must_start_afresh():
            for scope in self._under_way:
                scope.cancel()
            await self._lifetime.aclose()

    def _pool(self) -> httpcore2.AsyncConnectionPool:
        self._tls = self._tls or httpx2.create_ssl_context()
        # The client bounds what is in flight.
        return httpcore2.AsyncConnectionPool(self._tls, max_connections=None, keepalive_expiry=15.0, http2=self._http2)

    async def _exchange(self, pool: httpcore2.AsyncConnectionPool, request: Request) -> Response:
        received = await pool.handle_async_request(for_engine(request, self._connect_timeout))
        return await read_answer(received, self._max_body, keep=not request.fresh_connection)
