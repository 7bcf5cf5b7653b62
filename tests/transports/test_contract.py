"""What every transport promises, run against each of them with the same handlers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

import anyio
import pytest
from attrs import frozen

from phygitals_async import ClientClosed, PhygitalsClient, Request, Response, Sandbox, Transport, UserNotFound
from phygitals_transports import AiohttpTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from phygitals_transports.memory import Handler

NOW = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)


@frozen
class Case:
    """A transport, and the event loop to run it on."""

    engine: Literal["aiohttp", "memory"]
    loop: Literal["asyncio", "trio"]

    @asynccontextmanager
    async def connected(self, handler: Handler) -> AsyncIterator[tuple[Transport, str]]:
        """Give the transport and the base URL at which `handler` answers it."""
        if self.engine == "memory":
            memory = MemoryTransport(handler)
            yield memory, "http://127.0.0.1:8765"
            await memory.aclose()
            return
        async with serve(handler) as url:
            transport = AiohttpTransport()
            try:
                yield transport, url
            finally:
                await transport.aclose()


CASES = [Case("aiohttp", "asyncio"), Case("memory", "asyncio"), Case("memory", "trio")]


@pytest.fixture(params=CASES, ids=[f"{case.engine}-{case.loop}" for case in CASES])
def case(request: pytest.FixtureRequest) -> Case:
    """Give each transport on each event loop it supports."""
    assert isinstance(request.param, Case)
    return request.param


@pytest.fixture
def anyio_backend(case: Case) -> str:
    """Run on the case's event loop."""
    return case.loop


def empty_200(_: Request) -> Response:
    """Answer anything with an empty 200."""
    return Response(200, {}, b"")


def sandbox() -> Sandbox:
    """Return a sandbox that holds the same items every time."""
    made = Sandbox(clock=lambda: NOW, seed=5)
    made.add_item("user_abc123", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    made.add_item("user_abc123", name="Mbappé", buyback_price=Decimal("70.13"), back_image=None, claw_slug=None)
    made.add_item("a/b", name="Slash", buyback_price=Decimal(1))
    made.add_user("empty")
    return made


@pytest.mark.anyio
@pytest.mark.parametrize("body", [None, b'{"item_id":"v1|1|0"}', bytes(range(256))], ids=["none", "json", "binary"])
async def test_request_arrives_as_it_stands(case: Case, body: bytes | None) -> None:
    """Method, URL, headers and body reach the handler unchanged."""
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200, {}, b"")

    async with case.connected(handler) as (transport, base):
        url = f"{base}/_/api/v1/vm/buyback/v1%7C1%7C0/a%2Fb/%252e?x=%20y&z=1"
        headers = {"X-API-Key": "sandbox-1", "Accept": "application/json", "User-Agent": "ua/1"}
        method = "GET" if body is None else "POST"
        await transport.send(Request(method, url, headers, body))
    (got,) = seen
    assert (got.method, got.url, got.body) == (method, url, body)
    arrived = {name.lower(): value for name, value in got.headers.items()}
    assert {name: arrived[name.lower()] for name in headers} == headers


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 204, 301, 404, 500, 520])
async def test_status_and_body_come_back(case: Case, status: int) -> None:
    """Whatever the status, it is returned and not raised, with its body."""
    body = b"" if status == 204 else bytes(range(256)) * 40

    async with case.connected(lambda _: Response(status, {"content-type": "text/html"}, body)) as (transport, base):
        response = await transport.send(Request("GET", f"{base}/x", {}))
    assert type(response.status) is int
    assert type(response.body) is bytes
    assert (response.status, response.body) == (status, body)


@pytest.mark.anyio
async def test_response_headers_answer_lower_case_names(case: Case) -> None:
    """A response's headers are found by their lower-case names."""
    headers = {"retry-after": "3", "content-type": "application/json; charset=utf-8"}

    async with case.connected(lambda _: Response(429, headers, b"{}")) as (transport, base):
        response = await transport.send(Request("GET", f"{base}/x", {}))
    assert {name: response.headers.get(name) for name in headers} == headers
    assert response.headers.get("x-none") is None


@pytest.mark.anyio
async def test_async_handler(case: Case) -> None:
    """A handler may be a coroutine function."""

    async def handler(request: Request) -> Response:
        await anyio.lowlevel.checkpoint()
        return Response(200, {}, request.method.encode())

    async with case.connected(handler) as (transport, base):
        response = await transport.send(Request("POST", f"{base}/x", {}, b"body"))
    assert response.body == b"POST"


@pytest.mark.anyio
async def test_concurrent_sends(case: Case) -> None:
    """Sends that are under way at once each get the answer to their own request."""
    count = 8
    all_here = anyio.Event()
    waiting: list[str] = []

    async def handler(request: Request) -> Response:
        waiting.append(request.url)
        if len(waiting) == count:
            all_here.set()
        await all_here.wait()
        return Response(200, {}, request.url.encode())

    answers: dict[str, bytes] = {}

    async with case.connected(handler) as (transport, base):

        async def send(url: str) -> None:
            answers[url] = (await transport.send(Request("GET", url, {}))).body

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(send, f"{base}/{number}")
    assert len(answers) == count
    assert all(body == url.encode() for url, body in answers.items())


