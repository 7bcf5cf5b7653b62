"""One JSON form for a thing, however it is wrapped."""

from __future__ import annotations

import enum
import json
from decimal import Decimal
from typing import Any, Generic, TypeVar

import attrs
import pytest

from phygitals_async import (
    AddressRejected,
    Batch,
    ConnectionLost,
    Destination,
    Failed,
    Found,
    Inventory,
    Item,
    ItemSource,
    OutcomeUnknown,
    Pack,
    PhygitalsError,
    Pull,
    PurchasePending,
    RateLimited,
    Request,
    Sandbox,
    UserNotFound,
    build_converter,
    diff_inventories,
)
from phygitals_async.models import Card, ChaseCard, Metadata, PurchasedItem
from structuring_support import CONVERTER, INVENTORY, UserId
from support import fixture_json

FOUND = CONVERTER.loads(INVENTORY, Inventory)
PLAIN = CONVERTER.unstructure(FOUND)

V = TypeVar("V")


@attrs.frozen
class _Box(Generic[V]):
    value: V


@attrs.frozen
class _Loose:
    value: Any


@attrs.frozen
class _Vague:
    value: object


@attrs.frozen
class _Typed:
    value: Inventory | None


@attrs.frozen
class _Many:
    value: tuple[Inventory, ...]


@attrs.frozen
class _Named:
    value: dict[str, list[Inventory]]


def _untyped(value: object) -> Any:
    """Return an instance of a class whose field has no type."""
    return attrs.make_class("Untyped", ["value"])(value)


def _missing() -> PhygitalsError:
    error = UserNotFound(status=404, message="User not found")
    error.describe("get_inventory", {"user_id": "user_b"}, 2)
    return error


MISSING = {
    "class": "UserNotFound",
    "operation": "get_inventory",
    "status": 404,
    "message": "404 User not found",
    "sent": "yes",
    "attempts": 2,
}


@pytest.mark.parametrize(
    ("wrapped", "plain"),
    [
        (Found("user_a", FOUND), {"key": "user_a", "value": PLAIN}),
        (Failed("user_b", _missing()), {"key": "user_b", "error": MISSING}),
        (
            Batch((Found("user_a", FOUND), Failed("user_b", _missing()))),
            {"outcomes": [{"key": "user_a", "value": PLAIN}, {"key": "user_b", "error": MISSING}]},
        ),
        (_missing(), MISSING),
        ([_missing(), FOUND], [MISSING, PLAIN]),
        ((FOUND,), [PLAIN]),
        ({"a": FOUND}, {"a": PLAIN}),
        (_Box(FOUND), {"value": PLAIN}),
        (_Loose(FOUND), {"value": PLAIN}),
        (_Vague(FOUND), {"value": PLAIN}),
        (_Typed(FOUND), {"value": PLAIN}),
        (_Typed(None), {"value": None}),
        (_Many((FOUND,)), {"value": [PLAIN]}),
        (_Named({"a": [FOUND]}), {"value": {"a": [PLAIN]}}),
        (_untyped(FOUND), {"value": PLAIN}),
        (_Box(_Box([Decimal("8.50")])), {"value": {"value": [8.5]}}),
        (diff_inventories(Inventory("user_abc123", ()), FOUND),
         {"added": PLAIN["items"], "removed": [], "repriced": []}),
    ],
)  # fmt: skip
def test_a_thing_has_one_form_whatever_it_is_wrapped_in(wrapped: object, plain: object) -> None:
    """As plain values and as bytes alike."""
    assert CONVERTER.unstructure(wrapped) == plain
    assert json.loads(CONVERTER.dumps(wrapped)) == plain
    assert json.loads(json.dumps(CONVERTER.unstructure(wrapped))) == plain


def test_an_outcome_reads_back_as_it_was() -> None:
    """A found inventory survives a queue."""
    outcome = Found("user_a", FOUND)
    assert CONVERTER.loads(CONVERTER.dumps(outcome), Found[str, Inventory]) == outcome


@attrs.frozen(kw_only=True)
class _TaggedItem(Item):
    tag: str


def test_a_subclass_keeps_its_fields_in_a_field_of_its_base() -> None:
    """What a value is decides, and not how the field is declared."""
    item = _TaggedItem(tag="new", **{a.name: getattr(FOUND.items[0], a.name) for a in attrs.fields(Item)})
    inventory = Inventory("u", (item,))
    assert CONVERTER.unstructure(inventory)["items"] == [CONVERTER.unstructure(item)]
    assert CONVERTER.unstructure(item)["tag"] == "new"


class _Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize("value", [ItemSource.EBAY, ItemSource("comic"), _Colour.RED])
def test_an_enum_of_texts_is_its_text(value: enum.StrEnum) -> None:
    """Alone, in a list and in a field: its plain value is a plain string."""
    for plain in (
        CONVERTER.unstructure(value),
        CONVERTER.unstructure([value])[0],
        CONVERTER.unstructure(_Loose(value))["value"],
        CONVERTER.unstructure(attrs.make_class("Holder", {"value": attrs.field(type=type(value))})(value))["value"],
    ):
        assert (type(plain), plain) == (str, value.value)


@attrs.frozen
class _Id:
    value: UserId


def test_a_hook_for_a_type_of_ones_own_is_honoured() -> None:
    """Where the field's type tells how to write its value, that is how it is written; else the value's own hook."""
    converter = build_converter()
    converter.register_unstructure_hook(UserId, lambda value: f"user:{value}")
    converter.register_unstructure_hook(Decimal, str)
    assert converter.unstructure(_Id(UserId("x"))) == {"value": "user:x"}
    assert converter.unstructure(Found("a", FOUND))["value"]["items"][0]["buyback_price"] == "8.50"


