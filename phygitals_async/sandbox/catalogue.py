"""The packs of a sandbox, and the listings that can be drawn from them."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final
from urllib.parse import quote

from attrs import field, frozen

from phygitals_async._arithmetic import exact
from phygitals_async.models import Attribute, ItemSource, Links, Metadata, Pack, RarityTier
from phygitals_async.models.fields import number

CDN: Final = "https://cdn.phygitals.com"

_CENT: Final = Decimal("0.01")
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# What each byte stands for in an id: one random call for all of it, since most of the time goes into ids otherwise.
_BASE58_OF: Final = bytes(ord(_BASE58[number % len(_BASE58)]) for number in range(256))
_LISTINGS_PER_TIER: Final = 30
_CHASE_CARDS: Final = 5
_CARDS: Final = ("Juan Soto RC Auto /25", "Mike Trout Base", "Shohei Ohtani Refractor", "Charizard Holo", "Pikachu")
_TIERS: Final = (("Common", "#22C55E", 80), ("Rare", "#A855F7", 15), ("Epic", "#EF4444", 4), ("Mythic", "#F59E0B", 1))
# Where each tier's cards begin and end, in multiples of the pack's price.
_BANDS: Final = (Decimal("0.6"), Decimal(1), Decimal(2), Decimal(5), Decimal(150))


@frozen(kw_only=True)
class Listing:
    """A card that can be drawn.

    Attributes:
        id: The item id it has once pulled: a mint address, or a listing id.
        name: The card's name.
        fmv: Fair market value, in USD.
        type: Where it comes from.
        image: URL of the front picture.
        back_image: URL of the back picture.
        attributes: Facts about the card.
    """

    id: str
    name: str
    fmv: Decimal = field(validator=number)
    type: ItemSource | None = ItemSource.ENFT
    image: str = f"{CDN}/cards/front.png"
    back_image: str | None = f"{CDN}/cards/back.png"
    attributes: tuple[Attribute, ...] = ()

    @property
    def mint_address(self) -> str | None:
        """The on-chain address; none for what comes from eBay (section 4, S11)."""
        return None if self.type == ItemSource.EBAY else self.id

    @property
    def metadata(self) -> Metadata:
        """What is shown of it."""
        return Metadata(self.name, self.image, self.back_image, self.attributes)

    @property
    def links(self) -> Links:
        """Where its pictures are mirrored."""
        return Links(self.image, self.back_image)


class PackStock:
    """A pack with its listings, by tier.

    Attributes:
        pack: The pack as it is shown.
        listings: The listings of each tier, by the tier's id.
        shown: What lists of packs show: the pack, or JSON that says the same in another way.
        chase_cards: How many of its best cards are shown as those it is bought for.
    """

    def __init__(
        self, pack: Pack, listings: Collection[Listing], *, shown: object = None, chase_cards: int = _CHASE_CARDS
    ) -> None:
        self.pack = pack
        self.shown = pack if shown is None else shown
        self.chase_cards = chase_cards
        self._by_id = {listing.id: listing for listing in listings}
        self.listings: dict[int, list[Listing]] = {tier.id: [] for tier in pack.rarity_distribution}
        for listing in listings:
            self.listings[self._tier_of(listing)].append(listing)

    def find(self, item_id: str) -> Listing | None:
        """Return the listing with an id."""
        return self._by_id.get(item_id)

    def chase(self) -> list[Listing]:
        """Return the most valuable listings, the best first."""
        return sorted(self._by_id.values(), key=lambda listing: listing.fmv, reverse=True)[: self.chase_cards]

    def draw(self, rng: random.Random, held: Collection[str]) -> Listing | None:
        """Draw a listing whose id is not in `held`: a tier by its weight, then any of its cards."""
        open_tiers = []
        for tier, odds in self.pack.odds:
            candidates = [listing for listing in self.listings[tier.id] if listing.id not in held]
            if candidates and odds:
                open_tiers.append((candidates, float(odds)))
        if not open_tiers:
            return None
        (candidates,) = rng.choices([c for c, _ in open_tiers], [odds for _, odds in open_tiers])
        return rng.choice(candidates)

    def price(self, listing: Listing) -> Decimal:
        """Return what a sellback of the listing pays, in USD."""
        fraction = Decimal(1) if self.pack.buyback_percent is None else self.pack.buyback_percent
        with exact():
            return cents(listing.fmv * fraction)

    def _tier_of(self, listing: Listing) -> int:
        tiers = sorted(self.pack.rarity_distribution, key=lambda tier: tier.lower or Decimal(0))
        if not tiers:
            msg = f"the pack {self.pack.name!r} has no rarity tier to put listings in"
            raise ValueError(msg)
        fitting = (tier.id for tier in tiers if tier.upper is None or listing.fmv <= tier.upper)
        return next(fitting, tiers[-1].id)


def cents(amount: Decimal) -> Decimal:
    """Round an amount in USD to whole cents, half a cent up, as the documented 82.5 x 0.85 = 70.13 is."""
    with exact():
        return amount.quantize(_CENT, ROUND_HALF_UP)


def item_id(rng: random.Random, source: ItemSource | None) -> str:
    """Invent an item id of the kind that items of `source` have."""
    if source == ItemSource.EBAY:
        return f"v1|{rng.randrange(10**11, 10**12)}|0"
    return rng.randbytes(44).translate(_BASE58_OF).decode()


def picture(base: str, card_id: str, side: str) -> str:
    """Return the URL of a side of a card's own picture: `front` or `back`."""
    return f"{base}/_cards/{quote(card_id, safe='')}/{side}.svg"


