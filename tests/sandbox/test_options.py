"""What only production does, switched on in the sandbox, as a client meets it."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import attrs
import pytest

from phygitals_async import (
    AddressRejected,
    AuthenticationError,
    CardNotFound,
    ConfigurationError,
    CountryNotSupported,
    Destination,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    MissingField,
    NothingShippable,
    OrderStatus,
    OutcomeUnknown,
    Pack,
    PhygitalsClient,
    PhygitalsError,
    PurchasePending,
    QuoteExpired,
    RateLimited,
    Request,
    Sandbox,
    SellbackInProgress,
    ServerError,
    ShippingOrder,
    ShippingRequestFailed,
    StatusError,
    TransactionFailed,
    UserNotFound,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Refusal
from phygitals_async.sandbox import RateLimit, SandboxOptions
from phygitals_transports import MemoryTransport
from sandbox_support import ask
from support import ONCE

NOW: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
WEEK: Final = timedelta(days=7)
HOUR: Final = timedelta(hours=1)
HOME: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US", phone="+15125551234")


@attrs.define
class Shop:
    """A sandbox, its time, and a client of it."""

    clock: list[datetime] = attrs.field(factory=lambda: [NOW])
    sandbox: Sandbox = attrs.field(init=False)
    api: PhygitalsClient = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sandbox = Sandbox(clock=lambda: self.clock[0], seed=1)
        self.api = PhygitalsClient(MemoryTransport(self.sandbox), api_key="sandbox-test", retry=ONCE)

    @property
    def options(self) -> SandboxOptions:
        """The sandbox's options."""
        return self.sandbox.options

    @property
    def pack(self) -> Pack:
        """A pack that can be bought."""
        return self.sandbox.packs[0]

    def wait(self, by: timedelta) -> None:
        """Move the injected clock."""
        self.clock[0] += by

    def give(self, price: str = "10.00") -> str:
        """Give the user an item and return its id."""
        return self.sandbox.add_item("user", name="Card", buyback_price=Decimal(price)).id

    async def owned(self, user_id: str = "user") -> list[str]:
        """Return the ids of what a user owns."""
        return [item.id for item in (await self.api.get_inventory(user_id)).items]

    async def order(self, *item_ids: str) -> str:
        """Ship items and return the id of the order."""
        quotes = await self.api.quote_shipping(item_ids, HOME)
        return (await self.api.request_shipping(quotes.quotes[0].id)).order_id


@pytest.fixture
def shop() -> Shop:
    """Return a sandbox on a clock of its own, and its client."""
    return Shop()


def test_options_of_their_own() -> None:
    """By default nothing is switched on, no two sandboxes share options, and those given are used."""
    assert Sandbox().options == SandboxOptions()
    assert Sandbox().options is not Sandbox().options
    assert SandboxOptions().unshippable is not SandboxOptions().unshippable
    options = SandboxOptions(fail_shipping=1)
    assert Sandbox(options=options).options is options


def cents(amount: Decimal) -> Decimal:
    """Round as prices are: half a cent up."""
    return amount.quantize(Decimal("0.01"), ROUND_HALF_UP)


@pytest.mark.anyio
async def test_other_options_take_the_place_of_the_old(shop: Shop) -> None:
    """A new object of options counts everywhere at once, a wipe included, and the old one counts nowhere."""
    old = shop.options
    limit = RateLimit(per_second=0.001, burst=100)
    shop.sandbox.options = new = SandboxOptions(
        fail_sellbacks=1, price_factor=Decimal(2), reject_addresses=1, fail_shipping=1, pending_polls=1,
        order_stage=HOUR, rate_limit=limit, server_errors=1,
    )  # fmt: skip
    old.fail_purchases = True
    assert shop.options is new
    item = shop.give()
    with pytest.raises(ServerError):
        await shop.owned()
    assert (await shop.api.get_inventory("user")).items[0].buyback_price == 20
    with pytest.raises(TransactionFailed):
        await shop.api.sell_back(item)
    with pytest.raises(AddressRejected):
        await shop.order(item)
    with pytest.raises(ShippingRequestFailed):
        await shop.order(item)
    order_id = await shop.order(item)
    shop.wait(HOUR)
    assert (await shop.api.get_shipping_order(order_id)).status == OrderStatus.PROCESSING
    shop.sandbox.wipe()
    assert shop.options is new
    started = await shop.api.start_purchase(shop.pack.id, 1, "user")
    assert await shop.api.get_purchase(started.session_id) is None
    assert await shop.api.get_purchase(started.session_id) is not None
    new.rate_limit = RateLimit(per_second=0.001, burst=1)
    await shop.api.list_packs()
    with pytest.raises(RateLimited):
        await shop.api.list_packs()
    shop.sandbox.options = SandboxOptions()
    # Another client: this one is still pausing.
    async with PhygitalsClient(MemoryTransport(shop.sandbox), api_key="sandbox-test") as api:
        assert await api.list_packs()


@pytest.mark.anyio
async def test_options_survive_a_wipe(shop: Shop) -> None:
    """A wipe forgets what users did, and not how the sandbox was set up."""
    shop.options.lock_sellbacks = 1
    shop.sandbox.wipe()
    shop.options.fail_purchases = True
    item = shop.give()
    with pytest.raises(SellbackInProgress):
        await shop.api.sell_back(item)
    started = await shop.api.start_purchase(shop.pack.id, 1, "buyer")
    with pytest.raises(TransactionFailed):
        await shop.api.get_purchase(started.session_id)


