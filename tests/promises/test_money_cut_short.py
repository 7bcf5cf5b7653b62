"""Calls that move money or goods, cut short by cancellation, a bug or the closing of the client."""

from __future__ import annotations

import json

import anyio
import anyio.lowlevel
import pytest
import trio
from trio.testing import MockClock

from money_support import BY_OPERATION, CONVERTER, EAGER, KEY, PATHS, USER, error_of, prepare
from phygitals_async import (
    ClientClosed,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sandbox,
    Sent,
    StartedPurchase,
    TransportError,
    UserNotFound,
    build_converter,
)
from phygitals_transports import MemoryTransport
from support import ONCE, noting

# Ended by others


@BY_OPERATION
@pytest.mark.anyio
async def test_a_cancelled_call_says_that_it_was_under_way(operation: str, caplog: pytest.LogCaptureFixture) -> None:
    """Cancellation comes out as it is, with a note, and the log has a line: the money may have moved."""
    sandbox = Sandbox(seed=3)
    arrived = anyio.Event()
    cancelled: list[BaseException] = []

    async def handler(request: Request) -> Response:
        if request.url.endswith(PATHS[operation]):
            arrived.set()
            await anyio.sleep_forever()
        return sandbox(request)

    api = PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, converter=CONVERTER)
    prepared = await prepare(operation, sandbox, api)

    async with anyio.create_task_group() as group:
        group.start_soon(noting, cancelled, prepared.make(api))
        await arrived.wait()
        group.cancel_scope.cancel()
    (error,) = cancelled
    assert isinstance(error, anyio.get_cancelled_exc_class())
    assert [note for note in error.__notes__ if note.startswith(f"{operation} was under way, and moves ")]
    assert [record.getMessage() for record in caplog.records if operation in record.getMessage()] == [
        f"{operation}: ended by {type(error).__name__}, its outcome is unknown"
    ]


@pytest.mark.anyio
async def test_a_bug_in_a_transport_is_a_failed_read() -> None:
    """It is an error of this library, unknown whether sent, and no repeat would make it better."""
    tries = 0

    def handler(_: Request) -> Response:
        nonlocal tries
        tries += 1
        raise KeyError("a bug of the recorder")

    api = PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER)
    error = await error_of(api.get_inventory(USER))
    assert type(error) is TransportError
    assert (str(error), error.sent, error.attempts) == (
        "get_inventory: the transport failed: KeyError", Sent.UNKNOWN, 1,
    )  # fmt: skip
    assert not hasattr(error, "__notes__")
    assert tries == 1


@pytest.mark.anyio
async def test_a_bug_in_a_structure_hook_says_that_money_was_under_way() -> None:
    """The answer came, and what it said is in nobody's hands."""
    converter = build_converter()

    def broken(_: object, __: object) -> StartedPurchase:
        raise ZeroDivisionError("a bug of the application")

    converter.register_structure_hook(StartedPurchase, broken)
    sandbox = Sandbox(seed=3)
    api = PhygitalsClient(MemoryTransport(sandbox), api_key=KEY, retry=ONCE, converter=converter)
    with pytest.raises(ZeroDivisionError) as caught:
        await api.start_purchase(sandbox.packs[0].id, 1, USER)
    assert "start_purchase was under way" in caught.value.__notes__[0]


@pytest.mark.anyio
async def test_a_cancelled_purchase_names_its_session() -> None:
    """Whoever catches the cancellation of `purchase` can go on with what was started."""
    sandbox = Sandbox(seed=3)
    started: list[str] = []
    polled = anyio.Event()
    cancelled: list[BaseException] = []

    async def handler(request: Request) -> Response:
        if request.url.endswith("/vm/buy/status"):
            polled.set()
            await anyio.sleep_forever()
        response = sandbox(request)
        started.append(json.loads(response.body)["session_id"])
        return response

    api = PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, converter=CONVERTER)

    async with anyio.create_task_group() as group:
        group.start_soon(noting, cancelled, api.purchase(sandbox.packs[0].id, 1, USER))
        await polled.wait()
        group.cancel_scope.cancel()
    assert f"wait_for_purchase('{started[0]}')" in cancelled[0].__notes__[-1]


@BY_OPERATION
@pytest.mark.anyio
async def test_closing_sends_nothing_that_waited_for_a_place(operation: str) -> None:
    """A call in line when the client is closed is refused at once; nothing of it leaves."""
    sandbox = Sandbox(seed=3)
    gate, arrived = anyio.Event(), anyio.Event()
    errors: list[PhygitalsError] = []

    async def handler(request: Request) -> Response:
        if request.url.endswith("/inventory/slow"):
            arrived.set()
            await gate.wait()
        return sandbox(request)

    transport = MemoryTransport(handler)
    api = PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=CONVERTER, max_in_flight=1)
    prepared = await prepare(operation, sandbox, api)

    async def slow() -> None:
        with pytest.raises(UserNotFound):
            await api.get_inventory("slow")

    async def call() -> None:
        errors.append(await error_of(prepared.make(api)))

    async with anyio.create_task_group() as group:
        group.start_soon(slow)
        await arrived.wait()
        group.start_soon(call)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(api.aclose)
        await anyio.wait_all_tasks_blocked()
        assert [type(error) for error in errors] == [ClientClosed]
        gate.set()
    assert errors[0].sent is Sent.NEVER
    assert not [request for request in transport.sent if request.url.endswith(PATHS[operation])]


def test_closing_ends_calls_that_pause() -> None:
    """A call that waits for the end of a pause does not outlive the closing by the length of it."""
    transport = MemoryTransport(lambda _: Response(429, {"retry-after": "15"}, b""))

    async def main() -> None:
        api = PhygitalsClient(transport, api_key=KEY, converter=CONVERTER)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(error_of, api.list_packs())
            await trio.sleep(1)
            await api.aclose()
        assert trio.current_time() - start < 2

    clock = MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(main, clock=clock)
    assert len(transport.sent) == 3
