"""The documented exchanges: each request as it is sent, and each answer as it is decoded, both ways."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

import attrs
import msgspec
import pytest

from phygitals_async import (
    DecodeError,
    Destination,
    Inventory,
    ItemSource,
    OrderStatus,
    PhygitalsClient,
    Purchase,
    Request,
    Response,
    Sellback,
    ShippingOrder,
    ShippingRequest,
    StartedPurchase,
    build_converter,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_async._api.operation import Operation
from phygitals_transports import MemoryTransport
from structuring_support import with_nulls
from support import FIXTURES, fixture_bytes, fixture_json

KEY = "sandbox-0123456789"
INDEX: Final[list[dict[str, Any]]] = fixture_json("index.json")
BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}

Call = Callable[[PhygitalsClient, dict[str, Any]], Awaitable[Any]]


def _quote(api: PhygitalsClient, given: dict[str, Any]) -> Awaitable[Any]:
    return api.quote_shipping(given["item_ids"], Destination(**given["destination"]))


# The vendor's name of each operation, ours, and how a caller makes the documented request.
CALLS: Final[Mapping[str, tuple[str, Call]]] = {
    "packs.list": ("list_packs", lambda api, given: api.list_packs(platform=given["platform"])),
    "packs.chase": ("list_chase_cards", lambda api, given: api.list_chase_cards(given["slug"])),
    "packs.recentPulls": ("list_recent_pulls", lambda api, given: api.list_recent_pulls(**given)),
    "cards.get": ("get_card", lambda api, given: api.get_card(given["item_id"])),
    "purchase.init": (
        "start_purchase",
        lambda api, given: api.start_purchase(given["id"], given["amount"], given["user_id"]),
    ),
    "purchase.status": ("get_purchase", lambda api, given: api.get_purchase(given["session_id"])),
    "inventory.get": ("get_inventory", lambda api, given: api.get_inventory(given["user_id"])),
    "sellback.create": ("sell_back", lambda api, given: api.sell_back(given["item_id"])),
    "shipping.quote": ("quote_shipping", _quote),
    "shipping.request": ("request_shipping", lambda api, given: api.request_shipping(given["quote_id"])),
    "shipping.order": ("get_shipping_order", lambda api, given: api.get_shipping_order(given["order_id"])),
}

_BY_ROW = pytest.mark.parametrize("row", INDEX, ids=[row["file"] for row in INDEX])


def _operation(row: Mapping[str, Any]) -> Operation[Any]:
    return BY_NAME[CALLS[row["operation"]][0]]


async def _exchange(row: Mapping[str, Any]) -> tuple[Request, Any]:
    """Make the documented request; return it as it was sent, and what its documented answer became."""
    answer = Response(row["status"], {"content-type": "application/json"}, fixture_bytes(row["file"]))
    transport = MemoryTransport(lambda _: answer)
    given = {name: value for part in row["request"].values() for name, value in part.items()}
    async with PhygitalsClient(transport, api_key=KEY) as api:
        result = await CALLS[row["operation"]][1](api, given)
    (request,) = transport.sent
    return request, result


def _types(value: Any) -> Iterator[type]:
    """Yield the type of everything in a model, depth first."""
    yield type(value)
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            yield from _types(getattr(value, field.name))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _types(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _types(name)
            yield from _types(item)


def _decoded(data: bytes, operation: Operation[Any]) -> list[Any]:
    """Decode through the fast path alone, the explaining path alone, and as the client does."""
    converter = build_converter()
    plain = msgspec.json.Decoder(float_hook=Decimal).decode(data)
    return [
        msgspec.json.Decoder(operation.answer).decode(data),
        converter.structure(plain, operation.answer),
        converter.loads(data, operation.answer),
    ]


# The list itself


def test_every_fixture_is_listed_and_every_operation_has_one() -> None:
    """No payload goes unread, and no operation is without a documented exchange."""
    files = {path.name for path in FIXTURES.glob("*.json")} - {"index.json", "errors.json"}
    assert {row["file"] for row in INDEX} == files
    assert {row["operation"] for row in INDEX} == set(CALLS)
    assert {name for name, _ in CALLS.values()} == set(BY_NAME)


# Requests


@_BY_ROW
@pytest.mark.anyio
async def test_the_documented_request_is_what_is_sent(row: dict[str, Any]) -> None:
    """Method, path, query and body are those of the documents, with nothing added."""
    request, _ = await _exchange(row)
    asked = row["request"]
    path = re.sub(r":(\w+)", lambda found: quote(asked["params"][found[1]], safe=""), row["path"])
    url = urlsplit(request.url)
    assert request.method == row["method"]
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://api.phygitals.com/_" + path
    expected = {name: [str(v) for v in (value if isinstance(value, list) else [value])]
                for name, value in asked.get("query", {}).items()}  # fmt: skip
    assert parse_qs(url.query, keep_blank_values=True, strict_parsing=bool(url.query)) == expected
    assert ("?" in request.url) == bool(expected)
    assert (None if request.body is None else json.loads(request.body)) == asked.get("body")


@_BY_ROW
@pytest.mark.anyio
async def test_the_documented_headers_are_sent(row: dict[str, Any]) -> None:
    """Every request carries the bare key; one with a body, and no other, says that it is JSON."""
    request, _ = await _exchange(row)
    expected = {"X-API-Key": KEY, "Accept": "application/json"}
    if "body" in row["request"]:
        expected["Content-Type"] = "application/json"
    headers = dict(request.headers)
    assert headers.pop("User-Agent").startswith("phygitals-async/")
    assert headers == expected


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("call", "query"),
    [
        (lambda api: api.list_packs(), ""),
        (lambda api: api.list_packs(include_repacks=True), "includeRepacks=true"),
        (lambda api: api.list_packs(include_repacks=False), "includeRepacks=false"),
        (lambda api: api.list_packs(platform="a&b c", include_repacks=True), "platform=a%26b%20c&includeRepacks=true"),
        (lambda api: api.list_recent_pulls(), ""),
        (lambda api: api.list_recent_pulls(limit=1), "limit=1"),
        (lambda api: api.list_recent_pulls(limit=100), "limit=100"),
        (lambda api: api.list_recent_pulls(claw_ids=["A", "B"]), "claw_ids=A&claw_ids=B"),
        (lambda api: api.list_recent_pulls(claw_ids=(c for c in "AB"), limit=5), "claw_ids=A&claw_ids=B&limit=5"),
        (lambda api: api.list_recent_pulls(claw_ids=["1|0", "a,b"]), "claw_ids=1%7C0&claw_ids=a%2Cb"),
        (lambda api: api.list_recent_pulls(claw_ids=["é+/?#"]), "claw_ids=%C3%A9%2B%2F%3F%23"),
    ],
)  # fmt: skip
async def test_a_query_holds_what_was_given_and_nothing_else(
    call: Callable[[PhygitalsClient], Awaitable[Any]], query: str
) -> None:
    """An argument left out is not sent, a collection repeats its parameter, and a flag is lower-case."""
    transport = MemoryTransport(lambda _: Response(200, {}, b"[]"))
    async with PhygitalsClient(transport, api_key=KEY) as api:
        assert await call(api) == ()
    (request,) = transport.sent
    assert request.url.partition("?")[2] == query
    assert request.url.endswith("?" + query if query else ("/available", "/recent-pulls"))


@pytest.mark.anyio
async def test_parts_of_a_destination_that_were_not_given_are_not_sent() -> None:
    """An optional part of an address is absent from the body, and not null."""
    transport = MemoryTransport(lambda _: Response(200, {}, fixture_bytes("ship-quote.json")))
    destination = Destination(name="Zoë", line1="1 Rue é", city="Paris", postal_code="75001", country="FR")
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.quote_shipping(iter(["v1|1|0"]), destination)
    body = json.loads(transport.sent[0].body or b"")
    assert body == {
        "item_ids": ["v1|1|0"],
        "destination": {"name": "Zoë", "line1": "1 Rue é", "city": "Paris", "postal_code": "75001", "country": "FR"},
    }


# Answers


@_BY_ROW
def test_both_ways_of_decoding_agree(row: dict[str, Any]) -> None:
    """The fast path, the explaining path and the client's give equal values of equal types throughout."""
    fast, explained, chosen = _decoded(fixture_bytes(row["file"]), _operation(row))
    assert fast == explained == chosen
    assert list(_types(fast)) == list(_types(explained)) == list(_types(chosen))


