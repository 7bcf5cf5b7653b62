"""The three calls that move money or goods: at most once, whatever becomes of the answer."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final, Literal

import anyio
import anyio.lowlevel
import pytest
import trio
from attrs import define, field, frozen
from trio.testing import MockClock

from phygitals_async import (
    AuthenticationError,
    BadRequest,
    ClientClosed,
    ConfigurationError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    DecodeError,
    Destination,
    Inventory,
    InventoryDiff,
    ItemAlreadyShipped,
    ItemNotFound,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    ProtocolError,
    RateLimited,
    RedirectRefused,
    Request,
    Response,
    ResponseTooLarge,
    RetryPolicy,
    Sandbox,
    Sellback,
    SellbackInProgress,
    Sent,
    ServerError,
    ShippingRequest,
    StartedPurchase,
    StatusError,
    Transport,
    TransportError,
    UserNotFound,
    build_converter,
    diff_inventories,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import AiohttpTransport, MemoryTransport
from raw_server import Step, answer, free_port, raw_server
from support import ONCE, inventory_of, noting

KEY = "sandbox-key-for-these-tests"
USER = "user_abc123"
# Repeats at once whatever may be repeated at all: what these tests show holds under every policy.
EAGER: Final = RetryPolicy(retries=10, base=0.0001, longest=20.0)
# Building a converter is most of the work of making a client, and hundreds are made here.
CONVERTER = build_converter()
HTML = b"<!DOCTYPE html>\n<html><title>502 Bad Gateway</title></html>"
DESTINATION: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US")
# Long enough for a loopback exchange on a busy machine; only the stalling tests wait for it.
PATIENCE: Final = 0.5


# A server that does what it is asked, and spoils the answer


def _framed(status: int, body: bytes, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@frozen
class Spoil:
    """What becomes of the answer to a call that moves money or goods.

    Attributes:
        name: What happens, for the test's name.
        make: The bytes to send, given the true answer's.
        then: What follows them.
        cause: The error that `OutcomeUnknown` has as its cause.
        deadline: The call's deadline in seconds.
    """

    name: str
    make: Callable[[bytes], bytes]
    cause: type[PhygitalsError]
    then: str = "close"
    deadline: float = 30.0


def _data(data: bytes) -> Callable[[bytes], bytes]:
    return lambda _: data


SPOILS: Final = [
    Spoil("dropped", _data(b""), ConnectionLost),
    Spoil("reset", _data(b""), ConnectionLost, "reset"),
    Spoil("stalled", _data(b""), DeadlineExceeded, "hang", PATIENCE),
    Spoil("stalled-in-body", lambda true: true[:-3], DeadlineExceeded, "hang", PATIENCE),
    Spoil("cut-head", lambda true: true[:20], TransportError),
    Spoil("cut-body", lambda true: true[:-3], ConnectionLost),
    Spoil("reset-in-body", lambda true: true[:-3], ConnectionLost, "reset"),
    Spoil("cut-chunks", _data(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"su'), ConnectionLost),
    Spoil("broken-gzip", _data(_framed(200, b"not gzip", Content_Encoding="gzip")), TransportError),
    Spoil("not-http", _data(b"\x00\x15\x03\x01 what?\r\n\r\n"), ProtocolError),
    Spoil("bad-header", _data(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"), ProtocolError),
    Spoil("too-large", _data(_framed(200, b" " * 100_000)), ResponseTooLarge),
    Spoil("500-html", _data(_framed(500, HTML)), ServerError, "keep"),
    Spoil("500-json", _data(_framed(500, b'{"error": "Error during transaction"}')), ServerError, "keep"),
    Spoil("502-html", _data(_framed(502, HTML, Content_Type="application/json")), ServerError, "keep"),
    Spoil("504-empty", _data(_framed(504, b"")), ServerError, "keep"),
    Spoil("520-html", _data(_framed(520, HTML)), ServerError, "keep"),
    Spoil("408", _data(_framed(408, b"")), BadRequest, "keep"),
    Spoil("600", _data(_framed(600, b"")), StatusError, "keep"),
    Spoil("cut-json", _data(_framed(200, b'{"order_id": "o')), DecodeError, "keep"),
    Spoil("html", _data(_framed(200, HTML)), DecodeError, "keep"),
    Spoil("null", _data(_framed(200, b"null")), DecodeError, "keep"),
    Spoil("array", _data(_framed(200, b"[]")), DecodeError, "keep"),
    Spoil("empty-object", _data(_framed(200, b"{}")), DecodeError, "keep"),
    Spoil("empty", _data(_framed(200, b"")), DecodeError, "keep"),
    Spoil("204", _data(b"HTTP/1.1 204 No Content\r\n\r\n"), DecodeError, "keep"),
]


class Server:
    """A loopback server in front of a sandbox.

    Attributes:
        sandbox: What performs the actions.
        url: The base URL.
        received: The path of every request that came, below the prefix, in order.
        performed: The path of each request that moved money or goods and was answered 200 by the sandbox.
        spoil: What to do to the answers to those; None gives them as they are.
        instead: What to answer to those, the sandbox unasked.
        connections: How many connections were accepted.
        arrived: Set when one of those has been performed.
        ended: Set when a connection has ended.
    """

    def __init__(self) -> None:
        self.sandbox = Sandbox(seed=3)
        self.url = ""
        self.received: list[str] = []
        self.performed: list[str] = []
        self.spoil: Spoil | None = None
        self.instead: bytes | None = None
        self.connections = 0
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self.open: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}/_"

    async def stop(self) -> None:
        """End every connection; a failure of the server itself is raised here."""
        assert self._listener is not None
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        failures = [result for result in results if isinstance(result, Exception)]
        assert not failures, failures

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer) == "keep":
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self.ended.set()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (text.partition(": ") for text in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = line.split(" ")
        path = target.removeprefix("/_/api/v1")
        self.received.append(path)
        moving = path in PATHS.values()
        if moving and self.instead is not None:
            writer.write(self.instead)
            await writer.drain()
            return "keep"
        true = self.sandbox(Request(method, f"http://127.0.0.1{target}", headers, body or None))
        data = _framed(true.status, true.body, Content_Type="application/json")
        if moving and true.status == 200:
            self.performed.append(path)
            self.arrived.set()
        if not moving or self.spoil is None:
            writer.write(data)
            await writer.drain()
            return "keep"
        writer.write(self.spoil.make(data))
        await writer.drain()
        if self.spoil.then == "hang":
            await reader.read()
        if self.spoil.then == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.spoil.then == "close":
            writer.close()
            await writer.wait_closed()
        return self.spoil.then


PATHS: Final = {o.name: o.path for o in OPERATIONS if o.effect.is_irreversible}


# The three calls


@frozen
class Prepared:
    """A call that is ready to be made.

    Attributes:
        operation: Its name.
        arguments: Its arguments.
        item_ids: What it would take from the user.
    """

    operation: str
    arguments: dict[str, Any]
    item_ids: Sequence[str] = field(factory=list)

    async def make(self, api: PhygitalsClient, deadline: float | None = None) -> Any:
        """Make the call."""
        return await getattr(api, self.operation)(**self.arguments, deadline=deadline)


async def _prepare(operation: str, sandbox: Sandbox, api: PhygitalsClient) -> Prepared:
    """Make the user known, owning three items, and prepare a call."""
    items = [sandbox.add_item(USER, name=f"Card {n}", buyback_price=Decimal("8.50")) for n in range(3)]
    if operation == "start_purchase":
        return Prepared(operation, {"pack_id": sandbox.packs[0].id, "amount": 2, "user_id": USER})
    if operation == "sell_back":
        return Prepared(operation, {"item_id": items[1].id}, [items[1].id])
    quotes = await api.quote_shipping([items[0].id, items[2].id], DESTINATION)
    return Prepared(operation, {"quote_id": quotes.quotes[1].id}, [items[0].id, items[2].id])


@asynccontextmanager
async def _running() -> AsyncIterator[tuple[Server, PhygitalsClient]]:
    """Run a server, and a client of it over aiohttp and a real socket."""
    server = Server()
    await server.start()
    try:
        async with _client(server.url) as api:
            yield server, api
    finally:
        await server.stop()


def _client(url: str) -> PhygitalsClient:
    """Return a client over aiohttp and real sockets."""
    return PhygitalsClient(
        AiohttpTransport(max_body=50_000), api_key=KEY, retry=EAGER, base_url=url, converter=CONVERTER
    )


async def _prepared_elsewhere(operation: str) -> Prepared:
    """Prepare a call against a sandbox in memory, for a server that is none."""
    sandbox = Sandbox(seed=3)
    return await _prepare(operation, sandbox, PhygitalsClient(MemoryTransport(sandbox), api_key=KEY, retry=ONCE))


async def _caught(call: Awaitable[Any]) -> PhygitalsError:
    with pytest.raises(PhygitalsError) as caught:
        await call
    return caught.value


def _assert_unknown(error: PhygitalsError, prepared: Prepared) -> OutcomeUnknown:
    """Assert all that an `OutcomeUnknown` carries."""
    assert type(error) is OutcomeUnknown
    assert error.operation == prepared.operation
    assert error.arguments == prepared.arguments
    assert error.attempts == 1
    assert error.sent is not Sent.NEVER
    effect = "goods" if prepared.operation == "request_shipping" else "money"
    assert str(error).startswith(f"{prepared.operation}: this call moves {effect}, and its outcome is unknown: ")
    cause = error.__cause__
    assert isinstance(cause, PhygitalsError)
    assert (cause.operation, cause.attempts) == (prepared.operation, 1)
    assert cause.text in str(error)
    assert KEY not in repr(error) + str(error) + repr(vars(error))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 - our own bytes.
        assert type(again) is OutcomeUnknown
        assert vars(again) == vars(error)
        assert str(again) == str(error)
    return error


_BY_OPERATION = pytest.mark.parametrize("operation", list(PATHS))


def _changed(before: Inventory, after: Inventory) -> InventoryDiff:
    diff = diff_inventories(before, after)
    assert diff.repriced == ()
    return diff


def _assert_performed(operation: str, prepared: Prepared, before: Inventory, after: Inventory) -> None:
    """Read the outcome out of two inventories, as `OutcomeUnknown` tells to."""
    diff = _changed(before, after)
    if operation == "start_purchase":
        bought = [item for item in diff.added if item.claw_id == prepared.arguments["pack_id"]]
        assert len(bought) == len(diff.added) == prepared.arguments["amount"]
        assert diff.removed == ()
    else:
        assert [item.id for item in diff.removed] == list(prepared.item_ids)
        assert diff.added == ()


# Lost answers


@_BY_OPERATION
@pytest.mark.asyncio
async def test_a_good_answer_is_a_result(operation: str) -> None:
    """The server here does nothing wrong unless told to."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        result = await prepared.make(api)
        assert isinstance(result, StartedPurchase | Sellback | ShippingRequest)
        _assert_performed(operation, prepared, before, await api.get_inventory(USER))
        assert server.performed == [PATHS[operation]]


