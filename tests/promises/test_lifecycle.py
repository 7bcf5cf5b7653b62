"""Closing, forgetting to close, and using a client in a second loop, thread or process."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from anyio.from_thread import start_blocking_portal

from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    ConnectionLost,
    Inventory,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    RetryPolicy,
    Sandbox,
)
from phygitals_transports import AiohttpTransport, GuardedConnector, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from support import empty_inventories
from virtual import virtual_backend

anyio_backend = virtual_backend

EMPTY = Response(200, {"content-type": "application/json"}, b'{"user_id":"u","items":[]}')


async def never(_: Request) -> Response:
    """Answer nothing."""
    await anyio.sleep_forever()
    return EMPTY


class Gate:
    """A server in memory that answers when it is told to, and knows whether it was closed.

    Attributes:
        asked: Requests so far.
        closed: How often it was closed.
        opened: Set it to let the answers out.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.closed = 0
        self.opened = anyio.Event()

    async def send(self, request: Request) -> Response:
        """Answer once the gate is open."""
        self.asked += 1
        await self.opened.wait()
        return EMPTY

    async def aclose(self) -> None:
        """Count it."""
        await anyio.lowlevel.checkpoint()
        self.closed += 1


def gated() -> tuple[Gate, PhygitalsClient]:
    """Return a gate and its client."""
    gate = Gate()
    return gate, PhygitalsClient(gate, api_key="sandbox-test")


async def until(condition: Any) -> None:
    """Wait until a function returns something true."""
    with anyio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for knows nothing of events.
            await anyio.sleep(0.001)


