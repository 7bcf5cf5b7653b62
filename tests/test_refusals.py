"""Answers that say no: every documented error, and every refusal of the sandbox, in its class."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, Literal

import attrs
import pytest
from attrs import evolve, field, frozen

from phygitals_async import (
    AddressRejected,
    AmountOutOfRange,
    AuthenticationError,
    BadRequest,
    CardNotFound,
    CountryNotSupported,
    DecodeError,
    Destination,
    ItemAlreadyShipped,
    ItemExpired,
    ItemNotFound,
    MissingField,
    NotFound,
    NothingShippable,
    OrderNotFound,
    OutcomeUnknown,
    OutOfStock,
    PackNotFound,
    PermissionDenied,
    PhygitalsClient,
    PhygitalsError,
    QuoteExpired,
    RateLimited,
    Request,
    Response,
    Sandbox,
    SellbackInProgress,
    Sent,
    ServerError,
    ShippingRequestFailed,
    StatusError,
    TransactionFailed,
    Transport,
    UserNotFound,
    build_converter,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async.sandbox import RateLimit, SandboxOptions
from phygitals_transports import AiohttpTransport, MemoryTransport
from phygitals_transports.aiohttp_server import serve
from support import ONCE, fixture_json

KEY = "sandbox-0123456789"
# Thousands of clients are made here; building a converter is most of the work of making one.
CONVERTER = build_converter()
HTML = b"<!DOCTYPE html>\n<html><title>Attention Required! | Cloudflare</title></html>"
DESTINATION: Final = Destination(
    name="Jane Doe", line1="123 Main St", city="Austin", postal_code="78701", country="US", phone="+1", email="j@x.com"
)

Call = Callable[[PhygitalsClient], Awaitable[Any]]

# A call of each operation, by its method and path in the documents.
CALLS: Final[Mapping[str, Call]] = {
    "GET /api/v1/vm/available": lambda api: api.list_packs(),
    "GET /api/v1/vm/chase/:slug": lambda api: api.list_chase_cards("slug"),
    "GET /api/v1/vm/recent-pulls": lambda api: api.list_recent_pulls(),
    "GET /api/v1/card/:item_id": lambda api: api.get_card("a"),
    "POST /api/v1/vm/buy/init": lambda api: api.start_purchase("pack", 2, "user"),
    "POST /api/v1/vm/buy/status": lambda api: api.get_purchase("session"),
    "GET /api/v1/inventory/:user_id": lambda api: api.get_inventory("user"),
    "POST /api/v1/vm/buyback": lambda api: api.sell_back("a"),
    "POST /api/v1/ship/quote": lambda api: api.quote_shipping(["a"], DESTINATION),
    "POST /api/v1/ship/request": lambda api: api.request_shipping("quote_1_rate_priority"),
    "GET /api/v1/ship/order/:order_id": lambda api: api.get_shipping_order("order"),
}
MOVING: Final = ("POST /api/v1/vm/buy/init", "POST /api/v1/vm/buyback", "POST /api/v1/ship/request")
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
FAMILIES: Final[Mapping[int, type[StatusError]]] = {
    400: BadRequest, 401: AuthenticationError, 403: PermissionDenied, 404: NotFound, 409: BadRequest,
    422: BadRequest, 429: RateLimited, 500: ServerError, 503: ServerError, 520: ServerError,
}  # fmt: skip


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


async def _fails(call: Call, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> PhygitalsError:
    """Make a call that is answered so; return the error, which was raised after one request."""
    transport = MemoryTransport(lambda _: Response(status, dict(headers or {}), body))
    async with PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        with pytest.raises(PhygitalsError) as caught:
            await call(api)
    assert len(transport.sent) == 1
    assert caught.value.attempts == 1
    _assert_pickles(caught.value)
    return caught.value


async def _refused(endpoint: str, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> StatusError:
    """Return the refusal in an answer, or the one behind an `OutcomeUnknown`."""
    error = await _fails(CALLS[endpoint], status, body, headers)
    cause = error.__cause__ if isinstance(error, OutcomeUnknown) else error
    assert isinstance(cause, StatusError)
    assert isinstance(error, OutcomeUnknown) == (endpoint in MOVING and type(cause) in (ServerError, StatusError))
    assert (cause.sent, error.sent) == (Sent.YES, Sent.YES)
    return cause


def _assert_pickles(error: PhygitalsError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


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
    error = await _refused(endpoint, status, data)
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
    error = await _refused(endpoint, status, body)
    assert type(error) is ServerError


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
@pytest.mark.parametrize("change", ["now: {}", "", "upper"])
async def test_a_changed_text_falls_back_to_the_family(endpoint: str, status: int, text: str, change: str) -> None:
    """Texts may change; the status still tells the family."""
    changed = text.upper() if change == "upper" else change.format(text)
    assert changed != text
    error = await _refused(endpoint, status, _error(changed))
    assert type(error) is _family(endpoint, status)
    assert error.message == changed


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
async def test_a_text_means_something_only_with_its_status(endpoint: str, status: int, text: str) -> None:
    """The same text under another status is that status's family."""
    known = {CLASSES[key] for key in CLASSES if key[0] == endpoint and key[2] == text}
    for other, family in FAMILIES.items():
        if (endpoint, other, text) not in CLASSES and other != status:
            error = await _refused(endpoint, other, _error(text))
            assert type(error) is _family(endpoint, other)
            assert family is ServerError or (endpoint, other) == (_SELL, 429) or type(error) not in known


