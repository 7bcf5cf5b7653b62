"""JSON to models and back: strict, open, exact, the same on both paths, and open to hooks of one's own."""

from __future__ import annotations

import collections
import copy
import enum
import json
import typing
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Generic, NewType, TypeVar

import attrs
import pytest
from attrs import frozen
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from phygitals_async import (
    Attribute,
    Content,
    DecodeError,
    Inventory,
    Item,
    ItemSource,
    Links,
    Metadata,
    Pack,
    PhygitalsClient,
    PhygitalsConverter,
    Response,
    build_converter,
)
from phygitals_async.models import ChaseCard, ShippingOrder
from phygitals_transports import MemoryTransport
from support import fixture_bytes, fixture_json

CONVERTER = build_converter()
INVENTORY = fixture_bytes("inventory.json")
ITEM = json.dumps(fixture_json("inventory.json")["items"][0]).encode()

UserId = NewType("UserId", str)


class _Colour(enum.Enum):
    RED = "red"


class _Grade(enum.IntEnum):
    MINT = 10


class _Mixed(enum.Enum):
    TEXT = "a"
    NUMBER = 1


class _Slug(str):
    """A user's kind of text."""

    __slots__ = ()


class _Score(int):
    """A user's kind of number."""

    __slots__ = ()


def _holder(kind: Any) -> Any:
    """Return an attrs class with one field of that type, as a user would declare it."""
    return attrs.make_class("Holder", {"value": attrs.field(type=kind)}, frozen=True)


def _list_of(kind: Any) -> Any:
    return list[kind]


def _wrong(load: Callable[[bytes, Any], object], data: bytes, cls: Any) -> tuple[str, ...]:
    with pytest.raises(DecodeError) as caught:
        load(data, cls)
    assert caught.value.status is None
    return caught.value.problems


# No coercion


