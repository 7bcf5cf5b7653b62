"""Purchases and sellbacks (API sheet, sections 2.5, 2.6 and 2.8)."""

from __future__ import annotations

from decimal import Decimal

from attrs import field, frozen

from phygitals_async.models.fields import ABSENT, NULLABLE, number, optional_number
from phygitals_async.models.inventory import Content, ItemSource, Shown


@frozen(kw_only=True)
class PurchasedItem(Shown):
    """An item as a purchase shows it. The sellback deadline and the pack are only in the inventory.

    Attributes:
        id: The item id for sellback, quote and card details.
        buyback_price: What a sellback pays, in USD.
        content: Name, pictures, attributes.
        type: Where the card came from, or None.
        mint_address: The on-chain address, or None until minted.
        collection_address: On-chain collection, or None.
        token_standard: On-chain token standard, or None.
    """

    id: str
    buyback_price: Decimal = field(validator=number)
    content: Content
    type: ItemSource | None = field(default=None, metadata=NULLABLE)
    mint_address: str | None = field(default=None, metadata=NULLABLE)
    collection_address: str | None = field(default=None, metadata=NULLABLE)
    token_standard: str | None = field(default=None, metadata=NULLABLE)


@frozen(kw_only=True)
class StartedPurchase:
    """The answer to `start_purchase`. Keep `session_id`: it is the only handle on the purchase.

    Attributes:
        session_id: What `get_purchase` and `wait_for_purchase` take.
        nfts: The pulled items; production may leave them out until the purchase is fulfilled.
    """

    session_id: str
    nfts: tuple[PurchasedItem, ...] = ABSENT


@frozen(kw_only=True)
class Purchase:
    """A fulfilled purchase.

    Attributes:
        session_id: The purchase session.
        user_id: The owner of the items.
        nfts: The pulled items.
        public_id: A short shareable id, such as `_XKCD`.
        tx_hash: The mint transaction; synthetic in sandbox.
    """

    session_id: str
    user_id: str
    nfts: tuple[PurchasedItem, ...]
    public_id: str | None = None
    tx_hash: str | None = None


@frozen(kw_only=True)
class PurchaseAnswer:
    """The envelope around a purchase: `result` once fulfilled, else a status or an error (section 2.6)."""

    result: Purchase | None = None
    status: str | None = None
    error: str | None = None


@frozen(kw_only=True)
class SellbackAnswer:
    """The envelope around a sellback: an amount, or what went wrong."""

    success: bool
    amount: Decimal | None = field(default=None, validator=optional_number)
    error: str | None = None


@frozen(kw_only=True)
class Sellback:
    """A sellback that was paid.

    Attributes:
        success: True.
        amount: What was paid, in USD; may differ from any price shown before.
    """

    success: bool
    amount: Decimal = field(validator=number)