@pytest.mark.anyio
@pytest.mark.parametrize(("endpoint", "status", "text"), _texts())
async def test_a_text_means_something_only_at_its_endpoint(endpoint: str, status: int, text: str) -> None:
    """The same status and text from an endpoint that does not document them are the status's family."""
    for other in CALLS:
        expected = CLASSES.get((other, status, text), _family(other, status))
        assert type(await _refused(other, status, _error(text))) is expected


@pytest.mark.anyio
@pytest.mark.parametrize("largest", ["1", "10", "1000000", "ten", ""])
async def test_the_largest_amount_is_any_text(largest: str) -> None:
    """The vendor's N is whatever it is."""
    error = await _refused(_BUY, 400, _error(f"Amount must be less than or equal to {largest}"))
    assert type(error) is AmountOutOfRange
    assert error.message.endswith(largest)


@pytest.mark.anyio
@pytest.mark.parametrize("text", ["Amount must be odd", "Amount must be less than or equal to", "Amount"])
async def test_another_word_about_the_amount_is_not_the_documented_one(text: str) -> None:
    """The text up to the vendor's N is compared whole."""
    assert type(await _refused(_BUY, 400, _error(text))) is BadRequest


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'"Transaction failed"', b'{"error": ["Transaction failed"]}', b'{"error": null}',
     b'{"message": "Transaction failed"}', b'{"Error": "Transaction failed"}', HTML],
)  # fmt: skip
async def test_a_text_elsewhere_names_no_refusal(body: bytes) -> None:
    """Only the documented place is read."""
    assert type(await _refused(_STATUS, 400, body)) is BadRequest


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
    error = await _refused(endpoint, 429, body, headers)
    assert type(error) is (SellbackInProgress if endpoint == _SELL else RateLimited)
    assert error.retry_after == (None if retry_after is None else 7.0)


# The address


def _rejection(**more: Any) -> bytes:
    return json.dumps({"error": "Invalid destination address", **more}).encode()


async def _address(body: bytes, destination: Destination = DESTINATION) -> AddressRejected:
    error = await _fails(lambda api: api.quote_shipping(["a"], destination), 400, body)
    assert type(error) is AddressRejected
    assert error.message == "Invalid destination address"
    return error


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("suggested", "merged"),
    [
        ({"postal_code": "78702"}, {"postal_code": "78702"}),
        ({"line1": "1 Main", "line2": "B", "state": "TX"}, {"line1": "1 Main", "line2": "B", "state": "TX"}),
        (
            {"name": "J D", "line1": "1", "city": "C", "postal_code": "2", "country": "CA", "phone": "3", "email": "e"},
            {"name": "J D", "line1": "1", "city": "C", "postal_code": "2", "country": "CA", "phone": "3", "email": "e"},
        ),
        ({"city": "Dallas", "zip": "1", "x": {"city": "No"}}, {"city": "Dallas"}),
        ({"city": "Dallas", "line1": None, "state": 5, "country": ["US"], "phone": False}, {"city": "Dallas"}),
        ({"city": {"city": "Dallas"}, "postal_code": 78702}, {}),
        ({}, {}),
    ],
)
async def test_a_suggestion_is_laid_over_the_destination_sent(
    suggested: dict[str, Any], merged: dict[str, str]
) -> None:
    """What it repeats replaces what was sent; what it leaves out, or says in another type, stays."""
    error = await _address(_rejection(details="No such street.", suggested=suggested))
    assert error.suggestion == evolve(DESTINATION, **merged)
    assert error.details == "No such street."
    assert error.arguments == {"item_ids": ["a"], "destination": DESTINATION}


