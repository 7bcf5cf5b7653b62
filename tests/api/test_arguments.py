"""Arguments that cannot be sent are refused before anything is sent, by name."""

from __future__ import annotations

import enum
import json
import math
import pickle
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any, Final

import attrs
import pytest

from phygitals_async import (
    ConfigurationError,
    Destination,
    InvalidArgumentError,
    PhygitalsClient,
    PhygitalsError,
    Request,
    Response,
    Sent,
)
from phygitals_async._api.endpoints import OPERATIONS
from phygitals_transports import MemoryTransport
from support import fixture_json, last_segment

pytestmark = pytest.mark.anyio

KEY = "sandbox-0123456789"
DESTINATION: Final = Destination(
    name="Jane Doe", line1="123 Main St", city="Austin", state="TX", postal_code="78701", country="US"
)
# Arguments that every call accepts.
GOOD: Final[dict[str, dict[str, Any]]] = {
    "list_packs": {"platform": "mainnet", "include_repacks": True},
    "list_chase_cards": {"slug": "topps-chrome-2024"},
    "list_recent_pulls": {"claw_ids": ["BSG6Dy"], "limit": 20},
    "get_card": {"item_id": "v1|1|0"},
    "start_purchase": {"pack_id": "BSG6Dy", "amount": 1, "user_id": "user_abc123"},
    "get_purchase": {"session_id": "550e8400"},
    "get_inventory": {"user_id": "user_abc123"},
    "sell_back": {"item_id": "v1|1|0"},
    "quote_shipping": {"item_ids": ["v1|1|0"], "destination": DESTINATION},
    "request_shipping": {"quote_id": "quote_1_rate_priority"},
    "get_shipping_order": {"order_id": "order_123"},
}
ANSWERS: Final = {
    "list_packs": "packs-list.json",
    "list_chase_cards": "packs-chase.json",
    "list_recent_pulls": "packs-recent-pulls.json",
    "get_card": "card-get.json",
    "start_purchase": "purchase-init.json",
    "get_purchase": "purchase-status.json",
    "get_inventory": "inventory.json",
    "sell_back": "sellback.json",
    "quote_shipping": "ship-quote.json",
    "request_shipping": "ship-request.json",
    "get_shipping_order": "ship-order.json",
}
IDS_TAKEN: Final = [
    ("list_packs", "platform"),
    ("list_chase_cards", "slug"),
    ("get_card", "item_id"),
    ("start_purchase", "pack_id"),
    ("start_purchase", "user_id"),
    ("get_purchase", "session_id"),
    ("get_inventory", "user_id"),
    ("sell_back", "item_id"),
    ("request_shipping", "quote_id"),
    ("get_shipping_order", "order_id"),
]
OPTIONAL: Final = {
    ("list_packs", "platform"),
    ("list_packs", "include_repacks"),
    ("list_recent_pulls", "claw_ids"),
    ("list_recent_pulls", "limit"),
}
_DOTS = "must not be '.' or '..': servers and proxies resolve those away"
_SURROGATE = "holds an unpaired surrogate, which no encoding can carry"
BAD_IDS: Final[list[tuple[Any, str]]] = [
    (5, "must be a string, not int"),
    (True, "must be a string, not bool"),
    (b"user", "must be a string, not bytes"),
    (["user"], "must be a string, not list"),
    (object, "must be a string, not type"),
    ("", "must not be empty"),
    (".", _DOTS),
    ("..", _DOTS),
    ("\ud800", _SURROGATE),
    ("a\udfffb", _SURROGATE),
]
BAD_COLLECTIONS: Final[list[tuple[Any, str]]] = [
    ("abc", "{} must be a collection of ids, not a single str"),
    ("", "{} must be a collection of ids, not a single str"),
    (b"abc", "{} must be a collection of ids, not a single bytes"),
    (5, "{} must be a collection of ids, not a single int"),
    (True, "{} must be a collection of ids, not a single bool"),
    (DESTINATION, "{} must be a collection of ids, not a single Destination"),
    ([], "{} must not be empty"),
    ((), "{} must not be empty"),
    (iter(()), "{} must not be empty"),
    (bytearray(b"a"), "each of {} must be a string, not int"),
    (["a", 5], "each of {} must be a string, not int"),
    (["a", None], "each of {} must be a string, not NoneType"),
    ([["a"]], "each of {} must be a string, not list"),
    (["a", ""], "each of {} must not be empty"),
    (["."], "each of {} " + _DOTS),
    (["a", "\ud800"], "each of {} " + _SURROGATE),
]
BAD_AMOUNTS: Final[list[tuple[Any, str]]] = [
    (0, "must be at least 1"),
    (-1, "must be at least 1"),
    (True, "must be a whole number, not bool"),
    (False, "must be a whole number, not bool"),
    (1.0, "must be a whole number, not float"),
    (1.5, "must be a whole number, not float"),
    (math.nan, "must be a whole number, not float"),
    ("2", "must be a whole number, not str"),
    (Decimal(2), "must be a whole number, not Decimal"),
    ([1], "must be a whole number, not list"),
]
BAD_LIMITS: Final[list[tuple[Any, str]]] = [
    (0, "must be 1 to 100"),
    (-1, "must be 1 to 100"),
    (101, "must be 1 to 100"),
    (10**30, "must be 1 to 100"),
    (True, "must be a whole number, not bool"),
    (1.5, "must be a whole number, not float"),
    ("20", "must be a whole number, not str"),
]