@_BY_OPERATION
@pytest.mark.parametrize("spoil", SPOILS, ids=[spoil.name for spoil in SPOILS])
@pytest.mark.asyncio
async def test_a_lost_answer_leaves_the_outcome_unknown(operation: str, spoil: Spoil) -> None:
    """The action is done once, one request arrived, and the caller is told all there is to know.

    Then the two inventories tell that it was done.
    """
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        server.spoil = spoil
        unknown = _assert_unknown(await _caught(prepared.make(api, spoil.deadline)), prepared)
        cause = unknown.__cause__
        assert isinstance(cause, spoil.cause)
        assert spoil.cause is TransportError or type(cause) is spoil.cause
        assert unknown.sent is cause.sent
        after = await api.get_inventory(USER)
        _assert_performed(operation, prepared, before, after)
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1


@_BY_OPERATION
@pytest.mark.asyncio
async def test_a_call_that_was_not_done_can_be_told_from_one_that_was(operation: str) -> None:
    """Where the server hung up before it did anything, the inventories are equal: the call can be made again."""
    async with raw_server(Step(then="close")) as raw, _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        before = await api.get_inventory(USER)
        async with _client(raw.url) as lossy:
            unknown = _assert_unknown(await _caught(prepared.make(lossy)), prepared)
        assert isinstance(unknown.__cause__, ConnectionLost)
        assert len(raw.received) == 1
        assert not _changed(before, await api.get_inventory(USER))
        await prepared.make(api)
        _assert_performed(operation, prepared, before, await api.get_inventory(USER))
        assert server.performed == [PATHS[operation]]


