"""The kit's loopback server does what a script says."""

from __future__ import annotations

import anyio
import pytest

from phygitals_async.conformance.peers import Peer, Received
from phygitals_async.conformance.server import Script, fault_server

pytestmark = pytest.mark.anyio

_POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


async def test_a_request_arrives_in_pieces_or_not_at_all() -> None:
    """What was cut is no request."""
    async with fault_server(b"{}") as server:
        for pieces in ([_POST[:9], _POST[9:] + b"ab", b"cde"], [_POST + b"ab"], [_POST[:9]], []):
            async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
                for piece in pieces:
                    await stream.send(piece)
                    await anyio.sleep(0.01)
                await stream.send_eof()
                with anyio.fail_after(10):
                    while True:
                        try:
                            await stream.receive()
                        except (anyio.EndOfStream, anyio.BrokenResourceError):
                            break
        assert [received.body for received in server.received] == [b"abcde"]
        assert server.performed == [b"abcde"]
        assert server.connections == 4


async def test_a_connection_ends_once() -> None:
    """However often a script ends it; and what drips arrives whole."""

    async def script(peer: Peer, _: Received) -> None:
        await peer.drip(b"drop by drop", every=0, step=5)
        await peer.close()
        assert peer.is_closed
        await peer.close()
        await peer.reset()

    async with fault_server() as server:
        await server.turn(Script(on_request=script))
        async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
            await stream.send(_POST + b"abcde")
            got = b""
            with anyio.fail_after(10):
                while len(got) < 12:
                    got += await stream.receive()
        assert got == b"drop by drop"
