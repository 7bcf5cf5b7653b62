"""The failures of aiohttp, and of whatever hooks into it, in this library's words."""

from __future__ import annotations

from typing import Final

import aiohttp
from attrs import field, frozen

from phygitals_async import CertificateRefused, ConnectError, ConnectionLost, ProtocolError, Sent, TransportError
from phygitals_async.transport import Delivery


@frozen
class _Known:
    """A failure that has a text of its own.

    Attributes:
        classes: The exceptions.
        text: The text, formatted with the exception, its host, and the reason for it; it holds no header.
        error: What it is once a request may have been sent.
        never_sent: What it is as long as none was.
        connects: Whether it says by itself that it is about connecting.
    """

    classes: tuple[type[Exception], ...]
    text: str
    error: type[TransportError] = ConnectionLost
    never_sent: type[ConnectError] = field(default=ConnectError, kw_only=True)
    connects: bool = field(default=False, kw_only=True)

    def say(self, error: Exception) -> str:
        """Return the text for `error`."""
        return self.text.format(error, host=getattr(error, "host", None) or "the host", reason=_reason(error))


# The first that fits counts: subclasses come before their bases.
_KNOWN: Final = (
    _Known(
        (aiohttp.ClientHttpProxyError,),
        "the proxy refused the connection with status {0.status}",
        ProtocolError,
        connects=True,
    ),
    _Known((aiohttp.ClientConnectorDNSError,), "the host name {host} could not be resolved: {reason}", connects=True),
    _Known(
        (aiohttp.ClientConnectorCertificateError,),
        "the TLS certificate of {host} was refused: {reason}",
        never_sent=CertificateRefused,
        connects=True,
    ),
    _Known(
        (aiohttp.ServerFingerprintMismatch,),
        "the TLS certificate of {host} was refused: it has another fingerprint",
        never_sent=CertificateRefused,
        connects=True,
    ),
    _Known((aiohttp.ClientConnectorSSLError,), "the TLS handshake with {host} failed: {reason}", connects=True),
    _Known((aiohttp.ConnectionTimeoutError,), "no connection within the connect timeout", connects=True),
    _Known((aiohttp.ClientConnectorError,), "no connection to {host}: {reason}", connects=True),
    _Known((aiohttp.InvalidURL,), "the host name is not a valid one", ProtocolError, connects=True),
    _Known((aiohttp.ClientPayloadError,), "the connection broke inside the body, or the body's encoding is broken"),
    _Known((aiohttp.ClientResponseError,), "the answer is not well-formed HTTP", ProtocolError),
    _Known((aiohttp.ServerDisconnectedError,), "the server closed the connection without an answer"),
    _Known(
        (aiohttp.ClientConnectionError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError),
        "the connection broke: {0.__class__.__name__}",
    ),
)
# Outside the making of a connection, these may be anybody's.
_KNOWN_WHILE_CONNECTING: Final = (
    _Known((TimeoutError,), "no connection within the connect timeout", connects=True),
    _Known((UnicodeError,), "the host name is not a valid one", connects=True),
)


def never_sent(error: Exception) -> ConnectError:
    """Name a failure to make a connection."""
    if isinstance(error, ConnectError):
        return error
    known = _find(error, _KNOWN + _KNOWN_WHILE_CONNECTING)
    if known is None:
        return ConnectError(f"no connection: {type(error).__name__}")
    text = known.say(error)
    return known.never_sent(text if known.connects else f"no connection: {text}")


def translate(error: Exception, delivery: Delivery) -> TransportError:
    """Name a failure of the exchange.

    Hooks raise any class at any moment. So the class of `error` gives the text; whether the request was sent, only
    `delivery` tells. Of an unknown class nothing but its name is told, for its text may hold headers.
    """
    if delivery.sent is Sent.NEVER:
        return never_sent(error)
    known = _find(error, _KNOWN)
    if known is None:
        return TransportError(f"the exchange failed: {type(error).__name__}")
    return known.error(known.say(error))


def _reason(error: Exception) -> str:
    """Return what the system, or the TLS library, says of a failure to connect."""
    inner = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    said = (getattr(inner, name, None) for name in ("verify_message", "reason", "strerror"))
    return next((str(text) for text in said if text), "refused")


def _find(error: Exception, among: tuple[_Known, ...]) -> _Known | None:
    return next((known for known in among if isinstance(error, known.classes)), None)