@pytest.mark.anyio
@pytest.mark.parametrize("suggested", [None, [], ["Austin"], "Austin", 5, False])
async def test_a_suggestion_of_another_type_is_none(suggested: Any) -> None:
    """Nothing is made up where the vendor suggests nothing usable."""
    assert (await _address(_rejection(details="x", suggested=suggested))).suggestion is None


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"details": None}, {"details": 5}, {"details": ["x"]}, {"details": {}}])
async def test_a_rejection_without_details_or_suggestion(more: dict[str, Any]) -> None:
    """Both are optional: no details are an empty text, no suggestion is None."""
    error = await _address(_rejection(**more))
    assert (error.details, error.suggestion) == ("", None)


@pytest.mark.anyio
async def test_a_suggestion_can_be_quoted_as_it_is() -> None:
    """The suggested destination goes straight into the next quote, with the name that was sent."""
    sandbox = Sandbox(seed=1, options=SandboxOptions(reject_addresses=1, suggestion={"postal_code": "78702", "x": 1}))
    item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
    transport = MemoryTransport(sandbox)
    async with PhygitalsClient(transport, api_key=KEY, retry=ONCE, converter=CONVERTER) as api:
        with pytest.raises(AddressRejected) as caught:
            await api.quote_shipping([item.id], DESTINATION)
        assert caught.value.suggestion is not None
        await api.quote_shipping([item.id], caught.value.suggestion)
    body = json.loads(transport.sent[1].body or b"")
    given = {name: text for name, text in attrs.asdict(DESTINATION).items() if text is not None}
    assert body["destination"] == {**given, "postal_code": "78702"}


@pytest.mark.anyio
async def test_the_text_of_a_rejection_shows_no_address_that_was_sent() -> None:
    """A destination is personal data: it is in the arguments, and not in what is logged."""
    error = await _address(_rejection(details="x"))
    for part in ("Jane", "123 Main", "78701", "j@x.com"):
        assert part not in str(error)


# Failures inside a 2xx, and the reserved shape


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 201, 202])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "Transaction failed"}, "Transaction failed"),
        ({"error": "Card lost"}, "Card lost"),
        ({"status": "failed"}, "status: failed"),
        ({"status": "failed", "error": "Card lost"}, "Card lost"),
        ({"status": "pending", "error": "Card lost"}, "Card lost"),
        ({"result": None, "status": "failed"}, "status: failed"),
    ],
)
async def test_a_purchase_that_failed_inside_a_2xx(body: dict[str, Any], message: str, status: int) -> None:
    """Integrators met an `error` field and `status: failed` in a 2xx (API sheet, 2.6)."""
    error = await _fails(CALLS[_STATUS], status, json.dumps(body).encode())
    assert isinstance(error, TransactionFailed)
    assert error.message == message
    assert error.status == status
    assert (error.operation, error.arguments) == ("get_purchase", {"session_id": "session"})
    assert error.snippet == json.dumps(body)


@pytest.mark.anyio
@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": "sleeping"}, {"result": None}])
async def test_a_purchase_answer_that_says_nothing_is_told(body: dict[str, Any]) -> None:
    """An answer that is neither fulfilled, pending nor failed is a `DecodeError`, and not None."""
    error = await _fails(CALLS[_STATUS], 200, json.dumps(body).encode())
    assert isinstance(error, DecodeError)
    assert error.problems == ("$.result: missing",)
    assert error.snippet == json.dumps(body)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        {"success": False, "amount": 0},
        {"success": False},
        {"success": False, "amount": None},
        {"success": False, "error": "No funds"},
    ],
)
async def test_a_sellback_that_says_it_did_not_succeed(body: dict[str, Any]) -> None:
    """`success: false` without money is a refusal, known for sure."""
    error = await _fails(CALLS[_SELL], 200, json.dumps(body).encode())
    assert type(error) is TransactionFailed
    assert (error.status, error.operation, error.arguments) == (200, "sell_back", {"item_id": "a"})


@pytest.mark.anyio
async def test_a_sellback_that_contradicts_itself_leaves_the_outcome_unknown() -> None:
    """An answer that denies the sale and names what was paid is no refusal to rely on."""
    error = await _fails(CALLS[_SELL], 200, b'{"success": false, "amount": 98.5}')
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, DecodeError)
    assert error.readable == {"amount": Decimal("98.5")}


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"amount": None}])
async def test_a_sellback_that_succeeded_without_an_amount_leaves_the_outcome_unknown(more: dict[str, Any]) -> None:
    """What was paid is not made up; that something was is not denied."""
    error = await _fails(CALLS[_SELL], 200, json.dumps({"success": True, **more}).encode())
    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, DecodeError)
    assert error.__cause__.problems == ("$.amount: missing",)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [200, 400, 500])
