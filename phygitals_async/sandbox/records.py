"""What a ledger keeps: holdings, purchases, quotes, orders; and the refusals it answers with."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self

from attrs import define, frozen

from phygitals_async.models import Item, OrderStatus, ShippingQuote


class Refused(Exception):
    """The API says no.

    Attributes:
        status: The HTTP status.
        body: The JSON body.
    """

    def __init__(self, status: int, error: str, **more: Any) -> None:
        super().__init__(error)
        self.status = status
        self.body: dict[str, Any] = {"error": error, **more}


class State(enum.Enum):
    """The life cycle of an item (API sheet, section 4)."""

    OWNED = "owned"
    SOLD = "sold"
    LOCKED = "locked"


@define(eq=False)
class Holding:
    """One item of one user. Two of them are never equal: one listing can go to several users (S7)."""

    user_id: str
    item: Item
    fmv: Decimal
    state: State = State.OWNED

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        """Let snapshots of very many be taken in a moment."""
        return type(self), (self.user_id, self.item, self.fmv, self.state)


@define
class PurchaseSession:
    """A purchase under way or fulfilled."""

    session_id: str
    user_id: str
    holdings: list[Holding]
    public_id: str
    tx_hash: str
    pack_id: str
    created_at: datetime
    pending_polls: int
    empty_polls: int
    fails: bool


@frozen(eq=False)
class Sale:
    """An item that was sold back, for `amount` USD."""

    holding: Holding
    amount: Decimal
    sold_at: datetime


@frozen(eq=False)
class QuoteSession:
    """Quotes for some items, until they expire."""

    session_id: str
    expires_at: datetime
    holdings: Sequence[Holding]
    destination: Mapping[str, Any]
    quotes: Sequence[ShippingQuote]


@define
class Order:
    """A shipping order, and how it goes on, which is fixed when it is made.

    Attributes:
        order_id: Its id.
        quote: What was chosen.
        holdings: What it ships.
        destination: Where to, as it was sent.
        created_at: When it was made.
        statuses: The statuses it goes through, in order.
        stage: How long it stays in each but the last; None leaves it in the first.
    """

    order_id: str
    quote: ShippingQuote
    holdings: Sequence[Holding]
    destination: Mapping[str, Any]
    created_at: datetime
    statuses: Sequence[OrderStatus]
    stage: timedelta | None