# ---------------------------------------------------------------------------------------------------------
# Purchases


@pytest.mark.anyio
async def test_pending_polls(shop: Shop) -> None:
    """Until it has been polled so often, a purchase shows no items and nobody owns them."""
    shop.options.pending_polls = 2
    started = await shop.api.start_purchase(shop.pack.id, 2, "user")
    assert started.nfts == ()
    for _ in range(2):
        with pytest.raises(UserNotFound):
            await shop.api.get_inventory("user")
        assert await shop.api.list_recent_pulls() == ()
        assert await shop.api.get_purchase(started.session_id) is None
    purchase = await shop.api.get_purchase(started.session_id)
    assert purchase is not None
    assert [item.id for item in purchase.nfts] == await shop.owned()
    assert len(purchase.nfts) == len(await shop.api.list_recent_pulls()) == 2
    assert await shop.api.get_purchase(started.session_id) == purchase
    assert len(await shop.owned()) == 2


@pytest.mark.anyio
async def test_empty_polls(shop: Shop) -> None:
    """After the pending answers there is a result without cards, absent and empty in turn; nobody owns them yet."""
    shop.options.pending_polls, shop.options.empty_polls = 1, 3
    status, started = ask(shop.sandbox, "POST", "/vm/buy/init", {"id": shop.pack.id, "amount": 2, "user_id": "user"})
    assert (status, list(started)) == (200, ["session_id"])
    shown = []
    for _ in range(4):
        with pytest.raises(UserNotFound):
            await shop.api.get_inventory("user")
        shown.append(ask(shop.sandbox, "POST", "/vm/buy/status", started)[1])
    assert shown[0] == {"status": "pending"}
    assert [answer["result"].get("nfts", "absent") for answer in shown[1:]] == [[], "absent", []]
    purchase = await shop.api.get_purchase(started["session_id"])
    assert purchase is not None
    assert [item.id for item in purchase.nfts] == await shop.owned()
    assert len(purchase.nfts) == 2


@pytest.mark.anyio
async def test_empty_polls_alone(shop: Shop) -> None:
    """The start then shows an empty list, as the polls do."""
    shop.options.empty_polls = 1
    status, started = ask(shop.sandbox, "POST", "/vm/buy/init", {"id": shop.pack.id, "amount": 1, "user_id": "user"})
    assert (status, started["nfts"]) == (200, [])
    assert await shop.api.get_purchase(started["session_id"]) is None
    assert await shop.api.get_purchase(started["session_id"]) is not None


@pytest.mark.anyio
async def test_pending_polls_concern_later_purchases(shop: Shop) -> None:
    """Changing the option leaves what was started as it is."""
    shop.options.pending_polls = 1
    first = await shop.api.start_purchase(shop.pack.id, 1, "first")
    shop.options.pending_polls = 0
    second = await shop.api.start_purchase(shop.pack.id, 1, "second")
    assert len(second.nfts) == 1
    assert await shop.api.get_purchase(second.session_id) is not None
    assert await shop.api.get_purchase(first.session_id) is None
    assert await shop.api.get_purchase(first.session_id) is not None


@pytest.mark.anyio
async def test_waiting_for_a_pending_purchase(shop: Shop) -> None:
    """The client's own waiting goes on until it is fulfilled; a deadline ends the waiting, not the purchase."""
    shop.options.pending_polls = 3
    purchase = await shop.api.purchase(shop.pack.id, 1, "user", interval=0.001)
    assert [item.id for item in purchase.nfts] == await shop.owned()
    shop.options.pending_polls = 10**9
    started = await shop.api.start_purchase(shop.pack.id, 1, "user")
    with pytest.raises(PurchasePending) as caught:
        await shop.api.wait_for_purchase(started.session_id, deadline=0.01, interval=0.001)
    assert caught.value.session_id == started.session_id


@pytest.mark.parametrize(("pending_polls", "empty_polls"), [(0, 0), (2, 0), (0, 1), (1, 1)])
@pytest.mark.anyio
async def test_purchases_that_fail(shop: Shop, pending_polls: int, empty_polls: int) -> None:
    """A purchase that fails shows no items, says so for ever after, and leaves nothing behind."""
    shop.options.fail_purchases = True
    shop.options.pending_polls, shop.options.empty_polls = pending_polls, empty_polls
    started = await shop.api.start_purchase(shop.pack.id, 1, "user")
    assert started.nfts == ()
    for _ in range(pending_polls + empty_polls):
        assert await shop.api.get_purchase(started.session_id) is None
    shop.options.fail_purchases = False
    for _ in range(2):
        with pytest.raises(TransactionFailed) as caught:
            await shop.api.get_purchase(started.session_id)
        assert (caught.value.status, caught.value.message) == (400, "Transaction failed")
    with pytest.raises(UserNotFound):
        await shop.api.get_inventory("user")
    assert await shop.api.list_recent_pulls() == ()
    shop.options.pending_polls = shop.options.empty_polls = 0
    assert len((await shop.api.start_purchase(shop.pack.id, 1, "user")).nfts) == 1


