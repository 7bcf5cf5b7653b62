"""Calls that move money or goods, over any transport and on both event loops, whatever it raises."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
from attrs import define
from trio.testing import MockClock

from money_support import (
    BY_OPERATION,
    CONVERTER,
    DESTINATION,
    EAGER,
    KEY,
    PATHS,
    USER,
    Spoil,
    always,
    assert_performed,
    assert_unknown,
    error_of,
    prepare,
    running_server,
)
from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    Sandbox,
    Sent,
    Transport,
    TransportError,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import MemoryTransport
from support import ONCE, noting

# Any transport, on both event loops


@define
class Raising:
    """A transport that fails for one path, before or after it has made its connection.

    Attributes:
        sent: How often that path was asked for.
    """

    inner: Transport
    path: str
    raised: PhygitalsError
    connects: bool
    sent: int = 0

    async def send(self, request: Request) -> Response:
        """Raise, or pass the request on."""
        if not request.url.endswith(self.path):
            return await self.inner.send(request)
        self.sent += 1
        if self.connects:
            with request.delivery.connecting():
                await anyio.lowlevel.checkpoint()
        raise self.raised

    async def aclose(self) -> None:
        """Close the transport within."""
        await self.inner.aclose()


@BY_OPERATION
@pytest.mark.parametrize(
    ("raised", "connects", "unknown"),
    [
        (ConnectError("refused"), False, False),
        (ConnectError("refused"), True, True),
        (ClientClosed("closed"), False, False),
        (ClientClosed("closed"), True, True),
        (ConfigurationError("wrong loop"), False, False),
        (ConfigurationError("wrong loop"), True, True),
        (RedirectRefused("no", status=307), True, False),
        (RedirectRefused("no", status=302), True, True),
        (TransportError("broken"), True, True),
        (TransportError("broken"), False, True),
        (ConnectionLost("lost"), True, True),
        (ConnectionLost("lost"), False, True),
        (DeadlineExceeded("late"), True, True),
        (ProtocolError("no HTTP"), True, True),
        (ResponseTooLarge("large"), True, True),
    ],
    ids=lambda value: value if isinstance(value, bool) else type(value).__name__,
)
@pytest.mark.anyio
async def test_what_a_transport_raises_is_judged_by_whether_it_was_sent(
    operation: str, raised: PhygitalsError, connects: bool, unknown: bool
) -> None:
    """Only an error that leaves open whether the request arrived makes the outcome unknown, of whatever class it is."""
    raised = copy.copy(raised)
    sandbox = Sandbox(seed=3)
    transport = Raising(MemoryTransport(sandbox), PATHS[operation], raised, connects)
    # What was certainly never sent may be repeated, and would be.
    retry = EAGER if unknown else ONCE
    async with PhygitalsClient(transport, api_key=KEY, retry=retry, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)
        error = await error_of(prepared.make(api))
    assert transport.sent == 1
    if unknown:
        assert assert_unknown(error, prepared).__cause__ is raised
        assert error.sent is raised.sent
    else:
        assert error is raised
        assert (error.operation, error.arguments, error.attempts) == (operation, prepared.arguments, 1)


@pytest.mark.parametrize("raised", [ConnectionLost("lost"), DeadlineExceeded("late"), ProtocolError("no HTTP")])
@pytest.mark.parametrize("name", [o.name for o in OPERATIONS if not o.effect.is_irreversible])
@pytest.mark.anyio
async def test_a_lost_answer_to_a_read_is_just_lost(name: str, raised: PhygitalsError) -> None:
    """A read has no outcome to be unknown, a status poll by POST and a quote among them."""
    given: Mapping[str, Any] = {"item_ids": ["a"], "destination": DESTINATION}

    def handler(_: Request) -> Response:
        raise raised

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        method = getattr(api, name)
        operation = next(o for o in OPERATIONS if o.name == name)
        names = [*operation.path_arguments, *(a.name for a in (*operation.query.values(), *operation.body.values()))]
        optional = {a.name for a in operation.query.values()}
        error = await error_of(method(**{n: given.get(n, "x") for n in names if n not in optional}))
    assert error is raised
    assert error.operation == name


@BY_OPERATION
def test_a_stalled_call_ends_at_its_deadline_on_trio_too(operation: str) -> None:
    """The action is done, the answer never comes, and the client's deadline makes the outcome unknown."""
    sandbox = Sandbox(seed=3)
    performed = 0

    async def handler(request: Request) -> Response:
        nonlocal performed
        true = sandbox(request)
        if request.url.endswith(PATHS[operation]):
            performed += 1
            await anyio.sleep_forever()
        return true

    async def main() -> None:
        async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
            prepared = await prepare(operation, sandbox, api)
            before = await api.get_inventory(USER)
            start = trio.current_time()
            unknown = assert_unknown(await error_of(prepared.make(api)), prepared)
            assert trio.current_time() - start == pytest.approx(30.0)
            assert type(unknown.__cause__) is DeadlineExceeded
            assert performed == 1
            assert_performed(operation, prepared, before, await api.get_inventory(USER))

    # A clock that jumps ahead whenever nothing runs.
    trio.run(main, clock=MockClock(autojump_threshold=0))


