"""A server that answers every GET with a canned inventory, of the user asked for, in a process of its own.

It is the cheapest server that asyncio can run, so that the client is what gets measured.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.payloads import inventory, varied_inventories


class _Canned(asyncio.Protocol):
    # All of the inventories but the user's id.
    rests: Sequence[bytes] = (b"",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._unread = b""

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while b"\r\n\r\n" in self._unread:
            head, _, self._unread = self._unread.partition(b"\r\n\r\n")
            user_id = head.split(b" ", 2)[1].rpartition(b"/")[2]
            # With one inventory for all, a user may have any id.
            number = int(user_id.rpartition(b"_")[2]) if len(self.rests) > 1 else 0
            rest = self.rests[number % len(self.rests)]
            body = b'{"user_id":"%s",%s' % (user_id, rest)
            answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            self._transport.write(answer % (len(body), body))


@contextmanager
def canned_server(items: int, varied: int = 1) -> Iterator[str]:
    """Run the server while the block runs, giving its base URL.

    Args:
        items: In each inventory.
        varied: How many inventories there are; by default all users have the same.
    """
    command = [sys.executable, "-m", "benchmarks.server", str(items), str(varied)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


async def _serve(items: int, varied: int) -> None:
    bodies = [inventory(items)] if varied == 1 else varied_inventories(items, varied)
    _Canned.rests = tuple(body.partition(b",")[2] for body in bodies)
    server = await asyncio.get_running_loop().create_server(_Canned, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