@pytest.mark.parametrize(
    ("kind", "body", "problem"),
    [
        (str, "null", "expected a string, got null"),
        (str, "1", "expected a string, got an integer"),
        (str, "1.5", "expected a string, got a number"),
        (str, "true", "expected a string, got a boolean"),
        (str, "[]", "expected a string, got an array"),
        (str, "{}", "expected a string, got an object"),
        (bool, '"false"', "expected a boolean, got a string"),
        (bool, '"true"', "expected a boolean, got a string"),
        (bool, '""', "expected a boolean, got a string"),
        (bool, "0", "expected a boolean, got an integer"),
        (bool, "1", "expected a boolean, got an integer"),
        (bool, "null", "expected a boolean, got null"),
        (int, "1.9", "expected an integer, got a number"),
        (int, "1.0", "expected an integer, got a number"),
        (int, "1e2", "expected an integer, got a number"),
        (int, '"1"', "expected an integer, got a string"),
        (int, "true", "expected an integer, got a boolean"),
        (int, "false", "expected an integer, got a boolean"),
        (int, "null", "expected an integer, got null"),
        (float, '"1.5"', "expected a number, got a string"),
        (float, "true", "expected a number, got a boolean"),
        (float, "null", "expected a number, got null"),
        (float, "[1.5]", "expected a number, got an array"),
        (float, "1e400", "the number is out of range"),
        (float, "-1e400", "the number is out of range"),
        (float, "1" * 400, "the number is out of range"),
        (Decimal, "true", "expected a number or a numeric string, got a boolean"),
        (Decimal, "null", "expected a number or a numeric string, got null"),
        (Decimal, '"x"', "expected a number or a numeric string, got other text"),
        (Decimal, '""', "expected a number or a numeric string, got other text"),
        (Decimal, '"0x10"', "expected a number or a numeric string, got other text"),
        (Decimal, "[1]", "expected a number or a numeric string, got an array"),
        (Decimal, "{}", "expected a number or a numeric string, got an object"),
        (datetime, "0", "expected an ISO 8601 time, got an integer"),
        (datetime, "1776539114.5", "expected an ISO 8601 time, got a number"),
        (datetime, "null", "expected an ISO 8601 time, got null"),
        (datetime, '"x"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '""', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '"1776539114"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '"2026-04-18"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '"2026-04-18T19:05:14"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '"2026-13-18T19:05:14Z"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (datetime, '"0001-01-01T00:00:00+01:00"', "expected an ISO 8601 time with its UTC offset, got other text"),
        (ItemSource, "5", "expected a string, got an integer"),
        (ItemSource, "null", "expected a string, got null"),
        (ItemSource, "true", "expected a string, got a boolean"),
        (ItemSource, '["ebay"]', "expected a string, got an array"),
        (list[str], '"x"', "expected an array, got a string"),
        (list[str], '""', "expected an array, got a string"),
        (list[str], "null", "expected an array, got null"),
        (list[str], '{"0": "x"}', "expected an array, got an object"),
        (tuple[str, ...], '"x"', "expected an array, got a string"),
        (tuple[str, ...], "{}", "expected an array, got an object"),
        (Links, "null", "expected an object, got null"),
        (Links, "[]", "expected an object, got an array"),
        (Links, '["front.png", null]', "expected an object, got an array"),
        (Links, '"front.png"', "expected an object, got a string"),
        (str | None, "1", "expected a string, got an integer"),
        (bool | None, '"false"', "expected a boolean, got a string"),
        (int | None, "1.0", "expected an integer, got a number"),
        (str | int, "1.5", "expected a string or an integer, got a number"),
        (str | int, "true", "expected a string or an integer, got a boolean"),
        (str | int, "null", "expected a string or an integer, got null"),
        (str | float | None, "true", "expected a string or a number, got a boolean"),
        (str | bool, "0", "expected a string or a boolean, got an integer"),
        (UserId, "1", "expected a string, got an integer"),
    ],
)
def test_nothing_is_coerced(kind: Any, body: str, problem: str) -> None:
    """A value of the wrong type is an error with its path, alone, in a class and in a list, on either path."""
    for cls, wrapped, path in (
        (kind, body, "$"),
        (_holder(kind), f'{{"value": {body}}}', "$.value"),
        (_holder(list[kind]), f'{{"value": [{body}]}}', "$.value[0]"),
        (_list_of(_holder(kind)), f'[{{"value": {body}}}]', "$[0].value"),
    ):
        expected = (f"{path}: {problem}",)
        assert _wrong(CONVERTER.loads, wrapped.encode(), cls) == expected
        assert _wrong(CONVERTER._explain, wrapped.encode(), cls) == expected


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (str, '"x"', "x"),
        (bool, "false", False),
        (int, "5", 5),
        (int, "-0", 0),
        (int, "1" * 400, int("1" * 400)),
        (float, "5", 5.0),
        (float, "5.5", 5.5),
        (Decimal, "8.50", Decimal("8.50")),
        (Decimal, "8", Decimal(8)),
        (Decimal, "1e2", Decimal("1E+2")),
        (Decimal, '"8.50"', Decimal("8.50")),
        (Decimal, '"-3"', Decimal(-3)),
        (Decimal, "0.1234567890123456789012345678901234", Decimal("0.1234567890123456789012345678901234")),
        (datetime, '"2026-04-18T19:05:14.000Z"', datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)),
        (datetime, '"2026-04-18T21:05:14+02:00"', datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)),
        (datetime, '"2026-04-18T14:05:14.000001-05:00"', datetime(2026, 4, 18, 19, 5, 14, 1, tzinfo=UTC)),
        (ItemSource, '"ebay"', ItemSource.EBAY),
        (ItemSource, '"comic"', ItemSource("comic")),
        (_Colour, '"red"', _Colour.RED),
        (_Mixed, '"a"', _Mixed.TEXT),
        (list[int], "[]", []),
        (list[int], "[1, 2]", [1, 2]),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (list[tuple[str, ...]], '[["a"], []]', [("a",), ()]),
        (str | None, "null", None),
        (str | None, '"x"', "x"),
        (datetime | None, "null", None),
        (datetime | None, '"2026-04-18T21:05:14+02:00"', datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)),
        (str | int | float, "1.5", 1.5),
        (str | int | float, "1.0", 1.0),
        (str | int | float, "1", 1),
        (str | int | float, '"1"', "1"),
        (bool | float, "1", 1.0),
        (str | int | None, "null", None),
        (UserId, '"u"', "u"),
        (Links | None, "null", None),
        (Links | None, '{"image": "a", "back_image": null, "new": 1}', Links("a", None)),
        (dict[str, Any], '{"a": {"b": [1, "x", null, true]}}', {"a": {"b": [1, "x", None, True]}}),
        (dict[str, Any], '{"a": [1.5, {"b": 2.0}]}', {"a": [1.5, {"b": 2.0}]}),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (_Slug, '"topps-chrome"', _Slug("topps-chrome")),
        (_Slug | None, '"topps-chrome"', _Slug("topps-chrome")),
        (_Score, "7", _Score(7)),
    ],
)
def test_the_right_type_is_taken_as_it_is(kind: Any, body: str, value: object) -> None:
    """Equal values of the same types come of both paths, alone and in a class."""
    holder = _holder(kind)
    for got in (
        CONVERTER.loads(body.encode(), kind),
        CONVERTER._explain(body.encode(), kind),
        CONVERTER.loads(f'{{"value": {body}}}'.encode(), holder).value,
        CONVERTER._explain(f'{{"value": {body}}}'.encode(), holder).value,
    ):
        assert got == value
        assert type(got) is type(value)
        assert repr(got) == repr(value)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (list, '"ab"'),
        (tuple, '"ab"'),
        (set[str], '"ab"'),
        (frozenset[str], '"ab"'),
        (Sequence[str], '"ab"'),
        (tuple[str, str], '"ab"'),
        (dict, '[["a", 1]]'),
        (dict, '""'),
        (dict[str, Any], '[["a", 1]]'),
        (dict[str, Any], "[]"),
        (dict[str, Any], '""'),
        (dict[str, int], "[]"),
        (bytes, "5"),
        (bytes, "[1]"),
        (_Colour, '"blue"'),
        (_Colour, "null"),
        (_Grade, '"10"'),
        (typing.Literal["a"], '"b"'),
    ],
)
def test_no_other_type_is_coerced_either(kind: Any, body: str) -> None:
    """A type is structured strictly or not supported; what comes never passes for what it is not."""
    for cls, wrapped in ((kind, body), (_holder(kind), f'{{"value": {body}}}')):
        with pytest.raises((DecodeError, TypeError)):
            CONVERTER.loads(wrapped.encode(), cls)


@pytest.mark.parametrize("destination", ["", [], [["line1", "x"]], "line1", None, 5])
def test_a_destination_is_an_object(destination: object) -> None:
    """The one free-form field of the models is held to being an object."""
    plain = fixture_json("ship-order.json") | {"destination": destination}
    (problem,) = _wrong(CONVERTER.loads, json.dumps(plain).encode(), ShippingOrder)
    assert problem.startswith("$.destination: expected an object, got ")


