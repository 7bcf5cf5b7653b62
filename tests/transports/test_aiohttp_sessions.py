"""The life of the session that a transport makes for itself."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import aiohttp.abc
import pytest

from aiohttp_support import get, sale, until
from phygitals_async import ConfigurationError, ConnectError, Request, Sent
from phygitals_transports import AiohttpTransport, GuardedConnector
from phygitals_transports.aiohttp_sessions import OwnSession
from raw_server import RawServer, Step, answer, raw_server


@contextmanager
def silence() -> Iterator[None]:
    """See that nobody warns of anything, asyncio neither, nor complains where nobody listens."""
    unraisable: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert [str(warning.message) for warning in seen] == []
    assert unraisable == []


@contextmanager
def served() -> Iterator[RawServer]:
    """Run a server in a loop and thread of its own."""
    ready = threading.Event()
    box: list[Any] = []

    async def run() -> None:
        async with raw_server(answer(200, b"ok")) as server:
            done = asyncio.Event()
            box.extend([server, asyncio.get_running_loop(), done])
            ready.set()
            await done.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert ready.wait(20)
    server, loop, done = box
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(20)


async def use(transport: AiohttpTransport, url: str) -> None:
    """Send a read and a sale."""
    for make in (get, sale):
        assert (await transport.send(make(f"{url}/x"))).body == b"ok"


def test_asyncio_run_closes_the_session_at_its_end() -> None:
    """Each loop with its connections, and without a warning of anybody's."""
    with served() as server, silence():
        transport = AiohttpTransport()
        sessions = []
        for _ in range(3):
            asyncio.run(use(transport, server.url))
            session = transport._own.session
            assert session is not None
            assert session.closed
            # It still waits to be closed by its owner, who is told of it otherwise.
            assert transport.is_open
            sessions.append(weakref.ref(session))
            del session
        asyncio.run(transport.aclose())
        assert not transport.is_open
        gc.collect()
        assert [session() for session in sessions] == [None] * 3


def test_a_loop_that_its_owner_closes_without_asking_it_to_shut_down() -> None:
    """Nobody told the transport; aiohttp is silent, and the sockets close with asyncio's own warning."""
    with served() as server:
        transport = AiohttpTransport()
        for _ in range(2):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(use(transport, server.url))
            loop.close()
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                asyncio.run(transport._own.aclose())
                del loop
                gc.collect()
            texts = [str(warning.message) for warning in seen]
            assert texts
            assert all(text.startswith(("unclosed transport", "unclosed <socket")) for text in texts)


def test_a_session_used_again_after_its_loop_has_closed_its_generators() -> None:
    """It is made anew."""
    with served() as server:
        transport = AiohttpTransport()

        async def main() -> None:
            await use(transport, server.url)
            first = transport._own.session
            assert first is not None
            await asyncio.get_running_loop().shutdown_asyncgens()
            assert first.closed
            with pytest.warns(ResourceWarning, match="after loop.shutdown_asyncgens"):
                await use(transport, server.url)
            assert transport._own.session is not first
            await transport.aclose()

        asyncio.run(main())


@pytest.mark.parametrize("forget", [lambda box: box.clear(), lambda box: gc.collect()], ids=["dropped", "collected"])
def test_forgotten_in_the_last_step_of_a_loop(forget: Callable[[list[Any]], object]) -> None:
    """There is no later step to close it in."""

    async def main(url: str) -> None:
        transport: Any = AiohttpTransport()
        await use(transport, url)
        box = [transport]
        transport.itself = box
        del transport
        forget(box)

    with served() as server, silence():
        asyncio.run(main(server.url))


def test_forgotten_between_two_runs_of_a_loop() -> None:
    """The loop is not over, and does not run."""
    with served() as server, silence(), asyncio.Runner() as runner:
        transport = AiohttpTransport()
        runner.run(use(transport, server.url))
        session = transport._own.session
        assert session is not None
        del transport
        gc.collect()
        assert session.closed
        runner.run(asyncio.sleep(0))