class _Platform(str, enum.Enum):  # noqa: UP042 - what callers wrote before Python 3.11.
    MAINNET = "mainnet"


class _Text(str):
    __slots__ = ()


class _Number(int):
    __slots__ = ()


def _cases() -> Iterator[tuple[str, str, Any, str]]:
    for name, argument in IDS_TAKEN:
        yield from ((name, argument, value, f"{argument} {rule}") for value, rule in BAD_IDS)
    for name, argument in (("list_recent_pulls", "claw_ids"), ("quote_shipping", "item_ids")):
        yield from ((name, argument, value, rule.format(argument)) for value, rule in BAD_COLLECTIONS)
    yield from (("start_purchase", "amount", value, f"amount {rule}") for value, rule in BAD_AMOUNTS)
    yield from (("list_recent_pulls", "limit", value, f"limit {rule}") for value, rule in BAD_LIMITS)
    for flag in ("true", "", 0, 1, [True]):
        rule = f"include_repacks must be a bool, not {type(flag).__name__}"
        yield "list_packs", "include_repacks", flag, rule
    for value in ({"name": "Jane"}, "Austin", 5, Destination, [DESTINATION]):
        rule = f"destination must be a Destination, not {type(value).__name__}"
        yield "quote_shipping", "destination", value, rule
    nones = {
        "amount": "amount must be a whole number, not NoneType",
        "item_ids": "item_ids must be a collection of ids, not a single NoneType",
        "destination": "destination must be a Destination, not NoneType",
    }
    for name, arguments in GOOD.items():
        for argument in arguments:
            if (name, argument) not in OPTIONAL:
                yield name, argument, None, nones.get(argument, f"{argument} must be a string, not NoneType")


def _transport() -> MemoryTransport:
    """Return a transport that answers each operation with its documented answer."""
    paths = {operation.path.partition("{")[0]: ANSWERS[operation.name] for operation in OPERATIONS}

    def answer(request: Request) -> Response:
        (name,) = [name for path, name in paths.items() if f"/api/v1{path}" in request.url]
        document = fixture_json(name)
        if name == ANSWERS["get_shipping_order"]:
            document["order_id"] = last_segment(request)
        return Response(200, {}, json.dumps(document).encode())

    return MemoryTransport(answer)