def test_an_int_enum_is_the_same_on_both_paths() -> None:
    """Either both take a number for an enum of numbers, or neither does."""
    assert _outcome(CONVERTER.loads, b"10", _Grade) == _outcome(CONVERTER._explain, b"10", _Grade)
    body = b'{"value": 10}'
    assert _outcome(CONVERTER.loads, body, _holder(_Grade)) == _outcome(CONVERTER._explain, body, _holder(_Grade))


# Bodies that are no JSON, or numbers beyond all measure


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"x", b"nul", b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"'a'", b"1,", b'"\xff"', b'"\\ud800"'],
)
@pytest.mark.parametrize("kind", [str, Decimal, float, Inventory, list[Item]])
def test_what_is_no_json_is_a_decode_error(body: bytes, kind: Any) -> None:
    """The body as a whole is blamed, whatever was expected."""
    (problem,) = _wrong(CONVERTER.loads, body, kind)
    assert problem.startswith("$: not JSON: ") or (problem, body) == ("$: the body is empty", b"")


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e99999999999999999999", "1e-99999999999999999999"])
@pytest.mark.parametrize("kind", [str, int, float, Decimal, Inventory, str | int | float])
def test_a_number_that_nothing_can_hold_is_a_decode_error(number: str, kind: Any) -> None:
    """An exponent beyond even `Decimal` is a problem of the answer, never an error of arithmetic."""
    for cls, body, path in (
        (kind, number, "$"),
        (_holder(kind), f'{{"value": {number}}}', "$.value"),
        (_holder(str), f'{{"value": 5, "unknown": {number}}}', "$.value"),
    ):
        if "e-" in number and cls is not _holder and _may_be_zero(kind):
            continue
        problems = _wrong(CONVERTER.loads, body.encode(), cls)
        assert len(problems) == 1
        assert problems[0].startswith((f"{path}: ", "$: "))


def _may_be_zero(kind: Any) -> bool:
    """Whether a tiny number may be taken for nothing, as binary floats do."""
    return kind in (float, Decimal, str | int | float)


@pytest.mark.parametrize(
    "price",
    [
        '"NaN"',
        '"sNaN"',
        '"Infinity"',
        '"-inf"',
        "1e15",
        "-1e15",
        '"1e15"',
        "1000000000000000",
        "1e400",
        "1e999999",
        '"1e999999"',
        "1e99999999999999999999",
        "9" * 400,
        "9" * 5000,
        "NaN",
        "Infinity",
        "null",
        "true",
        '"free"',
    ],
)
def test_what_is_no_amount_of_money_is_refused(price: str) -> None:
    """No inventory holds a price that arithmetic could not bear, and both paths agree on it."""
    body = INVENTORY.replace(b"8.50", price.encode())
    problems = _wrong(CONVERTER.loads, body, Inventory)
    assert problems == _wrong(CONVERTER._explain, body, Inventory)
    assert len(problems) == 1
    assert problems[0].startswith(("$.items[0]", "$: not JSON"))


@pytest.mark.parametrize(
    "price", ["8.50", "8.5", "0", "0.1", "70.13", "999999999999999.99", "1e3", "0.10000000000000000001"]
)
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_price_is_exact(price: str, quote: str) -> None:
    """A price is the Decimal of its text, as a number or as a numeric string."""
    body = INVENTORY.replace(b"8.50", f"{quote}{price}{quote}".encode())
    for load in (CONVERTER.loads, CONVERTER._explain):
        got = load(body, Inventory).items[0].buyback_price
        assert (type(got), str(got)) == (Decimal, str(Decimal(price)))


# Open: unknown fields, absent fields


def test_unknown_fields_are_ignored_wherever_they_are() -> None:
    """The vendor may add fields at any time."""
    plain = fixture_json("inventory.json")
    expected = CONVERTER.loads(INVENTORY, Inventory)
    item = plain["items"][0]
    for place in (plain, item, item["content"], item["content"]["metadata"], item["content"]["links"]):
        place["new"] = {"deep": [None, 1.5, {"deeper": "\u00e9"}]}
    body = json.dumps(plain).encode()
    assert CONVERTER.loads(body, Inventory) == CONVERTER._explain(body, Inventory) == expected


def test_of_a_repeated_field_the_last_counts() -> None:
    """Both paths agree about what JSON leaves open."""
    body = b'{"image": 5, "image": "a", "back_image": null, "back_image": "b"}'
    assert CONVERTER._explain(body, Links) == Links("a", "b")
    assert CONVERTER.loads(b'{"image": "x", "image": "a", "back_image": "b"}', Links) == Links("a", "b")


def test_absent_and_empty_attributes_stay_apart() -> None:
    """What the answer did not have is not written; an empty list is."""
    plain: dict[str, Any] = {"name": "n", "image": "i", "back_image": None}
    for document in (plain, plain | {"attributes": []}):
        for load in (CONVERTER.loads, CONVERTER._explain):
            metadata = load(json.dumps(document).encode(), Metadata)
            assert metadata.attributes == ()
            assert CONVERTER.unstructure(metadata) == document


def test_the_inventory_fixture_survives_the_way_in_and_out() -> None:
    """What is written equals what was read."""
    inventory = CONVERTER.loads(INVENTORY, Inventory)
    assert CONVERTER.unstructure(inventory) == fixture_json("inventory.json")
    assert json.loads(CONVERTER.dumps(inventory)) == fixture_json("inventory.json")
    assert CONVERTER.structure(CONVERTER.unstructure(inventory), Inventory) == inventory


