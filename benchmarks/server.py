"""A server that answers every GET with one canned inventory, of the user asked for, in a process of its own.

It is the cheapest server that asyncio can run, so that the client is what gets measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.payloads import inventory


class _Canned(asyncio.Protocol):
    items = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, self._unread = self._unread.partition(b"\r\n\r\n")
            path = head.split(b" ", 2)[1]
            body = b'{"user_id":"%s",%s' % (path.rpartition(b"/")[2], self.items)
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            self._transport.write(answer % (len(body), body))


@contextmanager
def canned_server(items: int) -> Iterator[str]:
    """Run the server while the block runs, giving its base URL."""
    command = [sys.executable, "-m", "benchmarks.server", str(items)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


async def _serve(items: int) -> None:
    # All but the user's id.
    _Canned.items = inventory(items).partition(b",")[2]
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
