"""Shipping: an address, offers for it, and the order."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from phygitals_async import AddressRejected, BadRequest, Destination, InvalidArgumentError, OrderStatus, UserNotFound
from phygitals_async.web import explain

from .accounts import form_token, read_form, signed_in, user_of
from .pages import page
from .shop import shop_of
from .trade import begin, lead_to, open_deal

# Name in the form, label, autocomplete, required.
_FIELDS = (
    ("name", "Full name", "name", True),
    ("line1", "Street and number", "address-line1", True),
    ("line2", "Apartment, floor", "address-line2", False),
    ("city", "City", "address-level2", True),
    ("state", "State or province", "address-level1", False),
    ("postal_code", "Postal code", "postal-code", False),
    ("country", "Country, as two letters", "country", True),
)
_STAGES = (
    OrderStatus.QUEUED,
    OrderStatus.PROCESSING,
    OrderStatus.LABEL_CREATED,
    OrderStatus.SHIPPED,
    OrderStatus.DELIVERED,
)


@signed_in
async def ask_address(request: Request) -> Response:
    """Ask where the chosen items go."""
    item_ids = list(dict.fromkeys(request.query_params.getlist("item")))
    if (deal := open_deal(request, item_ids)) is not None:
        return lead_to(deal, "open")
    return await _form(request, item_ids, {})


@signed_in
async def quotes(request: Request) -> Response:
    """Show what it costs, or what is wrong with the address."""
    form = await read_form(request)
    item_ids = list(dict.fromkeys(form.get("item", [])))
    address = {name: form[name][0] for name, *_ in _FIELDS if name in form}
    if (deal := open_deal(request, item_ids)) is not None:
        return lead_to(deal, "open")
    missing = [label for name, label, _, required in _FIELDS if required and name not in address]
    if missing:
        return await _form(request, item_ids, address, 422, f"Please fill in: {', '.join(missing)}.")
    try:
        found = await shop_of(request).api.quote_shipping(
            item_ids, Destination(**address), owner=user_of(request), deadline=10
        )
    except (BadRequest, InvalidArgumentError) as error:
        suggested = error.suggestion if isinstance(error, AddressRejected) else None
        if suggested is not None:
            address = {name: text for name, text in suggested.parts() if text}
        answer = explain(error)
        message = f"{answer.message} This is a suggestion." if suggested else answer.message
        return await _form(request, item_ids, address, answer.status, message)
    count = f"{len(item_ids)} {'card' if len(item_ids) == 1 else 'cards'}"
    # A request names nothing but its quote, so the form says what that is for.
    offers = [
        (quote, form_token(request, "ship", quote.id, f"{count} with {quote.carrier} {quote.service}",
                           items=item_ids, price=quote.amount))
        for quote in found.quotes
    ]  # fmt: skip
    return page(request, "quotes.html", offers=offers, count=count, address=address, expires_at=found.expires_at)


@signed_in
async def ship(request: Request) -> Response:
    """Place the order."""
    return begin(request, "ship", await read_form(request))


@signed_in
async def order(request: Request) -> Response:
    """Show where an order stands."""
    shop, order_id = shop_of(request), request.path_params["order_id"]
    item_ids = shop.deals.items_of_order(order_id, user_of(request))
    found = await shop.api.get_shipping_order(order_id, deadline=5) if item_ids else None
    shipped = set() if found is None else {item.item_id for item in found.items}
    # The address of somebody else is shown to nobody, whatever the API knows by that id.
    if not shipped or not shipped <= item_ids:
        raise HTTPException(404, "There is no such order.")
    return page(request, "order.html", order=found, stages=_STAGES)


async def _form(
    request: Request, item_ids: list[str], address: dict[str, str], status: int = 200, message: str = ""
) -> Response:
    if not item_ids:
        return RedirectResponse("/items", 303)
    try:
        owned = (await shop_of(request).api.get_inventory(user_of(request), deadline=5)).items
    except UserNotFound:
        owned = ()
    chosen = [item for item in owned if item.id in item_ids]
    if not chosen:
        raise HTTPException(404, "These cards are not among yours. They may have been sold or shipped.")
    return page(request, "ship.html", items=chosen, fields=_FIELDS, address=address, message=message, status=status)
