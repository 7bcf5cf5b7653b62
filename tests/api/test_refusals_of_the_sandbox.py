"""Every refusal of the sandbox in its class, in memory and over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import pytest
from attrs import evolve, field, frozen

from phygitals_async import (
    AddressRejected,
    AmountOutOfRange,
    AuthenticationError,
    CardNotFound,
    CountryNotSupported,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    MissingField,
    NotFound,
    NothingShippable,
    OrderNotFound,
    OutcomeUnknown,
    OutOfStock,
    PackNotFound,
    PhygitalsClient,
    PhygitalsError,
    QuoteExpired,
    RateLimited,
    Request,
    Response,
    Sandbox,
    SellbackInProgress,
    Sent,
    ServerError,
    ShippingRequestFailed,
    StatusError,
    TransactionFailed,
    Transport,
    UserNotFound,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async.sandbox import RateLimit, SandboxOptions
from phygitals_transports import AiohttpTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from refusal_support import CONVERTER, DESTINATION, KEY, assert_pickles
from support import ONCE

NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)

_BUY, _STATUS, _SELL, _QUOTE, _SHIP = (
    "POST /api/v1/vm/buy/init", "POST /api/v1/vm/buy/status", "POST /api/v1/vm/buyback",
    "POST /api/v1/ship/quote", "POST /api/v1/ship/request",
)  # fmt: skip


# The sandbox's refusals, in memory and over HTTP


@frozen
class Changing:
    """A transport that changes the body, so that the API misses what this library always sends."""

    inner: Transport
    change: dict[str, Any]

    async def send(self, request: Request) -> Response:
        """Send the request with its body changed; None takes a field away."""
        body = {**json.loads(request.body or b"{}"), **self.change}
        kept = {name: value for name, value in body.items() if value is not None}
        return await self.inner.send(evolve(request, body=json.dumps(kept).encode()))

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self.inner.aclose()


@frozen
class Scene:
    """A sandbox, and a client of it for the table below.

    Attributes:
        sandbox: The sandbox, with one user.
        api: The client.
        user_id: The user.
        item_id: What the user owns.
    """

    sandbox: Sandbox
    api: PhygitalsClient
    user_id: str
    item_id: str

    @property
    def pack_id(self) -> str:
        """A pack that can be bought."""
        return self.sandbox.packs[0].id

    async def quote(self, *item_ids: str, **address: Any) -> str:
        """Return the id of a quote."""
        destination = evolve(DESTINATION, **address)
        return (await self.api.quote_shipping(item_ids or [self.item_id], destination)).quotes[0].id


@frozen
class Case:
    """One refusal of the sandbox.

    Attributes:
        name: What brings it about.
        play: Brings it about.
        expected: Its class.
        status: Its status.
        message: Its text.
        operation: The call that meets it.
        client: Settings of the client.
        change: What is changed in the bodies sent.
    """

    name: str
    play: Callable[[Scene], Awaitable[Any]]
    expected: type[StatusError]
    status: int
    message: str
    operation: str
    client: dict[str, Any] = field(factory=dict)
    change: dict[str, Any] | None = None


async def _sold(scene: Scene) -> None:
    await scene.api.sell_back(scene.item_id)
    await scene.api.sell_back(scene.item_id)


async def _sell_locked(scene: Scene) -> None:
    await scene.api.request_shipping(await scene.quote())
    await scene.api.sell_back(scene.item_id)


async def _sell_late(scene: Scene) -> None:
    scene.sandbox.advance(timedelta(days=7))
    await scene.api.sell_back(scene.item_id)


async def _sell_wiped(scene: Scene) -> None:
    scene.sandbox.wipe()
    await scene.api.sell_back(scene.item_id)


def _sell_with(option: str) -> Callable[[Scene], Awaitable[Any]]:
    async def play(scene: Scene) -> None:
        setattr(scene.sandbox.options, option, 1)
        await scene.api.sell_back(scene.item_id)

    return play


async def _buy_disabled(scene: Scene) -> None:
    scene.sandbox.add_pack(evolve(scene.sandbox.packs[0], enable=False))
    await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)


async def _buy_sold_out(scene: Scene) -> None:
    (pack,) = [pack for pack in scene.sandbox.packs if not pack.in_stock]
    await scene.api.start_purchase(pack.id, 1, scene.user_id)


async def _buy_empty(scene: Scene) -> None:
    scene.sandbox.add_pack(scene.sandbox.packs[0], [])
    await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)


async def _poll_failed(scene: Scene) -> None:
    scene.sandbox.options.fail_purchases = True
    started = await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)
    await scene.api.get_purchase(started.session_id)


async def _poll_wiped(scene: Scene) -> None:
    started = await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)
    scene.sandbox.wipe()
    await scene.api.get_purchase(started.session_id)


async def _inventory_wiped(scene: Scene) -> None:
    await scene.api.get_inventory(scene.user_id)
    scene.sandbox.wipe()
    await scene.api.get_inventory(scene.user_id)


async def _quote_unserviced(scene: Scene) -> None:
    scene.sandbox.options.countries = frozenset({"CA"})
    await scene.quote(country="US")


async def _quote_rejected(scene: Scene) -> None:
    scene.sandbox.options.reject_addresses = 1
    await scene.quote()


async def _quote_unshippable(scene: Scene) -> None:
    scene.sandbox.options.unshippable = {scene.item_id}
    await scene.quote()


async def _ship_late(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.advance(timedelta(minutes=15))
    await scene.api.request_shipping(quote_id)


async def _ship_wiped(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.wipe()
    await scene.api.request_shipping(quote_id)


async def _ship_other_rate(scene: Scene) -> None:
    session_id = (await scene.quote()).partition("_rate_")[0]
    await scene.api.request_shipping(f"{session_id}_rate_teleport")


async def _ship_session(scene: Scene) -> None:
    quotes = await scene.api.quote_shipping([scene.item_id], DESTINATION)
    await scene.api.request_shipping(quotes.session_id)


async def _ship_twice(scene: Scene) -> None:
    first, second = await scene.quote(), await scene.quote()
    await scene.api.request_shipping(first)
    await scene.api.request_shipping(second)


async def _ship_reserved(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.options.fail_shipping = 1
    await scene.api.request_shipping(quote_id)


async def _order_wiped(scene: Scene) -> None:
    order = await scene.api.request_shipping(await scene.quote())
    await scene.api.get_shipping_order(order.order_id)
    scene.sandbox.wipe()
    await scene.api.get_shipping_order(order.order_id)


def _breaking(play: Callable[[Scene], Awaitable[Any]]) -> Callable[[Scene], Awaitable[Any]]:
    async def broken(scene: Scene) -> None:
        scene.sandbox.options.server_errors = 1
        await play(scene)

    return broken


async def _too_often(scene: Scene) -> None:
    scene.sandbox.options.rate_limit = RateLimit(per_second=0.001, burst=1)
    await scene.api.list_packs()
    await scene.api.list_packs()


_STOCK, _AMOUNT = "Claw machine is out of stock", "Amount must be "
_GONE, _FAILED, _COUNTRY = "Item not found", "Transaction failed", "Country not supported"
_BROKEN = "An unexpected error occurred"
SCENES: Final = [
    Case(
        "key",
        lambda s: s.api.list_packs(),
        AuthenticationError,
        401,
        "Invalid API key",
        "list_packs",
        {"api_key": "live"},
    ),
    Case(
        "key-money",
        lambda s: s.api.sell_back(s.item_id),
        AuthenticationError,
        401,
        "Invalid API key",
        "sell_back",
        {"api_key": "live"},
    ),
    Case("limit", _too_often, RateLimited, 429, "Rate limit exceeded", "list_packs"),
    Case("route", lambda s: s.api.list_packs(), NotFound, 404, "", "list_packs", {"path_prefix": "/api/partner/v1"}),
    Case("json", lambda s: s.api.sell_back(s.item_id), ItemNotFound, 400, _GONE, "sell_back", change={"item_id": 5}),
    Case("slug", lambda s: s.api.list_chase_cards("nope"), NotFound, 404, "Pack not found", "list_chase_cards"),
    Case("card", lambda s: s.api.get_card("nope"), CardNotFound, 404, "Card not found", "get_card"),
    Case("user", lambda s: s.api.get_inventory("nope"), UserNotFound, 404, "User not found", "get_inventory"),
    Case("user-wiped", _inventory_wiped, UserNotFound, 404, "User not found", "get_inventory"),
    Case("pack-off", _buy_disabled, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack-sold-out", _buy_sold_out, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack-empty", _buy_empty, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack", lambda s: s.api.start_purchase("nope", 1, "u"), PackNotFound, 400, "VM not found", "start_purchase"),
    Case(
        "pack-slug",
        lambda s: s.api.start_purchase("topps-chrome-2024", 1, "u"),
        PackNotFound,
        400,
        "VM not found",
        "start_purchase",
    ),
    Case(
        "many",
        lambda s: s.api.start_purchase(s.pack_id, 11, "u"),
        AmountOutOfRange,
        400,
        _AMOUNT + "less than or equal to 10",
        "start_purchase",
    ),
    Case(
        "none",
        lambda s: s.api.start_purchase(s.pack_id, 1, "u"),
        AmountOutOfRange,
        400,
        _AMOUNT + "greater than 0",
        "start_purchase",
        change={"amount": 0},
    ),
    Case(
        "no-user",
        lambda s: s.api.start_purchase(s.pack_id, 1, "u"),
        MissingField,
        400,
        "user_id is required",
        "start_purchase",
        change={"user_id": None},
    ),
    Case("session", lambda s: s.api.get_purchase("nope"), TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("session-failed", _poll_failed, TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("session-wiped", _poll_wiped, TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("sell-unknown", lambda s: s.api.sell_back("nope"), ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-sold", _sold, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-locked", _sell_locked, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-wiped", _sell_wiped, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-late", _sell_late, ItemExpired, 400, "Item has expired", "sell_back"),
    Case("sell-failed", _sell_with("fail_sellbacks"), TransactionFailed, 400, _FAILED, "sell_back"),
    Case(
        "sell-busy",
        _sell_with("busy_sellbacks"),
        SellbackInProgress,
        400,
        "Item already has an active buyback session",
        "sell_back",
    ),
    Case(
        "sell-lock",
        _sell_with("lock_sellbacks"),
        SellbackInProgress,
        429,
        "A buyback request for this item is already being processed",
        "sell_back",
    ),
    Case(
        "no-items",
        lambda s: s.quote(),
        MissingField,
        400,
        "item_ids is required",
        "quote_shipping",
        change={"item_ids": []},
    ),
    Case("item", lambda s: s.quote("nope"), ItemNotFound, 400, _GONE, "quote_shipping"),
    Case("item-among", lambda s: s.quote(s.item_id, "nope"), ItemNotFound, 400, _GONE, "quote_shipping"),
    Case(
        "country",
        lambda s: s.quote(),
        CountryNotSupported,
        422,
        _COUNTRY,
        "quote_shipping",
        change={"destination": {"country": "USA"}},
    ),
    Case("country-list", _quote_unserviced, CountryNotSupported, 422, _COUNTRY, "quote_shipping"),
    Case("address", _quote_rejected, AddressRejected, 400, "Invalid destination address", "quote_shipping"),
    Case("unshippable", _quote_unshippable, NothingShippable, 400, "No shippable items in request", "quote_shipping"),
    Case("ship-session", _ship_session, MissingField, 400, "quote_id is required", "request_shipping"),
    Case(
        "ship-unknown",
        lambda s: s.api.request_shipping("q_rate_x"),
        QuoteExpired,
        400,
        "Quote expired",
        "request_shipping",
    ),
    Case("ship-rate", _ship_other_rate, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-late", _ship_late, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-wiped", _ship_wiped, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-twice", _ship_twice, ItemAlreadyShipped, 400, "Item already shipped", "request_shipping"),
    Case(
        "ship-reserved",
        _ship_reserved,
        ShippingRequestFailed,
        200,
        "The order could not be created.",
        "request_shipping",
    ),
    Case(
        "order", lambda s: s.api.get_shipping_order("nope"), OrderNotFound, 404, "Order not found", "get_shipping_order"
    ),
    Case("order-wiped", _order_wiped, OrderNotFound, 404, "Order not found", "get_shipping_order"),
    *(
        Case(f"broken-{name}", _breaking(play), ServerError, 500, text, name, {"retry": ONCE})
        for name, play, text in (
            ("list_recent_pulls", lambda s: s.api.list_recent_pulls(), _BROKEN),
            ("start_purchase", lambda s: s.api.start_purchase(s.pack_id, 1, "u"), "Error during transaction"),
            ("get_inventory", lambda s: s.api.get_inventory(s.user_id), _BROKEN),
            ("sell_back", lambda s: s.api.sell_back(s.item_id), _BROKEN),
            ("quote_shipping", lambda s: s.quote(), "Failed to fetch shippi"),
            ("request_shipping", lambda s: s.api.request_shipping("q_rate_x"), "Failed to create shipping request"),
            ("get_shipping_order", lambda s: s.api.get_shipping_order("x"), _BROKEN),
        )
    ),
]


@frozen
class Engine:
    """A way to reach a sandbox, and the event loop it runs on."""

    name: Literal["memory", "http"]
    loop: Literal["asyncio", "trio"]

    @asynccontextmanager
    async def client(
        self, sandbox: Sandbox, change: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[PhygitalsClient]:
        """Give a client of the sandbox whose bodies are changed on their way."""
        async with AsyncExitStack() as stack:
            in_memory = self.name == "memory"
            url = "http://127.0.0.1:8765" if in_memory else await stack.enter_async_context(serve(sandbox))
            transport: Transport = MemoryTransport(sandbox) if in_memory else AiohttpTransport()
            if change is not None:
                transport = Changing(transport, change)
            given = {"api_key": KEY, "base_url": f"{url}/_", "converter": CONVERTER, **settings}
            yield await stack.enter_async_context(PhygitalsClient(transport, **given))


ENGINES: Final = [Engine("memory", "asyncio"), Engine("memory", "trio"), Engine("http", "asyncio")]


class TestSandbox:
    """The sandbox's refusals, through every engine."""

    @pytest.fixture(params=ENGINES, ids=[f"{engine.name}-{engine.loop}" for engine in ENGINES])
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        """Give each way to reach a sandbox."""
        assert isinstance(request.param, Engine)
        return request.param

    @pytest.fixture
    def anyio_backend(self, engine: Engine) -> str:
        """Run on the engine's event loop."""
        return engine.loop

    @pytest.mark.anyio
    @pytest.mark.parametrize("case", SCENES, ids=[case.name for case in SCENES])
    async def test_each_refusal_lands_in_its_class(self, engine: Engine, case: Case) -> None:
        """What the sandbox refuses arrives in its class, with its text, over memory and over HTTP alike.

        A 500 of a call that moves money or goods is the cause of an `OutcomeUnknown`.
        """
        sandbox = Sandbox(seed=1)
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
        async with engine.client(sandbox, case.change, **case.client) as api:
            with pytest.raises(PhygitalsError) as caught:
                await case.play(Scene(sandbox, api, "user", item.id))
        error = caught.value
        moves = next(o.effect.is_irreversible for o in OPERATIONS if o.name == case.operation)
        assert isinstance(error, OutcomeUnknown) == (moves and case.expected is ServerError)
        assert (error.attempts, error.sent, error.operation) == (1, Sent.YES, case.operation)
        assert_pickles(error)
        refusal = error.__cause__ if isinstance(error, OutcomeUnknown) else error
        assert isinstance(refusal, StatusError)
        assert type(refusal) is case.expected
        assert (refusal.status, refusal.message, refusal.operation) == (case.status, case.message, case.operation)

    @pytest.mark.anyio
    async def test_a_rate_limit_says_how_long_to_wait(self, engine: Engine) -> None:
        """The header arrives, where the sandbox is told to send one."""
        for retry_after in (True, False):
            limit = RateLimit(per_second=0.5, burst=1, retry_after=retry_after)
            # Its time stands still: however slow the machine is, nothing more is allowed.
            sandbox = Sandbox(seed=1, options=SandboxOptions(rate_limit=limit), clock=lambda: NOW)
            async with engine.client(sandbox, retry=ONCE) as api:
                await api.list_packs()
                with pytest.raises(RateLimited) as caught:
                    await api.list_packs()
            assert caught.value.retry_after == (3.0 if retry_after else None)

    @pytest.mark.anyio
    async def test_a_suggestion_arrives_whole(self, engine: Engine) -> None:
        """An address refusal brings details and a destination ready to be quoted."""
        options = SandboxOptions(reject_addresses=1, suggestion={"line1": "1 Rue é", "country": "FR"})
        sandbox = Sandbox(seed=1, options=options)
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        async with engine.client(sandbox) as api:
            with pytest.raises(AddressRejected) as caught:
                await api.quote_shipping([item.id], DESTINATION)
        assert caught.value.details == "The address could not be validated."
        assert caught.value.suggestion == evolve(DESTINATION, line1="1 Rue é", country="FR")
        assert_pickles(caught.value)


def test_every_refusal_of_the_table_is_played() -> None:
    """No class that an operation can raise is left without a scene."""
    played = {(case.operation, case.expected) for case in SCENES}
    assert {(o.name, r.error) for o in OPERATIONS for r in o.refusals} <= played
    texts = {(o.name, r.text.partition("{")[0]) for o in OPERATIONS for r in o.refusals if r.key == "error"}
    missing = {(name, text) for name, text in texts
               if not any(c.operation == name and c.message.startswith(text) for c in SCENES)}  # fmt: skip
    assert missing == set()


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"a": ' + b"[" * 5000, b"item"], ids=["cut", "bytes", "deep", "text"]
)
def test_the_sandbox_refuses_a_body_that_is_no_json(body: bytes) -> None:
    """The client never sends one; a request made by hand is refused, and nothing is done."""
    sandbox = Sandbox(seed=1)
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    answer = sandbox(Request("POST", "https://api.phygitals.com/_/api/v1/vm/buyback", headers, body))
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "Invalid JSON"})