@pytest.mark.anyio
async def test_cancellation_passes_through(case: Case) -> None:
    """A cancelled send ends at once, raises nothing of its own, and leaves the transport usable."""
    arrived, finish = anyio.Event(), anyio.Event()

    async def handler(request: Request) -> Response:
        if request.url.endswith("/slow"):
            arrived.set()
            await finish.wait()
        return Response(200, {}, b"here")

    ended: list[object] = []

    async with case.connected(handler) as (transport, base):

        async def send(scope: anyio.CancelScope) -> None:
            with scope:
                try:
                    await transport.send(Request("GET", f"{base}/slow", {}))
                except BaseException as error:
                    ended.append(type(error))
                    raise

        scope = anyio.CancelScope()
        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(send, scope)
                await arrived.wait()
                scope.cancel()
        assert ended == [anyio.get_cancelled_exc_class()]
        assert scope.cancelled_caught
        finish.set()
        assert (await transport.send(Request("GET", f"{base}/fast", {}))).body == b"here"


@pytest.mark.anyio
async def test_a_cancelled_task_sends_nothing(case: Case) -> None:
    """A send inside a scope that is cancelled already never reaches the handler."""
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200, {}, b"")

    async with case.connected(handler) as (transport, base):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.send(Request("GET", f"{base}/x", {}))
        assert scope.cancelled_caught
    assert seen == []


@pytest.mark.anyio
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
async def test_closed_transport_refuses(case: Case, used: bool) -> None:
    """After aclose, which may be called twice, send raises ClientClosed and nothing reaches the handler."""
    seen: list[Request] = []

    def handler(request: Request) -> Response:
        seen.append(request)
        return Response(200, {}, b"")

    async with case.connected(handler) as (transport, base):
        if used:
            await transport.send(Request("GET", f"{base}/x", {}))
        await transport.aclose()
        await transport.aclose()
        for _ in range(2):
            with pytest.raises(ClientClosed, match="closed"):
                await transport.send(Request("GET", f"{base}/x", {}))
    assert len(seen) == used


@pytest.mark.anyio
async def test_client_closes_the_transport(case: Case) -> None:
    """Closing a client closes the transport it was given."""
    async with case.connected(empty_200) as (transport, base):
        async with PhygitalsClient(transport, api_key="sandbox-1", base_url=base):
            await transport.send(Request("GET", f"{base}/x", {}))
        with pytest.raises(ClientClosed):
            await transport.send(Request("GET", f"{base}/x", {}))


@pytest.mark.anyio
async def test_same_sandbox_same_answers(case: Case) -> None:
    """A sandbox answers, to the byte, through any transport what it answers when called directly."""
    calls = [
        ("GET", "/_/api/v1/inventory/user_abc123", "sandbox-1"),
        ("GET", "/api/v1/inventory/user_abc123", "sandbox-1"),
        ("GET", "/_/api/v1/inventory/a%2Fb", "sandbox-1"),
        ("GET", "/_/api/v1/inventory/empty", "sandbox-1"),
        ("GET", "/_/api/v1/inventory/nobody", "sandbox-1"),
        ("GET", "/_/api/v1/inventory/", "sandbox-1"),
        ("POST", "/_/api/v1/inventory/user_abc123", "sandbox-1"),
        ("GET", "/_/api/v1/inventory/user_abc123", "unknown"),
    ]
    expected_of, through = sandbox(), sandbox()
    async with case.connected(through) as (transport, base):
        for method, path, key in calls:
            request = Request(method, base + path, {"X-API-Key": key})
            expected, got = expected_of(request), await transport.send(request)
            assert (got.status, got.body) == (expected.status, expected.body)
            assert got.headers["content-type"] == expected.headers["content-type"]


@pytest.mark.anyio
async def test_client_over_the_sandbox(case: Case) -> None:
    """The client reads through any transport the very items that were added to the sandbox."""
    made = sandbox()
    item = made.add_item("v1|1|0 %2e%2e 🃏", name="New", buyback_price=Decimal("0.10"))
    async with (
        case.connected(made) as (transport, base),
        PhygitalsClient(transport, api_key="sandbox-1", base_url=f"{base}/_") as api,
    ):
        assert (await api.get_inventory("v1|1|0 %2e%2e 🃏")).items == (item,)
        assert (await api.get_inventory("empty")).items == ()
        with pytest.raises(UserNotFound):
            await api.get_inventory("nobody")
        batch = await api.get_inventories(["user_abc123", "nobody", "empty"], limit=2)
        assert [len(found.value.items) for found in batch.found] == [2, 0]
        assert [failed.key for failed in batch.failed] == ["nobody"]