# ---------------------------------------------------------------------------------------------------------
# Sellbacks


async def refuse_sellbacks(shop: Shop, name: str, error: type[StatusError], status: int, message: str) -> None:
    """Set a count to 2, and meet the refusal twice, at any item, and then no more."""
    items = [shop.give("3.00"), shop.give("4.00")]
    setattr(shop.options, name, 2)
    with pytest.raises(ItemNotFound):
        await shop.api.sell_back("unknown")
    for item in items:
        with pytest.raises(error) as caught:
            await shop.api.sell_back(item)
        assert (caught.value.status, caught.value.message) == (status, message)
        assert caught.value.attempts == 1
    assert getattr(shop.options, name) == 0
    assert await shop.owned() == items
    assert [(await shop.api.sell_back(item)).amount for item in items] == [3, 4]


@pytest.mark.anyio
async def test_locked_sellbacks(shop: Shop) -> None:
    """The 429 is the lock of an item, and not a rate limit."""
    message = "A buyback request for this item is already being processed"
    await refuse_sellbacks(shop, "lock_sellbacks", SellbackInProgress, 429, message)


@pytest.mark.anyio
async def test_busy_sellbacks(shop: Shop) -> None:
    """The 400 of another active session."""
    message = "Item already has an active buyback session"
    await refuse_sellbacks(shop, "busy_sellbacks", SellbackInProgress, 400, message)


@pytest.mark.anyio
async def test_failing_sellbacks(shop: Shop) -> None:
    """A sellback that fails pays nothing, and the item stays."""
    await refuse_sellbacks(shop, "fail_sellbacks", TransactionFailed, 400, "Transaction failed")


@pytest.mark.parametrize("name", ["lock_sellbacks", "busy_sellbacks", "fail_sellbacks"])
@pytest.mark.anyio
async def test_an_expired_item_uses_no_failure_up(shop: Shop, name: str) -> None:
    """What has expired is refused for that, and the failure waits for a sellback that could have been paid."""
    item = shop.give()
    setattr(shop.options, name, 1)
    shop.wait(WEEK)
    with pytest.raises(ItemExpired):
        await shop.api.sell_back(item)
    assert getattr(shop.options, name) == 1


@pytest.mark.parametrize(
    ("factor", "price", "live"),
    [("0.5", "10.00", "5"), ("2", "10.00", "20"), ("1.111", "10.00", "11.11"), ("1.5", "0.33", "0.5"), ("0", "9", "0")],
)
@pytest.mark.anyio
async def test_live_prices(shop: Shop, factor: str, price: str, live: str) -> None:
    """Inventories and sellbacks follow the live price, in cents; what was shown at the purchase does not."""
    item = shop.give(price)
    started = await shop.api.start_purchase(shop.pack.id, 1, "buyer")
    shop.options.price_factor = Decimal(factor)
    assert [i.buyback_price for i in (await shop.api.get_inventory("user")).items] == [Decimal(live)]
    purchase = await shop.api.get_purchase(started.session_id)
    assert purchase is not None
    assert purchase.nfts == started.nfts
    (bought,) = (await shop.api.get_inventory("buyer")).items
    assert bought.buyback_price == cents(started.nfts[0].buyback_price * Decimal(factor))
    assert (await shop.api.sell_back(item)).amount == Decimal(live)


@pytest.mark.anyio
async def test_live_prices_return(shop: Shop) -> None:
    """The factor changes no item: with 1, the frozen price is back."""
    item = shop.give("9.99")
    before = await shop.api.get_inventory("user")
    shop.options.price_factor = Decimal("1.37")
    assert await shop.api.get_inventory("user") != before
    shop.options.price_factor = Decimal(1)
    assert await shop.api.get_inventory("user") == before
    assert (await shop.api.sell_back(item)).amount == Decimal("9.99")


# ---------------------------------------------------------------------------------------------------------
# Shipping


@pytest.mark.anyio
async def test_an_order_on_its_way(shop: Shop) -> None:
    """It goes from status to status, each as long as the option says, and ends delivered."""
    shop.options.order_stage = HOUR
    order_id = await shop.order(shop.give())
    minute = timedelta(minutes=1)
    made = shop.sandbox.now()
    expected = [
        (timedelta(0), "queued"), (HOUR - minute, "queued"), (minute, "processing"), (HOUR - minute, "processing"),
        (minute, "label_created"), (HOUR - minute, "label_created"), (minute, "shipped"), (HOUR - minute, "shipped"),
        (minute, "delivered"), (timedelta(days=9), "delivered"),
    ]  # fmt: skip
    for by, status in expected:
        shop.wait(by)
        order = await shop.api.get_shipping_order(order_id)
        assert order.status == status
        assert order.created_at == made
        labelled = status in ("label_created", "shipped", "delivered")
        assert (order.tracking_number is not None) == (order.tracking_url is not None) == labelled
        if order.tracking_number is not None:
            assert re.fullmatch(r"\d{22}", order.tracking_number)
            assert order.tracking_url is not None
            assert order.tracking_url.startswith("https://")
            assert order.tracking_url.endswith(order.tracking_number)
        assert order.shipped_at == (made + 3 * HOUR if status in ("shipped", "delivered") else None)
        assert order.delivered_at == (made + 4 * HOUR if status == "delivered" else None)
        assert order.error_message is None
        assert order.status.is_terminal == (status == "delivered")
    assert await shop.owned() == []