@asynccontextmanager
async def silent_server() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that reads and never answers; give its URL and what it read."""
    received: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while data := await reader.read(65536):
            received.append(data)
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@contextmanager
def thread_server(*users: str) -> Iterator[str]:
    """Serve a sandbox from a loop of its own in another thread, giving its URL."""
    started = threading.Event()
    box: dict[str, Any] = {}

    async def run() -> None:
        sandbox = Sandbox(seed=1)
        for user in users:
            sandbox.add_user(user)
        box["stop"], box["loop"] = asyncio.Event(), asyncio.get_running_loop()
        async with serve(sandbox) as box["url"]:
            started.set()
            await box["stop"].wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield str(box["url"])
    finally:
        box["loop"].call_soon_threadsafe(box["stop"].set)
        thread.join(10)


def open_files() -> int:
    """Return how many files and sockets this process holds."""
    return len(os.listdir("/proc/self/fd"))


# --- closing ----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_calls_after_closing_are_refused() -> None:
    """Every kind of call says that the client was closed, and nothing is sent."""
    transport = MemoryTransport(lambda _: EMPTY)
    api = PhygitalsClient(transport, api_key="sandbox-test")
    await api.get_inventory("u")
    await api.aclose()
    for call in (api.get_inventory("u"), api.start_purchase("p", 1, "u"), api.list_packs()):
        with pytest.raises(ClientClosed, match="closed"):
            await call
    batch = await api.get_inventories(["a", "b"])
    assert [type(failed.error) for failed in batch.failed] == [ClientClosed, ClientClosed]
    assert len(transport.sent) == 1
    assert "closed" in repr(api)


@pytest.mark.anyio
async def test_closing_again_does_nothing() -> None:
    """In a row, and inside `async with`."""
    async with PhygitalsClient(MemoryTransport(lambda _: EMPTY), api_key="sandbox-test") as api:
        for _ in range(3):
            await api.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("grace", [-1.0, float("nan"), float("inf"), "5", True])
async def test_grace_is_a_number_of_seconds(grace: Any) -> None:
    """A bad one is refused by name."""
    api = PhygitalsClient(MemoryTransport(lambda _: EMPTY), api_key="sandbox-test")
    with pytest.raises(ConfigurationError, match="grace"):
        await api.aclose(grace=grace)
    await api.aclose()


@pytest.mark.anyio
async def test_closing_waits_for_calls_in_flight() -> None:
    """They get their answers; those queued behind them too."""
    gate = Gate()
    api = PhygitalsClient(gate, api_key="sandbox-test", max_in_flight=2)
    answers: list[Inventory] = []
    closed_after = -1

    async def call() -> None:
        answers.append(await api.get_inventory("u"))

    async def close() -> None:
        nonlocal closed_after
        await api.aclose(grace=60)
        closed_after = len(answers)

    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(call)
        await until(lambda: gate.asked == 2)
        group.start_soon(close)
        await until(lambda: api._engine.closed)
        with pytest.raises(ClientClosed):
            await api.get_inventory("late")
        assert not gate.closed
        gate.opened.set()
    assert closed_after == 2
    assert gate.closed == 1


@pytest.mark.anyio
async def test_concurrent_closings_all_end_with_the_last_call() -> None:
    """None of them waits longer than it must."""
    gate, api = gated()
    async with anyio.create_task_group() as group:
        group.start_soon(api.get_inventory, "u")
        await until(lambda: gate.asked)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as closings:
                for _ in range(3):
                    closings.start_soon(lambda: api.aclose(grace=60))
                await until(lambda: api._engine.closed)
                await anyio.sleep(0.01)
                assert not gate.closed
                gate.opened.set()
    assert gate.closed >= 1


@pytest.mark.anyio
async def test_closing_gives_up_after_the_grace() -> None:
    """A call that does not end does not keep the client open for ever."""
    gate, api = gated()
    async with anyio.create_task_group() as group:
        group.start_soon(api.get_inventory, "u")
        await until(lambda: gate.asked)
        with anyio.fail_after(5):
            await api.aclose(grace=0.01)
        assert gate.closed == 1
        group.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_closing_that_is_cancelled_closes_the_transport_all_the_same() -> None:
    """Otherwise the sockets would be lost; the cancellation passes through."""
    gate, api = gated()
    passed = True
    async with anyio.create_task_group() as group:
        group.start_soon(api.get_inventory, "u")
        await until(lambda: gate.asked)
        with anyio.move_on_after(0.01):
            await api.aclose(grace=60)
            passed = False
        assert passed
        assert gate.closed == 1
        with pytest.raises(ClientClosed):
            await api.get_inventory("u")
        group.cancel_scope.cancel()


@pytest.mark.asyncio
async def test_calls_in_flight_at_the_end_of_the_grace_fail_clearly() -> None:
    """Over real sockets: the read says closed, the purchase that nobody knows; none hangs."""
    async with silent_server() as (url, received):
        api = PhygitalsClient(api_key="sandbox-test", base_url=url, retry=RetryPolicy(base=0.001))
        read = asyncio.create_task(api.get_inventory("u"))
        purchase = asyncio.create_task(api.start_purchase("p", 1, "u"))
        await until(lambda: len(received) >= 2)
        await api.aclose(grace=0.05)
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(read, purchase, return_exceptions=True)
        assert isinstance(outcomes[0], ClientClosed | ConnectionLost)
        assert isinstance(outcomes[1], OutcomeUnknown)
        assert isinstance(outcomes[1].__cause__, ConnectionLost)
        assert sum(b"buy/init" in data for data in received) == 1


@pytest.mark.asyncio
async def test_calls_cut_off_while_connecting_fail_with_an_error_of_this_library() -> None:
    """Whatever the moment at which the session is closed under a call, no foreign exception comes out."""
    async with silent_server() as (url, _):
        for number in range(40):
            api = PhygitalsClient(api_key="sandbox-test", base_url=url, retry=RetryPolicy(retries=0))
            calls = [asyncio.create_task(api.get_inventory(f"u{n}")) for n in range(5)]
            for _ in range(number):
                await asyncio.sleep(0)
            await api.aclose(grace=0.001)
            outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
            assert all(isinstance(outcome, PhygitalsError) for outcome in outcomes), outcomes


@pytest.mark.asyncio
async def test_a_session_that_was_given_stays_open() -> None:
    """It belongs to its maker; once that one has closed it, calls say so."""
    async with serve(lambda _: EMPTY) as url, aiohttp.ClientSession(connector=GuardedConnector(limit=0)) as session:
        transport = AiohttpTransport(session)
        api = PhygitalsClient(transport, api_key="sandbox-test", base_url=url)
        await api.get_inventory("u")
        assert not transport.is_open
        await api.aclose()
        assert not session.closed
        other = PhygitalsClient(AiohttpTransport(session), api_key="sandbox-test", base_url=url)
        await session.close()
        with pytest.raises(ClientClosed):
            await other.get_inventory("u")


@pytest.mark.asyncio
async def test_a_transport_that_was_closed_refuses() -> None:
    """Also one that was never used."""
    transport = AiohttpTransport()
    assert not transport.is_open
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(ClientClosed):
        await transport.send(Request("GET", "http://127.0.0.1:9/", {}))


def test_a_client_cannot_be_pickled_or_copied() -> None:
    """It holds connections and a key."""
    api = PhygitalsClient(MemoryTransport(lambda _: EMPTY), api_key="sandbox-secret")
    for dump in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled") as caught:
            dump(api)
        assert "sandbox-secret" not in str(caught.value)


# --- a second loop, thread, process -----------------------------------------------------------------------------------


def test_one_client_serves_one_asyncio_run_after_the_other_in_memory() -> None:
    """Nothing of the former loop is left over."""
    api = PhygitalsClient(MemoryTransport(empty_inventories), api_key="sandbox-test", max_in_flight=2)
    for _ in range(3):
        assert len(asyncio.run(api.get_inventories(["a", "b", "c", "d"])).found) == 4
    anyio.run(api.get_inventory, "u", backend="trio")
    asyncio.run(api.aclose())


def messages(seen: list[warnings.WarningMessage]) -> list[str]:
    """Return the texts of recorded warnings."""
    return [str(warning.message) for warning in seen]


def settles(condition: Callable[[], bool]) -> bool:
    """Collect until the condition holds: the server's end of a connection closes a moment after ours."""
    for _ in range(500):
        gc.collect()
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_one_client_serves_one_asyncio_run_after_the_other_over_http() -> None:
    """Each with fresh sockets; those of a loop go with it, and nobody complains."""
    with thread_server("u") as url:
        before = open_files()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            api = PhygitalsClient(api_key="sandbox-test", base_url=url)
            for _ in range(10):
                assert asyncio.run(api.get_inventory("u")) == Inventory("u", ())
            # Both ends of a connection are in this process.
            assert settles(lambda: open_files() - before <= 4)
            asyncio.run(api.aclose())
            assert settles(lambda: open_files() - before <= 2)
        assert messages(seen) == []


