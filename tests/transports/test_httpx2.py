"""What is particular to the transport over httpx2: HTTP/2, and what it never does twice."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import h2.exceptions
import httpcore2
import httpx2
import pytest
from attrs import Factory, define
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, StreamEnded

from phygitals_async import ConnectError, ConnectionLost, ProtocolError, Request, Sent, TransportError
from phygitals_async.conformance.certificates import AUTHORITY, server_tls
from phygitals_async.conformance.exchanges import GOOD_BODY, read, sale
from phygitals_async.conformance.faults import reply
from phygitals_async.conformance.peers import Peer
from phygitals_async.conformance.server import FaultServer, Script, fault_server
from phygitals_async.transport import Delivery
from phygitals_transports import Httpx2Transport
from phygitals_transports.httpx2_exchanges import translate

pytestmark = pytest.mark.anyio

Answer = Callable[[H2Connection, int], None]


def _well(connection: H2Connection, stream: int) -> None:
    connection.send_headers(stream, [(":status", "200"), ("retry-after", "3")])
    connection.send_data(stream, GOOD_BODY, end_stream=True)


@define
class Http2:
    """A server that speaks HTTP/2.

    Attributes:
        server: What accepts its connections.
        answer: What it does about each request.
        requests: The number of the connection, the headers and the body of each.
    """

    server: FaultServer
    answer: Answer = _well
    requests: list[tuple[int, dict[str, str], bytes]] = Factory(list)

    async def speak(self, peer: Peer) -> None:
        """Hold one connection."""
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        headers: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytes] = {}
        await peer.send(connection.data_to_send())
        while data := await peer.receive():
            # What is said to it after it has gone away is an error to h2.
            with suppress(h2.exceptions.ProtocolError):
                for event in connection.receive_data(data):
                    if isinstance(event, RequestReceived):
                        assert event.stream_id is not None
                        headers[event.stream_id] = {str(name): str(value) for name, value in event.headers or ()}
                    elif isinstance(event, DataReceived):
                        assert event.stream_id is not None
                        bodies[event.stream_id] = bodies.get(event.stream_id, b"") + (event.data or b"")
                    elif isinstance(event, StreamEnded):
                        assert event.stream_id is not None
                        body = bodies.get(event.stream_id, b"")
                        self.requests.append((peer.number, headers[event.stream_id], body))
                        self.answer(connection, event.stream_id)
            await peer.send(connection.data_to_send())


@asynccontextmanager
async def http2() -> AsyncIterator[tuple[Http2, str]]:
    """Run a server that offers nothing but HTTP/2, and give its address."""
    context = server_tls()
    context.set_alpn_protocols(["h2"])
    async with fault_server(tls=context) as server:
        speaking = Http2(server)
        await server.turn(Script(on_connect=speaking.speak))
        yield speaking, f"https://127.0.0.1:{server.port}"


@asynccontextmanager
async def opened(**settings: bool) -> AsyncIterator[Httpx2Transport]:
    """Give a transport that trusts the server."""
    transport = Httpx2Transport(tls=ssl.create_default_context(cadata=AUTHORITY), **settings)
    yield transport
    await transport.aclose()


async def test_http2_where_the_server_offers_it() -> None:
    """Requests share a connection, and arrive as they stand."""
    async with http2() as (speaking, url), opened() as transport:
        target = "/_/a%2Fb/..%2F?x=%20"
        response = await transport.send(Request("GET", url + target, {"X-API-Key": "k"}))
        assert (response.status, response.body, response.headers["retry-after"]) == (200, GOOD_BODY, "3")
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(transport.send, Request("POST", f"{url}/x", {"X-API-Key": "k"}, b"body"))
    assert {number for number, _, _ in speaking.requests} == {1}
    (_, headers, _), *others = speaking.requests
    assert (headers[":path"], headers[":authority"], headers["x-api-key"]) == (target, url[8:], "k")
    assert [body for _, _, body in others] == [b"body"] * 8


async def test_a_fresh_connection_in_http2() -> None:
    """Each request that needs a connection of its own has one, also while others are under way."""
    async with http2() as (speaking, url), opened() as transport:
        await transport.send(read(url))
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(transport.send, sale(url))
    numbers = [number for number, _, _ in speaking.requests]
    assert len(set(numbers)) == len(numbers) == 5


def _goes_away(connection: H2Connection, stream: int) -> None:
    connection.close_connection(last_stream_id=max(stream - 2, 0))


def _goes_away_later(connection: H2Connection, stream: int) -> None:
    connection.close_connection(last_stream_id=stream)


def _resets(connection: H2Connection, stream: int) -> None:
    connection.reset_stream(stream, ErrorCodes.REFUSED_STREAM)


@pytest.mark.parametrize("answer", [_goes_away, _goes_away_later, _resets])
@pytest.mark.parametrize("warm", [True, False], ids=["kept connection", "new connection"])
@pytest.mark.parametrize("make", [read, sale])
async def test_nothing_is_sent_again_behind_our_back(
    answer: Answer, warm: bool, make: Callable[[str], Request]
) -> None:
    """Not even where the server says that it did not act on the request."""
    async with http2() as (speaking, url), opened() as transport:
        for _ in range(warm):
            await transport.send(read(url))
        speaking.requests.clear()
        speaking.answer = answer
        request = make(url)
        with pytest.raises(TransportError) as caught:
            await transport.send(request)
        assert caught.value.sent is request.delivery.sent is Sent.UNKNOWN
        assert len(speaking.requests) == 1


async def test_http2_can_be_switched_off() -> None:
    """Then it is not offered."""
    offered: list[str | None] = []

    async def note(peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        offered.append(peer.sock.selected_alpn_protocol())
        await peer.close()

    context = server_tls()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with fault_server(GOOD_BODY, tls=context) as server:
        await server.turn(Script(on_connect=note))
        for setting in (True, False):
            async with opened(http2=setting) as transport:
                with pytest.raises(TransportError):
                    await transport.send(read(f"https://127.0.0.1:{server.port}"))
    assert offered == ["h2", "http/1.1"]


_CASES: Final[list[tuple[Exception, type[TransportError]]]] = [
    (httpcore2.ReadError(), ConnectionLost),
    (httpcore2.ConnectError(), ConnectionLost),
    (httpcore2.RemoteProtocolError("Server disconnected without sending a response."), ConnectionLost),
    (httpcore2.RemoteProtocolError("illegal status line"), ProtocolError),
    (httpx2.DecodingError("bad"), ConnectionLost),
    (ConnectionLost("ours"), ConnectionLost),
    (ConnectError("of a hook"), ConnectError),
    (ZeroDivisionError(), TransportError),
]


@pytest.mark.parametrize(("error", "kind"), _CASES, ids=lambda case: repr(case)[:50])
async def test_an_error_says_never_only_where_no_connection_was_made(
    error: Exception, kind: type[TransportError]
) -> None:
    """The class gives the text, and what the code that connects has said decides."""
    assert type(translate(error, Delivery())) is kind
    assert type(translate(error, Delivery(failed=True))) is ConnectError
    assert type(translate(error, Delivery(failed=True, started=True))) is kind


async def test_closed_while_connecting() -> None:
    """It is told apart from what is closed later."""
    connecting = anyio.Event()

    async def accepts(_: Peer) -> None:
        connecting.set()
        await anyio.sleep_forever()

    async with fault_server() as server, opened() as transport:
        await server.turn(Script(on_connect=accepts))

        async def send() -> None:
            with pytest.raises(ConnectError):
                await transport.send(read(f"https://127.0.0.1:{server.port}"))

        async with anyio.create_task_group() as group:
            group.start_soon(send)
            await connecting.wait()
            await transport.aclose()


async def test_a_url_of_another_kind() -> None:
    """It is refused by the engine; whether it was sent is not concluded from that."""
    async with opened() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(Request("GET", "ftp://127.0.0.1/x", {}))
        assert caught.value.sent is Sent.UNKNOWN


async def test_errors_of_the_wire_have_their_classes() -> None:
    """What is no HTTP is told from what broke."""
    expected: list[tuple[bytes, type[TransportError]]] = [
        (b"SSH-2.0\r\n\r\n", ProtocolError),
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nxx", ConnectionLost),
    ]
    async with fault_server() as server, opened() as transport:
        for data, kind in expected:
            await server.turn(reply(data))
            with pytest.raises(kind):
                await transport.send(read(server.url))