def default_catalogue(rng: random.Random) -> list[PackStock]:
    """Return three packs: a first-party one, one of eBay listings, and one that is out of stock."""
    with exact():
        return [
            _stock(rng, "Topps Chrome 2024", "topps-chrome-2024", 100, ItemSource.ENFT, ("Baseball", "Basketball")),
            _stock(rng, "Pokémon Vault", "pokemon-vault", 25, ItemSource.EBAY, ("Pokémon",)),
            _stock(rng, "Legends", "legends", 500, ItemSource.FANATICS, ("Baseball",), in_stock=False),
        ]


def _stock(
    rng: random.Random,
    name: str,
    slug: str,
    price: int,
    source: ItemSource,
    categories: Sequence[str],
    *,
    in_stock: bool = True,
) -> PackStock:
    tiers = tuple(
        RarityTier(
            id=number, name=tier, color=color, weight=Decimal(weight),
            lower=_BANDS[number] * price, upper=_BANDS[number + 1] * price,
        )
        for number, (tier, color, weight) in enumerate(_TIERS)
    )  # fmt: skip
    pack = Pack(
        id="".join(rng.choices(_BASE58, k=44)),
        slug=slug,
        platform="mainnet",
        name=name,
        description=f"Pull from {name}.",
        enable=True,
        in_stock=in_stock,
        mint_price=Decimal(price),
        max_per_mint=10,
        categories=tuple(categories),
        ev=Decimal(price) * Decimal("1.04"),
        min_ev=Decimal(price) * Decimal("1.01"),
        max_ev=Decimal(price) * Decimal("1.05"),
        ev_updated_at=datetime(2026, 3, 10, 18, tzinfo=UTC),
        buyback_percent=Decimal("0.85"),
        claw_image_url=f"{CDN}/packs/{slug}.png",
        rarity_distribution=tiers,
    )
    return PackStock(pack, [_listing(rng, tier, source) for tier in tiers for _ in range(_LISTINGS_PER_TIER)])


def _listing(rng: random.Random, tier: RarityTier, source: ItemSource) -> Listing:
    lower, upper = tier.lower or Decimal(0), tier.upper or Decimal(0)
    share = Decimal(rng.randrange(1, 10_000)).scaleb(-4)
    year = str(rng.randint(1986, 2025))
    return Listing(
        id=item_id(rng, source),
        name=f"{year} {rng.choice(_CARDS)}",
        fmv=cents(lower + (upper - lower) * share),
        type=source,
        back_image=rng.choice((f"{CDN}/cards/back.png", None)),
        attributes=(Attribute("Year", year), Attribute("Grader", "PSA"), Attribute("Grade", "PSA 10.0")),
    )