async def _refused(name: str, **arguments: Any) -> InvalidArgumentError:
    """Make a call that is refused; assert all that holds of every such error."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(InvalidArgumentError) as caught:
            await getattr(api, name)(**{**GOOD[name], **arguments})
    error = caught.value
    assert transport.sent == []
    assert (error.operation, error.attempts, error.sent) == (name, 0, Sent.NEVER)
    assert isinstance(error, ValueError)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes.
    assert (str(again), again.operation, again.sent) == (str(error), name, Sent.NEVER)
    return error


def test_each_argument_of_each_operation_is_covered() -> None:
    """The tables here leave no argument out."""
    expected = {(o.name, a) for o in OPERATIONS for a in o.path_arguments}
    expected |= {(o.name, a.name) for o in OPERATIONS for a in (*o.query.values(), *o.body.values())}
    assert {(name, argument) for name, arguments in GOOD.items() for argument in arguments} == expected
    assert {(name, argument) for name, argument, _, _ in _cases()} == expected
    assert set(GOOD) == set(ANSWERS)


@pytest.mark.parametrize(("name", "argument", "value", "rule"), list(_cases()))
async def test_what_cannot_be_sent_is_refused_by_name(name: str, argument: str, value: Any, rule: str) -> None:
    """The error names the argument and the rule; nothing was sent."""
    error = await _refused(name, **{argument: value})
    assert str(error) == f"{name}: {rule}"
    assert argument in rule


@pytest.mark.parametrize("part", [field.name for field in attrs.fields(Destination)])
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", 5, b"x", True, ["x"]], ids=repr)
async def test_a_part_of_a_destination_must_be_text(part: str, value: Any) -> None:
    """The error names the part of the address, and does not show the address."""
    error = await _refused("quote_shipping", destination=attrs.evolve(DESTINATION, **{part: value}))
    assert str(error) == f"quote_shipping: destination.{part} must be text that can be encoded"
    assert "Jane" not in str(error)


@pytest.mark.parametrize("part", ["name", "line1", "city", "country"])
async def test_a_part_that_every_destination_has_must_be_given(part: str) -> None:
    """None is no name, street, city or country: it is refused as any other wrong type is, and not sent as null."""
    nothing: dict[str, Any] = {part: None}
    error = await _refused("quote_shipping", destination=attrs.evolve(DESTINATION, **nothing))
    assert f"destination.{part}" in str(error)


@pytest.mark.parametrize(("name", "argument"), sorted(OPTIONAL))
async def test_an_optional_argument_may_be_none(name: str, argument: str) -> None:
    """None is as if it were not given."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await getattr(api, name)(**{**GOOD[name], argument: None})
    (request,) = transport.sent
    wire = "includeRepacks" if argument == "include_repacks" else argument
    assert wire not in request.url


@pytest.mark.parametrize(
    "make",
    [list, tuple, dict.fromkeys, iter, lambda ids: (text for text in ids)],
    ids=["list", "tuple", "dict", "iterator", "generator"],
)
async def test_any_collection_of_ids_is_taken_once(make: Callable[[list[str]], Any]) -> None:
    """Ids may come in any iterable, a generator among them; it is read once, and kept for the error as a list."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.quote_shipping(make(["a", "b"]), DESTINATION)
    (request,) = transport.sent
    assert json.loads(request.body or b"")["item_ids"] == ["a", "b"]


async def test_ids_given_by_a_generator_are_in_the_error() -> None:
    """What a failed call was made with can still be read when the generator is used up."""
    transport = MemoryTransport(lambda _: Response(500, {}, b""))
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(PhygitalsError) as caught:
            await api.quote_shipping((text for text in "ab"), DESTINATION)
    assert caught.value.arguments == {"item_ids": ["a", "b"], "destination": DESTINATION}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("start_purchase", {"amount": 1}),
        ("start_purchase", {"amount": 10**6}),
        ("start_purchase", {"user_id": " "}),
        ("start_purchase", {"user_id": "e\u0301😀\x00"}),
        ("start_purchase", {"pack_id": "..."}),
        ("list_recent_pulls", {"limit": 1}),
        ("list_recent_pulls", {"limit": 100}),
        ("list_recent_pulls", {"claw_ids": ["a", "a"]}),
        ("list_packs", {"include_repacks": False}),
        ("get_card", {"item_id": "a/b"}),
        ("get_shipping_order", {"order_id": "../x"}),
        ("quote_shipping", {"destination": attrs.evolve(DESTINATION, name="Zoë 😀", state=None)}),
    ],
)
async def test_what_can_be_sent_is(name: str, arguments: dict[str, Any]) -> None:
    """The checks refuse nothing that the API may take."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await getattr(api, name)(**{**GOOD[name], **arguments})
    assert len(transport.sent) == 1


