"""Pages that only read: packs, and what a user owns."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from decimal import Decimal

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from phygitals_async import ChaseCard, NotFound, Pack, PhygitalsError, UserNotFound

from .accounts import form_token, here, signed_in, user_of
from .pages import page
from .shop import shop_of

logger = logging.getLogger("storefront")


async def packs(request: Request) -> Response:
    """Show what can be bought."""
    found = await shop_of(request).api.list_packs(deadline=5)
    # What is on sale first, in the API's own order.
    return page(request, "packs.html", packs=sorted(found, key=lambda pack: not pack.purchasable))


async def pack(request: Request) -> Response:
    """Show one pack with its odds and best cards, and the form that buys it."""
    api = shop_of(request).api
    found = next((each for each in await api.list_packs(deadline=5) if each.id == request.path_params["pack_id"]), None)
    if found is None:
        raise HTTPException(404, "This pack is not on offer any more.")
    token = None
    if request.user.is_authenticated:
        token = form_token(request, "buy", found.id, found.name, price=found.mint_price)
    return page(request, "pack.html", pack=found, chase=await _chase(request, found), token=token, here=here(request))


async def _chase(request: Request, found: Pack) -> list[ChaseCard]:
    if found.slug is None:
        return []
    try:
        return list(await shop_of(request).api.list_chase_cards(found.slug, deadline=2))[:6]
    except NotFound:
        # It is not for every pack that there are some.
        return []
    except PhygitalsError as error:
        # The pack can be bought without them.
        logger.warning("the best cards of %s cannot be shown: %s", found.id, error)
        return []


@signed_in
async def items(request: Request) -> Response:
    """Show what the user owns."""
    try:
        inventory = await shop_of(request).api.get_inventory(user_of(request), deadline=5)
    except UserNotFound:
        # Unknown to the API until the first purchase.
        return page(request, "items.html", items=(), total=0)
    open_items = shop_of(request).deals.open_items(user_of(request))
    now = datetime.now(UTC)
    offers = [item.buyback_price for item in inventory.items if item.sellback_open(now) and item.id not in open_items]
    total = sum(offers, Decimal(0))
    return page(request, "items.html", items=inventory.items, total=total, open_items=open_items)