@_BY_ROW
def test_a_model_is_written_as_it_was_read(row: dict[str, Any]) -> None:
    """Unstructured as the operation's answer, the model is the documented JSON again."""
    converter, operation = build_converter(), _operation(row)
    for model in _decoded(fixture_bytes(row["file"]), operation):
        plain = converter.unstructure(model, unstructure_as=operation.answer)
        assert json.loads(json.dumps(plain)) == with_nulls(fixture_json(row["file"]))
        assert json.loads(converter.dumps(model)) == with_nulls(fixture_json(row["file"]))


@_BY_ROW
@pytest.mark.anyio
async def test_the_client_returns_what_is_in_the_answer(row: dict[str, Any]) -> None:
    """The result is read out of the decoded answer, envelopes removed."""
    operation = _operation(row)
    _, result = await _exchange(row)
    assert result == operation.read(build_converter().loads(fixture_bytes(row["file"]), operation.answer))


@pytest.mark.anyio
async def test_the_documented_answers_read_as_documented() -> None:
    """One look at each result: money to the cent, pending as None, envelopes gone."""
    results = {row["file"]: (await _exchange(row))[1] for row in INDEX}
    (pack,) = results["packs-list.json"]
    assert (str(pack.mint_price), str(pack.buyback_percent), pack.max_per_mint) == ("100.00", "0.85", 10)
    assert [tier.name for tier in pack.rarity_distribution] == ["Common", "Rare", "Epic", "Mythic"]
    (chase,) = results["packs-chase.json"]
    assert str(chase.fmv) == "250.00"
    first, second = results["packs-recent-pulls.json"]
    assert (first.id, str(second.buyback_price), second.metadata.back_image) == ("v1|110586049456|0", "70.13", None)
    assert first.created_at.isoformat() == "2026-04-30T17:42:11.123000+00:00"
    assert str(results["card-get.json"].fmv) == "250.00"
    started, purchase = results["purchase-init.json"], results["purchase-status.json"]
    assert isinstance(started, StartedPurchase)
    assert isinstance(purchase, Purchase)
    assert started.session_id == purchase.session_id == "550e8400-e29b-41d4-a716-446655440000"
    assert [nft.name for nft in started.nfts] == [nft.name for nft in purchase.nfts] == ["Juan Soto RC Auto /25"]
    assert results["purchase-status-pending.json"] is None
    assert isinstance(results["inventory.json"], Inventory)
    assert results["sellback.json"] == Sellback(success=True, amount=Decimal("98.5"))
    quotes = results["ship-quote.json"]
    assert (str(quotes.cheapest.amount), len(quotes.quotes)) == ("5.95", 3)
    assert results["ship-request.json"] == ShippingRequest(order_id="order_123", status="success")
    shipped, queued = results["ship-order.json"], results["ship-order.sandbox-queued.json"]
    assert isinstance(shipped, ShippingOrder)
    assert (shipped.status, queued.status) == (OrderStatus.SHIPPED, OrderStatus.QUEUED)
    assert shipped.status is OrderStatus.SHIPPED
    assert queued.destination["phone"] == "+15125551234"


