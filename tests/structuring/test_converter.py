"""JSON to models and back: strict, open and exact."""

from __future__ import annotations

import enum
import json
import typing
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phygitals_async import (
    DecodeError,
    Inventory,
    Item,
    ItemSource,
    Links,
    Metadata,
)
from phygitals_async.models import ShippingOrder
from structuring_support import CONVERTER, INVENTORY, UserId, class_with, outcome_of, problems_told, with_nulls
from support import fixture_json


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


def _list_of(kind: Any) -> Any:
    return list[kind]


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
        (class_with(kind), f'{{"value": {body}}}', "$.value"),
        (class_with(list[kind]), f'{{"value": [{body}]}}', "$.value[0]"),
        (_list_of(class_with(kind)), f'[{{"value": {body}}}]', "$[0].value"),
    ):
        expected = (f"{path}: {problem}",)
        assert problems_told(CONVERTER.loads, wrapped.encode(), cls) == expected
        assert problems_told(CONVERTER._explain, wrapped.encode(), cls) == expected


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
    holder = class_with(kind)
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
    for cls, wrapped in ((kind, body), (class_with(kind), f'{{"value": {body}}}')):
        with pytest.raises((DecodeError, TypeError)):
            CONVERTER.loads(wrapped.encode(), cls)


@pytest.mark.parametrize("destination", ["", [], [["line1", "x"]], "line1", None, 5])
def test_a_destination_is_an_object(destination: object) -> None:
    """The one free-form field of the models is held to being an object."""
    plain = fixture_json("ship-order.json") | {"destination": destination}
    (problem,) = problems_told(CONVERTER.loads, json.dumps(plain).encode(), ShippingOrder)
    assert problem.startswith("$.destination: expected an object, got ")


def test_an_int_enum_is_the_same_on_both_paths() -> None:
    """Either both take a number for an enum of numbers, or neither does."""
    assert outcome_of(CONVERTER.loads, b"10", _Grade) == outcome_of(CONVERTER._explain, b"10", _Grade)
    body = b'{"value": 10}'
    assert outcome_of(CONVERTER.loads, body, class_with(_Grade)) == outcome_of(
        CONVERTER._explain, body, class_with(_Grade)
    )


# Bodies that are no JSON, or numbers beyond all measure


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"x", b"nul", b"NaN", b"Infinity", b"-Infinity", b"01", b"+1", b"'a'", b"1,", b'"\xff"'],
)
@pytest.mark.parametrize("kind", [str, Decimal, float, Inventory, list[Item]])
def test_what_is_no_json_is_a_decode_error(body: bytes, kind: Any) -> None:
    """The body as a whole is blamed, whatever was expected."""
    (problem,) = problems_told(CONVERTER.loads, body, kind)
    assert problem.startswith("$: not JSON: ") or (problem, body) == ("$: the body is empty", b"")


@pytest.mark.parametrize("number", ["1e99999999999999999999", "-1e99999999999999999999", "1e-99999999999999999999"])
@pytest.mark.parametrize("kind", [str, int, float, Decimal, Inventory, str | int | float])
def test_a_number_that_nothing_can_hold_is_a_decode_error(number: str, kind: Any) -> None:
    """An exponent beyond even `Decimal` is a problem of the answer, never an error of arithmetic."""
    for cls, body, path in (
        (kind, number, "$"),
        (class_with(kind), f'{{"value": {number}}}', "$.value"),
        (class_with(str), f'{{"value": 5, "unknown": {number}}}', "$.value"),
    ):
        if "e-" in number and cls is not class_with and _may_be_zero(kind):
            continue
        problems = problems_told(CONVERTER.loads, body.encode(), cls)
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
    problems = problems_told(CONVERTER.loads, body, Inventory)
    assert problems == problems_told(CONVERTER._explain, body, Inventory)
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
    """What the answer did not have is not written; an empty list is, and so is the null in the place of one."""
    plain: dict[str, Any] = {"name": "n", "image": "i", "back_image": None}
    for document in (plain, plain | {"attributes": []}, plain | {"attributes": None}):
        for load in (CONVERTER.loads, CONVERTER._explain):
            metadata = load(json.dumps(document).encode(), Metadata)
            assert metadata.attributes == ()
            assert CONVERTER.unstructure(metadata) == document


def test_the_inventory_fixture_survives_the_way_in_and_out() -> None:
    """What is written equals what was read, and has the nulls."""
    inventory = CONVERTER.loads(INVENTORY, Inventory)
    assert CONVERTER.unstructure(inventory) == with_nulls(fixture_json("inventory.json"))
    assert json.loads(CONVERTER.dumps(inventory)) == with_nulls(fixture_json("inventory.json"))
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
