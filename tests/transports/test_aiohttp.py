"""The aiohttp transport over real sockets: the bytes it sends, what it reads, and how failures come out."""

from __future__ import annotations

import asyncio
import gc
import gzip
import math
import socket
import ssl
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import anyio
import pytest
import trustme
from attrs import evolve, frozen

from aiohttp_support import KEY, assert_plain, get, opened, sale, until
from phygitals_async import (
    CertificateRefused,
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    Sent,
    TransportError,
    UserNotFound,
)
from phygitals_async.conformance.server import free_port
from phygitals_transports import AiohttpTransport, GuardedConnector
from phygitals_transports.aiohttp_server import serve
from raw_server import RawServer, Step, answer, raw_server
from support import inventory_of

INVENTORY = b'{"user_id":"u","items":[]}'
PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give a certificate authority that nobody knows."""
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """Give a server's TLS settings for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


# ---------------------------------------------------------------------------------------------------------
# What is sent


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("user_id", "segment"),
    [
        ("plain", b"plain"),
        ("a/b", b"a%2Fb"),
        ("/", b"%2F"),
        ("../../vm/buyback", b"..%2F..%2Fvm%2Fbuyback"),
        ("a b", b"a%20b"),
        ("a+b", b"a%2Bb"),
        ("v1|1|0", b"v1%7C1%7C0"),
        ("%2e%2e", b"%252e%252e"),
        ("%", b"%25"),
        ("a?b=c&d", b"a%3Fb%3Dc%26d"),
        ("a#b", b"a%23b"),
        ("a;b,c:d@e", b"a%3Bb%2Cc%3Ad%40e"),
        ("a\\b", b"a%5Cb"),
        ("...", b"..."),
        ("\r\nX-Evil: 1", b"%0D%0AX-Evil%3A%201"),
        ("\x00", b"%00"),
        ("🃏", b"%F0%9F%83%8F"),
        ("é", b"%C3%A9"),
        ("e\u0301", b"e%CC%81"),
        ("x" * 4096, b"x" * 4096),
        ("🃏" * 1024, b"%F0%9F%83%8F" * 1024),
    ],
    ids=lambda value: repr(value)[:24],
)
async def test_request_line_of_an_id(user_id: str, segment: bytes) -> None:
    """An id is one percent-encoded segment on the wire, below the base's `/_`, to the byte."""
    async with (
        raw_server(answer(200, inventory_of(user_id).body)) as server,
        PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=f"{server.url}/_") as api,
    ):
        await api.get_inventory(user_id)
    assert server.request_lines == [b"GET /_/api/v1/inventory/" + segment + b" HTTP/1.1"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "target",
    [
        "/_/api/v1/inventory/u",
        "/_//api/v1/inventory//u/",
        "/_/a/./b/../c",
        "/_/a/%2e/b/%2E%2E/c",
        "/_/a%2fb/a%2Fb",
        "/_/%7Euser/~user/%41",
        "/_/a'b(c)*!$&,;=:@|",
        "/_/x?a=%20+&b=1&b=2&c",
        "/",
    ],
)
async def test_target_is_sent_byte_for_byte(target: str) -> None:
    """An encoded URL is neither resolved nor re-quoted on its way."""
    async with raw_server() as server, opened() as transport:
        await transport.send(get(server.url + target))
    assert server.request_lines == [f"GET {target} HTTP/1.1".encode()]


@pytest.mark.asyncio
async def test_headers_are_sent_once_each_and_no_cookies() -> None:
    """Each header goes out once, in the given spelling, and a cookie that was set never comes back."""
    cookie = answer(200, b"", {"Set-Cookie": "session=1; Path=/"})
    async with raw_server(cookie) as server, opened() as transport:
        for _ in range(3):
            # Cookie jars pass over servers without a name.
            await transport.send(get(f"http://localhost:{server.port}/x"))
    assert len(server.received) == 3
    for index in range(3):
        lines = server.header_lines(index)
        names = [line.partition(b":")[0].lower() for line in lines]
        assert sorted(names) == sorted(set(names))
        assert set(names) == {b"host", b"x-api-key", b"accept", b"user-agent", b"accept-encoding"}
        assert f"Host: localhost:{server.port}".encode() in lines
        assert f"X-API-Key: {KEY}".encode() in lines
        assert b"Accept: application/json" in lines
        assert b"User-Agent: test/1" in lines


@pytest.mark.asyncio
async def test_body_is_sent_as_it_stands() -> None:
    """A POST carries its bytes and their length, unchanged and once."""
    body = b'{"item_id":"v1|1|0"}'
    async with raw_server() as server, opened() as transport:
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        await transport.send(Request("POST", f"{server.url}/_/api/v1/vm/buyback", headers, body))
    (request,) = server.received
    assert request.startswith(b"POST /_/api/v1/vm/buyback HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\n" + body)
    content = [line for line in server.header_lines() if line.lower().startswith(b"content-")]
    assert sorted(content) == [f"Content-Length: {len(body)}".encode(), b"Content-Type: application/json"]


@pytest.mark.asyncio
@pytest.mark.parametrize("elsewhere", [False, True], ids=["same origin", "another origin"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
async def test_redirects_are_not_followed(status: int, method: str, elsewhere: bool) -> None:
    """A redirect is an answer like any other; nothing at all goes to where it points."""
    async with raw_server() as target, opened() as transport:
        location = f"{target.url}/moved" if elsewhere else "/moved"
        async with raw_server(answer(status, b"", {"Location": location}), answer(200, b"followed")) as server:
            body = b"{}" if method == "POST" else None
            response = await transport.send(evolve(get(f"{server.url}/x"), method=method, body=body))
        assert response.status == status
        assert response.headers["location"] == location
        assert len(server.received) == 1
        assert (target.connections, target.received) == (0, [])


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_client_refuses_redirects(status: int) -> None:
    """The client raises RedirectRefused, and the key is seen by the configured origin only."""
    async with raw_server() as target:
        step = answer(status, b"", {"Location": f"{target.url}/_/api/v1/inventory/u"})
        async with (
            raw_server(step) as server,
            PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=f"{server.url}/_") as api,
        ):
            with pytest.raises(RedirectRefused) as caught:
                await api.get_inventory("u")
        assert caught.value.status == status
        assert caught.value.sent is Sent.YES
        assert len(server.received) == 1
        assert target.connections == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("upper", [True, False], ids=["upper", "lower"])
async def test_proxies_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, upper: bool) -> None:
    """By default no variable can lead the key to a proxy."""
    async with raw_server() as proxy, raw_server(answer(200, b"direct")) as server, opened() as transport:
        for name in PROXY_VARIABLES[:3]:
            monkeypatch.setenv(name.upper() if upper else name, proxy.url)
        response = await transport.send(get(f"{server.url}/x"))
        assert response.body == b"direct"
        assert proxy.connections == 0
    assert len(server.received) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
