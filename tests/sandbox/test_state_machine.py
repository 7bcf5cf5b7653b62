"""Random moves of several users through the client, beside a model of section 4 that shares no code with the sandbox.

The model learns what was drawn, and the ids that were invented, from the answers. Everything else it predicts.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, TypeVar

import attrs
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from phygitals_async import (
    AmountOutOfRange,
    CardNotFound,
    Destination,
    Inventory,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    MissingField,
    OrderNotFound,
    OrderStatus,
    OutOfStock,
    Pack,
    PackNotFound,
    PhygitalsClient,
    PhygitalsError,
    PurchasedItem,
    QuoteExpired,
    RarityTier,
    Sandbox,
    ShippingOrder,
    ShippingQuotes,
    ShippingRequest,
    StartedPurchase,
    TransactionFailed,
    UserNotFound,
)
from phygitals_async.sandbox import Listing
from phygitals_transports import MemoryTransport

T = TypeVar("T")

# How far back from the newest a session, quote or order is.
BACK: Final = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 1000])
CHOICE: Final = st.integers(0, 11)

USERS: Final = ("ann", "bob", "a/b c|é")
START: Final = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
HOME: Final = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
# What the sheet says a shipping quote and an order come from is simulated; these are the sandbox's rates.
RATES: Final = {
    "standard": ("USPS", "Ground Advantage", Decimal("5.95")),
    "priority": ("USPS", "Priority Mail", Decimal("9.75")),
    "express": ("FedEx", "2Day", Decimal("18.50")),
}


@attrs.frozen
class Offer:
    """A pack as the model knows it: the price in USD that a sellback of each of its cards pays."""

    most: int
    prices: dict[str, Decimal]
    on_sale: bool = True


OFFERS: Final = {
    "small": Offer(3, {f"card-{n}": Decimal(n) * 8 for n in range(1, 5)}),
    "single": Offer(5, {"v1|7|0": Decimal("40.80")}),
    "closed": Offer(5, {"never": Decimal(1)}, on_sale=False),
}
# Every card there is, one of them not to be had.
CARDS: Final = {card: price for offer in OFFERS.values() for card, price in offer.prices.items()}
SLUGS: Final = {"small": "small-slug", "single": None, "closed": None}


def catalogue() -> list[tuple[Pack, list[Listing]]]:
    """Return the packs of `OFFERS` as the sandbox takes them: card values at a fraction of 0.8."""
    tier = RarityTier(id=0, name="Only", weight=Decimal(5))
    return [
        (
            Pack(
                id=name, slug=SLUGS[name], name=name, enable=offer.on_sale, in_stock=True, mint_price=Decimal(10),
                max_per_mint=offer.most, buyback_percent=Decimal("0.8"), rarity_distribution=(tier,),
            ),
            [Listing(id=card, name=f"Card {card}", fmv=price / Decimal("0.8")) for card, price in offer.prices.items()],
        )
        for name, offer in OFFERS.items()
    ]  # fmt: skip


@attrs.define(eq=False)
class Thing:
    """One item of one user, in the model."""

    id: str
    owner: str
    pack: str
    price: Decimal
    bought: datetime
    state: str = "owned"


@attrs.define(eq=False)
class Buying:
    """A purchase, in the model."""

    user: str
    pack: str
    amount: int
    at: datetime
    polls: int
    fails: bool
    things: list[Thing] | None = None


@attrs.define(eq=False)
class Quoted:
    """A quote session, in the model."""

    things: list[Thing]
    expires: datetime


@attrs.define(eq=False)
class Ordered:
    """An order, in the model."""

    things: list[Thing]
    rate: str
    at: datetime


@attrs.define
class World:
    """All that the model remembers, and a wipe forgets."""

    owned: dict[str, list[Thing]] = attrs.field(factory=dict)
    things: list[Thing] = attrs.field(factory=list)
    purchases: dict[str, Buying] = attrs.field(factory=dict)
    quotes: dict[str, Quoted] = attrs.field(factory=dict)
    orders: dict[str, Ordered] = attrs.field(factory=dict)

    def awaited(self, user: str, pack: str) -> int:
        """Return how many cards of a pack a user will get from pending purchases, none of them theirs now."""
        pending = (p for p in self.purchases.values() if p.things is None and not p.fails)
        return sum(p.amount for p in pending if (p.user, p.pack) == (user, pack))

    def meant_by(self, item_id: str) -> Thing | None:
        """Return the oldest holding that an id stands for: of those owned, else of those locked."""
        for state in ("owned", "locked"):
            for thing in self.things:
                if thing.id == item_id and thing.state == state:
                    return thing
        return None


class Market(RuleBasedStateMachine):
    """Several users, few cards: everybody gets into everybody's way."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START
        self.sandbox = Sandbox(clock=lambda: self.time, seed=0)
        self.packs = [pack for pack, _ in catalogue()]
        for pack, listings in catalogue():
            self.sandbox.add_pack(pack, listings)
        self.transport = MemoryTransport(self.sandbox)
        self.api = PhygitalsClient(self.transport, api_key="sandbox-test")
        self.runner = asyncio.Runner()
        self.world = World()
        # Newest first; those that a wipe made stale stay.
        self.sessions, self.quote_ids, self.order_ids = ["unknown"], ["quote_x_rate_standard"], ["order_unknown"]
        self.factor = Decimal(1)
        self.paid = self.earned = Decimal(0)

    def teardown(self) -> None:
        """Close the event loop."""
        self.runner.close()

    def outcome(self, call: Coroutine[Any, Any, T]) -> T | type[PhygitalsError]:
        """Make a call, exactly one request, and return its result, or the class of its refusal."""
        sent = len(self.transport.sent)
        try:
            return self.run(call)
        except PhygitalsError as error:
            return type(error)
        finally:
            assert len(self.transport.sent) == sent + 1

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """Make a call."""
        # Runner.run() would show each result to the signal machinery, which formats it.
        return self.runner.get_loop().run_until_complete(call)

    def choose(self, choice: int) -> str:
        """Return the id of an owned item mostly, else of any that ever was, or of none."""
        owned = [thing.id for thing in self.world.things if thing.state == "owned"]
        others = sorted({thing.id for thing in self.world.things if thing.state != "owned"})
        if choice < 10 and owned:
            return owned[choice % len(owned)]
        return others[choice % len(others)] if choice < 11 and others else "unknown"

    # Purchases

    @initialize()
    def begin(self) -> None:
        """Let everybody own something."""
        for user in USERS:
            self.buy(user, "small", 2)
            self.buy(user, "single", 1)

    @rule(
        user=st.sampled_from(USERS),
        pack=st.sampled_from(["small", "small", "small", "single", "closed", "unknown"]),
        amount=st.sampled_from([1, 1, 1, 2, 2, 3, 4, 6]),
        polls=st.sampled_from([0, 0, 1, 2]),
        fails=st.sampled_from([False, False, False, True]),
        looks=st.integers(0, 2),
    )
    def buy(self, user: str, pack: str, amount: int, polls: int = 0, looks: int = 0, *, fails: bool = False) -> None:
        """Buy, on sale or not, few or too many; it may turn out pending, and may fail."""
        self.sandbox.options.pending_polls = polls
        self.sandbox.options.fail_purchases = fails
        started = self.outcome(self.api.start_purchase(pack, amount, user))
        offer = OFFERS.get(pack)
        if offer is None:
            assert started is PackNotFound
            return
        if amount > offer.most:
            assert started is AmountOutOfRange
            return
        unowned = set(offer.prices) - {t.id for t in self.world.things if t.owner == user and t.state != "sold"}
        if not offer.on_sale or amount > len(unowned) - self.world.awaited(user, pack):
            assert started is OutOfStock
            return
        assert isinstance(started, StartedPurchase)
        buying = Buying(user, pack, amount, self.time, polls, fails)
        assert started.session_id not in self.world.purchases
        self.world.purchases[started.session_id] = buying
        if buying.polls:
            assert started.nfts == ()
        elif not buying.fails:
            assert {item.id for item in started.nfts} <= unowned
            self.learn(buying, started.nfts)
        self.sessions.insert(0, started.session_id)
        for _ in range(looks):
            self.poll(started.session_id)

    def learn(self, buying: Buying, nfts: tuple[PurchasedItem, ...]) -> None:
        """Take what was drawn into the model, and hold everything else shown of it against the pack."""
        offer = OFFERS[buying.pack]
        assert len(nfts) == len({item.id for item in nfts}) == buying.amount
        buying.things = [Thing(n.id, buying.user, buying.pack, offer.prices[n.id], buying.at) for n in nfts]
        self.world.owned.setdefault(buying.user, []).extend(buying.things)
        self.world.things.extend(buying.things)
        self.check_nfts(buying, nfts)

    def check_nfts(self, buying: Buying, nfts: tuple[PurchasedItem, ...]) -> None:
        """Hold the items of a purchase against the model."""
        assert buying.things is not None
        expected = [(thing.id, thing.price, f"Card {thing.id}", thing.id) for thing in buying.things]
        assert [(n.id, n.buyback_price, n.name, n.mint_address) for n in nfts] == expected

    @rule(back=BACK, waits=st.booleans())
    def look_at_a_purchase(self, back: int, *, waits: bool) -> None:
        """Poll a purchase once, or wait for it."""
        session = self.sessions[min(back, len(self.sessions) - 1)]
        if waits:
            self.wait(session)
        else:
            self.poll(session)

    def poll(self, session: str) -> None:
        """Poll a purchase once; when that was its last pending answer, learn what was drawn."""
        purchase = self.outcome(self.api.get_purchase(session))
        buying = self.world.purchases.get(session)
        if buying is not None and buying.polls:
            assert purchase is None
            buying.polls -= 1
            if buying.polls or buying.fails:
                return
            purchase = self.outcome(self.api.get_purchase(session))
        if buying is None or buying.fails:
            assert purchase is TransactionFailed
            return
        self.check_purchase(session, buying, purchase)

    def wait(self, session: str) -> None:
        """Wait for a purchase until it is fulfilled or failed."""
        buying = self.world.purchases.get(session)
        sent = len(self.transport.sent)
        try:
            purchase: object = self.run(self.api.wait_for_purchase(session, interval=0.0001))
        except PhygitalsError as error:
            purchase = type(error)
        assert len(self.transport.sent) == sent + 1 + (buying.polls if buying else 0)
        if buying is not None:
            buying.polls = 0
        if buying is None or buying.fails:
            assert purchase is TransactionFailed
            return
        self.check_purchase(session, buying, purchase)

    def check_purchase(self, session: str, buying: Buying, purchase: Any) -> None:
        """Hold a fulfilled purchase against the model, which learns the items if they are news."""
        assert (purchase.session_id, purchase.user_id) == (session, buying.user)
        if buying.things is None:
            self.learn(buying, purchase.nfts)
        self.check_nfts(buying, purchase.nfts)

    # Sellbacks

    @rule(choice=CHOICE)
    def sell(self, choice: int) -> None:
        """Sell an item back, whosever it is."""
        item_id = self.choose(choice)
        answer = self.outcome(self.api.sell_back(item_id))
        thing = self.world.meant_by(item_id)
        if thing is None or thing.state != "owned":
            assert answer is ItemNotFound
        elif self.time >= thing.bought + timedelta(days=7):
            assert answer is ItemExpired
        else:
            assert not isinstance(answer, type)
            assert answer.success
            thing.state = "sold"
            self.world.owned[thing.owner].remove(thing)
            self.paid += answer.amount
            self.earned += thing.price * self.factor

    # Shipping

    @rule(
        choices=st.lists(CHOICE, min_size=1, max_size=3),
        country=st.sampled_from(["US", "ZZ"]),
        rate=st.sampled_from([*RATES]),
        ships_after=st.sampled_from(
            [None, None, timedelta(0), timedelta(minutes=15) - timedelta(milliseconds=1), timedelta(minutes=15)]
        ),
    )
    def quote(self, choices: list[int], country: str, rate: str, ships_after: timedelta | None) -> None:
        """Ask what it costs to ship some items, and perhaps ship them soon."""
        wanted = [self.choose(choice) for choice in choices]
        answer = self.outcome(self.api.quote_shipping(wanted, attrs.evolve(HOME, country=country)))
        things = [self.world.meant_by(item_id) for item_id in wanted]
        if None in things:
            assert answer is ItemNotFound
            return
        assert isinstance(answer, ShippingQuotes)
        assert answer.expires_at == self.time + timedelta(minutes=15)
        assert answer.session_id not in self.world.quotes
        shown = {q.id: (q.carrier, q.service, q.amount) for q in answer.quotes}
        assert shown == {f"{answer.session_id}_rate_{key}": rate for key, rate in RATES.items()}
        # An item that was named twice is one item.
        distinct = list(dict.fromkeys(thing for thing in things if thing is not None))
        self.world.quotes[answer.session_id] = Quoted(distinct, answer.expires_at)
        self.quote_ids.insert(0, f"{answer.session_id}_rate_{rate}")
        if ships_after is not None:
            self.time += ships_after
            self.ship(0, None)

    @rule(back=BACK, mistake=st.sampled_from([None, None, None, None, None, "session", "rate"]))
    def ship(self, back: int, mistake: str | None) -> None:
        """Order the shipping of a quote: open, expired, used up, or made up."""
        quote_id = self.quote_ids[min(back, len(self.quote_ids) - 1)]
        if mistake == "session":
            quote_id = quote_id.partition("_rate_")[0]
        elif mistake == "rate":
            quote_id += "x"
        answer = self.outcome(self.api.request_shipping(quote_id))
        session, separator, rate = quote_id.partition("_rate_")
        quoted = self.world.quotes.get(session)
        if not separator:
            assert answer is MissingField
        elif quoted is None or rate not in RATES or self.time >= quoted.expires:
            assert answer is QuoteExpired
        elif any(thing.state != "owned" for thing in quoted.things):
            assert answer is ItemAlreadyShipped
        else:
            assert isinstance(answer, ShippingRequest)
            assert answer.order_id not in self.world.orders
            for thing in quoted.things:
                thing.state = "locked"
                self.world.owned[thing.owner].remove(thing)
            self.world.orders[answer.order_id] = Ordered(quoted.things, rate, self.time)
            self.order_ids.insert(0, answer.order_id)

    @precondition(lambda self: len(self.order_ids) > 1)
    @rule(back=BACK)
    def follow(self, back: int) -> None:
        """Look at an order."""
        order_id = self.order_ids[min(back, len(self.order_ids) - 1)]
        answer = self.outcome(self.api.get_shipping_order(order_id))
        ordered = self.world.orders.get(order_id)
        if ordered is None:
            assert answer is OrderNotFound
            return
        assert isinstance(answer, ShippingOrder)
        assert (answer.order_id, answer.status, answer.created_at) == (order_id, OrderStatus.QUEUED, ordered.at)
        assert (answer.carrier, answer.service, answer.amount) == RATES[ordered.rate]
        assert [line.item_id for line in answer.items] == [thing.id for thing in ordered.things]
        assert {answer.tracking_number, answer.tracking_url, answer.error_message} == {None}
        assert {answer.shipped_at, answer.delivered_at} == {None}

    # Looking around

    def look_at_card(self, item_id: str) -> None:
        """Look at a card: a listing is always one, sold or not."""
        answer = self.outcome(self.api.get_card(item_id))
        if item_id not in CARDS:
            assert answer is CardNotFound
        else:
            assert not isinstance(answer, type)
            assert answer.fmv is not None
            assert (answer.id, answer.fmv * Decimal("0.8")) == (item_id, CARDS[item_id])

    @rule(
        item_id=st.sampled_from([*CARDS, "unknown"]),
        packs=st.one_of(st.none(), st.lists(st.sampled_from([*OFFERS, "unknown"]), min_size=1, unique=True)),
    )
    def look_around(self, item_id: str, packs: list[str] | None) -> None:
        """Look at a card and at the feed."""
        self.look_at_card(item_id)
        self.look_at_pulls(packs)

    def look_at_pulls(self, packs: list[str] | None) -> None:
        """The feed holds what anybody pulled, whatever became of it."""
        pulls = self.run(self.api.list_recent_pulls(claw_ids=packs, limit=100))
        expected = [t for t in self.world.things if packs is None or t.pack in packs]
        assert len(expected) <= 100
        cent = Decimal("0.01")
        assert Counter(
            (p.id, p.claw_id, p.claw_slug, p.buyback_price, p.value, p.created_at) for p in pulls
        ) == Counter(
            (t.id, t.pack, SLUGS[t.pack], t.price, (t.price / Decimal("0.85")).quantize(cent, ROUND_HALF_UP), t.bought)
            for t in expected
        )

    # Time and circumstances

    @rule(
        by=st.sampled_from(
            [
                timedelta(milliseconds=1),
                timedelta(milliseconds=1),
                timedelta(minutes=1),
                timedelta(minutes=1),
                timedelta(minutes=15) - timedelta(milliseconds=1),
                timedelta(minutes=15),
                timedelta(days=1),
                timedelta(days=1),
                timedelta(days=7) - timedelta(milliseconds=1),
                timedelta(days=7),
            ]
        ),
        by_clock=st.booleans(),
    )
    def pass_time(self, by: timedelta, *, by_clock: bool) -> None:
        """Move the clock, or the sandbox ahead of it."""
        if by_clock:
            self.time += by
        else:
            # The model's clock is the sandbox's time: put the clock back by what it is put ahead.
            before = self.sandbox.now()
            self.sandbox.advance(by)
            assert self.sandbox.now() == before + by
            self.sandbox.advance(-by)
            self.time += by

    @rule(factor=st.sampled_from(["1", "0.5", "2", "1.25"]))
    def change_prices(self, factor: str) -> None:
        """Let the live prices move."""
        self.factor = self.sandbox.options.price_factor = Decimal(factor)

    @precondition(lambda self: len(self.order_ids) > 4)
    @rule()
    def wipe(self) -> None:
        """Restart the sandbox, now and then."""
        self.sandbox.wipe()
        self.world = World()

    # What holds at all times

    @invariant()
    def inventories_agree(self) -> None:
        """Every user owns exactly what the model says, in its order and at its prices."""
        week = timedelta(days=7)
        for user, shown in self.run(self.look_at_everybody()).items():
            if user not in self.world.owned:
                assert shown is UserNotFound
                continue
            assert not isinstance(shown, type)
            assert shown.user_id == user
            actual = [
                (i.id, i.claw_id, i.claw_slug, i.buyback_price, i.purchased_at, i.buyback_expires_at)
                for i in shown.items
            ]
            assert actual == [
                (t.id, t.pack, SLUGS[t.pack], t.price * self.factor, t.bought, t.bought + week)
                for t in self.world.owned[user]
            ]

    async def look_at_everybody(self) -> dict[str, Inventory | type[PhygitalsError]]:
        """Return each user's inventory, or the class of the refusal."""
        shown: dict[str, Inventory | type[PhygitalsError]] = {}
        for user in USERS:
            try:
                shown[user] = await self.api.get_inventory(user)
            except PhygitalsError as error:
                shown[user] = type(error)
        return shown

    @invariant()
    def money_agrees(self) -> None:
        """What was paid is what the model expected to be paid."""
        assert self.paid == self.earned

    @invariant()
    def packs_stay(self) -> None:
        """The catalogue is read only."""
        assert list(self.sandbox.packs[-len(self.packs) :]) == self.packs


TestMarket = Market.TestCase
TestMarket.settings = settings(
    max_examples=80,
    stateful_step_count=50,
    deadline=None,
    # Explaining a failure takes minutes, and says little of a machine.
    phases=[phase for phase in Phase if phase is not Phase.explain],
)