@BY_OPERATION
@pytest.mark.anyio
async def test_cancelling_the_caller_is_cancellation(operation: str) -> None:
    """A cancelled call is neither swallowed nor turned into an error of this library, and is not repeated."""
    sandbox = Sandbox(seed=3)
    performing = anyio.Event()
    performed = 0
    seen: list[BaseException] = []

    async def handler(request: Request) -> Response:
        nonlocal performed
        true = sandbox(request)
        if request.url.endswith(PATHS[operation]):
            performed += 1
            performing.set()
            await anyio.sleep_forever()
        return true

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(noting, seen, prepared.make(api))
            await performing.wait()
            tasks.cancel_scope.cancel()
    (error,) = seen
    assert isinstance(error, anyio.get_cancelled_exc_class())
    assert error.__cause__ is None
    assert performed == 1


@BY_OPERATION
@pytest.mark.asyncio
async def test_cancelling_a_task_on_a_real_socket_is_cancellation(operation: str) -> None:
    """The task ends as cancelled, after one request and one action."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        server.spoil = Spoil("hang", always(b""), DeadlineExceeded, "hang")
        task = asyncio.create_task(prepared.make(api))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1


@BY_OPERATION
@pytest.mark.anyio
async def test_a_bug_in_a_transport_leaves_the_outcome_unknown(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What no transport may raise may come after the money has moved; the log names its places, and not its text."""
    sandbox = Sandbox(seed=3)

    def handler(request: Request) -> Response:
        answered = sandbox(request)
        if request.url.endswith(PATHS[operation]):
            # The log shows the lines of the source, and not what they made.
            headers = str(request.headers)
            raise KeyError(headers)
        return answered

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)
        unknown = assert_unknown(await error_of(prepared.make(api)), prepared)
    cause = unknown.__cause__
    assert type(cause) is TransportError
    assert (cause.text, cause.sent) == ("the transport failed: KeyError", Sent.UNKNOWN)
    assert (cause.__cause__, cause.__context__) == (None, None)
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "phygitals_async"
    assert record.exc_info is None
    told = record.getMessage()
    assert "KeyError" in told
    assert "in handler" in told
    assert "X-API-Key" not in told
    assert KEY not in told


@BY_OPERATION
@pytest.mark.anyio
async def test_a_bug_in_a_transport_before_it_connects_is_known(operation: str) -> None:
    """Where the code that would have connected says so, nothing was sent, and what is repeated is sent once."""
    sandbox = Sandbox(seed=3)
    memory = MemoryTransport(sandbox)
    tries = 0

    class Buggy:
        async def send(self, request: Request) -> Response:
            nonlocal tries
            if request.url.endswith(PATHS[operation]):
                tries += 1
                if tries == 1:
                    with request.delivery.connecting():
                        raise KeyError
            return await memory.send(request)

        async def aclose(self) -> None: ...

    async with PhygitalsClient(Buggy(), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
        prepared = await prepare(operation, sandbox, api)
        before = await api.get_inventory(USER)
        await prepared.make(api)
        assert tries == 2
        assert_performed(operation, prepared, before, await api.get_inventory(USER))