async def test_trust_env_uses_the_proxy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """With trust_env the request goes to the proxy, its URL whole and unchanged."""
    async with raw_server(answer(200, b"proxied")) as proxy, opened(trust_env=True) as transport:
        monkeypatch.setenv(name, proxy.url)
        response = await transport.send(get("http://partner.invalid/_/api/v1/inventory/a%2Fb%7C"))
    assert response.body == b"proxied"
    assert proxy.request_lines == [b"GET http://partner.invalid/_/api/v1/inventory/a%2Fb%7C HTTP/1.1"]


@pytest.mark.asyncio
async def test_trust_env_all_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """ALL_PROXY is a variable aiohttp does not read: the connection is direct even with trust_env."""
    async with raw_server() as proxy, raw_server() as server, opened(trust_env=True) as transport:
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        await transport.send(get(f"{server.url}/x"))
        assert (proxy.connections, len(server.received)) == (0, 1)


@pytest.mark.asyncio
async def test_trust_env_honours_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """With trust_env, NO_PROXY keeps a host direct."""
    async with raw_server() as proxy, raw_server() as server, opened(trust_env=True) as transport:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        await transport.send(get(f"{server.url}/x"))
        assert (proxy.connections, len(server.received)) == (0, 1)


# ---------------------------------------------------------------------------------------------------------
# What is read

CAP = 1000


