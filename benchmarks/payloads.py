"""The payloads that the benchmarks decode, and pydantic models equal to ours."""

from __future__ import annotations

import random
import string
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec
import pydantic

from phygitals_async.models import ItemSource


def inventory(items: int) -> bytes:
    """Return the JSON of an inventory whose items have the documented shape."""
    picture = "https://cdn.phygitals.com/cards/soto-rc-auto"
    return msgspec.json.encode(
        {
            "user_id": "user_abc123",
            "items": [
                {
                    "id": f"v1|{110586049456 + number}|0",
                    "claw_id": "BSG6DyEihFFtfvxtL9mKYsvTwiZXB1rq5gARMTJC2xAM",
                    "claw_slug": "topps-chrome-2024",
                    "buyback_price": 8.5 + number,
                    "mint_address": None,
                    "purchased_at": "2026-04-18T19:05:14.000Z",
                    "buyback_expires_at": "2026-04-25T19:05:14.000Z",
                    "content": {
                        "metadata": {
                            "name": "Juan Soto RC Auto /25",
                            "image": f"{picture}.png",
                            "back_image": f"{picture}-back.png",
                            "attributes": [
                                {"trait_type": "Year", "value": "2024"},
                                {"trait_type": "Category", "value": "Baseball"},
                            ],
                        },
                        "links": {"image": f"{picture}.png", "back_image": f"{picture}-back.png"},
                    },
                }
                for number in range(items)
            ],
        }
    )


_PLAYERS: Final = ("Juan Soto", "Shohei Ohtani", "Caitlin Clark", "Victor Wembanyama", "Charizard", "Lionel Messi")
_PRINTINGS: Final = ("Base", "Refractor", "RC Auto /25", "Gold /50", "Superfractor 1/1", "First Edition")
_ON_CHAIN: Final = string.ascii_letters + string.digits


def varied_inventories(items: int, count: int) -> list[bytes]:
    """Return the JSON of inventories in which no two items have the same id, picture, price or times."""
    rng = random.Random(1)
    packs = ["".join(rng.choices(_ON_CHAIN, k=44)) for _ in range(100)]
    return [
        msgspec.json.encode({"user_id": "user_abc123", "items": [_item(rng, packs) for _ in range(items)]})
        for _ in range(count)
    ]


def _item(rng: random.Random, packs: list[str]) -> dict[str, Any]:
    year, player, printing = rng.randint(1986, 2025), rng.choice(_PLAYERS), rng.choice(_PRINTINGS)
    name = f"{year} {player} {printing}"
    picture = (
        f"https://cdn.phygitals.com/cards/{name.lower().replace(' ', '-').replace('/', '-')}-{rng.getrandbits(48):x}"
    )
    minted = rng.random() < 0.7
    bought = datetime(2026, 4, 1, tzinfo=UTC) + timedelta(milliseconds=rng.randrange(7 * 24 * 3_600_000))
    item_id = "".join(rng.choices(_ON_CHAIN, k=44)) if minted else f"v1|{rng.randrange(10**11, 10**12)}|0"
    pack = rng.randrange(len(packs))
    return {
        "id": item_id,
        "claw_id": packs[pack],
        "claw_slug": f"pack-{pack}",
        "buyback_price": round(rng.lognormvariate(3, 1.2), 2),
        "mint_address": item_id if minted else None,
        "purchased_at": f"{bought:%Y-%m-%dT%H:%M:%S}.{bought.microsecond // 1000:03}Z",
        "buyback_expires_at": f"{bought + timedelta(days=7):%Y-%m-%dT%H:%M:%S}.{bought.microsecond // 1000:03}Z",
        "content": {
            "metadata": {
                "name": name,
                "image": f"{picture}.png",
                "back_image": f"{picture}-back.png",
                "attributes": [
                    {"trait_type": "Year", "value": str(year)},
                    {"trait_type": "Grade", "value": f"PSA {rng.randint(6, 10)}.0"},
                    {"trait_type": "Category", "value": "Baseball"},
                ],
            },
            "links": {"image": f"{picture}.png", "back_image": f"{picture}-back.png"},
        },
    }


class PydanticAttribute(pydantic.BaseModel):
    """Equal to `Attribute`."""

    trait_type: str
    value: str | int | float


class PydanticMetadata(pydantic.BaseModel):
    """Equal to `Metadata`."""

    name: str
    image: str
    back_image: str | None
    attributes: tuple[PydanticAttribute, ...] = ()
    description: str | None = None


class PydanticLinks(pydantic.BaseModel):
    """Equal to `Links`."""

    image: str
    back_image: str | None


class PydanticContent(pydantic.BaseModel):
    """Equal to `Content`."""

    metadata: PydanticMetadata
    links: PydanticLinks | None = None


class PydanticItem(pydantic.BaseModel):
    """Equal to `Item`."""

    id: str
    claw_id: str
    claw_slug: str | None
    buyback_price: Decimal
    mint_address: str | None
    purchased_at: datetime
    buyback_expires_at: datetime | None
    content: PydanticContent
    type: ItemSource | None = None
    collection_address: str | None = None
    token_standard: str | None = None


class PydanticInventory(pydantic.BaseModel):
    """Equal to `Inventory`."""

    user_id: str
    items: tuple[PydanticItem, ...]
