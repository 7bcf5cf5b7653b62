"""A loopback server that can misbehave at any byte, and counts what it was asked to do."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from attrs import Factory, define, field, frozen

_LARGEST_HEAD = 1024 * 1024


@frozen
class Received:
    """One request that arrived whole. Its headers, the key among them, are not kept.

    Attributes:
        connection: The number of the connection it came on, from 1.
        method: The HTTP method.
        target: The request target as it came.
        body: The body.
    """

    connection: int
    method: str
    target: str
    body: bytes


@define(eq=False)
class Peer:
    """One connection, as the script of a fault sees it.

    Attributes:
        server: What accepted it.
        number: Which connection of the server it is, from 1.
        reader: Bytes from the client.
        writer: Bytes to the client.
    """

    server: FaultServer
    number: int
    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)

    async def read_request(self) -> Received | None:
        """Read one request and record it, or return None at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
            body = await self.reader.readexactly(int(length[1])) if length else b""
        except asyncio.IncompleteReadError:
            return None
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        self.server.cookies += re.search(rb"(?im)^cookie:", head) is not None
        request = Received(self.number, method, target, body)
        self.server.record(request)
        return request

    async def send(self, data: bytes) -> None:
        """Write `data` and wait until the socket has taken it."""
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, *, every: float = 0.01, step: int = 1) -> None:
        """Write `data` a few bytes at a time."""
        for start in range(0, len(data), step):
            await self.send(data[start : start + step])
            await asyncio.sleep(every)

    async def flood(self, data: bytes) -> None:
        """Write `data` again and again until the client hangs up."""
        while not self.writer.is_closing():
            await self.send(data)
            await asyncio.sleep(0)

    async def stay_silent(self) -> None:
        """Do nothing until the client hangs up."""
        while await self.reader.read(65536):
            pass

    async def close(self) -> None:
        """End the connection in good order (FIN)."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    async def reset(self) -> None:
        """End the connection with a RST."""
        if not self.writer.is_closing():
            sock = self.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


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
    on_turn: Callable[[FaultServer], Awaitable[None]] | None = None


GOOD = Script()


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
        cookies: How many requests carried a cookie, ever.
        tunnels: The targets of CONNECT requests.
        peers: The connections that are open.
        listener: What accepts connections; None while it does not listen.
        other_port: Where it listens besides, for those who are led astray; 0 where it does not.
    """

    good: bytes = field(repr=False)
    script: Script = GOOD
    port: int = 0
    connections: int = 0
    received: list[Received] = Factory(list)
    performed: list[bytes] = field(factory=list, repr=False)
    cookies: int = 0
    tunnels: list[str] = Factory(list)
    peers: set[Peer] = field(factory=set, repr=False)
    listener: asyncio.Server | None = field(default=None, repr=False)
    _claim: socket.socket | None = field(default=None, repr=False)
    other_port: int = 0
    _tasks: set[asyncio.Task[None]] = field(factory=set, repr=False)

    @property
    def url(self) -> str:
        """The origin, over plain http."""
        return f"http://127.0.0.1:{self.port}"

    def record(self, request: Received) -> None:
        """Count a request, and the action it asks for."""
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
        if script.on_turn is not None:
            await script.on_turn(self)

    async def listen(self, tls: ssl.SSLContext | None = None, *, sock: socket.socket | None = None) -> None:
        """Listen on `sock`, or else on the port it had before if it had one."""
        if sock is None:
            if self._claim is None:
                # Bound for good, so that nobody else takes the port while nothing listens on it.
                self._claim = socket.socket()
                self._claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                self._claim.bind(("127.0.0.1", 0))
                self.port = self._claim.getsockname()[1]
            self.listener = await asyncio.start_server(
                self._accept, "127.0.0.1", self.port, ssl=tls, limit=_LARGEST_HEAD, reuse_port=True
            )
        else:
            self.listener = await asyncio.start_server(self._accept, ssl=tls, limit=_LARGEST_HEAD, sock=sock)
        self.port = self.listener.sockets[0].getsockname()[1]

    @asynccontextmanager
    async def listen_elsewhere(self) -> AsyncIterator[None]:
        """Listen on `other_port`, too, over plain http."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.other_port = listener.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listener.close()

    async def stop_listening(self) -> None:
        """Refuse connections from now on; those that are open stay."""
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    async def stop(self) -> None:
        """Listen no more, end every connection, and fail for a mistake in a script."""
        await self.stop_listening()
        if self._claim is not None:
            self._claim.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        assert not failures, failures

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._converse(Peer(self, self.connections, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Not in the task itself, which may be cancelled before it starts.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _converse(self, peer: Peer) -> None:
        self.peers.add(peer)
        try:
            if self.script.on_connect is not None:
                await self.script.on_connect(peer)
            while not peer.writer.is_closing() and (request := await peer.read_request()) is not None:
                await self.script.on_request(peer, request)
        except OSError:
            # Most faults make the client hang up in the middle.
            pass
        finally:
            self.peers.discard(peer)


@asynccontextmanager
async def fault_server(good: bytes, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[FaultServer]:
    """Run a server whose good answers have the body `good`."""
    server = FaultServer(good)
    await server.listen(tls)
    try:
        yield server
    finally:
        await server.stop()


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
