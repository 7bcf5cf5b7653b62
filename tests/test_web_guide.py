"""The application of `docs/web.md` does what the document says of it."""

from __future__ import annotations

import asyncio
import json
import re
import types
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from starlette.applications import Starlette

from phygitals_async import PhygitalsClient, Request, Response, RetryPolicy, Sandbox
from phygitals_transports import MemoryTransport
from support import ROOT

pytestmark = pytest.mark.asyncio

PROGRAM = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "web.md").read_text(), re.DOTALL)[0]
PAID = {"success": True, "amount": 8.5}
FORM = {
    "item_ids": ["v1|1|0"],
    "destination": {"name": "Jane", "line1": "1 Main St", "city": "Austin", "country": "US"},
}


@pytest.fixture
def shop() -> types.ModuleType:
    """Return the program as a module."""
    module = types.ModuleType("shop")
    # Without the `from __future__` of this file.
    code = compile(PROGRAM, "docs/web.md", "exec", dont_inherit=True)
    exec(code, module.__dict__)  # noqa: S102 - our own document.
    return module


@pytest.fixture
def sandbox() -> Sandbox:
    """Return a sandbox in which a user owns a card."""
    sandbox = Sandbox(seed=1)
    sandbox.add_item("user", id="card", name="Mike Trout Base", buyback_price=Decimal("8.50"))
    return sandbox


def running(shop: types.ModuleType, handler: Callable[[Request], Any]) -> AbstractAsyncContextManager[Starlette]:
    """Run the application, from its start to its shutdown."""

    def make_client() -> PhygitalsClient:
        return PhygitalsClient(MemoryTransport(handler), api_key="sandbox-test", retry=RetryPolicy(retries=0))

    @asynccontextmanager
    async def run() -> AsyncIterator[Starlette]:
        app: Starlette = shop.create_app(make_client)
        async with app.router.lifespan_context(app):
            yield app

    return run()


async def ask(app: Starlette, method: str, path: str, body: object = None) -> tuple[int, Any, dict[bytes, bytes]]:
    """Send the application a request, as its server does, and return status, body and headers."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": [], "app": app}
    await app(scope, receive, send)  # type: ignore[arg-type]
    return sent[0]["status"], json.loads(sent[1]["body"]), dict(sent[0]["headers"])


async def test_answers_and_refusals(shop: types.ModuleType, sandbox: Sandbox) -> None:
    """What the API refuses has a status that a browser understands."""
    async with running(shop, sandbox) as app:
        status, inventory, _ = await ask(app, "GET", "/users/user/items")
        assert (status, [item["id"] for item in inventory["items"]]) == (200, ["card"])
        status, error, _ = await ask(app, "GET", "/users/nobody/items")
        assert (status, error["code"]) == (404, "UserNotFound")
        status, error, _ = await ask(app, "POST", "/users/other/items/card/sell")
        assert (status, error["code"]) == (403, "NotOwned")
        status, sold, _ = await ask(app, "POST", "/users/user/items/card/sell")
        assert (status, sold, app.state.sold["card"]) == (200, PAID, PAID)


async def test_a_form_that_cannot_be_read(shop: types.ModuleType, sandbox: Sandbox) -> None:
    """Every bad place of it is named; a good one is quoted."""
    sandbox.add_item("user", id="v1|1|0", name="Mike Trout Base", buyback_price=Decimal(1))
    async with running(shop, sandbox) as app:
        status, quotes, _ = await ask(app, "POST", "/users/user/quotes", FORM)
        assert (status, bool(quotes["quotes"])) == (200, True)
        status, answer, _ = await ask(app, "POST", "/users/user/quotes", {"item_ids": [5], "destination": {"name": 3}})
        assert status == 422
        assert "$.item_ids[0]: expected a string, got an integer" in answer["problems"]
        assert "$.destination.country: missing" in answer["problems"]


async def test_a_visitor_reads_nothing_of_what_the_server_said(shop: types.ModuleType) -> None:
    """The log has it. How long to wait is passed on."""

    def broken(_: Request) -> Response:
        return Response(503, {"retry-after": "7"}, b"secret of the server")

    async with running(shop, broken) as app:
        status, error, headers = await ask(app, "GET", "/users/user/items")
    assert (status, error["code"], headers[b"retry-after"]) == (502, "ServerError", b"7")
    assert "secret" not in json.dumps(error)


async def test_a_browser_that_goes_away_ends_no_sale(shop: types.ModuleType, sandbox: Sandbox) -> None:
    """The sale is recorded, though its request was cancelled and the application shut down meanwhile."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        if request.url.endswith("/vm/buyback"):
            begun.set()
            await go_on.wait()
        return sandbox(request)

    async with running(shop, slow) as app:
        visit = asyncio.create_task(ask(app, "POST", "/users/user/items/card/sell"))
        await begun.wait()
        visit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await visit
        assert app.state.sold == {}
        asyncio.get_running_loop().call_soon(go_on.set)
    assert app.state.sold == {"card": PAID}