def test_a_client_is_closed_in_a_later_loop() -> None:
    """`asyncio.run(api.aclose())` at the end of a script leaves nothing behind, and nobody complains."""
    gc.collect()
    with thread_server("u") as url, warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        api = PhygitalsClient(api_key="sandbox-test", base_url=url)
        asyncio.run(api.get_inventory("u"))
        asyncio.run(api.aclose())
        del api
        gc.collect()
    assert messages(seen) == []


def test_a_call_of_a_dead_loop_takes_no_place_of_the_next() -> None:
    """A task that its loop left behind ends when it is collected: not at the cost of the new loop's count."""
    api = PhygitalsClient(MemoryTransport(never), api_key="sandbox-test", max_in_flight=1)
    loop = asyncio.new_event_loop()
    coroutine = api.get_inventory("u")

    async def start() -> None:
        coroutine.send(None)

    loop.run_until_complete(start())
    loop.close()

    async def in_the_next() -> int:
        with pytest.raises(PhygitalsError):
            await api.get_inventory("u", deadline=0.01)
        with suppress(RuntimeError):
            coroutine.close()
        return api._engine.admission.in_flight

    assert asyncio.run(in_the_next()) == 0


@pytest.mark.parametrize("over_http", [False, True])
def test_a_loop_that_stopped_and_was_never_closed(over_http: bool) -> None:
    """As in an interactive session, or behind a web server that was interrupted: the next loop starts afresh."""
    left = asyncio.new_event_loop()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(serve(lambda _: EMPTY)) as url:
        transport = AiohttpTransport() if over_http else MemoryTransport(lambda _: EMPTY)
        api = PhygitalsClient(transport, api_key="sandbox-test", base_url=url, max_in_flight=1)
        assert left.run_until_complete(api.get_inventory("u")) == Inventory("u", ())

        async def use() -> None:
            for _ in range(2):
                assert await api.get_inventory("u") == Inventory("u", ())
            await api.aclose()

        with pytest.warns(RuntimeWarning, match="was left by an event loop that stopped") as seen:
            asyncio.run(use())
        assert len(seen) == 1 + over_http
        # What is left in it is closed by the time that it is closed as loops are.
        left.run_until_complete(left.shutdown_asyncgens())
        left.close()
        gc.collect()


