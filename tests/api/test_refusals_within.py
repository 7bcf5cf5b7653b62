"""Refused addresses, failures inside a 2xx and the reserved shape, and what the classes say of themselves."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import attrs
import pytest
from attrs import evolve

from phygitals_async import (
    AddressRejected,
    BadRequest,
    DecodeError,
    Destination,
    ItemNotFound,
    MissingField,
    OutcomeUnknown,
    OutOfStock,
    PackNotFound,
    PhygitalsClient,
    QuoteExpired,
    Sandbox,
    SellbackInProgress,
    Sent,
    ServerError,
    ShippingRequestFailed,
    StatusError,
    TransactionFailed,
)
from phygitals_async.sandbox import SandboxOptions
from phygitals_transports import MemoryTransport
from refusal_support import CALLS, CONVERTER, DESTINATION, FAMILIES, KEY, error_of, refused
from support import ONCE

_BUY, _STATUS, _SELL, _QUOTE, _SHIP = (
    "POST /api/v1/vm/buy/init", "POST /api/v1/vm/buy/status", "POST /api/v1/vm/buyback",
    "POST /api/v1/ship/quote", "POST /api/v1/ship/request",
)  # fmt: skip


# The address


def _rejection(**more: Any) -> bytes:
    return json.dumps({"error": "Invalid destination address", **more}).encode()


async def _address(body: bytes, destination: Destination = DESTINATION) -> AddressRejected:
    error = await error_of(lambda api: api.quote_shipping(["a"], destination), 400, body)
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
    error = await error_of(CALLS[_STATUS], status, json.dumps(body).encode())
    assert isinstance(error, TransactionFailed)
    assert error.message == message
    assert error.status == status
    assert (error.operation, error.arguments) == ("get_purchase", {"session_id": "session"})
    assert error.snippet == json.dumps(body)


@pytest.mark.anyio
@pytest.mark.parametrize("body", [{}, {"status": None}, {"status": "sleeping"}, {"result": None}])
async def test_a_purchase_answer_that_says_nothing_is_told(body: dict[str, Any]) -> None:
    """An answer that is neither fulfilled, pending nor failed is a `DecodeError`, and not None."""
    error = await error_of(CALLS[_STATUS], 200, json.dumps(body).encode())
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
    error = await error_of(CALLS[_SELL], 200, json.dumps(body).encode())
    assert type(error) is TransactionFailed
    assert (error.status, error.operation, error.arguments) == (200, "sell_back", {"item_id": "a"})


@pytest.mark.anyio
async def test_a_sellback_that_contradicts_itself_leaves_the_outcome_unknown() -> None:
    """An answer that denies the sale and names what was paid is no refusal to rely on."""
    error = await error_of(CALLS[_SELL], 200, b'{"success": false, "amount": 98.5}')
    assert isinstance(error, OutcomeUnknown)
    assert isinstance(error.__cause__, DecodeError)
    assert error.readable == {"amount": Decimal("98.5")}


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"amount": None}])
async def test_a_sellback_that_succeeded_without_an_amount_leaves_the_outcome_unknown(more: dict[str, Any]) -> None:
    """What was paid is not made up; that something was is not denied."""
    error = await error_of(CALLS[_SELL], 200, json.dumps({"success": True, **more}).encode())
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
    error = await error_of(CALLS[_SHIP], status, json.dumps(body).encode())
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
    assert type(await refused(endpoint, 400, body)) is BadRequest


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
    error = await error_of(CALLS[_SHIP], status, json.dumps(body).encode())
    assert type(error) is OutcomeUnknown
    assert type(error.__cause__) is ServerError


@pytest.mark.anyio
@pytest.mark.parametrize("status", [401, 403, 429])
async def test_another_body_with_a_status_of_error_has_its_family(status: int) -> None:
    """A refused key stays a refused key, however its body is worded."""
    error = await error_of(CALLS[_SHIP], status, b'{"status": "error", "message": "Unauthorized"}')
    assert type(error) is FAMILIES[status]


@pytest.mark.anyio
@pytest.mark.parametrize("more", [{}, {"order_id": None}, {"order_id": ""}])
async def test_a_success_without_an_order_leaves_the_outcome_unknown(more: dict[str, Any]) -> None:
    """A success that names no order is nothing to rely on."""
    error = await error_of(CALLS[_SHIP], 200, json.dumps({"status": "success", **more}).encode())
    assert type(error) is OutcomeUnknown
    assert isinstance(error.__cause__, DecodeError)
    assert error.__cause__.problems == ("$.order_id: missing",)


@pytest.mark.anyio
async def test_a_failure_that_names_an_order_leaves_the_outcome_unknown() -> None:
    """Inside a 2xx too, only a null `order_id` says that no order was made."""
    error = await error_of(CALLS[_SHIP], 200, b'{"order_id": "order_123", "status": "error", "error_message": "x"}')
    assert type(error) is OutcomeUnknown


@pytest.mark.anyio
@pytest.mark.parametrize("call", ["start_purchase", "purchase"])
async def test_a_purchase_started_without_a_session_leaves_the_outcome_unknown(call: str) -> None:
    """Money may have moved, and the handle on it is lost: no error may say that nothing was sent."""
    error = await error_of(lambda api: getattr(api, call)("pack", 1, "user"), 200, b'{"session_id": "", "nfts": []}')
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