@pytest.mark.anyio
async def test_orders_each_have_their_own_time_and_tracking_number(shop: Shop) -> None:
    """The stages of an order count from when it was made."""
    shop.options.order_stage = HOUR
    first = await shop.order(shop.give())
    shop.wait(2 * HOUR)
    second = await shop.order(shop.give())
    shop.wait(2 * HOUR)
    orders = [await shop.api.get_shipping_order(order_id) for order_id in (first, second)]
    assert [order.status for order in orders] == [OrderStatus.DELIVERED, OrderStatus.LABEL_CREATED]
    assert len({order.tracking_number for order in orders}) == 2
    assert (await shop.api.get_shipping_order(first)) == orders[0]


@pytest.mark.anyio
async def test_a_clock_that_was_set_back(shop: Shop) -> None:
    """An order from what is now the future is still queued."""
    shop.options.order_stage = HOUR
    order_id = await shop.order(shop.give())
    shop.wait(-timedelta(seconds=1))
    order = await shop.api.get_shipping_order(order_id)
    assert (order.status, order.tracking_number, order.delivered_at) == (OrderStatus.QUEUED, None, None)


# What makes orders end badly, and what becomes of them.
ENDINGS: Final[list[tuple[dict[str, Any], OrderStatus, str]]] = [
    ({"cancel_orders": True}, OrderStatus.CANCELLED, "The order was cancelled."),
    ({"fail_orders": True}, OrderStatus.FAILED, "The order could not be fulfilled."),
    ({"cancel_orders": True, "fail_orders": True}, OrderStatus.CANCELLED, "The order was cancelled."),
]


async def expect_end(shop: Shop, order_id: str, status: OrderStatus, reason: str) -> None:
    """An order has ended, with a reason, and without a label."""
    order = await shop.api.get_shipping_order(order_id)
    assert (order.status, order.error_message) == (status, reason)
    assert order.status.is_terminal
    gone = (order.tracking_number, order.tracking_url, order.shipped_at, order.delivered_at)
    assert gone == (None, None, None, None)


@pytest.mark.parametrize(("options", "status", "reason"), ENDINGS, ids=lambda value: "-".join(value))
@pytest.mark.anyio
async def test_orders_that_end_badly(shop: Shop, options: dict[str, Any], status: OrderStatus, reason: str) -> None:
    """One is queued for its first stage, then cancelled or failed for good; its items do not come back."""
    shop.sandbox.options = SandboxOptions(order_stage=HOUR, **options)
    order_id = await shop.order(shop.give())
    order = await shop.api.get_shipping_order(order_id)
    assert (order.status, order.error_message) == (OrderStatus.QUEUED, None)
    for by in (HOUR, 10 * HOUR):
        shop.wait(by)
        await expect_end(shop, order_id, status, reason)
    assert await shop.owned() == []


@pytest.mark.parametrize(("options", "status", "reason"), ENDINGS, ids=lambda value: "-".join(value))
@pytest.mark.anyio
async def test_orders_that_end_badly_at_once(
    shop: Shop, options: dict[str, Any], status: OrderStatus, reason: str
) -> None:
    """Without the length of a stage, that is how the order begins."""
    shop.sandbox.options = SandboxOptions(**options)
    await expect_end(shop, await shop.order(shop.give()), status, reason)


@pytest.mark.anyio
async def test_options_move_no_order_that_was_made(shop: Shop) -> None:
    """How an order goes on is fixed when it is made: a terminal one stays as it is, whatever is set later."""
    queued = await shop.order(shop.give())
    shop.options.order_stage = HOUR
    delivered = await shop.order(shop.give())
    shop.options.cancel_orders = True
    cancelled = await shop.order(shop.give())
    shop.options.cancel_orders, shop.options.fail_orders = False, True
    failed = await shop.order(shop.give())
    shop.wait(4 * HOUR)

    async def look() -> list[ShippingOrder]:
        return [await shop.api.get_shipping_order(one) for one in (queued, delivered, cancelled, failed)]

    before = await look()
    assert [order.status for order in before] == ["queued", "delivered", "cancelled", "failed"]
    for later in (
        SandboxOptions(), SandboxOptions(order_stage=WEEK), SandboxOptions(order_stage=HOUR / 2, cancel_orders=True),
        SandboxOptions(fail_orders=True),
    ):  # fmt: skip
        shop.sandbox.options = later
        assert await look() == before


@pytest.mark.parametrize("stage", [timedelta(0), -timedelta(microseconds=1), timedelta(days=-1)])
def test_a_stage_takes_time(stage: timedelta) -> None:
    """No stage at all, and one that ends before it begins, is refused where it is set, and nothing is changed."""
    with pytest.raises(
        ValueError, match=r"^order_stage must be a timedelta longer than 0, or None .*, not (-1 day, .*|0:00:00)$"
    ):
        SandboxOptions(order_stage=stage)
    options = SandboxOptions(order_stage=HOUR)
    with pytest.raises(ValueError, match="order_stage must be a timedelta longer than 0"):
        options.order_stage = stage
    assert options.order_stage == HOUR
    options.order_stage = None
    options.order_stage = timedelta(microseconds=1)