async def test_a_string_enum_in_a_query_is_its_text() -> None:
    """A `str` that is an enum member goes out as the text it equals, in a query as in a path."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.list_packs(platform=_Platform.MAINNET)
        await api.list_recent_pulls(claw_ids=[_Platform.MAINNET])
    assert [request.url.partition("?")[2] for request in transport.sent] == ["platform=mainnet", "claw_ids=mainnet"]


@pytest.mark.parametrize(
    ("name", "arguments", "body"),
    [
        ("sell_back", {"item_id": _Text("a")}, {"item_id": "a"}),
        ("sell_back", {"item_id": _Platform.MAINNET}, {"item_id": "mainnet"}),
        ("get_purchase", {"session_id": _Text("a")}, {"session_id": "a"}),
        ("request_shipping", {"quote_id": _Text("a")}, {"quote_id": "a"}),
        ("start_purchase", {"pack_id": _Text("a"), "user_id": _Text("b")}, {"id": "a", "amount": 1, "user_id": "b"}),
        ("start_purchase", {"amount": _Number(2)}, {"id": "BSG6Dy", "amount": 2, "user_id": "user_abc123"}),
    ],
)
async def test_a_subclass_of_text_or_int_in_a_body_is_its_value(
    name: str, arguments: dict[str, Any], body: dict[str, Any]
) -> None:
    """What the checks accept can be written: a subclass goes out as the value it equals."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await getattr(api, name)(**{**GOOD[name], **arguments})
    (request,) = transport.sent
    assert json.loads(request.body or b"") == body


async def test_a_subclass_of_text_in_a_destination_is_its_text() -> None:
    """What the check of a destination accepts can be written."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        await api.quote_shipping([_Text("a")], attrs.evolve(DESTINATION, name=_Text("Jane")))
    (request,) = transport.sent
    body = json.loads(request.body or b"")
    assert (body["item_ids"], body["destination"]["name"]) == (["a"], "Jane")


async def test_an_amount_beyond_writing_is_refused() -> None:
    """An absurd amount is an error of this library, and not of the JSON encoder."""
    await _refused("start_purchase", amount=10**5000)


# Seconds


BAD_SECONDS = pytest.mark.parametrize("seconds", [0, -1, 0.0, math.nan, math.inf, True, "1", [1]])


@BAD_SECONDS
@pytest.mark.parametrize("name", list(GOOD))
async def test_a_bad_deadline_is_refused_before_anything_is_sent(name: str, seconds: Any) -> None:
    """Every method's deadline is a positive, finite number of seconds."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(ConfigurationError, match="deadline must be a positive") as caught:
            await getattr(api, name)(**GOOD[name], deadline=seconds)
    assert transport.sent == []
    assert (caught.value.operation, caught.value.attempts, caught.value.sent) == (name, 0, Sent.NEVER)


async def _watch(api: PhygitalsClient, seconds: Any) -> None:
    api.watch_order("order_123", interval=seconds)


@BAD_SECONDS
@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("deadline", lambda api, seconds: api.wait_for_purchase("s", deadline=seconds)),
        ("interval", lambda api, seconds: api.wait_for_purchase("s", interval=seconds)),
        ("deadline", lambda api, seconds: api.purchase("p", 1, "u", deadline=seconds)),
        ("interval", lambda api, seconds: api.purchase("p", 1, "u", interval=seconds)),
        ("interval", _watch),
    ],
    ids=["wait-deadline", "wait-interval", "purchase-deadline", "purchase-interval", "watch-interval"],
)
async def test_bad_seconds_of_waiting_are_refused_before_anything_is_sent(
    name: str, call: Callable[[PhygitalsClient, Any], Awaitable[Any]], seconds: Any
) -> None:
    """A purchase above all is not started when the waiting for it could not be."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(ConfigurationError, match=f"{name} must be a positive"):
            await call(api, seconds)
    assert transport.sent == []


@pytest.mark.parametrize("value", ["", ".", 5, None])
async def test_waiting_and_watching_refuse_a_bad_id(value: Any) -> None:
    """The calls made of other calls check their ids too, and send nothing."""
    transport = _transport()
    async with PhygitalsClient(transport, api_key=KEY) as api:
        with pytest.raises(InvalidArgumentError, match="session_id"):
            await api.wait_for_purchase(value)
        with pytest.raises(InvalidArgumentError, match="order_id"):
            await anext(api.watch_order(value))
        with pytest.raises(InvalidArgumentError, match="user_id"):
            await api.purchase("p", 1, value)
    assert transport.sent == []
