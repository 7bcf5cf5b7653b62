"""The models: what they hold, what they refuse, and the documented payloads as them."""

from __future__ import annotations

import collections.abc
import copy
import importlib
import inspect
import json
import pickle
import pkgutil
import typing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from typing import Any

import attrs
import pytest

import phygitals_async
from phygitals_async import Found, Request, build_converter, models
from phygitals_async.models import (
    Attribute,
    Card,
    ChaseCard,
    Content,
    Destination,
    Inventory,
    Item,
    ItemSource,
    Links,
    Metadata,
    OrderStatus,
    Pack,
    Pull,
    Purchase,
    PurchaseAnswer,
    PurchasedItem,
    RarityTier,
    Sellback,
    ShippingAnswer,
    ShippingOrder,
    ShippingQuote,
    ShippingQuotes,
    StartedPurchase,
    Unreadable,
)
from phygitals_async.models.fields import ABSENT, OpenEnum
from structuring_support import with_nulls
from support import fixture_bytes, fixture_json

PULLED = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)
METADATA = Metadata("Juan Soto RC Auto /25", "front.png", None)
ITEM = Item(
    id="v1|110586049456|0",
    claw_id="BSG6Dy...",
    claw_slug=None,
    buyback_price=Decimal("8.50"),
    mint_address=None,
    purchased_at=PULLED,
    buyback_expires_at=PULLED + timedelta(days=7),
    content=Content(METADATA),
)
DESTINATION = Destination(name="Jane Doe", line1="123 Main St", city="Austin", country="US")
QUOTE = ShippingQuote(
    id="quote_1_rate_a",
    carrier="USPS",
    service="Priority Mail",
    amount=Decimal("9.75"),
    estimated_days_min=2,
    estimated_days_max=4,
    insured=True,
)
PURCHASED = PurchasedItem(id="a", buyback_price=Decimal(1), content=Content(METADATA))
PACK = Pack(id="p", name="Pack", enable=True, in_stock=True, mint_price=Decimal(100), max_per_mint=10)

# Those that callers see; the envelopes around them are taken off before.
_MODELS = [
    model for name in models.__all__ if name in phygitals_async.__all__ and attrs.has(model := getattr(models, name))
]


_DOCUMENTED: dict[str, Any] = {
    "card-get.json": Card,
    "inventory.json": Inventory,
    "packs-chase.json": tuple[ChaseCard, ...],
    "packs-list.json": tuple[Pack, ...],
    "packs-recent-pulls.json": tuple[Pull, ...],
    "purchase-init.json": StartedPurchase,
    "purchase-status-pending.json": PurchaseAnswer,
    "purchase-status.json": PurchaseAnswer,
    "sellback.json": Sellback,
    "ship-order.json": ShippingOrder,
    "ship-order.sandbox-queued.json": ShippingOrder,
    "ship-quote.json": ShippingQuotes,
    "ship-request.json": ShippingAnswer,
}


def _evolve(instance: Any, field: str, value: object) -> Any:
    return attrs.evolve(instance, **{field: value})


# The documented payloads


@pytest.mark.parametrize(("name", "model"), _DOCUMENTED.items())
def test_a_documented_payload_survives_the_way_in_and_out(name: str, model: Any) -> None:
    """Every field of the documents has a place in the model: what is written is what was read, and the nulls."""
    converter = build_converter()
    value = converter.loads(fixture_bytes(name), model)
    assert json.loads(converter.dumps(value)) == with_nulls(fixture_json(name))
    assert converter.loads(converter.dumps(value), model) == value
    assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301 - our own bytes.


def test_the_documented_inventory_reads_as_promised() -> None:
    """The lines of code that the documents show work on the documented payload."""
    inventory = build_converter().loads(fixture_bytes("inventory.json"), Inventory)
    (item,) = inventory.items
    assert (inventory.user_id, item.id, item.name) == ("user_abc123", "9XnY...mint_address", "Juan Soto RC Auto /25")
    assert str(item.buyback_price) == "8.50"
    assert item.purchased_at == PULLED
    assert item.purchased_at.tzinfo is UTC
    assert item.buyback_expires_at == PULLED + timedelta(days=7)
    assert item.content.metadata.attributes[0] == Attribute("Year", "2024")
    assert (item.type, item.collection_address, item.token_standard) == (None, None, None)
    assert inventory.total_buyback == Decimal("8.50")


# What all models are


@pytest.mark.parametrize("model", _MODELS, ids=lambda model: model.__name__)
def test_each_model_is_frozen_slotted_and_documents_its_fields(model: Any) -> None:
    """Models are values: nothing can be set on them, and each field is explained."""
    assert model.__slots__ is not None
    assert "__setattr__" in vars(model)
    for field in attrs.fields(model):
        assert f"    {field.name}: " in (inspect.getdoc(model) or ""), field.name