@pytest.mark.anyio
async def test_a_stage_of_any_length(shop: Shop) -> None:
    """An order whose stages end after all time is an order that stays queued."""
    shop.options.order_stage = timedelta.max
    order_id = await shop.order(shop.give())
    shop.wait(WEEK)
    order = await shop.api.get_shipping_order(order_id)
    assert (order.status, order.delivered_at) == (OrderStatus.QUEUED, None)


@pytest.mark.anyio
async def test_watching_an_order(shop: Shop) -> None:
    """The client's watching sees each status, up to the terminal one."""
    shop.options.order_stage = HOUR
    order_id = await shop.order(shop.give())
    seen = []
    async for order in shop.api.watch_order(order_id, interval=0.001):
        seen.append(order.status)
        shop.wait(HOUR)
    assert seen == ["queued", "processing", "label_created", "shipped", "delivered"]


@pytest.mark.anyio
async def test_countries_that_are_serviced(shop: Shop) -> None:
    """With an allow-list, a country that is not on it is refused as one that is no country at all."""
    shop.options.countries = frozenset({"US", "CA"})
    item = shop.give()
    for country in ("US", "CA"):
        assert (await shop.api.quote_shipping([item], attrs.evolve(HOME, country=country))).quotes
    for country in ("ZZ", "us", "DE"):
        with pytest.raises(CountryNotSupported):
            await shop.api.quote_shipping([item], attrs.evolve(HOME, country=country))
    shop.options.countries = frozenset()
    with pytest.raises(CountryNotSupported):
        await shop.api.quote_shipping([item], HOME)


@pytest.mark.parametrize(
    ("suggestion", "suggested"),
    [
        (None, None),
        ({}, HOME),
        ({"line1": "1 Oak St", "postal_code": "78701"}, attrs.evolve(HOME, line1="1 Oak St", postal_code="78701")),
        ({"zip": "78701", "city": "Dallas", "state": None}, attrs.evolve(HOME, city="Dallas")),
    ],
    ids=["none", "empty", "parts", "unknown parts"],
)  # fmt: skip
@pytest.mark.anyio
async def test_rejected_addresses(shop: Shop, suggestion: dict[str, Any] | None, suggested: Destination | None) -> None:
    """So many quotes are refused, with the suggestion laid over what was sent, which then can be quoted."""
    shop.options.reject_addresses = 2
    shop.options.suggestion = suggestion
    item = shop.give()
    for _ in range(2):
        with pytest.raises(AddressRejected) as caught:
            await shop.api.quote_shipping([item], HOME)
        assert (caught.value.status, caught.value.message) == (400, "Invalid destination address")
        assert caught.value.details == "The address could not be validated."
        assert caught.value.suggestion == suggested
    assert (await shop.api.quote_shipping([item], suggested or HOME)).quotes
    assert shop.options.reject_addresses == 0


@pytest.mark.anyio
async def test_failing_shipping_requests(shop: Shop) -> None:
    """The reserved failure makes no order: the items stay, and the same quote works afterwards."""
    shop.options.fail_shipping = 2
    item = shop.give()
    quotes = await shop.api.quote_shipping([item], HOME)
    for _ in range(2):
        with pytest.raises(ShippingRequestFailed) as caught:
            await shop.api.request_shipping(quotes.quotes[0].id)
        assert (caught.value.status, caught.value.message) == (200, "The order could not be created.")
        assert await shop.owned() == [item]
    await shop.api.request_shipping(quotes.quotes[0].id)
    assert await shop.owned() == []


@pytest.mark.anyio
async def test_a_refused_shipping_request_uses_no_failure_up(shop: Shop) -> None:
    """The reserved failure waits for a request that would have made an order."""
    shop.options.fail_shipping = 1
    item, late = shop.give(), shop.give()
    expired = await shop.api.quote_shipping([late], HOME)
    shop.wait(timedelta(minutes=15))
    quotes = await shop.api.quote_shipping([item], HOME)
    again = await shop.api.quote_shipping([item], HOME)
    for quote_id, error in (("x", MissingField), ("x_rate_x", QuoteExpired), (expired.quotes[0].id, QuoteExpired)):
        with pytest.raises(error):
            await shop.api.request_shipping(quote_id)
        assert shop.options.fail_shipping == 1
    shop.options.fail_shipping = 0
    await shop.api.request_shipping(quotes.quotes[0].id)
    shop.options.fail_shipping = 1
    with pytest.raises(ItemAlreadyShipped):
        await shop.api.request_shipping(again.quotes[0].id)
    assert shop.options.fail_shipping == 1
    with pytest.raises(ShippingRequestFailed):
        await shop.order(late)
    assert shop.options.fail_shipping == 0


@pytest.mark.anyio
async def test_a_refused_quote_uses_no_rejection_up(shop: Shop) -> None:
    """The rejection of an address waits for a quote that would have been given."""
    shop.options.reject_addresses = 1
    shop.options.countries = frozenset({"US"})
    item, kept = shop.give(), shop.give()
    shop.options.unshippable.add(kept)
    for items, country, error in (
        ([item, "unknown"], "US", ItemNotFound), ([item], "ZZ", CountryNotSupported), ([kept], "US", NothingShippable),
    ):  # fmt: skip
        with pytest.raises(error):
            await shop.api.quote_shipping(items, attrs.evolve(HOME, country=country))
        assert shop.options.reject_addresses == 1
    with pytest.raises(AddressRejected):
        await shop.api.quote_shipping([item], HOME)
    assert shop.options.reject_addresses == 0


