"""The operations of the Partner API, one declaration each.

A declaration says everything the rest of the library needs to know of an endpoint. Adding one takes a
declaration here, a method on the client and a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, TypeVar

from phygitals_async import errors, models
from phygitals_async._api.arguments import AMOUNT, DESTINATION, FLAG, ID, IDS, PULLS_LIMIT, Argument, check_id
from phygitals_async._api.operation import Effect, Operation, Refusal

T = TypeVar("T")


def _read_rows(answer: tuple[T, ...] | None) -> models.Rows[T]:
    return answer if isinstance(answer, models.Rows) else models.Rows(answer or ())


def _read_started(answer: models.StartedPurchase) -> models.StartedPurchase:
    if answer.session_id in ("", ".", ".."):
        raise errors.DecodeError("no session in the answer", problems=["$.session_id: empty"])
    return answer


def _salvage_id(value: object) -> str | None:
    try:
        text = check_id("it", value)
    except errors.InvalidArgumentError:
        return None
    # A body that is no UTF-8 was read with this in the place of what could not be.
    return text if text.strip() and "\ufffd" not in text else None


def _salvage_amount(value: object) -> Decimal | None:
    """Read a JSON number, or a string that holds one, of a size that money has."""
    text = str(value) if type(value) in (int, str) else ""
    return Decimal(text) if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,50})?", text) else None


def _read_purchase(answer: models.PurchaseAnswer) -> models.Purchase | None:
    # The items come with fulfilment: a result may be there before them (API sheet, 2.6).
    failed = bool(answer.error) or answer.status == "failed"
    if answer.result is not None and answer.result.nfts:
        if failed:
            raise errors.DecodeError("both fulfilled and failed", problems=["$.result: contradicts error or status"])
        return answer.result
    if failed:
        raise errors.TransactionFailed(status=200, message=answer.error or "status: failed")
    if answer.status == "pending" or answer.result is not None:
        return None
    raise errors.DecodeError("neither a fulfilled, a pending nor a failed purchase", problems=["$.result: missing"])


def _read_sellback(answer: models.SellbackAnswer) -> models.Sellback:
    if bool(answer.amount if not answer.success else answer.error):
        raise errors.DecodeError("both paid and refused", problems=["$.success: contradicts amount or error"])
    if not answer.success:
        raise errors.TransactionFailed(status=200, message=answer.error or "success: false")
    if answer.amount is None:
        raise errors.DecodeError("no amount in the answer", problems=["$.amount: missing"])
    return models.Sellback(success=True, amount=answer.amount)


def _read_shipping_request(answer: models.ShippingAnswer) -> models.ShippingRequest:
    if answer.status == "error" and not answer.order_id:
        raise errors.ShippingRequestFailed(status=200, message=answer.error_message or "status: error")
    if not answer.order_id or answer.status == "error":
        raise errors.DecodeError("no order in the answer", problems=["$.order_id: missing"])
    return models.ShippingRequest(order_id=answer.order_id, status=answer.status)


def _address_details(body: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    details, suggested = body.get("details"), body.get("suggested")
    destination: models.Destination = arguments["destination"]
    return {
        "details": details if isinstance(details, str) else "",
        # Whether a suggestion repeats name, phone and email is not known (API sheet, 2.9): merge it.
        "suggestion": destination.merged(suggested) if isinstance(suggested, dict) else None,
    }


def _error_message(body: Mapping[str, Any], _: Mapping[str, Any]) -> dict[str, Any]:
    text = body.get("error_message")
    return {"message": text if isinstance(text, str) else ""}


LIST_PACKS: Final = Operation[models.Rows[models.Pack]](
    name="list_packs",
    method="GET",
    path="/vm/available",
    query={
        "platform": Argument("platform", ID, optional=True),
        "includeRepacks": Argument("include_repacks", FLAG, optional=True),
    },
    answer=tuple[models.Pack, ...],
    read=_read_rows,
)
LIST_CHASE_CARDS: Final = Operation[models.Rows[models.ChaseCard]](
    name="list_chase_cards",
    method="GET",
    path="/vm/chase/{slug}",
    answer=tuple[models.ChaseCard, ...] | None,
    read=_read_rows,
    hint="a pack's slug is meant, not its id; list_packs() has both",
)
LIST_RECENT_PULLS: Final = Operation[models.Rows[models.Pull]](
    name="list_recent_pulls",
    method="GET",
    path="/vm/recent-pulls",
    query={
        "claw_ids": Argument("claw_ids", IDS, optional=True),
        "limit": Argument("limit", PULLS_LIMIT, optional=True),
    },
    answer=tuple[models.Pull, ...],
    read=_read_rows,
    refusals=[Refusal(500, "An unexpected error occurred", errors.ServerError)],
)
GET_CARD: Final = Operation[models.Card](
    name="get_card",
    method="GET",
    path="/card/{item_id}",
    answer=models.Card,
    refusals=[Refusal(404, "Card not found", errors.CardNotFound)],
)
START_PURCHASE: Final = Operation[models.StartedPurchase](
    name="start_purchase",
    method="POST",
    path="/vm/buy/init",
    body={
        "id": Argument("pack_id", ID),
        "amount": Argument("amount", AMOUNT),
        "user_id": Argument("user_id", ID),
    },
    effect=Effect.MOVES_MONEY,
    answer=models.StartedPurchase,
    read=_read_started,
    salvages={"session_id": _salvage_id},
    refusals=[
        Refusal(400, "Claw machine is out of stock", errors.OutOfStock),
        Refusal(400, "Amount must be greater than 0", errors.AmountOutOfRange),
        Refusal(400, "Amount must be less than or equal to {max_per_mint}", errors.AmountOutOfRange),
        Refusal(400, "VM not found", errors.PackNotFound, about="pack_id"),
        Refusal(400, "user_id is required", errors.MissingField),
        Refusal(500, "Error during transaction", errors.ServerError),
    ],
    hint="a pack's id is meant, not its slug, and it changes with a restock; list_packs() has both",
)
GET_PURCHASE: Final = Operation[models.Purchase | None](
    name="get_purchase",
    method="POST",
    path="/vm/buy/status",
    body={"session_id": Argument("session_id", ID)},
    answer=models.PurchaseAnswer,
    read=_read_purchase,
    refusals=[Refusal(400, "Transaction failed", errors.TransactionFailed, about="session_id")],
)
GET_INVENTORY: Final = Operation[models.Inventory](
    name="get_inventory",
    method="GET",
    path="/inventory/{user_id}",
    answer=models.Inventory,
    echoes="user_id",
    refusals=[
        Refusal(404, "User not found", errors.UserNotFound),
        Refusal(500, "An unexpected error occurred", errors.ServerError),
    ],
)
SELL_BACK: Final = Operation[models.Sellback](
    name="sell_back",
    method="POST",
    path="/vm/buyback",
    body={"item_id": Argument("item_id", ID)},
    effect=Effect.MOVES_MONEY,
    answer=models.SellbackAnswer,
    read=_read_sellback,
    salvages={"amount": _salvage_amount},
    refusals=[
        Refusal(400, "Item not found", errors.ItemNotFound, about="item_id"),
        Refusal(400, "Item has expired", errors.ItemExpired, about="item_id"),
        Refusal(400, "Transaction failed", errors.TransactionFailed),
        Refusal(400, "Item already has an active buyback session", errors.SellbackInProgress),
        # A lock on the item, and no limit of the client's (API sheet, 2.8).
        Refusal(
            429,
            "A buyback request for this item is already being processed",
            errors.SellbackInProgress,
            by_status=True,
        ),
        Refusal(500, "An unexpected error occurred", errors.ServerError),
    ],
)
QUOTE_SHIPPING: Final = Operation[models.ShippingQuotes](
    name="quote_shipping",
    method="POST",
    path="/ship/quote",
    body={"item_ids": Argument("item_ids", IDS), "destination": Argument("destination", DESTINATION)},
    answer=models.ShippingQuotes,
    refusals=[
        Refusal(400, "item_ids is required", errors.MissingField),
        Refusal(400, "Invalid destination address", errors.AddressRejected, details=_address_details),
        Refusal(400, "Item not found", errors.ItemNotFound, about="item_ids"),
        Refusal(400, "No shippable items in request", errors.NothingShippable),
        Refusal(422, "Country not supported", errors.CountryNotSupported),
        Refusal(500, "Failed to fetch shippi{...}", errors.ServerError),
    ],
)
REQUEST_SHIPPING: Final = Operation[models.ShippingRequest](
    name="request_shipping",
    method="POST",
    path="/ship/request",
    body={"quote_id": Argument("quote_id", ID)},
    effect=Effect.MOVES_GOODS,
    answer=models.ShippingAnswer,
    read=_read_shipping_request,
    salvages={"order_id": _salvage_id},
    refusals=[
        Refusal(400, "quote_id is required", errors.MissingField, about="quote_id"),
        Refusal(400, "Quote expired", errors.QuoteExpired, about="quote_id"),
        Refusal(400, "Item already shipped", errors.ItemAlreadyShipped),
        Refusal(None, "error", errors.ShippingRequestFailed, key="status", null="order_id", details=_error_message),
        Refusal(500, "Failed to create shipping request", errors.ServerError),
    ],
    hint="the id of one of a session's quotes is meant, such as quotes.cheapest.id, and it expires",
)
GET_SHIPPING_ORDER: Final = Operation[models.ShippingOrder](
    name="get_shipping_order",
    method="GET",
    path="/ship/order/{order_id}",
    answer=models.ShippingOrder,
    echoes="order_id",
    refusals=[
        Refusal(404, "Order not found", errors.OrderNotFound),
        Refusal(500, "An unexpected error occurred", errors.ServerError),
    ],
)

OPERATIONS: Final[tuple[Operation[Any], ...]] = tuple(one for one in vars().values() if isinstance(one, Operation))
