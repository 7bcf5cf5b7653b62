"""The connector of aiohttp's that sends each request once, and knows whether it was sent at all."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Final, Self, TypeVar

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.connector import Connection
from attrs import define

from phygitals_async import ConfigurationError, ConnectError, ConnectionLost, TransportError
from phygitals_async.transport import Delivery
from phygitals_transports.aiohttp_checks import check_aiohttp
from phygitals_transports.aiohttp_errors import never_sent
from phygitals_transports.aiohttp_making import InterruptibleConnector
from phygitals_transports.aiohttp_resolver import CachingResolver

_FailureT = TypeVar("_FailureT", bound=TransportError)


@define(eq=False)
class Sending:
    """One request on its way through aiohttp.

    It does not hold the request: a connection that is kept has, for its life, the context in which it was made.

    Attributes:
        delivery: How far the request has come.
        fresh_connection: Whether it needs a connection of its own.
        timeout: The very object that goes to `session.request`; it tells this request from those of a hook.
        asked: Whether aiohttp has asked for a connection.
        failure: What this library's own code has said of it. It stands, whatever a hook raises in its place. None again
            once the request is over.
    """

    delivery: Delivery
    fresh_connection: bool
    timeout: aiohttp.ClientTimeout
    asked: bool = False
    failure: TransportError | None = None

    def fails(self, failure: _FailureT) -> _FailureT:
        """Note `failure`, and return it to be raised."""
        self.failure = failure
        return failure


# aiohttp has no argument that reaches the connector with one request.
SENDING: Final[ContextVar[Sending | None]] = ContextVar("phygitals_transports.sending", default=None)


class GuardedConnector(InterruptibleConnector):
    """A `TCPConnector` for calls that move money; give it to a session of your own.

    For the requests of an `AiohttpTransport`, and for no others of the session:

    - A request gets one connection. aiohttp asks for another when it would send a GET a second time, unasked.
    - What fails before there is a connection, DNS, TLS and proxy included, is a `ConnectError`: nothing was sent.
    - A request with `fresh_connection` goes out on a connection made for it. Any other may use a kept one, unless
      something that nobody asked for has arrived on it: aiohttp would take it for the answer.

    A name that was looked up is kept for 10 seconds, or until no connection to it can be made. `limit` holds for fresh
    connections, and for all others, apart.

    Args:
        resolver: What looks names up, by default `aiohttp.ThreadedResolver`. It is not closed here.
        use_dns_cache: Whether to keep what was looked up.
        ttl_dns_cache: For how many seconds; None means for ever.
        settings: Any other argument of `TCPConnector`.

    Raises:
        ConfigurationError: The installed aiohttp lacks something that this rests on.
    """

    # Two leading underscores: with one, an attribute could overwrite one of `TCPConnector`.

    def __init__(
        self,
        *,
        resolver: AbstractResolver | None = None,
        use_dns_cache: bool = True,
        ttl_dns_cache: float | None = 10,
        **settings: Any,
    ) -> None:
        check_aiohttp()
        self.__loop = asyncio.get_running_loop()
        # aiohttp's own default, where aiodns is installed, leaves a thread and four descriptors behind in every loop;
        # and its cache leaves a task behind in every cancelled call.
        inner: AbstractResolver = resolver or aiohttp.ThreadedResolver()
        self.__names = CachingResolver(inner, ttl_dns_cache) if use_dns_cache else None
        settings |= {"use_dns_cache": False, "resolver": self.__names or inner}
        super().__init__(**settings)
        self.__fresh = InterruptibleConnector(**{**settings, "force_close": True, "keepalive_timeout": None})

    @classmethod
    def of(cls, session: object) -> Self | None:
        """Return the connector of a session, or None where the session is closed.

        Raises:
            ConfigurationError: This is no session, or its connector is another.
        """
        if not isinstance(session, aiohttp.ClientSession):
            msg = f"session must be an aiohttp.ClientSession, not {type(session).__name__}"
            raise ConfigurationError(msg)
        if session.connector is None or isinstance(session.connector, cls):
            return session.connector
        msg = "make the aiohttp session with connector=GuardedConnector(limit=0): no other tells what was sent"
        raise ConfigurationError(msg)

    def belongs_to(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it was made in this event loop, the only one that it works in."""
        return self.__loop is loop

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        """Return a connection for `req`, as aiohttp asks for it."""
        sending = SENDING.get()
        if sending is None or sending.timeout is not timeout:
            return await super().connect(req, traces, timeout)
        if sending.asked:
            raise sending.failure or sending.fails(ConnectionLost("the connection broke before the answer came"))
        sending.asked = True
        try:
            with sending.delivery.connecting():
                return await self.__connection(sending, req, traces, timeout)
        except BaseException as error:
            if self.__names is not None:
                # The host may have moved.
                self.__names.forget((req.proxy or req.url).raw_host)
            if not isinstance(error, Exception):
                raise
            failure = never_sent(error)
        raise sending.fails(failure)

    async def __connection(self, sending: Sending, *wanted: Any) -> Connection:
        if not sending.fresh_connection:
            connection = await super().connect(*wanted)
            if not _is_spoilt(connection):
                return connection
            connection.close()
        connection = await self.__fresh.connect(*wanted)
        if _is_spoilt(connection):
            connection.close()
            msg = "no connection: the server spoke or hung up before it was asked"
            raise ConnectError(msg)
        return connection

    def clear_dns_cache(self, host: str | None = None, port: int | None = None) -> None:
        """Forget what was looked up, of `host` or of all; the port makes no difference."""
        if self.__names is not None:
            self.__names.forget(host)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections, and give up those that are being made."""
        self.give_up()
        self.__fresh.give_up()
        try:
            await super().close(abort_ssl=abort_ssl)
        finally:
            await self.__fresh.close(abort_ssl=abort_ssl)

    def close_at_once(self) -> None:
        """Close all connections where nothing can be awaited.

        In a loop that is closed already, what it has left open goes with its last reference.
        """
        for closing in (super().close(), self.__fresh.close()):
            # The first step closes the sockets; the others only wait for the loop to see it.
            with suppress(StopIteration):
                closing.send(None)
            closing.close()


def _is_spoilt(connection: Connection) -> bool:
    """Whether something has arrived on it before a request went out."""
    return connection.protocol is None or connection.protocol.should_close
