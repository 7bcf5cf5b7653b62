"""A catalogue as large and as uneven as the vendor's: what integrators have seen of it (API sheet, 2.1 and B7)."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import attrs

from phygitals_async._arithmetic import exact
from phygitals_async._structuring.converter import build_converter
from phygitals_async.models import Attribute, ItemSource, Pack, RarityTier
from phygitals_async.sandbox.catalogue import CDN, Listing, PackStock, cents, item_id, picture

PACKS: Final = 124
MOST_CHASE_CARDS: Final = 60

_LISTINGS_PER_TIER: Final = 16
# Those of the small catalogue that can be bought, by where they stand; they have all that a pack can have.
_KNOWN: Final = {
    0: ("Baseball", "Topps Chrome 2024", "topps-chrome-2024", Decimal(100)),
    6: ("Pokémon", "Pokémon Vault", "pokemon-vault", Decimal(25)),
}
_GAMES: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("Baseball", ("Topps Chrome", "Bowman Draft", "Diamond Kings"), ("Juan Soto", "Mike Trout", "Shohei Ohtani")),
    ("Basketball", ("Prizm", "Hoops Court", "Select"), ("Victor Wembanyama", "LeBron James", "Caitlin Clark")),
    ("Pokémon", ("Kanto Vault", "Neon Evolutions", "Shining Gym"), ("Pikachu", "Charizard", "Mewtwo", "Umbreon")),
    ("Soccer", ("World Stage", "Club Legends", "Golazo"), ("Lionel Messi", "Kylian Mbappé", "Aitana Bonmatí")),
    ("One Piece", ("Grand Line", "Romance Dawn", "Elite One Piece"), ("Luffy", "Zoro", "Nami", "Shanks")),
)  # fmt: skip
_EDITIONS: Final = ("2023", "2024", "2025", "Mini", "Elite", "Platinum", "Graded", "Rookie", "Holiday")
_PRICES: Final = tuple(Decimal(text) for text in ("1", "5", "10", "24.99", "25", "50", "100", "250", "500", "1000"))
_FRACTIONS: Final = tuple(Decimal(text) for text in ("0.85", "0.85", "0.90", "0.92", "1.00"))
_TIERS: Final = (
    ("Common", "#22C55E", 80), ("Rare", "#3B82F6", 14), ("Epic", "#A855F7", 5), ("Mythic", "#F59E0B", 1),
)  # fmt: skip
# Where each tier's cards begin and end, in multiples of the pack's price.
_BANDS: Final = tuple(Decimal(text) for text in ("0.6", "1", "2", "5", "60"))
_PRINTINGS: Final = ("Base", "Refractor", "RC Auto /25", "Gold /50", "Superfractor 1/1", "Holo", "First Edition")
_GRADES: Final = (("PSA", "10.0"), ("PSA", "9.0"), ("BGS", "9.5"), ("SGC", "10.0"), ("CGC", "9.0"))


def full_catalogue(rng: random.Random, *, pictures: str = CDN) -> list[PackStock]:
    """Return 124 packs, some 55 of which can be bought, `topps-chrome-2024` and `pokemon-vault` among them.

    Some have no slug, no bounds of the expected value, no description, a price that is written as text, or no rarity
    tiers; one has 60 chase cards. Ids are of every kind that was seen.

    Args:
        rng: Draws all of it.
        pictures: The base URL of the pictures.
    """
    converter = build_converter()
    names = [(game, f"{series} {edition}") for game in _GAMES for series in game[1] for edition in _EDITIONS]
    names.remove((_GAMES[0], _KNOWN[0][1]))
    cards = {game[0]: game for game in _GAMES}
    stocks = []
    with exact():
        for number, (any_game, name) in enumerate(rng.sample(names, PACKS)):
            any_pack = (any_game[0], name, name.lower().replace(" ", "-"), rng.choice(_PRICES))
            category, *_ = known = _KNOWN.get(number, any_pack)
            game = cards[category]
            pack = _pack(rng, number, known, pictures)
            source = rng.choice((ItemSource.ENFT, ItemSource.EBAY, ItemSource.FANATICS))
            listings = [
                _listing(rng, tier, source, game, pictures)
                for tier in pack.rarity_distribution
                for _ in range(_LISTINGS_PER_TIER)
            ]
            shown: dict[str, Any] = converter.unstructure(pack)
            shown["num_pulls_7d"] = rng.randrange(4000)
            if number % 3 == 1:
                shown["mint_price"] = f"{pack.mint_price:.2f}"
            # The first has all that a pack can have.
            chase = MOST_CHASE_CARDS if number == 0 else rng.randint(5, 20)
            stocks.append(PackStock(pack, listings, shown=shown, chase_cards=chase))
    return stocks


def _pack(rng: random.Random, number: int, known: tuple[str, str, str, Decimal], pictures: str) -> Pack:
    category, name, slug, price = known
    kinds = (item_id(rng, None), f"{slug}-pack-{rng.randrange(36**6):06x}", str(number))
    pack_id = kinds[0] if number in _KNOWN else rng.choice(kinds)
    full = Pack(
        id=pack_id,
        slug=slug,
        platform="mainnet",
        name=name,
        description=f"{category} cards out of {name}, graded, with an offer to buy each of them back.",
        # The rest is out of stock, and the last two are taken off as well (2.5).
        enable=number < PACKS - 2,
        in_stock=number % 5 in (0, 1) or number % 25 == 2,
        mint_price=price,
        max_per_mint=10 if number in _KNOWN else rng.choice((1, 5, 10, 10, 25)),
        categories=(category,),
        ev=cents(price * Decimal("1.04")),
        min_ev=cents(price * Decimal("1.01")),
        max_ev=cents(price * Decimal("1.05")),
        ev_updated_at=datetime(2026, 3, 10, 18, tzinfo=UTC),
        buyback_percent=rng.choice(_FRACTIONS),
        claw_image_url=picture(pictures, pack_id, "front"),
        rarity_distribution=tuple(
            RarityTier(
                id=tier, name=label, color=color, weight=Decimal(weight),
                lower=_BANDS[tier] * price, upper=_BANDS[tier + 1] * price,
            )
            for tier, (label, color, weight) in enumerate(_TIERS)
        ),
    )  # fmt: skip
    lacking: list[dict[str, Any]] = [
        {}, {"slug": None}, {"min_ev": None, "max_ev": None}, {"description": None, "claw_image_url": None}, {},
        {"categories": None}, {}, {"min_ev": None}, {}, {}, {},
    ]  # fmt: skip
    pack = attrs.evolve(full, **lacking[number % len(lacking)])
    # Nothing can be drawn of a pack without tiers.
    return attrs.evolve(pack, rarity_distribution=(), in_stock=False) if number % 40 == 39 else pack


def _listing(
    rng: random.Random, tier: RarityTier, source: ItemSource, game: tuple[str, Any, tuple[str, ...]], pictures: str
) -> Listing:
    lower, upper = tier.lower or Decimal(0), tier.upper or Decimal(0)
    share = Decimal(rng.randrange(1, 10_000)).scaleb(-4)
    new_id, year, (grader, grade) = item_id(rng, source), str(rng.randint(1986, 2025)), rng.choice(_GRADES)
    return Listing(
        id=new_id,
        name=f"{year} {rng.choice(game[2])} {rng.choice(_PRINTINGS)}",
        # Squared: most cards of a tier stand at its lower end.
        fmv=cents(lower + (upper - lower) * share * share),
        type=source,
        image=picture(pictures, new_id, "front"),
        back_image=picture(pictures, new_id, "back") if rng.random() < 0.8 else None,
        attributes=(
            Attribute("Year", year),
            Attribute("Category", game[0]),
            Attribute("Grader", grader),
            Attribute("Grade", f"{grader} {grade}"),
        ),
    )