# Connections that went stale


@_BY_OPERATION
@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.asyncio
async def test_a_kept_connection_that_breaks_on_arrival_is_not_tried_again(
    operation: str, then: Literal["close", "reset"]
) -> None:
    """HTTP libraries repeat a request on a fresh connection when a kept one breaks; here that would pay twice.

    So none that was kept is used, and nothing is repeated.
    """
    prepared = await _prepared_elsewhere(operation)
    first = answer(200, inventory_of("x").body)
    async with raw_server(first, Step(then=then), answer(200, b"{}")) as server, _client(server.url) as api:
        await api.get_inventory("x")
        unknown = _assert_unknown(await _caught(prepared.make(api)), prepared)
        assert isinstance(unknown.__cause__, ConnectionLost)
        assert server.connections == 2
        assert [line.split(b" ")[0] for line in server.request_lines] == [b"GET", b"POST"]


@_BY_OPERATION
@pytest.mark.asyncio
async def test_a_connection_closed_between_two_calls_and_noticed(operation: str) -> None:
    """A kept connection that the client knows to be closed is not used: the call goes out once, on a new one."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
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


@_BY_OPERATION
@pytest.mark.asyncio
async def test_a_connection_closed_between_two_calls_while_the_loop_was_busy(operation: str) -> None:
    """A kept connection closed a moment ago, of which the event loop knows nothing yet, does not take the request."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        await api.get_inventory(USER)
        server.open[-1].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await prepared.make(api)
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1
        assert server.connections == 2


