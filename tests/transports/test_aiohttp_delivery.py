"""Whether a request was sent: what the aiohttp transport says of it, whoever raises what at which moment."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import socket
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import evolve

from aiohttp_support import KEY, failure_of, get, opened, opened_with, sale, until
from phygitals_async import ConnectError, ConnectionLost, ProtocolError, Request, Sent, TransportError
from phygitals_async.conformance.server import free_port, full_backlog
from phygitals_transports import AiohttpTransport
from phygitals_transports.aiohttp_connector import SENDING
from raw_server import Step, answer, raw_server

Hook = Callable[..., Coroutine[Any, Any, None]]


class Unwelcome(Exception):
    """What a hook of somebody's raises."""


# --- cancelled while the connection is made ---------------------------------------------------------------------------


class SlowResolver(AbstractResolver):
    """Finds no name, ever.

    Attributes:
        asked: Is set when it is asked.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Wait for ever."""
        self.asked.set()
        await asyncio.Event().wait()
        return []

    async def close(self) -> None:
        """Do nothing."""


async def cancelled(
    transport: AiohttpTransport, request: Request, moment: Callable[[], Coroutine[Any, Any, Any]]
) -> None:
    """Send a request, cancel that at some moment, and see that nothing of it is left: neither sent, nor a task."""
    before = asyncio.all_tasks()
    sending = asyncio.create_task(transport.send(request))
    async with asyncio.timeout(20):
        await moment()
    assert not request.delivery.started
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert request.delivery.sent is Sent.NEVER
    left = {task.get_coro().__qualname__ for task in asyncio.all_tasks() - before}  # type: ignore[union-attr]
    assert left <= {"RawServer._converse"}


@pytest.mark.asyncio
async def test_cancelled_while_the_name_is_looked_up() -> None:
    """Nothing was sent."""
    resolver = SlowResolver()
    async with opened_with(connector={"resolver": resolver}) as transport:
        await cancelled(transport, sale("http://partner.invalid/x"), resolver.asked.wait)


@pytest.mark.asyncio
async def test_cancelled_while_the_system_looks_the_name_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread in which it does so is not waited for."""
    loop, asked, answers = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        loop.call_soon_threadsafe(asked.set)
        assert answers.wait(20)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        async with opened() as transport:
            await cancelled(transport, sale("http://partner.invalid/x"), asked.wait)
    finally:
        answers.set()


@pytest.mark.asyncio
async def test_cancelled_while_tcp_connects() -> None:
    """Nothing was sent."""
    sockets: list[socket.socket] = []

    def make(info: Any) -> socket.socket:
        sockets.append(socket.socket(*info[:3]))
        return sockets[-1]

    async def connects() -> None:
        await until(lambda: sockets and sockets[-1].gettimeout() == 0)

    with full_backlog() as listener:
        port = listener.getsockname()[1]
        async with opened_with(connector={"socket_factory": make}) as transport:
            await cancelled(transport, sale(f"http://127.0.0.1:{port}/x"), connects)


@pytest.mark.asyncio
async def test_cancelled_while_a_proxy_makes_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECT is not the request."""
    async with raw_server(Step(then="hang")) as proxy, opened(trust_env=True) as transport:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        await cancelled(transport, sale("https://partner.invalid/x"), proxy.arrival)
        assert KEY.encode() not in b"".join(proxy.received)


@pytest.mark.asyncio
async def test_cancelled_in_the_tls_handshake() -> None:
    """Nothing was sent."""
    async with raw_server(Step(then="hang"), whole_head=False) as server, opened() as transport:
        await cancelled(transport, sale(f"https://127.0.0.1:{server.port}/x"), server.arrival)


@pytest.mark.asyncio
async def test_cancelled_in_the_queue_for_a_connection() -> None:
    """A session with a limit lets calls wait; what waits was not sent."""
    queued = asyncio.Event()

    async def note(*_: Any) -> None:
        queued.set()

    trace = aiohttp.TraceConfig()
    trace.on_connection_queued_start.append(note)
    gate = asyncio.Event()
    async with raw_server(evolve(answer(200, b"ok"), gate=gate)) as server:
        async with opened_with(trace, connector={"limit_per_host": 1}) as transport:
            first = asyncio.create_task(transport.send(get(f"{server.url}/1")))
            await server.arrival()
            await cancelled(transport, get(f"{server.url}/2"), queued.wait)
            gate.set()
            assert (await first).body == b"ok"
        assert len(server.received) == 1


@pytest.mark.asyncio
async def test_cancelled_once_it_has_left() -> None:
    """Nobody knows."""
    async with raw_server(Step(then="hang")) as server, opened() as transport:
        request = sale(f"{server.url}/x")
        sending = asyncio.create_task(transport.send(request))
        await server.arrival()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert request.delivery.started
        assert request.delivery.sent is Sent.UNKNOWN


