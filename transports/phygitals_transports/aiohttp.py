"""The transport over aiohttp."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

import aiohttp
from yarl import URL

from phygitals_async import ClientClosed, ConfigurationError, Request, Response, ResponseTooLarge
from phygitals_async.transport import check_count, check_seconds
from phygitals_transports.aiohttp_bodies import read_body
from phygitals_transports.aiohttp_checks import connector_was_passed_by
from phygitals_transports.aiohttp_connector import SENDING, GuardedConnector, Sending
from phygitals_transports.aiohttp_errors import translate
from phygitals_transports.aiohttp_proxies import proxy_for
from phygitals_transports.aiohttp_sessions import OwnSession

_MIB: Final = 1024 * 1024


class AiohttpTransport:
    """Sends requests with aiohttp; runs on asyncio.

    Its session is created on first use, in the loop that uses it. Redirects are not followed, cookies not kept, proxies
    of the environment not used, and `.netrc` not read.

    Args:
        session: A session of your own, with its proxies, TLS and cookies, made with
            `connector=GuardedConnector(limit=0)`; it is not closed here, and its middlewares are not used.
        max_body: The most bytes of a decoded body.
        connect_timeout: Seconds for one connection to be made, with DNS, TLS and proxy; in a session of your own,
            for the socket alone.
        trust_env: Whether to use the proxies that the environment variables name. A session of your own that does so
            itself counts, too; for it they go before `ClientSession(proxy=)`.

    Raises:
        ConfigurationError: `max_body` or `connect_timeout` is not a positive number, or `session` is no session, or one
            with another connector.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession | None = None,
        *,
        max_body: int = 16 * _MIB,
        connect_timeout: float = 10.0,
        trust_env: bool = False,
    ) -> None:
        self._given = session
        self._connector = None if session is None else GuardedConnector.of(session)
        self._max_body = check_count("max_body", max_body)
        seconds = check_seconds("connect_timeout", connect_timeout)
        # Without a limit on the pool nothing waits for a place, so `connect` is the making of the connection alone.
        self._timeout = (
            aiohttp.ClientTimeout(total=None, connect=seconds)
            if session is None
            else aiohttp.ClientTimeout(total=None, sock_connect=seconds)
        )
        self._trust_env = trust_env or (session is not None and session.trust_env)
        self._own = OwnSession(_new_session, "this AiohttpTransport")
        self._closed = False
        self._doubt: ConfigurationError | None = None

    async def send(self, request: Request) -> Response:
        """Send `request` once; see `phygitals_async.Transport`."""
        session = self._session()
        sending = Sending(request.delivery, request.fresh_connection, self._timeout)
        token = SENDING.set(sending)
        try:
            response = await self._exchange(session, request, sending)
        except Exception as error:  # noqa: BLE001 - hooks raise anything, also after a purchase was made.
            failure = sending.failure or translate(error, request.delivery)
        else:
            if not sending.asked:
                self._doubt = connector_was_passed_by()
            return response
        finally:
            sending.failure = None
            # A coroutine that was left behind is closed in whatever context the garbage collector runs.
            with suppress(ValueError):
                SENDING.reset(token)
        # Raised outside the handler, without the frames that hold the response: aiohttp's objects print headers.
        raise failure.with_traceback(None)

    async def aclose(self) -> None:
        """Close the session unless it was given."""
        self._closed = True
        await self._own.aclose()

    @property
    def is_open(self) -> bool:
        """Whether it has made a session of its own that `aclose()` has not closed yet."""
        return self._own.session is not None

    def _session(self) -> aiohttp.ClientSession:
        if self._closed or (self._given is not None and self._given.closed):
            msg = "the transport or its aiohttp session was closed"
            raise ClientClosed(msg)
        if self._doubt is not None:
            raise ConfigurationError(self._doubt.text)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "AiohttpTransport runs on asyncio only; give the client another transport on this event loop"
            raise ConfigurationError(msg) from None
        if self._given is None:
            return self._own.get()
        # aiohttp would send the request first and fail then.
        if self._connector is not None and not self._connector.belongs_to(loop):
            msg = "the aiohttp session given to this AiohttpTransport belongs to another event loop"
            raise ConfigurationError(msg)
        return self._given

    async def _exchange(self, session: aiohttp.ClientSession, request: Request, sending: Sending) -> Response:
        url = URL(request.url, encoded=True)
        response = await session.request(
            request.method,
            url,
            headers=request.headers,
            data=request.body,
            proxy=proxy_for(url, request.delivery) if self._trust_env else None,
            allow_redirects=False,
            raise_for_status=False,
            auto_decompress=True,
            middlewares=(),
            timeout=self._timeout,
        )
        try:
            body = await read_body(response, self._max_body)
        except BaseException:
            response.close()
            raise
        if body is None:
            raise sending.fails(ResponseTooLarge(f"the body is larger than {self._max_body} bytes"))
        return Response(response.status, response.headers, body)


def _new_session() -> aiohttp.ClientSession:
    # The client bounds and times what is in flight: a second queue here would count as the attempt's time.
    return aiohttp.ClientSession(connector=GuardedConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar())
