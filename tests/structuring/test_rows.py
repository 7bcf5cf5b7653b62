"""An answer of which some rows cannot be read: the others, and what is told of those."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from phygitals_async import (
    DecodeError,
    Inventory,
    Item,
    Pack,
    Pull,
    Rows,
    ShippingOrder,
    ShippingQuotes,
    Unreadable,
    build_converter,
)
from phygitals_async.models import ChaseCard, PurchaseAnswer, StartedPurchase
from structuring_support import CONVERTER, INVENTORY
from support import fixture_bytes, fixture_json


def refused(body: object, cls: Any, converter: Any = CONVERTER) -> DecodeError:
    """Load what cannot be loaded, and return the error."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(DecodeError) as caught:
        converter.loads(data, cls)
    return caught.value


def an_inventory(count: int) -> dict[str, Any]:
    """Return the documented inventory with `count` items of different ids."""
    plain: dict[str, Any] = fixture_json("inventory.json")
    plain["items"] = [{**copy.deepcopy(plain["items"][0]), "id": str(number)} for number in range(count)]
    return plain


def spoil(row: dict[str, Any], path: str, value: object) -> None:
    """Put a value, or nothing where it is `...`, at a dotted path of a row."""
    *way, last = path.split(".")
    for step in way:
        row = row[step]
    if value is ...:
        del row[last]
    else:
        row[last] = value


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("buyback_price", None, "expected a number or a numeric string, got null"),
        ("buyback_price", "free", "expected a number or a numeric string, got other text"),
        ("id", ..., "missing"),
        ("id", 5, "expected a string, got an integer"),
        ("purchased_at", None, "expected an ISO 8601 time, got null"),
        ("content", [], "expected an object, got an array"),
        ("content.metadata.name", "half an emoji \ud83d", "holds half a character, an unpaired surrogate"),
        ("type", "\udc00", "holds half a character, an unpaired surrogate"),
    ],
)
def test_one_bad_item_of_forty_costs_that_item(path: str, value: object, problem: str) -> None:
    """The others are in `partial`, and it says what it lacks: where, why, and as it was written."""
    plain = an_inventory(40)
    spoil(plain["items"][7], path, value)
    error = refused(plain, Inventory)
    told = f"$.items[7].{path}: {problem}"
    assert error.problems == (told,)
    assert [item.id for item in error.partial.items] == [str(number) for number in range(40) if number != 7]
    assert error.partial.unreadable == (Unreadable("$.items[7]", (told,), json.dumps(plain["items"][7])),)


@pytest.mark.parametrize(
    ("name", "cls", "field", "value", "problem"),
    [
        ("packs-list.json", tuple[Pack, ...], "max_per_mint", "10", "expected an integer, got a string"),
        ("packs-list.json", tuple[Pack, ...], "in_stock", ..., "missing"),
        ("packs-chase.json", tuple[ChaseCard, ...], "name", None, "expected a string, got null"),
        ("packs-chase.json", tuple[ChaseCard, ...] | None, "name", None, "expected a string, got null"),
        ("packs-recent-pulls.json", list[Pull], "created_at", None, "expected an ISO 8601 time, got null"),
    ],
)
def test_the_rows_of_an_array(name: str, cls: Any, field: str, value: object, problem: str) -> None:
    """They come as a tuple that tells what it lacks."""
    good = fixture_json(name)
    bad = copy.deepcopy(good[0])
    spoil(bad, field, value)
    error = refused([bad, *good], cls)
    told = f"$[0].{field}: {problem}"
    assert error.problems == (told,)
    assert type(error.partial) is Rows
    assert error.partial == tuple(CONVERTER.loads(json.dumps(good).encode(), cls))
    assert error.partial.unreadable == (Unreadable("$[0]", (told,), json.dumps(bad)),)


@pytest.mark.parametrize(
    ("name", "cls", "rows", "field"),
    [("ship-quote.json", ShippingQuotes, "quotes", "insured"), ("ship-order.json", ShippingOrder, "items", "name")],
)
def test_the_rows_of_quotes_and_orders(name: str, cls: Any, rows: str, field: str) -> None:
    """What else such an answer holds is kept with them."""
    plain = fixture_json(name)
    good = CONVERTER.loads(fixture_bytes(name), cls)
    plain[rows].append({**plain[rows][0], field: 5})
    partial = refused(plain, cls).partial
    assert attrs.evolve(partial, unreadable=()) == good
    assert [row.path for row in partial.unreadable] == [f"$.{rows}[{len(plain[rows]) - 1}]"]


