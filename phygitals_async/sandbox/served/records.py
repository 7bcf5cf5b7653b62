"""What a served sandbox holds: users, items, and what became of them, one method for each route."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC
from decimal import Decimal
from itertools import islice
from typing import Any, Final, TypeVar

from phygitals_async._arithmetic import exact
from phygitals_async._structuring.converter import build_converter
from phygitals_async.models import Attribute, ItemSource
from phygitals_async.sandbox.records import Holding, Order, PurchaseSession, Refused
from phygitals_async.sandbox.sandbox import Sandbox
from phygitals_async.sandbox.served import bodies

T = TypeVar("T")

# Times the largest factor, it is still an amount.
_MOST_PRICE: Final = 10**9


class Records:
    """Shows what a sandbox holds, and gives users and items to it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._converter = build_converter()

    def list_users(self, *, query: bodies.Page) -> list[bodies.UserRow]:
        """List users, those first who were known first."""
        users = self._sandbox.ledger.users
        found = (user_id for user_id in users if query.search in user_id)
        return [
            bodies.UserRow(user_id=user_id, items=len(users[user_id]), value=_value(users[user_id]))
            for user_id in islice(found, query.start, query.start + query.limit)
        ]

    def add_user(self, *, body: bodies.NewUser) -> bodies.UserRow:
        """Make a user known, owning nothing; a known one keeps what they own."""
        self._sandbox.add_user(body.user_id)
        owned = self._sandbox.ledger.users[body.user_id]
        return bodies.UserRow(user_id=body.user_id, items=len(owned), value=_value(owned))

    def list_items(self, user_id: str) -> list[dict[str, Any]]:
        """List what a user owns, as an inventory shows it."""
        plain: list[dict[str, Any]] = self._converter.unstructure(list(self._sandbox.ledger.inventory(user_id)))
        return plain

    def add_item(self, user_id: str, *, body: bodies.NewItem) -> dict[str, Any]:
        """Give a user an item; one whose time to be sold back has passed was pulled 8 days ago."""
        bodies.checked("buyback_price", body.buyback_price, _MOST_PRICE)
        if any(owned.item.id == body.id for owned in self._sandbox.ledger.users.get(user_id, ())):
            raise Refused(409, f"{user_id} owns an item {body.id} already")
        item = self._sandbox.add_item(
            user_id,
            name=body.name,
            buyback_price=body.buyback_price,
            id=body.id,
            type=None if body.type is None else ItemSource(body.type),
            claw_id=body.claw_id,
            purchased_at=None if body.purchased_at is None else body.purchased_at.astimezone(UTC),
            attributes=tuple(Attribute(fact.trait_type, fact.value) for fact in body.attributes),
        )
        plain: dict[str, Any] = self._converter.unstructure(item)
        return plain

    def list_purchases(self, *, query: bodies.Page) -> list[bodies.PurchaseRow]:
        """List purchases, the latest first; the search is for a user's id."""
        found = (each for each in reversed(self._sandbox.ledger.purchases.values()) if query.search in each.user_id)
        return [_purchase(session) for session in _page(found, query)]

    def list_sellbacks(self, *, query: bodies.Page) -> list[bodies.SellbackRow]:
        """List the last thousand sellbacks, the latest first; the search is for a user's id."""
        found = (sale for sale in reversed(self._sandbox.ledger.sales) if query.search in sale.holding.user_id)
        return [
            bodies.SellbackRow(
                item_id=sale.holding.item.id,
                name=sale.holding.item.name,
                user_id=sale.holding.user_id,
                amount=sale.amount,
                sold_at=sale.sold_at,
            )
            for sale in _page(found, query)
        ]

    def list_orders(self, *, query: bodies.Page) -> list[bodies.OrderRow]:
        """List shipping orders, the latest first; the search is for a user's id."""
        orders = reversed(self._sandbox.ledger.orders.values())
        found = (order for order in orders if any(query.search in holding.user_id for holding in order.holdings))
        return [self._order(order) for order in _page(found, query)]

    def _order(self, order: Order) -> bodies.OrderRow:
        return bodies.OrderRow(
            order_id=order.order_id,
            status=self._sandbox.ledger.status_of(order).value,
            carrier=order.quote.carrier,
            service=order.quote.service,
            amount=order.quote.amount,
            created_at=order.created_at,
            user_ids=list(dict.fromkeys(holding.user_id for holding in order.holdings)),
            item_ids=[holding.item.id for holding in order.holdings],
            destination=dict(order.destination),
        )


def _purchase(session: PurchaseSession) -> bodies.PurchaseRow:
    is_pending = bool(session.pending_polls or session.empty_polls)
    return bodies.PurchaseRow(
        session_id=session.session_id,
        user_id=session.user_id,
        pack_id=session.pack_id,
        created_at=session.created_at,
        status="pending" if is_pending else "failed" if session.fails else "fulfilled",
        item_ids=[holding.item.id for holding in session.holdings],
    )


def _page(found: Iterable[T], query: bodies.Page) -> list[T]:
    return list(islice(found, query.start, query.start + query.limit))


def _value(owned: Sequence[Holding]) -> Decimal:
    with exact():
        return sum((holding.item.buyback_price for holding in owned), Decimal(0))
