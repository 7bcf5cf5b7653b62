"""A client inside the programs of others: their servers, their task groups, and their Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from faults.cells import footprint, left_over
from phygitals_async import Found, PhygitalsClient
from phygitals_async.conformance.peers import Peer, Received
from phygitals_async.conformance.server import GOOD, FaultServer, Script, fault_server
from phygitals_transports import AiohttpTransport

_KEY = "sandbox-embedded"
_GOOD = b'{"user_id": "u", "items": [], "success": true, "amount": 1}'


class Upstream:
    """The API's server. It stalls until it is told not to.

    Attributes:
        server: The server.
        api: A client of it.
        arrived: Is set as soon as a request has arrived.
    """

    def __init__(self, server: FaultServer) -> None:
        self.server = server
        self.arrived = asyncio.Event()
        self.api = PhygitalsClient(AiohttpTransport(), api_key=_KEY, base_url=server.url, deadline=600.0)

    async def stall(self) -> None:
        """Take every request from now on, and never answer."""

        async def on_request(peer: Peer, _: Received) -> None:
            self.arrived.set()
            await peer.stay_silent()

        self.arrived.clear()
        await self.server.turn(Script(on_request=on_request))

    async def check_that_all_is_well(self) -> None:
        """Check that no call is left, and that the next is answered."""
        assert self.api._engine.admission.in_flight == 0
        assert len(self.server.performed) <= 1
        await self.server.turn(GOOD)
        assert (await self.api.get_inventory("u")).user_id == "u"


@asynccontextmanager
async def stalling_upstream() -> AsyncIterator[Upstream]:
    """Run an upstream that stalls, and check that nothing is left when the block and the client have ended."""
    before = footprint()
    # A call that outlives its cancellation must fail the test, not hang it.
    async with asyncio.timeout(60), fault_server(_GOOD) as server:
        upstream = Upstream(server)
        async with upstream.api:
            await upstream.stall()
            yield upstream
    assert not await left_over(before)


async def _read(api: PhygitalsClient) -> None:
    await api.get_inventory("u")


async def _sell(api: PhygitalsClient) -> None:
    await api.sell_back("item")


async def _batch(api: PhygitalsClient) -> None:
    await api.get_inventories(["a", "b", "c"], limit=2)


_CALLS = pytest.mark.parametrize("call", [_read, _sell, _batch])
Calling = Callable[[PhygitalsClient], Awaitable[None]]


@_CALLS
@pytest.mark.asyncio
async def test_a_client_of_an_aiohttp_server_disconnects(call: Calling) -> None:
    """The handler's call ends as cancelled, and the handler of the next request can make its own."""
    ended: list[BaseException] = []
    over = asyncio.Event()

    async with stalling_upstream() as upstream:

        async def handler(_: web.Request) -> web.Response:
            try:
                await call(upstream.api)
            except BaseException as error:
                ended.append(error)
                raise
            finally:
                over.set()
            return web.Response(text="well")

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await upstream.arrived.wait()
            assert not over.is_set()
            writer.close()
            await writer.wait_closed()
            await over.wait()
            assert [type(error) for error in ended] == [asyncio.CancelledError]
            await upstream.check_that_all_is_well()

            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b" 200 OK\r\n" in await reader.read()
            writer.close()
            await writer.wait_closed()
        finally:
            await runner.cleanup()


async def _one_by_one(api: PhygitalsClient) -> AsyncIterator[str]:
    yield "begin\n"
    yield (await api.get_inventory("u")).user_id


async def _all_at_once(api: PhygitalsClient) -> AsyncIterator[str]:
    yield "begin\n"
    async with api.stream_inventories(["u", "u", "u"], limit=2) as outcomes:
        async for outcome in outcomes:
            assert isinstance(outcome, Found)
            yield outcome.value.user_id