def test_forgotten_in_another_thread() -> None:
    """The garbage collector runs in any; the loop closes the session itself."""
    closed_in: list[int] = []
    close = GuardedConnector.close_at_once

    def noting(self: GuardedConnector) -> None:
        closed_in.append(threading.get_ident())
        close(self)

    async def main(url: str) -> None:
        box = [AiohttpTransport()]
        await use(box[0], url)
        await asyncio.to_thread(box.clear)
        await until(lambda: closed_in)

    with served() as server, silence(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(GuardedConnector, "close_at_once", noting)
        asyncio.run(main(server.url))
        assert closed_in == [threading.get_ident()]


@pytest.mark.asyncio
async def test_forgotten_while_the_loop_closes_it() -> None:
    """The loop is in the middle of closing; nothing is done twice."""
    closing = asyncio.Event()

    class Connector(GuardedConnector):
        async def close(self, *, abort_ssl: bool = False) -> None:
            closing.set()
            await asyncio.sleep(0)
            await super().close(abort_ssl=abort_ssl)

    async with raw_server(answer(200, b"ok")) as server:
        own = [OwnSession(lambda: aiohttp.ClientSession(connector=Connector()), "this test")]
        session = own[0].get()
        async with session.get(f"{server.url}/x"):
            pass
        ending = asyncio.create_task(asyncio.get_running_loop().shutdown_asyncgens())
        await closing.wait()
        with silence():
            own.clear()
            await ending
        assert session.closed


@pytest.mark.asyncio
async def test_a_forked_process_that_can_make_no_session_does_not_take_the_parents(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often it tries."""
    parent = os.getpid()
    own = OwnSession(lambda: aiohttp.ClientSession(connector=GuardedConnector()), "this test")
    session = own.get()

    def fail() -> aiohttp.ClientSession:
        raise ConfigurationError

    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: parent + 1)
        own._make = fail
        for _ in range(2):
            with pytest.raises(ConfigurationError):
                own.get()
    assert not session.closed
    await session.close()


@pytest.mark.asyncio
async def test_closed_from_elsewhere() -> None:
    """A loop that closes what is another's leaves it to that one."""
    async with raw_server(answer(200, b"ok")) as server:
        transport = AiohttpTransport()
        await use(transport, server.url)
        session = transport._own.session
        assert session is not None
        await asyncio.to_thread(asyncio.run, transport.aclose())
        await until(lambda: session.closed)
        await server.departure()
        assert not transport.is_open


@pytest.mark.asyncio
async def test_closing_that_is_cancelled() -> None:
    """The sockets are closed all the same."""
    async with raw_server(answer(200, b"ok")) as server, raw_server(Step(then="hang")) as silent:
        transport = AiohttpTransport()
        await use(transport, server.url)
        session = transport._own.session
        assert session is not None
        stuck = asyncio.create_task(transport.send(sale(f"{silent.url}/x")))
        await silent.arrival()
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing, stuck], timeout=60)
        assert session.closed
        await server.departure()
        await silent.departure()
        assert stuck.exception() is not None


@pytest.mark.asyncio
async def test_a_cancelled_closing_of_the_connector_closes_both_its_kinds_of_connection() -> None:
    """Also those that were made for one request."""
    async with raw_server(Step(then="hang")) as server:
        connector = GuardedConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector)
        transport = AiohttpTransport(session)
        calls = [asyncio.create_task(transport.send(make(f"{server.url}/x"))) for make in (get, sale)]
        for _ in calls:
            await server.arrival()
        closing = asyncio.create_task(session.close())
        await asyncio.sleep(0)
        closing.cancel()
        for _ in calls:
            await server.departure()
        await asyncio.wait([closing, *calls], timeout=60)
        assert session.closed


AT_EXIT = """
import asyncio, sys
from phygitals_async import Request
from phygitals_transports import AiohttpTransport

transport = AiohttpTransport()
loop = asyncio.new_event_loop()
loop.run_until_complete(transport.send(Request("GET", sys.argv[1], {})))
if sys.argv[2] == "closed":
    loop.close()
"""


@pytest.mark.parametrize("loop", ["closed", "open"])
def test_at_the_end_of_the_interpreter(loop: str) -> None:
    """aiohttp says nothing; whoever left the loop or its sockets open hears of that from asyncio."""
    with served() as server:
        command = [sys.executable, "-W", "always", "-c", AT_EXIT, f"{server.url}/x", loop]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "Unclosed" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.asyncio
@pytest.mark.parametrize("request_to", [get, sale])
async def test_closing_gives_up_a_connection_in_the_making(request_to: Callable[[str], Request]) -> None:
    """It is known never to have been sent, however often the connector is closed meanwhile."""
    looking = asyncio.Event()

    class Stubborn(aiohttp.abc.AbstractResolver):
        async def resolve(self, *_: Any, **__: Any) -> Any:
            looking.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await connector.close()
                raise

        async def close(self) -> None: ...

    connector = GuardedConnector(resolver=Stubborn(), use_dns_cache=False)
    async with aiohttp.ClientSession(connector=connector) as session:
        request = request_to("http://phygitals.invalid/")
        sending = asyncio.create_task(AiohttpTransport(session).send(request))
        await looking.wait()
        await connector.close()
        with pytest.raises(ConnectError, match="closed while it was made"):
            await sending
    assert request.delivery.sent is Sent.NEVER
