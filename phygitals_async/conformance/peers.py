"""One connection of the loopback server."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol, TypeVar

import anyio
import anyio.lowlevel
from attrs import define, field, frozen

_T = TypeVar("_T")

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


@frozen
class Received:
    """One request that arrived whole. Its repr shows no header: the API key is one of them.

    Attributes:
        connection: The number of the connection it came on, from 1.
        method: The HTTP method.
        target: The request target as it came.
        body: The body.
        headers: Names in lower case, and values, in order.
    """

    connection: int
    method: str
    target: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = field(repr=False)


class Host(Protocol):
    """What a connection needs of the server that accepted it.

    Attributes:
        good: The body of a good answer.
        port: Where it listens.
        other_port: Where it listens besides, or 0.
        bytes_received: How many bytes of requests arrived, TLS removed.
    """

    good: bytes
    port: int
    other_port: int
    bytes_received: int

    def record(self, request: Received) -> None:
        """Count a request, and the action it asks for."""
        ...

    async def stop_listening(self) -> None:
        """Accept no further connection."""
        ...


@define(eq=False)
class Peer:
    """One connection, as the script of a fault sees it.

    Attributes:
        server: What accepted it.
        number: Which connection of the server it is, from 1.
        sock: The socket, which does not block.
    """

    server: Host
    number: int
    sock: socket.socket = field(repr=False)
    _unread: bytes = field(default=b"", repr=False)

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it."""
        return self.sock.fileno() == -1

    async def read_head(self) -> bytes:
        """Return the head of the next request as it came, or nothing at the end of the connection."""
        while b"\r\n\r\n" not in self._unread:
            if not await self._read_more():
                return b""
        return self._unread.partition(b"\r\n\r\n")[0]

    async def read_request(self) -> Received | None:
        """Read one request and record it, or return None at the end of the connection."""
        if not (head := await self.read_head()):
            return None
        length = re.search(rb"(?im)^content-length: *([0-9]+)", head)
        end = len(head) + 4 + (int(length[1]) if length else 0)
        while len(self._unread) < end:
            if not await self._read_more():
                return None
        body, self._unread = self._unread[len(head) + 4 : end], self._unread[end:]
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [line.partition(":") for line in lines]
        headers = tuple((name.lower(), value.strip()) for name, _, value in pairs)
        request = Received(self.number, method, target, body, headers)
        self.server.record(request)
        return request

    async def receive(self) -> bytes:
        """Return what comes next, of whatever protocol; nothing at the end of the connection."""
        await self._read_more()
        data, self._unread = self._unread, b""
        return data

    async def send(self, data: bytes) -> None:
        """Write `data` and wait until the socket has taken it."""
        rest = memoryview(data)
        while rest:
            rest = rest[await _patiently(self.sock, partial(self.sock.send, rest), anyio.wait_writable) :]

    async def drip(self, data: bytes, *, every: float = 0.01, step: int = 1) -> None:
        """Write `data` a few bytes at a time."""
        for start in range(0, len(data), step):
            await self.send(data[start : start + step])
            await anyio.sleep(every)

    async def flood(self, data: bytes) -> None:
        """Write `data` again and again until the client hangs up."""
        while True:
            await self.send(data)
            await anyio.lowlevel.checkpoint()

    async def stay_silent(self) -> None:
        """Do nothing until the client hangs up."""
        while await self._read_more():
            pass

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS from here on."""
        wrapped = context.wrap_socket(self.sock, server_side=True, do_handshake_on_connect=False)
        self.sock = wrapped
        await _patiently(wrapped, wrapped.do_handshake, anyio.wait_readable)

    async def close(self) -> None:
        """End the connection in good order (FIN)."""
        if isinstance(self.sock, ssl.SSLSocket):
            # It says goodbye, and waits for no answer.
            with suppress(OSError):
                self.sock.unwrap()
        self.abort()

    async def reset(self) -> None:
        """End the connection with a RST."""
        if not self.is_closed:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.abort()

    def abort(self) -> None:
        """Close the socket, whoever waits for it."""
        if not self.is_closed:
            anyio.notify_closing(self.sock)
            self.sock.close()

    async def _read_more(self) -> bool:
        """Read what is there; tell whether the client can still send."""
        data = await _patiently(self.sock, partial(self.sock.recv, 65536), anyio.wait_readable)
        self.server.bytes_received += len(data)
        self._unread += data
        return bool(data)


async def _patiently(
    sock: socket.socket, operation: Callable[[], _T], ready: Callable[[socket.socket], Awaitable[None]]
) -> _T:
    """Do what a socket that does not block may not be ready for."""
    while True:
        try:
            return operation()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            await ready(sock)
