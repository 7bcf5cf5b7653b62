"""A loopback server that can misbehave at any byte, and tells what it saw; runs on asyncio and trio."""

from __future__ import annotations

import inspect
import random
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from attrs import Factory, define, field, frozen

from phygitals_async import Request, Response
from phygitals_async.conformance.peers import Peer, Received

_REUSE_PORT: Final = getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR)


async def _answer_well(peer: Peer, _: Received) -> None:
    await peer.send(http(peer.server.good))


@frozen(kw_only=True)
class Script:
    """How the server treats its clients.

    Attributes:
        on_connect: What to do as soon as a connection is accepted, before anything is read.
        on_request: What to do with each request that was read whole.
        on_turn: What to do with the connections that are open when the script comes into force.
    """

    on_connect: Callable[[Peer], Awaitable[None]] | None = None
    on_request: Callable[[Peer, Received], Awaitable[None]] = _answer_well
    on_turn: Callable[[Collection[Peer]], Awaitable[None]] | None = None


GOOD: Final = Script()


def answering(handler: Callable[[Request], Response | Awaitable[Response]]) -> Script:
    """Return the script of a server whose answers are those of `handler`."""

    async def on_request(peer: Peer, received: Received) -> None:
        headers = dict(received.headers)
        url = f"http://{headers['host']}{received.target}"
        answer = handler(Request(received.method, url, headers, received.body or None))
        response = await answer if inspect.isawaitable(answer) else answer
        lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        await peer.send(http(response.body, status=f"{response.status} Reason", kind=b"", headers=lines.encode()))

    return Script(on_request=on_request)


@define(eq=False)
class FaultServer:
    """A running server.

    Attributes:
        good: The body of a good answer.
        script: How it treats its clients now.
        port: Where it listens, on 127.0.0.1.
        connections: How many connections were accepted.
        received: Every request that arrived whole, but for a proxy's CONNECT, since the last `turn`.
        performed: The bodies of all the POST requests that it was asked to act on, since the last `turn`.
        bytes_received: How many bytes of requests arrived, TLS removed, since the last `turn`.
        cookies: How many requests carried a cookie, ever.
        tunnels: The targets of CONNECT requests.
        peers: The connections that are open.
        listener: What accepts connections; None while it does not listen.
        other_port: Where it listens besides, for those who are led astray; 0 where it does not.
    """

    good: bytes = field(repr=False)
    _tasks: TaskGroup = field(repr=False)
    script: Script = GOOD
    port: int = 0
    connections: int = 0
    received: list[Received] = Factory(list)
    performed: list[bytes] = field(factory=list, repr=False)
    bytes_received: int = 0
    cookies: int = 0
    tunnels: list[str] = Factory(list)
    peers: set[Peer] = field(factory=set, repr=False)
    listener: socket.socket | None = field(default=None, repr=False)
    # Bound for good, so that nobody else takes the port while nothing listens on it.
    _claim: socket.socket = field(factory=lambda: _bound(0), repr=False)
    other_port: int = 0

    @property
    def url(self) -> str:
        """The origin, over plain http."""
        return f"http://127.0.0.1:{self.port}"

    def record(self, request: Received) -> None:
        """Count a request, and the action it asks for."""
        self.cookies += any(name == "cookie" for name, _ in request.headers)
        if request.method == "CONNECT":
            self.tunnels.append(request.target)
            return
        self.received.append(request)
        if request.method == "POST":
            self.performed.append(request.body)

    async def turn(self, script: Script) -> None:
        """Put another script into force and forget the requests so far."""
        self.script = script
        self.received.clear()
        self.performed.clear()
        self.bytes_received = 0
        if script.on_turn is not None:
            await script.on_turn(tuple(self.peers))

    async def listen(self, tls: ssl.SSLContext | None = None, *, sock: socket.socket | None = None) -> None:
        """Listen on `sock`, or else on a port of its own, always the same."""
        self.listener = sock or _bound(self._claim.getsockname()[1])
        self.port = self._serve(self.listener, tls)

    @asynccontextmanager
    async def listen_elsewhere(self) -> AsyncIterator[None]:
        """Listen on `other_port`, too, over plain http."""
        listener = _bound(0)
        self.other_port = self._serve(listener, None)
        try:
            yield
        finally:
            _close(listener)

    async def stop_listening(self) -> None:
        """Refuse connections from now on; those that are open stay."""
        if self.listener is not None:
            _close(self.listener)
            self.listener = None

    async def stop(self) -> None:
        """Listen no more and end every connection."""
        await self.stop_listening()
        self._claim.close()
        self._tasks.cancel_scope.cancel()
        # Some may not have come to the first step of their task.
        for peer in self.peers:
            peer.abort()

    def _serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> int:
        listener.listen(128)
        listener.setblocking(False)
        self._tasks.start_soon(self._accept, listener, tls)
        port: int = listener.getsockname()[1]
        return port

    async def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        # Whoever stops listening closes the socket under this task.
        with suppress(OSError, anyio.ClosedResourceError):
            # Where no descriptor is left, `accept` fails though nobody is there.
            while listener.fileno() != -1:
                await anyio.wait_readable(listener)
                with suppress(BlockingIOError):
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    self.connections += 1
                    self.peers.add(peer := Peer(self, self.connections, sock))
                    self._tasks.start_soon(self._converse, peer, tls)

    async def _converse(self, peer: Peer, tls: ssl.SSLContext | None) -> None:
        try:
            if tls is not None:
                await peer.start_tls(tls)
            if self.script.on_connect is not None:
                await self.script.on_connect(peer)
            while not peer.is_closed and (request := await peer.read_request()) is not None:
                await self.script.on_request(peer, request)
        except (OSError, anyio.ClosedResourceError):
            # Most faults make the client hang up in the middle.
            pass
        finally:
            self.peers.discard(peer)
            peer.abort()


