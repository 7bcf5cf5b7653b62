"""Shipping: destinations, quotes and orders (API sheet, sections 2.9 to 2.11)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import attrs
from attrs import field, frozen

from phygitals_async.models.fields import NULLABLE, ROWS, OpenEnum, instant, number, optional_number
from phygitals_async.models.rows import Unreadable


@frozen(kw_only=True)
class Destination:
    """A postal address to ship to.

    Attributes:
        name: The recipient.
        line1: Street and number.
        line2: Apartment, floor.
        city: City.
        state: State or province code.
        postal_code: Postal code.
        country: Two-letter country code.
        phone: For the carrier.
        email: For the carrier.
    """

    name: str
    line1: str
    line2: str | None = None
    city: str
    state: str | None = None
    postal_code: str | None = None
    country: str
    phone: str | None = None
    email: str | None = None

    def parts(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and the text of each part that is given, or that has to be."""
        for a in attrs.fields(Destination):
            text = getattr(self, a.name)
            if text is not None or a.default is attrs.NOTHING:
                yield a.name, text

    def merged(self, parts: Mapping[str, object]) -> Destination:
        """Return this destination with the known, textual ones of `parts` laid over it."""
        names = {a.name for a in attrs.fields(Destination)}
        return attrs.evolve(self, **{name: v for name, v in parts.items() if name in names and isinstance(v, str)})


@frozen(kw_only=True)
class ShippingQuote:
    """One way to ship, with its price.

    Attributes:
        id: What `request_shipping` takes.
        carrier: Such as USPS.
        service: Such as Priority Mail.
        amount: USD, billed to the partner and not to the user.
        estimated_days_min: Business days; may be a fraction.
        estimated_days_max: Business days; may be a fraction.
        insured: Whether the carrier's insurance is included.
    """

    id: str
    carrier: str
    service: str
    amount: Decimal = field(validator=number)
    estimated_days_min: int | float
    estimated_days_max: int | float
    insured: bool


@frozen(kw_only=True)
class ShippingQuotes:
    """The quotes for one set of items and one destination.

    Attributes:
        session_id: The quote session; not a quote id.
        expires_at: When every one of the quotes ends, UTC; 15 minutes on in sandbox.
        quotes: The ways to ship.
        unreadable: Those that cannot be read and so are missing from `quotes`, where the client keeps such answers.
    """

    session_id: str
    expires_at: datetime = field(validator=instant)
    quotes: tuple[ShippingQuote, ...]
    unreadable: tuple[Unreadable, ...] = field(default=(), metadata={ROWS: "quotes"})

    @property
    def cheapest(self) -> ShippingQuote | None:
        """The quote with the lowest amount, or None when there is none."""
        return min(self.quotes, key=lambda quote: quote.amount, default=None)


@frozen(kw_only=True)
class ShippingRequest:
    """An accepted shipping request. Keep `order_id`: no endpoint lists orders.

    Attributes:
        order_id: What `get_shipping_order` takes.
        status: Always `success`; not the order's shipping status.
    """

    order_id: str
    status: str


@frozen(kw_only=True)
class ShippingAnswer:
    """The envelope around a shipping request: an order, or the reserved shape of a failure (section 2.10)."""

    order_id: str | None = None
    status: str
    error_message: str | None = None


class OrderStatus(OpenEnum):
    """Where an order stands. The list is open: a new status keeps its text."""

    QUEUED = "queued"
    PROCESSING = "processing"
    LABEL_CREATED = "label_created"
    SHIPPED = "shipped"
    DELIVERED = "delivered"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        """Whether an order stays in this status."""
        return self in (OrderStatus.DELIVERED, OrderStatus.CANCELLED, OrderStatus.FAILED)


@frozen(kw_only=True)
class OrderItem:
    """An item of a shipping order.

    Attributes:
        item_id: The item.
        name: The card's name.
        image: URL of the front picture, or None.
        back_image: URL of the back picture, or None.
    """

    item_id: str
    name: str
    image: str | None = field(default=None, metadata=NULLABLE)
    back_image: str | None = field(default=None, metadata=NULLABLE)


@frozen(kw_only=True)
class ShippingOrder:
    """A shipping order.

    Attributes:
        order_id: The order.
        status: Where it stands; sandbox orders stay queued.
        carrier: As quoted.
        service: As quoted.
        tracking_number: None until a label exists.
        tracking_url: None until a label exists.
        amount: Billed to the partner, in `currency`.
        currency: `USD`.
        destination: The address as the API echoes it, which may differ from what was sent.
        items: What is shipped.
        created_at: UTC.
        shipped_at: UTC; None until then.
        delivered_at: UTC; None until then.
        error_message: Set when the order failed or was cancelled.
        unreadable: Items that cannot be read and so are missing from `items`, where the client keeps such answers.
    """

    order_id: str
    status: OrderStatus
    carrier: str | None = field(default=None, metadata=NULLABLE)
    service: str | None = field(default=None, metadata=NULLABLE)
    tracking_number: str | None = field(default=None, metadata=NULLABLE)
    tracking_url: str | None = field(default=None, metadata=NULLABLE)
    amount: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)
    currency: str | None = field(default=None, metadata=NULLABLE)
    # An object may hold anything, and is no part of the hash.
    destination: dict[str, Any] = field(hash=False)
    items: tuple[OrderItem, ...]
    created_at: datetime = field(validator=instant)
    shipped_at: datetime | None = field(default=None, metadata=NULLABLE, validator=instant)
    delivered_at: datetime | None = field(default=None, metadata=NULLABLE, validator=instant)
    error_message: str | None = field(default=None, metadata=NULLABLE)
    unreadable: tuple[Unreadable, ...] = field(default=(), metadata={ROWS: "items"})
