"""A user's inventory (API sheet, sections 2.7 and 3)."""

from __future__ import annotations

from datetime import datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Decimal, localcontext

from attrs import field, frozen

from phygitals_async.models.fields import ABSENT, EMPTY_IF_NULL, NULLABLE, ROWS, OpenEnum, instant, number
from phygitals_async.models.rows import Unreadable


class ItemSource(OpenEnum):
    """Where a card came from. The list is open: a new source keeps its text."""

    ENFT = "enft"
    EBAY = "ebay"
    FANATICS = "fanatics"
    ALT = "alt"
    EXTERNAL = "external"


@frozen
class Attribute:
    """One fact about a card, such as Year: 2024.

    Attributes:
        trait_type: The fact's name.
        value: Documented as text; numbers have been seen, and null.
    """

    trait_type: str
    value: str | int | float | None = field(default=None, metadata=NULLABLE)


@frozen
class Metadata:
    """A card's name, pictures and attributes.

    Attributes:
        name: The card's name.
        image: URL of the front picture, the canonical one, or None.
        back_image: URL of the back picture, or None.
        attributes: Facts about the card; empty where the answer has none, or null.
        description: Free text, seldom present.
    """

    name: str
    image: str | None = field(default=None, metadata=NULLABLE)
    back_image: str | None = field(default=None, metadata=NULLABLE)
    attributes: tuple[Attribute, ...] = field(default=ABSENT, metadata=EMPTY_IF_NULL)
    description: str | None = None


@frozen
class Links:
    """Where the pictures are mirrored. Whether sandbox purchases leave it out or empty is not known (section 4, S12).

    Attributes:
        image: URL of the front picture, or None.
        back_image: URL of the back picture, or None.
    """

    image: str | None = field(default=None, metadata=NULLABLE)
    back_image: str | None = field(default=None, metadata=NULLABLE)


@frozen
class Content:
    """What can be shown of an item.

    Attributes:
        metadata: Name, pictures, attributes.
        links: Fallback pictures; None where the answer has none (sandbox purchases, section 4, S12).
    """

    metadata: Metadata
    links: Links | None = None


class Shown:
    """What items have in common that are shown with a `content`, wherever the API shows them."""

    __slots__ = ()

    content: Content

    @property
    def name(self) -> str:
        """The card's name."""
        return self.content.metadata.name

    @property
    def image(self) -> str:
        """URL of the front picture, from the links where the metadata has none; may be empty."""
        content = self.content
        return content.metadata.image or (content.links and content.links.image) or ""

    @property
    def back_image(self) -> str | None:
        """URL of the back picture, from the links where the metadata has none, or None."""
        content = self.content
        return content.metadata.back_image or (content.links and content.links.back_image) or None


@frozen(kw_only=True)
class Item(Shown):
    """One graded card that a user owns.

    Attributes:
        id: The item id for sellback, quote and card details: a mint address, or a listing id such as
            `v1|110586049456|0`.
        claw_id: The id of the pack it was pulled from.
        claw_slug: The slug of that pack, or None for a pack without one.
        buyback_price: What a sellback pays now, in USD. Live in production, frozen in sandbox.
        mint_address: The on-chain address, or None until minted.
        purchased_at: When it was pulled, UTC.
        buyback_expires_at: When the sellback offer ends, UTC; None means never.
        content: Name, pictures, attributes.
        type: Where the card came from, or None.
        collection_address: On-chain collection, or None.
        token_standard: On-chain token standard, or None.
    """

    id: str
    claw_id: str
    claw_slug: str | None = field(default=None, metadata=NULLABLE)
    buyback_price: Decimal = field(validator=number)
    mint_address: str | None = field(default=None, metadata=NULLABLE)
    purchased_at: datetime = field(validator=instant)
    buyback_expires_at: datetime | None = field(validator=instant)
    content: Content
    type: ItemSource | None = field(default=None, metadata=NULLABLE)
    collection_address: str | None = field(default=None, metadata=NULLABLE)
    token_standard: str | None = field(default=None, metadata=NULLABLE)

    def sellback_open(self, at: datetime) -> bool:
        """Whether the sellback offer is still open at the aware datetime `at`."""
        return self.buyback_expires_at is None or at < self.buyback_expires_at


@frozen
class Inventory:
    """What one user owns: items pulled and neither sold back nor locked in a shipping order.

    Attributes:
        user_id: The user, as the API echoes it.
        items: All of them; the API does not paginate.
        unreadable: Those that cannot be read and so are missing from `items`, where the client keeps such answers.
    """

    user_id: str
    items: tuple[Item, ...]
    unreadable: tuple[Unreadable, ...] = field(default=(), kw_only=True, metadata={ROWS: "items"})

    @property
    def total_buyback(self) -> Decimal:
        """The sum of the items' sellback values, in USD and exact, whether or not each offer is still open.

        What an unreadable item is worth is not in it.
        """
        with localcontext(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN):
            return sum((item.buyback_price for item in self.items), Decimal(0))