def chunked(body: bytes, *headers: bytes) -> Step:
    """Return a chunked answer, in chunks of at most 400 bytes."""
    pieces = [body[start : start + 400] for start in range(0, len(body), 400)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    lines = [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked", *headers]
    return Step(b"\r\n".join(lines) + b"\r\n\r\n" + chunks, "keep")


def until_eof(body: bytes, *headers: bytes) -> Step:
    """Return an answer that ends with the connection."""
    return Step(b"\r\n".join([b"HTTP/1.1 200 OK", *headers]) + b"\r\n\r\n" + body, "close")


def zipped(body: bytes) -> Step:
    """Return a gzip answer."""
    return answer(200, gzip.compress(body), {"Content-Encoding": "gzip"})


FRAMINGS: dict[str, Callable[[bytes], Step]] = {
    "length": lambda body: answer(200, body),
    "chunked": chunked,
    "eof": until_eof,
    "gzip": zipped,
    "gzip chunked": lambda body: chunked(gzip.compress(body), b"Content-Encoding: gzip"),
    "deflate": lambda body: answer(200, zlib.compress(body), {"Content-Encoding": "deflate"}),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [0, 1, CAP - 1, CAP])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_bodies_up_to_the_cap_are_read(framing: str, size: int) -> None:
    """A body of at most the cap is returned whole, decoded, however it is framed."""
    body = (bytes(range(256)) * 4)[:size]
    async with raw_server(FRAMINGS[framing](body)) as server, opened(max_body=CAP) as transport:
        response = await transport.send(get(f"{server.url}/x"))
    assert type(response.body) is bytes
    assert response.body == body


@pytest.mark.asyncio
@pytest.mark.parametrize("size", [CAP + 1, 100 * CAP])
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_bodies_over_the_cap_are_refused(framing: str, size: int) -> None:
    """A body of one byte over the cap is refused, and the transport stays usable."""
    body = (bytes(range(256)) * 400)[:size]
    async with (
        raw_server(FRAMINGS[framing](body), answer(200, b"next")) as server,
        opened(max_body=CAP) as transport,
    ):
        with pytest.raises(ResponseTooLarge, match="1000 bytes") as caught:
            await transport.send(get(f"{server.url}/x"))
        assert caught.value.sent is Sent.YES
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert (await transport.send(get(f"{server.url}/x"))).body == b"next"
    assert len(server.received) == 2


@pytest.mark.asyncio
async def test_an_endless_body_is_cut() -> None:
    """Reading stops at the cap: it does not wait for an end that never comes."""
    start = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * (CAP + 1)
    async with raw_server(Step(start, "hang")) as server, opened(max_body=CAP) as transport:
        with pytest.raises(ResponseTooLarge):
            await transport.send(get(f"{server.url}/x"))
        # Its connection is given up, not drained.
        await server.departure()


@pytest.mark.asyncio
async def test_a_gzip_bomb_is_not_inflated() -> None:
    """Hundreds of MiB in a small gzip body are refused without ever being held."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1024 * 1024)
    bomb = b"".join(deflater.compress(block) for _ in range(256)) + deflater.flush()
    step = answer(200, bomb, {"Content-Encoding": "gzip"})
    async with raw_server(step) as server, opened(max_body=1024 * 1024) as transport:
        tracemalloc.start()
        try:
            with pytest.raises(ResponseTooLarge):
                await transport.send(get(f"{server.url}/x"))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


@pytest.mark.asyncio
async def test_default_cap() -> None:
    """Unless told otherwise a transport takes 16 MiB and not a byte more."""
    cap = 16 * 1024 * 1024
    transport = AiohttpTransport()
    async with raw_server(answer(200, bytes(cap)), answer(200, bytes(cap + 1))) as server:
        assert len((await transport.send(get(f"{server.url}/x"))).body) == cap
        with pytest.raises(ResponseTooLarge):
            await transport.send(get(f"{server.url}/x"))
    await transport.aclose()


@pytest.mark.asyncio
async def test_interim_answers_are_skipped() -> None:
    """A `100 Continue` is not taken for the answer."""
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"
    async with raw_server(Step(data)) as server, opened() as transport:
        response = await transport.send(get(f"{server.url}/x"))
    assert (response.status, response.body) == (404, b"abc")


# ---------------------------------------------------------------------------------------------------------
# The session and its life


@pytest.mark.asyncio
async def test_a_given_session_is_used_and_left_open() -> None:
    """A session that was given sends the requests, with its own settings, and is not closed."""
    async with (
        raw_server() as server,
        aiohttp.ClientSession(
            connector=GuardedConnector(limit=0), headers={"X-Mine": "1"}, raise_for_status=True
        ) as session,
    ):
        transport = AiohttpTransport(session)
        await transport.send(get(f"{server.url}/x"))
        assert b"X-Mine: 1" in server.header_lines()
        await transport.aclose()
        with pytest.raises(ClientClosed):
            await transport.send(get(f"{server.url}/x"))
        assert not session.closed
        async with session.get(f"{server.url}/mine") as response:
            assert response.status == 200
    assert len(server.received) == 2


@pytest.mark.asyncio
async def test_a_given_session_does_not_raise_for_status_nor_follow() -> None:
    """Whatever the session's habits, a status is returned and a redirect not followed."""
    async with (
        raw_server(answer(404, b"no"), answer(302, b"", {"Location": "/moved"})) as server,
        aiohttp.ClientSession(connector=GuardedConnector(limit=0), raise_for_status=True) as session,
        opened(session) as transport,
    ):
        assert (await transport.send(get(f"{server.url}/x"))).status == 404
        assert (await transport.send(get(f"{server.url}/x"))).status == 302
    assert len(server.received) == 2


@pytest.mark.asyncio
async def test_a_session_closed_by_its_owner() -> None:
    """When the owner has closed the session, send raises ClientClosed."""
    session = aiohttp.ClientSession(connector=GuardedConnector(limit=0))
    transport = AiohttpTransport(session)
    await session.close()
    with pytest.raises(ClientClosed, match="closed"):
        await transport.send(get("http://127.0.0.1/x"))
    await transport.aclose()


@pytest.mark.asyncio
async def test_own_session_is_closed() -> None:
    """Closing the transport closes its connections and leaves nothing for the garbage collector to warn of."""
    async with raw_server() as server:
        transport = AiohttpTransport()
        await transport.send(get(f"{server.url}/x"))
        await transport.aclose()
        await server.departure()
        assert_nothing_left_open(transport)


@pytest.mark.asyncio
async def test_closed_before_first_use_opens_nothing() -> None:
    """A send refused after aclose opens no session that nobody would ever close."""
    transport = AiohttpTransport()
    await transport.aclose()
    with pytest.raises(ClientClosed):
        await transport.send(get("http://127.0.0.1/x"))
    assert_nothing_left_open(transport)


@pytest.mark.asyncio
async def test_is_open_tells_what_aclose_would_close() -> None:
    """It is open from its first use to its end; a session that was given does not count."""
    async with raw_server() as server, aiohttp.ClientSession(connector=GuardedConnector(limit=0)) as session:
        given = AiohttpTransport(session)
        await given.send(get(f"{server.url}/x"))
        assert not given.is_open
        transport = AiohttpTransport()
        assert not transport.is_open
        await transport.send(get(f"{server.url}/x"))
        assert transport.is_open
        await transport.aclose()
        assert not transport.is_open


@pytest.mark.asyncio
async def test_a_forgotten_transport_hangs_up() -> None:
    """A transport that nobody holds any more closes its connections, and aiohttp does not complain."""
    async with raw_server() as server:
        transport = AiohttpTransport()
        await transport.send(get(f"{server.url}/x"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del transport
            gc.collect()
        assert [str(warning.message) for warning in caught] == []
        await server.departure()


def test_a_transport_that_was_never_made() -> None:
    """A mistaken argument is a TypeError and nothing else."""
    with pytest.raises(TypeError, match="unknown"):
        # The mistake that is tested is one that the checkers see, too.
        AiohttpTransport(unknown=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    gc.collect()


async def send_to_a_new_server(transport: AiohttpTransport) -> bytes:
    """Run a server in this loop, and send one request to it."""
    async with raw_server(answer(200, b"ok")) as server:
        return (await transport.send(get(f"{server.url}/x"))).body


@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_one_event_loop_after_another(rounds: int) -> None:
    """A transport that outlives its loop starts afresh in the next, and ends without leaving anything open."""
    transport = AiohttpTransport()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(rounds):
            assert asyncio.run(send_to_a_new_server(transport)) == b"ok"
        asyncio.run(transport.aclose())
        assert not transport.is_open
        with pytest.raises(ClientClosed):
            asyncio.run(send_to_a_new_server(transport))
        del transport
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_a_forgotten_transport_of_ended_loops() -> None:
    """Neither does one that is forgotten after its loops have ended."""
    transport = AiohttpTransport()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            assert asyncio.run(send_to_a_new_server(transport)) == b"ok"
        del transport
        gc.collect()
    assert [str(warning.message) for warning in caught] == []


def test_two_event_loops_in_turn() -> None:
    """A transport left by a loop that stopped serves the next, with a session of its own, and the first again."""
    transport = AiohttpTransport()
    with asyncio.Runner() as first:
        assert first.run(send_to_a_new_server(transport)) == b"ok"
        left = transport._own.session
        assert left is not None
        with asyncio.Runner() as second, pytest.warns(RuntimeWarning, match="this AiohttpTransport was left by"):
            assert second.run(send_to_a_new_server(transport)) == b"ok"
        assert left.closed
        assert first.run(send_to_a_new_server(transport)) == b"ok"
        first.run(transport.aclose())


def assert_nothing_left_open(transport: AiohttpTransport) -> None:
    """See that the transport has closed its session, if it ever had one."""
    session = transport._own.session
    assert session is None or session.closed


def test_nothing_is_opened_before_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport and a client can be made where no event loop runs; they open nothing."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(aiohttp, "ClientSession", refuse)
    monkeypatch.setattr(aiohttp, "TCPConnector", refuse)
    transport = AiohttpTransport()
    client = PhygitalsClient(api_key=KEY)
    asyncio.run(transport.aclose())
    asyncio.run(client.aclose())


@pytest.mark.asyncio
async def test_default_transport_of_a_client() -> None:
    """A client without a transport sends over aiohttp, and closes what it opened."""
    async with raw_server(answer(200, INVENTORY)) as server:
        async with PhygitalsClient(api_key=KEY, base_url=server.url) as api:
            assert (await api.get_inventory("u")).user_id == "u"
        await server.departure()


@pytest.mark.asyncio
async def test_connections_are_reused() -> None:
    """Sends one after another share one connection."""
    async with raw_server(answer(200, b"ok")) as server, opened() as transport:
        for number in range(5):
            assert (await transport.send(get(f"{server.url}/{number}"))).body == b"ok"
    assert (server.connections, len(server.received)) == (1, 5)


@pytest.mark.asyncio
async def test_no_queue_of_its_own() -> None:
    """However many sends are under way, each gets its connection: the client alone bounds them."""
    count = 120
    gate = asyncio.Event()
    async with raw_server(evolve(answer(200, b"ok"), gate=gate)) as server, opened() as transport:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            sends = [group.create_task(transport.send(get(f"{server.url}/{number}"))) for number in range(count)]
            for _ in range(count):
                await server.arrival()
            gate.set()
        assert [send.result().body for send in sends] == [b"ok"] * count
        assert (server.connections, len(server.received)) == (count, count)


@pytest.mark.asyncio
async def test_a_given_session_may_limit_connections() -> None:
    """A given session's connector keeps its own limit, and calls beyond it use the connections in turn."""
    gate = asyncio.Event()
    async with (
        raw_server(evolve(answer(200, b"ok"), gate=gate)) as server,
        aiohttp.ClientSession(connector=GuardedConnector(limit=2)) as session,
        opened(session) as transport,
    ):
        async with asyncio.TaskGroup() as group:
            sends = [group.create_task(transport.send(get(f"{server.url}/{number}"))) for number in range(6)]
            await server.arrival()
            await server.arrival()
            gate.set()
        assert [send.result().body for send in sends] == [b"ok"] * 6
        assert (server.connections, len(server.received)) == (2, 6)


@pytest.mark.asyncio
async def test_cancelling_hangs_up() -> None:
    """A cancelled send gives up its connection and lets the cancellation through."""
    async with raw_server(Step(then="hang"), answer(200, b"next")) as server, opened() as transport:
        task = asyncio.create_task(transport.send(get(f"{server.url}/x")))
        await server.arrival()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.departure()
        assert (await transport.send(get(f"{server.url}/x"))).body == b"next"
    assert len(server.received) == 2


@pytest.mark.asyncio
async def test_closing_while_a_send_is_under_way() -> None:
    """A send that aclose cuts off ends in an error of this library, and is sent no second time."""
    async with raw_server(Step(then="hang")) as server:
        transport = AiohttpTransport()
        task = asyncio.create_task(transport.send(get(f"{server.url}/x")))
        await server.arrival()
        await transport.aclose()
        with pytest.raises(PhygitalsError) as caught:
            await task
        assert caught.value.sent is not Sent.NEVER or isinstance(caught.value, ClientClosed)
        assert len(server.received) == 1


@pytest.mark.asyncio
async def test_the_deadline_cuts_a_silent_server() -> None:
    """The client's deadline ends a call that a server leaves without answer."""
    async with (
        raw_server(Step(then="hang")) as server,
        PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=server.url, deadline=0.05) as api,
    ):
        with pytest.raises(DeadlineExceeded) as caught:
            await api.get_inventory("u")
    assert caught.value.sent is Sent.UNKNOWN


def test_trio_is_refused() -> None:
    """On trio a send is refused with a text that says what to do, and nothing is opened."""

    async def main() -> None:
        transport = AiohttpTransport()
        with pytest.raises(ConfigurationError, match="asyncio only") as caught:
            await transport.send(get("http://127.0.0.1/x"))
        assert "another transport" in str(caught.value)
        assert caught.value.__cause__ is None
        await transport.aclose()
        async with PhygitalsClient(api_key=KEY, base_url="http://127.0.0.1:9") as api:
            with pytest.raises(ConfigurationError, match=r"get_inventory: .*asyncio only") as caught:
                await api.get_inventory("u")
            assert caught.value.sent is Sent.NEVER

    anyio.run(main, backend="trio")


def test_trio_is_refused_with_a_session_that_exists() -> None:
    """A session made on asyncio, given or own, does not let a send on trio run into aiohttp's own errors."""

    async def on_asyncio() -> tuple[aiohttp.ClientSession, AiohttpTransport]:
        own = AiohttpTransport()
        async with raw_server() as server:
            await own.send(get(f"{server.url}/x"))
        return aiohttp.ClientSession(connector=GuardedConnector(limit=0)), own

    async def on_trio() -> None:
        for transport in (AiohttpTransport(session), own):
            with pytest.raises(ConfigurationError, match="asyncio only"):
                await transport.send(get("http://127.0.0.1:9/x"))

    with asyncio.Runner() as runner:
        session, own = runner.run(on_asyncio())
        try:
            anyio.run(on_trio, backend="trio")
        finally:
            runner.run(session.close())
            runner.run(own.aclose())


# ---------------------------------------------------------------------------------------------------------
# How failures come out


@frozen
class Failure:
    """A way an exchange can fail.

    Attributes:
        step: What the server does.
        raises: The class that must come out, exactly.
    """

    step: Step
    raises: type[TransportError]


def raw(head: bytes, body: bytes = b"", *, reset: bool = False) -> Step:
    """Return an answer whose header lines are given after the status line."""
    return Step(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body, "reset" if reset else "close")


GZIP = gzip.compress(INVENTORY * 20)
CHUNKED = b"Transfer-Encoding: chunked"
LENGTH_60_GZIP = b"Content-Encoding: gzip\r\nContent-Length: 60"

FAILURES = {
    "closed without an answer": Failure(Step(), ConnectionLost),
    "reset": Failure(Step(then="reset"), ConnectionLost),
    "head cut short": Failure(Step(b"HTTP/1.1 200 OK\r\nContent-Le"), ConnectionLost),
    "body cut short": Failure(raw(b"Content-Length: 10", b"abc"), ConnectionLost),
    "body reset": Failure(raw(b"Content-Length: 10", b"abc", reset=True), ConnectionLost),
    "large body cut short": Failure(raw(b"Content-Length: 2000000", b"abc"), ConnectionLost),
    "chunk cut short": Failure(raw(CHUNKED, b"5\r\nabc"), ConnectionLost),
    "last chunk missing": Failure(raw(CHUNKED, b"3\r\nabc\r\n"), ConnectionLost),
    "gzip cut short": Failure(raw(LENGTH_60_GZIP, GZIP[:30]), ConnectionLost),
    "gzip in chunks cut short": Failure(
        raw(CHUNKED + b"\r\nContent-Encoding: gzip", b"14\r\n" + GZIP[:20] + b"\r\n"), ConnectionLost
    ),
    "not gzip": Failure(answer(200, b"x" * 30, {"Content-Encoding": "gzip"}), ConnectionLost),
    "gzip with a wrong checksum": Failure(
        answer(200, GZIP[:-8] + bytes(8), {"Content-Encoding": "gzip"}), ConnectionLost
    ),
    "bad chunk size": Failure(raw(CHUNKED, b"ZZ\r\nabc\r\n0\r\n\r\n"), ProtocolError),
    "bad second chunk size": Failure(raw(CHUNKED, b"3\r\nabc\r\nZZ\r\n\r\n"), ProtocolError),
    "two lengths": Failure(raw(b"Content-Length: 3\r\nContent-Length: 4", b"abcd"), ProtocolError),
    "length and chunks": Failure(raw(b"Content-Length: 3\r\n" + CHUNKED, b"4\r\nabcd\r\n0\r\n\r\n"), ProtocolError),
    "negative length": Failure(raw(b"Content-Length: -3", b"abc"), ProtocolError),
    "NUL in a header": Failure(raw(b"X-A: a\0b\r\nContent-Length: 0"), ProtocolError),
    "endless header": Failure(raw(b"X-A: " + b"a" * 100_000), ProtocolError),
    "garbage status line": Failure(Step(b"lorem ipsum\r\n\r\n"), ProtocolError),
    "another protocol": Failure(Step(b"SSH-2.0-OpenSSH_9.6\r\n"), ProtocolError),
    "HTTP/2 status line": Failure(Step(b"HTTP/2 200\r\ncontent-length: 0\r\n\r\n"), ProtocolError),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", FAILURES)
async def test_failures_after_sending(name: str) -> None:
    """A broken answer becomes one plain error that does not claim that nothing was sent."""
    failure = FAILURES[name]
    async with raw_server(failure.step, answer(200, b"next")) as server, opened() as transport:
        with pytest.raises(failure.raises) as caught:
            await transport.send(get(f"{server.url}/x"))
        assert type(caught.value) is failure.raises
        assert caught.value.sent is Sent.UNKNOWN
        assert str(caught.value)
        assert_plain(caught.value)
        # The connection is not used again: the next answer belongs to the next request.
        assert (await transport.send(get(f"{server.url}/y"))).body == b"next"
    assert server.request_lines == [b"GET /x HTTP/1.1", b"GET /y HTTP/1.1"]


@pytest.mark.asyncio
@pytest.mark.parametrize("step", [Step(), Step(then="reset"), Step(b"HTTP/1.1 200 OK\r\nX")], ids=["end", "rst", "cut"])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("reused", [False, True], ids=["new connection", "kept connection"])
async def test_a_lost_request_is_sent_exactly_once(step: Step, method: str, reused: bool) -> None:
    """One send is one request on the wire, even where aiohttp would try again unasked."""
    warm = [answer(200, b"warm")] if reused else []
    async with raw_server(*warm, step) as server, opened() as transport:
        if reused:
            await transport.send(get(f"{server.url}/warm"))
        body = b"{}" if method == "POST" else None
        with pytest.raises(ConnectionLost):
            await transport.send(evolve(get(f"{server.url}/x"), method=method, body=body))
        assert [line for line in server.request_lines if b"/x" in line] == [f"{method} /x HTTP/1.1".encode()]


STRAYS = pytest.mark.parametrize(
    "stray", [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nSTRAY", b"x", b""], ids=["answer", "byte", "end"]
)


def spoil(server: RawServer, stray: bytes) -> None:
    """Send something that nobody asked for on the last connection, or end it."""
    if stray:
        server.writers[-1].write(stray)
    else:
        server.writers[-1].get_extra_info("socket").shutdown(socket.SHUT_RDWR)


@pytest.mark.asyncio
@STRAYS
async def test_a_kept_connection_on_which_something_arrived_is_not_used(stray: bytes) -> None:
    """A stray answer or an end that the event loop has seen spoils the connection, and not the request."""
    async with raw_server(answer(200, b"first"), answer(200, b"second")) as server:
        connector = GuardedConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session, opened(session) as transport:
            assert (await transport.send(get(f"{server.url}/1"))).body == b"first"
            (((kept, _),),) = connector._conns.values()
            spoil(server, stray)
            await until(lambda: kept.should_close)
            assert (await transport.send(get(f"{server.url}/2"))).body == b"second"
            assert not kept.is_connected()
        assert (server.connections, len(server.received)) == (2, 2)


@pytest.mark.asyncio
@STRAYS
async def test_what_the_loop_has_not_seen_yet_is_no_answer_to_a_sale(stray: bytes) -> None:
    """A sale goes out on a connection made for it, and none that was kept."""
    async with raw_server(answer(200, b"first"), answer(200, b"sold")) as server, opened() as transport:
        assert (await transport.send(get(f"{server.url}/1"))).body == b"first"
        spoil(server, stray)
        request = sale(f"{server.url}/2")
        assert (await transport.send(request)).body == b"sold"
        assert request.delivery.started
        assert (server.connections, len(server.received)) == (2, 2)


@pytest.mark.asyncio
async def test_a_given_session_of_another_loop_is_refused_before_anything_is_sent() -> None:
    """aiohttp would write the request into the socket first, and fail then."""
    async with raw_server(answer(200, b"first")) as server:
        async with aiohttp.ClientSession(connector=GuardedConnector(limit=0)) as session:
            transport = AiohttpTransport(session)
            await transport.send(get(f"{server.url}/1"))

            def elsewhere() -> None:
                with pytest.raises(ConfigurationError, match="belongs to another event loop"):
                    asyncio.run(transport.send(get(f"{server.url}/2")))

            await asyncio.to_thread(elsewhere)
        assert len(server.received) == 1


@pytest.mark.asyncio
async def test_a_given_sessions_middlewares_are_not_used() -> None:
    """One that repeats requests would repeat purchases."""
    called = 0

    async def twice(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        nonlocal called
        called += 1
        await handler(request)
        return await handler(request)

    async with (
        raw_server(answer(200, b"once")) as server,
        aiohttp.ClientSession(connector=GuardedConnector(limit=0), middlewares=(twice,)) as session,
        opened(session) as transport,
    ):
        assert (await transport.send(get(f"{server.url}/1"))).body == b"once"
        assert (called, len(server.received)) == (0, 1)


@pytest.mark.asyncio
async def test_a_given_session_that_does_not_decompress_does_here() -> None:
    """The body of an answer is what the server meant, whatever the session is set to."""
    async with (
        raw_server(answer(200, gzip.compress(INVENTORY), {"Content-Encoding": "gzip"})) as server,
        aiohttp.ClientSession(connector=GuardedConnector(limit=0), auto_decompress=False) as session,
        opened(session) as transport,
    ):
        assert (await transport.send(get(f"{server.url}/1"))).body == INVENTORY


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_body": 0}, "max_body"),
        ({"max_body": "x"}, "max_body"),
        ({"connect_timeout": -5}, "connect_timeout"),
        ({"connect_timeout": math.nan}, "connect_timeout"),
        ({"session": aiohttp.ClientSession}, "session must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], text: str) -> None:
    """At once, and not at the first call."""
    with pytest.raises(ConfigurationError, match=text):
        AiohttpTransport(**settings)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "step",
    [Step(), Step(then="reset"), Step(b"garbage\r\n\r\n"), answer(302, b""), Step(then="hang")],
    ids=["closes", "resets", "garbles", "redirects", "stalls"],
)
async def test_a_proxy_that_makes_no_tunnel_has_sent_nothing(monkeypatch: pytest.MonkeyPatch, step: Step) -> None:
    """Whatever a proxy does to CONNECT, the request itself has not left."""
    async with raw_server(step) as proxy, opened(trust_env=True, connect_timeout=0.3) as transport:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ConnectError) as caught:
            await transport.send(get("https://partner.invalid/x"))
        assert caught.value.sent is Sent.NEVER
        assert KEY.encode() not in b"".join(proxy.received)
        assert caught.value.__context__ is None


@pytest.mark.asyncio
@pytest.mark.parametrize("host", ["api..example.com", "a" * 64 + ".example.com", "xn--a", "999.999.999.999"])
async def test_a_host_name_that_is_none_is_a_failure_to_connect(host: str) -> None:
    """It is this library's error, and says that nothing was sent."""
    async with opened() as transport:
        with pytest.raises(ConnectError) as caught:
            await transport.send(get(f"https://{host}/x"))
        assert caught.value.sent is Sent.NEVER


@pytest.mark.asyncio
async def test_a_closed_connection_is_told_from_a_broken_one() -> None:
    """The text tells how a connection was lost."""
    async with raw_server(Step()) as server, opened() as transport:
        post = evolve(get(f"{server.url}/x"), method="POST", body=b"{}")
        with pytest.raises(ConnectionLost, match="closed the connection without an answer"):
            await transport.send(post)
    async with raw_server(Step(then="reset")) as server, opened() as transport:
        with pytest.raises(ConnectionLost, match="the connection broke: "):
            await transport.send(evolve(post, url=f"{server.url}/x"))


@pytest.mark.asyncio
async def test_what_was_sent_is_never_called_unsent() -> None:
    """When a server takes the request, hangs up and listens no more, the error does not say "never sent"."""
    async with raw_server(Step(then="stop")) as server, opened() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(get(f"{server.url}/x"))
        assert len(server.received) == 1
        assert caught.value.sent is Sent.UNKNOWN
        assert type(caught.value) is ConnectionLost


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "step",
    [
        until_eof(INVENTORY[:9]),
        until_eof(GZIP[:30], b"Content-Encoding: gzip"),
        answer(200, GZIP[:30], {"Content-Encoding": "gzip"}),
        answer(200, b""),
    ],
    ids=["EOF", "gzip and EOF", "gzip of its announced length", "empty"],
)
async def test_cuts_that_http_cannot_tell(step: Step) -> None:
    """A cut that looks like a whole body on the HTTP level is never taken for an inventory."""
    async with (
        raw_server(step) as server,
        PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=server.url) as api,
    ):
        with pytest.raises(DecodeError) as caught:
            await api.get_inventory("u")
    assert caught.value.sent is Sent.YES
    assert len(server.received) == 1


async def refused(transport: AiohttpTransport, url: str, text: str, kind: type[ConnectError] = ConnectError) -> None:
    """See that a send ends in a ConnectError that says so and that nothing was sent."""
    with pytest.raises(ConnectError, match=text) as caught:
        await transport.send(get(url))
    assert type(caught.value) is kind
    assert caught.value.sent is Sent.NEVER
    assert_plain(caught.value)


@pytest.mark.asyncio
async def test_connection_refused() -> None:
    """Nothing listens there."""
    async with opened() as transport:
        await refused(transport, f"http://127.0.0.1:{free_port()}/x", "no connection to 127.0.0.1: Connect call failed")


@pytest.mark.asyncio
async def test_unknown_host() -> None:
    """The name does not exist."""
    async with opened() as transport:
        await refused(transport, "http://phygitals.invalid/x", "phygitals.invalid could not be resolved: [A-Z]")


@pytest.mark.asyncio
async def test_connect_timeout() -> None:
    """A connection that is never ready, here for want of a TLS handshake, ends at the connect timeout."""
    async with (
        raw_server(Step(then="hang"), whole_head=False) as server,
        opened(connect_timeout=0.05) as transport,
        asyncio.timeout(10),
    ):
        await refused(transport, f"https://127.0.0.1:{server.port}/x", "connect timeout")
    assert KEY.encode() not in b"".join(server.received)


@pytest.mark.asyncio
async def test_connect_timeout_is_not_for_answers() -> None:
    """The connect timeout bounds connecting only: a slow answer is the deadline's business."""
    gate = asyncio.Event()
    async with (
        raw_server(evolve(answer(200, b"slow"), gate=gate)) as server,
        opened(connect_timeout=0.3) as transport,
    ):
        task = asyncio.create_task(transport.send(get(f"{server.url}/x")))
        await server.arrival()
        await asyncio.sleep(0.5)
        gate.set()
        assert (await task).body == b"slow"


@pytest.mark.asyncio
async def test_a_given_sessions_timeout_is_not_a_second_deadline() -> None:
    """The whole exchange has one bound, the client's deadline, whatever timeout a given session has."""
    gate = asyncio.Event()
    async with (
        raw_server(evolve(answer(200, b"slow"), gate=gate)) as server,
        aiohttp.ClientSession(
            connector=GuardedConnector(limit=0), timeout=aiohttp.ClientTimeout(total=0.05, sock_read=0.05)
        ) as session,
        opened(session) as transport,
    ):
        task = asyncio.create_task(transport.send(get(f"{server.url}/x")))
        await server.arrival()
        await asyncio.sleep(0.15)
        gate.set()
        assert (await task).body == b"slow"


@pytest.mark.asyncio
async def test_waiting_for_a_free_connection_is_not_connecting() -> None:
    """A call that waits because a given session's connections are busy does not run into the connect timeout
    .
    """
    gate = asyncio.Event()
    async with (
        raw_server(evolve(answer(200, b"slow"), gate=gate)) as server,
        aiohttp.ClientSession(connector=GuardedConnector(limit=1)) as session,
        opened(session, connect_timeout=0.3) as transport,
    ):
        tasks = [asyncio.create_task(transport.send(get(f"{server.url}/{number}"))) for number in range(2)]
        await server.arrival()
        await asyncio.sleep(0.5)
        gate.set()
        assert [(await task).body for task in tasks] == [b"slow"] * 2


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the TLS handshake with 127.0.0.1 failed: [A-Z_]+"),
        (Step(), "no connection"),
        (Step(then="reset"), "no connection"),
    ],
    ids=["answers", "closes", "resets"],
)
async def test_tls_to_a_plain_port(step: Step, text: str) -> None:
    """The handshake fails before the request, so nothing was sent."""
    async with raw_server(step, whole_head=False) as server, opened() as transport:
        await refused(transport, f"https://127.0.0.1:{server.port}/x", text)
    assert KEY.encode() not in b"".join(server.received)


@pytest.mark.asyncio
async def test_plain_to_a_tls_port(server_tls: ssl.SSLContext) -> None:
    """The server hangs up on what is no handshake; the request did go out."""
    async with raw_server(tls=server_tls) as server, opened() as transport:
        with pytest.raises(ConnectionLost) as caught:
            await transport.send(get(f"{server.url}/x"))
    assert caught.value.sent is Sent.UNKNOWN
    assert_plain(caught.value)
    assert server.received == []


def _certificate(authority: trustme.CA, kind: str) -> trustme.LeafCert:
    if kind == "self-signed":
        # Of an authority that nobody trusts.
        return trustme.CA().issue_cert("127.0.0.1")
    if kind == "another host":
        return authority.issue_cert("other.example")
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return authority.issue_cert("127.0.0.1", not_before=yesterday - timedelta(days=1), not_after=yesterday)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("self-signed", "self.signed certificate in certificate chain|unable to get local issuer certificate"),
        ("expired", "certificate has expired"),
        ("another host", "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
async def test_a_certificate_that_is_refused(authority: trustme.CA, kind: str, reason: str) -> None:
    """Nothing is sent, the error names host and reason, and nobody asks again: not for a read, nor for a sale."""
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _certificate(authority, kind).configure_cert(server_side)
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    text = f"the TLS certificate of 127.0.0.1 was refused: ({reason})"
    async with (
        raw_server(tls=server_side) as server,
        aiohttp.ClientSession(connector=GuardedConnector(ssl=client_side)) as session,
        opened(session) as transport,
    ):
        url = f"https://127.0.0.1:{server.port}"
        await refused(transport, f"{url}/x", text, CertificateRefused)
        api = PhygitalsClient(transport, api_key=KEY, base_url=url)
        for call in (api.get_inventory("u"), api.sell_back("i"), api.wait_for_purchase("s")):
            with pytest.raises(CertificateRefused, match=text) as caught:
                await call
            assert (caught.value.sent, caught.value.attempts) == (Sent.NEVER, 1)
            assert_plain(caught.value)
    assert server.received == []


@pytest.mark.asyncio
async def test_certificate_with_another_fingerprint(server_tls: ssl.SSLContext) -> None:
    """A pinned certificate that does not match is refused before anything is sent."""
    connector = GuardedConnector(ssl=aiohttp.Fingerprint(bytes(32)))
    text = "the TLS certificate of 127.0.0.1 was refused: it has another fingerprint"
    async with (
        raw_server(tls=server_tls) as server,
        aiohttp.ClientSession(connector=connector) as session,
        opened(session) as transport,
    ):
        await refused(transport, f"https://127.0.0.1:{server.port}/x", text, CertificateRefused)
    assert server.received == []


@pytest.mark.asyncio
async def test_trusted_certificate(authority: trustme.CA, server_tls: ssl.SSLContext) -> None:
    """A given session brings its own TLS settings."""
    client_side = ssl.create_default_context()
    authority.configure_trust(client_side)
    async with (
        raw_server(answer(200, b"safe"), tls=server_tls) as server,
        aiohttp.ClientSession(connector=GuardedConnector(ssl=client_side)) as session,
        opened(session) as transport,
    ):
        assert (await transport.send(get(f"https://127.0.0.1:{server.port}/x"))).body == b"safe"


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [403, 407, 502])
async def test_proxy_refuses_to_tunnel(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """A proxy that refuses the tunnel sees neither path nor key, and nothing was sent."""
    async with raw_server(answer(status, b"no")) as proxy, opened(trust_env=True) as transport:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await refused(transport, "https://partner.invalid/_/api/v1/inventory/u", f"proxy .* status {status}")
    (request,) = proxy.received
    assert request.startswith(b"CONNECT partner.invalid:443 HTTP/1.1\r\n")
    assert KEY.encode() not in request
    assert b"inventory" not in request


@pytest.mark.asyncio
async def test_proxy_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection to the proxy is no connection."""
    async with opened(trust_env=True) as transport:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
        await refused(transport, "http://partner.invalid/x", "no connection")


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "http:///x"])
async def test_a_url_that_is_not_http(url: str) -> None:
    """Even what no client builds comes out as an error of this library."""
    async with opened() as transport:
        with pytest.raises(TransportError) as caught:
            await transport.send(get(url))
    assert_plain(caught.value)


# ---------------------------------------------------------------------------------------------------------
# The server


@pytest.mark.asyncio
async def test_server_gives_its_handler_the_raw_target() -> None:
    """The handler sees the still encoded URL, also when a client names it whole, as to a proxy."""
    seen: list[str] = []

    def handler(request: Request) -> Response:
        seen.append(request.url)
        return Response(200, {}, b"")

    async with serve(handler) as url:
        assert url.startswith("http://127.0.0.1:")
        port = int(url.rpartition(":")[2])
        targets = ["/_/a%2Fb/%2e%2e/%7C?x=%20", "//x//y", "http://partner.invalid/_/a%2Fb"]
        for target in targets:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
            writer.close()
            await writer.wait_closed()
    assert seen == [url + targets[0], url + targets[1], targets[2]]


@pytest.mark.asyncio
async def test_server_stops_listening() -> None:
    """Nothing answers once the block is left, also when it is left by an exception."""

    async def leave() -> None:
        async with serve(lambda _: Response(200, {}, b"")) as url:
            urls.append(url)
            raise ZeroDivisionError

    urls: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await leave()
    async with opened() as transport:
        await refused(transport, f"{urls[0]}/x", "no connection")


@pytest.mark.asyncio
async def test_server_stops_with_idle_connections() -> None:
    """Connections that a client keeps open do not hold the server up."""
    async with opened() as transport, asyncio.timeout(10), serve(lambda _: Response(200, {}, b"")) as url:
        await transport.send(get(f"{url}/x"))
    async with opened() as another:
        await refused(another, f"{url}/x", "no connection")


@pytest.mark.asyncio
async def test_servers_side_by_side() -> None:
    """Each server takes a free port of its own."""
    async with (
        serve(lambda _: Response(200, {}, b"1")) as first,
        serve(lambda _: Response(200, {}, b"2")) as second,
        opened() as transport,
    ):
        assert (await transport.send(get(f"{first}/x"))).body == b"1"
        assert (await transport.send(get(f"{second}/x"))).body == b"2"


@pytest.mark.asyncio
async def test_server_on_a_port_that_is_taken() -> None:
    """A port that is taken is an error at once."""
    async with serve(lambda _: Response(200, {}, b"")) as url:
        port = int(url.rpartition(":")[2])
        with pytest.raises(OSError, match="address already in use"):
            async with serve(lambda _: Response(200, {}, b""), port=port):
                pytest.fail("a second server listens on the same port")


@pytest.mark.asyncio
async def test_server_on_ipv6() -> None:
    """An IPv6 address stands in brackets in the URL, and the URL works."""
    try:
        (await asyncio.start_server(lambda *_: None, "::1", 0)).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with serve(lambda _: Response(200, {}, b"six"), host="::1") as url, opened() as transport:
        assert url.startswith("http://[::1]:")
        assert (await transport.send(get(f"{url}/x"))).body == b"six"


@pytest.mark.asyncio
@pytest.mark.parametrize("is_async", [False, True])
async def test_server_closes_the_connection_where_its_handler_says_it_is_lost(
    caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """Nothing is answered and nothing is logged, and the server lives on."""

    def lose(request: Request) -> Response:
        if request.url.endswith("/lost"):
            raise ConnectionLost
        return Response(200, {}, b"")

    async def lose_later(request: Request) -> Response:
        return lose(request)

    async with serve(lose_later if is_async else lose) as url, opened() as transport:
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await transport.send(get(f"{url}/lost"))
            assert (await transport.send(get(f"{url}/x"))).status == 200
    assert [record for record in caplog.records if record.name.startswith("aiohttp")] == []


@pytest.mark.asyncio
async def test_server_answers_500_when_its_handler_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A handler that raises gives a 500, and the server lives on."""
    answers: Iterator[Response] = iter([Response(200, {}, b"fine")])
    failed: list[str] = []

    def handler(request: Request) -> Response:
        if not failed:
            failed.append(request.url)
            raise ZeroDivisionError
        return next(answers)

    async with serve(handler) as url, opened() as transport:
        assert (await transport.send(get(f"{url}/x"))).status == 500
        assert (await transport.send(get(f"{url}/x"))).body == b"fine"
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.asyncio
async def test_client_against_the_server_it_does_not_know() -> None:
    """A documented refusal keeps its class over real HTTP."""
    body = b'{"error":"User not found"}'
    async with (
        serve(lambda _: Response(404, {"content-type": "application/json"}, body)) as url,
        PhygitalsClient(AiohttpTransport(), api_key=KEY, base_url=url) as api,
    ):
        with pytest.raises(UserNotFound) as caught:
            await api.get_inventory("u")
    assert caught.value.message == "User not found"


def test_raw_server_is_exact() -> None:
    """The helper keeps what came byte for byte, so the tests above can rely on it."""

    async def main() -> RawServer:
        async with raw_server(answer(200, b"a"), Step(b"garbage", "close")) as server:
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"GET  /%7e?x HTTP/1.1\r\nx-y:  z\r\ncontent-length: 2\r\n\r\nhi")
                writer.write_eof()
                read.append(await reader.read())
                writer.close()
                await writer.wait_closed()
            return server

    read: list[bytes] = []
    server = asyncio.run(main())
    assert server.received == [b"GET  /%7e?x HTTP/1.1\r\nx-y:  z\r\ncontent-length: 2\r\n\r\nhi"] * 2
    assert read == [b"HTTP/1.1 200 Reason\r\nContent-Length: 1\r\n\r\na", b"garbage"]


def test_letting_go_of_no_session_is_nothing() -> None:
    """A transport that never opened one has nothing to let go of."""
    transport = AiohttpTransport()
    transport._own._release()
    assert not transport.is_open
