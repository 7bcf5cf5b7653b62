"""The memory transport, and the package that gives the transports their names."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import anyio
import pytest

import phygitals_transports
from phygitals_async import (
    ClientClosed,
    ConfigurationError,
    NotFound,
    PhygitalsClient,
    Request,
    Response,
    Sandbox,
    Sent,
    Transport,
)
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


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Sandbox, "not the class Sandbox; make one of it: MemoryTransport(Sandbox(...))"),
        (Response(200, {}, b""), "not a Response; give it to MemoryTransport.answering(...)"),
        (None, "not NoneType; a Sandbox() is one"),
        ({"items": []}, "not dict; "),
    ],
    ids=["class", "response", "none", "body"],
)
def test_what_is_no_handler_is_refused_at_once(wrong: Any, text: str) -> None:
    """And not at the first call; the text says what is usually meant."""
    with pytest.raises(ConfigurationError) as caught:
        MemoryTransport(wrong)
    assert str(caught.value).startswith("handler must be a function of a request, ")
    assert text in str(caught.value)


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


@pytest.mark.anyio
async def test_a_request_is_never_sent_until_it_reaches_the_handler() -> None:
    """As over a socket: never sent if it is cancelled before; from then on what the handler raises tells."""
    transport = MemoryTransport(ok)
    cancelled, sent = a_request(), a_request()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await transport.send(cancelled)
    assert cancelled.delivery.sent is Sent.NEVER
    await transport.send(sent)
    assert (sent.delivery.failed, sent.delivery.sent) == (False, Sent.UNKNOWN)
    assert transport.sent == [sent]


@pytest.mark.anyio
@pytest.mark.parametrize(("keep", "kept"), [(None, 5), (0, 0), (1, 1), (3, 3), (9, 5)])
async def test_keeping_the_last_requests_only(keep: int | None, kept: int) -> None:
    """A long run need not remember all it sent."""
    transport = MemoryTransport(ok, keep=keep)
    requests = [a_request(f"/{number}") for number in range(5)]
    for each in requests:
        await transport.send(each)
    assert transport.sent == requests[len(requests) - kept :]


@pytest.mark.parametrize("keep", [-1, True, 1.5, "1"])
def test_a_count_to_keep_that_is_none(keep: Any) -> None:
    """It is refused by name."""
    with pytest.raises(ConfigurationError, match="keep"):
        MemoryTransport(ok, keep)


@pytest.mark.anyio
async def test_answers_given_in_turn() -> None:
    """Each in its own form, and the last again and again."""
    fault = ZeroDivisionError("fault")
    response = Response(520, {"cf-ray": "1"}, b"<html>")
    transport = MemoryTransport.answering(
        response, fault, (404, {"error": "é"}), {"items": []}, [404, "a list"], keep=1
    )
    assert await transport.send(a_request()) is response
    with pytest.raises(ZeroDivisionError) as caught:
        await transport.send(a_request())
    assert caught.value is fault
    json_type = {"content-type": "application/json"}
    assert await transport.send(a_request()) == Response(404, json_type, b'{"error": "\\u00e9"}')
    assert await transport.send(a_request()) == Response(200, json_type, b'{"items": []}')
    for _ in range(3):
        assert await transport.send(a_request()) == Response(200, json_type, b'[404, "a list"]')
    assert len(transport.sent) == 1


@pytest.mark.anyio
async def test_one_answer_is_for_every_request() -> None:
    """The same response, or the same fault."""
    always = MemoryTransport.answering(Response(204, {}, b""))
    assert [(await always.send(a_request())).status for _ in range(3)] == [204] * 3
    assert len(always.sent) == 3
    never = MemoryTransport.answering(KeyError("gone"))
    for _ in range(3):
        with pytest.raises(KeyError):
            await never.send(a_request())


def test_no_answer_at_all() -> None:
    """It is a mistake."""
    with pytest.raises(ConfigurationError, match="at least one"):
        MemoryTransport.answering()


def test_package_names() -> None:
    """The package gives and lists its transports, and no other name."""
    names = phygitals_transports.__all__
    assert {"AiohttpTransport", "GuardedConnector", "MemoryTransport"} < set(names)
    assert dir(phygitals_transports) == names
    for name in names:
        assert getattr(phygitals_transports, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'HttpxTransport'"):
        phygitals_transports.HttpxTransport  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    ("statement", "engines"),
    [
        ("import phygitals_transports", []),
        ("from phygitals_transports import MemoryTransport", []),
        ("import phygitals_transports.memory", []),
        ("from phygitals_transports import AiohttpTransport", ["aiohttp"]),
        ("from phygitals_transports import Httpx2Transport", ["httpx2"]),
        ("from phygitals_transports import ReqwestTransport", ["pyreqwest"]),
    ],
)
def test_one_transport_loads_no_engine_of_another(statement: str, engines: list[str]) -> None:
    """Importing the memory transport imports no HTTP library, importing the other does."""
    known = ("aiohttp", "httpx", "httpx2", "pyreqwest", "requests", "urllib3")
    code = f"import sys\n{statement}\nprint([name for name in {known!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == repr(engines)
