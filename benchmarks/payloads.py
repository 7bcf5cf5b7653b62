"""The payloads that the benchmarks decode, and pydantic models equal to ours."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

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
