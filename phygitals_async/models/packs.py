"""Packs and what can be pulled from them (API sheet, sections 2.1 to 2.4)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from attrs import field, frozen

from phygitals_async.models.fields import ABSENT, NULLABLE, instant, number, optional_number
from phygitals_async.models.inventory import Metadata


@frozen(kw_only=True)
class RarityTier:
    """One tier of a pack's rarity distribution.

    Attributes:
        id: The tier's number.
        name: The tier's name, such as Mythic.
        color: Any CSS colour.
        lower: The least value of its cards, in USD.
        upper: The greatest value of its cards, in USD.
        weight: Relative probability. The weights need not sum to 100: see `Pack.odds`.
    """

    id: int
    name: str
    color: str | None = None
    lower: Decimal | None = field(default=None, validator=optional_number)
    upper: Decimal | None = field(default=None, validator=optional_number)
    weight: Decimal | None = field(default=None, validator=optional_number)


@frozen(kw_only=True)
class Pack:
    """A pack that users can pull from.

    Attributes:
        id: What `start_purchase` and `list_recent_pulls` take; items call it `claw_id`.
        slug: What `list_chase_cards` takes; None for a pack without one.
        platform: `mainnet` means first-party.
        name: Display name.
        description: Display text.
        enable: Must be true to buy.
        in_stock: Must be true to buy.
        mint_price: USD per pull.
        max_per_mint: The most pulls in one purchase.
        categories: Category names.
        ev: Expected value per pull, in USD.
        min_ev: Lower bound of `ev`, in USD, or None.
        max_ev: Upper bound of `ev`, in USD, or None.
        ev_updated_at: When `ev` was computed, UTC.
        buyback_percent: What a sellback pays, as a fraction (0 to 1) of fair market value.
        claw_image_url: Artwork.
        rarity_distribution: The tiers.
    """

    id: str
    slug: str | None = None
    platform: str | None = None
    name: str
    description: str | None = None
    enable: bool
    in_stock: bool
    mint_price: Decimal = field(validator=number)
    max_per_mint: int
    categories: tuple[str, ...] | None = None
    ev: Decimal | None = field(default=None, validator=optional_number)
    min_ev: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)
    max_ev: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)
    ev_updated_at: datetime | None = field(default=None, validator=instant)
    buyback_percent: Decimal | None = field(default=None, validator=optional_number)
    claw_image_url: str | None = None
    rarity_distribution: tuple[RarityTier, ...] = ABSENT

    @property
    def purchasable(self) -> bool:
        """Whether the pack can be bought now."""
        return self.enable and self.in_stock

    @property
    def odds(self) -> tuple[tuple[RarityTier, Decimal], ...]:
        """Each tier with its probability, as a fraction (0 to 1) of the sum of the weights."""
        total = sum((tier.weight or Decimal(0) for tier in self.rarity_distribution), Decimal(0))
        if not total:
            return ()
        return tuple((tier, (tier.weight or Decimal(0)) / total) for tier in self.rarity_distribution)


@frozen(kw_only=True)
class ChaseCard:
    """One of the cards a pack is bought for. No documentation of this shape is known (section 2.2).

    Attributes:
        id: Card identifier.
        name: Card name.
        image: URL of the front picture, or None.
        back_image: URL of the back picture, or None.
        fmv: Fair market value, in USD, or None.
    """

    id: str
    name: str
    image: str | None = field(default=None, metadata=NULLABLE)
    back_image: str | None = field(default=None, metadata=NULLABLE)
    fmv: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)


@frozen(kw_only=True)
class Pull:
    """A recent pull by anybody.

    Attributes:
        id: The mint address if minted, else the listing id.
        claw_id: The pack's id.
        claw_slug: The pack's slug, or None for a pack without one.
        value: Fair market value, in USD; None where the listing has none.
        buyback_price: What a sellback pays, in USD.
        created_at: When it was pulled, UTC.
        metadata: Name, pictures, attributes.
    """

    id: str
    claw_id: str
    claw_slug: str | None = field(default=None, metadata=NULLABLE)
    value: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)
    buyback_price: Decimal = field(validator=number)
    created_at: datetime = field(validator=instant)
    metadata: Metadata


@frozen(kw_only=True)
class Card:
    """A card's details.

    Attributes:
        id: Card id, also the item id for sellback.
        name: Card name.
        image: URL of the front picture, or None.
        back_image: URL of the back picture, or None.
        fmv: Fair market value, in USD, or None.
        metadata: Name, pictures, attributes.
    """

    id: str
    name: str
    image: str | None = field(default=None, metadata=NULLABLE)
    back_image: str | None = field(default=None, metadata=NULLABLE)
    fmv: Decimal | None = field(default=None, metadata=NULLABLE, validator=optional_number)
    metadata: Metadata