@pytest.mark.parametrize(
    ("text", "message"), [("No courier", "No courier"), ("", None), (None, None)], ids=["text", "empty", "null"]
)
async def test_the_reserved_failure_is_one_whatever_its_status(
    status: int, text: str | None, message: str | None
) -> None:
    """`{order_id: null, status: "error"}` is known to have failed, at 200, 400 and 500 (API sheet, 2.10)."""
    body = {"order_id": None, "status": "error", "error_message": text}
    error = await _fails(CALLS[_SHIP], status, json.dumps(body).encode())
    assert isinstance(error, ShippingRequestFailed)
    assert error.status == status
    assert error.sent is Sent.YES
    if message is not None:
        assert error.message == message
    assert error.arguments == {"quote_id": "quote_1_rate_priority"}


@pytest.mark.anyio
@pytest.mark.parametrize("endpoint", [endpoint for endpoint in CALLS if endpoint != _SHIP])
async def test_the_reserved_failure_belongs_to_its_endpoint(endpoint: str) -> None:
    """Elsewhere such a body is nothing known."""
    body = json.dumps({"order_id": None, "status": "error", "error_message": "x"}).encode()
    assert type(await _refused(endpoint, 400, body)) is BadRequest


@pytest.mark.anyio
@pytest.mark.parametrize("status", [500, 502, 504])
@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "upstream request timeout"},
        {"status": "error", "error": "Failed to create shipping request"},
        {"status": "error", "order_id": "order_123"},
    ],
    ids=["gateway", "documented-text", "with-an-order"],
)
async def test_another_body_with_a_status_of_error_leaves_the_outcome_unknown(
    status: int, body: dict[str, Any]
) -> None:
    """`status: error` is how many a gateway words a timeout: only the null `order_id` beside it says "no order"."""
    error = await _fails(CALLS[_SHIP], status, json.dumps(body).encode())
    assert type(error) is OutcomeUnknown
    assert type(error.__cause__) is ServerError


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 403, 429])
async def test_another_body_with_a_status_of_error_has_its_family(status: int) -> None:
    """A refused key stays a refused key, however its body is worded."""
    error = await _fails(CALLS[_SHIP], status, b'{"status": "error", "message": "Unauthorized"}')
    assert type(error) is FAMILIES[status]


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"order_id": None}, {"order_id": ""}])
async def test_a_success_without_an_order_leaves_the_outcome_unknown(more: dict[str, Any]) -> None:
    """A success that names no order is nothing to rely on."""
    error = await _fails(CALLS[_SHIP], 200, json.dumps({"status": "success", **more}).encode())
    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, DecodeError)
    assert error.__cause__.problems == ("$.order_id: missing",)


@pytest.mark.anyio
async def test_a_failure_that_names_an_order_leaves_the_outcome_unknown() -> None:
    """Inside a 2xx too, only a null `order_id` says that no order was made."""
    error = await _fails(CALLS[_SHIP], 200, b'{"order_id": "order_123", "status": "error", "error_message": "x"}')
    assert type(error) is OutcomeUnknown


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["start_purchase", "purchase"])
async def test_a_purchase_started_without_a_session_leaves_the_outcome_unknown(call: str) -> None:
    """Money may have moved, and the handle on it is lost: no error may say that nothing was sent."""
    error = await _fails(lambda api: getattr(api, call)("pack", 1, "user"), 200, b'{"session_id": "", "nfts": []}')
    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, DecodeError)
    assert error.arguments == {"pack_id": "pack", "amount": 1, "user_id": "user"}


# Words


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (ItemNotFound, ["sell_back", "sold", "locked", "quote_shipping", "another partner", "2.8", "2.9"]),
        (TransactionFailed, ["get_purchase", "sandbox", "unknown", "production", "sell_back", "2.6", "2.8"]),
        (QuoteExpired, ["past its expiry", "session unknown", "rate", "2.10"]),
        (MissingField, ["missing", "malformed", "2.5", "2.9", "2.10"]),
        (OutOfStock, ["disabled", "out of stock", "without a card", "2.5"]),
        (PackNotFound, ["400", "not 404", "2.5"]),
        (SellbackInProgress, ["400", "429", "active session", "concurrent", "ItemNotFound", "2.8"]),
    ],
)
def test_an_ambiguous_text_is_explained_where_it_is_caught(cls: type[StatusError], words: list[str]) -> None:
    """The docstring tells every meaning that the sheet's section 5 lists."""
    text = " ".join((cls.__doc__ or "").split())
    assert [word for word in words if word not in text] == []