# ---------------------------------------------------------------------------------------------------------
# Server errors


@pytest.mark.anyio
async def test_server_errors_of_reads(shop: Shop) -> None:
    """So many reads answer the 500 of their operation; what has none documented is answered, and counts nothing."""
    api, order_id = shop.api, await shop.order(shop.give())
    item = shop.give()
    shop.options.server_errors = 4
    reads: list[tuple[Awaitable[object], str]] = [
        (api.list_recent_pulls(), "An unexpected error occurred"),
        (api.get_inventory("user"), "An unexpected error occurred"),
        (api.quote_shipping([item], HOME), "Failed to fetch shippi"),
        (api.get_shipping_order(order_id), "An unexpected error occurred"),
    ]
    for number, (call, message) in enumerate(reads):
        assert await api.list_packs()
        assert await api.list_chase_cards(shop.pack.slug or "")
        assert (await api.get_card(item)).id == item
        with pytest.raises(TransactionFailed):
            await api.get_purchase("unknown")
        with pytest.raises(ServerError) as caught:
            await call
        assert (caught.value.status, caught.value.message) == (500, message)
        assert shop.options.server_errors == 3 - number
    assert await shop.owned() == [item]


@pytest.mark.anyio
async def test_server_errors_leave_outcomes_unknown(shop: Shop) -> None:
    """A call that moves money or goods meets `OutcomeUnknown`; here nothing was done, and the next one acts."""
    item = shop.give()
    quotes = await shop.api.quote_shipping([item], HOME)
    moves: list[tuple[Callable[[], Awaitable[object]], str]] = [
        (lambda: shop.api.start_purchase(shop.pack.id, 1, "buyer"), "Error during transaction"),
        (lambda: shop.api.sell_back(item), "An unexpected error occurred"),
        (lambda: shop.api.request_shipping(quotes.quotes[0].id), "Failed to create shipping request"),
    ]
    for call, message in moves:
        shop.options.server_errors = 1
        with pytest.raises(OutcomeUnknown) as caught:
            await call()
        cause = caught.value.__cause__
        assert isinstance(cause, ServerError)
        assert (cause.status, cause.message) == (500, message)
    with pytest.raises(UserNotFound):
        await shop.owned("buyer")
    assert await shop.owned() == [item]
    assert len((await shop.api.start_purchase(shop.pack.id, 1, "buyer")).nfts) == 1
    await shop.api.request_shipping(quotes.quotes[0].id)
    assert await shop.owned() == []


@pytest.mark.anyio
async def test_a_wrong_key_uses_no_server_error_up(shop: Shop) -> None:
    """A request that is refused before its operation is known does not count."""
    shop.options.server_errors = 1
    stranger = PhygitalsClient(MemoryTransport(shop.sandbox), api_key="live", base_url="http://127.0.0.1/_")
    with pytest.raises(AuthenticationError):
        await stranger.get_inventory("user")
    assert shop.options.server_errors == 1


@pytest.mark.anyio
async def test_items_that_cannot_be_shipped(shop: Shop) -> None:
    """They are left out of an order; a quote of nothing else is refused."""
    first, second, third = (shop.give() for _ in range(3))
    shop.options.unshippable |= {first, third}
    with pytest.raises(NothingShippable) as caught:
        await shop.api.quote_shipping([first, third], HOME)
    assert (caught.value.status, caught.value.message) == (400, "No shippable items in request")
    order = await shop.api.get_shipping_order(await shop.order(first, second, third))
    assert [line.item_id for line in order.items] == [second]
    assert await shop.owned() == [first, third]
    assert (await shop.api.sell_back(first)).amount == 10


# ---------------------------------------------------------------------------------------------------------
# What is no option


_LIMIT: Final = RateLimit(5)


@pytest.mark.parametrize(
    ("name", "wrong", "text"),
    [
        ("rate_limit", 5, "a RateLimit, such as RateLimit(per_second=5), not 5"),
        ("server_errors", "x", "a whole number of at least 0, not 'x'"),
        ("server_errors", -1, ", not -1"),
        ("fail_shipping", True, ", not True"),
        ("pending_polls", 1.0, ", not 1.0"),
        ("fail_purchases", 1, "a bool, not 1"),
        ("price_factor", 0.9, "a Decimal, such as Decimal('0.9'), not 0.9"),
        ("order_stage", 60, "a timedelta longer than 0, or None to keep orders queued, not 60"),
        ("countries", "US", "a set of countries, or None for any, not 'US'"),
        ("suggestion", "1 Main St", "a dict of the parts of an address, or None, not a text"),
        ("unshippable", None, "a set of item ids, not None"),
    ],
)
def test_an_option_of_another_kind_is_refused_at_once(name: str, wrong: Any, text: str) -> None:
    """Where it is set, and not at some later request."""
    options = SandboxOptions()
    for attempt in (lambda: SandboxOptions(**{name: wrong}), lambda: setattr(options, name, wrong)):
        with pytest.raises(ConfigurationError) as caught:
            attempt()
        assert str(caught.value).startswith(f"{name} must be ")
        assert str(caught.value).endswith(text)
    assert options == SandboxOptions()