@pytest.mark.parametrize("source", [*ItemSource, ItemSource("moon"), None])
def test_the_way_back_and_forth_again(source: ItemSource | None) -> None:
    """Plain values are plain, open enums too, and structure to what they came from."""
    inventory = CONVERTER.loads(INVENTORY, Inventory)
    typed = attrs.evolve(inventory, items=(attrs.evolve(inventory.items[0], type=source),))
    plain = CONVERTER.unstructure(typed)
    assert type(plain["items"][0].get("type")) in (str, type(None))
    assert CONVERTER.structure(plain, Inventory) == typed
    order = CONVERTER.structure(fixture_json("ship-order.json"), ShippingOrder)
    assert type(CONVERTER.unstructure(order)["status"]) is str


def test_plain_values_of_another_json_parser_are_structured() -> None:
    """`structure` takes what `json.loads` gives, whose numbers are floats, as any cattrs converter does."""
    inventory = CONVERTER.structure(fixture_json("inventory.json"), Inventory)
    assert inventory == CONVERTER.loads(INVENTORY, Inventory)
    assert str(inventory.items[0].buyback_price) == "8.5"


@pytest.mark.parametrize(
    ("price", "text"),
    [
        ("8.50", b"8.5"),
        ("0.10", b"0.1"),
        ("100", b"100.0"),
        ("0", b"0.0"),
        ("999999999999999", b"999999999999999.0"),
        ("0.1234567890123456789", b'"0.1234567890123456789"'),
        ("999999999999999.99", b'"999999999999999.99"'),
    ],
)
def test_a_price_is_written_as_a_number_or_where_digits_would_be_lost_as_text(price: str, text: bytes) -> None:
    """Whatever is written reads as the same amount."""
    assert CONVERTER.dumps(Decimal(price)) == text
    assert CONVERTER.loads(text, Decimal) == Decimal(price)


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC), b'"2026-04-18T19:05:14.000Z"'),
        (datetime(2026, 4, 18, 19, 5, 14, 120_000, tzinfo=UTC), b'"2026-04-18T19:05:14.120Z"'),
        (datetime(2026, 4, 18, 19, 5, 14, 120_001, tzinfo=UTC), b'"2026-04-18T19:05:14.120001Z"'),
        (datetime(2026, 4, 18, 21, 5, 14, tzinfo=timezone(timedelta(hours=2))), b'"2026-04-18T19:05:14.000Z"'),
    ],
)
def test_a_time_is_written_as_the_api_writes_it(moment: datetime, text: bytes) -> None:
    """UTC, with a `Z`, in milliseconds unless that would lose something."""
    assert CONVERTER.dumps(moment) == text
    assert CONVERTER.loads(text, datetime) == moment


@given(st.decimals(allow_nan=False, allow_infinity=False), st.datetimes(timezones=st.just(UTC)))
def test_amounts_and_times_survive_the_way_out_and_in(amount: Decimal, moment: datetime) -> None:
    """Any amount and any time is read back as what was written."""
    assert CONVERTER.loads(CONVERTER.dumps(amount), Decimal) == amount
    assert CONVERTER.loads(CONVERTER.dumps(moment), datetime) == moment


# Hooks of one's own


@attrs.frozen
class _Tag:
    text: str


@attrs.frozen(kw_only=True)
class _TaggedItem(Item):
    """A user's item: a field more, of a type of their own."""

    vendor_tag: _Tag | None = None


class _Cents(int):
    """A type that neither attrs nor msgspec knows."""


@attrs.frozen(kw_only=True)
class _CentsItem(Item):
    fee: _Cents


@attrs.frozen
class _Shelf:
    items: tuple[_CentsItem, ...]


@attrs.frozen
class _Named:
    user_id: UserId
    name: str


def _to_cents(value: Any, _: Any) -> Decimal:
    return Decimal(str(value)) * 100


def test_a_hook_for_decimal_is_honoured() -> None:
    """Registering it takes every class that reaches a Decimal off the fast path."""
    converter = build_converter()
    converter.register_structure_hook(Decimal, _to_cents)
    assert converter.loads(INVENTORY, Inventory).items[0].buyback_price == 850
    assert converter.loads(b"[8.5]", list[Decimal]) == [850]
    assert converter.loads(b"8.5", typing.cast(type[Decimal], Decimal | None)) == 850
    assert CONVERTER.loads(INVENTORY, Inventory).items[0].buyback_price == Decimal("8.50")


def test_a_hook_for_datetime_is_honoured_behind_none() -> None:
    """`X | None` uses the hook of X."""
    converter = build_converter()
    converter.register_structure_hook(datetime, lambda _, __: datetime(2000, 1, 1, tzinfo=UTC))
    (item,) = converter.loads(INVENTORY, Inventory).items
    assert item.purchased_at.year == 2000
    assert item.buyback_expires_at is not None
    assert item.buyback_expires_at.year == 2000


def test_a_hook_for_str_is_honoured_in_a_union_too() -> None:
    """`Attribute.value` may be text, and text has the user's hook."""
    converter = build_converter()
    converter.register_structure_hook(str, lambda value, _: str(value).upper())
    attribute = converter.loads(b'{"trait_type": "year", "value": "x"}', Attribute)
    assert attribute == Attribute("YEAR", "X")


def test_a_hook_for_a_union_is_honoured() -> None:
    """A union of one's own is structured as one says."""
    converter = build_converter()
    converter.register_structure_hook(str | int | float, lambda value, _: f"<{value}>")
    attribute = converter.loads(b'{"trait_type": "year", "value": 5}', Attribute)
    assert attribute == Attribute("year", "<5>")