# The sandbox's refusals, in memory and over HTTP


@frozen
class Changing:
    """A transport that changes the body, so that the API misses what this library always sends."""

    inner: Transport
    change: dict[str, Any]

    async def send(self, request: Request) -> Response:
        """Send the request with its body changed; None takes a field away."""
        body = {**json.loads(request.body or b"{}"), **self.change}
        kept = {name: value for name, value in body.items() if value is not None}
        return await self.inner.send(evolve(request, body=json.dumps(kept).encode()))

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self.inner.aclose()


@frozen
class Scene:
    """A sandbox, and a client of it for the table below.

    Attributes:
        sandbox: The sandbox, with one user.
        api: The client.
        user_id: The user.
        item_id: What the user owns.
    """

    sandbox: Sandbox
    api: PhygitalsClient
    user_id: str
    item_id: str

    @property
    def pack_id(self) -> str:
        """A pack that can be bought."""
        return self.sandbox.packs[0].id

    async def quote(self, *item_ids: str, **address: Any) -> str:
        """Return the id of a quote."""
        destination = evolve(DESTINATION, **address)
        return (await self.api.quote_shipping(item_ids or [self.item_id], destination)).quotes[0].id


@frozen
class Case:
    """One refusal of the sandbox.

    Attributes:
        name: What brings it about.
        play: Brings it about.
        expected: Its class.
        status: Its status.
        message: Its text.
        operation: The call that meets it.
        client: Settings of the client.
        change: What is changed in the bodies sent.
    """

    name: str
    play: Callable[[Scene], Awaitable[Any]]
    expected: type[StatusError]
    status: int
    message: str
    operation: str
    client: dict[str, Any] = field(factory=dict)
    change: dict[str, Any] | None = None


async def _sold(scene: Scene) -> None:
    await scene.api.sell_back(scene.item_id)
    await scene.api.sell_back(scene.item_id)


async def _sell_locked(scene: Scene) -> None:
    await scene.api.request_shipping(await scene.quote())
    await scene.api.sell_back(scene.item_id)


async def _sell_late(scene: Scene) -> None:
    scene.sandbox.advance(timedelta(days=7))
    await scene.api.sell_back(scene.item_id)


async def _sell_wiped(scene: Scene) -> None:
    scene.sandbox.wipe()
    await scene.api.sell_back(scene.item_id)


def _sell_with(option: str) -> Callable[[Scene], Awaitable[Any]]:
    async def play(scene: Scene) -> None:
        setattr(scene.sandbox.options, option, 1)
        await scene.api.sell_back(scene.item_id)

    return play


async def _buy_disabled(scene: Scene) -> None:
    scene.sandbox.add_pack(evolve(scene.sandbox.packs[0], enable=False))
    await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)


async def _buy_sold_out(scene: Scene) -> None:
    (pack,) = [pack for pack in scene.sandbox.packs if not pack.in_stock]
    await scene.api.start_purchase(pack.id, 1, scene.user_id)


async def _buy_empty(scene: Scene) -> None:
    scene.sandbox.add_pack(scene.sandbox.packs[0], [])
    await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)


async def _poll_failed(scene: Scene) -> None:
    scene.sandbox.options.fail_purchases = True
    started = await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)
    await scene.api.get_purchase(started.session_id)


async def _poll_wiped(scene: Scene) -> None:
    started = await scene.api.start_purchase(scene.pack_id, 1, scene.user_id)
    scene.sandbox.wipe()
    await scene.api.get_purchase(started.session_id)


async def _inventory_wiped(scene: Scene) -> None:
    await scene.api.get_inventory(scene.user_id)
    scene.sandbox.wipe()
    await scene.api.get_inventory(scene.user_id)


async def _quote_unserviced(scene: Scene) -> None:
    scene.sandbox.options.countries = frozenset({"CA"})
    await scene.quote(country="US")


async def _quote_rejected(scene: Scene) -> None:
    scene.sandbox.options.reject_addresses = 1
    await scene.quote()


async def _quote_unshippable(scene: Scene) -> None:
    scene.sandbox.options.unshippable = {scene.item_id}
    await scene.quote()


