"""The seam between the core and whatever moves the bytes.

A transport knows nothing of JSON, models, retries, money or the meaning of the API key: it sends one
`Request` and returns one `Response`. Transports wrap transports; that is how recording, caching, tracing
and fault injection are added.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen


@frozen
class Request:
    """One HTTP request, ready to be sent as it stands.

    Its repr shows neither headers (the API key is one of them) nor body (addresses travel there).

    Attributes:
        method: `GET` or `POST`.
        url: Absolute and already percent-encoded. Send it byte for byte: resolving or re-quoting it can
            turn a sandbox call into a production call.
        headers: Header names in the spelling to send.
        body: The bytes to send, or None for no body.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@frozen
class Response:
    """One HTTP response.

    Attributes:
        status: The status code, an int and not an enum: CDNs answer with numbers no enum knows.
        headers: Header names in any case.
        body: The whole body, content encoding removed.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class Transport(Protocol):
    """What the core needs from an HTTP engine."""

    async def send(self, request: Request) -> Response:
        """Send `request` exactly once and return the answer, whatever its status.

        It follows no redirect, keeps no cookie and adds no retry. It sets no limit on the whole exchange:
        the core cancels it at the deadline, and cancellation must pass through.

        Raises:
            ConnectError: No connection was made, so the request was certainly not sent.
            ConnectionLost: The connection broke before the whole answer was read.
            ProtocolError: The answer is not HTTP.
            ResponseTooLarge: The body is larger than the transport's cap.
            ClientClosed: `aclose()` was called before.
            ConfigurationError: The transport does not run on this event loop.
        """
        ...

    async def aclose(self) -> None:
        """Release every connection. Calling it again does nothing."""
        ...