def test_a_hook_for_a_new_type_is_honoured() -> None:
    """A `NewType` of a string is structured by its own hook, and the string by the usual one."""
    converter = build_converter()
    converter.register_structure_hook(UserId, lambda value, _: UserId(f"user:{value}"))
    ids = converter.loads(b'{"user_id": "x", "name": "x"}', _Named)
    assert (ids.user_id, ids.name) == ("user:x", "x")


def test_a_hook_for_the_item_is_honoured() -> None:
    """What the user does with every item is done to every item of an inventory."""
    converter = build_converter()
    usual = converter.get_structure_hook(Item)
    converter.register_structure_hook(Item, lambda value, cl: attrs.evolve(usual(value, cl), claw_slug="seen"))
    assert [item.claw_slug for item in converter.loads(INVENTORY, Inventory).items] == ["seen"]


def test_items_of_a_class_of_ones_own_can_be_had() -> None:
    """An inventory whose items are the user's subclass, structured strictly like the rest."""
    converter = _converter_for_tagged_items()
    body = INVENTORY.replace(b'"claw_id"', b'"vendor_tag": {"text": "new"}, "claw_id"')
    (item,) = converter.loads(body, Inventory).items
    assert isinstance(item, _TaggedItem)
    assert item.vendor_tag == _Tag("new")
    problems = _wrong(converter.loads, body.replace(b'"new"', b"5"), Inventory)
    assert problems == ("$.items[0].vendor_tag.text: expected a string, got an integer",)


def _converter_for_tagged_items() -> PhygitalsConverter:
    converter = build_converter()
    # A hook registered for the class Item would serve its subclasses too, and so call itself without end.
    converter.register_structure_hook_func(
        lambda cls: cls is Item, lambda value, _: converter.structure(value, _TaggedItem)
    )
    return converter


def test_a_hook_for_a_type_of_ones_own_in_a_subclass_is_honoured() -> None:
    """A class that holds what only the user can structure is structured with their hook."""
    converter = build_converter()
    converter.register_structure_hook(_Cents, lambda value, _: _Cents(round(value * 100)))
    body = b'{"items": [' + ITEM.replace(b"{", b'{"fee": 1.25, ', 1) + b"]}"
    (item,) = converter.loads(body, _Shelf).items
    assert (type(item), type(item.fee), item.fee) == (_CentsItem, _Cents, 125)
    assert item.buyback_price == Decimal("8.5")


def test_a_hook_factory_is_honoured() -> None:
    """So are factories, which cattrs asks for a whole family of types."""
    converter = build_converter()

    def factory(_: Any) -> Callable[[Any, Any], Any]:
        return lambda value, cl: cl(f"{value['image']}!", None)

    converter.register_structure_hook_factory(lambda cls: cls is Links, factory)
    assert converter.loads(INVENTORY, Inventory).items[0].image.endswith(".png")
    assert converter.loads(INVENTORY, Inventory).items[0].content.links == Links(
        "https://cdn.phygitals.com/cards/soto-rc-auto.png!", None
    )


def test_a_hook_for_an_enum_is_honoured() -> None:
    """Also one of texts, which is a string as well."""
    converter = build_converter()
    converter.register_structure_hook(ItemSource, lambda value, _: ItemSource(f"{value}!"))
    body = INVENTORY.replace(b'"claw_id"', b'"type": "ebay", "claw_id"')
    assert converter.loads(body, Inventory).items[0].type == ItemSource("ebay!")


def test_a_hook_of_one_converter_is_no_business_of_another() -> None:
    """Each `build_converter()` is new, and a copy goes its own way."""
    converter = build_converter()
    copied = converter.copy()
    assert isinstance(copied, PhygitalsConverter)
    copied.register_structure_hook(Decimal, _to_cents)
    assert copied.loads(INVENTORY, Inventory).items[0].buyback_price == 850
    assert converter.loads(INVENTORY, Inventory).items[0].buyback_price == Decimal("8.50")
    assert json.loads(copied.dumps(CONVERTER.loads(INVENTORY, Inventory))) == fixture_json("inventory.json")


def test_the_hook_in_use_is_found_once_and_again_on_demand() -> None:
    """`loads` remembers its hook for a class; `get_loads_hook` sees the hooks as they stand."""
    converter = build_converter()
    assert converter.loads(b"8.5", Decimal) == converter.loads(b"8.5", Decimal) == Decimal("8.5")
    converter.register_structure_hook(Decimal, _to_cents)
    assert converter.get_loads_hook(Decimal)(b"8.5") == 850


@pytest.mark.anyio
async def test_the_client_uses_the_converter_it_is_given() -> None:
    """The extension point is reached from the constructor."""
    converter = _converter_for_tagged_items()
    transport = MemoryTransport(lambda _: Response(200, {}, INVENTORY))
    async with PhygitalsClient(transport, api_key="sandbox-test", converter=converter) as api:
        inventory = await api.get_inventory("user_abc123")
    assert type(inventory.items[0]) is _TaggedItem


# attrs classes of one's own


def _double(value: int) -> int:
    return 2 * value


