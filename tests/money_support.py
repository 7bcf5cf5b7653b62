"""What the tests of money and goods share: a server that does what it is asked, and spoils the answer."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, Final

import pytest
from attrs import field, frozen

from phygitals_async import (
    Destination,
    Inventory,
    InventoryDiff,
    OutcomeUnknown,
    PhygitalsClient,
    PhygitalsError,
    Request,
    RetryPolicy,
    Sandbox,
    Sent,
    build_converter,
    diff_inventories,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import AiohttpTransport, MemoryTransport
from support import ONCE

KEY = "sandbox-key-for-these-tests"
USER = "user_abc123"
# Repeats at once whatever may be repeated at all: what these tests show holds under every policy.
EAGER: Final = RetryPolicy(retries=10, base=0.0001, longest=20.0)
# Building a converter is most of the work of making a client, and hundreds are made here.
CONVERTER = build_converter()
HTML = b"<!DOCTYPE html>\n<html><title>502 Bad Gateway</title></html>"
DESTINATION: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US")


# A server that does what it is asked, and spoils the answer


def framed(status: int, body: bytes, **headers: str) -> bytes:
    """Return the bytes of a whole answer."""
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


def always(data: bytes) -> Callable[[bytes], bytes]:
    """Return what makes the same bytes of every answer."""
    return lambda _: data


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
        data = framed(true.status, true.body, Content_Type="application/json")
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


async def prepare(operation: str, sandbox: Sandbox, api: PhygitalsClient) -> Prepared:
    """Make the user known, owning three items, and prepare a call."""
    items = [sandbox.add_item(USER, name=f"Card {n}", buyback_price=Decimal("8.50")) for n in range(3)]
    if operation == "start_purchase":
        return Prepared(operation, {"pack_id": sandbox.packs[0].id, "amount": 2, "user_id": USER})
    if operation == "sell_back":
        return Prepared(operation, {"item_id": items[1].id}, [items[1].id])
    quotes = await api.quote_shipping([items[0].id, items[2].id], DESTINATION)
    return Prepared(operation, {"quote_id": quotes.quotes[1].id}, [items[0].id, items[2].id])


@asynccontextmanager
async def running_server() -> AsyncIterator[tuple[Server, PhygitalsClient]]:
    """Run a server, and a client of it over aiohttp and a real socket."""
    server = Server()
    await server.start()
    try:
        async with client_at(server.url) as api:
            yield server, api
    finally:
        await server.stop()


def client_at(url: str) -> PhygitalsClient:
    """Return a client over aiohttp and real sockets."""
    return PhygitalsClient(
        AiohttpTransport(max_body=50_000), api_key=KEY, retry=EAGER, base_url=url, converter=CONVERTER
    )


async def prepared_elsewhere(operation: str) -> Prepared:
    """Prepare a call against a sandbox in memory, for a server that is none."""
    sandbox = Sandbox(seed=3)
    return await prepare(operation, sandbox, PhygitalsClient(MemoryTransport(sandbox), api_key=KEY, retry=ONCE))


async def error_of(call: Awaitable[Any]) -> PhygitalsError:
    """Make a call that fails, and return its error."""
    with pytest.raises(PhygitalsError) as caught:
        await call
    return caught.value


def assert_unknown(error: PhygitalsError, prepared: Prepared) -> OutcomeUnknown:
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


BY_OPERATION = pytest.mark.parametrize("operation", list(PATHS))


def difference(before: Inventory, after: Inventory) -> InventoryDiff:
    """Return what came and went between two looks at an inventory."""
    diff = diff_inventories(before, after)
    assert diff.repriced == ()
    return diff


def assert_performed(operation: str, prepared: Prepared, before: Inventory, after: Inventory) -> None:
    """Read the outcome out of two inventories, as `OutcomeUnknown` tells to."""
    diff = difference(before, after)
    if operation == "start_purchase":
        bought = [item for item in diff.added if item.claw_id == prepared.arguments["pack_id"]]
        assert len(bought) == len(diff.added) == prepared.arguments["amount"]
        assert diff.removed == ()
    else:
        assert [item.id for item in diff.removed] == list(prepared.item_ids)
        assert diff.added == ()
