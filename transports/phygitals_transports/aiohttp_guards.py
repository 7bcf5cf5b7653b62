"""What keeps aiohttp within a transport's promises: errors in this library's words, each request sent once."""

from __future__ import annotations

import asyncio
import select
import sys
from typing import Any

import aiohttp
import aiohttp.connector

from phygitals_async import ConnectError, ConnectionLost, ProtocolError, TransportError


class GuardedConnector(aiohttp.TCPConnector):
    """A `TCPConnector` for calls that move money; give it to a session of your own.

    It never reuses a connection on which something that nobody asked for has arrived, an answer or its end: aiohttp
    would take it for the answer to the next request. And whatever fails before a connection is made, a proxy included,
    comes out as a failure to connect, for nothing of the request has left then. aiohttp has no public place for either.
    """

    async def _get(self, key: Any, traces: Any) -> aiohttp.connector.Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            protocol = connection.protocol
            transport = None if protocol is None or protocol.should_close else protocol.transport
            if transport is not None and not _has_unread(transport):
                return connection
            connection.close()
        return None

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> Any:
        try:
            return await super()._create_connection(req, traces, timeout)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            failure = translate(error)
        if not isinstance(failure, ConnectError):
            failure = ConnectError(f"no connection: {failure.text}")
        raise failure


def _has_unread(transport: asyncio.Transport) -> bool:
    """Whether something has come in that a busy event loop has not looked at yet."""
    sock = transport.get_extra_info("socket")
    if sys.platform == "win32":  # pragma: no cover - it has no poll, and its select has no limit
        return bool(select.select([sock], [], [], 0)[0])
    readable = select.poll()
    readable.register(sock, select.POLLIN)
    return bool(readable.poll(0))


def translate(error: Exception) -> TransportError:
    """Name the failure in this library's words, keeping only texts that hold no headers."""
    match error:
        case aiohttp.ClientHttpProxyError():
            return ConnectError(f"the proxy refused the connection with status {error.status}")
        case aiohttp.ClientConnectorDNSError():
            return ConnectError("the host name could not be resolved")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ServerFingerprintMismatch():
            return ConnectError("the server's TLS certificate was refused")
        case aiohttp.ClientConnectorSSLError():
            return ConnectError("the TLS handshake failed")
        case aiohttp.ConnectionTimeoutError():
            return ConnectError("no connection within the connect timeout")
        case aiohttp.ClientConnectorError():
            return ConnectError(f"no connection: {error.strerror or 'refused'}")
        case aiohttp.InvalidURL() | UnicodeError():
            return ConnectError("the host name is not a valid one")
        case aiohttp.ClientPayloadError():
            return ConnectionLost("the connection broke inside the body, or the body's encoding is broken")
        case aiohttp.ClientResponseError():
            return ProtocolError("the answer is not well-formed HTTP")
        case aiohttp.ServerDisconnectedError():
            return ConnectionLost("the server closed the connection without an answer")
        case aiohttp.ClientConnectionError() | OSError():
            return ConnectionLost(f"the connection broke: {type(error).__name__}")
        case _:
            return ProtocolError(f"the exchange failed: {type(error).__name__}")
