"""Lost answers to the three calls that move money or goods: done once, and the caller told all there is to know."""

from __future__ import annotations

import asyncio
import socket
from typing import Final, Literal

import pytest

from money_support import (
    BY_OPERATION,
    HTML,
    PATHS,
    USER,
    Spoil,
    always,
    assert_performed,
    assert_unknown,
    client_at,
    difference,
    error_of,
    framed,
    prepare,
    prepared_elsewhere,
    running_server,
)
from phygitals_async import (
    BadRequest,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    ProtocolError,
    ResponseTooLarge,
    Sellback,
    ServerError,
    ShippingRequest,
    StartedPurchase,
    StatusError,
    TransportError,
)
from raw_server import Step, answer, raw_server
from support import inventory_of

# Long enough for a loopback exchange on a busy machine; only the stalling tests wait for it.
PATIENCE: Final = 0.5


SPOILS: Final = [
    Spoil("dropped", always(b""), ConnectionLost),
    Spoil("reset", always(b""), ConnectionLost, "reset"),
    Spoil("stalled", always(b""), DeadlineExceeded, "hang", PATIENCE),
    Spoil("stalled-in-body", lambda true: true[:-3], DeadlineExceeded, "hang", PATIENCE),
    Spoil("cut-head", lambda true: true[:20], TransportError),
    Spoil("cut-body", lambda true: true[:-3], ConnectionLost),
    Spoil("reset-in-body", lambda true: true[:-3], ConnectionLost, "reset"),
    Spoil("cut-chunks", always(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"su'), ConnectionLost),
    Spoil("broken-gzip", always(framed(200, b"not gzip", Content_Encoding="gzip")), TransportError),
    Spoil("not-http", always(b"\x00\x15\x03\x01 what?\r\n\r\n"), ProtocolError),
    Spoil("bad-header", always(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"), ProtocolError),
    Spoil("too-large", always(framed(200, b" " * 100_000)), ResponseTooLarge),
    Spoil("500-html", always(framed(500, HTML)), ServerError, "keep"),
    Spoil("500-json", always(framed(500, b'{"error": "Error during transaction"}')), ServerError, "keep"),
    Spoil("502-html", always(framed(502, HTML, Content_Type="application/json")), ServerError, "keep"),
    Spoil("504-empty", always(framed(504, b"")), ServerError, "keep"),
    Spoil("520-html", always(framed(520, HTML)), ServerError, "keep"),
    Spoil("408", always(framed(408, b"")), BadRequest, "keep"),
    Spoil("600", always(framed(600, b"")), StatusError, "keep"),
    Spoil("cut-json", always(framed(200, b'{"order_id": "o')), DecodeError, "keep"),
    Spoil("html", always(framed(200, HTML)), DecodeError, "keep"),
    Spoil("null", always(framed(200, b"null")), DecodeError, "keep"),
    Spoil("array", always(framed(200, b"[]")), DecodeError, "keep"),
    Spoil("empty-object", always(framed(200, b"{}")), DecodeError, "keep"),
    Spoil("empty", always(framed(200, b"")), DecodeError, "keep"),
    Spoil("204", always(b"HTTP/1.1 204 No Content\r\n\r\n"), DecodeError, "keep"),
]


# Lost answers


@BY_OPERATION
@pytest.mark.asyncio
async def test_a_good_answer_is_a_result(operation: str) -> None:
    """The server here does nothing wrong unless told to."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        result = await prepared.make(api)
        assert isinstance(result, StartedPurchase | Sellback | ShippingRequest)
        assert_performed(operation, prepared, before, await api.get_inventory(USER))
        assert server.performed == [PATHS[operation]]


@BY_OPERATION
@pytest.mark.parametrize("spoil", SPOILS, ids=[spoil.name for spoil in SPOILS])
@pytest.mark.asyncio
async def test_a_lost_answer_leaves_the_outcome_unknown(operation: str, spoil: Spoil) -> None:
    """The action is done once, one request arrived, and the caller is told all there is to know.

    Then the two inventories tell that it was done.
    """
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        server.spoil = spoil
        unknown = assert_unknown(await error_of(prepared.make(api, spoil.deadline)), prepared)
        cause = unknown.__cause__
        assert isinstance(cause, spoil.cause)
        assert spoil.cause is TransportError or type(cause) is spoil.cause
        assert unknown.sent is cause.sent
        after = await api.get_inventory(USER)
        assert_performed(operation, prepared, before, after)
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1


@BY_OPERATION
@pytest.mark.asyncio
async def test_a_call_that_was_not_done_can_be_told_from_one_that_was(operation: str) -> None:
    """Where the server hung up before it did anything, the inventories are equal: the call can be made again."""
    async with raw_server(Step(then="close")) as raw, running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        async with client_at(raw.url) as lossy:
            unknown = assert_unknown(await error_of(prepared.make(lossy)), prepared)
        assert isinstance(unknown.__cause__, ConnectionLost)
        assert len(raw.received) == 1
        assert not difference(before, await api.get_inventory(USER))
        await prepared.make(api)
        assert_performed(operation, prepared, before, await api.get_inventory(USER))
        assert server.performed == [PATHS[operation]]


# Connections that went stale


@BY_OPERATION
@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.asyncio
async def test_a_kept_connection_that_breaks_on_arrival_is_not_tried_again(
    operation: str, then: Literal["close", "reset"]
) -> None:
    """HTTP libraries repeat a request on a fresh connection when a kept one breaks; here that would pay twice.

    So none that was kept is used, and nothing is repeated.
    """
    prepared = await prepared_elsewhere(operation)
    first = answer(200, inventory_of("x").body)
    async with raw_server(first, Step(then=then), answer(200, b"{}")) as server, client_at(server.url) as api:
        await api.get_inventory("x")
        unknown = assert_unknown(await error_of(prepared.make(api)), prepared)
        assert isinstance(unknown.__cause__, ConnectionLost)
        assert server.connections == 2
        assert [line.split(b" ")[0] for line in server.request_lines] == [b"GET", b"POST"]


@BY_OPERATION
@pytest.mark.asyncio
async def test_a_connection_closed_between_two_calls_and_noticed(operation: str) -> None:
    """A kept connection that the client knows to be closed is not used: the call goes out once, on a new one."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        await api.get_inventory(USER)
        server.open[-1].close()
        await server.ended.wait()
        # The client's side reads the end of the stream within a few turns of the loop that both share.
        for _ in range(20):
            await asyncio.sleep(0)
        await prepared.make(api)
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1
        assert server.connections == 2


@BY_OPERATION
@pytest.mark.asyncio
async def test_a_connection_closed_between_two_calls_while_the_loop_was_busy(operation: str) -> None:
    """A kept connection closed a moment ago, of which the event loop knows nothing yet, does not take the request."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        await api.get_inventory(USER)
        server.open[-1].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await prepared.make(api)
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1
        assert server.connections == 2


@BY_OPERATION
@pytest.mark.parametrize("status", [200, 400, 408])
@pytest.mark.asyncio
async def test_a_stray_answer_that_came_while_the_loop_was_busy(operation: str, status: int) -> None:
    """What waits in the socket's buffer is not taken for the answer to a call that moves money."""
    async with running_server() as (server, api):
        prepared = await prepare(operation, server.sandbox, api)
        await api.get_inventory(USER)
        body = b'{"session_id":"STRAY","success":true,"amount":1,"order_id":"STRAY","status":"success"}'
        server.open[-1].write(framed(status, body))
        assert "STRAY" not in repr(await prepared.make(api))
        assert server.performed == [PATHS[operation]]
        assert server.connections == 2
