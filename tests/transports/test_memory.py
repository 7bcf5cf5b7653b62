"""The memory transport, and the package that gives the transports their names."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import anyio
import pytest

import phygitals_transports
from phygitals_async import ClientClosed, NotFound, PhygitalsClient, Request, Response, Transport
from phygitals_transports import MemoryTransport


def ok(_: Request) -> Response:
    """Answer anything with an empty 200."""
    return Response(200, {}, b"")


def a_request(path: str = "/x") -> Request:
    """Return a request to nowhere."""
    return Request("GET", f"http://127.0.0.1{path}", {"X-API-Key": "sandbox-1"})


@pytest.mark.anyio
async def test_sent_holds_every_request_in_order() -> None:
    """`sent` holds the very requests, in order, refused ones left out."""
    transport = MemoryTransport(ok)
    requests = [a_request(f"/{number}") for number in range(5)]
    for each in requests:
        await transport.send(each)
    await transport.aclose()
    with pytest.raises(ClientClosed):
        await transport.send(a_request("/late"))
    assert len(transport.sent) == len(requests)
    assert all(got is given for got, given in zip(transport.sent, requests, strict=True))


@pytest.mark.anyio
async def test_the_answer_is_the_handlers_own() -> None:
    """The handler gets the very request and its response is returned as it is."""
    made: list[tuple[Request, Response]] = []

    def handler(incoming: Request) -> Response:
        made.append((incoming, Response(520, {"cf-ray": "1"}, b"<html>")))
        return made[-1][1]

    outgoing = a_request()
    answer = await MemoryTransport(handler).send(outgoing)
    assert made[0][0] is outgoing
    assert made[0][1] is answer


@pytest.mark.anyio
async def test_what_the_handler_raises_is_raised() -> None:
    """A handler can play a fault: its exception comes out unchanged, with the request recorded."""
    fault = ZeroDivisionError("handler")

    def handler(_: Request) -> Response:
        raise fault

    transport = MemoryTransport(handler)
    with pytest.raises(ZeroDivisionError) as caught:
        await transport.send(a_request())
    assert caught.value is fault
    assert len(transport.sent) == 1


@pytest.mark.anyio
async def test_sends_let_other_tasks_run() -> None:
    """Even with a sync handler a send is a checkpoint, as with a real engine."""
    turns: list[str] = []

    async def send(name: str) -> None:
        for _ in range(3):
            await transport.send(a_request(f"/{name}"))
            turns.append(name)

    transport = MemoryTransport(ok)
    async with anyio.create_task_group() as group:
        group.start_soon(send, "a")
        group.start_soon(send, "b")
    # Neither had three turns on end, whichever began.
    assert turns[:3] not in (["a"] * 3, ["b"] * 3)


def test_one_transport_for_several_event_loops() -> None:
    """It holds no loop: one transport serves a loop after another."""
    transport = MemoryTransport(ok)
    for _ in range(2):
        asyncio.run(transport.send(a_request()))
    anyio.run(transport.send, a_request(), backend="trio")
    assert len(transport.sent) == 3


@pytest.mark.anyio
async def test_transports_wrap_transports() -> None:
    """A transport of one's own is two methods, and may wrap another."""

    class Unavailable:
        """Replaces every answer with a 404."""

        def __init__(self, inner: Transport) -> None:
            self._inner = inner

        async def send(self, request: Request) -> Response:
            """Send it, and drop the answer."""
            await self._inner.send(request)
            return Response(404, {}, b"")

        async def aclose(self) -> None:
            """Close the inner one."""
            await self._inner.aclose()

    inner = MemoryTransport(ok)
    async with PhygitalsClient(Unavailable(inner), api_key="sandbox-1") as api:
        with pytest.raises(NotFound):
            await api.get_inventory("u")
    assert [sent.url for sent in inner.sent] == ["https://api.phygitals.com/_/api/v1/inventory/u"]
    with pytest.raises(ClientClosed):
        await inner.send(a_request())


def test_package_names() -> None:
    """The package gives and lists its transports, and no other name."""
    names = ["AiohttpTransport", "GuardedConnector", "MemoryTransport"]
    assert sorted(phygitals_transports.__all__) == names
    assert dir(phygitals_transports) == names
    for name in names:
        assert getattr(phygitals_transports, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'HttpxTransport'"):
        phygitals_transports.HttpxTransport  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "engines"),
    [
        ("import phygitals_transports", []),
        ("from phygitals_transports import MemoryTransport", []),
        ("import phygitals_transports.memory", []),
        ("from phygitals_transports import AiohttpTransport", ["aiohttp"]),
    ],
)
def test_one_transport_loads_no_engine_of_another(statement: str, engines: list[str]) -> None:
    """Importing the memory transport imports no HTTP library, importing the other does."""
    known = ("aiohttp", "httpx", "httpx2", "pyreqwest", "requests", "urllib3")
    code = f"import sys\n{statement}\nprint([name for name in {known!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == repr(engines)