# Nulls


@pytest.mark.parametrize(
    ("cls", "fields", "absent"),
    [
        (Item, ["type", "collection_address", "token_standard", "mint_address", "claw_slug"], None),
        (PurchasedItem, ["type", "collection_address", "token_standard", "mint_address"], None),
        (ChaseCard, ["image", "back_image", "fmv"], None),
        (Card, ["image", "back_image", "fmv"], None),
        (Pull, ["claw_slug", "value"], None),
        (Pack, ["min_ev", "max_ev"], None),
        (Metadata, ["image", "back_image", "attributes"], "attributes"),
    ],
)
def test_a_null_that_was_read_is_written(cls: Any, fields: list[str], absent: str | None) -> None:
    """Fields that may be null are None where they are, and null again on the way out."""
    plain = {**_documented(cls), **dict.fromkeys(fields)}
    model = CONVERTER.loads(json.dumps(plain).encode(), cls)
    assert [getattr(model, name) for name in fields] == [() if name == absent else None for name in fields]
    written = CONVERTER.unstructure(model)
    assert {name: written[name] for name in fields} == dict.fromkeys(fields)
    assert CONVERTER.loads(CONVERTER.dumps(model), cls) == model


def _documented(cls: Any) -> dict[str, Any]:
    item = fixture_json("inventory.json")["items"][0]
    found: dict[Any, dict[str, Any]] = {
        Item: item,
        PurchasedItem: fixture_json("purchase-init.json")["nfts"][0],
        ChaseCard: fixture_json("packs-chase.json")[0],
        Card: fixture_json("card-get.json"),
        Pull: fixture_json("packs-recent-pulls.json")[0],
        Pack: fixture_json("packs-list.json")[0],
        Metadata: item["content"]["metadata"],
    }
    return found[cls]


def test_the_sandbox_writes_the_nulls_too() -> None:
    """Its items have every field that may be null, in inventories and in purchases."""
    sandbox = Sandbox(seed=1)
    sandbox.add_item("u", name="Mike Trout Base", buyback_price=Decimal("8.50"), type=ItemSource.EBAY)
    root = "https://api.phygitals.com/_/api/v1"
    key = {"X-API-Key": "sandbox-test", "Content-Type": "application/json"}
    owned = json.loads(sandbox(Request("GET", f"{root}/inventory/u", key)).body)["items"]
    order = {"id": sandbox.packs[1].id, "amount": 1, "user_id": "u"}
    bought = json.loads(sandbox(Request("POST", f"{root}/vm/buy/init", key, json.dumps(order).encode())).body)["nfts"]
    for item in (*owned, *bought):
        assert item["type"] == "ebay"
        nulls = ("mint_address", "collection_address", "token_standard")
        assert {name: item[name] for name in nulls} == dict.fromkeys(nulls)


# Errors

SUGGESTED = Destination(name="Jane", line1="1 Main St", city="Austin", country="US")


@pytest.mark.parametrize(
    ("error", "plain"),
    [
        (_missing(), MISSING),
        (
            ConnectionLost("the line went dead"),
            {"class": "ConnectionLost", "operation": None, "status": None, "message": "the line went dead",
             "sent": "unknown", "attempts": 0},
        ),
        (
            PurchasePending("still pending", session_id="s"),
            {"class": "PurchasePending", "operation": None, "status": None, "message": "still pending", "sent": "yes",
             "attempts": 0, "session_id": "s"},
        ),
        (
            OutcomeUnknown("lost", readable={"session_id": "s"}),
            {"class": "OutcomeUnknown", "operation": None, "status": None, "message": "lost", "sent": "unknown",
             "attempts": 0, "session_id": "s"},
        ),
        (
            OutcomeUnknown("lost", readable={"amount": Decimal("8.50")}),
            {"class": "OutcomeUnknown", "operation": None, "status": None, "message": "lost", "sent": "unknown",
             "attempts": 0},
        ),
        (
            RateLimited("429 slow down", status=429, retry_after=2.5),
            {"class": "RateLimited", "operation": None, "status": 429, "message": "429 slow down", "sent": "yes",
             "attempts": 0, "retry_after": 2.5},
        ),
        (
            RateLimited("429 slow down", status=429, retry_after=float("inf")),
            {"class": "RateLimited", "operation": None, "status": 429, "message": "429 slow down", "sent": "yes",
             "attempts": 0},
        ),
        (
            AddressRejected("400 no such street", suggestion=SUGGESTED),
            {"class": "AddressRejected", "operation": None, "status": 400, "message": "400 no such street",
             "sent": "yes", "attempts": 0,
             "suggestion": {"name": "Jane", "line1": "1 Main St", "city": "Austin", "country": "US"}},
        ),
        (
            AddressRejected("400 no such street", retry_after=0.0),
            {"class": "AddressRejected", "operation": None, "status": 400, "message": "400 no such street",
             "sent": "yes", "attempts": 0, "retry_after": 0.0},
        ),
    ],
)  # fmt: skip
def test_an_error_has_a_plain_form(error: PhygitalsError, plain: dict[str, Any]) -> None:
    """It is the form that the converter writes, and any encoder takes it."""
    assert error.to_dict() == CONVERTER.unstructure(error) == plain
    assert json.loads(json.dumps(error.to_dict())) == plain