def test_a_limit_of_another_kind_is_refused_at_once() -> None:
    """And so are options that are none."""
    limits: tuple[dict[str, Any], ...] = ({"per_second": "5"}, {"per_second": True}, {"per_second": 5, "burst": "5"})
    for wrong in limits:
        with pytest.raises(ConfigurationError, match="must be"):
            RateLimit(**wrong)
    with pytest.raises(ConfigurationError, match=r"^retry_after must be a bool, not 3$"):
        RateLimit(5, retry_after=3)  # type: ignore[arg-type]  # Wrong on purpose.
    with pytest.raises(ConfigurationError, match=r"^options must be SandboxOptions\(\.\.\.\), not a RateLimit$"):
        Sandbox(options=_LIMIT)  # type: ignore[arg-type]  # Wrong on purpose.
    sandbox = Sandbox()
    with pytest.raises(ConfigurationError, match="not a RateLimit"):
        sandbox.options = _LIMIT  # type: ignore[assignment]  # Wrong on purpose.


# The rate limit


@pytest.mark.parametrize("per_second", [0, -1, -0.5, float("nan"), float("inf")])
def test_a_rate_is_a_rate(per_second: float) -> None:
    """What is no number of requests per second is refused where the limit is made."""
    with pytest.raises(ValueError, match=f"per_second must be above 0 and finite, not {per_second}"):
        RateLimit(per_second)
    with pytest.raises(ValueError, match="per_second"):
        RateLimit(per_second, burst=1)


@pytest.mark.parametrize("burst", [0, 0.999, -1, float("nan")])
def test_a_burst_is_at_least_one_request(burst: float) -> None:
    """A bucket that never holds a whole token would refuse everything for ever."""
    with pytest.raises(ValueError, match=f"burst must be at least 1, not {burst}"):
        RateLimit(5, burst=burst)
    assert (RateLimit(0.5).burst, RateLimit(7).burst, RateLimit(7, burst=1).burst) == (1, 7, 1)


async def knock(shop: Shop) -> RateLimited | None:
    """Make one request, and return None if it was answered, or the refusal of the rate limit.

    A client pauses the calls of an operation that was refused: here is a new client.
    """
    api = PhygitalsClient(MemoryTransport(shop.sandbox), api_key="sandbox-test", retry=ONCE)
    with pytest.raises((CardNotFound, RateLimited)) as caught:
        await api.get_card("unknown")
    if isinstance(caught.value, CardNotFound):
        return None
    assert isinstance(caught.value, RateLimited)
    assert (caught.value.status, caught.value.message, caught.value.attempts) == (429, "Rate limit exceeded", 1)
    return caught.value


@pytest.mark.anyio
async def test_rate_limit_with_retry_after(shop: Shop) -> None:
    """A burst is answered, then each request is refused until the seconds it names have passed."""
    shop.options.rate_limit = RateLimit(per_second=0.1, burst=3)
    assert [await knock(shop) for _ in range(3)] == [None, None, None]
    for left in (10, 6, 1):
        refused = await knock(shop)
        assert refused is not None
        # Whole seconds, and enough of them.
        assert refused.retry_after is not None
        assert left <= refused.retry_after <= left + 1
        assert refused.retry_after == int(refused.retry_after)
        shop.wait(timedelta(seconds={10: 4, 6: 5, 1: refused.retry_after}[left]))
    assert await knock(shop) is None
    assert await knock(shop) is not None


@pytest.mark.anyio
async def test_rate_limit_without_retry_after(shop: Shop) -> None:
    """The refusal need not say how long to wait; requests are answered again all the same, and no sooner."""
    shop.options.rate_limit = RateLimit(per_second=2, burst=1, retry_after=False)
    assert await knock(shop) is None
    refused = await knock(shop)
    assert refused is not None
    assert refused.retry_after is None
    shop.wait(timedelta(seconds=0.499))
    assert await knock(shop) is not None
    shop.wait(timedelta(seconds=0.001))
    assert await knock(shop) is None
    assert await knock(shop) is not None


@pytest.mark.anyio
async def test_rate_limit_saves_up_no_more_than_a_burst(shop: Shop) -> None:
    """After any time, a burst is answered at once, and not one request more; a clock set back gives nothing."""
    shop.options.rate_limit = RateLimit(per_second=5, burst=4)
    for by in (timedelta(0), timedelta(days=1)):
        shop.wait(by)
        assert [await knock(shop) is None for _ in range(5)] == [True] * 4 + [False]
    shop.wait(-timedelta(hours=1))
    assert await knock(shop) is not None