@pytest.mark.asyncio
@pytest.mark.parametrize("over_http", [False, True])
async def test_another_threads_loop_is_refused(over_http: bool) -> None:
    """Sharing a client between running loops would corrupt it; the first loop goes on unharmed."""
    async with serve(lambda _: EMPTY) as url:
        transport = None if over_http else MemoryTransport(lambda _: EMPTY)
        async with PhygitalsClient(transport, api_key="sandbox-test", base_url=url) as api:
            await api.get_inventory("u")

            def elsewhere() -> None:
                with pytest.raises(ConfigurationError, match="this client is in use by another event loop"):
                    asyncio.run(api.get_inventory("u"))

            await asyncio.to_thread(elsewhere)
            assert await api.get_inventory("u") == Inventory("u", ())


@pytest.mark.asyncio
async def test_a_transport_shared_by_clients_of_two_threads_is_refused() -> None:
    """The transport guards itself."""
    async with serve(lambda _: EMPTY) as url:
        transport = AiohttpTransport()
        async with PhygitalsClient(transport, api_key="sandbox-test", base_url=url) as api:
            await api.get_inventory("u")

            def elsewhere() -> None:
                other = PhygitalsClient(transport, api_key="sandbox-test", base_url=url)
                with pytest.raises(ConfigurationError, match="AiohttpTransport is in use by another event loop"):
                    asyncio.run(other.get_inventory("u"))
                other._engine.closed = True

            await asyncio.to_thread(elsewhere)
            assert await api.get_inventory("u") == Inventory("u", ())


FORK = """
import asyncio, gc, json, os, sys
from phygitals_async import PhygitalsClient
url, what = sys.argv[1:]
api = PhygitalsClient(api_key="sandbox-test", base_url=url)
loop = asyncio.new_event_loop()
loop.run_until_complete(api.get_inventory("u"))
transport = api._engine.transport
session = transport._own.session
reading, writing = os.pipe()
child = os.fork()
if not child:
    said = "ok"
    try:
        if what in ("call", "call and close", "call and collect"):
            assert asyncio.run(api.get_inventory("u")).user_id == "u"
        if what in ("close", "call and close", "call and collect"):
            asyncio.run(api.aclose())
        if what in ("collect", "call and collect"):
            del api, transport, session
            gc.collect()
    except BaseException as error:
        said = repr(error)
    os.write(writing, said.encode())
    os._exit(0)
os.waitpid(child, 0)
said = {"child": os.read(reading, 1000).decode()}
try:
    loop.run_until_complete(api.get_inventory("u", deadline=3.0))
    said["parent"] = "ok"
except BaseException as error:
    said["parent"] = repr(error)
loop.run_until_complete(api.aclose())
loop.close()
print(json.dumps(said))
"""


# --- forgetting to close ----------------------------------------------------------------------------------------------

FORGET = """
import asyncio, gc, sys
from phygitals_async import PhygitalsClient, Sandbox
from phygitals_transports import MemoryTransport
url, what = sys.argv[1:]

async def forget(transport=None, close=False):
    api = PhygitalsClient(transport, api_key="sandbox-secret", base_url=url)
    if what != "unused":
        await api.get_inventory("u")
    if close:
        await api.aclose()

async def inside():
    await forget()
    gc.collect()
    await asyncio.sleep(0.05)

def handler():
    sandbox = Sandbox()
    sandbox.add_user("u")
    return sandbox

if what == "inside":
    asyncio.run(inside())
elif what == "global":
    api = PhygitalsClient(api_key="sandbox-secret", base_url=url)
    asyncio.run(api.get_inventory("u"))
    del api
elif what == "at exit":
    api = PhygitalsClient(api_key="sandbox-secret", base_url=url)
    asyncio.run(api.get_inventory("u"))
elif what == "cycle":
    async def cycle():
        api = PhygitalsClient(api_key="sandbox-secret", base_url=url)
        api.itself = api
        await api.get_inventory("u")
        del api
        gc.collect()
        await asyncio.sleep(0.05)
    asyncio.run(cycle())
else:
    asyncio.run(forget(MemoryTransport(handler()) if what == "memory" else None, close=what == "closed"))
gc.collect()
"""


@pytest.mark.asyncio
async def test_another_process_lets_go_of_a_session_without_touching_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing, collecting and calling in a forked child all leave the parent's session open."""
    async with serve(lambda _: EMPTY) as url:
        parent = os.getpid()
        for what in ("close", "collect", "call"):
            transport = AiohttpTransport()
            request = Request("GET", f"{url}/", {})
            await transport.send(request)
            session = transport._own.session
            assert session is not None
            with monkeypatch.context() as child:
                child.setattr(os, "getpid", lambda: parent + 1)
                if what == "call":
                    assert (await transport.send(request)).status == 200
                if what != "collect":
                    await transport.aclose()
                del transport
                gc.collect()
            assert not session.closed
            await session.close()