def _small(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if value > 9:
        msg = f"{attribute.name} must be small"
        raise ValueError(msg)


@attrs.frozen
class _Converted:
    value: int = attrs.field(converter=_double)


@attrs.frozen
class _Aliased:
    value: int = attrs.field(alias="worth")


@attrs.frozen
class _Private:
    _value: int


@attrs.frozen
class _Computed:
    value: int
    twice: int = attrs.field(init=False, default=attrs.Factory(lambda self: 2 * self.value, takes_self=True))


@attrs.frozen
class _Derived:
    value: int
    twice: int = attrs.Factory(lambda self: 2 * self.value, takes_self=True)


@attrs.frozen
class _Validated:
    value: int = attrs.field(validator=_small)


@attrs.define
class _Finished:
    value: int

    def __attrs_post_init__(self) -> None:
        self.value += 1


@attrs.define(init=False)
class _OwnInit:
    value: int

    def __init__(self, value: int) -> None:
        self.value = value * 2


@attrs.frozen
class _Node:
    value: int
    children: tuple[_Node, ...] = ()
    parent: _Node | None = None


@attrs.frozen
class _Slotless:
    value: int
    names: list[str] = attrs.Factory(list)


@pytest.mark.parametrize(
    ("cls", "body", "expected"),
    [
        (_Converted, b'{"value": 3}', _Converted(3)),
        (_Aliased, b'{"value": 3}', _Aliased(3)),
        (_Private, b'{"_value": 3}', _Private(3)),
        (_Computed, b'{"value": 3, "twice": 100}', _Computed(3)),
        (_Derived, b'{"value": 3}', _Derived(3)),
        (_Derived, b'{"value": 3, "twice": 5}', _Derived(3, 5)),
        (_Validated, b'{"value": 3}', _Validated(3)),
        (_Finished, b'{"value": 3}', _Finished(3)),
        (_OwnInit, b'{"value": 3}', _OwnInit(3)),
        (_Slotless, b'{"value": 3}', _Slotless(3)),
        (_Slotless, b'{"value": 3, "names": ["a"]}', _Slotless(3, ["a"])),
        (
            _Node,
            b'{"value": 1, "children": [{"value": 2}], "parent": {"value": 0}}',
            _Node(1, (_Node(2),), _Node(0)),
        ),
    ],
)
def test_what_attrs_promises_holds(cls: Any, body: bytes, expected: object) -> None:
    """Converters, aliases, computed defaults, validators and initialisers of one's own all do their work."""
    for load in (build_converter().loads, build_converter()._explain):
        assert load(body, cls) == expected
        assert load(b'{"value": ' + body + b"}", _holder(cls)).value == expected


def test_a_validator_of_ones_own_is_a_problem_of_the_answer() -> None:
    """What a validator refuses is a decode error with the validator's words."""
    (problem,) = _wrong(CONVERTER.loads, b'{"value": 10}', _Validated)
    assert problem == "$: value must be small"
    (problem,) = _wrong(CONVERTER.loads, b'[{"value": 1}, {"value": 10}]', list[_Validated])
    assert problem == "$[1]: value must be small"


@pytest.mark.parametrize(
    "kind", [str | datetime, datetime | Decimal, Links | Metadata, Links | str, int | list[int], Decimal | str | None]
)
def test_a_union_that_cannot_be_told_apart_is_a_clear_error(kind: Any) -> None:
    """The programmer is told to register a hook, once the type is first used, and with the union's name."""
    for cls in (kind, _holder(kind), list[kind], _holder(kind | None)):
        with pytest.raises(TypeError, match=r"register a structure hook for .*: only unions of JSON scalars"):
            CONVERTER.loads(b"null", cls)
    converter = build_converter()
    converter.register_structure_hook(kind, lambda value, _: value)
    assert converter.loads(b'{"value": "x"}', _holder(kind)).value == "x"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (str | None, b"5"),
        (typing.Optional[str], b"5"),  # noqa: UP045 - the older spelling is another object.
        (tuple[ChaseCard, ...] | None, b'"x"'),
        (tuple[ChaseCard, ...] | None, b"<html>"),
        (str | int, b"null"),
        (list[str], b"{}"),
        (UserId, b"5"),
        (Links, b"5"),
    ],
)
def test_the_error_names_whatever_type_was_expected(kind: Any, body: bytes) -> None:
    """Unions have no `__name__`, and are answers of the API all the same."""
    with pytest.raises(DecodeError, match=r"^not the documented [A-Za-z]"):
        CONVERTER.loads(body, kind)


# The two paths agree


def _outcome(load: Callable[[bytes, Any], object], data: bytes, cls: Any) -> tuple[str, object]:
    try:
        value = load(data, cls)
    except DecodeError as error:
        return "refused", error.problems
    # The repr tells 1 from 1.0 and from True, and one zone from another.
    return "taken", repr(value)