@pytest.mark.parametrize("key", ["sandbox-test", "stranger", ""])
def test_rate_limit_is_in_front_of_everything(shop: Shop, key: str) -> None:
    """Every operation is refused alike, a wrong key and an unknown route included, and nothing happens."""
    shop.options.rate_limit = RateLimit(per_second=0.001, burst=1)
    item = shop.give()
    headers = {"X-API-Key": key, "Content-Type": "application/json"}
    root = "https://api.phygitals.com/_/api/v1"
    assert shop.sandbox(Request("GET", f"{root}/vm/available", headers)).status in (200, 401)
    body = json.dumps({"item_id": item, "id": shop.pack.id, "amount": 1, "user_id": "buyer"}).encode()
    routes = [(operation.method, operation.path.replace("{", "").replace("}", "")) for operation in OPERATIONS]
    for method, path in [*routes, ("GET", "/unknown")]:
        answer = shop.sandbox(Request(method, root + path, headers, body))
        assert (answer.status, json.loads(answer.body)) == (429, {"error": "Rate limit exceeded"})
        assert int(answer.headers["retry-after"]) >= 1000
    shop.options.rate_limit = None
    headers["X-API-Key"] = "sandbox-test"
    assert json.loads(shop.sandbox(Request("GET", f"{root}/inventory/user", headers)).body)["items"][0]["id"] == item
    assert shop.sandbox(Request("GET", f"{root}/inventory/buyer", headers)).status == 404


@pytest.mark.anyio
async def test_rate_limit_anew(shop: Shop) -> None:
    """Another limit starts with a full burst, even an equal one; None lifts it."""
    for _ in range(2):
        shop.options.rate_limit = RateLimit(per_second=0.001, burst=2)
        assert [await knock(shop) is None for _ in range(3)] == [True, True, False]
    shop.options.rate_limit = None
    assert [await knock(shop) for _ in range(30)] == [None] * 30


# ---------------------------------------------------------------------------------------------------------
# Together


@pytest.mark.anyio
async def test_every_refusal_of_the_declarations_can_be_met(shop: Shop) -> None:
    """Each refusal that the library knows of has a way to meet it in the sandbox, so an application can test it."""
    api, options = shop.api, shop.options
    met: set[tuple[str, type[PhygitalsError], str]] = set()

    async def meet(name: str, call: Awaitable[object]) -> None:
        with pytest.raises((StatusError, OutcomeUnknown)) as caught:
            await call
        refusal = caught.value.__cause__ if isinstance(caught.value, OutcomeUnknown) else caught.value
        assert isinstance(refusal, StatusError)
        met.add((name, type(refusal), refusal.message))

    quotes = await api.quote_shipping([shop.give()], HOME)
    expired = await api.quote_shipping([shop.give()], HOME)
    await api.request_shipping(quotes.quotes[0].id)
    await meet("get_card", api.get_card("x"))
    await meet("start_purchase", api.start_purchase(shop.sandbox.packs[2].id, 1, "u"))
    await meet("start_purchase", api.start_purchase(shop.pack.id, shop.pack.max_per_mint + 1, "u"))
    await meet("start_purchase", api.start_purchase("x", 1, "u"))
    await meet("get_purchase", api.get_purchase("x"))
    await meet("get_inventory", api.get_inventory("nobody"))
    await meet("sell_back", api.sell_back("x"))
    for name in ("lock_sellbacks", "busy_sellbacks", "fail_sellbacks"):
        setattr(options, name, 1)
        await meet("sell_back", api.sell_back(shop.give()))
    options.reject_addresses = 1
    await meet("quote_shipping", api.quote_shipping([shop.give()], HOME))
    await meet("quote_shipping", api.quote_shipping(["x"], HOME))
    options.countries = frozenset({"US"})
    await meet("quote_shipping", api.quote_shipping([shop.give()], attrs.evolve(HOME, country="ZZ")))
    options.unshippable.add(item := shop.give())
    await meet("quote_shipping", api.quote_shipping([item], HOME))
    await meet("request_shipping", api.request_shipping("x"))
    await meet("request_shipping", api.request_shipping(quotes.quotes[0].id))
    options.fail_shipping = 1
    await meet("request_shipping", shop.order(shop.give()))
    options.server_errors = 7
    await meet("list_recent_pulls", api.list_recent_pulls())
    await meet("start_purchase", api.start_purchase(shop.pack.id, 1, "u"))
    await meet("get_inventory", api.get_inventory("user"))
    await meet("sell_back", api.sell_back("x"))
    await meet("quote_shipping", api.quote_shipping(["x"], HOME))
    await meet("request_shipping", api.request_shipping("x"))
    await meet("get_shipping_order", api.get_shipping_order("x"))
    late = shop.give()
    shop.wait(WEEK)
    await meet("sell_back", api.sell_back(late))
    await meet("request_shipping", api.request_shipping(expired.quotes[0].id))
    await meet("get_shipping_order", api.get_shipping_order("x"))

    # The client itself refuses what would leave these fields out; test_sandbox_rules.py meets them without it.
    refused_before = {"Amount must be greater than 0", "user_id is required", "item_ids is required"}
    unmet = [
        (operation.name, refusal.text)
        for operation in OPERATIONS
        for refusal in operation.refusals
        if refusal.text not in refused_before and not any(is_met(operation.name, refusal, one) for one in met)
    ]
    assert unmet == []


def is_met(operation: str, refusal: Refusal, met: tuple[str, type[PhygitalsError], str]) -> bool:
    """Whether an error that was met is the refusal."""
    name, error, message = met
    said = refusal.key != "error" or message.startswith(refusal.text.partition("{")[0])
    return name == operation and error is refusal.error and said
