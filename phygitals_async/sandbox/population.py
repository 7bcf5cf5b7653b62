"""Fills a sandbox with many users whose items have every shape the documents allow."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final

import attrs

from phygitals_async._arithmetic import exact
from phygitals_async.models import Attribute, ItemSource
from phygitals_async.sandbox.ledger import SELLBACK_WINDOW
from phygitals_async.sandbox.sandbox import Derive, Sandbox

MOST_ITEMS: Final = 60

# What a card shows, and its category.
_PLAYERS: Final = (
    ("Juan Soto", "Baseball"), ("Mike Trout", "Baseball"), ("Shohei Ohtani", "Baseball"), ("Aaron Judge", "Baseball"),
    ("Victor Wembanyama", "Basketball"), ("Caitlin Clark", "Basketball"), ("LeBron James", "Basketball"),
    ("Pikachu", "Pokémon"), ("Charizard", "Pokémon"), ("Mewtwo", "Pokémon"),
    ("Lionel Messi", "Soccer"), ("Kylian Mbappé", "Soccer"),
)  # fmt: skip
_PRINTINGS: Final = ("Base", "Refractor", "RC Auto /25", "Gold /50", "Superfractor 1/1", "Holo", "First Edition")
_GRADES: Final = ("PSA 10.0", "PSA 9.0", "BGS 9.5", "SGC 10.0")


def user_name(number: int) -> str:
    """Return the id of the `number`-th user, counted from 0."""
    return f"user_{number:06d}"


def populate(sandbox: Sandbox, users: int, *, seed: int = 0, expired: float = 0.0) -> None:
    """Add `users` users named by `user_name`, each owning 0 to 60 items; the same seed gives the same items.

    Args:
        sandbox: Where to.
        users: How many.
        seed: Of what is drawn.
        expired: For how many of the items the time to sell them back has passed already, a fraction (0 to 1).
    """
    for _ in populating(sandbox, users, seed=seed, expired=expired):
        pass


def populating(sandbox: Sandbox, users: int, *, seed: int, expired: float) -> Iterator[str]:
    """Do what `populate` does, a user at a time: each is given when they have their items."""
    rng = random.Random(seed)  # noqa: S311 - repeatable test data.
    now, packs = sandbox.now(), sandbox.packs
    for number in range(users):
        user_id = user_name(number)
        sandbox.add_user(user_id)
        for _ in range(rng.randint(0, MOST_ITEMS)):
            pack, year, (player, category) = rng.choice(packs), rng.randint(1986, 2025), rng.choice(_PLAYERS)
            late = SELLBACK_WINDOW if expired and rng.random() < expired else timedelta(0)
            item = sandbox.add_item(
                user_id,
                name=f"{year} {player} {rng.choice(_PRINTINGS)}",
                buyback_price=_price(rng),
                type=rng.choice(list(ItemSource)),
                claw_id=pack.id,
                back_image=rng.choice((Derive.FROM_ID, None)),
                attributes=_attributes(rng, year, category),
                purchased_at=now - late - timedelta(seconds=rng.randrange(7 * 24 * 3600)),
            )
            if rng.random() < 0.05:
                # Only production has items whose sellback offer never ends (section 4, S14).
                sandbox.put_item(user_id, attrs.evolve(item, buyback_expires_at=None))
        yield user_id


def _price(rng: random.Random) -> Decimal:
    cents = int(100 * rng.lognormvariate(3, 1.2))
    with exact():
        return Decimal(max(cents, 50)).scaleb(-2)


def _attributes(rng: random.Random, year: int, category: str) -> tuple[Attribute, ...]:
    if rng.random() < 0.1:
        return ()
    return (
        Attribute("Year", year if rng.random() < 0.1 else str(year)),
        Attribute("Grade", rng.choice(_GRADES)),
        Attribute("Category", category),
    )