@_BY_OPERATION
@pytest.mark.parametrize("status", [200, 400, 408])
@pytest.mark.asyncio
async def test_a_stray_answer_that_came_while_the_loop_was_busy(operation: str, status: int) -> None:
    """What waits in the socket's buffer is not taken for the answer to a call that moves money."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        await api.get_inventory(USER)
        body = b'{"session_id":"STRAY","success":true,"amount":1,"order_id":"STRAY","status":"success"}'
        server.open[-1].write(_framed(status, body))
        assert "STRAY" not in repr(await prepared.make(api))
        assert server.performed == [PATHS[operation]]
        assert server.connections == 2


# What is known


REFUSED: Final = [
    (400, b'{"error": "Something new"}', BadRequest),
    (401, b'{"error": "Invalid API key"}', AuthenticationError),
    (403, HTML, PermissionDenied),
    (404, HTML, NotFound),
    (409, b"", BadRequest),
    (413, b"", BadRequest),
    (422, b"", BadRequest),
    (429, HTML, RateLimited),
    (499, b"", BadRequest),
]


@_BY_OPERATION
@pytest.mark.parametrize(("status", "body", "expected"), REFUSED, ids=[str(row[0]) for row in REFUSED])
@pytest.mark.asyncio
async def test_a_refusal_is_known_and_stays_what_it_is(
    operation: str, status: int, body: bytes, expected: type[StatusError]
) -> None:
    """A 4xx says that nothing was done, and is not repeated, a 429 included; that of a sellback is a lock."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        server.instead = _framed(status, body, Retry_After="0")
        error = await _caught(prepared.make(api))
        is_lock = (operation, status) == ("sell_back", 429)
        assert type(error) is (SellbackInProgress if is_lock else expected)
        assert (error.operation, error.arguments, error.attempts) == (operation, prepared.arguments, 1)
        assert error.sent is Sent.YES
        assert server.received.count(PATHS[operation]) == 1


@pytest.mark.asyncio
async def test_the_lock_on_an_item_is_not_repeated_unasked() -> None:
    """The documented 429 of a sellback is the caller's to repeat; the repetition then is one request more."""
    async with _running() as (server, api):
        prepared = await _prepare("sell_back", server.sandbox, api)
        server.sandbox.options.lock_sellbacks = 1
        error = await _caught(prepared.make(api))
        assert type(error) is SellbackInProgress
        assert error.attempts == 1
        assert server.received.count(PATHS["sell_back"]) == 1
        assert await prepared.make(api) == Sellback(success=True, amount=Decimal("8.5"))