@pytest.mark.parametrize("body", [_one_by_one, _all_at_once])
@pytest.mark.asyncio
async def test_a_client_of_starlette_disconnects_in_the_middle_of_a_stream(
    body: Callable[[PhygitalsClient], AsyncIterator[str]],
) -> None:
    """The response that awaits the API is cancelled, and the next one is sent whole."""
    disconnects = asyncio.Event()
    sent: list[bytes] = []
    asked = 0

    async with stalling_upstream() as upstream:

        def endpoint(_: Request) -> StreamingResponse:
            return StreamingResponse(body(upstream.api))

        async def receive() -> dict[str, Any]:
            nonlocal asked
            asked += 1
            if asked > 1:
                await disconnects.wait()
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                sent.append(message["body"])

        async def serve() -> None:
            nonlocal asked
            asked = 0
            sent.clear()
            # Before ASGI 2.4, which uvicorn still speaks, a response listens for the disconnect while it streams.
            scope = {
                "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
                "method": "GET", "path": "/", "raw_path": b"/", "root_path": "", "query_string": b"", "headers": [],
                "scheme": "http", "server": ("localhost", 80), "client": ("localhost", 9),
            }  # fmt: skip
            await Starlette(routes=[Route("/", endpoint)])(scope, receive, send)

        serving = asyncio.create_task(serve())
        await upstream.arrived.wait()
        assert not serving.done()
        disconnects.set()
        await serving
        assert sent == [b"begin\n"]
        await upstream.check_that_all_is_well()

        disconnects.clear()
        await serve()
        assert sent[0] == b"begin\n"
        assert set(sent[1:-1]) == {b"u"}
        assert sent[-1] == b""


_PROGRAM = """
import asyncio
import signal
import sys

from phygitals_async import PhygitalsClient

CALLS = {
    "_read": lambda api: api.get_inventory("u"),
    "_sell": lambda api: api.sell_back("item"),
    "_batch": lambda api: api.get_inventories(["a", "b", "c"], limit=2),
}


async def main():
    # A slow machine is no noise of the library's.
    asyncio.get_running_loop().slow_callback_duration = 3600
    async with PhygitalsClient(api_key="sandbox-embedded", base_url=sys.argv[1], deadline=600) as api:
        await CALLS[sys.argv[2]](api)


# Who started this may ignore the signal.
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""


@_CALLS
@pytest.mark.asyncio
async def test_ctrl_c_ends_a_program_in_the_middle_of_a_call(call: Calling) -> None:
    """It ends by KeyboardInterrupt, and prints nothing but that money may have moved."""
    async with stalling_upstream() as upstream:
        command = [sys.executable, "-W", "error", "-X", "dev", "-c", _PROGRAM, upstream.server.url, call.__name__]
        pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
        program = await asyncio.create_subprocess_exec(*command, **pipes)  # type: ignore[arg-type]
        ending = asyncio.create_task(program.communicate())
        arriving = asyncio.create_task(upstream.arrived.wait())
        await asyncio.wait([ending, arriving], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            program.send_signal(signal.SIGINT)
        out, err = await ending
        arriving.cancel()
        noise = "sell_back: ended by CancelledError, its outcome is unknown\n" if call is _sell else ""
        assert (out.decode(), err.decode()) == ("interrupted\n", noise)
        await upstream.check_that_all_is_well()


async def _fails_once_it_arrived(upstream: Upstream) -> None:
    await upstream.arrived.wait()
    raise KeyError("a sibling")


async def _in_a_group_of_asyncio(*work: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)  # type: ignore[arg-type]


async def _in_a_group_of_anyio(*work: Awaitable[None]) -> None:
    async def run(one: Awaitable[None]) -> None:
        await one

    async with anyio.create_task_group() as group:
        for one in work:
            group.start_soon(run, one)


@_CALLS
@pytest.mark.parametrize("in_a_group", [_in_a_group_of_asyncio, _in_a_group_of_anyio])
@pytest.mark.asyncio
async def test_a_sibling_in_a_task_group_fails(call: Calling, in_a_group: Callable[..., Awaitable[None]]) -> None:
    """The call is cancelled, and nothing comes out but the sibling's own error."""
    ended: list[BaseException] = []

    async def make(upstream: Upstream) -> None:
        try:
            await call(upstream.api)
        except BaseException as error:
            ended.append(error)
            raise

    async with stalling_upstream() as upstream:
        with pytest.raises(ExceptionGroup) as caught:
            await in_a_group(make(upstream), _fails_once_it_arrived(upstream))
        assert [type(error) for error in caught.value.exceptions] == [KeyError]
        assert [type(error) for error in ended] == [asyncio.CancelledError]
        await upstream.check_that_all_is_well()
