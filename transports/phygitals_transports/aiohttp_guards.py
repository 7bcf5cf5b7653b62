"""What keeps aiohttp within a transport's promises: errors in this library's words, each request sent once."""

from __future__ import annotations

from typing import Any

import aiohttp

from phygitals_async import ConnectError, ConnectionLost, ProtocolError, TransportError


class Connector(aiohttp.TCPConnector):
    """Never reuses a connection on which an answer that nobody asked for has arrived.

    aiohttp would take it for the answer to the next request, money included, and has no public place to say so.
    """

    async def _get(self, key: Any, traces: Any) -> Any:
        for protocol, _ in self._conns.get(key, ()):
            if protocol.should_close:
                protocol.close()
        return await super()._get(key, traces)


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