@_BY_OPERATION
@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
@pytest.mark.asyncio
async def test_a_redirect_is_refused_and_not_followed(operation: str, status: int) -> None:
    """A redirect is followed nowhere, neither with the method nor as a GET."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        server.instead = _framed(status, b"", Location=f"{server.url}/elsewhere")
        error = await _caught(prepared.make(api))
        assert (error.operation, error.attempts, error.sent) == (operation, 1, Sent.YES)
        if status not in (301, 307, 308):
            # These may be what a server says once it has acted.
            assert isinstance(error, OutcomeUnknown)
        refused = error.__cause__ if isinstance(error, OutcomeUnknown) else error
        assert isinstance(refused, RedirectRefused)
        assert refused.status == status
        assert server.received.count(PATHS[operation]) == 1
        assert not [path for path in server.received if "elsewhere" in path]


@_BY_OPERATION
@pytest.mark.parametrize(("retry", "attempts"), [(ONCE, 1), (EAGER, 11)], ids=["once", "eager"])
@pytest.mark.asyncio
async def test_a_refused_connection_was_never_sent(operation: str, retry: RetryPolicy, attempts: int) -> None:
    """It is certain that nothing happened, so it stays a `ConnectError`, and may be tried again."""
    prepared = await _prepared_elsewhere(operation)
    url = f"http://127.0.0.1:{free_port()}"
    async with PhygitalsClient(AiohttpTransport(), api_key=KEY, retry=retry, base_url=url) as api:
        error = await _caught(prepared.make(api))
    assert type(error) is ConnectError
    assert (error.operation, error.arguments, error.attempts) == (operation, prepared.arguments, attempts)
    assert error.sent is Sent.NEVER
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (type(again), vars(again)) == (ConnectError, vars(error))


@_BY_OPERATION
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "lost"])
@pytest.mark.anyio
async def test_a_repeat_of_what_was_never_sent_is_the_only_one(operation: str, lost: bool) -> None:
    """Once a try may have left, no other follows, however many never did before it."""
    sandbox = Sandbox(seed=3)
    tries = 0

    def handler(request: Request) -> Response:
        nonlocal tries
        if request.url.endswith(PATHS[operation]):
            tries += 1
            if tries <= 2:
                raise ConnectError("refused")
            true = sandbox(request)
            if lost:
                raise ConnectionLost("lost")
            return true
        return sandbox(request)

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=EAGER, converter=CONVERTER) as api:
        prepared = await _prepare(operation, sandbox, api)
        before = await api.get_inventory(USER)
        if lost:
            error = await _caught(prepared.make(api))
            assert type(error) is OutcomeUnknown
            assert (error.attempts, error.sent) == (3, Sent.UNKNOWN)
        else:
            await prepared.make(api)
        assert tries == 3
        _assert_performed(operation, prepared, before, await api.get_inventory(USER))


@_BY_OPERATION
@pytest.mark.anyio
async def test_a_closed_client_sends_nothing(operation: str) -> None:
    """It is certain that nothing happened, so it stays `ClientClosed`."""
    sandbox = Sandbox(seed=3)
    transport = MemoryTransport(sandbox)
    api = PhygitalsClient(transport, api_key=KEY, retry=ONCE)
    prepared = await _prepare(operation, sandbox, api)
    sent = len(transport.sent)
    await api.aclose()
    error = await _caught(prepared.make(api))
    assert type(error) is ClientClosed
    assert (error.attempts, error.sent) == (0, Sent.NEVER)
    assert len(transport.sent) == sent


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


@_BY_OPERATION
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
        prepared = await _prepare(operation, sandbox, api)
        error = await _caught(prepared.make(api))
    assert transport.sent == 1
    if unknown:
        assert _assert_unknown(error, prepared).__cause__ is raised
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
        error = await _caught(method(**{n: given.get(n, "x") for n in names if n not in optional}))
    assert error is raised
    assert error.operation == name


@_BY_OPERATION
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
            prepared = await _prepare(operation, sandbox, api)
            before = await api.get_inventory(USER)
            start = trio.current_time()
            unknown = _assert_unknown(await _caught(prepared.make(api)), prepared)
            assert trio.current_time() - start == pytest.approx(30.0)
            assert type(unknown.__cause__) is DeadlineExceeded
            assert performed == 1
            _assert_performed(operation, prepared, before, await api.get_inventory(USER))

    # A clock that jumps ahead whenever nothing runs.
    trio.run(main, clock=MockClock(autojump_threshold=0))


@_BY_OPERATION
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
        prepared = await _prepare(operation, sandbox, api)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(noting, seen, prepared.make(api))
            await performing.wait()
            tasks.cancel_scope.cancel()
    (error,) = seen
    assert isinstance(error, anyio.get_cancelled_exc_class())
    assert error.__cause__ is None
    assert performed == 1


@_BY_OPERATION
@pytest.mark.asyncio
async def test_cancelling_a_task_on_a_real_socket_is_cancellation(operation: str) -> None:
    """The task ends as cancelled, after one request and one action."""
    async with _running() as (server, api):
        prepared = await _prepare(operation, server.sandbox, api)
        server.spoil = Spoil("hang", _data(b""), DeadlineExceeded, "hang")
        task = asyncio.create_task(prepared.make(api))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        assert server.performed == [PATHS[operation]]
        assert server.received.count(PATHS[operation]) == 1


@_BY_OPERATION
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
        prepared = await _prepare(operation, sandbox, api)
        unknown = _assert_unknown(await _caught(prepared.make(api)), prepared)
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


@_BY_OPERATION
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
        prepared = await _prepare(operation, sandbox, api)
        before = await api.get_inventory(USER)
        await prepared.make(api)
        assert tries == 2
        _assert_performed(operation, prepared, before, await api.get_inventory(USER))


# Finding out, as `OutcomeUnknown` says


SPOILED: Final = Spoil("dropped", _data(b""), ConnectionLost)


@pytest.mark.asyncio
async def test_finding_out_about_a_purchase() -> None:
    """Items added with the pack's `claw_id` mean that it was bought; other packs' do not count."""
    async with _running() as (server, api):
        first, second, _ = server.sandbox.packs
        await api.start_purchase(second.id, 1, USER)
        before = await api.get_inventory(USER)
        server.spoil = SPOILED
        error = await _caught(api.start_purchase(first.id, 3, USER))
        assert type(error) is OutcomeUnknown
        server.spoil = None
        await api.start_purchase(second.id, 2, USER)
        added = _changed(before, await api.get_inventory(USER)).added
        assert len([item for item in added if item.claw_id == error.arguments["pack_id"]]) == 3
        assert len(added) == 5


@pytest.mark.asyncio
async def test_finding_out_about_the_first_purchase_of_a_user() -> None:
    """Before it the user is unknown, and so stands for one who owns nothing."""
    async with _running() as (server, api):
        assert type(await _caught(api.get_inventory("newcomer"))) is UserNotFound
        server.spoil = SPOILED
        error = await _caught(api.start_purchase(server.sandbox.packs[0].id, 1, "newcomer"))
        assert type(error) is OutcomeUnknown
        diff = _changed(Inventory("newcomer", ()), await api.get_inventory("newcomer"))
        assert [item.claw_id for item in diff.added] == [error.arguments["pack_id"]]


@pytest.mark.asyncio
async def test_finding_out_about_a_sellback() -> None:
    """The item is gone: it was sold. A second try cannot pay twice, and cannot tell either."""
    async with _running() as (server, api):
        prepared = await _prepare("sell_back", server.sandbox, api)
        server.spoil = SPOILED
        error = await _caught(prepared.make(api))
        assert type(error) is OutcomeUnknown
        owned = {item.id for item in (await api.get_inventory(USER)).items}
        assert error.arguments["item_id"] not in owned
        server.spoil = None
        assert type(await _caught(prepared.make(api))) is ItemNotFound
        assert server.performed == [PATHS["sell_back"]]


@pytest.mark.asyncio
async def test_finding_out_about_a_shipping_request() -> None:
    """The items are gone: an order was made. A second try makes no second order."""
    async with _running() as (server, api):
        prepared = await _prepare("request_shipping", server.sandbox, api)
        server.spoil = SPOILED
        assert type(await _caught(prepared.make(api))) is OutcomeUnknown
        owned = {item.id for item in (await api.get_inventory(USER)).items}
        assert not owned & set(prepared.item_ids)
        server.spoil = None
        assert type(await _caught(prepared.make(api))) is ItemAlreadyShipped
        assert server.performed == [PATHS["request_shipping"]]


def test_the_docstring_tells_how_to_find_out() -> None:
    """Each of the three calls is named, with what to compare."""
    text = " ".join((OutcomeUnknown.__doc__ or "").split())
    ways = dict(re.findall(r"- `(\w+)`: (.*?)(?= - `|$)", text))
    assert set(ways) == set(PATHS)
    assert "diff_inventories(before, after)" in ways["start_purchase"]
    assert "claw_id" in ways["start_purchase"]
    for name in ("sell_back", "request_shipping"):
        assert "inventory" in ways[name]
        assert "gone" in ways[name]


def test_the_arguments_of_an_unknown_outcome_can_be_stored() -> None:
    """What a reconciliation job needs is plain JSON for all three calls."""
    for operation in OPERATIONS:
        if operation.effect.is_irreversible:
            given = {a.name: 1 if a.name == "amount" else "x" for a in operation.body.values()}
            assert json.loads(json.dumps(operation.check(given))) == given


# What can be saved of a broken answer


SAVED: Final = [
    ("start_purchase", b'{"nfts":[{"id":"a"}],"session_id":"550e8400-PAID"}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":"550e8400-PAID","nfts":null}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":"550e8400-PAID","nfts":["\\ud83d"]}', {"session_id": "550e8400-PAID"}),
    ("start_purchase", b'{"session_id":7}x', {}),
    ("start_purchase", b'{"session_id":"","nfts":null}', {}),
    ("start_purchase", b'{"session_id":null}', {}),
    ("start_purchase", b'["session_id"]', {}),
    ("start_purchase", b"[" * 100_000, {}),
    ("sell_back", b'{"success":"yes","amount":98.50}', {"amount": Decimal("98.50")}),
    ("sell_back", b'{"success":false,"amount":98.5}', {"amount": Decimal("98.5")}),
    ("start_purchase", b'{"session_id":"\\ud800","nfts":null}', {}),
    ("start_purchase", b'{"session_id":"  ","nfts":null}', {}),
    ("sell_back", b'{"success":"yes","amount":true}', {}),
    ("sell_back", b'{"success":"yes","amount":98}', {"amount": Decimal(98)}),
    ("sell_back", b'{"success":"yes","amount":"NaN"}', {}),
    ("sell_back", b'{"success":"yes","amount":1e-9999999999999999999}', {}),
    ("sell_back", b'{"success":true,"amount":9.75,"error":"boom"}', {"amount": Decimal("9.75")}),
    ("request_shipping", b'{"order_id":"order_1","status":null}', {"order_id": "order_1"}),
    ("request_shipping", f'{{"order_id":"{KEY}","status":null}}'.encode(), {}),
]


@pytest.mark.parametrize(("operation", "body", "saved"), SAVED)
@pytest.mark.anyio
async def test_what_can_be_read_of_a_broken_answer_is_not_lost(
    operation: str, body: bytes, saved: Mapping[str, object]
) -> None:
    """The only handle on what was paid for is worth more than the rest of the answer."""
    sandbox = Sandbox(seed=3)

    def handler(request: Request) -> Response:
        return Response(200, {}, body) if request.url.endswith(PATHS[operation]) else sandbox(request)

    async with PhygitalsClient(MemoryTransport(handler), api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        prepared = await _prepare(operation, sandbox, api)
        error = await _caught(prepared.make(api))
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, DecodeError)
    assert error.readable == saved
    assert pickle.loads(pickle.dumps(error)).readable == saved  # noqa: S301 - its own pickle.


# Ended by others


@_BY_OPERATION
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
    prepared = await _prepare(operation, sandbox, api)

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
    error = await _caught(api.get_inventory(USER))
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


@_BY_OPERATION
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
    prepared = await _prepare(operation, sandbox, api)

    async def slow() -> None:
        with pytest.raises(UserNotFound):
            await api.get_inventory("slow")

    async def call() -> None:
        errors.append(await _caught(prepared.make(api)))

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
                nursery.start_soon(_caught, api.list_packs())
            await trio.sleep(1)
            await api.aclose()
        assert trio.current_time() - start < 2

    clock = MockClock(autojump_threshold=0)
    start = clock.current_time()
    trio.run(main, clock=clock)
    assert len(transport.sent) == 3
