"""Answers that say no: every documented error in its class."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import pytest

from phygitals_async import (
    AddressRejected,
    AmountOutOfRange,
    AuthenticationError,
    BadRequest,
    CardNotFound,
    CountryNotSupported,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    MissingField,
    NotFound,
    NothingShippable,
    OrderNotFound,
    OutOfStock,
    PackNotFound,
    PermissionDenied,
    QuoteExpired,
    RateLimited,
    SellbackInProgress,
    ServerError,
    ShippingRequestFailed,
    StatusError,
    TransactionFailed,
    UserNotFound,
)
from phygitals_async._api.endpoints import OPERATIONS
from refusal_support import CALLS, FAMILIES, refused
from support import fixture_json

HTML = b"<!DOCTYPE html>\n<html><title>Attention Required! | Cloudflare</title></html>"
ROWS: Final[list[dict[str, Any]]] = fixture_json("errors.json")

_BUY, _STATUS, _SELL, _QUOTE, _SHIP = (
    "POST /api/v1/vm/buy/init", "POST /api/v1/vm/buy/status", "POST /api/v1/vm/buyback",
    "POST /api/v1/ship/quote", "POST /api/v1/ship/request",
)  # fmt: skip
# Each documented error by endpoint, status and text, and the class it lands in.
CLASSES: Final[Mapping[tuple[str, int | None, str | None], type[StatusError]]] = {
    ("*", 401, "Invalid API key"): AuthenticationError,
    ("*", 403, None): PermissionDenied,
    ("GET /api/v1/vm/recent-pulls", 500, "An unexpected error occurred"): ServerError,
    ("GET /api/v1/card/:item_id", 404, "Card not found"): CardNotFound,
    (_BUY, 400, "Claw machine is out of stock"): OutOfStock,
    (_BUY, 400, "Amount must be greater than 0"): AmountOutOfRange,
    (_BUY, 400, "Amount must be less than or equal to N"): AmountOutOfRange,
    (_BUY, 400, "VM not found"): PackNotFound,
    (_BUY, 400, "user_id is required"): MissingField,
    (_BUY, 500, "Error during transaction"): ServerError,
    (_STATUS, 400, "Transaction failed"): TransactionFailed,
    ("GET /api/v1/inventory/:user_id", 404, "User not found"): UserNotFound,
    ("GET /api/v1/inventory/:user_id", 500, "An unexpected error occurred"): ServerError,
    ("GET /api/v1/inventory/", 404, None): NotFound,
    (_SELL, 400, "Item not found"): ItemNotFound,
    (_SELL, 400, "Item has expired"): ItemExpired,
    (_SELL, 400, "Transaction failed"): TransactionFailed,
    (_SELL, 400, "Item already has an active buyback session"): SellbackInProgress,
    (_SELL, 429, "A buyback request for this item is already being processed"): SellbackInProgress,
    (_SELL, 500, "An unexpected error occurred"): ServerError,
    (_QUOTE, 400, "item_ids is required"): MissingField,
    (_QUOTE, 400, "Invalid destination address"): AddressRejected,
    (_QUOTE, 400, "Item not found"): ItemNotFound,
    (_QUOTE, 400, "No shippable items in request"): NothingShippable,
    (_QUOTE, 422, "Country not supported"): CountryNotSupported,
    (_QUOTE, 500, "Failed to fetch shippi"): ServerError,
    (_SHIP, 400, "quote_id is required"): MissingField,
    (_SHIP, 400, "Quote expired"): QuoteExpired,
    (_SHIP, 400, "Item already shipped"): ItemAlreadyShipped,
    (_SHIP, 500, "Failed to create shipping request"): ServerError,
    (_SHIP, None, None): ShippingRequestFailed,
    ("GET /api/v1/ship/order/:order_id", 404, "Order not found"): OrderNotFound,
    ("GET /api/v1/ship/order/:order_id", 500, "An unexpected error occurred"): ServerError,
}


def _family(endpoint: str, status: int) -> type[StatusError]:
    """Return what a refusal is that no text names: only a sellback knows a 429 that is no limit."""
    return SellbackInProgress if (endpoint, status) == (_SELL, 429) else FAMILIES[status]


def _key(row: Mapping[str, Any]) -> tuple[str, int | None, str | None]:
    return row["endpoint"], row["status"], (row["body"] or {}).get("error")


def _rows() -> list[Any]:
    """Return each documented error with each call that can meet it and each status it can come with."""
    params = []
    for row in ROWS:
        # The client cannot leave the user out; a server without the route answers so all the same.
        endpoint = row["endpoint"] + (":user_id" if row["endpoint"].endswith("/") else "")
        endpoints = list(CALLS) if endpoint == "*" else [endpoint]
        statuses = [200, 400, 500] if row["status"] is None else [row["status"]]
        body = row["body"]
        if row.get("match") == "template":
            body = {"error": body["error"].replace(" N", " 10")}
        if row.get("match") == "prefix":
            body = {"error": body["error"] + "ng rates"}
        for one in endpoints:
            params += [
                pytest.param(one, status, body, CLASSES[_key(row)], id=f"{one}-{status}-{(body or {}).get('error')}")
                for status in statuses
            ]
    return params


def _texts() -> list[Any]:
    """Return each documented error that has a text, with its endpoint and status."""
    found = {(row["endpoint"], row["status"], row["body"]["error"]) for row in ROWS if _key(row)[2]}
    return [pytest.param(*one, id="-".join(map(str, one))) for one in sorted(found) if one[0] != "*"]


def _error(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


# The documented errors


def test_every_documented_error_has_its_class_here() -> None:
    """The table here is the documents', row by row, and names every operation."""
    assert {_key(row) for row in ROWS} == set(CLASSES)
    assert set(CALLS) == {f"{o.method} /api/v1" + re.sub(r"{(\w+)}", r":\1", o.path) for o in OPERATIONS}


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "body", "expected"), _rows())
async def test_each_documented_error_lands_in_its_class(
    endpoint: str, status: int, body: dict[str, Any] | None, expected: type[StatusError]
) -> None:
    """By endpoint, status and text; a 5xx of a call that moves money or goods leaves its outcome unknown."""
    data = HTML if body is None else json.dumps(body).encode()
    error = await refused(endpoint, status, data)
    assert type(error) is expected
    assert error.status == status
    if body is not None:
        assert error.message == body.get("error", body.get("error_message"))
        assert error.message in str(error)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 502, 520, 599])