@pytest.mark.asyncio
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
async def test_what_is_no_exception_passes(raised: type[BaseException]) -> None:
    """It is not translated."""

    async def hook(*_: Any) -> None:
        raise raised

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(hook)
    async with raw_server() as server, opened_with(trace) as transport:
        request = get(f"{server.url}/x")
        with pytest.raises(raised):
            await transport.send(request)
        assert request.delivery.sent is Sent.UNKNOWN


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("fresh", [True, False])
async def test_a_refused_connection(fresh: bool) -> None:
    """Never sent, in the delivery and in the class."""
    async with opened() as transport:
        request = evolve(sale(f"http://127.0.0.1:{free_port()}/x"), fresh_connection=fresh)
        error = await failure_of(transport, request)
    assert type(error) is ConnectError
    assert error.text.startswith("no connection to 127.0.0.1: ")
    assert error.sent is request.delivery.sent is Sent.NEVER


@pytest.mark.asyncio
async def test_a_session_closed_in_the_middle_of_connecting() -> None:
    """Whoever closes it, nothing was sent."""
    resolver = SlowResolver()
    closing: list[Any] = []

    async def close(*_: Any) -> None:
        await closing[0]()

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_start.append(close)
    async with opened_with(trace, connector={"resolver": resolver}) as transport:
        assert transport._given is not None
        closing.append(transport._given.close)
        error = await failure_of(transport, sale("http://partner.invalid/x"))
    assert type(error) is ConnectError


@pytest.mark.asyncio
@pytest.mark.parametrize("says", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""], ids=["answers", "hangs up"])
async def test_a_server_that_does_not_wait_to_be_asked(says: bytes) -> None:
    """What it says is no answer to a sale, and one that hangs up takes none: nothing is sent."""
    done, gone = asyncio.Event(), asyncio.Event()
    sockets: list[socket.socket] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        if not says:
            writer.close()
        done.set()
        await gone.wait()
        writer.transport.abort()

    def make(info: Any) -> socket.socket:
        sockets.append(socket.socket(*info[:3]))
        return sockets[-1]

    def was_noticed() -> bool:
        if not says:
            return sockets[-1].fileno() == -1
        try:
            return not sockets[-1].recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True

    async def wait(*_: Any) -> None:
        await done.wait()
        await until(was_noticed)

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(wait)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, opened_with(trace, connector={"socket_factory": make}) as transport:
        request = sale(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
        error = await failure_of(transport, request)
        gone.set()
    assert type(error) is ConnectError
    assert error.text == "no connection: the server spoke or hung up before it was asked"
    assert request.delivery.sent is Sent.NEVER


# --- hooks of others --------------------------------------------------------------------------------------------------

RAISED = [
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, KEY),
    ConnectionRefusedError(111, KEY),
    ValueError(KEY),
    Unwelcome(KEY),
    TimeoutError(KEY),
    ConnectError(KEY),
    aiohttp.ClientError(KEY),
    aiohttp.InvalidURL(KEY),
    aiohttp.ConnectionTimeoutError(KEY),
    aiohttp.ServerDisconnectedError(KEY),
    ConnectionResetError(104, KEY),
]


@asynccontextmanager
async def hooked(
    own: bool, monkeypatch: pytest.MonkeyPatch, *traces: aiohttp.TraceConfig
) -> AsyncIterator[AiohttpTransport]:
    """Give a transport whose session has traces: one of one's own, or that of every transport in the program."""
    if own:
        async with opened_with(*traces) as transport:
            yield transport
        return
    make = aiohttp.ClientSession.__init__

    def instrumented(self: aiohttp.ClientSession, **settings: Any) -> None:
        make(self, **settings, trace_configs=list(traces))

    monkeypatch.setattr(aiohttp.ClientSession, "__init__", instrumented)
    async with opened() as transport:
        yield transport


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [True, False], ids=["own session", "default session"])
@pytest.mark.parametrize("moment", ["on_request_start", "on_request_end", "on_response_chunk_received"])
@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
async def test_a_hook_raises_outside_of_connecting(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, moment: str, own: bool
) -> None:
    """Of whatever class, it never says "never sent"; nothing is sent twice; its text may hold headers, and is lost."""

    async def hook(*_: Any) -> None:
        raise raised

    trace = aiohttp.TraceConfig()
    getattr(trace, moment).append(hook)
    async with raw_server(answer(200, b"sold")) as server, hooked(own, monkeypatch, trace) as transport:
        for make in (get, sale):
            request = make(f"{server.url}/x")
            error = await failure_of(transport, request)
            assert not isinstance(error, ConnectError)
            assert error.sent is request.delivery.sent is Sent.UNKNOWN
            assert KEY not in str(error)
        assert len(server.received) == (0 if moment == "on_request_start" else 2)