@pytest.mark.parametrize("text", [*OrderStatus, "held_at_customs", "", "Queued"])
def test_both_ways_agree_on_an_order_status(text: str) -> None:
    """A known status is the member itself and an unknown one keeps its text, on either path."""
    data = json.dumps({**fixture_json("ship-order.json"), "status": text}).encode()
    fast, explained, chosen = (order.status for order in _decoded(data, BY_NAME["get_shipping_order"]))
    _assert_same_member(OrderStatus, text, fast, explained, chosen)


@pytest.mark.parametrize("text", [*ItemSource, "stockx", "", "eBay"])
@pytest.mark.parametrize("name", ["inventory.json", "purchase-init.json", "purchase-status.json"])
def test_both_ways_agree_on_an_item_source(name: str, text: str) -> None:
    """The `type` that the examples lack is the same open enum wherever an item is shown."""
    plain = fixture_json(name)
    shown = plain.get("items") or plain.get("nfts") or plain["result"]["nfts"]
    shown[0]["type"] = text
    (row,) = [row for row in INDEX if row["file"] == name]
    answers = _decoded(json.dumps(plain).encode(), _operation(row))
    items = [(a.items if isinstance(a, Inventory) else getattr(a, "result", a).nfts)[0] for a in answers]
    _assert_same_member(ItemSource, text, *(item.type for item in items))


def _assert_same_member(enum: type[StrEnum], text: str, *found: Any) -> None:
    for value in found:
        assert type(value) is enum
        assert value == text
        assert value.value == text
        if text in {member.value for member in enum}:
            assert value is enum(text)


@_BY_ROW
@pytest.mark.anyio
async def test_an_unknown_field_anywhere_changes_nothing(row: dict[str, Any]) -> None:
    """A vendor who adds fields breaks no caller."""

    def grown(value: Any) -> Any:
        if isinstance(value, list):
            return [grown(item) for item in value]
        if isinstance(value, dict):
            return {"x_new": {"deep": [1]}, **{name: grown(item) for name, item in value.items()}}
        return value

    plain = fixture_json(row["file"])
    data = json.dumps(grown(plain)).encode()
    _, expected = await _exchange(row)
    for answer in _decoded(data, _operation(row)):
        result = _operation(row).read(answer)
        # An order's destination is an echo, kept whole.
        if isinstance(result, ShippingOrder):
            assert result.destination["x_new"] == {"deep": [1]}
            result = attrs.evolve(result, destination=plain["destination"])
        assert result == expected


@_BY_ROW
@pytest.mark.parametrize("body", [b"", b"<html>", b'"text"', b"17", b"{", b"\xff"])
@pytest.mark.anyio
async def test_an_answer_of_no_documented_shape_is_told(row: dict[str, Any], body: bytes) -> None:
    """What is not the documented JSON is a `DecodeError`, or its cause where money or goods may have moved."""
    transport = MemoryTransport(lambda _: Response(200, {}, body))
    operation = _operation(row)
    given = {name: value for part in row["request"].values() for name, value in part.items()}
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the class is what is asserted.
            await CALLS[row["operation"]][1](api, given)
    error = caught.value.__cause__ if operation.effect.is_irreversible else caught.value
    assert type(error) is DecodeError
    assert (error.operation, error.status) == (operation.name, 200)
    assert error.problems


@pytest.mark.anyio
@pytest.mark.parametrize("body", [b"null", b"[]"])
async def test_a_pack_without_chase_cards_has_none(body: bytes) -> None:
    """An integrator met `null` here: it is no cards, and no error (API sheet, 2.2)."""
    async with PhygitalsClient(MemoryTransport(lambda _: Response(200, {}, body)), api_key=KEY) as api:
        assert await api.list_chase_cards("topps-chrome-2024") == ()
