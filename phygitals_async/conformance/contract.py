"""What every transport promises, whatever it moves the bytes with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar, Final

import anyio
import anyio.lowlevel
import pytest

from phygitals_async import ClientClosed, PhygitalsClient, Request, Response, Sandbox, Sent, Transport, UserNotFound

Handler = Callable[[Request], Response | Awaitable[Response]]
"""What answers the requests of a test."""

# Seconds; what does not come must fail the test, not hang it.
LONGEST_WAIT: Final = 20.0

_NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
_AT_ONCE: Final = 32


class TransportConformance:
    """The tests of a transport: make a class of your own of it, in a test module, whose name begins with `Test`.

    This one is for transports that answer by themselves or pass on to another; `HttpTransportConformance` is for those
    that open connections.

    Attributes:
        event_loops: The event loops that the transport supports, of `asyncio` and `trio`.
    """

    event_loops: ClassVar[Sequence[str]] = ("asyncio", "trio")

    def connected(self, handler: Handler) -> AbstractAsyncContextManager[tuple[Transport, str]]:
        """Return a context manager that gives a new transport, and the base URL at which `handler` answers it.

        At the end of the block the transport is closed.

        Args:
            handler: A function of a request, sync or async; it may see another `Request` than the one that was sent,
                as long as method, URL, headers and body are the same.
        """
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each asynchronous test on each event loop."""
        if "anyio_backend" in metafunc.fixturenames:
            metafunc.parametrize("anyio_backend", self.event_loops)

    @pytest.mark.anyio
    @pytest.mark.parametrize(
        "body", [None, b'{"item_id":"v1|1|0"}', bytes(range(256)) * 400], ids=["none", "json", "binary"]
    )
    async def test_request_arrives_as_it_stands(self, body: bytes | None) -> None:
        """Method, URL, headers and body reach the other side unchanged."""
        seen: list[Request] = []

        def handler(request: Request) -> Response:
            seen.append(request)
            return Response(200, {}, b"")

        headers = {"X-API-Key": "sandbox-1", "Accept": "application/json", "User-Agent": "ua/1"}
        method = "GET" if body is None else "POST"
        async with self.connected(handler) as (transport, base):
            url = f"{base}/_/api/v1/vm/buyback/v1%7C1%7C0/a%2Fb/%2525?x=%20y&z=1"
            await transport.send(Request(method, url, headers, body))
        (got,) = seen
        assert (got.method, got.url, got.body) == (method, url, body)
        arrived = {name.lower(): value for name, value in got.headers.items()}
        assert {name: arrived[name.lower()] for name in headers} == headers

    @pytest.mark.anyio
    @pytest.mark.parametrize("status", [200, 204, 226, 301, 307, 404, 429, 500, 520, 599, 600, 999])
    async def test_status_and_body_come_back(self, status: int) -> None:
        """Whatever the status, it is returned and not raised, with its body."""
        body = b"" if status == 204 else bytes(range(256)) * 40
        headers = {"content-type": "text/html", "location": "/elsewhere"}
        async with self.connected(lambda _: Response(status, headers, body)) as (transport, base):
            response = await transport.send(Request("GET", f"{base}/x", {}))
        assert type(response.status) is int
        assert type(response.body) is bytes
        assert (response.status, response.body) == (status, body)

    @pytest.mark.anyio
    async def test_response_headers_answer_lower_case_names(self) -> None:
        """A response's headers are found by their lower-case names."""
        headers = {"retry-after": "3", "content-type": "application/json; charset=utf-8"}
        async with self.connected(lambda _: Response(429, headers, b"{}")) as (transport, base):
            response = await transport.send(Request("GET", f"{base}/x", {}))
        assert {name: response.headers.get(name) for name in headers} == headers
        assert response.headers.get("x-none") is None

    @pytest.mark.anyio
    async def test_concurrent_sends(self) -> None:
        """Sends that are under way at once each get the answer to their own request."""
        all_here = anyio.Event()
        waiting: list[str] = []

        async def handler(request: Request) -> Response:
            waiting.append(request.url)
            if len(waiting) == _AT_ONCE:
                all_here.set()
            await all_here.wait()
            return Response(200, {}, request.url.encode())

        answers: dict[str, bytes] = {}
        async with self.connected(handler) as (transport, base):

            async def send(url: str) -> None:
                answers[url] = (await transport.send(Request("GET", url, {}))).body

            with anyio.fail_after(LONGEST_WAIT):
                async with anyio.create_task_group() as group:
                    for number in range(_AT_ONCE):
                        group.start_soon(send, f"{base}/{number}")
        assert len(answers) == _AT_ONCE
        assert all(body == url.encode() for url, body in answers.items())

    @pytest.mark.anyio
    async def test_cancellation_passes_through(self) -> None:
        """A cancelled send ends at once, raises nothing of its own, and leaves no task and a usable transport."""
        arrived, finish = anyio.Event(), anyio.Event()

        async def handler(request: Request) -> Response:
            if request.url.endswith("/slow"):
                arrived.set()
                await finish.wait()
            return Response(200, {}, b"here")

        ended: list[object] = []
        request = Request("GET", "", {})
        async with self.connected(handler) as (transport, base):

            async def send(scope: anyio.CancelScope) -> None:
                with scope:
                    try:
                        await transport.send(Request("GET", f"{base}/slow", {}, delivery=request.delivery))
                    except BaseException as error:
                        ended.append(type(error))
                        raise

            scope = anyio.CancelScope()
            with anyio.fail_after(LONGEST_WAIT):
                async with anyio.create_task_group() as group:
                    group.start_soon(send, scope)
                    await arrived.wait()
                    scope.cancel()
            assert ended == [anyio.get_cancelled_exc_class()]
            assert scope.cancelled_caught
            assert request.delivery.sent is not Sent.NEVER
            finish.set()
            assert (await transport.send(Request("GET", f"{base}/fast", {}))).body == b"here"

    @pytest.mark.anyio
    async def test_a_cancelled_task_sends_nothing(self) -> None:
        """A send inside a scope that is cancelled already never reaches the other side."""
        seen: list[Request] = []

        def handler(request: Request) -> Response:
            seen.append(request)
            return Response(200, {}, b"")

        async with self.connected(handler) as (transport, base):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await transport.send(Request("GET", f"{base}/x", {}))
            assert scope.cancelled_caught
            # Whatever was sent is there before what is sent later.
            await transport.send(Request("GET", f"{base}/later", {}))
        assert [request.url for request in seen] == [f"{base}/later"]

    @pytest.mark.anyio
    @pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
    async def test_closed_transport_refuses(self, used: bool) -> None:
        """After `aclose`, which may be called twice, `send` raises `ClientClosed` and nothing is sent."""
        seen: list[Request] = []

        def handler(request: Request) -> Response:
            seen.append(request)
            return Response(200, {}, b"")

        async with self.connected(handler) as (transport, base):
            for _ in range(used):
                await transport.send(Request("GET", f"{base}/x", {}))
            await transport.aclose()
            await transport.aclose()
            for _ in range(2):
                with pytest.raises(ClientClosed, match="closed"):
                    await transport.send(Request("GET", f"{base}/x", {}))
        assert len(seen) == used

    @pytest.mark.anyio
    async def test_client_closes_the_transport(self) -> None:
        """Closing a client closes the transport it was given."""
        async with self.connected(lambda _: Response(200, {}, b"")) as (transport, base):
            async with PhygitalsClient(transport, api_key="sandbox-1", base_url=base):
                await transport.send(Request("GET", f"{base}/x", {}))
            with pytest.raises(ClientClosed):
                await transport.send(Request("GET", f"{base}/x", {}))

    @pytest.mark.anyio
    async def test_same_sandbox_same_answers(self) -> None:
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
        expected_of, through = _sandbox(), _sandbox()
        async with self.connected(through) as (transport, base):
            for method, path, key in calls:
                request = Request(method, base + path, {"X-API-Key": key})
                expected, got = expected_of(request), await transport.send(request)
                assert (got.status, got.body) == (expected.status, expected.body)
                assert got.headers["content-type"] == expected.headers["content-type"]

    @pytest.mark.anyio
    async def test_client_over_the_sandbox(self) -> None:
        """The client reads through any transport the very items that were added to the sandbox."""
        made = _sandbox()
        item = made.add_item("v1|1|0 %2e%2e 🃏", name="New", buyback_price=Decimal("0.10"))
        async with (
            self.connected(made) as (transport, base),
            PhygitalsClient(transport, api_key="sandbox-1", base_url=f"{base}/_") as api,
        ):
            assert (await api.get_inventory("v1|1|0 %2e%2e 🃏")).items == (item,)
            assert (await api.get_inventory("empty")).items == ()
            with pytest.raises(UserNotFound):
                await api.get_inventory("nobody")
            batch = await api.get_inventories(["user_abc123", "nobody", "empty"], limit=2)
            assert [len(found.value.items) for found in batch.found] == [2, 0]
            assert [failed.key for failed in batch.failed] == ["nobody"]
            sold = await api.sell_back(item.id)
            assert sold.amount == Decimal("0.10")


def _sandbox() -> Sandbox:
    """Return a sandbox that holds the same items every time."""
    made = Sandbox(clock=lambda: _NOW, seed=5)
    made.add_item("user_abc123", name="Juan Soto RC Auto /25", buyback_price=Decimal("8.50"))
    made.add_item("user_abc123", name="Mbappé", buyback_price=Decimal("70.13"), back_image=None, claw_slug=None)
    made.add_item("a/b", name="Slash", buyback_price=Decimal(1))
    made.add_user("empty")
    return made
