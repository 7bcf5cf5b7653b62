"""A loopback server that keeps the exact bytes it received and answers with exactly the bytes it is told to."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from attrs import field, frozen

_LARGEST_HEAD = 1024 * 1024
# Seconds; what does not come must fail the test, not hang it.
_LONGEST_WAIT = 60


@frozen
class Step:
    """What to do about one request.

    Attributes:
        data: The bytes to answer with.
        then: Keep the connection for the next request, close it, stop listening and close it, reset it (RST),
            or do nothing more until the client hangs up.
        gate: Waited for before anything is done.
        tls: Speak TLS from here on, as behind a proxy's CONNECT.
    """

    data: bytes = field(default=b"", repr=False)
    then: Literal["keep", "close", "stop", "reset", "hang"] = "close"
    gate: asyncio.Event | None = None
    tls: ssl.SSLContext | None = None


def answer(
    status: int = 200,
    body: bytes = b"",
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    then: Literal["keep", "close"] = "keep",
) -> Step:
    """Return a well-formed answer, framed by its Content-Length."""
    pairs = [("Content-Length", str(len(body))), *dict(headers).items()]
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in pairs)]
    return Step("\r\n".join(lines).encode() + b"\r\n\r\n" + body, then)


class RawServer:
    """A running server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        listener: What accepts connections.
        received: The bytes of every request, in order of arrival.
        connections: How many connections were accepted.
        writers: The server's side of each of them, in order.
    """

    def __init__(self, steps: Sequence[Step], *, whole_head: bool) -> None:
        self.port = 0
        self.listener: asyncio.Server | None = None
        self.received: list[bytes] = []
        self.connections = 0
        self.writers: list[asyncio.StreamWriter] = []
        self._steps = list(steps)
        self._whole_head = whole_head
        self._arrivals = asyncio.Semaphore(0)
        self._departures = asyncio.Semaphore(0)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """The origin, such as `http://127.0.0.1:8765`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def request_lines(self) -> list[bytes]:
        """The first line of every request."""
        return [request.partition(b"\r\n")[0] for request in self.received]

    def header_lines(self, index: int = -1) -> list[bytes]:
        """Return the header lines of one request as they came."""
        return self.received[index].partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]

    async def arrival(self) -> None:
        """Wait for one more request."""
        async with asyncio.timeout(_LONGEST_WAIT):
            await self._arrivals.acquire()

    async def departure(self) -> None:
        """Wait until one more connection has ended."""
        async with asyncio.timeout(_LONGEST_WAIT):
            await self._departures.acquire()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection in a task of its own."""
        self.connections += 1
        self.writers.append(writer)
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Listen no more and end every connection."""
        if self.listener is not None:
            self.listener.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        assert not failures, failures

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except ConnectionError:
            # Many tests make the client hang up in the middle.
            pass
        finally:
            writer.transport.abort()
            self._departures.release()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Take one request and answer it; tell whether the connection lives on."""
        request = await self._read_request(reader)
        if not request:
            return False
        self.received.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        self._arrivals.release()
        if step.gate is not None:
            await step.gate.wait()
        writer.write(step.data)
        await writer.drain()
        if step.tls is not None:
            await writer.start_tls(step.tls)
            return True
        if step.then == "stop":
            assert self.listener is not None
            self.listener.close()
        if step.then == "hang":
            await reader.read()
        elif step.then == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif step.then in ("close", "stop"):
            writer.close()
            await writer.wait_closed()
        return step.then == "keep"

    async def _read_request(self, reader: asyncio.StreamReader) -> bytes:
        if not self._whole_head:
            return await reader.read(_LARGEST_HEAD)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
            return head + (await reader.readexactly(int(length[1])) if length else b"")
        except asyncio.IncompleteReadError as error:
            return error.partial


@asynccontextmanager
async def raw_server(
    *steps: Step, tls: ssl.SSLContext | None = None, whole_head: bool = True
) -> AsyncIterator[RawServer]:
    """Run a server that takes one step for each request, repeating the last.

    Args:
        steps: What to do; by default an empty 200.
        tls: Speak TLS with this context.
        whole_head: Read up to the end of the request's headers, and its body. If not, what comes first is
            taken for a request, HTTP or not.
    """
    running = RawServer(steps or [answer()], whole_head=whole_head)
    running.listener = await asyncio.start_server(running.accept, "127.0.0.1", 0, ssl=tls, limit=_LARGEST_HEAD)
    running.port = running.listener.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        await running.stop()