@asynccontextmanager
async def fault_server(good: bytes = b"", *, tls: ssl.SSLContext | None = None) -> AsyncGenerator[FaultServer]:
    """Run a server whose good answers have the body `good`. A mistake in a script is raised at the end of the block."""
    try:
        async with anyio.create_task_group() as group:
            server = FaultServer(good, await group.start(_hold_tasks))
            await server.listen(tls)
            try:
                yield server
            finally:
                await server.stop()
    except BaseExceptionGroup as error:
        # What the block raises is raised as it is.
        raise _only_one(error) from None


async def _hold_tasks(*, task_status: TaskStatus[TaskGroup]) -> None:
    """Hold tasks that can be cancelled without the task that runs the server."""
    async with anyio.create_task_group() as tasks:
        task_status.started(tasks)
        await anyio.sleep_forever()


def _only_one(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def http(
    body: bytes = b"",
    *,
    status: str = "200 OK",
    kind: bytes = b"Content-Type: application/json\r\n",
    headers: bytes = b"",
    length: int | None = None,
) -> bytes:
    """Return an answer framed by its Content-Length; `kind` and `headers` are whole lines, each with its line end."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n%s\r\n%s" % (status.encode(), kind, size, headers, body)


def chunked(*chunks: bytes, headers: bytes = b"", end: bytes = b"0\r\n\r\n") -> bytes:
    """Return a 200 in chunks."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    return head + headers + b"\r\n" + framed + end


def free_port() -> int:
    """Return a port on which nothing listens, of those that no server gets which asks for any."""
    return next(filter(_is_free, random.sample(range(10_000, 32_768), 100)))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def full_backlog() -> Iterator[socket.socket]:
    """Give a listening socket whose queue of connections is full: packets to it are dropped."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, _REUSE_PORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def _close(listener: socket.socket) -> None:
    anyio.notify_closing(listener)
    listener.close()
