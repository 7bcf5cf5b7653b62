"""What the API's JSON becomes: frozen attrs classes that know nothing of the wire."""

from phygitals_async.models.inventory import Attribute, Content, Inventory, Item, ItemSource, Links, Metadata
from phygitals_async.models.packs import Card, ChaseCard, Pack, Pull, RarityTier
from phygitals_async.models.purchases import (
    Purchase,
    PurchaseAnswer,
    PurchasedItem,
    Sellback,
    SellbackAnswer,
    StartedPurchase,
)
from phygitals_async.models.rows import Rows, Unreadable
from phygitals_async.models.shipping import (
    Destination,
    OrderItem,
    OrderStatus,
    ShippingAnswer,
    ShippingOrder,
    ShippingQuote,
    ShippingQuotes,
    ShippingRequest,
)

__all__ = [
    "Attribute",
    "Card",
    "ChaseCard",
    "Content",
    "Destination",
    "Inventory",
    "Item",
    "ItemSource",
    "Links",
    "Metadata",
    "OrderItem",
    "OrderStatus",
    "Pack",
    "Pull",
    "Purchase",
    "PurchaseAnswer",
    "PurchasedItem",
    "RarityTier",
    "Rows",
    "Sellback",
    "SellbackAnswer",
    "ShippingAnswer",
    "ShippingOrder",
    "ShippingQuote",
    "ShippingQuotes",
    "ShippingRequest",
    "StartedPurchase",
    "Unreadable",
]