async def _ship_late(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.advance(timedelta(minutes=15))
    await scene.api.request_shipping(quote_id)


async def _ship_wiped(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.wipe()
    await scene.api.request_shipping(quote_id)


async def _ship_other_rate(scene: Scene) -> None:
    session_id = (await scene.quote()).partition("_rate_")[0]
    await scene.api.request_shipping(f"{session_id}_rate_teleport")


async def _ship_session(scene: Scene) -> None:
    quotes = await scene.api.quote_shipping([scene.item_id], DESTINATION)
    await scene.api.request_shipping(quotes.session_id)


async def _ship_twice(scene: Scene) -> None:
    first, second = await scene.quote(), await scene.quote()
    await scene.api.request_shipping(first)
    await scene.api.request_shipping(second)


async def _ship_reserved(scene: Scene) -> None:
    quote_id = await scene.quote()
    scene.sandbox.options.fail_shipping = 1
    await scene.api.request_shipping(quote_id)


async def _order_wiped(scene: Scene) -> None:
    order = await scene.api.request_shipping(await scene.quote())
    await scene.api.get_shipping_order(order.order_id)
    scene.sandbox.wipe()
    await scene.api.get_shipping_order(order.order_id)


def _breaking(play: Callable[[Scene], Awaitable[Any]]) -> Callable[[Scene], Awaitable[Any]]:
    async def broken(scene: Scene) -> None:
        scene.sandbox.options.server_errors = 1
        await play(scene)

    return broken


async def _too_often(scene: Scene) -> None:
    scene.sandbox.options.rate_limit = RateLimit(per_second=0.001, burst=1)
    await scene.api.list_packs()
    await scene.api.list_packs()


_STOCK, _AMOUNT = "Claw machine is out of stock", "Amount must be "
_GONE, _FAILED, _COUNTRY = "Item not found", "Transaction failed", "Country not supported"
_BROKEN = "An unexpected error occurred"
SCENES: Final = [
    Case(
        "key",
        lambda s: s.api.list_packs(),
        AuthenticationError,
        401,
        "Invalid API key",
        "list_packs",
        {"api_key": "live"},
    ),
    Case(
        "key-money",
        lambda s: s.api.sell_back(s.item_id),
        AuthenticationError,
        401,
        "Invalid API key",
        "sell_back",
        {"api_key": "live"},
    ),
    Case("limit", _too_often, RateLimited, 429, "Rate limit exceeded", "list_packs"),
    Case("route", lambda s: s.api.list_packs(), NotFound, 404, "", "list_packs", {"path_prefix": "/api/partner/v1"}),
    Case("json", lambda s: s.api.sell_back(s.item_id), ItemNotFound, 400, _GONE, "sell_back", change={"item_id": 5}),
    Case("slug", lambda s: s.api.list_chase_cards("nope"), NotFound, 404, "Pack not found", "list_chase_cards"),
    Case("card", lambda s: s.api.get_card("nope"), CardNotFound, 404, "Card not found", "get_card"),
    Case("user", lambda s: s.api.get_inventory("nope"), UserNotFound, 404, "User not found", "get_inventory"),
    Case("user-wiped", _inventory_wiped, UserNotFound, 404, "User not found", "get_inventory"),
    Case("pack-off", _buy_disabled, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack-sold-out", _buy_sold_out, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack-empty", _buy_empty, OutOfStock, 400, _STOCK, "start_purchase"),
    Case("pack", lambda s: s.api.start_purchase("nope", 1, "u"), PackNotFound, 400, "VM not found", "start_purchase"),
    Case(
        "pack-slug",
        lambda s: s.api.start_purchase("topps-chrome-2024", 1, "u"),
        PackNotFound,
        400,
        "VM not found",
        "start_purchase",
    ),
    Case(
        "many",
        lambda s: s.api.start_purchase(s.pack_id, 11, "u"),
        AmountOutOfRange,
        400,
        _AMOUNT + "less than or equal to 10",
        "start_purchase",
    ),
    Case(
        "none",
        lambda s: s.api.start_purchase(s.pack_id, 1, "u"),
        AmountOutOfRange,
        400,
        _AMOUNT + "greater than 0",
        "start_purchase",
        change={"amount": 0},
    ),
    Case(
        "no-user",
        lambda s: s.api.start_purchase(s.pack_id, 1, "u"),
        MissingField,
        400,
        "user_id is required",
        "start_purchase",
        change={"user_id": None},
    ),
    Case("session", lambda s: s.api.get_purchase("nope"), TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("session-failed", _poll_failed, TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("session-wiped", _poll_wiped, TransactionFailed, 400, _FAILED, "get_purchase"),
    Case("sell-unknown", lambda s: s.api.sell_back("nope"), ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-sold", _sold, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-locked", _sell_locked, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-wiped", _sell_wiped, ItemNotFound, 400, _GONE, "sell_back"),
    Case("sell-late", _sell_late, ItemExpired, 400, "Item has expired", "sell_back"),
    Case("sell-failed", _sell_with("fail_sellbacks"), TransactionFailed, 400, _FAILED, "sell_back"),
    Case(
        "sell-busy",
        _sell_with("busy_sellbacks"),
        SellbackInProgress,
        400,
        "Item already has an active buyback session",
        "sell_back",
    ),
    Case(
        "sell-lock",
        _sell_with("lock_sellbacks"),
        SellbackInProgress,
        429,
        "A buyback request for this item is already being processed",
        "sell_back",
    ),
    Case(
        "no-items",
        lambda s: s.quote(),
        MissingField,
        400,
        "item_ids is required",
        "quote_shipping",
        change={"item_ids": []},
    ),
    Case("item", lambda s: s.quote("nope"), ItemNotFound, 400, _GONE, "quote_shipping"),
    Case("item-among", lambda s: s.quote(s.item_id, "nope"), ItemNotFound, 400, _GONE, "quote_shipping"),
    Case("country", lambda s: s.quote(country="USA"), CountryNotSupported, 422, _COUNTRY, "quote_shipping"),
    Case("country-list", _quote_unserviced, CountryNotSupported, 422, _COUNTRY, "quote_shipping"),
    Case("address", _quote_rejected, AddressRejected, 400, "Invalid destination address", "quote_shipping"),
    Case("unshippable", _quote_unshippable, NothingShippable, 400, "No shippable items in request", "quote_shipping"),
    Case("ship-session", _ship_session, MissingField, 400, "quote_id is required", "request_shipping"),
    Case(
        "ship-unknown",
        lambda s: s.api.request_shipping("q_rate_x"),
        QuoteExpired,
        400,
        "Quote expired",
        "request_shipping",
    ),
    Case("ship-rate", _ship_other_rate, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-late", _ship_late, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-wiped", _ship_wiped, QuoteExpired, 400, "Quote expired", "request_shipping"),
    Case("ship-twice", _ship_twice, ItemAlreadyShipped, 400, "Item already shipped", "request_shipping"),
    Case(
        "ship-reserved",
        _ship_reserved,
        ShippingRequestFailed,
        200,
        "The order could not be created.",
        "request_shipping",
    ),
    Case(
        "order", lambda s: s.api.get_shipping_order("nope"), OrderNotFound, 404, "Order not found", "get_shipping_order"
    ),
    Case("order-wiped", _order_wiped, OrderNotFound, 404, "Order not found", "get_shipping_order"),
    *(
        Case(f"broken-{name}", _breaking(play), ServerError, 500, text, name, {"retry": ONCE})
        for name, play, text in (
            ("list_recent_pulls", lambda s: s.api.list_recent_pulls(), _BROKEN),
            ("start_purchase", lambda s: s.api.start_purchase(s.pack_id, 1, "u"), "Error during transaction"),
            ("get_inventory", lambda s: s.api.get_inventory(s.user_id), _BROKEN),
            ("sell_back", lambda s: s.api.sell_back(s.item_id), _BROKEN),
            ("quote_shipping", lambda s: s.quote(), "Failed to fetch shippi"),
            ("request_shipping", lambda s: s.api.request_shipping("q_rate_x"), "Failed to create shipping request"),
            ("get_shipping_order", lambda s: s.api.get_shipping_order("x"), _BROKEN),
        )
    ),
]


@frozen
class Engine:
    """A way to reach a sandbox, and the event loop it runs on."""

    name: Literal["memory", "http"]
    loop: Literal["asyncio", "trio"]

    @asynccontextmanager
    async def client(
        self, sandbox: Sandbox, change: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[PhygitalsClient]:
        """Give a client of the sandbox whose bodies are changed on their way."""
        async with AsyncExitStack() as stack:
            in_memory = self.name == "memory"
            url = "http://127.0.0.1:8765" if in_memory else await stack.enter_async_context(serve(sandbox))
            transport: Transport = MemoryTransport(sandbox) if in_memory else AiohttpTransport()
            if change is not None:
                transport = Changing(transport, change)
            given = {"api_key": KEY, "base_url": f"{url}/_", "converter": CONVERTER, **settings}
            yield await stack.enter_async_context(PhygitalsClient(transport, **given))


ENGINES: Final = [Engine("memory", "asyncio"), Engine("memory", "trio"), Engine("http", "asyncio")]


class TestSandbox:
    """The sandbox's refusals, through every engine."""

    @pytest.fixture(params=ENGINES, ids=[f"{engine.name}-{engine.loop}" for engine in ENGINES])
    def engine(self, request: pytest.FixtureRequest) -> Engine:
        """Give each way to reach a sandbox."""
        assert isinstance(request.param, Engine)
        return request.param

    @pytest.fixture
    def anyio_backend(self, engine: Engine) -> str:
        """Run on the engine's event loop."""
        return engine.loop

    @pytest.mark.anyio
    @pytest.mark.parametrize("case", SCENES, ids=[case.name for case in SCENES])
    async def test_each_refusal_lands_in_its_class(self, engine: Engine, case: Case) -> None:
        """What the sandbox refuses arrives in its class, with its text, over memory and over HTTP alike.

        A 500 of a call that moves money or goods is the cause of an `OutcomeUnknown`.
        """
        sandbox = Sandbox(seed=1)
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal("8.50"))
        async with engine.client(sandbox, case.change, **case.client) as api:
            with pytest.raises(PhygitalsError) as caught:
                await case.play(Scene(sandbox, api, "user", item.id))
        error = caught.value
        moves = next(o.effect.is_irreversible for o in OPERATIONS if o.name == case.operation)
        assert isinstance(error, OutcomeUnknown) == (moves and case.expected is ServerError)
        assert (error.attempts, error.sent, error.operation) == (1, Sent.YES, case.operation)
        _assert_pickles(error)
        refusal = error.__cause__ if isinstance(error, OutcomeUnknown) else error
        assert isinstance(refusal, StatusError)
        assert type(refusal) is case.expected
        assert (refusal.status, refusal.message, refusal.operation) == (case.status, case.message, case.operation)

    @pytest.mark.anyio
    async def test_a_rate_limit_says_how_long_to_wait(self, engine: Engine) -> None:
        """The header arrives, where the sandbox is told to send one."""
        for retry_after in (True, False):
            limit = RateLimit(per_second=0.5, burst=1, retry_after=retry_after)
            sandbox = Sandbox(seed=1, options=SandboxOptions(rate_limit=limit))
            async with engine.client(sandbox, retry=ONCE) as api:
                await api.list_packs()
                with pytest.raises(RateLimited) as caught:
                    await api.list_packs()
            wait = caught.value.retry_after
            assert (wait is None) != retry_after
            assert wait is None or 0 < wait <= 3

    @pytest.mark.anyio
    async def test_a_suggestion_arrives_whole(self, engine: Engine) -> None:
        """An address refusal brings details and a destination ready to be quoted."""
        options = SandboxOptions(reject_addresses=1, suggestion={"line1": "1 Rue é", "country": "FR"})
        sandbox = Sandbox(seed=1, options=options)
        item = sandbox.add_item("user", name="Card", buyback_price=Decimal(1))
        async with engine.client(sandbox) as api:
            with pytest.raises(AddressRejected) as caught:
                await api.quote_shipping([item.id], DESTINATION)
        assert caught.value.details == "The address could not be validated."
        assert caught.value.suggestion == evolve(DESTINATION, line1="1 Rue é", country="FR")
        _assert_pickles(caught.value)


def test_every_refusal_of_the_table_is_played() -> None:
    """No class that an operation can raise is left without a scene."""
    played = {(case.operation, case.expected) for case in SCENES}
    assert {(o.name, r.error) for o in OPERATIONS for r in o.refusals} <= played
    texts = {(o.name, r.text.partition("{")[0]) for o in OPERATIONS for r in o.refusals if r.key == "error"}
    missing = {(name, text) for name, text in texts
               if not any(c.operation == name and c.message.startswith(text) for c in SCENES)}  # fmt: skip
    assert missing == set()


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b'{"a": ' + b"[" * 5000, b"item"], ids=["cut", "bytes", "deep", "text"]
)
def test_the_sandbox_refuses_a_body_that_is_no_json(body: bytes) -> None:
    """The client never sends one; a request made by hand is refused, and nothing is done."""
    sandbox = Sandbox(seed=1)
    headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
    answer = sandbox(Request("POST", "https://api.phygitals.com/_/api/v1/vm/buyback", headers, body))
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "Invalid JSON"})
