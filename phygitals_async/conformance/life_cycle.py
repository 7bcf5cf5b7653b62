"""How long what a transport holds may live."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial

import anyio
import anyio.to_thread
import pytest

from phygitals_async import (
    ConfigurationError,
    PhygitalsError,
    Request,
    Response,
    Sent,
    Transport,
    TransportError,
)
from phygitals_async.conformance.contract import LONGEST_WAIT, Handler, TransportConformance
from phygitals_async.conformance.exchanges import GOOD_BODY, attempt, read, sale, silent, until
from phygitals_async.conformance.faults import ANSWERED
from phygitals_async.conformance.rules import Settings
from phygitals_async.conformance.server import answering, fault_server

REQUESTS = pytest.mark.parametrize("request_to", [read, sale])


class LifeCycle(TransportConformance):
    """The tests of what a transport holds, and lets go of."""

    def transport(self, settings: Settings) -> Transport:
        """Return a new transport. It is called outside of an event loop, too."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, settings: Settings) -> AsyncGenerator[Transport]:
        """Give a new transport, and close it at the end of the block."""
        transport = self.transport(settings)
        try:
            yield transport
        finally:
            with anyio.CancelScope(shield=True):
                await transport.aclose()

    @asynccontextmanager
    async def connected(self, handler: Handler) -> AsyncGenerator[tuple[Transport, str]]:
        """Serve `handler` over HTTP, and give a new transport and the server's address."""
        async with fault_server() as server, self.opened(Settings()) as transport:
            await server.turn(answering(handler))
            yield transport, server.url

    @pytest.mark.anyio
    async def test_nothing_is_left(self) -> None:
        """`aclose` closes the connections that were kept, and no task outlives it, nor a cancelled send."""
        async with fault_server(GOOD_BODY) as server:
            before = set(anyio.get_running_tasks())
            async with self.opened(Settings()) as transport:
                for make in (read, sale):
                    await transport.send(make(server.url))
            await until(lambda: not server.peers)
            async with self.opened(Settings()) as transport:
                arrived = anyio.Event()
                await server.turn(silent(arrived))
                async with anyio.create_task_group() as group:
                    group.start_soon(transport.send, read(server.url))
                    await arrived.wait()
                    group.cancel_scope.cancel()
            for peer in list(server.peers):
                peer.abort()
            await until(lambda: set(anyio.get_running_tasks()) <= before)

    @pytest.mark.anyio
    @REQUESTS
    async def test_closing_while_a_send_is_under_way(self, request_to: Callable[[str], Request]) -> None:
        """The send ends, with an error that does not call it unsent."""
        failures: list[PhygitalsError] = []
        async with fault_server() as server, self.opened(Settings()) as transport:
            arrived = anyio.Event()
            await server.turn(silent(arrived))
            request = request_to(server.url)

            async def send() -> None:
                with pytest.raises(TransportError) as caught:
                    await transport.send(request)
                failures.append(caught.value)

            with anyio.fail_after(LONGEST_WAIT):
                async with anyio.create_task_group() as group:
                    group.start_soon(send)
                    await arrived.wait()
                    await transport.aclose()
        (failure,) = failures
        assert failure.sent is not Sent.NEVER
        assert request.delivery.sent is not Sent.NEVER

    def test_one_event_loop_after_another(self) -> None:
        """When its event loop is over, a transport works in the next, or refuses it."""
        transport = self.transport(Settings())
        answers: list[Response] = []

        async def use() -> None:
            async with fault_server(GOOD_BODY) as server:
                answers.append(await transport.send(read(server.url)))

        # All of them in one thread.
        with ThreadPoolExecutor(1) as thread:
            for loop in (*self.event_loops, *self.event_loops):
                with suppress(ConfigurationError):
                    thread.submit(partial(anyio.run, use, backend=loop)).result()
            thread.submit(partial(anyio.run, transport.aclose, backend=self.event_loops[-1])).result()
        assert answers
        assert {answer.body for answer in answers} == {GOOD_BODY}

    @pytest.mark.anyio
    async def test_two_event_loops_at_once(self, anyio_backend_name: str) -> None:
        """In a second event loop a transport works, or refuses it; in the first it goes on working."""
        async with fault_server(GOOD_BODY) as server, self.opened(Settings()) as transport:

            async def use() -> None:
                with suppress(ConfigurationError):
                    assert (await transport.send(read(server.url))).body == GOOD_BODY

            assert await attempt(transport, read(server.url)) == ANSWERED
            await anyio.to_thread.run_sync(lambda: anyio.run(use, backend=anyio_backend_name))
            assert await attempt(transport, read(server.url)) == ANSWERED

    def test_other_event_loops_are_refused(self) -> None:
        """On an event loop that it does not support it says so, and sends nothing."""

        async def use() -> None:
            async with fault_server() as server, self.opened(Settings()) as transport:
                with pytest.raises(ConfigurationError):
                    await transport.send(read(server.url))
                assert server.connections == 0

        for loop in {"asyncio", "trio"} - set(self.event_loops):
            anyio.run(use, backend=loop)