def test_rows_of_any_kind_and_all_of_them() -> None:
    """Rows that are no objects are told as they are, and an answer may lack every row."""
    error = refused(b' { "user_id" : "u" , "items" : [ null ,5 , "x,]" , [ 1.50 , {} ] ] } ', Inventory)
    assert (error.partial.user_id, error.partial.items) == ("u", ())
    assert [row.raw for row in error.partial.unreadable] == ["null", "5", '"x,]"', "[ 1.50 , {} ]"]


def test_each_row_has_its_own_problems() -> None:
    """All that is wrong with a row is with that row."""
    plain = an_inventory(12)
    plain["items"][1].update(id=5, claw_id=None)
    plain["items"][11]["id"] = None
    first, second = refused(plain, Inventory).partial.unreadable
    assert first.problems == (
        "$.items[1].id: expected a string, got an integer",
        "$.items[1].claw_id: expected a string, got null",
    )
    assert second.problems == ("$.items[11].id: expected a string, got null",)


def test_of_repeated_rows_the_last_count() -> None:
    """What is told of a row is told of the one that was read."""
    item = json.dumps(fixture_json("inventory.json")["items"][0])
    body = f'{{"items":[5],"user_id":"u","items":[{item},{{"x":{{"items":1}}}}],"more":{{"items":[2]}}}}'
    partial = refused(body.encode(), Inventory).partial
    assert len(partial.items) == 1
    assert [(row.path, row.raw) for row in partial.unreadable] == [("$.items[1]", '{"x":{"items":1}}')]


@pytest.mark.parametrize(
    ("body", "cls"),
    [
        (b"<html>", Inventory),
        (b"null", Inventory),
        (b"[5]", Inventory),
        (b'{"user_id": 5, "items": []}', Inventory),
        (b'{"user_id": 5, "items": [5]}', Inventory),
        (b'{"user_id": "u"}', Inventory),
        (b'{"user_id": "u", "items": {}}', Inventory),
        (b"{}", tuple[Pack, ...]),
        (b"5", str | int),
        (b"[]", str | int),
        (b"[]", Item),
        (b'{"session_id": "s", "nfts": [5]}', StartedPurchase),
        (b'{"result": {"session_id": "s", "user_id": "u", "nfts": [5]}}', PurchaseAnswer),
    ],
)
def test_where_more_is_wrong_than_rows_there_is_no_part(body: bytes, cls: Any) -> None:
    """An answer is told in part only where all the rest of it is right; purchases and sellbacks never are."""
    try:
        value = CONVERTER.loads(body, cls)
    except DecodeError as error:
        assert error.partial is None  # noqa: PT017 - some of these are values.
    else:
        assert (body, value) == (b"5", 5)


def test_so_many_bad_rows_that_the_rest_was_not_looked_at() -> None:
    """What was not looked at is not passed off as readable."""
    assert refused(b'{"user_id":"u","items":[' + b",".join([b"null"] * 5_002) + b"]}", Inventory).partial is None


# Half a character


def test_half_a_character_spoils_its_row_and_no_other() -> None:
    """JSON can write it and nothing else can; it is neither replaced nor passed on."""
    plain = an_inventory(3)
    plain["items"][0]["content"]["metadata"]["name"] = "\U0001f600 whole"
    plain["items"][1]["content"]["metadata"]["name"] = "half \ud83d"
    error = refused(plain, Inventory)
    assert [item.name for item in error.partial.items] == ["\U0001f600 whole", "Juan Soto RC Auto /25"]
    (row,) = error.partial.unreadable
    assert "half \\ud83d" in row.raw
    assert row.raw.isascii()


def test_half_a_character_where_nobody_looks_is_ignored() -> None:
    """An unknown field may hold anything."""
    plain = an_inventory(2)
    plain["items"][0]["note"] = "\ud83d"
    plain["items"][1]["\ud83d"] = 1
    assert CONVERTER.loads(json.dumps(plain).encode(), Inventory) == CONVERTER.loads(
        json.dumps(an_inventory(2)).encode(), Inventory
    )


@pytest.mark.parametrize(
    "body",
    [
        b'"\\ud83d" x',
        b'["\\ud83d", NaN]',
        b'["\\ud83d", Infinity]',
        b'"\\ud83d',
        b'"\\ud83d\\u12"',
        b'"\\ud83d\xff"',
        b'["\\ud83d", ' + b"[" * 100_000,
    ],
)
def test_half_a_character_excuses_no_other_fault(body: bytes) -> None:
    """What is no JSON is none, whatever else is in it."""
    (problem,) = refused(body, list[str]).problems
    assert problem.startswith("$: not JSON: ")


