"""The JSON of each operation's answer, one method for each, named as the operation is."""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, Final

from attrs import frozen

from phygitals_async._arithmetic import rounded
from phygitals_async.models import (
    Card,
    ChaseCard,
    Content,
    Inventory,
    OrderItem,
    OrderStatus,
    Pull,
    PurchasedItem,
    Sellback,
    ShippingOrder,
    ShippingQuotes,
    ShippingRequest,
)
from phygitals_async.sandbox.catalogue import PackStock, cents
from phygitals_async.sandbox.ledger import Ledger
from phygitals_async.sandbox.records import Holding, Refused

# What the feed computes the value of a synthetic pull with, whatever its pack's fraction (section 4, S23).
_FEED_FRACTION: Final = Decimal("0.85")
# What an order that ends badly says.
_ENDINGS: Final[Mapping[OrderStatus, str]] = {
    OrderStatus.CANCELLED: "The order was cancelled.",
    OrderStatus.FAILED: "The order could not be fulfilled.",
}
_PULLS_DEFAULT, _PULLS_MOST = 20, 100


@frozen(eq=False)
class Answers:
    """Answers operations from packs and a ledger. Every method may raise `Refused`.

    Each takes the decoded segments of its path by name, and the query and the body of the request.
    """

    stocks: Mapping[str, PackStock]
    ledger: Ledger

    def list_packs(self, *, query: Mapping[str, list[str]], **_: Any) -> Any:
        """Show the packs of a platform."""
        platform = query.get("platform", ["mainnet"])[0]
        return [stock.shown for stock in self.stocks.values() if stock.pack.platform in (platform, None)]

    def list_chase_cards(self, slug: str, **_: Any) -> Any:
        """Show the most valuable cards of a pack."""
        for stock in self.stocks.values():
            if stock.pack.slug == slug:
                return [
                    ChaseCard(id=c.id, name=c.name, image=c.image, back_image=c.back_image, fmv=c.fmv)
                    for c in stock.chase()
                ]
        raise Refused(404, "Pack not found")

    def list_recent_pulls(self, *, query: Mapping[str, list[str]], **_: Any) -> Any:
        """Show the latest pulls, values computed as the feed does (S23)."""
        text = query.get("limit", [""])[0]
        number = re.fullmatch(r"(-?)0*([0-9]+)", text)
        limit = _PULLS_DEFAULT
        if number is not None:
            limit = 1 if number[1] else min(max(int(number[2][:9]), 1), _PULLS_MOST)
        claw_ids = query.get("claw_ids")
        holdings = [h for h in reversed(self.ledger.pulls) if claw_ids is None or h.item.claw_id in claw_ids]
        holdings.sort(key=lambda holding: holding.item.purchased_at, reverse=True)
        return [
            Pull(
                id=h.item.id,
                claw_id=h.item.claw_id,
                claw_slug=h.item.claw_slug,
                value=feed_value(h.item.buyback_price),
                buyback_price=h.item.buyback_price,
                created_at=h.item.purchased_at,
                metadata=h.item.content.metadata,
            )
            for h in holdings[:limit]
        ]

    def get_card(self, item_id: str, **_: Any) -> Any:
        """Show a listing, else an item that somebody holds or held."""
        listing = next((found for stock in self.stocks.values() if (found := stock.find(item_id))), None)
        if listing is not None:
            fmv, metadata = listing.fmv, listing.metadata
        else:
            holding = self.ledger.find(item_id) or self.ledger.sold.get(item_id)
            if holding is None:
                raise Refused(404, "Card not found")
            fmv, metadata = holding.fmv, holding.item.content.metadata
        return Card(
            id=item_id, name=metadata.name, image=metadata.image, back_image=metadata.back_image,
            fmv=fmv, metadata=metadata,
        )  # fmt: skip

    def start_purchase(self, *, body: Mapping[str, Any], **_: Any) -> Any:
        """Buy, and show the items at once unless they are pending (S6)."""
        pack_id = body.get("id")
        stock = self.stocks.get(pack_id) if isinstance(pack_id, str) else None
        session = self.ledger.buy(stock, body.get("amount"), body.get("user_id"))
        started: dict[str, Any] = {"session_id": session.session_id}
        # Production shows no items before the purchase is fulfilled.
        if session.pending_polls or session.fails:
            return started
        return {**started, "nfts": [] if session.empty_polls else self._nfts(session.holdings)}

    def get_purchase(self, *, body: Mapping[str, Any], **_: Any) -> Any:
        """Show a purchase."""
        session = self.ledger.poll(body.get("session_id"))
        if session is None:
            return {"status": "pending"}
        result = {
            "session_id": session.session_id,
            "user_id": session.user_id,
            "public_id": session.public_id,
            "nfts": self._nfts(session.holdings),
            "tx_hash": session.tx_hash,
        }
        if not session.holdings and session.empty_polls % 2:
            del result["nfts"]
        return {"result": result}

    def get_inventory(self, user_id: str, **_: Any) -> Any:
        """Show what a user owns."""
        return Inventory(user_id, self.ledger.inventory(user_id))

    def sell_back(self, *, body: Mapping[str, Any], **_: Any) -> Any:
        """Buy an item back."""
        return Sellback(success=True, amount=self.ledger.sell(body.get("item_id")))

    def quote_shipping(self, *, body: Mapping[str, Any], **_: Any) -> Any:
        """Quote shipping."""
        session = self.ledger.quote(body.get("item_ids"), body.get("destination"))
        return ShippingQuotes(
            session_id=session.session_id, expires_at=session.expires_at, quotes=tuple(session.quotes)
        )

    def request_shipping(self, *, body: Mapping[str, Any], **_: Any) -> Any:
        """Make an order of a quote."""
        order = self.ledger.ship(body.get("quote_id"))
        if order is None:
            return {"order_id": None, "status": "error", "error_message": "The order could not be created."}
        return ShippingRequest(order_id=order.order_id, status="success")

    def get_shipping_order(self, order_id: str, **_: Any) -> Any:
        """Show an order, its destination verbatim (S22)."""
        order = self.ledger.order(order_id)
        labelled = self.ledger.reached_at(order, OrderStatus.LABEL_CREATED) is not None
        number = f"9400{zlib.crc32(order_id.encode()):018}" if labelled else None
        status = self.ledger.status_of(order)
        return ShippingOrder(
            order_id=order_id,
            status=status,
            carrier=order.quote.carrier,
            service=order.quote.service,
            tracking_number=number,
            tracking_url=f"https://tools.usps.com/go/TrackConfirmAction?tLabels={number}" if number else None,
            amount=order.quote.amount,
            currency="USD",
            destination=dict(order.destination),
            items=tuple(_order_item(holding) for holding in order.holdings),
            created_at=order.created_at,
            shipped_at=self.ledger.reached_at(order, OrderStatus.SHIPPED),
            delivered_at=self.ledger.reached_at(order, OrderStatus.DELIVERED),
            error_message=_ENDINGS.get(status),
        )

    def _nfts(self, holdings: Collection[Holding]) -> list[PurchasedItem]:
        """Show items as purchases do: without links (S12), and with a null mint address for eBay (S11)."""
        return [
            PurchasedItem(
                id=h.item.id,
                buyback_price=h.item.buyback_price,
                content=Content(h.item.content.metadata),
                type=h.item.type,
                mint_address=h.item.mint_address,
            )
            for h in holdings
        ]


def feed_value(buyback_price: Decimal) -> Decimal:
    """Return the value, in USD, that the feed shows for an item that sells back for `buyback_price` (S23)."""
    with rounded():
        return cents(buyback_price / _FEED_FRACTION)


def _order_item(holding: Holding) -> OrderItem:
    metadata = holding.item.content.metadata
    return OrderItem(item_id=holding.item.id, name=metadata.name, image=metadata.image, back_image=metadata.back_image)