_TEXT = st.text(max_size=6)
_URL = st.one_of(_TEXT, st.just("https://cdn.phygitals.com/cards/soto.png"))
_MAYBE_TEXT = st.one_of(st.none(), _TEXT)
_TIMES = st.one_of(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda moment: moment.replace(tzinfo=None).isoformat() + "Z"
    ),
    st.sampled_from(["2026-04-18T19:05:14.000Z", "2026-04-18T21:05:14+02:00", "2026-04-18 19:05:14.123456789Z"]),
)
_PRICES = st.one_of(
    st.integers(-(10**14), 10**14),
    st.floats(-1e14, 1e14, allow_subnormal=False),
    st.decimals(-(10**14), 10**14, places=2).map(str),
)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_ATTRIBUTES = st.lists(
    st.fixed_dictionaries(
        {
            "trait_type": _TEXT,
            "value": st.one_of(_TEXT, st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        }
    ),
    max_size=2,
)
_LINKS = st.fixed_dictionaries({"image": _URL, "back_image": _MAYBE_TEXT})
_METADATA = st.fixed_dictionaries(
    {"name": _TEXT, "image": _URL, "back_image": _MAYBE_TEXT},
    optional={"attributes": _ATTRIBUTES, "description": _TEXT},
)
_ITEMS = st.fixed_dictionaries(
    {
        "id": _TEXT,
        "claw_id": _TEXT,
        "claw_slug": _MAYBE_TEXT,
        "buyback_price": _PRICES,
        "mint_address": _MAYBE_TEXT,
        "purchased_at": _TIMES,
        "buyback_expires_at": st.one_of(st.none(), _TIMES),
        "content": st.fixed_dictionaries({"metadata": _METADATA}, optional={"links": _LINKS}),
    },
    optional={
        "type": st.one_of(_TEXT, st.sampled_from(["ebay", "comic"])),
        "collection_address": _TEXT,
        "token_standard": _TEXT,
    },
)
_INVENTORIES = st.fixed_dictionaries({"user_id": _TEXT, "items": st.lists(_ITEMS, max_size=2)})

_ODD_TEXTS = [
    "NaN",
    "1_0",
    " 1 ",
    "٣",
    "1e999",
    "2026-04-18T19:05:14",
    "2026-04-18T21:05:14+02:00",
    "2026-04-18",
    "0001-01-01T00:00:00+23:00",
]
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**300, 10**310),
    _FLOATS,
    _TEXT,
    st.sampled_from(_ODD_TEXTS),
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_TEXT, inner, max_size=2)),
    max_leaves=4,
)


def _places(plain: Any) -> list[tuple[Any, Any]]:
    """List every (container, key) in a document."""
    if isinstance(plain, dict):
        keys: list[Any] = list(plain)
    elif isinstance(plain, list):
        keys = list(range(len(plain)))
    else:
        return []
    return [place for key in keys for place in ((plain, key), *_places(plain[key]))]


@st.composite
def _broken(draw: st.DrawFn) -> bytes:
    """Draw an inventory with some values replaced, removed, renamed or added."""
    plain = draw(_INVENTORIES)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(plain)
        if not places:
            break
        parent, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "delete", "rename", "add", "repeat"])):
            case "replace":
                parent[key] = draw(_JSON)
            case "delete":
                del parent[key]
            case "rename" if isinstance(parent, dict):
                parent[draw(_TEXT)] = parent.pop(key)
            case "repeat" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case _ if isinstance(parent, dict):
                parent[draw(_TEXT)] = draw(_JSON)
            case _:
                parent.append(draw(_JSON))
    return json.dumps(plain, ensure_ascii=draw(st.booleans())).encode()


_TOKENS = st.one_of(
    st.binary(min_size=1, max_size=3),
    st.sampled_from(
        b'" \\ { } [ ] , : null true 0 - -0 . e 1.0 1e5 NaN 1e400 1e99999999999999999999 \xff /**/'.split()
    ),
    st.sampled_from(
        b'"\\ud800" "\\ud83d\\ude00" "\xed\xa0\x80" "x":1, "x":"\xff", "x":1e99999999999999999999,'.split()
    ),
    st.sampled_from([b"\x00", b"\xef\xbb\xbf", b"\n", b"1" * 400]),
)


@st.composite
def _spliced(draw: st.DrawFn) -> bytes:
    """Draw the documented inventory with bytes replaced by others."""
    data = INVENTORY
    for _ in range(draw(st.integers(1, 2))):
        start = draw(st.integers(0, len(data)))
        data = data[:start] + draw(_TOKENS) + data[start + draw(st.integers(0, 12)) :]
    return data


@settings(max_examples=150)
@given(_INVENTORIES)
def test_any_documented_inventory_is_taken_alike_by_both_paths(plain: dict[str, Any]) -> None:
    """Whatever the documents allow is an inventory, and reads back from what is written of it."""
    body = json.dumps(plain).encode()
    inventory = CONVERTER.loads(body, Inventory)
    assert _outcome(CONVERTER._explain, body, Inventory) == ("taken", repr(inventory))
    assert CONVERTER.loads(CONVERTER.dumps(inventory), Inventory) == inventory
    written = CONVERTER.unstructure(inventory)
    assert [item.keys() for item in written["items"]] == [item.keys() for item in _ordered(plain["items"])]


def _ordered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [field.name for field in attrs.fields(Item)]
    return [{name: item[name] for name in names if name in item} for item in items]


@settings(max_examples=300)
@given(_broken())
def test_a_broken_inventory_is_judged_alike_by_both_paths(data: bytes) -> None:
    """Both take it as the same value, or both refuse it for the same reasons."""
    assert _outcome(CONVERTER.loads, data, Inventory) == _outcome(CONVERTER._explain, data, Inventory)


@settings(max_examples=400)
@example(INVENTORY.replace(b"8.50", b"1e99999999999999999999"))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": 1e99999999999999999999'))
@example(INVENTORY.replace(b"8.50", b'"x", "x": 1e99999999999999999999'))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": "\xff"'))
@example(INVENTORY.replace(b"8.50", b'8.50, "\xed\xa0\x80": 1'))
@example(INVENTORY.replace(b"8.50", b'8.50, "x": "\\ud800"'))
@example(INVENTORY + b"\x00")
@given(_spliced())
def test_spliced_bytes_are_judged_alike_by_both_paths(data: bytes) -> None:
    """Whatever the network makes of an answer, the fast path takes nothing that the other one refuses."""
    assert _outcome(CONVERTER.loads, data, Inventory) == _outcome(CONVERTER._explain, data, Inventory)