@pytest.mark.parametrize(
    "value",
    ["\ud83d", ["\ud83d"], {"\ud83d": 1}, {"a": {"b": ["x", "\udc00"]}}],
)
def test_half_a_character_in_a_free_form_field(value: object) -> None:
    """A destination is an object of whatever was sent, in whole texts."""
    plain = {**fixture_json("ship-order.json"), "destination": {"line1": value, "n": 1.5, "ok": [True, None, "x"]}}
    error = refused(plain, ShippingOrder)
    assert error.problems[0].startswith("$.destination")
    assert error.problems[0].endswith(": holds half a character, an unpaired surrogate")
    assert refused({"\ud83d": 1}, dict[str, int]).problems == ("$: holds half a character, an unpaired surrogate",)


def test_numbers_beside_half_a_character_keep_their_digits() -> None:
    """The lenient parser is as exact as the usual one."""
    body = INVENTORY.replace(b"8.50", b'0.1234567890123456789012345678901234, "note": "\\uD83D"')
    assert str(CONVERTER.loads(body, Inventory).items[0].buyback_price) == "0.1234567890123456789012345678901234"


# Hooks and classes of one's own


@attrs.frozen
class _Tagged(Inventory):
    """A user's inventory, which inherits the list of what it lacks."""

    tag: str = "mine"


@attrs.frozen
class _Bare:
    """A user's inventory, which cannot tell what it lacks."""

    items: tuple[Item, ...]


def _for_inventories(hook: Callable[[Any, Any], Any]) -> Any:
    converter = build_converter()
    converter.register_structure_hook_func(lambda cls: cls is Inventory, lambda value, cls: hook(converter, value))
    return converter


def test_a_class_of_ones_own_tells_what_it_lacks() -> None:
    """The part is made by the same hooks as the whole."""
    converter = _for_inventories(lambda converter, value: converter.structure(value, _Tagged))
    plain = an_inventory(2)
    plain["items"][0]["id"] = 5
    partial = refused(plain, Inventory, converter).partial
    assert (type(partial), partial.tag, len(partial.items)) == (_Tagged, "mine", 1)
    assert [row.path for row in partial.unreadable] == ["$.items[0]"]


def test_a_class_that_cannot_tell_what_it_lacks_is_not_made() -> None:
    """Half an answer must not pass for a whole one."""
    converter = _for_inventories(lambda converter, value: converter.structure(value, _Bare))
    plain = an_inventory(2)
    plain["items"][0]["id"] = 5
    error = refused(plain, Inventory, converter)
    assert error.problems == ("$.items[0].id: expected a string, got an integer",)
    assert error.partial is None


# What it is made of


def test_rows_are_a_tuple() -> None:
    """They equal one, hash as one, and survive copies and pickles with what they tell."""
    missing = Unreadable("$[1]", ("$[1]: expected an object, got null",), "null")
    rows = Rows((1, 2), [missing])
    assert [rows == (1, 2), rows == (1,), hash(rows) == hash((1, 2))] == [True, False, True]
    assert (rows[0], rows[:1], len(rows), rows.unreadable) == (1, (1,), 2, (missing,))
    assert (Rows(), Rows().unreadable) == ((), ())
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(rows, protocol))  # noqa: S301 - our own bytes.
        assert (type(again), again, again.unreadable) == (Rows, rows, (missing,))
    for again in (copy.copy(rows), copy.deepcopy(rows)):
        assert (type(again), again, again.unreadable) == (Rows, rows, (missing,))
    with pytest.raises(AttributeError):
        rows.unreadable = ()  # type: ignore[misc]


def test_what_is_lacking_survives_the_way_out_and_in() -> None:
    """An inventory that was stored is as incomplete as it was; a complete one is written as ever."""
    plain = an_inventory(2)
    plain["items"][0]["id"] = 5
    partial = refused(plain, Inventory).partial
    assert CONVERTER.loads(CONVERTER.dumps(partial), Inventory) == partial
    assert CONVERTER.unstructure(partial)["unreadable"][0]["path"] == "$.items[0]"
    assert "unreadable" not in CONVERTER.unstructure(attrs.evolve(partial, unreadable=()))
    assert hash(partial) == hash(pickle.loads(pickle.dumps(partial)))  # noqa: S301 - our own bytes.
    assert json.loads(CONVERTER.dumps(Rows([partial.items[0]], partial.unreadable))) == [
        CONVERTER.unstructure(partial.items[0])
    ]
