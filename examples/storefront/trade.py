"""Buying, selling, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from phygitals_async import UserNotFound

from .accounts import form_token, read_form, read_token, signed_in, user_of
from .deals import Deal
from .lookup import look_up
from .pages import page
from .shop import shop_of
from .work import carry_out


@signed_in
async def confirm_sale(request: Request) -> Response:
    """Ask whether to sell."""
    shop, item_id = shop_of(request), request.query_params.get("item", "")
    if (deal := open_deal(request, [item_id])) is not None:
        return lead_to(deal, "open")
    try:
        inventory = await shop.api.get_inventory(user_of(request), deadline=5)
    except UserNotFound as error:
        raise HTTPException(404, "This card is not among yours.") from error
    item = next((item for item in inventory.items if item.id == item_id), None)
    if item is None:
        raise HTTPException(404, "This card is not among yours. It may have been sold or shipped.")
    token = form_token(request, "sell", item.id, item.name, items=[item.id])
    return page(request, "sell.html", item=item, token=token)


@signed_in
async def buy(request: Request) -> Response:
    """Buy pulls of a pack."""
    form = await read_form(request)
    pulls = form.get("pulls", [""])[0]
    # The API has the last word on how many there may be.
    if not re.fullmatch("[0-9]{1,4}", pulls) or not 1 <= int(pulls) <= 1000:
        raise HTTPException(422, "How many packs is a whole number.")
    return begin(request, "buy", form, int(pulls))


@signed_in
async def sell(request: Request) -> Response:
    """Sell an item back."""
    return begin(request, "sell", await read_form(request))


def begin(request: Request, kind: str, form: dict[str, list[str]], pulls: int = 0) -> Response:
    """Start what a form asks for, unless it was started before, and lead to the page that shows how it goes."""
    shop = shop_of(request)
    asked = read_token(request, kind, form)
    amount = None if asked.price is None else f"{asked.price * max(pulls, 1):.2f}"
    deal, is_new = shop.deals.begin(
        asked.deal_id, user_of(request), kind, asked.subject, asked.title,
        items=asked.items, pulls=pulls, amount=amount,
    )  # fmt: skip
    if is_new:
        shop.life.start(carry_out(shop, deal))
        return lead_to(deal)
    return lead_to(deal, "used" if deal.id == asked.deal_id else "open")


def open_deal(request: Request, item_ids: Iterable[str]) -> Deal | None:
    """Return the open deal that some of a user's items are in, if there is one."""
    open_items = shop_of(request).deals.open_items(user_of(request))
    return next((open_items[item_id] for item_id in item_ids if item_id in open_items), None)


def lead_to(deal: Deal, why: str = "") -> Response:
    """Lead to the page of a deal, and say `why` where it is another than was asked for: `used` or `open`."""
    return RedirectResponse(f"/deals/{deal.id}{why and f'?why={why}'}", 303)


@signed_in
async def deals(request: Request) -> Response:
    """Show what the user asked for lately."""
    return page(request, "deals.html", deals=shop_of(request).deals.of(user_of(request)))


@signed_in
async def deal(request: Request) -> Response:
    """Show how it goes, and at its end what came of it."""
    found = _find(request)
    cards = shop_of(request).deals.cards_of(found.id)
    return page(request, "deal.html", deal=found, cards=cards, why=request.query_params.get("why"))


@signed_in
async def deal_state(request: Request) -> Response:
    """Say how it goes, for the script of that page."""
    found = _find(request)
    return JSONResponse({"state": found.state, "text": found.text})


@signed_in
async def look_again(request: Request) -> Response:
    """Look up what is unknown now, instead of at the next turn."""
    found = _find(request)
    await look_up(shop_of(request))
    return lead_to(found)


def _find(request: Request) -> Deal:
    found = shop_of(request).deals.get(request.path_params["deal_id"], user_of(request))
    if found is None:
        raise HTTPException(404, "There is no such page.")
    return found
