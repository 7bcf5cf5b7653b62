"""Hooks and classes of one's own, as cattrs and attrs promise them."""

from __future__ import annotations

import collections
import json
import typing
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar

import attrs
import pytest
from attrs import frozen

from phygitals_async import (
    Attribute,
    DecodeError,
    Inventory,
    Item,
    ItemSource,
    Links,
    Metadata,
    PhygitalsClient,
    PhygitalsConverter,
    Response,
    build_converter,
)
from phygitals_async.models import ChaseCard
from phygitals_transports import MemoryTransport
from structuring_support import CONVERTER, INVENTORY, UserId, class_with, problems_told, with_nulls
from support import fixture_bytes, fixture_json

ITEM = json.dumps(fixture_json("inventory.json")["items"][0]).encode()


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
    problems = problems_told(converter.loads, body.replace(b'"new"', b"5"), Inventory)
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
    assert json.loads(copied.dumps(CONVERTER.loads(INVENTORY, Inventory))) == with_nulls(fixture_json("inventory.json"))


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
        assert load(b'{"value": ' + body + b"}", class_with(cls)).value == expected


def test_a_validator_of_ones_own_is_a_problem_of_the_answer() -> None:
    """What a validator refuses is a decode error with the validator's words."""
    (problem,) = problems_told(CONVERTER.loads, b'{"value": 10}', _Validated)
    assert problem == "$: value must be small"
    (problem,) = problems_told(CONVERTER.loads, b'[{"value": 1}, {"value": 10}]', list[_Validated])
    assert problem == "$[1]: value must be small"


@pytest.mark.parametrize(
    "kind", [str | datetime, datetime | Decimal, Links | Metadata, Links | str, int | list[int], Decimal | str | None]
)
def test_a_union_that_cannot_be_told_apart_is_a_clear_error(kind: Any) -> None:
    """The programmer is told to register a hook, once the type is first used, and with the union's name."""
    for cls in (kind, class_with(kind), list[kind], class_with(kind | None)):
        with pytest.raises(TypeError, match=r"register a structure hook for .*: only unions of JSON scalars"):
            CONVERTER.loads(b"null", cls)
    converter = build_converter()
    converter.register_structure_hook(kind, lambda value, _: value)
    assert converter.loads(b'{"value": "x"}', class_with(kind)).value == "x"


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
