"""The large catalogue: as many packs as the vendor has, and as uneven."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest

from phygitals_async import OutOfStock, Pack, PhygitalsClient, Sandbox
from phygitals_async.sandbox.market import MOST_CHASE_CARDS, PACKS, full_catalogue
from phygitals_transports import MemoryTransport
from sandbox_support import ask


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Return a sandbox with all of the packs."""
    return Sandbox(seed=1, catalogue=full_catalogue)


def rows(sandbox: Sandbox) -> list[dict[str, Any]]:
    """Return what the API lists, as it stands on the wire."""
    status, packs = ask(sandbox, "GET", "/vm/available")
    assert status == 200
    assert isinstance(packs, list)
    return packs


def test_how_uneven_it_is(sandbox: Sandbox) -> None:
    """Some packs have no slug, null bounds, a price as text, no description, no tiers; half cannot be bought."""
    packs = rows(sandbox)
    assert len(packs) == PACKS > 100
    assert len({pack["id"] for pack in packs}) == PACKS
    assert 40 < sum(pack["enable"] and pack["in_stock"] for pack in packs) < 70
    assert not all(pack["enable"] for pack in packs)
    for lacks in ("slug", "description", "categories", "claw_image_url", "rarity_distribution"):
        assert 0 < sum(not pack.get(lacks) for pack in packs) < 20, lacks
    assert 0 < sum(pack["min_ev"] is None for pack in packs) < 40
    assert {type(pack["mint_price"]) for pack in packs} == {str, float}
    assert len({pack["buyback_percent"] for pack in packs}) == 4
    known = [pack for pack in packs if pack.get("slug") in ("topps-chrome-2024", "pokemon-vault")]
    assert [(pack["enable"], pack["in_stock"], pack["max_per_mint"]) for pack in known] == [(True, True, 10)] * 2
    assert {type(json.loads(pack["id"])) for pack in packs if pack["id"].isdigit()} == {int}


@pytest.mark.asyncio
async def test_the_client_reads_and_buys_it(sandbox: Sandbox) -> None:
    """Every pack is read, and can be bought exactly if it says so."""
    async with PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test") as api:
        packs = await api.list_packs()
        assert {type(pack.mint_price) for pack in packs} == {Decimal}
        for pack in packs:
            if pack.purchasable:
                (card,) = (await api.start_purchase(pack.id, 1, "user")).nfts
                assert (await api.get_card(card.id)).name == card.name
            else:
                with pytest.raises(OutOfStock):
                    await api.start_purchase(pack.id, 1, "user")


@pytest.mark.asyncio
async def test_one_pack_has_sixty_chase_cards(sandbox: Sandbox) -> None:
    """They come best first; other packs have fewer."""
    async with PhygitalsClient(MemoryTransport(sandbox), api_key="sandbox-test") as api:
        sizes = {}
        for pack in sandbox.packs:
            if pack.slug is not None:
                cards = await api.list_chase_cards(pack.slug)
                values = [card.fmv for card in cards if card.fmv is not None]
                assert values == sorted(values, reverse=True)
                sizes[pack.slug] = len(cards)
    assert max(sizes.values()) == MOST_CHASE_CARDS == 60
    assert sorted(sizes.values())[-2] <= 20


def test_the_seed_repeats_it() -> None:
    """The same chance gives the same packs, and another gives others."""

    def packs(seed: int) -> list[Pack]:
        return [stock.pack for stock in full_catalogue(random.Random(seed))]

    assert packs(1) == packs(1) != packs(2)


def test_pictures_stand_where_it_is_told() -> None:
    """Each card has a picture of its own, below the base that is given; so have the packs."""
    stocks = full_catalogue(random.Random(1), pictures="http://here")
    listings = [listing for stock in stocks for tier in stock.listings.values() for listing in tier]
    assert len({listing.image for listing in listings}) == len(listings)
    backs = {listing.back_image for listing in listings}
    urls = [stock.pack.claw_image_url for stock in stocks]
    assert None in backs
    assert None in urls
    shown = [*(listing.image for listing in listings), *filter(None, backs), *filter(None, urls)]
    assert all(url.startswith("http://here/_cards/") and url.endswith(".svg") for url in shown)