@pytest.mark.asyncio
@pytest.mark.parametrize("raised", RAISED[:5], ids=lambda error: type(error).__name__)
async def test_an_exception_of_nobody_knows_whom(raised: Exception) -> None:
    """Only its class is told."""

    async def hook(*_: Any) -> None:
        raise raised

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(hook)
    async with raw_server() as server, opened_with(trace) as transport:
        error = await failure_of(transport, get(f"{server.url}/x"))
    assert type(error) is TransportError
    assert error.text == f"the exchange failed: {type(raised).__name__}"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("raised", "translated"),
    [
        (aiohttp.ClientOSError(5, KEY), ConnectionLost("the connection broke: ClientOSError")),
        (ConnectionResetError(104, KEY), ConnectionLost("the connection broke: ConnectionResetError")),
        (aiohttp.ConnectionTimeoutError(KEY), ConnectionLost("no connection within the connect timeout")),
        (aiohttp.InvalidURL("http://x"), ProtocolError("the host name is not a valid one")),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_a_known_class_gives_the_text_but_does_not_say_never(
    raised: Exception, translated: TransportError
) -> None:
    """It could be a hook's."""

    async def hook(*_: Any) -> None:
        raise raised

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(hook)
    async with raw_server() as server, opened_with(trace) as transport:
        error = await failure_of(transport, get(f"{server.url}/x"))
    assert (type(error), error.text, error.sent) == (type(translated), translated.text, Sent.UNKNOWN)


@pytest.mark.asyncio
@pytest.mark.parametrize("moment", ["on_connection_create_start", "on_connection_create_end"])
@pytest.mark.parametrize("raised", RAISED, ids=lambda error: type(error).__name__)
async def test_a_hook_raises_while_the_connection_is_made(raised: Exception, moment: str) -> None:
    """Nothing was sent, whatever the class."""

    async def hook(*_: Any) -> None:
        raise raised

    trace = aiohttp.TraceConfig()
    getattr(trace, moment).append(hook)
    async with raw_server() as server, opened_with(trace) as transport:
        request = sale(f"{server.url}/x")
        with pytest.raises(ConnectError) as caught:
            await transport.send(request)
        assert request.delivery.sent is Sent.NEVER
        if isinstance(raised, Unwelcome):
            assert caught.value.text == "no connection: Unwelcome"
        assert server.received == []


@pytest.mark.asyncio
async def test_a_hook_that_replaces_the_failure() -> None:
    """What this library said of a failure stands."""

    async def hook(*_: Any) -> None:
        raise Unwelcome

    trace = aiohttp.TraceConfig()
    trace.on_request_exception.append(hook)
    async with opened_with(trace) as transport:
        error = await failure_of(transport, sale("http://partner.invalid/x"))
        assert type(error) is ConnectError
        assert error.text.startswith("the host name partner.invalid could not be resolved: ")


@pytest.mark.asyncio
async def test_a_hook_is_told_of_the_failure() -> None:
    """As the caller is: what traces show is what happened."""
    told: list[BaseException] = []

    async def hook(_session: object, _context: object, failed: aiohttp.TraceRequestExceptionParams) -> None:
        told.append(failed.exception)

    trace = aiohttp.TraceConfig()
    trace.on_request_exception.append(hook)
    async with opened_with(trace) as transport:
        error = await failure_of(transport, sale(f"http://127.0.0.1:{free_port()}/x"))
    assert told == [error]


@pytest.mark.asyncio
async def test_a_hook_that_sends_something_itself() -> None:
    """Requests of its own, through the same session or the same transport, tell nothing of the one it is called for."""
    busy = False

    async def hook(session: aiohttp.ClientSession, *_: Any) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        outer = SENDING.get()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{free_port()}/log")
        assert not request.delivery.failed
        async with session.get(f"{server.url}/log") as response:
            assert response.status == 200
        assert (await transport.send(get(f"{server.url}/log"))).status == 200
        assert SENDING.get() is outer
        assert not request.delivery.started
        busy = False

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(hook)
    async with raw_server() as server, opened_with(trace) as transport:
        request = sale(f"{server.url}/x")
        assert (await transport.send(request)).status == 200
        assert request.delivery.started
        assert server.request_lines == [b"GET /log HTTP/1.1", b"GET /log HTTP/1.1", b"POST /x HTTP/1.1"]
    assert SENDING.get() is None


# --- sent once --------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("own", [True, False], ids=["own session", "default session"])
@pytest.mark.parametrize("step", [Step(), Step(then="reset"), Step(b"HTTP/1.1 200 OK\r\nX")], ids=["end", "rst", "cut"])
async def test_a_read_is_not_sent_again_behind_our_back(monkeypatch: pytest.MonkeyPatch, step: Step, own: bool) -> None:
    """aiohttp sends a GET again when its connection dies; here it gets no second connection."""
    async with raw_server(answer(200, b"warm"), step) as server, hooked(own, monkeypatch) as transport:
        await transport.send(get(f"{server.url}/warm"))
        request = get(f"{server.url}/x")
        error = await failure_of(transport, request)
        assert type(error) is ConnectionLost
        assert error.text == "the connection broke before the answer came"
        assert error.sent is request.delivery.sent is Sent.UNKNOWN
        assert len(server.received) == 2


@pytest.mark.asyncio
async def test_a_proxy_is_asked_once_for_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """aiohttp would ask again for a read."""
    async with raw_server(Step()) as proxy, opened(trust_env=True) as transport:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        error = await failure_of(transport, get("https://partner.invalid/x"))
        assert type(error) is ConnectError
        assert error.text == "no connection: the server closed the connection without an answer"
        assert len(proxy.received) == 1


@pytest.mark.asyncio
async def test_a_sale_has_a_connection_of_its_own() -> None:
    """It takes none that was kept, and leaves none behind."""
    async with raw_server(answer(200, b"ok")) as server, opened() as transport:
        await transport.send(get(f"{server.url}/1"))
        await transport.send(sale(f"{server.url}/2"))
        await server.departure()
        assert server.connections == 2
        await transport.send(sale(f"{server.url}/3"))
        await server.departure()
        await transport.send(get(f"{server.url}/4"))
        assert (server.connections, len(server.received)) == (3, 4)


@pytest.mark.asyncio
async def test_a_sale_under_way_ends_with_the_session() -> None:
    """Closing closes the connections that were made for one request, too."""
    async with raw_server(Step(then="hang")) as server:
        transport = AiohttpTransport()
        sending = asyncio.create_task(transport.send(sale(f"{server.url}/x")))
        await server.arrival()
        await transport.aclose()
        async with asyncio.timeout(60):
            with pytest.raises(ConnectionLost):
                await sending
        await server.departure()


@pytest.mark.asyncio
async def test_a_request_is_held_no_longer_than_it_takes() -> None:
    """Nor its outcome: kept connections, and the tasks of hooks, have the context of the call for their lives."""
    contexts: list[contextvars.Context] = []

    async def hook(*_: Any) -> None:
        contexts.append(contextvars.copy_context())

    async def send(transport: AiohttpTransport, url: str) -> tuple[Any, ...]:
        request = get(url)
        try:
            outcome: Any = await transport.send(request)
        except TransportError as error:
            outcome = error
        return weakref.ref(request), weakref.ref(outcome)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(hook)
    async with raw_server(answer(200, b"ok"), Step()) as server, opened_with(trace) as transport:
        urls = [f"{server.url}/answered", f"{server.url}/lost", f"http://127.0.0.1:{free_port()}/refused"]
        held = [await asyncio.create_task(send(transport, url)) for url in urls]
        gc.collect()
        assert [(request(), outcome()) for request, outcome in held] == [(None, None)] * 3
        assert len(contexts) == 3


class Closing:
    """A server that closes each connection after some requests.

    Attributes:
        url: Its origin.
        received: How often each path was asked for.
    """

    def __init__(self, after: int, delay: float) -> None:
        self.url = ""
        self.received: dict[bytes, int] = {}
        self._after = after
        self._delay = delay

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for _ in range(self._after):
                head = await reader.readuntil(b"\r\n\r\n")
                if b"\r\nContent-Length: 2\r\n" in head:
                    await reader.readexactly(2)
                path = head.split()[1]
                self.received[path] = self.received.get(path, 0) + 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            if self._delay:
                await asyncio.sleep(self._delay)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Listen while the block runs."""
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield


async def sell_through(server: Closing, count: int) -> list[TransportError]:
    """Send sales, eight at once with reads among them; return what failed."""
    failed: list[TransportError] = []
    numbers = iter(range(count))

    async def work(transport: AiohttpTransport) -> None:
        for number in numbers:
            try:
                await transport.send(sale(f"{server.url}/{number}"))
            except TransportError as error:
                failed.append(error)
            # Reads keep connections open, which a sale could take.
            with suppress(ConnectionLost):
                await transport.send(get(f"{server.url}/read"))

    async with opened() as transport, asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(work(transport))
    return failed


@pytest.mark.asyncio
@pytest.mark.parametrize("delay", [0, 0.001, 0.003])
@pytest.mark.parametrize("after", [1, 5, 20])
async def test_sales_to_a_server_that_closes_kept_connections(after: int, delay: float) -> None:
    """None is lost between two requests, where nobody could say what became of it."""
    server = Closing(after, delay)
    async with server.running():
        assert await sell_through(server, 40) == []
    sold = {path: times for path, times in server.received.items() if path != b"/read"}
    assert sold == {b"/%d" % number: 1 for number in range(40)}
