"""What is particular to the transport over pyreqwest: it cannot take a request back, nor tell whether it was sent."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from phygitals_async import ConnectError, ConnectionLost, OutcomeUnknown, PhygitalsClient, Request, Sent, TransportError
from phygitals_async.conformance.exchanges import GOOD_BODY, read, silent
from phygitals_async.conformance.server import fault_server, free_port
from phygitals_transports import ReqwestTransport
from phygitals_transports.reqwest_engine import translate

pytestmark = pytest.mark.asyncio


async def test_a_timeout_of_asyncio_is_one() -> None:
    """Cancellation that is not anyio's passes, too."""
    transport = ReqwestTransport()
    async with fault_server() as server:
        await server.turn(silent(anyio.Event()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await transport.send(read(server.url))
        await transport.aclose()


async def test_what_was_cancelled_is_abandoned_later() -> None:
    """Its connection does not stay for ever."""
    transport = ReqwestTransport(abandon_after=0.2)
    arrived = anyio.Event()
    async with fault_server() as server:
        await server.turn(silent(arrived))
        task = asyncio.create_task(transport.send(read(server.url)))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(10):
            while server.peers:  # noqa: ASYNC110 - it is the end of a socket.
                await asyncio.sleep(0.01)
        with pytest.raises(ConnectionLost, match="TimeoutError"):
            await transport.send(read(server.url))
        await transport.aclose()


@pytest.mark.parametrize("target", ["/a/../b", "/a/%2e%2e/b", "/a/./b", '/x?a="'])
async def test_a_url_that_would_be_changed_is_refused(target: str) -> None:
    """It could be another endpoint."""
    transport = ReqwestTransport()
    async with fault_server(GOOD_BODY) as server:
        request = Request("GET", server.url + target, {})
        with pytest.raises(ConnectError, match="would change the URL"):
            await transport.send(request)
        assert request.delivery.sent is Sent.NEVER
        assert server.connections == 0
        await transport.aclose()


async def test_a_refused_connection_leaves_a_sale_open() -> None:
    """Nobody knows better, so nobody says better."""
    api = PhygitalsClient(ReqwestTransport(), api_key="sandbox-test", base_url=f"http://127.0.0.1:{free_port()}")
    async with api:
        with pytest.raises(OutcomeUnknown) as caught:
            await api.sell_back("item")
        assert caught.value.attempts == 1


async def test_an_error_of_nobody_knows_what() -> None:
    """Only its class is told."""
    made = translate(ZeroDivisionError("secret"))
    assert type(made) is TransportError
    assert str(made) == "the exchange failed: ZeroDivisionError"