def test_a_model_cannot_be_changed() -> None:
    """Setting a field, known or not, raises."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        ITEM.buyback_price = Decimal(0)  # type: ignore[misc]
    with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
        ITEM.note = "x"  # type: ignore[attr-defined]


def test_models_are_values() -> None:
    """Equal items are equal and hash alike, so they can be counted, compared and kept in sets."""
    twin = copy.deepcopy(ITEM)
    assert twin == ITEM
    assert len({ITEM, twin, attrs.evolve(ITEM, id="other")}) == 2
    assert Inventory("u", (ITEM,)) == Inventory("u", (twin,))


@pytest.mark.parametrize(("name", "model"), _DOCUMENTED.items())
def test_each_model_of_a_documented_payload_hashes(name: str, model: Any) -> None:
    """A shipping order too, whose destination is an object; equal ones hash alike."""
    first, second = (build_converter().loads(fixture_bytes(name), model) for _ in range(2))
    assert len({first, second, copy.deepcopy(first)}) == 1


def test_an_order_to_another_place_is_another() -> None:
    """What is no part of the hash is part of the comparison."""
    order = build_converter().loads(fixture_bytes("ship-order.json"), ShippingOrder)
    other = attrs.evolve(order, destination={})
    assert order != other
    assert hash(order) == hash(other)


def _attrs_classes() -> set[type]:
    """Return the attrs classes of the library, private ones too."""
    modules = [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(phygitals_async.__path__, "phygitals_async.")
        if not module.name.endswith("__main__")
    ]
    return {
        value for module in modules for value in vars(module).values() if isinstance(value, type) and attrs.has(value)
    }


def test_every_frozen_class_hashes_or_claims_not_to() -> None:
    """No field that counts in a hash is of a type that has none."""
    unhashable = {dict, list, set, collections.abc.Mapping, collections.abc.Sequence, collections.abc.Set}
    frozen = {cls for cls in _attrs_classes() if vars(cls).get("__hash__") is not None}
    assert {Inventory, ShippingOrder, Request, Found, Unreadable} <= frozen
    bad = {
        f"{cls.__name__}.{field.name}"
        for cls in frozen
        for field in attrs.fields(attrs.resolve_types(cls))
        if field.eq and field.hash is not False and (typing.get_origin(field.type) or field.type) in unhashable
    }
    assert bad == set()


# Money


@pytest.mark.parametrize("price", ["8.50", "0", "-0.01", "0.000001", "999999999999999.99", "-999999999999999"])
def test_a_finite_price_is_taken_exactly(price: str) -> None:
    """The Decimal that is given is the one that is kept."""
    assert str(attrs.evolve(ITEM, buyback_price=Decimal(price)).buyback_price) == price


@pytest.mark.parametrize(
    "price",
    [
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("-Infinity"),
        Decimal(10) ** 15,
        -(Decimal(10) ** 15),
        Decimal("1E+999999"),
        8.5,
        8,
        True,
        "8.50",
        None,
    ],
)
def test_what_is_no_amount_of_money_is_refused(price: Any) -> None:
    """Arithmetic and printing can bear every price there is; a float is none."""
    with pytest.raises(ValueError, match=r"^buyback_price must be a finite Decimal"):
        attrs.evolve(ITEM, buyback_price=price)


@pytest.mark.parametrize(
    "make",
    [
        lambda amount: attrs.evolve(PURCHASED, buyback_price=amount),
        lambda amount: attrs.evolve(QUOTE, amount=amount),
        lambda amount: attrs.evolve(PACK, mint_price=amount),
        lambda amount: attrs.evolve(PACK, ev=amount),
        lambda amount: attrs.evolve(PACK, buyback_percent=amount),
        lambda amount: Sellback(success=True, amount=amount),
        lambda amount: RarityTier(id=0, name="Common", weight=amount),
        lambda amount: ChaseCard(id="a", name="A", fmv=amount),
        lambda amount: Card(id="a", name="A", image="", back_image=None, fmv=amount, metadata=METADATA),
        lambda amount: Pull(
            id="a",
            claw_id="p",
            claw_slug=None,
            value=amount,
            buyback_price=Decimal(1),
            created_at=PULLED,
            metadata=METADATA,
        ),
    ],
)
def test_every_amount_of_every_model_is_checked(make: Any) -> None:
    """No model lets an endless or a binary number in."""
    make(Decimal("8.50"))
    for amount in (Decimal("NaN"), Decimal("Infinity"), Decimal(10) ** 15, 8.5):
        with pytest.raises(ValueError, match="must be a finite Decimal"):
            make(amount)


def test_the_total_is_exact() -> None:
    """Ten dimes are a dollar, and nothing is nothing."""
    dimes = tuple(attrs.evolve(ITEM, buyback_price=Decimal("0.10")) for _ in range(10))
    assert str(Inventory("u", dimes).total_buyback) == "1.00"
    assert Inventory("u", ()).total_buyback == Decimal(0)


# Times


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(0)), timezone(timedelta(0), "Zulu")])
def test_a_time_in_utc_is_taken(zone: timezone) -> None:
    """Any zone without an offset is UTC."""
    assert attrs.evolve(ITEM, purchased_at=PULLED.replace(tzinfo=zone)).purchased_at == PULLED


@pytest.mark.parametrize("field", ["purchased_at", "buyback_expires_at"])
@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=2)), timezone(timedelta(seconds=-1))])
def test_a_time_without_a_zone_or_in_another_is_refused(field: str, zone: timezone | None) -> None:
    """Two times of two items can always be compared."""
    with pytest.raises(ValueError, match=f"^{field} must be an aware datetime in UTC$"):
        _evolve(ITEM, field, PULLED.replace(tzinfo=zone))


@pytest.mark.parametrize(
    ("seconds", "is_open"), [(-1, True), (0, True), (7 * 24 * 3600 - 1, True), (7 * 24 * 3600, False), (10**9, False)]
)
def test_the_sellback_offer_ends_at_its_time(seconds: int, is_open: bool) -> None:
    """It is open before its end, in whatever zone the moment is given, and for ever where it has none."""
    moment = (PULLED + timedelta(seconds=seconds)).astimezone(timezone(timedelta(hours=-7)))
    assert ITEM.sellback_open(moment) is is_open
    assert attrs.evolve(ITEM, buyback_expires_at=None).sellback_open(moment)


# Pictures and names


@pytest.mark.parametrize(
    ("image", "links", "expected"),
    [
        ("front.png", None, "front.png"),
        ("front.png", Links("mirror.png", None), "front.png"),
        ("", Links("mirror.png", None), "mirror.png"),
        ("", Links("", None), ""),
        ("", None, ""),
    ],
)
def test_the_picture_is_the_metadatas_or_else_the_mirrors(image: str, links: Links | None, expected: str) -> None:
    """The canonical picture wins; without any there is none."""
    item = attrs.evolve(ITEM, content=Content(attrs.evolve(METADATA, image=image), links))
    assert item.image == expected
    assert item.name == METADATA.name
    assert PURCHASED.name == METADATA.name


# Open enums


def test_a_known_source_is_the_member() -> None:
    """A documented text gives the one member, which equals the text."""
    assert ItemSource("ebay") is ItemSource.EBAY
    assert str(ItemSource.EBAY) == ItemSource("ebay").value == "ebay"
    assert [source.value for source in ItemSource] == ["enft", "ebay", "fanatics", "alt", "external"]


@pytest.mark.parametrize("text", ["comic", "EBAY", "", "two words", "été", "mro", "name"])
@pytest.mark.parametrize("enum", [ItemSource, OrderStatus])
def test_an_unknown_text_survives_in_an_open_enum(enum: type[OpenEnum], text: str) -> None:
    """It equals its text and its like, hashes, prints, copies and pickles as such, and joins no list."""
    known = list(enum)
    value = enum(text)
    assert isinstance(value, enum)
    assert value == text == value.value == str(value) == f"{value}"
    assert json.dumps(value) == json.dumps(text)
    assert value == enum(text)
    assert value not in known
    assert {text: 1}[value] == 1
    assert hash(value) == hash(text)
    assert repr(text) in repr(value)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - our own bytes.
        assert (type(again), again) == (enum, text)
    assert copy.deepcopy(value) == copy.copy(value) == value
    assert list(enum) == known
    match value:
        case ItemSource.EBAY | OrderStatus.QUEUED:
            raise AssertionError(value)
        case _:
            pass


@pytest.mark.parametrize("value", [None, 5, b"ebay", ["ebay"], True])
def test_what_is_no_text_is_no_source(value: Any) -> None:
    """Open to texts, closed to anything else."""
    with pytest.raises(ValueError, match="is not a valid ItemSource"):
        ItemSource(value)


@pytest.mark.parametrize("status", [*OrderStatus, OrderStatus("teleported")])
def test_which_orders_are_at_rest(status: OrderStatus) -> None:
    """Only an order that is delivered, cancelled or failed stays so."""
    assert status.is_terminal is (status.value in {"delivered", "cancelled", "failed"})


def test_absent_is_an_empty_tuple() -> None:
    """What the answer did not have behaves like an empty list of it."""
    assert ABSENT == ()
    assert METADATA.attributes is ABSENT
    assert [*METADATA.attributes] == []
    assert not ABSENT
    assert attrs.evolve(METADATA, attributes=()) == METADATA


def test_absent_stays_absent_through_a_copy_or_a_pickle() -> None:
    """An item that crosses a process boundary is written as it was read; one with a null in its place too."""
    converter = build_converter()
    for plain in (
        {"name": "n", "image": "i", "back_image": None},
        {"name": "n", "image": "i", "back_image": None, "attributes": None},
    ):
        metadata = converter.structure(plain, Metadata)
        for again in (copy.copy(metadata), copy.deepcopy(metadata), pickle.loads(pickle.dumps(metadata))):  # noqa: S301
            assert converter.unstructure(again) == plain


# Packs


@pytest.mark.parametrize(
    ("enable", "in_stock", "expected"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_a_pack_can_be_bought_when_enabled_and_in_stock(enable: bool, in_stock: bool, expected: bool) -> None:
    """Both flags must be set."""
    assert attrs.evolve(PACK, enable=enable, in_stock=in_stock).purchasable is expected


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], []),
        ([None], []),
        (["0", None], []),
        (["80", "15", "4", "1"], ["0.8", "0.15", "0.04", "0.01"]),
        (["3", "1"], ["0.75", "0.25"]),
        (["3", None, "1"], ["0.75", "0", "0.25"]),
        (["0.5"], ["1"]),
    ],
)
def test_the_odds_are_normalised(weights: list[str | None], expected: list[str]) -> None:
    """Weights need not sum to 100; a tier without one is never drawn; without any there are no odds."""
    tiers = tuple(
        RarityTier(id=number, name=f"tier {number}", weight=None if weight is None else Decimal(weight))
        for number, weight in enumerate(weights)
    )
    odds = attrs.evolve(PACK, rarity_distribution=tiers).odds
    assert [chance for _, chance in odds] == [Decimal(chance) for chance in expected]
    assert [tier for tier, _ in odds] == list(tiers)[: len(odds)]


# Purchases and shipping


def test_a_purchase_without_items_yet_is_a_purchase() -> None:
    """Production may leave the items out until the purchase is fulfilled."""
    assert StartedPurchase(session_id="s").nfts == ()
    assert Purchase(session_id="s", user_id="u", nfts=(PURCHASED,)).tx_hash is None


def test_the_cheapest_quote_is_found() -> None:
    """The lowest amount wins; of equals the first; of none, none."""
    dear, twin = attrs.evolve(QUOTE, id="dear", amount=Decimal(20)), attrs.evolve(QUOTE, id="twin")

    def cheapest(*quotes: ShippingQuote) -> ShippingQuote | None:
        return ShippingQuotes(session_id="quote_1", expires_at=PULLED, quotes=quotes).cheapest

    assert cheapest() is None
    assert cheapest(dear, QUOTE, twin) is QUOTE


def test_a_suggested_address_is_laid_over_the_given_one() -> None:
    """Known parts that are text replace those given; the rest stays."""
    merged = DESTINATION.merged({"line1": "123 Main Street", "state": "TX", "city": None, "country": 5, "planet": "X"})
    assert dict(merged.parts()) == {
        "name": "Jane Doe",
        "line1": "123 Main Street",
        "city": "Austin",
        "state": "TX",
        "country": "US",
    }
    assert DESTINATION.merged({}) == DESTINATION


NOW = datetime(2026, 4, 18, 19, 5, 14, tzinfo=UTC)


@pytest.mark.parametrize(
    ("own", "link", "expected"), [("own", "link", "own"), (None, "link", "link"), ("", None, None), (None, None, None)]
)
def test_pictures_come_from_the_links_where_the_metadata_has_none(
    own: str | None, link: str | None, expected: str | None
) -> None:
    """For items of an inventory and of a purchase alike."""
    content = Content(Metadata("Juan Soto", own or "", own), Links(link, link))
    purchased = PurchasedItem(id="a", buyback_price=Decimal(1), content=content)
    owned = Item(
        id="a", claw_id="p", buyback_price=Decimal(1), purchased_at=NOW, buyback_expires_at=None, content=content
    )
    for item in (purchased, owned):
        assert item.image == (expected or "")
        assert item.back_image == expected
    bare = PurchasedItem(id="a", buyback_price=Decimal(1), content=Content(Metadata("Juan Soto", "")))
    assert (bare.image, bare.back_image) == ("", None)


def test_the_total_is_exact_in_every_context() -> None:
    """Whatever precision the application's arithmetic has been given."""
    prices = [Decimal("123456.78"), Decimal("0.1234567890123456789012345678901234")]
    items = tuple(
        Item(
            id=str(price),
            claw_id="p",
            buyback_price=price,
            purchased_at=NOW,
            buyback_expires_at=None,
            content=Content(Metadata("x", "")),
        )
        for price in prices
    )
    with localcontext(prec=6):
        assert str(Inventory("u", items).total_buyback) == "123456.9034567890123456789012345678901234"
