"""One exchange in httpx2: the request in its words, how far it has come, and its failures in ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from operator import attrgetter
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpcore2
import httpx2
from attrs import define

from phygitals_async import (
    ConnectError,
    ConnectionLost,
    PhygitalsError,
    ProtocolError,
    Request,
    Response,
    ResponseTooLarge,
    Sent,
    TransportError,
)
from phygitals_async.transport import Delivery

# There is no public way to it.
_HTTP: Final = attrgetter("stream._stream._connection._h11_state")
_NOT_MADE: Final = ("connection.connect_tcp.failed", "connection.start_tls.failed")


def for_engine(request: Request, connect_timeout: float) -> httpcore2.Request:
    """Return `request` for the connection pool, which sends the target as it stands: httpx2's own URLs are quoted."""
    parts = urlsplit(request.url)
    origin = f"{parts.scheme}://{parts.netloc}"
    headers = httpx2.Headers({"Host": parts.netloc, "Accept-Encoding": "gzip, deflate"})
    if request.body is not None:
        headers["Content-Length"] = str(len(request.body))
    headers.update(request.headers)
    return httpcore2.Request(
        request.method,
        httpcore2.URL(
            scheme=parts.scheme,
            host=parts.hostname or "",
            port=parts.port,
            target=request.url.removeprefix(origin) or "/",
        ),
        headers=headers.raw,
        content=request.body,
        extensions={"timeout": {"connect": connect_timeout}, "trace": Progress(request.delivery)},
    )


@define(eq=False)
class Progress:
    """What the code that makes connections and sends requests tells of one request, as it happens.

    httpx2 would send a request again, on another connection, where an HTTP/2 server says that it did not act on it:
    that is for the client to decide.
    """

    delivery: Delivery
    _stream: httpcore2.AsyncNetworkStream | None = None

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        """Note an event; httpx2 does not go on before."""
        if event == "connection.connect_tcp.complete":
            self._stream = info["return_value"]
        elif event in _NOT_MADE:
            self.delivery.failed = True
            if self._stream is not None:
                # httpx2 forgets it where the TLS handshake is cancelled.
                with anyio.CancelScope(shield=True):
                    await self._stream.aclose()
        elif event.endswith("send_request_headers.started"):
            if self.delivery.started:
                msg = "the server gave the request up"
                raise ConnectionLost(msg)
            self.delivery.started = True


async def lifetime(pool: httpcore2.AsyncConnectionPool) -> AsyncGenerator[httpcore2.AsyncConnectionPool]:
    """Close the pool when the event loop closes its asynchronous generators: it tells nobody else that it ends."""
    try:
        yield pool
    finally:
        await pool.aclose()


async def read_answer(received: httpcore2.Response, max_body: int, *, keep: bool) -> Response:
    """Read and decode an answer; `keep` says whether its connection may be kept.

    Raises:
        ResponseTooLarge: The body is larger than `max_body` bytes.
    """
    response = httpx2.Response(received.status, headers=received.headers, stream=_Body(received, keep=keep))
    body = bytearray()
    async with aclosing(response), aclosing(response.aiter_bytes()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > max_body:
                msg = f"the body is larger than {max_body} bytes"
                raise ResponseTooLarge(msg)
    return Response(response.status_code, response.headers, bytes(body))


class _Body(httpx2.AsyncByteStream):
    """The bytes of an answer, for httpx2 to decode; whoever stops reading closes all there is.

    A connection on which more came than the answer is not kept: httpx2 would take that for the next answer.
    """

    def __init__(self, received: httpcore2.Response, *, keep: bool) -> None:
        self._received = received
        self._keep = keep and received.extensions["http_version"] != b"HTTP/2"

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._received.aiter_stream()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def aclose(self) -> None:
        """Give the connection back, or close it where there is more to read."""
        if self._keep:
            http = _HTTP(self._received)
            if http.trailing_data[0]:
                http.send_failed()
        with anyio.CancelScope(shield=True):
            await self._received.aclose()


def translate(error: Exception, delivery: Delivery) -> PhygitalsError:
    """Name a failure of the exchange; whether the request was sent, only `delivery` tells."""
    name = type(error).__name__
    if delivery.sent is Sent.NEVER:
        return ConnectError(f"no connection: {name}")
    if isinstance(error, PhygitalsError):
        return error
    if isinstance(error, httpx2.DecodingError):
        return ConnectionLost("the body's encoding is broken")
    if isinstance(error, httpcore2.RemoteProtocolError) and "connect" not in str(error):
        return ProtocolError("the answer is not well-formed HTTP")
    if isinstance(error, httpcore2.NetworkError | httpcore2.RemoteProtocolError):
        return ConnectionLost(f"the connection broke: {name}")
    return TransportError(f"the exchange failed: {name}")