@pytest.mark.parametrize("body", [_error("An unexpected error occurred"), HTML], ids=["json", "html"])
@pytest.mark.parametrize("endpoint", list(CALLS))
async def test_a_server_error_is_one_everywhere(endpoint: str, status: int, body: bytes) -> None:
    """Of a read it is a `ServerError`; of a call that moves money or goods it is the cause of `OutcomeUnknown`."""
    error = await refused(endpoint, status, body)
    assert type(error) is ServerError


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
@pytest.mark.parametrize("change", ["now: {}", "", "upper"])
async def test_a_changed_text_falls_back_to_the_family(endpoint: str, status: int, text: str, change: str) -> None:
    """Texts may change; the status still tells the family."""
    changed = text.upper() if change == "upper" else change.format(text)
    assert changed != text
    error = await refused(endpoint, status, _error(changed))
    assert type(error) is _family(endpoint, status)
    assert error.message == changed


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
async def test_a_text_means_something_only_with_its_status(endpoint: str, status: int, text: str) -> None:
    """The same text under another status is that status's family."""
    known = {CLASSES[key] for key in CLASSES if key[0] == endpoint and key[2] == text}
    for other, family in FAMILIES.items():
        if (endpoint, other, text) not in CLASSES and other != status:
            error = await refused(endpoint, other, _error(text))
            assert type(error) is _family(endpoint, other)
            assert family is ServerError or (endpoint, other) == (_SELL, 429) or type(error) not in known


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
async def test_a_text_means_something_only_at_its_endpoint(endpoint: str, status: int, text: str) -> None:
    """The same status and text from an endpoint that does not document them are the status's family."""
    for other in CALLS:
        expected = CLASSES.get((other, status, text), _family(other, status))
        assert type(await refused(other, status, _error(text))) is expected


@pytest.mark.anyio
@pytest.mark.parametrize("largest", ["1", "10", "1000000", "ten", ""])
async def test_the_largest_amount_is_any_text(largest: str) -> None:
    """The vendor's N is whatever it is."""
    error = await refused(_BUY, 400, _error(f"Amount must be less than or equal to {largest}"))
    assert type(error) is AmountOutOfRange
    assert error.message.endswith(largest)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["Amount must be odd", "Amount must be less than or equal to", "Amount"])
async def test_another_word_about_the_amount_is_not_the_documented_one(text: str) -> None:
    """The text up to the vendor's N is compared whole."""
    assert type(await refused(_BUY, 400, _error(text))) is BadRequest


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"Transaction failed"', b'{"error": ["Transaction failed"]}', b'{"error": null}',
     b'{"message": "Transaction failed"}', b'{"Error": "Transaction failed"}', HTML],
)  # fmt: skip
async def test_a_text_elsewhere_names_no_refusal(body: bytes) -> None:
    """Only the documented place is read."""
    assert type(await refused(_STATUS, 400, body)) is BadRequest


@pytest.mark.anyio
@pytest.mark.parametrize("retry_after", [None, "7"])
@pytest.mark.parametrize(
    "body",
    [
        _error("A buyback request for this item is already being processed"), _error("Rate limit exceeded"), HTML,
        b"", b"[]", b'{"error"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", list(CALLS))
async def test_a_429_of_a_sellback_is_a_lock_and_elsewhere_a_limit(
    endpoint: str, body: bytes, retry_after: str | None
) -> None:
    """The documents name no other 429 of a sellback: it is the lock on the item, whatever the body says."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    error = await refused(endpoint, 429, body, headers)
    assert type(error) is (SellbackInProgress if endpoint == _SELL else RateLimited)
    assert error.retry_after == (None if retry_after is None else 7.0)