@settings(max_examples=200)
@given(st.binary(max_size=40), st.sampled_from([Inventory, Item, Content, Attribute, list[str], Decimal, datetime]))
def test_arbitrary_bytes_are_a_value_or_a_decode_error(data: bytes, cls: Any) -> None:
    """No bytes make the converter raise anything else."""
    assert _outcome(CONVERTER.loads, data, cls) == _outcome(CONVERTER._explain, data, cls)


@given(_JSON, st.sampled_from([str, bool, int, float, Decimal, datetime, ItemSource, str | int | float, list[int]]))
def test_any_value_of_any_type_is_judged_alike_by_both_paths(value: object, kind: Any) -> None:
    """The paths agree field type by field type, in a user's class without validators too."""
    assume(value is not None)
    body, holder = json.dumps({"value": value}).encode(), _holder(kind)
    assert _outcome(CONVERTER.loads, body, holder) == _outcome(CONVERTER._explain, body, holder)


def test_a_literal_is_one_of_its_values() -> None:
    """The value itself is taken, and `True` is not taken for 1."""
    kind = typing.cast("type[Any]", typing.Literal["a", 1])
    assert [CONVERTER.loads(b'"a"', kind), CONVERTER.loads(b"1", kind)] == ["a", 1]
    with pytest.raises(DecodeError):
        CONVERTER.loads(b"true", kind)


# How much is told of what is wrong


def test_a_body_full_of_bad_items_is_described_up_to_a_bound() -> None:
    """A hostile body of a few hundred kilobytes must not take a gigabyte to explain."""
    body = b'{"user_id":"u","items":[' + b",".join([b"{}"] * 20_000) + b"]}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, Inventory)
    problems = caught.value.problems
    assert len(problems) <= 10_001
    assert problems[0] == "$.items[0].id: missing"
    assert "more" in problems[-1]


def test_so_many_bad_places_that_the_rest_is_not_looked_at() -> None:
    """The list says so where it stops, and is complete up to there."""
    body = b'{"user_id":7,"items":[' + b",".join([b"null"] * 5_001) + b"]}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, Inventory)
    assert "$.items: so many places are bad that the rest was not looked at" in caught.value.problems
    assert "$.items[4999]: expected an object, got null" in caught.value.problems
    assert "$.user_id: expected a string, got an integer" in caught.value.problems


def test_one_item_full_of_bad_places_is_described() -> None:
    """Where the bound is met inside an item, what was described of it is not thrown away."""
    attributes = ",".join(['{"trait_type":"a","value":null}'] * 6_000)
    item = '{"id":7,"content":{"metadata":{"name":"n","image":"i","attributes":[' + attributes + "]}}}"
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(b'{"user_id":"u","items":[%s]}' % item.encode(), Inventory)
    assert "$.items[0].id: expected a string, got an integer" in caught.value.problems
    assert len(caught.value.problems) > 5_000


def test_each_number_out_of_range_is_named() -> None:
    """A range is checked field by field: one that is exceeded hides no other."""
    body = b'[{"id":"p","name":"n","enable":true,"in_stock":true,"max_per_mint":"x","mint_price":1e20,"ev":1e20}]'
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(body, tuple[Pack, ...])
    assert sorted(problem.partition(":")[0] for problem in caught.value.problems) == [
        "$[0].ev",
        "$[0].max_per_mint",
        "$[0].mint_price",
    ]


def test_a_place_whose_name_looks_like_a_path_is_told_right() -> None:
    """Names in the vendor's objects may be anything."""
    with pytest.raises(DecodeError) as caught:
        build_converter().loads(b'{"a @ $b": 1e999}', dict[str, float])
    assert caught.value.problems == ("$['a @ $b']: the number is out of range",)


class Usd(Decimal):
    """A subclass of an application's."""


class Moment(datetime):
    """A subclass of an application's."""


def test_subclasses_of_numbers_and_times_are_made() -> None:
    """A field that asks for one gets one."""
    converter = build_converter()
    usd = converter.loads(b"8.50", Usd)
    assert (type(usd), usd) == (Usd, Decimal("8.50"))
    moment = converter.loads(b'"2026-04-18T19:05:14.000Z"', Moment)
    assert (type(moment), moment) == (Moment, datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC))


def test_a_hook_registered_by_predicate_serves_decimals_too() -> None:
    """As on any cattrs converter; and one registered after the first use is used from then on."""
    converter = build_converter()
    assert converter.loads(b"8.5", Decimal) == Decimal("8.5")
    converter.register_structure_hook_func(lambda cls: cls is Decimal, lambda _value, _cls: Decimal(7))
    assert converter.loads(b"8.5", Decimal) == Decimal(7)
    inventory = converter.loads(fixture_bytes("inventory.json"), Inventory)
    assert inventory.items[0].buyback_price == Decimal(7)


@pytest.mark.parametrize("cls", [deque[str], collections.OrderedDict[str, str], collections.Counter[str]])
def test_collections_that_cattrs_would_make_of_anything_are_refused(cls: Any) -> None:
    """Unasked, `deque` is made of a string, and `Counter` of a list."""
    with pytest.raises(TypeError, match="register a structure hook"):
        build_converter().loads(b'"5"', cls)


T = TypeVar("T")


@frozen
class Box(Generic[T]):
    """A generic class of an application's."""

    value: T


def test_generic_classes_are_structured() -> None:
    """With the type that fills them, as strictly as any."""
    converter = build_converter()
    assert converter.loads(b'{"value":[1,2]}', Box[list[int]]) == Box([1, 2])
    with pytest.raises(DecodeError):
        converter.loads(b'{"value":["1"]}', Box[list[int]])
