"""Who owns what: purchases, sellbacks, quotes and orders, and the refusals the vendor documents for them."""

from __future__ import annotations

import base64
import random
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from attrs import define, evolve, field

from phygitals_async._arithmetic import exact
from phygitals_async.models import Content, Item, OrderStatus, ShippingQuote
from phygitals_async.sandbox.catalogue import Listing, PackStock, cents
from phygitals_async.sandbox.options import SandboxOptions
from phygitals_async.sandbox.records import Holding, Order, PurchaseSession, QuoteSession, Refused, Sale, State

SELLBACK_WINDOW: Final = timedelta(days=7)
QUOTE_LIFETIME: Final = timedelta(minutes=15)

_KEPT: Final = 1000
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RATES: Final = (
    ("standard", "USPS", "Ground Advantage", Decimal("5.95"), 3, 5, False),
    ("priority", "USPS", "Priority Mail", Decimal("9.75"), 1, 3, True),
    ("express", "FedEx", "2Day", Decimal("18.50"), 2, 2, True),
)
_STAGES: Final = (
    OrderStatus.QUEUED,
    OrderStatus.PROCESSING,
    OrderStatus.LABEL_CREATED,
    OrderStatus.SHIPPED,
    OrderStatus.DELIVERED,
)


@define
class Ledger:
    """The state machine of section 4, without its HTTP face. Every public method may raise `Refused`.

    Attributes:
        clock: Returns the time now, UTC.
        rng: Draws.
        ids: Makes up ids, none of them twice.
        options: What only production does.
        users: What each user owns, oldest first.
        pulls: What was pulled lately, oldest first.
        sold: What was sold last under each item id.
        sales: What was sold lately, oldest first.
        purchases: All purchases by their session, oldest first.
        orders: All orders by their id, oldest first.
    """

    clock: Callable[[], datetime]
    rng: random.Random
    ids: random.Random
    options: SandboxOptions
    users: dict[str, list[Holding]] = field(factory=dict)
    pulls: deque[Holding] = field(factory=lambda: deque(maxlen=_KEPT))
    sold: dict[str, Holding] = field(factory=dict)
    sales: deque[Sale] = field(factory=lambda: deque(maxlen=_KEPT))
    purchases: dict[str, PurchaseSession] = field(factory=dict)
    orders: dict[str, Order] = field(factory=dict)
    # By user: what they own, shipped, or will own once a pending purchase is fulfilled.
    _claims: defaultdict[str, set[Holding]] = field(factory=lambda: defaultdict(set))
    _holdings: defaultdict[str, list[Holding]] = field(factory=lambda: defaultdict(list))
    _quotes: dict[str, QuoteSession] = field(factory=dict)

    def give(self, user_id: str, item: Item, fmv: Decimal) -> Holding:
        """Make a user own an item, in the place of the one with the same id that they own, if any."""
        for owned in self.users.get(user_id, []):
            if owned.item.id == item.id:
                owned.item, owned.fmv = item, fmv
                return owned
        holding = Holding(user_id, item, fmv)
        self._own(holding)
        return holding

    def find(self, item_id: object) -> Holding | None:
        """Return the oldest holding of an item, the owned before the locked (S7)."""
        holdings = self._holdings.get(item_id, ()) if isinstance(item_id, str) else ()
        return min(holdings, key=lambda holding: holding.state is not State.OWNED, default=None)

    def inventory(self, user_id: str) -> tuple[Item, ...]:
        """Return what a user owns, at live prices."""
        if user_id not in self.users:
            raise Refused(404, "User not found")
        return tuple(evolve(holding.item, buyback_price=self._live_price(holding)) for holding in self.users[user_id])

    def buy(self, stock: PackStock | None, amount: object, user_id: object) -> PurchaseSession:
        """Start a purchase, fulfilled at once unless the options say otherwise (S6)."""
        if not isinstance(user_id, str) or not user_id:
            raise Refused(400, "user_id is required")
        if stock is None:
            raise Refused(400, "VM not found")
        pack = stock.pack
        wanted = _whole(amount)
        if wanted < 1:
            raise Refused(400, "Amount must be greater than 0")
        if wanted > pack.max_per_mint:
            raise Refused(400, f"Amount must be less than or equal to {pack.max_per_mint}")
        drawn = self._draw(stock, wanted, user_id) if pack.purchasable else []
        if not drawn:
            raise Refused(400, "Claw machine is out of stock")
        session = PurchaseSession(
            session_id=str(uuid.UUID(int=self.ids.getrandbits(128), version=4)),
            user_id=user_id,
            holdings=[Holding(user_id, self._item(stock, listing), listing.fmv) for listing in drawn],
            public_id="_" + "".join(self.ids.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=4)),
            tx_hash="sandbox_" + self._base64url(24),
            pack_id=pack.id,
            created_at=self.clock(),
            pending_polls=self.options.pending_polls,
            empty_polls=self.options.empty_polls,
            fails=self.options.fail_purchases,
        )
        self.purchases[session.session_id] = session
        if not session.fails:
            self._claims[user_id].update(session.holdings)
        self._fulfil_if_due(session)
        return session

    def poll(self, session_id: object) -> PurchaseSession | None:
        """Return a purchase, without its cards until it is fulfilled, or None while it is pending (S9)."""
        session = self.purchases.get(session_id) if isinstance(session_id, str) else None
        if session is None:
            raise Refused(400, "Transaction failed")
        if session.pending_polls:
            session.pending_polls -= 1
            self._fulfil_if_due(session)
            return None
        if session.empty_polls:
            session.empty_polls -= 1
            self._fulfil_if_due(session)
            return evolve(session, holdings=[])
        if session.fails:
            raise Refused(400, "Transaction failed")
        return session

    def sell(self, item_id: object) -> Decimal:
        """Sell an item back and return the amount (S13 to S15)."""
        holding = self.find(item_id)
        if holding is None or holding.state is not State.OWNED:
            raise Refused(400, "Item not found")
        if not holding.item.sellback_open(self.clock()):
            raise Refused(400, "Item has expired")
        if self.options.use_up("lock_sellbacks"):
            raise Refused(429, "A buyback request for this item is already being processed")
        if self.options.use_up("busy_sellbacks"):
            raise Refused(400, "Item already has an active buyback session")
        if self.options.use_up("fail_sellbacks"):
            raise Refused(400, "Transaction failed")
        holding.state = State.SOLD
        self.users[holding.user_id].remove(holding)
        self._claims[holding.user_id].remove(holding)
        self._holdings[holding.item.id].remove(holding)
        self.sold[holding.item.id] = holding
        self.sales.append(Sale(holding, self._live_price(holding), self.clock()))
        return self.sales[-1].amount

    def quote(self, item_ids: object, destination: object) -> QuoteSession:
        """Quote shipping for items (S16, S18)."""
        if not isinstance(item_ids, list) or not item_ids:
            raise Refused(400, "item_ids is required")
        address = destination if isinstance(destination, dict) else {}
        country = address.get("country")
        if not isinstance(country, str) or len(country) != 2:
            raise Refused(422, "Country not supported")
        if self.options.countries is not None and country not in self.options.countries:
            raise Refused(422, "Country not supported")
        # A locked item can be quoted: the request is what answers that it is already shipped.
        found = [self.find(item_id) for item_id in item_ids]
        if None in found:
            raise Refused(400, "Item not found")
        # An item named twice ships once.
        holdings = [holding for holding in dict.fromkeys(found) if holding is not None]
        shippable = [holding for holding in holdings if holding.item.id not in self.options.unshippable]
        if not shippable:
            raise Refused(400, "No shippable items in request")
        if self.options.use_up("reject_addresses"):
            more = {} if self.options.suggestion is None else {"suggested": dict(self.options.suggestion)}
            raise Refused(400, "Invalid destination address", details="The address could not be validated.", **more)
        session_id = "quote_" + "".join(self.ids.choices(_CROCKFORD, k=26))
        quotes = [
            ShippingQuote(
                id=f"{session_id}_rate_{key}", carrier=carrier, service=service, amount=amount,
                estimated_days_min=least, estimated_days_max=most, insured=insured,
            )
            for key, carrier, service, amount, least, most, insured in _RATES
        ]  # fmt: skip
        session = QuoteSession(session_id, self.clock() + QUOTE_LIFETIME, shippable, address, quotes)
        self._quotes[session_id] = session
        return session

    def ship(self, quote_id: object) -> Order | None:
        """Turn a quote into an order, or return None for the reserved failure (S17, S19)."""
        if not isinstance(quote_id, str) or "_rate_" not in quote_id:
            raise Refused(400, "quote_id is required")
        session = self._quotes.get(quote_id.partition("_rate_")[0])
        quotes = [] if session is None else [quote for quote in session.quotes if quote.id == quote_id]
        if session is None or not quotes or self.clock() >= session.expires_at:
            raise Refused(400, "Quote expired")
        if any(holding.state is not State.OWNED for holding in session.holdings):
            raise Refused(400, "Item already shipped")
        if self.options.use_up("fail_shipping"):
            return None
        for holding in session.holdings:
            holding.state = State.LOCKED
            self.users[holding.user_id].remove(holding)
        order_id = "order_" + self._base64url(12)
        order = Order(
            order_id, quotes[0], session.holdings, session.destination, self.clock(),
            statuses=self._course(), stage=self.options.order_stage,
        )  # fmt: skip
        self.orders[order_id] = order
        return order

    def order(self, order_id: str) -> Order:
        """Return an order."""
        if order_id not in self.orders:
            raise Refused(404, "Order not found")
        return self.orders[order_id]

    def status_of(self, order: Order) -> OrderStatus:
        """Return where an order stands now (S20)."""
        return order.statuses[self._stages_passed(order)]

    def reached_at(self, order: Order, status: OrderStatus) -> datetime | None:
        """Return when an order came to a status, or None if it has not."""
        if order.stage is None or status not in order.statuses[: self._stages_passed(order) + 1]:
            return None
        return order.created_at + order.stage * order.statuses.index(status)

    def _stages_passed(self, order: Order) -> int:
        passed = 0 if order.stage is None else max(0, (self.clock() - order.created_at) // order.stage)
        return min(passed, len(order.statuses) - 1)

    def _course(self) -> Sequence[OrderStatus]:
        """Return the statuses that an order made now goes through: queued for ever unless the options say otherwise."""
        if self.options.cancel_orders or self.options.fail_orders:
            end = OrderStatus.CANCELLED if self.options.cancel_orders else OrderStatus.FAILED
            return (end,) if self.options.order_stage is None else (OrderStatus.QUEUED, end)
        return _STAGES

    def _draw(self, stock: PackStock, amount: int, user_id: str) -> list[Listing]:
        held = {holding.item.id for holding in self._claims.get(user_id, ())}
        drawn: list[Listing] = []
        for _ in range(amount):
            listing = stock.draw(self.rng, held)
            if listing is None:
                return []
            held.add(listing.id)
            drawn.append(listing)
        return drawn

    def _item(self, stock: PackStock, listing: Listing) -> Item:
        now = self.clock()
        return Item(
            id=listing.id,
            claw_id=stock.pack.id,
            claw_slug=stock.pack.slug,
            buyback_price=stock.price(listing),
            mint_address=listing.mint_address,
            purchased_at=now,
            buyback_expires_at=now + SELLBACK_WINDOW,
            content=Content(listing.metadata, listing.links),
            type=listing.type,
        )

    def _fulfil_if_due(self, session: PurchaseSession) -> None:
        if not (session.pending_polls or session.empty_polls or session.fails):
            for holding in session.holdings:
                self._own(holding)

    def _own(self, holding: Holding) -> None:
        self.users.setdefault(holding.user_id, []).append(holding)
        self._claims[holding.user_id].add(holding)
        self._holdings[holding.item.id].append(holding)
        self.pulls.append(holding)

    def _live_price(self, holding: Holding) -> Decimal:
        price, factor = holding.item.buyback_price, self.options.price_factor
        with exact():
            return price if factor == 1 else cents(price * factor)

    def _base64url(self, size: int) -> str:
        return base64.urlsafe_b64encode(self.ids.randbytes(size)).decode()


def _whole(amount: object) -> int:
    """Return a whole JSON number, also one that is written as 2.0, and 0 for anything else."""
    if isinstance(amount, float) and amount.is_integer():
        return int(amount)
    return amount if isinstance(amount, int) and not isinstance(amount, bool) else 0