AFTER_FORK = ["call", "call and close", "close", "collect", "call and collect"]
FORGOTTEN = ["inside", "at the end", "global", "at exit", "cycle"]
NOT_FORGOTTEN = ["closed", "memory", "unused"]

Done = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def programs() -> dict[str, Done]:
    """Run all programs at once, since most of their time goes into imports, and return how each ended."""

    def run(program: str, url: str, what: str) -> Done:
        command = [sys.executable, "-W", "always", "-c", program, url, what]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    with thread_server("u") as url, ThreadPoolExecutor(4) as pool:
        forks = {f"fork: {what}": pool.submit(run, FORK, url, what) for what in AFTER_FORK if hasattr(os, "fork")}
        forgets = {what: pool.submit(run, FORGET, url, what) for what in [*FORGOTTEN, *NOT_FORGOTTEN]}
        return {what: done.result() for what, done in (forks | forgets).items()}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("what", AFTER_FORK)
def test_a_forked_process_starts_afresh_and_leaves_the_parents_connection_alone(
    programs: dict[str, Done], what: str
) -> None:
    """The child shares the parent's sockets and its epoll: closing them there would cut the parent off."""
    done = programs[f"fork: {what}"]
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"child": "ok", "parent": "ok"}, done.stderr


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_forgotten_client_is_told_of_once(programs: dict[str, Done], what: str) -> None:
    """One `ResourceWarning` names it, without the key, and aiohttp adds none of its own.

    Where the event loop ended first, asyncio complains of its transport besides.
    """
    done = programs[what]
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "ResourceWarning: <" in line]
    assert len(told) == 1, done.stderr
    assert "ResourceWarning: <PhygitalsClient sandbox at http://127.0.0.1" in told[0]
    assert "was never closed: use async with, or aclose()" in told[0]
    assert "Unclosed" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert "sandbox-secret" not in done.stderr


@pytest.mark.parametrize("what", NOT_FORGOTTEN)
def test_nothing_is_told_of_a_client_that_holds_no_connection(programs: dict[str, Done], what: str) -> None:
    """Closed, in memory, or never used: silence."""
    assert (programs[what].returncode, programs[what].stderr) == (0, "")


@pytest.mark.asyncio
async def test_a_client_forgotten_in_a_running_loop_is_told_of() -> None:
    """One `ResourceWarning` that names it, when it is collected."""
    async with serve(lambda _: EMPTY) as url:
        api = PhygitalsClient(api_key="sandbox-test", base_url=url)
        await api.get_inventory("u")
        with pytest.warns(ResourceWarning, match="was never closed") as told:  # noqa: PT031
            del api
            gc.collect()
    assert len(told) == 1


@pytest.mark.asyncio
async def test_a_transport_forgotten_in_a_cycle_goes_before_its_session() -> None:
    """The garbage collector may take the members of a cycle in any order, and aiohttp complains of an open session."""
    async with serve(lambda _: EMPTY) as url:
        transport: Any = AiohttpTransport()
        await transport.send(Request("GET", f"{url}/", {}))
        session = weakref.ref(transport._own.session)
        transport.itself = transport
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del transport
            gc.collect()
        assert session() is None
        assert not [message for message in messages(seen) if "Unclosed" in message]


@pytest.mark.asyncio
async def test_a_transport_forgotten_on_its_own_is_let_go_in_silence() -> None:
    """Whoever uses it without a client hears nothing, and the socket is closed."""
    async with serve(lambda _: EMPTY) as url:
        before = open_files()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            transport = AiohttpTransport()
            await transport.send(Request("GET", f"{url}/", {}))
            assert transport.is_open
            assert open_files() > before
            del transport
            gc.collect()
            await until(lambda: open_files() == before)
        assert [str(warning.message) for warning in seen] == []


@pytest.mark.parametrize("make", [AiohttpTransport, PhygitalsClient])
def test_an_object_that_was_never_made_dies_in_silence(make: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong argument raises one error, and `__del__` adds none."""
    with pytest.raises(TypeError):
        make(no_such_argument=1)
    gc.collect()
    assert "Exception ignored" not in capfd.readouterr().err
